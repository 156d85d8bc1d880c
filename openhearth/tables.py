"""`hearth show` and `hearth runs`: the ledger and the list of runs as tables for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from openhearth.budget_text import say_seconds
from openhearth.ledger import Json
from openhearth.report import quantity
from openhearth.serve.terminal import harmless

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


def drops(rows: list[Json]) -> None:
    """Everything that a corpus left out: the file or row, the rule, the value that decided, what is needed instead."""
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("file", "rule", "value", "needed"):
        table.add_column(name, overflow="fold", no_wrap=name == "rule")
    for row in rows:
        table.add_row(*(Text(harmless(row[name])) for name in ("uri", "rule", "value", "threshold")))
    if rows:
        print_whole(console, table)
    else:
        console.print("nothing was left out")


def print_whole(console: Console, table: Table) -> None:
    """Print; where there is no terminal, a table is as wide as it needs to be: a pipe cuts nothing."""
    if not console.is_terminal:
        console.width = max(console.width, width(console, table))
    console.print(table)


def width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(max_width=100_000), table).maximum


SPARED = ("", "parameters", "took", "budget", "date (UTC)")
"""Columns of the list of runs that a narrow terminal goes without, the first first."""


def runs(folder: Path, found: list[Json]) -> None:
    """The list of runs, the newest first."""
    console = Console(highlight=False)
    if not found:
        console.print(Text(f"no runs in {folder}/; begin one with: hearth run"))
        return
    for count in range(len(SPARED)):
        table = _runs(found, without=SPARED[: count + 1])
        if not console.is_terminal or width(console, table) <= console.width:
            break
    print_whole(console, table)


def _runs(found: list[Json], without: Sequence[str]) -> Table:
    names = [name for name in ("run", "state", "budget", "took", "parameters", "bits/byte", "date (UTC)") if name not in without]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in ("run", "state", "date (UTC)") else "right", no_wrap=True)
    for row in found:
        bits, seconds = row["bits_per_byte"], row["seconds"]
        cells = {
            "run": Text(row["name"], style="bold"),
            "state": Text(row["state"], style="green" if row["state"] == "done" else "yellow"),
            "budget": row["budget"] or "",
            "took": "" if seconds is None else say_seconds(seconds),
            "parameters": quantity(row["parameters"]),
            "bits/byte": "" if bits is None else f"{bits:.3f}",
            "date (UTC)": row["date"][:16].replace("T", " "),
        }
        table.add_row(*(cells[name] for name in names))
    return table
