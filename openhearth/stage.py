"""The contract of a stage: a typed record with one method, `run`. The ground floor: it knows nothing of any room.

To add a stage, write one file with a subclass of `Stage` and add its name to the table in `recipe.py`. A stage reads the
artifacts that it `needs` from `made`, fills the empty folder `out`, and tells the runner how far it is. Its key is the digest of
its settings, of its inputs and of the code it runs: the runner never runs the same key twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field

from openhearth.ledger import Artifact

Made = Mapping[str, Artifact]
"""The artifacts made so far, by the kind of the stage that made them."""


@dataclass(frozen=True)
class Setting:
    """What the recipe says for the whole run; a stage may take defaults from it in `resolve`."""

    name: str
    seed: int
    budget_seconds: float  # of the whole run; for a budget of FLOPs a rough guess, before anything is measured
    budget_flops: float | None = None  # of training, where the budget is not time
    budget_why: tuple[str, ...] = ()  # how money or chip-hours became FLOPs, a sentence a step
    family: Mapping[str, Any] | None = None  # the proportions of the published model that the recipe is named after
    followed_plan: Mapping[str, Any] | None = None  # the content of a plan.json given with --plan, or recorded in a release


class Tell(Protocol):
    """How a stage speaks to whoever watches. All calls are cheap; call `progress` as often as there is news."""

    def progress(self, done: float, total: float, **figures: float | str) -> None:
        """`done` of `total` units of work; figures by name: tokens_per_second, loss (nats per token), step, ..."""
        ...

    def note(self, text: str) -> None:
        """One line that a person should read now."""
        ...

    def record(self, **facts: Any) -> None:
        """Facts for the ledger and the artifact's manifest: tokens, flops, counts. Must not depend on the clock."""
        ...

    def measure(self, **figures: Any) -> None:
        """Measurements for the ledger only: seconds, rates. They never enter a digest."""
        ...


class Stage(BaseModel):
    """One step of a recipe. Every field has a unit, a default and one line of documentation (pydantic `Field(description=...)`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: ClassVar[str]
    """The name of the stage: its table in the recipe, its folder in the run."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The kinds of the artifacts that `run` reads; their digests are part of the stage's key."""

    resumes: ClassVar[bool] = False
    """True when `out` may hold the work of a killed attempt, from which `run` goes on by itself. Else `out` is empty."""

    def required(self) -> tuple[str, ...]:
        """`needs`, for a stage whose settings decide what it reads."""
        return self.needs

    def resolve(self, setting: Setting) -> Stage:
        """The same stage with what it takes from the whole run (seed, budget) filled in, before its key is computed."""
        return self

    def preflight(self) -> None:
        """Raise HearthError for settings that cannot work (a text path that does not exist), before anything is made. No torch."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Read `made`, fill `out`."""
        raise TypeError(f"{type(self).__name__} does not say how to run")


class Seeded(Stage):
    """A stage that draws: from the seed of the recipe, unless it has one of its own."""

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Keys all that the stage draws; the recipe's when left out."""

    def resolve(self, setting: Setting) -> Self:
        return self.model_copy(update={"seed": setting.seed if self.seed is None else self.seed})

    @property
    def own_seed(self) -> int:
        """The seed, filled in by `resolve`."""
        assert self.seed is not None, "resolve() fills in the seed"
        return self.seed
