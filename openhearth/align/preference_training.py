"""Trainers on pairs of answers: a reward model, and the policy itself by a direct method. The loop, its checkpoints and its guard are those
of pretraining; only the loss of a batch is another. A batch is what `Rendered.take` gives: rows 2i and 2i + 1 answer the same prompt.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from openhearth.align import losses
from openhearth.align.policy import Ids, Scored, frozen, log_probs_of, mismatched
from openhearth.data.order import keys_of, permute
from openhearth.ledger import write_atomic
from openhearth.model.config import CONFIG, ModelConfig
from openhearth.model.hf import WEIGHTS
from openhearth.train.settings import Settings
from openhearth.train.trainer import Batch, Trainer

Method = Literal["dpo", "cdpo", "ipo", "ipo_token_averaged", "kto", "simpo", "orpo"]

SMOOTHING = 0.9
"""Of the figures that are shown while it trains."""


class _PairTrainer(Trainer, ABC):
    """The mean over pairs of `pair_losses`."""

    def pieces(self, batch: Batch) -> list[Callable[[], Tensor]]:
        inputs, targets, labels, margins = batch
        pairs = max(1, self.settings.micro_batch_tokens // (2 * inputs.shape[1]))

        def piece(start: int) -> Tensor:
            rows, part = slice(2 * start, 2 * (start + pairs)), slice(start, start + pairs)
            found = self.pair_losses(inputs[rows], targets[rows], torch.from_numpy(labels[part]), torch.from_numpy(margins[part]))
            return found.sum() / len(labels)

        return [partial(piece, start) for start in range(0, len(labels), pairs)]

    @abstractmethod
    def pair_losses(self, inputs: Ids, targets: Ids, labels_P: Tensor, margins_P: Tensor) -> Tensor:
        """One loss a pair, (pairs,) nats."""

    def note(self, **figures: Tensor) -> None:
        """Keep running means of what is worth seeing."""
        for name, value in figures.items():
            now = float(value.detach().float().mean())
            self.figures[name] = SMOOTHING * self.figures.get(name, now) + (1 - SMOOTHING) * now


class RewardTrainer(_PairTrainer):
    """A reward model: Bradley-Terry on the score at each answer's last token, with soft labels, margins and centring."""

    architecture = Scored

    def __init__(self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor], centring: float) -> None:
        super().__init__(config, settings, initial)
        self.centring = centring

    def pair_losses(self, inputs: Ids, targets: Ids, labels_P: Tensor, margins_P: Tensor) -> Tensor:
        chosen, rejected = last_scores(self.model, inputs, targets).view(-1, 2).unbind(1)
        self.note(accuracy=(chosen > rejected).float(), margin=chosen - rejected)
        loss = losses.bradley_terry_soft(chosen - margins_P, rejected, labels_P)
        return loss + self.centring * losses.reward_centring(chosen, rejected)

    def save(self, folder: Path) -> None:
        """As a Hugging Face `Qwen3ForSequenceClassification` with one label: the score at the last token."""
        kept = {name: tensor.contiguous() for name, tensor in self.flat.tensors().items() if name != "lm_head.weight"}
        write_atomic(folder / WEIGHTS, save(dict(sorted(kept.items())), metadata={"format": "pt"}))
        shape = self.config.to_hf() | {"architectures": ["Qwen3ForSequenceClassification"], "num_labels": 1}
        write_atomic(folder / CONFIG, (json.dumps(shape, indent=2, sort_keys=True) + "\n").encode())


def last_scores(model: torch.nn.Module, inputs: Ids, targets: Ids) -> Tensor:
    """The score at each row's last answer token (its <|im_end|>, read as an input), fp32: (rows,)."""
    assert isinstance(model, Scored)
    ids, wanted = torch.from_numpy(inputs), torch.from_numpy(targets)
    counted = wanted >= 0
    last = torch.where(counted, torch.arange(ids.shape[1]), 0).amax(1, keepdim=True)
    ended = torch.cat((ids, ids[:, :1]), 1).scatter(1, last + 1, wanted.gather(1, last))  # the last target is no input yet
    return model.values(ended).gather(1, last + 1)[:, 0]


