"""The dial: a budget as a person types it becomes seconds of this machine or training FLOPs, with every step said and sourced.

    5 min, 1 h 30 min               time on this machine
    1e19 flop, 2 pf-days            training FLOPs, wherever they are spent
    1000 chip-hours on a100-80      chips for hours; also 24 h on 8xh100
    $100 on 8xh100                  money on named hardware; also $100 on h100 at 2.10/h

Time stays time: only a measurement can say what this machine does in it. Everything else becomes FLOPs of training, through the
catalogue's price and peak and the utilisation that whole runs reach.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openhearth.budget_text import LONGEST, budget_seconds, say_seconds
from openhearth.errors import HearthError, RecipeError, nearest
from openhearth.plan.quantities import WHOLE, price_per_hour, say, say_usd

NOMINAL_RATE = 1e11
"""FLOP/s of a laptop's training, to guess how long a budget of FLOPs takes before anything is measured."""

FASTEST_RATE = 5e12
"""FLOP/s that no two to sixty-four cores exceed in training: a budget that takes too long even so is refused at once."""

LEAST_FLOPS, MOST_FLOPS = 1e11, 1e30
"""Below, no model learns anything; above, nobody has the machines."""

FLOPS_OF = {
    **{prefix + unit: size for prefix, size in (("", 1.0), ("kilo", 1e3), ("mega", 1e6), ("giga", 1e9), ("tera", 1e12), ("peta", 1e15),
       ("exa", 1e18), ("zetta", 1e21), ("yotta", 1e24), ("m", 1e6), ("g", 1e9), ("t", 1e12), ("p", 1e15), ("e", 1e18), ("z", 1e21))
       for unit in ("flop", "flops")},
    **dict.fromkeys(("pf-days", "pf-day", "pflop-days", "pflops-days", "petaflop-days", "petaflop/s-days", "pfd"), 1e15 * 86_400),
}  # fmt: skip
"""Units of compute. A PF-day is 1e15 FLOP/s for a day (Amodei and Hernandez 2018)."""

EXAMPLES = '"5 min", "1e15 flop", "100 chip-hours on h100" or "$100 on 8xh100"'

_NUMBER = rf"(?P<number>[+-]?(?:{WHOLE}\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?))\s*(?P<suffix>[kmbt](?![a-z]))?"
_FLOPS = re.compile(rf"{_NUMBER}\s*(?P<unit>[a-z/-]*(?:flop|pf-?d)[a-z/-]*)(?P<more>.*)", re.DOTALL | re.ASCII)
_CHIPS = re.compile(rf"{_NUMBER}\s*(?:chip|gpu|tpu|accelerator)[ -]?(?P<unit>hours?|h|days?)(?P<more>.*)", re.DOTALL | re.ASCII)
_MONEY = re.compile(
    rf"(?:(?:\$|usd)\s*{_NUMBER}|{_NUMBER.replace('?P<', '?P<b_')}\s*(?:\$|usd|dollars?))(?P<more>.*)", re.DOTALL | re.ASCII
)
_FOREIGN = re.compile(r"[€£¥]|\b(?:eur|gbp|euros?|pounds?|yen|cny|inr)\b")
_ON = re.compile(r"\s*on\s+(?P<hardware>[\w.x×*-]+?)(?:\s+at\s+(?P<price>.+?))?\s*", re.DOTALL | re.ASCII)
_TIME_ON = re.compile(rf"(?P<time>[^$]*?)\s+on\s+(?P<hardware>(?:{WHOLE}\s*[x×*]\s*)?[a-z][\w.-]*)\s*", re.DOTALL | re.ASCII)


@dataclass(frozen=True)
class Budget:
    """What was typed, and what it comes to: either `seconds` of this machine or training `flops`."""

    text: str
    seconds: float | None = None
    flops: float | None = None
    why: tuple[str, ...] = ()
    """How the text became FLOPs, a sentence a step; empty for time."""
    usd: float | None = None
    chip_hours: float | None = None
    chips: int | None = None
    device: str | None = None

    @property
    def nominal_seconds(self) -> float:
        """The seconds, or for FLOPs a rough guess of them, by which vocabulary and context are chosen before anything is measured."""
        if self.seconds is not None:
            return self.seconds
        assert self.flops is not None
        return max(20.0, self.flops / NOMINAL_RATE)

    def require_here(self) -> None:
        """Raise RecipeError when no machine like this one could spend the budget in its lifetime."""
        if self.flops is not None and self.flops > FASTEST_RATE * LONGEST:
            years = self.flops / NOMINAL_RATE / (365.25 * 86_400)
            raise RecipeError(
                f"{self.text!r} is {self.flops:.3g} FLOPs, about {say(years)} years of training on a machine like this one; "
                f"see what it buys with: hearth plan optimal --flops {self.flops:.3g}"
            )


