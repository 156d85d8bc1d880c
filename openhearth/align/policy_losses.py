"""Policy-gradient losses per token, and how they are averaged. Minimised; advantages and old log-probabilities carry no gradient.

The methods differ in three places that are independent of each other: the advantage (`advantages.py`), the loss per token and the average.
An average is a weight per token, computed once for the whole batch; the loss is the sum of weight x loss over any split of it, so that
micro-batches, padding and packing cannot change it. Suffixes: B responses, T tokens of a response.

    PPO       gae                 clipped                    token_mean       + value_loss
    REINFORCE reinforce           policy_gradient            sequence_sum
    RLOO      rloo                clipped on whole responses sequence_sum
    GRPO      grpo                clipped                    sequence_mean    + beta x k3
    Dr. GRPO  dr_grpo             clipped                    constant
    DAPO      grpo on informative clipped, high > low        token_mean       + overlong_penalty in the reward
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-A ln pi, in the shape of `log_probs`. Williams 1992 (REINFORCE)."""
    return -advantages * log_probs


def clipped(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - low, 1 + high)), rho = pi / pi_old. Schulman et al. 2017, eq. 7; high > low: Yu et al. 2025, eq. 10.

    Of log-probabilities per token, (B, T), or summed over whole responses, (B,): then rho is the response's (RLOO).
    """
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))


def clipped_share(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, low: float = 0.2, high: float = 0.2) -> Tensor:
    """Where `clipped` has no gradient, bool."""
    ratio = torch.exp(log_probs - old_log_probs)
    return ((advantages > 0) & (ratio > 1 + high)) | ((advantages < 0) & (ratio < 1 - low))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = 0.2) -> Tensor:
    """max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2) / 2; without `clip` half the squared error. Dhariwal et al. 2017."""
    error = (values - returns).square()
    if clip is not None:
        error = torch.maximum(error, (old_values + (values - old_values).clamp(-clip, clip) - returns).square())
    return error / 2


def entropy(logits: Tensor) -> Tensor:
    """Of the next token, nats: (..., vocab) -> (...)."""
    log_probabilities = logits.log_softmax(-1)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """ln pi of `tokens` under fp32 `logits`: (..., vocab), (...) -> (...)."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


# -- averages: weights (B, T) over a whole batch, 0 outside the mask --------------------------------------------------------


def sequence_mean(mask_BT: Tensor) -> Tensor:
    """Mean over responses of each one's mean over its tokens: a token of a long response counts less. GRPO (Shao et al. 2024, eq. 3)."""
    return mask_BT / mask_BT.sum(-1, keepdim=True).clamp(min=1) / max(1, mask_BT.shape[0])


def token_mean(mask_BT: Tensor) -> Tensor:
    """Mean over all tokens of the batch. PPO's; DAPO (Yu et al. 2025, eq. 8)."""
    return mask_BT / mask_BT.sum().clamp(min=1)


def sequence_sum(mask_BT: Tensor) -> Tensor:
    """Mean over responses of each response's sum: the gradient of the expected reward itself."""
    return mask_BT / max(1, mask_BT.shape[0])


def constant(mask_BT: Tensor, tokens: int) -> Tensor:
    """`sequence_sum` divided by a constant number of tokens, such as the longest allowed. Dr. GRPO (Liu et al. 2025, section 3.2)."""
    return sequence_sum(mask_BT) / tokens
