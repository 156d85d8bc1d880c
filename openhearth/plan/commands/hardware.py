"""`hearth plan hardware`: the catalogue, a line a device, and what is odd about it. `hearth plan energy`: what chip-hours come to."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Any

from openhearth.errors import HearthError
from openhearth.plan.catalogue import GIB, hardware
from openhearth.plan.quantities import count, price_per_hour, say_usd


def hardware_command(name: str | None = None, *, json: bool = False) -> int:
    """Print the catalogue, or one device with its sources."""
    found = hardware(name)
    for each in found:
        for question in each["questions"]:
            print(f"warning: {each['origin']}: {question}", file=sys.stderr)
    if json:
        print(jsonlib.dumps(found, indent=2, ensure_ascii=False))
    elif name is not None:
        _one(found[0])
    else:
        _table(found)
    return 0


def _table(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for head, side in (
        ("device", "left"), ("bf16", "right"), ("fp8", "right"), ("GB", "right"), ("TB/s", "right"), ("W", "right"), ("USD/h", "right"),
        ("dated", "left"),
    ):  # fmt: skip
        table.add_column(head, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for each in found:
        peaks, price = each["peak_tflops"], each["usd_per_hour"]
        table.add_row(
            Text.assemble(each["id"], ("" if each["origin"] == "catalogue" else " *", "bold")),
            *(
                f"{peaks[kind]:,.0f}" if peaks.get(kind, 0) >= 100 else f"{peaks[kind]:g}" if kind in peaks else "-"
                for kind in ("bf16", "fp8")
            ),
            f"{each['memory_bytes'] / GIB:,.0f}" if each["memory_bytes"] else "-",
            f"{each['memory_bandwidth'] / 1e12:.3g}" if each["memory_bandwidth"] else "-",
            f"{each['watts']:,.0f}" if each["watts"] else "-",
            f"{price['typical']:.2f}" if price else "-",
            Text(each["price_date"] or "", style="dim"),
        )
    console.print(table)
    console.print()
    for line in (
        "Peaks are dense TFLOP/s: with 2:4 sparsity sheets print twice as much, which training does not use.",
        "Devices without bf16 (V100, T4) train in fp16. USD/h is the typical offer at its date; --json has the cheapest and the dearest.",
        "hearth plan hardware NAME shows one with its sources. Your own rows: ~/.config/openhearth/accelerators.csv, same columns "
        "(or $OPENHEARTH_ACCELERATORS); they are marked *.",
    ):
        console.print(Text(line, style="dim"), soft_wrap=True)


def _one(each: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    price = each["usd_per_hour"]
    bandwidth = f", {each['memory_bandwidth'] / 1e12:.3g} TB/s" if each["memory_bandwidth"] else ""
    offers = "not known: --price"
    if price:
        offers = f"{price['low']:.2f} to {price['high']:.2f}, typical {price['typical']:.2f}; {each['price_date']}"
    peaks = ", ".join(f"{kind} {peak:,.5g}" for kind, peak in each["peak_tflops"].items())
    rows = [
        ("name", f"{each['name']} ({each['vendor']}{', ' + str(each['year']) if each['year'] else ''})"),
        ("also", ", ".join(each["aliases"])),
        ("dense peaks, TFLOP/s", peaks),
        ("memory", f"{each['memory_bytes'] / GIB:,.0f} GB{bandwidth}"),
        ("links, one direction", f"{each['link_bytes_per_second'] / 1e9:,.0f} GB/s in a node of {each['devices_per_node']}, "
         f"{each['network_bytes_per_second'] * 8 / 1e9:,.0f} Gb/s between nodes"),
        ("design power", f"{each['watts']:,.0f} W" if each["watts"] else "not known"),
        ("USD per hour", offers),
        ("  seen at", each["price_source"] or ""),
        ("specification from", each["spec_source"]),
        ("not checked", ", ".join(each["unverified"])),
        ("mind", each["note"]),
        ("row from", each["origin"]),
    ]  # fmt: skip
    console.print(Text(each["id"], style="bold"))
    for label, value in rows:
        if value:
            console.print(Text.assemble((f"  {label:<22}", "dim"), value), soft_wrap=True)


def energy_command(
    *,
    on: str,
    chip_hours: str | None,
    watts: float | None = None,
    pue: float | None = None,
    carbon: float | None = None,
    price: str | None = None,
    json: bool = False,
) -> int:
    """Print kWh, CO2 and money of chip-hours."""
    from openhearth.plan.cost import energy

    if chip_hours is None:
        raise HearthError("--chip-hours is missing: devices times hours, as in --chip-hours 1022362 --on a100-80")
    hours = count(chip_hours, "--chip-hours", low=1e-6, high=1e12, unit="hours")
    usd = None if price is None else price_per_hour(price)
    facts = energy(hours, on, watts=watts, pue=pue, kg_per_kwh=carbon, usd_per_hour=usd)
    if json:
        print(jsonlib.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    print(f"{hours:,.0f} hours of {facts['device']}: {_energy(facts['mwh'])}, {_tonnes(facts['tco2e'])} CO2e")
    print(f"  {facts['power_source']}")
    if facts["usd"] is not None:
        spread = "" if facts["usd_low"] == facts["usd_high"] else f" ({say_usd(facts['usd_low'])} to {say_usd(facts['usd_high'])})"
        dated = f", {facts['price_date']}" if facts["price_date"] else ""
        print(f"  {say_usd(facts['usd'])}{spread} at {facts['usd_per_hour']:.2f} USD per device and hour ({facts['price_source']}{dated})")
    return 0


def _tonnes(tonnes: float) -> str:
    return f"{tonnes:,.1f} t" if tonnes >= 1 else f"{tonnes * 1000:,.4g} kg"


def _energy(mwh: float) -> str:
    return f"{mwh / 1000:,.4g} GWh" if mwh >= 10_000 else f"{mwh:,.1f} MWh" if mwh >= 1 else f"{mwh * 1000:,.4g} kWh"
