"""A policy over a handful of responses that can all be listed: what the methods do to it is known exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RESPONSES = 16


def world(seed: int, responses: int = RESPONSES) -> tuple[Tensor, Tensor]:
    """ln pi_ref and rewards of all responses, fp64."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(responses, generator=generator, dtype=torch.float64).log_softmax(0)
    return reference, torch.randn(responses, generator=generator, dtype=torch.float64)


def tilted(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """ln of pi_ref exp(r / beta) / Z."""
    return (reference + rewards / beta).log_softmax(0)


def total_variation(a: Tensor, b: Tensor) -> float:
    """Between two distributions given by their logarithms."""
    return float((a.exp() - b.exp()).abs().sum() / 2)


def descend(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int = 300, rate: float = 0.1) -> Tensor:
    """ln pi after Adam, with a rate that falls to zero, on the logits of a tabular policy; `loss` takes ln pi of all responses."""
    logits = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(logits.log_softmax(0)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return logits.detach().log_softmax(0)
