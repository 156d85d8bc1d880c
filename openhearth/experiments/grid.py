"""The runs of a sweep: every combination of the values after `--over`, each a recipe of its own, with a name for its folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from openhearth.errors import HearthError, RecipeError
from openhearth.evaluate.measure import Measure
from openhearth.ledger import digest_json
from openhearth.recipe import Recipe

STAGES = ("corpus", "tokenizer", "plan", "pretrain")
"""Of the recipe that a sweep walks; then it measures."""
MOST_SETTINGS = 1000
LONGEST_NAME = 120


@dataclass(frozen=True)
class Setting:
    """One combination: what was set, and the recipe with it."""

    name: str
    """'learning_rate=1e-3,warmup=0.1', or 'recipe' where nothing is swept."""
    values: dict[str, str]
    """Each swept key with its value, as typed."""
    recipe: Recipe

    def with_seed(self, seed: int) -> Recipe:
        """The recipe whose pretraining has this seed; corpus and held-out text keep theirs."""
        pretrain = self.recipe.stages["pretrain"].model_copy(update={"seed": seed})
        return replace(self.recipe, stages={**self.recipe.stages, "pretrain": pretrain})


def load(path: Path, sets: Sequence[str], budget: str | None, text: Sequence[str] | None) -> Recipe:
    """The recipe of a sweep: the stages up to pretraining, then `measure`."""
    recipe = Recipe.load(path, sets, budget)
    for kind in STAGES:
        if kind not in recipe.stages:
            raise RecipeError(f"{path}: has no stage [{kind}]; a sweep needs {', '.join(STAGES)}")
    judged = recipe.stages.get("evaluate")
    fields = {} if judged is None else {name: getattr(judged, name) for name in ("seed", "heldout_bytes")}
    stages = {kind: recipe.stages[kind] for kind in STAGES} | {"measure": recipe.stages.get("measure") or Measure(**fields)}
    recipe = replace(recipe, stages=stages)
    return recipe if text is None else recipe.with_text(text)


def settings(path: Path, over: Sequence[str], sets: Sequence[str], budget: str | None, text: Sequence[str] | None) -> list[Setting]:
    """Every combination, in the order in which it was typed: the last key changes first. Raises RecipeError for a key or a value."""
    axes = [_axis(option) for option in over]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"--over {key}: given twice; write all its values in one: --over {key}=A,B,C")
    last = [key.rpartition(".")[2] for key in keys]
    short = dict(zip(keys, keys if len(set(last)) < len(last) else last, strict=True))
    combinations = list(itertools.islice(itertools.product(*(values for _, values in axes)), MOST_SETTINGS + 1))
    if len(combinations) > MOST_SETTINGS:
        raise RecipeError(f"--over: more than {MOST_SETTINGS:,} combinations; sweep fewer at a time")
    found: dict[str, Setting] = {}
    for combination in combinations:
        values = dict(zip(keys, combination, strict=True))
        recipe = _recipe(path, values, sets, budget, text)
        name = _name({short[key]: value for key, value in values.items()})
        if (same := next((one for one in found.values() if one.recipe == recipe), None)) is not None:
            raise RecipeError(f"--over: {_shown(same.values)} and {_shown(values)} are the same recipe; leave one out")
        found[name if name not in found else f"{name}-{digest_json(values)[:6]}"] = Setting(name, values, recipe)
    return [replace(one, name=name) for name, one in found.items()]


def _recipe(path: Path, values: dict[str, str], sets: Sequence[str], budget: str | None, text: Sequence[str] | None) -> Recipe:
    try:
        return load(
            path, [*sets, *(f"{key}={value}" for key, value in values.items() if key != "budget")], values.get("budget", budget), text
        )
    except RecipeError as error:
        said = str(error)
        for key, value in values.items():  # what was typed is --over, whatever it was handed on as
            said = said.replace(f"--set {key}={value}", f"--over {key}={value}", 1)
        raise RecipeError(said) from None


def _axis(option: str) -> tuple[str, list[str]]:
    """'KEY=A,B' as the key and its values."""
    key, equals, rest = option.partition("=")
    key = key.strip()
    values = _split(rest)
    if not (key and equals and values and all(values)):
        raise RecipeError(f"--over {option[:60]!a}: write --over KEY=A,B, such as --over pretrain.learning_rate=0.02,0.04")
    table = key.partition(".")[0]
    if key == "seed" or key.endswith(".seed"):
        raise RecipeError(f"--over {key}: seeds are no setting; --seeds 3 makes every run with three of them")
    if key == "name" or (table in ("sft", "evaluate", "release", "measure") and "." in key):
        raise RecipeError(f"--over {key}: nothing that a sweep measures depends on it; sweep keys of {', '.join(STAGES)}, or budget")
    return key, values


def _split(text: str) -> list[str]:
    """At commas that stand outside of brackets and quotes."""
    parts = re.findall(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,])+|(?<=,)(?=,|$)|^(?=,)""", text)
    return [part.strip() for part in parts]


def _name(values: dict[str, str]) -> str:
    """A name for a folder; what a file system might mind is a '-'."""
    name = ",".join(f"{key}={re.sub(r'[^A-Za-z0-9._+-]+', '-', value)}" for key, value in values.items()) or "recipe"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}-{digest_json(values)[:6]}"


def _shown(values: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "the recipe"


def check_seeds(seeds: int, first: int) -> range:
    """The seeds of every setting: the recipe's own and those after it."""
    if not 1 <= seeds <= 1000:
        raise HearthError(f"--seeds {seeds}: must be 1 to 1,000")
    return range(first, first + seeds)
