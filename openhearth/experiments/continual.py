"""A continued model beside what else could have been done with the same new text: the controls of Ibrahim et al. 2024, table 1.

Every arm is a run like any other, on the same corpus, measured on the same documents; only what its name says differs. The arms that start
from the model train on equally many tokens (replay takes the place of new text), the union on those of the model and on these.
Differences are paired: seeds are averaged first, then whole documents are drawn again for both arms at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.errors import HearthError, RecipeError, nearest
from openhearth.evaluate.statistics import Estimate
from openhearth.experiments.grid import check_seeds
from openhearth.ledger import Json, read_json
from openhearth.recipe import Recipe
from openhearth.runner import Watcher, run
from openhearth.train.trained import open_trained

ASKED = "as-asked"
ARMS: dict[str, str] = {
    ASKED: "as the recipe says",
    "no-replay": "new text only",
    "constant": "at the rate with which pretraining ended, neither up nor down",
    "union": "fresh weights on old and new text together, with the tokens of both trainings",
    "union-equal": "the same with the tokens of the continued training alone",
    "scratch": "fresh weights on the new text alone: what is better than this was transferred",
}
"""Every arm and what it is; the first is what the others are held against."""


@dataclass
class Arm:
    """One way to use the new text, with a result for each seed."""

    name: str
    results: list[Json] = field(default_factory=list)
    """The content of `forgetting.json`, by seed."""
    tokens: list[int] = field(default_factory=list)

    def figure(self, text: str) -> tuple[float, float | None]:
        """Mean and standard deviation over seeds of the bits per byte after; `text` is 'old', 'new' or 'mean' (of both)."""
        values = [one["mean"]["value"] if text == "mean" else one[text]["after"]["value"] for one in self.results]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    def against(self, other: Arm, text: str, seed: int) -> Estimate:
        """Bits per byte of this arm less those of `other` on 'old' or 'new' text, with the interval over documents."""
        from openhearth.evaluate.bits_per_byte import bits_per_byte

        ours, theirs = (np.mean([[row["after"] for row in one["texts"][text]] for one in arm.results], axis=0) for arm in (self, other))
        rows = self.results[0]["texts"][text]
        return bits_per_byte(ours - theirs, [row["bytes"] for row in rows], [row["unit"] for row in rows], seed)


def check_arms(names: Sequence[str]) -> list[str]:
    """The arms to run, the recipe's own first; raises RecipeError for a name that is none."""
    for name in names:
        if name not in ARMS:
            raise RecipeError(f"--control {name}: no such control{nearest(name, ARMS)}; the controls are {', '.join(list(ARMS)[1:])}")
    return [name for name in ARMS if name == ASKED or name in names]


def variant(recipe: Recipe, arm: str, tokens: int, seed: int) -> Recipe:
    """The recipe of an arm. `tokens`: of the run as it was asked for."""
    stage: Any = recipe.stages["continue"]
    before = open_trained(stage.model).tokens
    changes: dict[str, Json] = {
        ASKED: {},
        "no-replay": {"replay": 0.0, "tokens": tokens},
        "constant": {"rate": "constant", "tokens": tokens},
        "union": {"start": "scratch", "rate": "rewarm", "replay": before / (before + tokens), "tokens": before + tokens},
        "union-equal": {"start": "scratch", "rate": "rewarm", "replay": before / (before + tokens), "tokens": tokens},
        "scratch": {"start": "scratch", "rate": "rewarm", "replay": 0.0, "tokens": tokens},
    }
    stages = {**recipe.stages, "continue": stage.model_copy(update=changes[arm])}
    return replace(recipe, seed=seed, stages=stages)


def controls(
    recipe: Recipe,
    folder: Path,
    arms: Sequence[str],
    seeds: int,
    watching: Callable[[], AbstractContextManager[Watcher]],
    say: Callable[[str], None],
) -> list[Arm]:
    """Run every arm with every seed in `folder` (arm/seed-N), as far as they are not there; killed, the same call goes on."""
    for kind in ("corpus", "continue", "forgetting"):
        if kind not in recipe.stages:
            raise RecipeError(f"{recipe.where}: has no stage [{kind}]; see recipes/continue.toml")
    measured: Any = recipe.stages["forgetting"]
    same = measured.model_copy(update={"seed": recipe.seed if measured.seed is None else measured.seed})
    recipe = replace(recipe, stages={**recipe.stages, "forgetting": same})  # every seed is measured on the same documents
    given: Mapping[str, Path] | None = None
    found = {name: Arm(name) for name in arms}
    for seed in check_seeds(seeds, recipe.seed):
        tokens = 0
        for name in arms:
            say(f"{name} ({ARMS[name]}), seed {seed}")
            with watching() as watcher:
                made = run(variant(recipe, name, tokens, seed), folder / name / f"seed-{seed}", given=given, watcher=watcher).made
            given = given or {"corpus": made["corpus"].path}
            spent = int(made["continue"].facts["tokens"])
            tokens = tokens or spent
            found[name].results.append(read_json(made["forgetting"].path / "forgetting.json"))
            found[name].tokens.append(spent)
    return list(found.values())


