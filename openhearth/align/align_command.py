"""`hearth align`: run a recipe that ends in a verdict, and print the verdict beside the seconds of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError
from openhearth.ledger import Json, read_json
from openhearth.recipe import Recipe

COLUMNS = (("harmful_compliance", "harm done"), ("reason_correct", "true reason"), ("benign_help", "help given"))


def align_command(recipe: Path, sets: Sequence[str], folder: Path | None, *, json: bool) -> int:
    """Raises HearthError for a recipe without a verdict, before anything is made."""
    parsed = Recipe.load(recipe, sets)
    if "verdict" not in parsed.stages:
        raise HearthError(f"{recipe}: has no stage [verdict], so there is nothing to say at its end; make it with: hearth run {recipe}")
    from openhearth import progress, record, runner

    with progress.watcher() as watcher:
        result = runner.run(parsed, folder, watcher=watcher)
    facts = verdict_facts(result.made["verdict"].path, record.ledger_facts(result.folder))
    if json:
        from openhearth.commands import print_json

        print_json(facts)
    else:
        _show(facts)
    return 0


def verdict_facts(verdict: Path, ledger: Json) -> Json:
    """The results of a verdict, the seconds of each stage, and where the page is."""
    results = read_json(verdict / "results.json")
    seconds = {stage["stage"]: stage["seconds"] for stage in ledger["stages"]}
    return {**results, "seconds": seconds, "page": str(verdict / "result.md")}


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from openhearth.align.world.page import NAMES

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("on pairs never seen, %")
    for _, title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for name, label in NAMES.items():
        if name in facts["policies"]:
            scores = facts["policies"][name]["test"]
            table.add_row(label, *(_share(scores[key]) for key, _ in COLUMNS))
    console.print(table)
    judge = facts["judge"].get("general_principles")
    if judge:
        console.print(f"\nthe judge was right on {_share(judge['accuracy'])} of the pairs with one better answer, under general principles")
    total = sum(facts["seconds"].values())
    shares = ", ".join(f"{kind} {seconds:.0f}" for kind, seconds in facts["seconds"].items())
    console.print(f"alignment took {facts['alignment_share']:.0%} of the FLOPs; {total:.0f} s in all ({shares})")
    console.print(f"the page: {facts['page']}")


def _share(found: dict[str, Any]) -> str:
    return f"{100 * found['value']:.0f} ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
