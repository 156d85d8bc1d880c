"""What `hearth run`, `hearth runs` and `hearth show` do: call the runner or read the record, and print. Each gives an exit status."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from openhearth import run_folder
from openhearth.errors import HearthError
from openhearth.recipe import Recipe

DEFAULT_RECIPE = "recipes/laptop.toml"


def default_recipe(name: str = DEFAULT_RECIPE) -> Path:
    """recipes/laptop.toml (or another that is shipped) of the source tree, or of the installed package."""
    beside = Path(__file__).parents[1] / name
    if beside.is_file():
        return beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside
    import importlib.metadata

    for file in importlib.metadata.files("openhearth") or []:
        if file.as_posix().endswith("openhearth/" + name):
            return Path(str(file.locate()))
    raise HearthError(f"{name} does not come with this installation; name a recipe: hearth run RECIPE")


def run_command(
    recipe: Path | None,
    *,
    budget: str | None = None,
    sets: Sequence[str] = (),
    until: str | None = None,
    folder: Path | None = None,
    text: Sequence[str] | None = None,
    plan: Path | None = None,
    log: Sequence[str] = (),
    json: bool = False,
) -> int:
    """Run a recipe in the sight of a person and of the boards in `log`, then print the report (or the facts as JSON)."""
    parsed = Recipe.load(recipe if recipe is not None else default_recipe(), sets, budget)
    from openhearth import exporters, progress, record, report, runner

    exporters.check(log)
    with progress.watcher() as display, ExitStack() as boards:
        watchers = [display, *(boards.enter_context(closing(exporters.Exporter(name, display))) for name in log)]
        result = runner.run(parsed, folder, until=until, text=text, plan=plan, watcher=exporters.Several(watchers))
    facts = record.report_facts(result.folder)
    if json:
        print_json({**facts, "made_now": list(result.fresh)})
    else:
        if not result.fresh:
            print(f"nothing to do: every stage is already made in {result.folder}")
        report.show(facts)
    return 0


def runs_command(folder: Path, *, json: bool = False) -> int:
    """List the runs in a folder."""
    from openhearth import record, tables

    found = record.find_runs(folder)
    if json:
        print_json(found)
    else:
        tables.runs(folder, found)
    return 0


def show_command(names: Sequence[str], *, json: bool = False, plot: Path | None = None, x: str | None = None, drops: bool = False) -> int:
    """Print the ledger of one run or of several, or what a corpus left out, or draw the loss."""
    from openhearth import record, tables

    if x is not None and plot is None:
        raise HearthError(f"--x {x}: is about the picture; name its file with --plot FILE")
    if plot is not None:
        from openhearth.plot import draw

        draw(names, plot, x)
        print(f"drawn: {plot}", file=sys.stderr)
        if not (json or drops):
            return 0
    folders = [run_folder.find_run(name) for name in names]
    if drops:
        if len(folders) > 1:
            raise HearthError("--drops is about one run; name one")
        rows = record.drops(folders[0])
        print_json(rows) if json else tables.drops(rows)
        return 0
    facts = [record.ledger_facts(folder) for folder in folders]
    if json:
        print_json(facts if len(facts) > 1 else facts[0])
        return 0
    for number, one in enumerate(facts):
        if number:
            print()
        tables.ledger(one)
    return 0


def plan_steps(plan: Mapping[str, Any]) -> None:
    """The derivation of a run's plan as prose, and what it predicts."""
    from openhearth.budget_text import say_seconds
    from openhearth.report import say_energy

    for sentence in plan["why"]:
        print(sentence)
    predicted = plan["predicted"]
    seconds = ", ".join(f"{stage} {say_seconds(value)}" for stage, value in predicted["seconds"].items() if stage != "total")
    print(f"Predicted: {say_seconds(predicted['seconds']['total'])} ({seconds}); {say_energy(predicted['energy']['joules'])}.")


def print_json(value: Any) -> None:
    """Facts on the standard output, as a person and a program can read them."""
    print(jsonlib.dumps(value, indent=2, ensure_ascii=False))
