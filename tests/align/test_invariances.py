"""What must not matter: padding and its side, splits into micro-batches, the order of groups and of responses, a constant in the reward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from openhearth.align import advantages, losses, policy_losses

LENGTHS = [4, 1, 3, 2]
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "sequence_mean": policy_losses.sequence_mean,
    "token_mean": policy_losses.token_mean,
    "sequence_sum": policy_losses.sequence_sum,
    "constant": lambda mask: policy_losses.constant(mask, 8),
}


def rows(width: int, side: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The same four responses in tensors of `width`, padded on one side with numbers that must not matter."""
    generator = torch.Generator().manual_seed(1)
    names = ("log_probs", "old", "reference", "values", "rewards")
    drawn = {name: [torch.randn(length, generator=generator) for length in LENGTHS] for name in names}
    mask = torch.zeros(len(LENGTHS), width, dtype=torch.bool)
    padded = {name: torch.full((len(LENGTHS), width), 7.0) for name in names}
    for row, length in enumerate(LENGTHS):
        place = slice(0, length) if side == "right" else slice(width - length, width)
        mask[row, place] = True
        for name in names:
            padded[name][row, place] = drawn[name][row]
    return mask, padded


def in_order(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask]


@pytest.mark.parametrize("average", AVERAGES)
def test_neither_padding_nor_its_side_changes_a_loss(average: str) -> None:
    found = []
    for width, side in ((4, "right"), (4, "left"), (9, "right"), (9, "left")):
        mask, its = rows(width, side)
        loss = policy_losses.clipped(its["log_probs"], its["old"], its["rewards"])
        loss = loss + 0.1 * advantages.k3(its["log_probs"] - its["reference"])
        found.append(float((AVERAGES[average](mask) * loss).sum()))
    assert found == pytest.approx([found[0]] * 4, rel=1e-6)


def test_neither_padding_nor_its_side_changes_advantages_and_rewards() -> None:
    wanted = None
    for width, side in ((4, "right"), (4, "left"), (9, "right"), (9, "left")):
        mask, its = rows(width, side)
        rewards = advantages.kl_penalised_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]), its["log_probs"] - its["reference"], mask, 0.1)
        found, returns = advantages.gae(rewards, its["values"], mask, 0.9, 0.8)
        now = [in_order(each, mask) for each in (rewards, found, returns, advantages.whiten(found, mask))]
        assert all((each[~mask] == 0).all() for each in (rewards, found, returns))
        wanted = wanted or now
        for ours, first in zip(now, wanted, strict=True):
            torch.testing.assert_close(ours, first)


@pytest.mark.parametrize("average", AVERAGES)
def test_a_batch_in_any_micro_batches_has_the_same_loss_and_gradient(average: str) -> None:
    mask, its = rows(5, "right")
    weights = AVERAGES[average](mask)
    found = []
    for size in (1, 2, 3, 4):
        log_probs = its["log_probs"].clone().requires_grad_(True)
        for start in range(0, len(mask), size):
            part = slice(start, start + size)
            (weights[part] * policy_losses.clipped(log_probs[part], its["old"][part], its["rewards"][part])).sum().backward()  # type: ignore[no-untyped-call]
        assert log_probs.grad is not None
        found.append(log_probs.grad)
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])


@pytest.mark.parametrize("method", [advantages.rloo, advantages.grpo, advantages.dr_grpo])
def test_a_constant_added_to_rewards_and_the_order_of_groups_and_responses_change_nothing(method: Callable[[Tensor], Tensor]) -> None:
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = method(rewards)
    torch.testing.assert_close(method(rewards + 5.0), wanted)
    torch.testing.assert_close(method(rewards + torch.tensor([[1.0], [2.0], [3.0]])), wanted)
    groups, responses = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(method(rewards[groups][:, responses]), wanted[groups][:, responses])
    torch.testing.assert_close(wanted.sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_groups_that_say_nothing_have_no_advantage_and_are_told_apart() -> None:
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    assert advantages.informative_groups(rewards).tolist() == [False, True]
    assert advantages.grpo(rewards)[0].tolist() == [0.0, 0.0, 0.0]


def test_exchanging_the_responses_of_a_pair_and_its_label_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    first, second, label = torch.randn(6, generator=generator), torch.randn(6, generator=generator), torch.rand(6, generator=generator)
    for method in (
        lambda a, b, p: losses.bradley_terry_soft(a, b, p),
        lambda a, b, p: losses.cdpo(a, b, 0.3, p),
        lambda a, b, p: losses.ipo(a, b, 0.3, p),
        lambda a, b, p: losses.odds_ratio(-a.abs() - 0.1, -b.abs() - 0.1, p),
        lambda a, b, p: losses.simpo(a, b, 2.0, 0.0, p),
    ):
        torch.testing.assert_close(method(first, second, label), method(second, first, 1 - label))


def test_a_constant_added_to_both_scores_changes_no_loss_on_pairs_but_the_centring() -> None:
    first, second = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(losses.bradley_terry(first + 3, second + 3), losses.bradley_terry(first, second))
    assert (losses.reward_centring(first + 3, second + 3) > losses.reward_centring(first, second)).all()


def test_soft_labels_of_one_are_the_hard_losses() -> None:
    first, second = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(losses.bradley_terry_soft(first, second, 1.0), losses.bradley_terry(first, second))
    torch.testing.assert_close(losses.cdpo(first, second, 0.2, 1.0), losses.dpo(first, second, 0.2))


def test_log_odds_are_exact_near_zero_and_near_one() -> None:
    log_probability = torch.tensor([-1e-6, -1e-3, -0.6931, -5.0, -60.0], dtype=torch.float32)
    exact = log_probability.double() - torch.log(-torch.expm1(log_probability.double()))
    torch.testing.assert_close(losses.log_odds(log_probability).double(), exact, rtol=1e-6, atol=1e-6)


def test_overlong_responses_are_punished_linearly_up_to_one() -> None:
    tokens = torch.tensor([10, 80, 90, 100, 120])
    assert advantages.overlong_penalty(tokens, 100, 20).tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_clipping_stops_the_gradient_only_where_the_ratio_has_gone_too_far_in_the_direction_of_the_advantage() -> None:
    old = torch.zeros(4)
    log_probs = torch.tensor([0.26, 0.26, -0.5, -0.5], requires_grad=True)  # ratios 1.30, 1.30, 0.61, 0.61
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    policy_losses.clipped(log_probs, old, advantage, 0.2, 0.28).sum().backward()  # type: ignore[no-untyped-call]
    assert log_probs.grad is not None
    stopped = [True, False, False, True]
    assert (log_probs.grad == 0).tolist() == stopped
    assert policy_losses.clipped_share(log_probs.detach(), old, advantage, 0.2, 0.28).tolist() == stopped
