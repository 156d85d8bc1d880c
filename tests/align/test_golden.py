"""Our losses beside those of TRL 1.16.0 and 0.11.4, verl 0.9.1 and OpenRLHF 0.11.2: the same numbers and the same gradients.

`golden.json` was made by scripts/golden_losses.py from the libraries' own source.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openhearth.align import advantages, losses, policy_losses

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
CASES: list[dict[str, Any]] = GOLDEN["cases"]
Ours = Callable[..., Tensor | tuple[Tensor, ...]]


def test_the_golden_numbers_are_of_the_versions_that_the_documentation_names() -> None:
    assert {name: wheel["version"] for name, wheel in GOLDEN["wheels"].items()} == {
        "trl": "1.16.0",
        "trl-0": "0.11.4",
        "verl": "0.9.1",
        "openrlhf": "0.11.2",
    }


def _dpo_family(method: Callable[..., Tensor]) -> Ours:
    """A method on summed log-ratios, from log-probabilities per token (TRL) or summed (OpenRLHF)."""

    def compute(**its: Any) -> Tensor:
        if "log_probs" in its:
            ratio = (its["log_probs"] * its["mask"]).sum(1) - its["reference"]
            chosen, rejected = ratio.chunk(2)
            its["lengths"] = its["mask"].sum(1).chunk(2)
        else:
            chosen, rejected = its["chosen"] - its["reference_chosen"], its["rejected"] - its["reference_rejected"]
        return method(chosen, rejected, its).mean()

    return compute


def _kto(**its: Any) -> Tensor:
    ratio = (its["log_probs"] * its["mask"]).sum(1) - its["reference"]
    point = losses.kto_reference_point(its["mismatched"] - its["mismatched_reference"])
    weights = its["desirable_weight"], its["undesirable_weight"]
    return losses.kto(ratio, its["desirable"].bool(), point, its["beta"], *weights).mean()


def _clipped(average: Callable[..., Tensor], divergence: str = "") -> Ours:
    def compute(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor, **its: Any) -> Tensor:
        each = advantages if advantages.dim() == 2 else advantages[:, None]
        loss = policy_losses.clipped(log_probs, old_log_probs, each, its["low"], its["high"])
        if divergence == "k3":
            loss = loss + its["beta"] * k3(log_probs - its["reference"])
        elif divergence:
            loss = loss + its["beta"] * importance_weighted_k3(log_probs, old_log_probs, its["reference"])
        return (average(mask.bool(), its) * loss).sum()

    return compute


k1, k2, k3, importance_weighted_k3 = advantages.k1, advantages.k2, advantages.k3, advantages.importance_weighted_k3


def _rloo(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    return policy_losses.clipped((log_probs * mask).sum(1), (old_log_probs * mask).sum(1), advantages, low, high).mean()


def _gae(values: Tensor, rewards: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    found, returns = advantages.gae(rewards, values, mask.bool(), gamma, lam)
    return advantages.whiten(found, mask.bool()), returns


def _ppo(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, values: Tensor, **its: Any) -> Tensor:
    policy = policy_losses.clipped(log_probs, old_log_probs, its["advantages"], its["clip"], its["clip"])
    value = policy_losses.value_loss(values, its["old_values"], its["returns"], its["value_clip"])
    return (policy_losses.token_mean(mask.bool()) * (policy + its["value_weight"] * value)).sum()


def _value(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    return (policy_losses.token_mean(mask.bool()) * policy_losses.value_loss(values, old_values, returns, clip)).sum()


def _grouped(method: Callable[[Tensor], Tensor]) -> Ours:
    return lambda scores, groups: method(scores.view(groups, -1)).flatten()


def _average(average: Callable[..., Tensor]) -> Ours:
    return lambda losses, mask, tokens: (average(mask.bool(), {"longest": tokens}) * losses).sum()


def _centred(**its: Any) -> Tensor:
    chosen, rejected = its["chosen"], its["rejected"]
    return (losses.bradley_terry(chosen, rejected) + its["centring"] * losses.reward_centring(chosen, rejected)).mean()


def sequence_mean(mask: Tensor, its: Any) -> Tensor:
    return policy_losses.sequence_mean(mask)


def token_mean(mask: Tensor, its: Any) -> Tensor:
    return policy_losses.token_mean(mask)


def sequence_sum(mask: Tensor, its: Any) -> Tensor:
    return policy_losses.sequence_sum(mask)


def constant(mask: Tensor, its: Any) -> Tensor:
    return policy_losses.constant(mask, its["longest"])


OURS: dict[str, Ours] = {
    "bradley_terry": lambda chosen, rejected, margin=0.0: losses.bradley_terry(chosen, rejected, margin).mean(),
    "bradley_terry with margin": lambda chosen, rejected, margin=0.0: losses.bradley_terry(chosen, rejected, margin).mean(),
    "bradley_terry with centring": _centred,
    "dpo": _dpo_family(lambda chosen, rejected, its: losses.dpo(chosen, rejected, 0.1)),
    "cdpo": _dpo_family(lambda chosen, rejected, its: losses.cdpo(chosen, rejected, 0.1, 1 - its["settings"]["label_smoothing"])),
    "ipo": _dpo_family(lambda chosen, rejected, its: losses.ipo(chosen, rejected, 0.1)),
    "ipo_token_averaged": _dpo_family(lambda chosen, rejected, its: losses.ipo_token_averaged(chosen, rejected, *its["lengths"], 0.1)),
    "kto": _kto,
    "simpo": lambda chosen, rejected, beta, gamma: losses.simpo(chosen, rejected, beta, gamma).mean(),
    "odds_ratio": lambda chosen, rejected, weight: weight * losses.odds_ratio(chosen, rejected).mean(),
    "grpo": _clipped(sequence_mean),
    "grpo with k3": _clipped(sequence_mean, "k3"),
    "grpo with importance_weighted_k3": _clipped(sequence_mean, "importance_weighted_k3"),
    "dr_grpo": _clipped(constant),
    "bnpo": _clipped(token_mean),
    "dapo": _clipped(token_mean),
    "dapo with k3": _clipped(token_mean, "k3"),
    "dapo with importance_weighted_k3": _clipped(token_mean, "importance_weighted_k3"),
    "rloo on whole responses": _rloo,
    "kl_penalised_rewards": lambda scores, log_probs, reference, mask, beta: advantages.kl_penalised_rewards(
        scores, log_probs - reference, mask.bool(), beta
    ),
    "gae, whitened": _gae,
    "ppo with value loss": _ppo,
    "grpo advantages": _grouped(lambda rewards: advantages.grpo(rewards, 1e-6)),
    "dr_grpo advantages": _grouped(advantages.dr_grpo),
    "rloo advantages": _grouped(advantages.rloo),
    "token_mean": _average(token_mean),
    "sequence_mean": _average(sequence_mean),
    "sequence_sum": _average(sequence_sum),
    "constant": _average(constant),
    "clipped, token_mean": _clipped(token_mean),
    "clipped, sequence_mean": _clipped(sequence_mean),
    "value_loss, token_mean": _value,
    "k1": lambda log_probs, reference: k1(log_probs - reference),
    "k2": lambda log_probs, reference: k2(log_probs - reference),
    "k3": lambda log_probs, reference: k3(log_probs - reference),
}


def _masked(value: Tensor, inputs: dict[str, Any]) -> Tensor:
    """What lies outside the mask has no meaning."""
    return value * inputs["mask"] if "mask" in inputs and value.shape == inputs["mask"].shape else value


@pytest.mark.parametrize("case", CASES, ids=[f"{case['library']}-{case['function']}-{case['name']}" for case in CASES])
def test_result_and_gradient_are_those_of_the_library(case: dict[str, Any]) -> None:
    inputs = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in case["inputs"].items()}
    for key in case.get("gradients", {}):
        inputs[key].requires_grad_(True)
    found = OURS[case["name"]](**inputs)
    found = found if isinstance(found, tuple) else (found,)
    for ours, theirs in zip(found, case["results"], strict=True):
        torch.testing.assert_close(_masked(ours, inputs), _masked(torch.tensor(theirs), inputs), rtol=2e-6, atol=2e-6)
    if case.get("gradients"):
        found[0].sum().backward()  # type: ignore[no-untyped-call]
        for key, gradient in case["gradients"].items():
            torch.testing.assert_close(_masked(inputs[key].grad, inputs), _masked(torch.tensor(gradient), inputs), rtol=5e-6, atol=2e-6)