@dataclass(frozen=True)
class Direct:
    """A direct method and its constants."""

    method: Method = "cdpo"
    beta: float = 0.1
    """Pull to the reference (dpo, cdpo, kto), scale of the difference (simpo), weight of the odds ratio (orpo), tau (ipo)."""
    gamma: float = 0.5
    """Margin of simpo."""
    sft_weight: float = 0.0
    """Weight of the chosen answer's own negative log-likelihood per token, against its probability falling too."""


class DirectTrainer(_PairTrainer):
    """DPO and its family; the reference is the policy's own first weights."""

    def __init__(self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor], direct: Direct) -> None:
        super().__init__(config, settings, initial)
        self.direct = direct
        self.reference = None if direct.method in ("simpo", "orpo") else frozen(config, initial)

    def pair_losses(self, inputs: Ids, targets: Ids, labels_P: Tensor, margins_P: Tensor) -> Tensor:
        ids, wanted = torch.from_numpy(inputs), torch.from_numpy(targets)
        tokens = (wanted >= 0).sum(1)
        summed = log_probs_of(self.model, ids, wanted).sum(1)
        means = (summed / tokens).view(-1, 2)
        its = self.direct
        if self.reference is None:
            loss = (
                losses.simpo(means[:, 0], means[:, 1], its.beta, its.gamma, labels_P)
                if its.method == "simpo"
                else losses.orpo(means[:, 0], means[:, 1], its.beta, labels_P)
            )
            better = means[:, 0] - means[:, 1]
        else:
            with torch.no_grad():
                reference = log_probs_of(self.reference, ids, wanted).sum(1)
            ratio = (summed - reference).view(-1, 2)
            better = ratio[:, 0] - ratio[:, 1]
            self.note(log_ratio_chosen=ratio[:, 0], log_ratio_rejected=ratio[:, 1])
            loss = self._with_reference(ratio, tokens.view(-1, 2), inputs, targets, labels_P)
        self.note(accuracy=(better > 0).float())
        return loss - its.sft_weight * means[:, 0]

    def _with_reference(self, ratio_P2: Tensor, tokens_P2: Tensor, inputs: Ids, targets: Ids, labels_P: Tensor) -> Tensor:
        its, (chosen, rejected) = self.direct, ratio_P2.unbind(1)
        if its.method == "dpo":
            return losses.dpo(chosen, rejected, its.beta)
        if its.method == "cdpo":
            return losses.cdpo(chosen, rejected, its.beta, labels_P)
        if its.method == "ipo":
            return losses.ipo(chosen, rejected, its.beta, labels_P)
        if its.method == "ipo_token_averaged":
            return losses.ipo_token_averaged(chosen, rejected, tokens_P2[:, 0], tokens_P2[:, 1], its.beta, labels_P)
        assert self.reference is not None
        ids, wanted = (torch.from_numpy(array) for array in mismatched(inputs, targets))
        with torch.no_grad():
            drift = (log_probs_of(self.model, ids, wanted) - log_probs_of(self.reference, ids, wanted)).sum(1)
        desirable = torch.tensor([True, False]).expand_as(ratio_P2)
        return losses.kto(ratio_P2, desirable, losses.kto_reference_point(drift), its.beta).sum(1)


def order(pairs: int, batch: int, seed: int, purpose: str) -> Callable[[int], list[int]]:
    """The pairs of batch number `step`: each epoch is a permutation of all, a pure function of (seed, step)."""

    def chosen(step: int) -> list[int]:
        places = [divmod(place, pairs) for place in range(step * batch, (step + 1) * batch)]
        return [int(permute(np.array([within]), pairs, keys_of(purpose, seed, epoch))[0]) for epoch, within in places]

    return chosen
