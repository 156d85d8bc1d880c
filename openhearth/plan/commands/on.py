"""`hearth plan RECIPE --on HARDWARE`: read what is asked, plan, and say it: time and money, the layout and why, memory, loss."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.plan.quantities import count, price_per_hour, say, say_usd

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

GIB = 2.0**30
BAR = 64
"""Characters of a bar of memory."""
MARKS = "█▓▒░▚▞▪"
COLOURS = ("blue", "cyan", "green", "yellow", "magenta", "red", "white")


def on_command(
    model: str,
    *,
    on: str | None = None,
    tokens: str | None = None,
    active: str | None = None,
    sequence_length: str | None = None,
    batch_tokens: str | None = None,
    precision: str | None = None,
    optimizer: str = "adamw",
    layout: str | None = None,
    mfu: float | None = None,
    peak: float | None = None,
    convention: str = "full",
    price: str | None = None,
    watts: float | None = None,
    pue: float | None = None,
    carbon: float | None = None,
    unique_tokens: str | None = None,
    law: str | None = None,
    json: bool = False,
    plot: Path | None = None,
) -> int:
    """Plan, print, and draw the bars of memory if asked. Raises HearthError on anything that cannot be followed."""
    if plot is not None:
        from openhearth.plan import pictures

        pictures.check(plot)
    from openhearth.plan.recipes import recipe

    def number(text: str | None, what: str, low: float, high: float, unit: str) -> float | None:
        return None if text is None else count(text, what, low=low, high=high, unit=unit)

    length = number(sequence_length, "--sequence-length", 1, 1e8, "tokens")
    facts = recipe(
        model,
        on=on,
        tokens=number(tokens, "--tokens", 1e6, 1e18, "tokens"),
        active_parameters=number(active, "--active", 1e5, 1e15, "parameters"),
        sequence_length=None if length is None else round(length),
        batch_tokens=number(batch_tokens, "--batch-tokens", 1, 1e10, "tokens"),
        precision=precision,
        optimizer=optimizer,
        layout_text=layout,
        mfu=mfu,
        peak_tflops=peak,
        convention=convention,
        usd_per_hour=None if price is None else price_per_hour(price),
        watts=watts,
        pue=pue,
        kg_per_kwh=carbon,
        unique_tokens=number(unique_tokens, "--unique-tokens", 1e6, 1e18, "tokens"),
        law=law,
    )
    if plot is not None:
        _draw(plot, facts)
    for warning in facts["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if json:
        from openhearth.plan.commands.optimal import finite

        print(jsonlib.dumps(finite(facts), indent=2, ensure_ascii=False))
    else:
        show(facts)
    return 0


def show(facts: Mapping[str, Any]) -> None:
    """Print it."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    mixture = facts["active_parameters"] != facts["parameters"]
    active = f", {say(facts['active_parameters'])} of them active" if mixture else ""
    console.print(
        Text.assemble(
            (facts["model"], "bold"), f"  {say(facts['parameters'])} parameters{active}, {say(facts['tokens'])} tokens on ",
            (f"{facts['devices']:,} x {facts['device_name']}", "bold"), f", {facts['precision']}",
        ),
        soft_wrap=True,
    )  # fmt: skip
    flops = facts["training_flops"]
    for line in (
        f"{flops['full']:.4g} training FLOPs ({flops['6n']:.4g} by 6ND), sequences of {facts['sequence_length']:,}, "
        f"batches of {say(facts['batch_tokens'])} tokens, {facts['steps']:,.0f} steps",
        *(f"note: {note}" for note in facts["notes"]),
    ):
        console.print(Text(line, style="dim"), soft_wrap=True)
    console.print()
    _cases(console, facts)
    console.print()
    _layout(console, facts)
    console.print()
    for line in learned(facts):
        console.print(Text(line), soft_wrap=True)