def facts(folder: Path, arms: Sequence[Arm], seed: int) -> Json:
    """The table as plain values."""
    first = arms[0]
    return {
        "folder": str(folder),
        "before": {text: statistics.fmean(one[text]["before"]["value"] for one in first.results) for text in ("old", "new")},
        "arms": [
            {
                "arm": arm.name,
                "what": ARMS[arm.name],
                "seeds": len(arm.results),
                "tokens": arm.tokens[0],
                **{text: dict(zip(("value", "deviation"), arm.figure(text), strict=True)) for text in ("old", "new", "mean")},
                "against_first": {text: asdict(arm.against(first, text, seed)) for text in ("old", "new")} if arm is not first else None,
            }
            for arm in arms
        ],
    }


def show(table: Json) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from openhearth import tables
    from openhearth.report import quantity

    console = Console(highlight=False)
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    for number, name in enumerate(("", "tokens", "old text", "new text", "mean", "old vs. first (95 %)", "new vs. first (95 %)")):
        shown.add_column(name, justify="right" if number else "left", no_wrap=True)
    before = table["before"]
    shown.add_row("before", "", *(f"{value:.3f}" for value in (*before.values(), statistics.fmean(before.values()))), "", "", style="dim")
    for arm in table["arms"]:
        cells = [f"{arm[text]['value']:.3f}" + _deviation(arm[text]["deviation"]) for text in ("old", "new", "mean")]
        against = [_difference(arm["against_first"][text]) for text in ("old", "new")] if arm["against_first"] else ["", ""]
        shown.add_row(arm["arm"], quantity(arm["tokens"]), *cells, *against)
    tables.print_whole(console, shown)
    seeds = table["arms"][0]["seeds"]
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed; --seeds 3 shows the noise between seeds"
    console.print()
    for arm in table["arms"][1:]:
        console.print(Text(f"{arm['arm']}: {arm['what']}", style="dim"), soft_wrap=True)
    console.print(Text(f"bits per byte of held-out text, less is better; {spread}", style="dim"), soft_wrap=True)
    console.print(Text(f"differences are on the same documents; the runs lie in {table['folder']}", style="dim"), soft_wrap=True)


def _deviation(value: float | None) -> str:
    return "" if value is None else f" ± {value:.3f}"


def _difference(figure: Json) -> str:
    if figure["low"] is None:
        return f"{figure['value']:+.3f}"
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def continue_command(
    model: str,
    text: Sequence[str] | None,
    *,
    sets: Sequence[str] = (),
    budget: str | None = None,
    arms: Sequence[str] | None = None,
    seeds: int = 1,
    folder: Path | None = None,
    json: bool = False,
) -> int:
    """Continue a model by the shipped recipe in the sight of a person; with `arms` (empty: all), beside these controls."""
    import sys

    from openhearth import commands, progress, run_folder

    path, sets = commands.default_recipe("recipes/continue.toml"), [f"continue.model={model}", *sets]
    if arms is None and seeds == 1:
        return commands.run_command(path, budget=budget, sets=sets, folder=folder, text=text, json=json)
    recipe = Recipe.load(path, sets, budget)
    recipe = recipe if text is None else recipe.with_text(text)
    wanted = check_arms(arms or (list(ARMS) if arms is not None else []))
    place = folder if folder is not None else run_folder.RUNS / f"{recipe.name}-controls"
    if run_folder.is_run(place):
        raise HearthError(f"{place}: is the folder of one run; choose another with --dir for the table of several")
    found = controls(recipe, place, wanted, seeds, progress.watcher, lambda line: print(line, file=sys.stderr, flush=True))
    table = facts(place, found, recipe.seed)
    commands.print_json(table) if json else show(table)
    return 0