def read_budget(text: str) -> Budget:
    """What a budget comes to. Raises RecipeError (without a place: the caller knows where the text stood)."""
    plain = " ".join(text.strip().lower().split())
    shown = repr(text if len(text) <= 60 else text[:57] + "...")
    if len(plain) > 100:
        raise RecipeError(f"{shown}: not a budget; write {EXAMPLES}")
    if re.search(r"\d,(?!\d{3}(?!\d))", plain):
        raise RecipeError(f"{shown}: a comma groups thousands, as in 1,500; write decimals with a point")
    if _FOREIGN.search(plain):
        raise RecipeError(f"{shown}: prices are in USD; write money as in '$100 on 8xh100'")
    try:
        if found := _FLOPS.fullmatch(plain):
            return _of_flops(text, shown, found)
        if found := _CHIPS.fullmatch(plain):
            return _of_chips(text, shown, found)
        if found := _MONEY.fullmatch(plain):
            return _of_money(text, shown, found)
        if found := _TIME_ON.fullmatch(plain):
            return _of_time_on(text, found)
    except RecipeError:
        raise
    except HearthError as error:
        raise RecipeError(f"{shown}: {error}") from None
    return Budget(text, seconds=budget_seconds(text))


def _number(found: re.Match[str], shown: str, what: str) -> float:
    groups = found.groupdict()
    number, suffix = (groups.get("number") or groups.get("b_number") or ""), (groups.get("suffix") or groups.get("b_suffix") or "")
    value = float(number.replace("_", "").replace(",", "")) * {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[suffix]
    if not value > 0 or value == float("inf"):
        raise RecipeError(f"{shown}: {what} must be a finite number above zero")
    return value


def _bounded(flops: float, shown: str) -> float:
    if not LEAST_FLOPS <= flops <= MOST_FLOPS:
        raise RecipeError(f"{shown}: {flops:.3g} FLOPs; a budget lies between {LEAST_FLOPS:.0e} and {MOST_FLOPS:.0e}")
    return flops


def _of_flops(text: str, shown: str, found: re.Match[str]) -> Budget:
    unit = found["unit"].strip()
    if unit not in FLOPS_OF:
        raise RecipeError(f"{shown}: unknown unit '{unit}'{nearest(unit, FLOPS_OF)}; write 1e19 flop or 2 pf-days")
    if found["more"].strip():
        raise RecipeError(f"{shown}: FLOPs are the same everywhere; leave out '{found['more'].strip()}'")
    value = _bounded(_number(found, shown, "FLOPs") * FLOPS_OF[unit], shown)
    why = (f"{text.strip()} is {value:.3g} training FLOPs.",) if FLOPS_OF[unit] != 1 else ()
    return Budget(text, flops=value, why=why)


def _hardware(shown: str, more: str, what: str) -> tuple[int, str, str | None]:
    from openhearth.plan.quantities import count_and_device

    found = _ON.fullmatch(more)
    if found is None:
        raise RecipeError(f"{shown}: {what} needs hardware to be spent on; write {EXAMPLES}")
    count, device = count_and_device(found["hardware"], "on")
    return count, device, found["price"]


def _of_chips(text: str, shown: str, found: re.Match[str]) -> Budget:
    hours = _number(found, shown, "chip-hours") * (24.0 if found["unit"].startswith("day") else 1.0)
    chips, device, _ = _hardware(shown, found["more"], "a budget of chip-hours")
    flops, why = _spent(hours, device)
    return Budget(text, flops=_bounded(flops, shown), why=tuple(why), chip_hours=hours, chips=chips, device=device)


def _of_money(text: str, shown: str, found: re.Match[str]) -> Budget:
    from openhearth.plan import catalogue

    usd = _number(found, shown, "money")
    chips, device, price = _hardware(shown, found["more"], "money")
    known = catalogue.device(device)
    if price is not None:
        rate, source = price_per_hour(price, "at"), "as given"
    else:
        quoted = known.price
        if quoted is None:
            raise RecipeError(f"{shown}: the catalogue has no price of {known.id}; give one: '{text.strip()} at 2.10/h'")
        rate, source = quoted.typical, f"the catalogue's typical price, {quoted.date}"
    hours = usd / rate
    flops, why = _spent(hours, device)
    first = f"{say_usd(usd)} at {rate:.2f} USD per {known.id} and hour ({source}) is {say(hours)} chip-hours."
    return Budget(text, flops=_bounded(flops, shown), why=(first, *why), usd=usd, chip_hours=hours, chips=chips, device=device)


def _of_time_on(text: str, found: re.Match[str]) -> Budget:
    from openhearth.plan.quantities import count_and_device

    chips, device = count_and_device(found["hardware"], "on")
    seconds = budget_seconds(found["time"])
    hours = chips * seconds / 3600
    flops, why = _spent(hours, device)
    first = f"{say_seconds(seconds)} on {chips:,} x {device} is {say(hours)} chip-hours."
    return Budget(text, flops=flops, why=(first, *why), chip_hours=hours, chips=chips, device=device)


def _spent(chip_hours: float, name: str) -> tuple[float, list[str]]:
    """FLOPs of training that chip-hours on a device come to, and why."""
    from openhearth.plan import catalogue, speed

    device = catalogue.device(name)
    precision, peak = device.training_peak()
    share = speed.typical_utilisation(device)
    flops = chip_hours * 3600 * peak * share
    why = (
        f"{say(chip_hours)} chip-hours at a dense {precision} peak of {peak / 1e12:,.0f} TFLOP/s ({device.id}) and {share:.0%} of it, "
        f"what whole runs typically reach, are {flops:.3g} training FLOPs."
    )
    return flops, [why]