def _cases(console: Console, facts: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    given = facts["mfu_source"] == "as given"
    table = Table(box=None, padding=(0, 3, 0, 0), show_edge=False, header_style="dim")
    table.add_column("")
    cases = ("typical",) if given else ("best", "typical")
    for name in cases:
        table.add_column("as given" if given else f"{name} case", justify="right", no_wrap=True)
    rows: list[tuple[str, Any]] = [
        ("time", lambda case: _days(case["days"])),
        ("device hours", lambda case: f"{case['chip_hours']:,.0f}" if case["chip_hours"] >= 100 else f"{case['chip_hours']:.3g}"),
        ("utilisation (MFU)", lambda case: f"{case['mfu']:.1%}"),
        ("tokens per second and device", lambda case: f"{case['tokens_per_second_per_device']:,.0f}"),
    ]
    if facts["price"] is not None:
        rows.append(("money", lambda case: say_usd(case["usd"])))
        if facts["price"]["low"] != facts["price"]["high"]:
            rows.append(("  cheapest to dearest offer", lambda case: f"{say_usd(case['usd_low'])} to {say_usd(case['usd_high'])}"))
    if facts["power"] is not None:
        rows += [("energy", lambda case: _energy(case["mwh"])), ("CO2 equivalent", lambda case: _tonnes(case["tco2e"]))]
    for label, cell in rows:
        table.add_row(label, *(cell(facts[name]) for name in cases))
    console.print(table)
    lines = []
    if not given:
        share = facts["typical_share"]
        low, high = facts["typical_days"]
        lines.append(
            f"best: a step as the fastest published software does it. typical: whole runs reach {share['median']:.2f} of that (median of "
            f"{share['runs']} published runs; half of them {share['low']:.2f} to {share['high']:.2f}, here {_days(low)} to {_days(high)})."
        )
    price, power = facts["price"], facts["power"]
    if price is None:
        lines.append(f"no price of {facts['device']} in the catalogue: --price 2.10/h.")
    else:
        dated = f", {price['date']}" if price["date"] else ""
        lines.append(
            f"money: {price['typical']:.2f} USD per device and hour{dated} ({price['source']}); staff, storage and failed runs not counted."
        )
    if power is not None:
        lines.append(f"energy: {power['source']}.")
    stated = facts["stated"]
    if stated is not None and stated["chip_hours"]:
        lines.append(
            f"the authors report {stated['chip_hours']:,.0f} device hours"
            + (f" on {stated['hardware']}" if stated["hardware"] else "")
            + (f", {stated['energy_mwh']:,.0f} MWh" if stated["energy_mwh"] else "")
            + (f", {stated['carbon_tonnes']:,.0f} t CO2e" if stated["carbon_tonnes"] else "")
            + "."
        )
    for line in lines:
        console.print(Text(line, style="dim"), soft_wrap=True)


def _layout(console: Console, facts: Mapping[str, Any]) -> None:
    from rich.text import Text

    chosen, held = facts["layout"], facts["memory"]
    many = f", {chosen['micro_batches']} micro-batch{'es' if chosen['micro_batches'] > 1 else ''} a step"
    console.print(Text.assemble("layout: ", (chosen["in_words"], "bold"), many), soft_wrap=True)
    for line in chosen["why"]:
        console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    total = sum(facts["step_seconds"].values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in facts["step_seconds"].items() if value >= 0.005 * total)
    console.print(Text(f"  a step's time: {shares}", style="dim"), soft_wrap=True)
    console.print()
    parts = {name: value for name, value in held.items() if name not in ("total", "limit")}
    fits = "fits" if chosen["fits"] else "does NOT fit"
    console.print(f"memory of a device: {held['total'] / GIB:,.1f} GiB of {held['limit'] / GIB:,.1f} that may be filled, {fits}")
    console.print(bar(parts, held["limit"]), soft_wrap=True)
    console.print(legend(parts), soft_wrap=True)
    if facts["would_not_fit"]:
        console.print("what would not fit:")
        for each in facts["would_not_fit"]:
            said = f"  {each['what']}: {each['bytes'] / GIB:,.1f} GiB, {each['over'] / GIB:,.1f} too many ({each['in_words']})"
            console.print(Text(said, style="dim"), soft_wrap=True)


def bar(parts: Mapping[str, float], limit: float) -> Text:
    """One stacked bar; its frame is what may be filled. Ends are rounded so that the whole is right to a character."""
    from rich.text import Text

    scale = BAR / max(limit, sum(parts.values()))
    text, done, drawn = Text("["), 0.0, 0
    for mark, colour, value in zip(MARKS, COLOURS, parts.values(), strict=True):
        done += value
        width = round(done * scale) - drawn
        text.append(mark * width, style=colour)
        drawn += width
    edge = round(limit * scale)
    text.append("·" * max(0, edge - drawn), style="dim")
    return text.append("]" if drawn <= edge else "> too much")


def legend(parts: Mapping[str, float]) -> Text:
    """Which mark is which part, with its GiB."""
    from rich.text import Text

    text = Text("  ")
    for mark, colour, (name, value) in zip(MARKS, COLOURS, parts.items(), strict=True):
        if value / GIB >= 0.005:
            text.append(mark, style=colour).append(f" {name} {value / GIB:,.2f}  ")
    return text


def learned(facts: Mapping[str, Any]) -> Sequence[str]:
    """Loss, data, returns: what the time and money buy, in sentences."""
    law, data = facts["law"], facts["data"]
    between = "" if law["interval"] is None else f" ({law['interval'][0]:.3f} to {law['interval'][1]:.3f})"
    beyond = f"; extrapolates {law['extrapolates_decades']:.1f} decades" if law["extrapolates_decades"] > 0.05 else ""
    lines = [
        f"loss: {law['loss']:.3f} nats per token{between} by the law {law['name']}{beyond}. The best split of the same compute: "
        f"{say(law['optimal_parameters'])} parameters on {say(law['optimal_tokens'])} tokens, {law['optimal_loss']:.3f}."
    ]
    if facts["active_parameters"] != facts["parameters"]:
        lines.append("  the laws were fitted to dense models: counted with active parameters, the loss is an upper estimate.")
    if data["unique_tokens"] is not None:
        lines.append(
            f"data: {data['epochs']:.2f} passes over {say(data['unique_tokens'])} unique tokens are worth {say(data['worth_tokens'])} "
            "fresh ones."
        )
    else:
        passes = ", ".join(f"{each['name']} ({say(each['tokens'])}) {_passes(each['passes'])}" for each in data["corpora"])
        lines.append(f"data: {say(facts['tokens'])} tokens are of {passes}.")
    if law["twice_the_tokens"] is not None:
        lines.append(
            f"returns: twice the tokens gain {law['twice_the_tokens']:.4f} nats, another billion {law['another_billion_tokens']:.6f}; "
            f"what holds the model back most is its {'size' if law['bottleneck'] == 'parameters' else 'data'}."
        )
    larger = law["four_times_the_size"]
    if larger is not None:
        tie = larger["tokens_to_tie"]
        after = f"this size is as good after {say(tie)} tokens" if tie < 1e18 else "no number of tokens makes this size as good"
        lines.append(
            f"four times the size, same tokens: {larger['nats']:.3f} nats better (perplexity -{larger['perplexity']:.1%}) for 4 times the "
            f"compute; {after}."
        )
    return lines


def _passes(value: float) -> str:
    return f"{value:.2f} passes" if value >= 1 else f"{value:.1%}"


def _days(days: float) -> str:
    if days >= 730:
        return f"{days / 365.25:,.1f} years"
    return f"{days:,.1f} days" if days >= 2 else f"{days * 24:.1f} hours" if days * 24 >= 2 else f"{days * 1440:.1f} minutes"


def _energy(mwh: float) -> str:
    return f"{mwh / 1000:,.2f} GWh" if mwh >= 10_000 else f"{mwh:,.1f} MWh" if mwh >= 10 else f"{mwh * 1000:,.1f} kWh"


def _tonnes(tonnes: float) -> str:
    return f"{tonnes:,.1f} t" if tonnes >= 10 else f"{tonnes * 1000:,.1f} kg"


def _draw(file: Path, facts: Mapping[str, Any]) -> None:
    from openhearth.plan import pictures

    held = facts["memory"]
    own = {name: value for name, value in held.items() if name not in ("total", "limit")}
    bars = [(f"chosen\n{facts['layout']['short']}", own)]
    bars += [(f"{each['what']}\n{each['short']}", each["memory"]) for each in facts["would_not_fit"]]
    drawn = [name for name in own if any(parts[name] >= 0.005 * GIB for _, parts in bars)]
    bars = [(label, {name: parts[name] for name in drawn}) for label, parts in bars]
    pictures.memory_bars(
        file,
        title=f"{facts['model']} on {facts['devices']:,} x {facts['device_name']}",
        bars=bars,
        limit=held["limit"],
        limit_label=f"{held['limit'] / GIB:.1f} GiB may be filled",
        note=f"sequences of {facts['sequence_length']:,}, batches of {say(facts['batch_tokens'])} tokens, {facts['precision']}, "
        f"{facts['optimizer']}",
    )
