"""`hearth plan backtest`: each published run, what was foretold and what was reported; the medians; what was left out, and why."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openhearth.plan.backtesting import backtest
from openhearth.plan.quantities import say, say_usd
from openhearth.plan.scaling_laws import DEFAULT

NAME = 32
COLUMNS = ("run", "on", "reported h", "best", "typical", "error", "8 of 10", "typical $", "reported $", "best split", "size / it")
LEFT = ("run", "on", "8 of 10")
NARROW, WIDE = 6, 145
"""Columns that an ordinary terminal shows, and characters that all of them need."""


def backtest_command(runs: Path | None = None, *, law: str | None = None, json: bool = False) -> int:
    """Foretell, compare, print."""
    facts = backtest(runs, law=law if law is not None else DEFAULT)
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
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    shown = len(COLUMNS) if console.width >= WIDE else NARROW
    head, *rows = _aligned([COLUMNS, *(_cells(row) for row in facts["runs"] if row["error"] is not None)], shown)
    console.print(Text.assemble((head, "dim"), "".join(f"\n{row}" for row in rows)), no_wrap=True, overflow="ignore", crop=False)
    console.print()
    for line in summary(facts):
        console.print(Text(line), soft_wrap=True)
    skipped = [row for row in facts["runs"] if row["skipped"]]
    if skipped:
        console.print()
        console.print(f"{len(skipped)} runs are not scored by time:")
        for row in skipped:
            hours = row["typical_chip_hours"]
            foretold = (
                "" if hours is None else f"; foretold {say(hours)} device hours in a typical case, {say(row['best_chip_hours'])} at best"
            )
            console.print(Text(f"  {_short(row['run'])}: {row['skipped']}{foretold}", style="dim"), soft_wrap=True)
    remarks = [row for row in facts["runs"] if row["remark"] and not row["skipped"]]
    if remarks:
        console.print()
        for row in remarks:
            console.print(Text(f"  {_short(row['run'])}: {row['remark']}", style="dim"), soft_wrap=True)


def _aligned(rows: Sequence[Sequence[str]], shown: int) -> list[str]:
    """The first `shown` columns, each as wide as it must be; a table of rich takes a tenth of a second for so many cells."""
    widths = [max(len(row[column]) for row in rows) for column in range(shown)]
    sides = ["<" if name in LEFT else ">" for name in COLUMNS[:shown]]
    return ["  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False)).rstrip() for row in rows]


def _cells(row: Mapping[str, Any]) -> list[str]:
    optimum = row["optimal_parameters"]
    return [
        _short(row["run"]),
        f"{row['chips']:,} {row['device']}",
        *(say(row[key]) for key in ("reported_chip_hours", "best_chip_hours", "typical_chip_hours")),
        f"{row['error']:+.0%}",
        "inside" if row["inside"] else "outside",
        "" if row["typical_usd"] is None else say_usd(row["typical_usd"]),
        "" if row["reported_usd"] is None else say_usd(row["reported_usd"]),
        "" if optimum is None else f"{say(optimum)} x {say(row['optimal_tokens'])}",
        "" if optimum is None else f"{row['size_over_optimal']:.2f}",
    ]


def summary(facts: Mapping[str, Any]) -> list[str]:
    """The medians, in sentences."""
    time, share = facts["time"], facts["share_of_best_case"]
    if not time["runs"]:
        return ["No run could be scored by time."]
    lines = [
        f"time: {time['runs']} runs, median error {time['median_error']:+.0%}, median absolute error {time['median_absolute_error']:.0%}, "
        f"largest {time['largest_absolute_error']:.0%}; {facts['inside_80_percent']} lie where eight of ten others do.",
        "  by group: "
        + ", ".join(f"{name} {each['median_absolute_error']:.0%} ({each['runs']})" for name, each in facts["by_group"].items())
        + ".",
        f"  typical is best over {share['median']:.2f}, what whole runs reach of the best case (quartiles {share['low']:.2f} and "
        f"{share['high']:.2f}); for each run without the runs of its own family.",
    ]
    if facts["cost"]["runs"]:
        rows = [row for row in facts["runs"] if row["usd_error"] is not None]
        said = ", ".join(f"{row['run']} {say_usd(row['typical_usd'])} against {say_usd(row['reported_usd'])}" for row in rows)
        lines.append(f"cost: {said}; median absolute error {facts['cost']['median_absolute_error']:.0%}.")
    own = facts["energy_as_reported"]
    if own["runs"]:
        lines.append(
            f"energy of the reported hours: as the sources count, within {own['largest_absolute_error']:.1%} ({own['runs']} runs); by "
            f"the default power, median absolute error {facts['energy']['median_absolute_error']:.0%} ({facts['energy']['runs']} runs)."
        )
    optimum = facts["optimum"]
    meant = [row for row in facts["runs"] if row["optimum_error"] is not None]
    if meant:
        said = ", ".join(
            f"{row['run']} {say(row['optimal_parameters'])} x {say(row['optimal_tokens'])} ({row['optimum_error']:+.0%})" for row in meant
        )
        lines.append(
            f"optimum by {optimum['law']}, of runs that were meant to be compute-optimal: {said}; median absolute error "
            f"{optimum['median_absolute_error']:.0%}."
        )
    return lines


def _short(text: str) -> str:
    return text if len(text) <= NAME else text[: NAME - 3] + "..."
