"""What `hearth sweep` and `hearth compare` do: call the room, and print. Each gives an exit status."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth import drawing, run_folder
from openhearth.errors import HearthError

if TYPE_CHECKING:
    from openhearth.experiments.compare import Comparison
    from openhearth.experiments.results import Row


def sweep_command(
    recipe: Path | None,
    over: Sequence[str],
    *,
    sets: Sequence[str] = (),
    budget: str | None = None,
    seeds: int = 1,
    folder: Path | None = None,
    text: Sequence[str] | None = None,
    plan: Path | None = None,
    plot: Path | None = None,
    json: bool = False,
) -> int:
    """Run a sweep in the sight of a person, then print its table (or the facts as JSON)."""
    from openhearth.commands import default_recipe
    from openhearth.experiments import grid

    if plot is not None:
        drawing.check(plot)
    path = recipe if recipe is not None else default_recipe()
    base = grid.load(path, sets, budget, text)
    settings = grid.settings(path, over, sets, budget, text)
    numbers = grid.check_seeds(seeds, base.seed)
    if not over and seeds == 1:
        raise HearthError("nothing to sweep: name a key and its values, such as --over pretrain.learning_rate=0.02,0.04, or --seeds 3")
    from openhearth import progress
    from openhearth.experiments import results
    from openhearth.experiments.sweep import Sweep
    from openhearth.runner import read_plan

    place = folder if folder is not None else run_folder.RUNS / f"{base.name}-sweep"
    followed = None if plan is None else read_plan(plan)
    sweep = Sweep(place, base, settings, numbers, followed, progress.watcher, lambda line: print(line, file=sys.stderr, flush=True))
    found = results.rows(sweep.run())
    if plot is not None:
        from openhearth.experiments.pictures import sweep_picture

        sweep_picture(plot, base.name, found)
        print(f"drawn: {plot}", file=sys.stderr)
    if json:
        print(jsonlib.dumps(results.facts(place, found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show_sweep(place, found)
    return 0


def compare_command(first: str, second: str, *, plot: Path | None = None, json: bool = False) -> int:
    """Compare two recipes by their runs, and print."""
    if plot is not None:
        drawing.check(plot)
    from openhearth.experiments import runs
    from openhearth.experiments.compare import compare

    sides = [runs.read_all([name]) for name in (first, second)]
    found = compare(*sides)
    if plot is not None:
        from openhearth.experiments.pictures import comparison_picture

        comparison_picture(plot, (first, second), sides, found)
        print(f"drawn: {plot}", file=sys.stderr)
    if json:
        print(jsonlib.dumps(_comparison_facts((first, second), sides, found), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show_comparison((first, second), sides, found)
    return 0


# -- what is said -----------------------------------------------------------------------------------------------------------


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


SPARED = ("", "FLOPs", "tokens", "loss", "seconds", "95 % (text)")
"""Columns that a narrow terminal goes without, the first first."""


def _show_sweep(folder: Path, found: Sequence[Row]) -> None:
    from rich.text import Text

    from openhearth import tables
    from openhearth.experiments.results import verdict

    console = _console()
    for count in range(len(SPARED)):
        table = _settings(found, without=SPARED[: count + 1])
        if not console.is_terminal or tables.width(console, table) <= console.width:
            break
    tables.print_whole(console, table)
    lines = [verdict(found), *dict.fromkeys(f"given up: {row.name}: {said}" for row in found for said in row.failed)]
    if len({run.code for row in found for run in row.runs}) > 1:
        lines.append("note: the runs were trained by different versions of the code")
    console.print()
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    said = f"the runs lie in {folder}; bits per byte of held-out text, mean ± standard deviation over seeds"
    console.print(Text(said, style="dim"), soft_wrap=True)


def _settings(found: Sequence[Row], without: Sequence[str]) -> Any:
    """A row for each setting; the best one stands out."""
    from rich.text import Text

    from openhearth.experiments.results import best
    from openhearth.report import quantity

    names = ("setting", "seeds", "bits/byte", "95 % (text)", "vs. first", "p", "loss", "tokens", "seconds", "FLOPs")
    shown = [name for name in names if name not in without]
    table, first = _table(*shown), best(found)
    for row in found:
        deviation, between = row.deviation, row.interval
        loss, seconds, flops = (row.average(what) for what in ("final_loss", "seconds", "flops"))
        cells = {
            "setting": Text(f"{'*' if row is first else ' '} {row.name}", style="bold" if row is first else ""),
            "seeds": f"{len(row.runs)}" + (f", {len(row.failed)} failed" if row.failed else ""),
            "bits/byte": "failed" if not row.bits else f"{row.mean:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else ""),
            "95 % (text)": "" if between is None else f"{between[0]:.3f} to {between[1]:.3f}",
            "vs. first": "" if row is found[0] or not (row.bits and found[0].bits) else f"{row.mean / found[0].mean - 1:+.2%}",
            "p": "" if row.against is None else f"{row.against.p:.2g}",
            "loss": "" if loss is None else f"{loss:.4f}",
            "tokens": quantity(row.average("final_tokens")),
            "seconds": "" if seconds is None else f"{seconds:,.1f}",
            "FLOPs": "" if flops is None else f"{flops:.2e}",
        }
        table.add_row(*(cells[name] for name in shown))
    return table


def _comparison_facts(names: tuple[str, str], sides: Sequence[Any], found: Comparison) -> dict[str, Any]:
    value, low, high = found.multiplier
    test = found.test
    return {
        "first": {"name": names[0], "runs": [str(run.folder) for run in sides[0]], "bits_per_byte": found.loss[0]},
        "second": {"name": names[1], "runs": [str(run.folder) for run in sides[1]], "bits_per_byte": found.loss[1]},
        "compute_multiplier": {"value": value, "low": low, "high": high},
        "ratios": [asdict(ratio) for ratio in found.ratios],
        "method": found.method,
        "bound_on_ratios": found.bound or None,
        "held_out": found.held_out,
        "interval_over": found.covers or None,
        "welch": None if test is None else {**asdict(test), "freedom": test.freedom if math.isfinite(test.freedom) else None},
        "notes": list(found.notes),
    }


def _show_comparison(names: tuple[str, str], sides: Sequence[Any], found: Comparison) -> None:
    from rich.text import Text

    from openhearth import tables

    console = _console()
    value, low, high = found.multiplier
    band = "" if low is None else f" ({low:.3g} to {high:.3g}, 95 %)"
    console.print(Text.assemble("compute multiplier ", (f"{value:.3g}", "bold"), band))
    first = found.ratios[0]
    console.print(Text(f"{names[1]} needs {first.ratio:.3g} times the FLOPs of {names[0]} to be as good\n"), soft_wrap=True)
    table = _table("", "first", "second", "second / first at equal loss", "95 %")
    for ratio in found.ratios:
        between = "" if ratio.low is None else f"{ratio.low:.3g} to {ratio.high:.3g}"
        table.add_row(ratio.axis, f"{ratio.first:.4g}", f"{ratio.second:.4g}", f"{ratio.ratio:.3g}", between)
    table.add_row(
        "bits/byte", f"{found.loss[0]:.4f}", f"{found.loss[1]:.4f}", f"{found.loss[1] / found.loss[0] - 1:+.2%} at their ends", ""
    )
    tables.print_whole(console, table)
    console.print()
    for line in (*_how(sides, found), *(f"note: {note}" for note in found.notes)):
        console.print(Text(line), soft_wrap=True)


def _how(sides: Sequence[Any], found: Comparison) -> list[str]:
    what = "held-out text" if found.held_out else "the training text"
    counts = f"{len(sides[0])} and {len(sides[1])} runs"
    if found.method == "ladder":
        lines = [f"by one law of compute for both recipes, fitted to {counts} of several sizes; loss is bits per byte of {what}"]
    else:
        lines = [
            f"by the curve of the better recipe, {counts} of one size; loss is bits per byte of {what}",
            f"the second needs {found.bound} what the ratios say: the better one's curve is read before its learning rate had come down,",
            "and a run of its own with that compute would be better; runs of several sizes tell (hearth sweep --over plan.tokens=...)",
        ]
    if found.covers:
        lines.append(f"the interval covers {found.covers}")
    if found.test is not None:
        beyond = "" if found.test.p < 0.05 else "not "
        lines.append(f"the difference at the ends is {beyond}beyond the noise between seeds: p {found.test.p:.2g} (Welch's t-test)")
    return lines
