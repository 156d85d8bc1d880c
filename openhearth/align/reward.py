"""The stage `reward`: a reward model from preference rows (Bradley-Terry with a soft label for each pair), and what it is worth.

It begins as the fine-tuned model with a score beside its logits. On pairs whose prompts were set aside its accuracy stands beside that of
"the longer answer is better": a reward model that does not beat it has learned length.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from openhearth.align.preference_stage import PreferenceStage
from openhearth.ledger import digest_json, write_json
from openhearth.stage import Made, Tell

if TYPE_CHECKING:
    from openhearth.align.preference_rows import Rendered
    from openhearth.align.reward_model import RewardModel

CALIBRATION = "reward.json"


class Reward(PreferenceStage):
    """Train a reward model on preference rows."""

    kind: ClassVar[str] = "reward"
    needs: ClassVar[tuple[str, ...]] = ("tokenizer", "plan", "sft")
    resumes: ClassVar[bool] = True

    centring: float = Field(default=0.01, ge=0, le=10)
    """Weight of (sum of a pair's scores)^2, which keeps scores around zero."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.preference_training import RewardTrainer, order
        from openhearth.align.reward_model import RewardModel
        from openhearth.model.hf import load_tensors
        from openhearth.train.loop import train

        prepared = self.prepare(made, out, tell)
        assert self.seed is not None, "resolve() fills in the seed"
        config, chosen = prepared.config, order(prepared.train.pairs, prepared.batch, self.seed, "reward")

        def initial() -> dict[str, Any]:
            import torch

            return load_tensors(made["sft"].path, config) | {"score.weight": torch.zeros(1, config.hidden_size)}

        train(
            config, prepared.settings, initial, lambda step: prepared.train.take(chosen(step)), out, tell,
            data=self.fixed(prepared, centring=self.centring),
            make=lambda shape, settings, first: RewardTrainer(shape, settings, first, self.centring),
        )  # fmt: skip
        model = RewardModel.load(out, calibrated=False)
        mean, deviation = model.calibrate(prepared.train)
        figures: dict[str, Any] = {"mean": mean, "standard_deviation": deviation, "train": _figures(model, prepared.train)}
        if prepared.heldout is not None:
            figures["heldout"] = _figures(model, prepared.heldout)
        write_json(out / CALIBRATION, figures)
        tell.record(reward={name: figures[name] for name in ("train", "heldout") if name in figures})
        tell.record(rows_sha256=self.rows_sha256, settings_sha256=digest_json(self.model_dump(mode="json")))


def _figures(model: RewardModel, pairs: Rendered) -> dict[str, Any]:
    """Accuracy with its interval, the same of the longer answer, and how far the probabilities are from the labels (Brier)."""
    import numpy as np

    from openhearth.evaluate.statistics import wilson

    scores = model.raw(pairs.inputs, pairs.targets).reshape(-1, 2)
    lengths = (pairs.targets >= 0).sum(1).reshape(-1, 2)
    decided = pairs.labels != 0.5
    right = (scores[:, 0] > scores[:, 1]) == (pairs.labels > 0.5)
    longer = ((lengths[:, 0] > lengths[:, 1]) == (pairs.labels > 0.5)) & (lengths[:, 0] != lengths[:, 1])
    probability = 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    count = int(decided.sum())
    if not count:
        return {"pairs": pairs.pairs}
    accuracy, baseline = wilson(int(right[decided].sum()), count), wilson(int(longer[decided].sum()), count)
    return {
        "pairs": pairs.pairs,
        "accuracy": {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high},
        "longer_is_better": {"value": baseline.value, "low": baseline.low, "high": baseline.high},
        "brier": float(np.square(probability - pairs.labels).mean()),
    }
