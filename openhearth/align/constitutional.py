"""Constitutional AI as stages (Bai et al. 2022): a model's own critiques and revisions, its own preferences, and what they train.

    sl_cai    answer, then criticise and revise a few times by drawn principles; fine-tune the base model on all revisions
    rl_cai    two answers to each prompt, compared by drawn principles in both orders; train on the soft labels

Nothing here knows what harm is: the wall to the truth is a test (tests/align/world/test_wall.py). A stage that is killed goes on from the
files of the rounds that it finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.align.foundation import SEQUENCE, training
from openhearth.stage import Made, Seeded, Tell

if TYPE_CHECKING:
    from torch import Tensor

    from openhearth.align.judge_checkpoint import Checkpoint

NEW_TOKENS = 40
"""Of an answer, a critique or a revision."""


class SlCai(Seeded):
    """Critique and revise, then fine-tune the base model on what came of it."""

    kind: ClassVar[str] = "sl_cai"
    needs: ClassVar[tuple[str, ...]] = ("world", "base", "helpful")
    resumes: ClassVar[bool] = True

    constitution: str = "house"
    """The principles: a file, or the name of a constitution that comes with hearth."""
    rounds: int = Field(default=4, ge=1, le=64)
    """Critiques and revisions of each answer; a principle is drawn for each."""
    epochs: float = Field(default=4.0, gt=0, le=1000)
    """Passes over revisions and helpful samples."""
    learning_rate: float = Field(default=0.015, gt=0, le=10)
    """Half of pretraining's, as in the paper."""
    batch_tokens: int = Field(default=2_048, ge=SEQUENCE, le=2**20, multiple_of=SEQUENCE)
    """Tokens per update."""

    def preflight(self) -> None:
        from openhearth.align.constitution_check import require_valid
        from openhearth.align.constitution_files import load

        require_valid(load(self.constitution), self.constitution)

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.constitution_files import load
        from openhearth.align.revise import Costs, helpful_samples, revise
        from openhearth.align.supervised import Dialogue, fine_tune, read_rows
        from openhearth.model.hf import load_config, load_tensors

        world, seed = made["world"].path, self.own_seed
        helper = opened(made, "helpful")
        costs = Costs(helper.flops_per_token)
        prompts = read_rows(world / "prompts.jsonl")
        revisions = revise(helper, load(self.constitution), prompts, self.rounds, seed, out, tell, costs)
        helped = helpful_samples(helper, [row["prompt"] for row in read_rows(world / "helpful_prompts.jsonl")], seed, out, costs)
        dialogues = [Dialogue((said("user", row["prompt"]), said("assistant", row["text"]))) for row in [*revisions, *helped]]
        config = load_config(made["base"].path)
        settings = training(self.learning_rate, self.batch_tokens)

        def initial() -> Mapping[str, Tensor]:
            return load_tensors(made["base"].path, config)

        spent = fine_tune(config, initial, dialogues, helper.tokenizer, settings, out, tell, epochs=self.epochs, seed=seed)
        tell.record(flops=spent + costs.flops, **costs.facts(), training_flops=spent)


class RlCai(Seeded):
    """Two answers to each prompt, the model's own comparison of them, and training on the soft labels."""

    kind: ClassVar[str] = "rl_cai"
    needs: ClassVar[tuple[str, ...]] = ("world", "helpful", "sl_cai")
    resumes: ClassVar[bool] = True

    constitution: str = "house"
    """The principles: a file, or the name of a constitution that comes with hearth."""
    pairs: int = Field(default=2, ge=1, le=64)
    """Pairs of answers sampled for each prompt; those that are equal are left out."""
    beta: float = Field(default=0.1, gt=0, le=100)
    """How strongly the policy is held to the SL-CAI model."""
    epochs: float = Field(default=2.0, gt=0, le=1000)
    """Passes over the labelled pairs."""
    learning_rate: float = Field(default=0.0005, gt=0, le=10)
    """Peak learning rate (AdamW)."""
    batch_pairs: int = Field(default=32, ge=1, le=4096)
    """Pairs per update."""
    thought: bool = True
    """Whether the judge thinks before it chooses."""
    clamp: tuple[float, float] = (0.05, 0.95)
    """Bounds of the labels; the paper's for judges that think first are [0.4, 0.6]."""

    def preflight(self) -> None:
        from openhearth.align.constitution_check import require_valid
        from openhearth.align.constitution_files import load

        require_valid(load(self.constitution), self.constitution)

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.constitution_files import load
        from openhearth.align.preferences import labelled, prefer
        from openhearth.align.revise import Costs
        from openhearth.align.supervised import read_rows
        from openhearth.model.hf import save_model

        policy, judge = opened(made, "sl_cai"), opened(made, "helpful")
        costs = Costs(judge.flops_per_token)
        prompts = read_rows(made["world"].path / "prompts.jsonl")
        rows = labelled(policy, judge, load(self.constitution), prompts, self.pairs, self.own_seed, self.judging(), out, tell, costs)
        tensors, curve, spent = prefer(policy, rows, self.tuning(), tell, seed=self.own_seed)
        save_model(tensors, policy.model.config, out)
        curve.write(out)
        tell.record(flops=spent + costs.flops, **costs.facts(), training_flops=spent, labels=len(rows), **curve.facts())

    def judging(self) -> dict[str, Any]:
        """How pairs are judged."""
        return {"thought": self.thought, "clamp": self.clamp, "max_new_tokens": NEW_TOKENS}

    def tuning(self) -> dict[str, Any]:
        """What `prefer` needs to know."""
        return {name: getattr(self, name) for name in ("beta", "epochs", "learning_rate", "batch_pairs")}


def opened(made: Made, kind: str) -> Checkpoint:
    """The model of a stage as generator and judge, with the world's tokenizer."""
    from openhearth.align.judge_checkpoint import Checkpoint

    return Checkpoint.open(made[kind].path, made["world"].path)


def said(role: str, content: str) -> dict[str, str]:
    """A message."""
    return {"role": role, "content": content}
