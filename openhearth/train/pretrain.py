"""The stage `pretrain`: a fresh transformer, trained on the shards for the planned number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.ledger import digest_json
from openhearth.model.config import ModelConfig
from openhearth.stage import Made, Seeded, Tell
from openhearth.train.planning import read_plan, settings_of
from openhearth.train.schedule import Schedule
from openhearth.train.settings import MOST_STEPS, Guard, Settings

if TYPE_CHECKING:
    from torch import Tensor

    from openhearth.train.trainer import Batch


@dataclass(frozen=True)
class Course:
    """Shape, settings, first weights, and the batches by their number: a training run, before it is run."""

    config: ModelConfig
    settings: Settings
    initial: Callable[[], Mapping[str, Tensor]]
    batches: Callable[[int], Batch]
    data: str
    """The digest of what the batches are read from, and of their order."""


class Pretrain(Seeded):
    """Train a fresh transformer on the corpus, as planned."""

    kind: ClassVar[str] = "pretrain"
    needs: ClassVar[tuple[str, ...]] = ("tokenizer", "plan")
    resumes: ClassVar[bool] = True

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of the first weights and of the order of the data; the recipe's when left out."""
    learning_rate: float | None = Field(default=None, gt=0, le=10_000, exclude_if=lambda value: value is None)
    """Peak learning rate of the matrices; those of the other groups change by the same factor. As planned when left out."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Decoupled weight decay of the matrices, per unit of learning rate."""
    max_grad_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False, exclude_if=lambda value: value is None)
    """The L2 norm that a gradient is scaled down to where it is longer; Muon and AdamW forget most of a gradient's size by themselves."""
    schedule: Schedule = Schedule()
    """Learning rate and momentum over the run, as fractions of it."""
    guard: Guard = Guard()
    """When a step is bad (not finite, or a spike) and skipped, and what follows."""
    permanent_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    """Steps between checkpoints that are kept for good, in telemetry/checkpoints; 0: none is."""
    samples: int = Field(default=3, ge=0, le=100)
    """Texts that the model writes on its way, at even shares of the run, told and kept in telemetry/samples.jsonl; 0: none."""

    def rates(self, planned: dict[str, float]) -> dict[str, float]:
        """Peak learning rate by optimiser group: the planned ones, all scaled where the recipe sets that of the matrices."""
        if self.learning_rate is None:
            return planned
        factor = self.learning_rate / planned["matrix"]
        return {group: rate * factor for group, rate in planned.items()} | {"matrix": self.learning_rate}

    def settings(self, plan: dict[str, Any]) -> Settings:
        """The planned settings with what this stage decides itself."""
        planned = settings_of(plan, "pretrain")
        own = {name: getattr(self, name) for name in ("weight_decay", "max_grad_norm", "schedule", "guard", "permanent_steps")}
        return planned.model_copy(update={**own, "learning_rate": self.rates(planned.learning_rate)})

    def course(self, made: Made) -> Course:
        """What the training is a pure function of, from the artifacts that it reads."""
        from openhearth.data.order import Windows
        from openhearth.data.shards import Tokens
        from openhearth.model.hf import tensor_shapes
        from openhearth.model.init import initial_tensor

        assert self.seed is not None, "resolve() fills in the seed"
        seed = self.seed
        plan = read_plan(made)
        config = ModelConfig.model_validate(plan["model"])
        settings = self.settings(plan)
        tokens = Tokens(made["tokenizer"].path / "train")
        tokens.verify()
        windows = Windows(tokens, settings.sequence_length, seed)
        rows = settings.batch_tokens // settings.sequence_length
        return Course(
            config,
            settings,
            lambda: {name: initial_tensor(name, shape, config, seed) for name, shape in tensor_shapes(config).items()},
            lambda step: windows.sample(step * rows, (step + 1) * rows),
            digest_json([tokens.digest, seed]),
        )

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.train.loop import train
        from openhearth.train.milestones import Milestones

        assert self.seed is not None, "resolve() fills in the seed"
        course = self.course(made)
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        looking_on = Milestones(tokenizer, course.config, course.settings.steps, self.samples, self.seed, out, tell)
        train(course.config, course.settings, course.initial, course.batches, out, tell, data=course.data, after=looking_on)
