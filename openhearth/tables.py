"""`hearth show` and `hearth runs`: the ledger and the list of runs as tables for a terminal or a pipe."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openhearth.budget_text import say_seconds
from openhearth.ledger import Json
from openhearth.report import quantity

DIGITS = 8
"""Of a digest in a table; --json has them whole."""


def ledger(facts: Json) -> None:
    """The stages of a run: inputs, output, seconds, share of the total, tokens, FLOPs."""
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("from", overflow="fold")
    table.add_column("made", no_wrap=True)
    for name in ("seconds", "share", "tokens", "FLOPs"):
        table.add_column(name, justify="right", no_wrap=True)
    order = [stage["stage"] for stage in facts["stages"]]
    shown = {stage["stage"]: stage["digest"] for stage in facts["stages"]}
    for stage in facts["stages"]:
        inputs = ", ".join(  # by name; with the digest where it is not the one that this table shows
            kind if shown.get(kind) == digest else f"{kind} {digest[:DIGITS]}"
            for kind, digest in sorted(stage["inputs"].items(), key=lambda item: order.index(item[0]) if item[0] in order else -1)
        )
        table.add_row(
            stage["stage"] + ("*" if stage["resumed"] else ""),
            Text(inputs, style="dim"),
            stage["digest"][:DIGITS],
            f"{stage['seconds']:,.1f}",
            f"{stage['share']:.1%}",
            quantity(stage["tokens"]),
            _flops(stage["flops"]),
        )
    total = facts["total"]
    cells = [f"{total['seconds']:,.1f}", "100.0%", quantity(total["tokens"]), _flops(total["flops"])]
    table.add_row("total", "", "", *cells, style="bold")
    machine = facts["environment"]
    console.print(
        Text.assemble((facts["run"], "bold"), f" in {facts['folder']} · {facts['state']} · budget {facts['budget']} · {facts['date']}")
    )
    versions = " ".join(f"{name} {machine['packages'][name]}" for name in ("openhearth", "torch") if name in machine["packages"])
    console.print(Text(f"{machine['cpu']}, {machine['cores']} cores · {versions} · recipe {facts['recipe_digest'][:DIGITS]}", style="dim"))
    console.print()
    console.print(table)
    if any(stage["resumed"] for stage in facts["stages"]):
        console.print(Text("* was interrupted and went on; its seconds are those of all attempts", style="dim"))


def _flops(value: float | None) -> str:
    return "" if value is None else f"{value:.2e}"


def runs(folder: Path, found: list[Json]) -> None:
    """The list of runs, the newest first."""
    console = Console(highlight=False)
    if not found:
        console.print(Text(f"no runs in {folder}/; begin one with: hearth run"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name, justify in (
        ("run", "left"),
        ("state", "left"),
        ("budget", "right"),
        ("took", "right"),
        ("parameters", "right"),
        ("bits/byte", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=name != "state")  # type: ignore[arg-type]
    table.add_column("date (UTC)", no_wrap=True)
    for row in found:
        bits, seconds = row["bits_per_byte"], row["seconds"]
        table.add_row(
            Text(row["name"], style="bold"),
            Text(row["state"], style="green" if row["state"] == "done" else "yellow"),
            row["budget"] or "",
            "" if seconds is None else say_seconds(seconds),
            quantity(row["parameters"]),
            "" if bits is None else f"{bits:.3f}",
            row["date"][:16].replace("T", " "),
        )
    console.print(table)
