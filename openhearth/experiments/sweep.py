"""`hearth sweep`: run a grid of settings so that only what is swept differs, and go on where it was killed.

    DIR/sweep.json            the recipe, and the plan that was measured once for all runs
    DIR/shared/               a run up to the plan: corpora, tokenizers and plans, each made once, by key
    DIR/SETTING/seed-N/       one run; it takes what is shared as given, trains, and measures held-out text

A run follows the measured plan. Where a key of [plan], [tokenizer] or [corpus] is swept the plan must be made again: then it is pinned to
what the first one decided (shape, context, batch, tokens, arithmetic), save for what is swept. A swept budget is planned for each budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, DiskFullError, HearthError, RecipeError
from openhearth.experiments.grid import Setting
from openhearth.ledger import digest_json, read_json, write_json
from openhearth.recipe import Recipe
from openhearth.runner import Stopped, Watcher, run

FORMAT, FILE, SHARED = "openhearth-sweep/1", "sweep.json", "shared"
GIVEN = ("corpus", "tokenizer", "plan")
PINNED = ("num_layers", "hidden_size", "sequence_length", "batch_tokens", "tokens", "dtype", "compile", "threads")
"""Settings of [plan] that are held at what the first plan decided."""


@dataclass(frozen=True)
class Done:
    """One run of a sweep: trained, or given up."""

    setting: Setting
    seed: int
    folder: Path
    failed: str = ""
    """Why it could not be trained to its end; the other runs go on."""


class _Place(Watcher):
    """Hands on to another watcher, and knows which stage began last."""

    def __init__(self, inner: Watcher) -> None:
        self.inner, self.started_last = inner, ""
        for name in ("begin", "reused", "progress", "note", "finished"):
            setattr(self, name, getattr(inner, name))

    def started(self, kind: str) -> None:
        self.started_last = kind
        self.inner.started(kind)


@dataclass
class Sweep:
    """A sweep in a folder. `watching` gives a context whose value watches one run; `say` takes a line for a person."""

    folder: Path
    base: Recipe
    settings: Sequence[Setting]
    seeds: Iterable[int]
    plan: Mapping[str, Any] | None = None
    """Followed instead of measuring this machine."""
    watching: Callable[[], Any] = lambda: nullcontext(Watcher())
    say: Callable[[str], None] = lambda line: None
    shared: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Artifacts that stand in for stages, by the digest of the settings that made them."""

    def run(self) -> list[Done]:
        """Make every run that is not made yet. Raises HearthError for whatever the user can mend; a run that diverges is no such thing."""
        self._check()
        todo = [(setting, seed) for setting in self.settings for seed in self.seeds]
        done = []
        for number, (setting, seed) in enumerate(todo, 1):
            given = self._shared(setting)
            folder = self.folder / setting.name / f"seed-{seed}"
            self.say(f"[{number}/{len(todo)}] {setting.name}, seed {seed}")
            done.append(self._one(setting, seed, folder, given))
        if all(one.failed for one in done):
            raise HearthError(f"{self.folder}: no run came to its end; the first: {done[0].failed}")
        return done

    def _one(self, setting: Setting, seed: int, folder: Path, given: Mapping[str, Path]) -> Done:
        with self.watching() as watcher:
            place = _Place(watcher)
            try:
                run(self._measured(setting.with_seed(seed), given), folder, given=given, watcher=place)
            except (Stopped, DiskFullError, DamagedError, RecipeError):
                raise
            except HearthError as error:
                if place.started_last != "pretrain":
                    raise
                self.say(f"  given up: {error}")
                return Done(setting, seed, folder, str(error))
        return Done(setting, seed, folder)

    def _check(self) -> None:
        """Refuse the folder of something else, or of a sweep of another recipe."""
        path = self.folder / FILE
        if self.plan is not None:
            swept = next((key for one in self.settings for key in one.values if key.startswith("plan.") or key == "budget"), None)
            if swept is not None:
                raise HearthError(f"--over {swept}: --plan decides it; leave one of them out")
        if path.is_file():
            kept = self._kept()
            if kept["recipe"] != digest_json(self._content()):
                raise HearthError(
                    f"{self.folder}: holds a sweep of another recipe, --set, --budget, --text or --plan; choose another --dir"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise HearthError(f"{self.folder}: exists and is not the folder of a sweep; choose another folder with --dir, or empty it")

    def _content(self) -> dict[str, Any]:
        plan = {} if self.plan is None else {"followed": digest_json(self.plan)}
        return {**self.base.content(), **plan}

    def _kept(self) -> dict[str, Any]:
        path = self.folder / FILE
        kept = read_json(path) if path.is_file() else {"format": FORMAT, "recipe": digest_json(self._content()), "plans": {}}
        if not isinstance(kept, dict) or kept.get("format") != FORMAT or not isinstance(kept.get("plans"), dict) or "recipe" not in kept:
            raise DamagedError(f"{path}: not the record of a sweep; delete it to measure this machine again, or choose another --dir")
        return kept

    def _planned(self, budget: str) -> Mapping[str, Any]:
        """The plan that the runs of this budget share: followed, kept, or measured now and kept."""
        if self.plan is not None and not self._kept()["plans"]:
            self._keep(budget, dict(self.plan))
        if budget not in self._kept()["plans"]:
            self.say(f"what all runs share, budget {budget}")
            with self.watching() as watcher:
                made = run(replace(self.base, budget=budget), self.folder / SHARED, until="plan", watcher=watcher).made
            self._keep(budget, read_json(made["plan"].path / "plan.json"))
        plan: Mapping[str, Any] = self._kept()["plans"][budget]
        return plan

    def _keep(self, budget: str, plan: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = self._kept()
        write_json(self.folder / FILE, {**kept, "plans": {**kept["plans"], budget: plan}})

    def _shared(self, setting: Setting) -> dict[str, Path]:
        """Corpus, tokenizer and plan of a setting, made if they are not there."""
        recipe = setting.recipe
        plan = self._planned(recipe.budget)
        again = any(key.partition(".")[0] in GIVEN for key in setting.values)
        if again and self.plan is None:
            recipe = pinned(recipe, plan)
        key = digest_json([recipe.budget, again, *(recipe.stages[kind].model_dump(mode="json") for kind in GIVEN)])
        if key not in self.shared:
            followed = None if again and self.plan is None else plan
            with self.watching() as watcher:
                made = run(recipe, self.folder / SHARED, until="plan", plan=followed, watcher=watcher).made
            self.shared[key] = {kind: made[kind].path for kind in GIVEN}
        return self.shared[key]

    def _measured(self, recipe: Recipe, given: Mapping[str, Path]) -> Recipe:
        """Every run measures as many held-out bytes as the first plan of the sweep says: the same text for all."""
        measure = recipe.stages["measure"]
        if measure.heldout_bytes is None:  # type: ignore[attr-defined]
            plans = self._kept()["plans"]
            measure = measure.model_copy(update={"heldout_bytes": next(iter(plans.values()))["evaluate"]["heldout_bytes"]})
        return replace(recipe, stages={**recipe.stages, "measure": measure})


def pinned(recipe: Recipe, plan: Mapping[str, Any]) -> Recipe:
    """The recipe whose [plan] holds what `plan` decided, where the recipe itself says nothing."""
    decided = {**plan["model"], **plan["pretrain"]}
    stage = recipe.stages["plan"]
    open_ = [name for name in PINNED if getattr(stage, name) in (None, "auto")]
    return replace(recipe, stages={**recipe.stages, "plan": stage.model_copy(update={name: decided[name] for name in open_})})
