"""What training on answers needs of a model: log-probabilities of given tokens, a frozen reference, a scalar head.

There is one function for log-probabilities. What a policy is trained on and what it is compared with (itself when it sampled, the
reference) comes from it, on the same rows in tensors of the same shape, so equal weights give equal bits and a ratio of exactly 1.
Suffixes: B rows, S positions; `targets` holds the next id where it counts and -1 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from openhearth.align.policy_losses import entropy, token_log_probs
from openhearth.model.config import ModelConfig
from openhearth.model.transformer import Transformer

Ids = npt.NDArray[np.int64]


class Scored(Transformer):
    """The same decoder with one number per position beside the logits: a reward model's score, or the value of what is read so far."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)

    def values(self, ids_BS: Tensor) -> Tensor:
        """fp32 scores of every position, (B, S): of the text up to and with it."""
        scores: Tensor = self.score(self.hidden(ids_BS))[..., 0]
        return scores.float()


def frozen(config: ModelConfig, tensors: Mapping[str, Tensor], architecture: type[Transformer] = Transformer) -> Transformer:
    """A model with copies of these fp32 weights, for reading only."""
    model = architecture(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model.eval().requires_grad_(False)


def read(model: Transformer, inputs_BS: Tensor, targets_BS: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """ln pi of the targets at `temperature`, (B, S), 0 where none counts; the entropy there, without gradient; the last hidden states."""
    hidden = model.hidden(inputs_BS)
    counted = targets_BS >= 0
    logits = model.lm_head(hidden[counted]).float() / temperature
    zeros = torch.zeros(targets_BS.shape)
    log_probs = zeros.masked_scatter(counted, token_log_probs(logits, targets_BS[counted]))
    return log_probs, zeros.masked_scatter(counted, entropy(logits.detach())), hidden


def log_probs_of(model: Transformer, inputs_BS: Tensor, targets_BS: Tensor, temperature: float = 1.0) -> Tensor:
    """ln pi of the targets at `temperature`, (B, S), 0 where none counts."""
    return read(model, inputs_BS, targets_BS, temperature)[0]


def mismatched(inputs: Ids, targets: Ids, step: int = 2) -> tuple[Ids, Ids]:
    """Each row's prompt with the answer of the row `step` further on (cut to the width): KTO's estimate of the divergence reads these."""
    rows, width = inputs.shape
    others = np.roll(np.arange(rows), -step)
    given, wanted = inputs.copy(), np.full_like(targets, -1)
    for row, other in enumerate(others):
        first = int((targets[row] >= 0).argmax())
        answer = targets[other][targets[other] >= 0][: width - first]
        wanted[row, first : first + len(answer)] = answer
        given[row, first + 1 : first + len(answer)] = answer[:-1]
    return given, wanted
