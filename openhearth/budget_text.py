"""Reading a budget that a person typed ("5 min", "1 h 30 min", "0.5 hours"), and writing seconds the way a person says them.

A time is a sum of numbers with units. Whatever else is typed is refused with the units that are known: a number without a unit would be
a guess. Money, chip-hours and FLOPs are read by `plan/budgets.py`, which comes here for time.
"""

from __future__ import annotations

import math
import re

from openhearth.errors import RecipeError, nearest

SHORTEST = 20.0
LONGEST = 30 * 86_400.0
EXAMPLES = '"90 s", "5 min" or "1 h 30 min"'

_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:nan|inf(?:inity)?)"  # \d takes the digits of every script
_PART = re.compile(rf"\s*(?P<number>{_NUMBER})\s*(?P<unit>[a-zµ]*)\.?(?:\s*(?:,|and\b)(?=\s*\S))?\s*")
_MONEY = re.compile(r"[$€£¥]|\b(?:usd|eur|gbp|dollars?|euros?)\b")
_COMPUTE = re.compile(r"flop|\b(?:gpu|tpu|chip)s?\b|[0-9]+\s*x\s*[a-z]+[0-9]|\b[ahb][0-9]{2,3}s?\b")


def budget_seconds(text: str) -> float:
    """Seconds of a budget; raises RecipeError (without a place: the caller knows where the text stood)."""
    plain = text.strip().lower()
    if not plain:
        raise RecipeError(f"a budget is missing; write {EXAMPLES}")
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    if _MONEY.search(plain) or _COMPUTE.search(plain):
        raise RecipeError(f"{shown}: not a time; write {EXAMPLES}, or '$100 on 8xh100', '100 chip-hours on h100', '1e15 flop'")
    if len(plain) > 100:
        raise RecipeError(f"{shown}: not a time; write {EXAMPLES}")
    total, at = 0.0, 0
    used: set[float] = set()
    while at < len(plain):
        part = _PART.match(plain, at)
        if part is None:
            raise RecipeError(f"{shown}: not a time; write {EXAMPLES}")
        number, unit = float(part["number"]), part["unit"]
        if not math.isfinite(number):
            raise RecipeError(f"{shown}: a budget must be a finite number; write {EXAMPLES}")
        if number < 0:
            raise RecipeError(f"{shown}: a budget cannot be negative")
        if not unit:
            raise RecipeError(f"{shown}: {part['number']} of which unit? write {part['number']} s, min, h or days")
        if unit not in _UNITS:
            raise RecipeError(f"{shown}: unknown unit '{unit}'{nearest(unit, _UNITS)}; the units are s, min, h and days")
        if _UNITS[unit] in used:
            raise RecipeError(f"{shown}: the unit '{unit}' stands twice")
        used.add(_UNITS[unit])
        total += number * _UNITS[unit]
        at = part.end()
    if total < SHORTEST:
        raise RecipeError(f"{shown}: too short; the smallest budget is {say_seconds(SHORTEST)}")
    if total > LONGEST:
        raise RecipeError(f"{shown}: too long; the largest budget is {say_seconds(LONGEST)}")
    return total


def say_seconds(seconds: float) -> str:
    """'0.8 s', '42 s', '4 min 52 s', '1 h 30 min', '2 days 3 h'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s" if whole != 60 else "1 min"
    for name, size, next_name, next_size in (("min", 60, "s", 1), ("h", 3_600, "min", 60), ("days", 86_400, "h", 3_600)):
        if whole < size * (60 if name == "min" else 24) or name == "days":
            large, rest = divmod(whole, size)
            small = rest // next_size
            plain = f"{large} {name}".replace("1 days", "1 day") if large == 1 else f"{large} {name}"
            return f"{plain} {small} {next_name}" if small else plain
    raise AssertionError(seconds)


def clock(seconds: float) -> str:
    """'1:05' or '1:02:05', for figures that change while they are read."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3_600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
