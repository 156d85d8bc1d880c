"""What chip-hours come to: kilowatt-hours, tonnes of CO2, money.

Three products, each with a stated source: energy = hours x watts x PUE (the building's overhead), CO2 = energy x the grid's intensity,
money = hours x price. The papers multiply the chips' thermal design power (Touvron et al. 2023, table 15); metered runs draw less per
chip, and their hosts add to it, so the default is 0.75 x TDP x 1.25. Everything takes arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.catalogue import Device, Price

Numbers = Any
"""A float, or an array of them."""

SHARE_OF_TDP = 0.75
"""Mean power of a chip in training over its thermal design power: StarCoder measured 280 of 400 W, Olmo 3 about 648 of 700 W."""
HOST = 1.25
"""Processors, memory, network and fans of the node, over the accelerators alone."""
PUE = 1.1
"""Power of the building over that of its computers, as LLaMA's and Llama 2's authors count."""
KG_PER_KWH = 0.385
"""CO2 equivalent of a kilowatt-hour: the mean of the United States that LLaMA's authors use. Between 0.02 (hydro) and 0.9 (coal)."""


@dataclass(frozen=True)
class Power:
    """How the energy of a chip-hour is counted."""

    watts: float
    """Per device, host included, before the building."""
    pue: float
    kg_per_kwh: float
    source: str


@dataclass(frozen=True)
class Cost:
    """Of so many chip-hours: energy in kWh, tonnes of CO2 equivalent, USD (None where no price or power is known)."""

    chip_hours: Numbers
    kwh: Numbers | None
    tco2e: Numbers | None
    usd: Numbers | None
    usd_low: Numbers | None
    usd_high: Numbers | None
    power: Power | None
    price: Price | None


def energy_kwh(chip_hours: Numbers, watts: float, pue: float = PUE) -> Numbers:
    """Kilowatt-hours of chips that draw `watts` each. LLaMA-65B: 1,022,362 h x 400 W x 1.1 = 449.8 MWh."""
    return _above_zero("chip_hours", chip_hours) * watts * pue / 1000


def carbon_tonnes(kwh: Numbers, kg_per_kwh: float = KG_PER_KWH) -> Numbers:
    """Tonnes of CO2 equivalent. LLaMA-65B: 449.8 MWh x 0.385 kg/kWh = 173.2 t."""
    return kwh * kg_per_kwh / 1000


def power(device: Device, *, watts: float | None = None, pue: float | None = None, kg_per_kwh: float | None = None) -> Power | None:
    """The power model of a device, or None where its design power is not known and `watts` is not given.

    `watts` given is taken as it is: --watts 400 with a PUE of 1.1 is how LLaMA's table counts an A100.
    """
    checked = {
        "watts": (watts, 0.1, 1e5),
        "pue": (pue, 1.0, 10.0),
        "carbon": (kg_per_kwh, 0.0, 5.0),
    }
    for name, (value, low, high) in checked.items():
        if value is not None and not low <= value <= high:  # also for NaN
            raise HearthError(f"--{name} {value}: must lie between {low:g} and {high:g}")
    factor = PUE if pue is None else pue
    carbon = KG_PER_KWH if kg_per_kwh is None else kg_per_kwh
    if watts is not None:
        return Power(watts, factor, carbon, f"{watts:g} W a device as given, PUE {factor:g}, {carbon:g} kg CO2e/kWh")
    if device.watts is None:
        return None
    said = f"{SHARE_OF_TDP:g} x {device.watts:g} W (TDP) x {HOST:g} (host), PUE {factor:g}, {carbon:g} kg CO2e/kWh"
    return Power(SHARE_OF_TDP * device.watts * HOST, factor, carbon, said)


def cost(chip_hours: Numbers, device: Device, *, power_model: Power | None = None, usd_per_hour: float | None = None) -> Cost:
    """Energy, CO2 and money of `chip_hours` on a device, by the catalogue's price or by `usd_per_hour`.

    Raises HearthError for hours at or below zero.
    """
    hours = _above_zero("chip_hours", chip_hours)
    model = power_model if power_model is not None else power(device)
    kwh = None if model is None else energy_kwh(hours, model.watts, model.pue)
    price = device.price if usd_per_hour is None else Price(usd_per_hour, usd_per_hour, usd_per_hour, "", "as given")
    return Cost(
        chip_hours=hours,
        kwh=kwh,
        tco2e=None if kwh is None or model is None else carbon_tonnes(kwh, model.kg_per_kwh),
        usd=None if price is None else hours * price.typical,
        usd_low=None if price is None else hours * price.low,
        usd_high=None if price is None else hours * price.high,
        power=model,
        price=price,
    )


def _above_zero(name: str, value: Numbers) -> Numbers:
    if not np.all(np.asarray(value, float) > 0) or not np.all(np.isfinite(value)):
        raise HearthError(f"{name} {value}: must be a finite number above zero")
    return value


def energy(
    chip_hours: Numbers,
    on: str,
    *,
    watts: float | None = None,
    pue: float | None = None,
    kg_per_kwh: float | None = None,
    usd_per_hour: float | None = None,
) -> dict[str, Any]:
    """Energy, CO2 and money of chip-hours on a device of the catalogue, as plain values; keys in docs/plan/hardware.md.

    `chip_hours` may be an array. Raises HearthError for an unknown device, and where neither its power nor `watts` is known.
    """
    from openhearth.plan.catalogue import parse

    _, device = parse(on)
    model = power(device, watts=watts, pue=pue, kg_per_kwh=kg_per_kwh)
    if model is None:
        raise HearthError(f"the catalogue has no power of {device.id}; give it: --watts 300")
    bill = cost(chip_hours, device, power_model=model, usd_per_hour=usd_per_hour)
    assert bill.kwh is not None
    return {
        "device": device.id,
        "chip_hours": bill.chip_hours,
        "watts": model.watts,
        "pue": model.pue,
        "kg_per_kwh": model.kg_per_kwh,
        "power_source": model.source,
        "kwh": bill.kwh,
        "mwh": bill.kwh / 1000,
        "tco2e": bill.tco2e,
        "usd": bill.usd,
        "usd_low": bill.usd_low,
        "usd_high": bill.usd_high,
        "usd_per_hour": None if bill.price is None else bill.price.typical,
        "price_date": None if bill.price is None else bill.price.date or None,
        "price_source": None if bill.price is None else bill.price.source,
    }
