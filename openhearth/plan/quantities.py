"""Quantities as people type them: '1.3T' tokens, '70B' parameters, '5.76e23' FLOPs, '2048xa100-80', '2.10/h'. And as they are said.

One parser for every option and table of this room, so that a wrong unit or a number out of bounds gives the same one line everywhere.
"""

from __future__ import annotations

import math
import re

from openhearth.errors import HearthError

SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12, "p": 1e15}
"""Of counts: thousand, million, billion, trillion."""

WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d[\d_]*)"
"""Digits as people group them. A comma stands before three digits: '1,5T' is refused, since it may mean 1.5 as well as 15."""
_COUNT = re.compile(
    rf"\s*([+-]?(?:{WHOLE}\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?))\s*([a-z]*\s*[a-z]*)\s*", re.IGNORECASE | re.ASCII
)
_ON = re.compile(rf"\s*(?:({WHOLE})\s*[x×*]\s*)?([a-z][\w.-]*)\s*", re.IGNORECASE | re.ASCII)
_PRICE = re.compile(
    r"\s*(?:\$|usd)?\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(?:usd|\$)?\s*(?:/|per)\s*([a-z-]+)\s*", re.IGNORECASE | re.ASCII
)
_HOURS = {**dict.fromkeys(("h", "hr", "hour", "chip-hour", "gpu-hour"), 1.0), **dict.fromkeys(("d", "day"), 24.0)}


def count(text: str | float, what: str, *, low: float = 0.0, high: float = math.inf, unit: str = "") -> float:
    """A number with an optional suffix (k, M, B, T) and an optional unit word that must be `unit` ('flop', 'tokens').

    `what` names the option in errors; the number must lie above 0 and between `low` and `high`. Raises HearthError.
    """
    shown = f"{what} {text}" if len(str(text)) <= 40 else f"{what} {str(text)[:37]}..."
    found = _COUNT.fullmatch(str(text))
    suffix = "".join(found[2].lower().split()) if found else ""
    words = {word for word in (unit, unit.rstrip("s"), unit.rstrip("s") + "s") if word}
    for word in sorted(words, key=len, reverse=True):
        if suffix.endswith(word):
            suffix = suffix[: -len(word)]
            break
    if found is None or suffix not in SUFFIXES:
        comma = ", with a point for decimals" if "," in str(text) else ""
        raise HearthError(f"{shown}: not a number; write it as 5.76e23, 70B or 1.3T{comma}")
    value = float(found[1].replace("_", "").replace(",", "")) * SUFFIXES[suffix]
    if not math.isfinite(value):
        raise HearthError(f"{shown}: must be a finite number")
    if value <= 0:
        raise HearthError(f"{shown}: must be above zero")
    if not low <= value <= high:
        raise HearthError(f"{shown}: out of bounds; it must lie between {low:.3g} and {high:.3g}{' ' + unit if unit else ''}")
    return value


def flops(text: str | float, what: str = "--flops") -> float:
    """A budget of training FLOPs, between 1e15 and 1e30: outside no law says anything."""
    return count(text, what, low=1e15, high=1e30, unit="flops")


def count_and_device(text: str, what: str = "--on") -> tuple[int, str]:
    """'2048xa100-80' as (2048, 'a100-80'); a device alone is one of it. The catalogue knows whether the device exists."""
    found = _ON.fullmatch(text)
    if found is None:
        raise HearthError(f"{what} {text[:40]}: not hardware; write it as 8xh100 or 2048xa100-80")
    number = int((found[1] or "1").replace("_", "").replace(",", ""))
    if not 1 <= number <= 10_000_000:
        raise HearthError(f"{what} {text[:40]}: {number} devices; between 1 and 10,000,000 are planned for")
    return number, found[2].lower()


def price_per_hour(text: str, what: str = "--price") -> float:
    """'2.10/h' as USD per device and hour. A number without '/h' is refused: it could be the price of anything."""
    found = _PRICE.fullmatch(text)
    if found is None or found[2].lower() not in _HOURS:
        raise HearthError(f"{what} {text[:40]}: not a price; write USD per device and hour as 2.10/h")
    value = float(found[1]) / _HOURS[found[2].lower()]
    if not 0 < value <= 10_000:
        raise HearthError(f"{what} {text[:40]}: a price must lie above 0 and at most at 10,000 USD per hour")
    return value


def say(value: float, digits: int = 3) -> str:
    """'73.2B', '1.31T', '5.76e+23' for what is beyond names."""
    if not math.isfinite(value):
        return str(value)
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 9.995e14:
            return f"{value:.{digits}g}"
        if abs(value) >= size * (1 - 0.5 * 10.0**-digits):
            return f"{float(f'{value / size:.{digits}g}'):g}{name}"
    return f"{value:.{digits}g}"


def say_usd(value: float) -> str:
    """'$1.02M', '$640', '$0.04'."""
    return f"${value:.2f}" if abs(value) < 10 else f"${float(f'{value:.3g}'):,.0f}" if abs(value) < 1e5 else f"${say(value)}"
