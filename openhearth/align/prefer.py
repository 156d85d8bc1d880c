"""The stage `prefer`: train the fine-tuned policy directly on preference rows, by DPO and its family; no reward model, no sampling.

On pairs whose prompts were set aside: how often the better answer has the larger implied reward, and how the log-probability of both
answers moved (that of the better one often falls too: Razin et al. 2024).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from openhearth.align.preference_stage import PreferenceStage, Prepared
from openhearth.ledger import write_json
from openhearth.stage import Made, Tell


class Prefer(PreferenceStage):
    """Train the policy on preference rows."""

    kind: ClassVar[str] = "prefer"
    needs: ClassVar[tuple[str, ...]] = ("tokenizer", "plan", "sft")
    resumes: ClassVar[bool] = True

    method: Literal["dpo", "cdpo", "ipo", "ipo_token_averaged", "kto", "simpo", "orpo"] = "cdpo"
    """The loss; all but dpo and kto take each pair's own label. See docs/align-methods.md."""
    beta: float = Field(default=0.1, gt=0, le=1000)
    """Pull to the reference (dpo, cdpo, kto), tau (ipo), scale (simpo), weight of the odds ratio (orpo)."""
    gamma: float = Field(default=0.5, ge=0, le=1000)
    """Margin of simpo."""
    sft_weight: float = Field(default=0.0, ge=0, le=100)
    """Weight of the chosen answer's negative log-likelihood per token, added to the loss."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.preference_training import Direct, DirectTrainer, order
        from openhearth.model.hf import load_tensors
        from openhearth.train.loop import train

        prepared = self.prepare(made, out, tell)
        assert self.seed is not None, "resolve() fills in the seed"
        direct = Direct(self.method, self.beta, self.gamma, self.sft_weight)
        chosen = order(prepared.train.pairs, prepared.batch, self.seed, "prefer")
        train(
            prepared.config, prepared.settings, lambda: load_tensors(made["sft"].path, prepared.config),
            lambda step: prepared.train.take(chosen(step)), out, tell,
            data=self.fixed(prepared, method=self.method, beta=self.beta, gamma=self.gamma, sft_weight=self.sft_weight),
            make=lambda shape, settings, first: DirectTrainer(shape, settings, first, direct),
        )  # fmt: skip
        figures = {} if prepared.heldout is None else _figures(prepared, made["sft"].path, out)
        write_json(out / "prefer.json", {"method": self.method, "heldout": figures})
        tell.record(method=self.method, heldout=figures, rows_sha256=self.rows_sha256)


def _figures(prepared: Prepared, before: Path, after: Path) -> dict[str, Any]:
    """Accuracy of the implied reward on the pairs set aside, with its interval, and the mean log-ratio of either answer."""
    import torch

    from openhearth.align.policy import log_probs_of
    from openhearth.evaluate.statistics import wilson
    from openhearth.model.hf import load_model

    pairs, sums = prepared.heldout, []
    assert pairs is not None
    with torch.inference_mode():
        for folder in (before, after):
            model = load_model(folder)
            rows = [slice(at, at + 32) for at in range(0, len(pairs.inputs), 32)]
            parts = [log_probs_of(model, torch.from_numpy(pairs.inputs[row]), torch.from_numpy(pairs.targets[row])).sum(1) for row in rows]
            sums.append(torch.cat(parts).double().numpy())
    ratio = (sums[1] - sums[0]).reshape(-1, 2)
    decided = pairs.labels != 0.5
    right = (ratio[:, 0] > ratio[:, 1]) == (pairs.labels > 0.5)
    figures: dict[str, Any] = {
        "pairs": pairs.pairs,
        "log_ratio_chosen": float(ratio[:, 0].mean()),
        "log_ratio_rejected": float(ratio[:, 1].mean()),
    }
    if decided.any():
        accuracy = wilson(int(right[decided].sum()), int(decided.sum()))
        figures["accuracy"] = {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    return figures
