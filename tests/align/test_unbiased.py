"""The gradient that each estimator has on average, by going through everything that can be drawn: no tolerance for chance is needed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from openhearth.align import advantages, policy_losses
from tests.align.tabular import world

COUNT, GROUP = 5, 3


def start() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a policy that is not the reference, ln pi_ref and rewards."""
    reference, rewards = world(7, COUNT)
    logits = reference + 0.5 * torch.randn(COUNT, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    return logits.requires_grad_(True), reference, rewards


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, logits)
    return found


def mean_gradient(logits: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor], size: int = GROUP) -> Tensor:
    """The mean over all groups of `size` responses, each with its probability, of the gradient of `loss_of(ln pi, drawn)`."""
    log_probs = logits.log_softmax(0)
    total = torch.zeros(())
    for drawn in product(range(COUNT), repeat=size):
        index = torch.tensor(drawn)
        total = total + log_probs.detach()[index].sum().exp() * loss_of(log_probs, index)
    return gradient(total, logits)


def true_gradient(logits: Tensor, rewards: Tensor) -> Tensor:
    """Of minus the expected reward."""
    return gradient(-(logits.softmax(0) * rewards).sum(), logits)


def test_reinforce_and_rloo_have_the_gradient_of_the_expected_reward() -> None:
    logits, _, rewards = start()
    for advantage in (lambda r: advantages.reinforce(r), lambda r: advantages.reinforce(r, 3.0), lambda r: advantages.rloo(r[None])[0]):
        found = mean_gradient(logits, lambda p, i, a=advantage: policy_losses.policy_gradient(p[i], a(rewards[i])).mean())  # type: ignore[misc]
        torch.testing.assert_close(found, true_gradient(logits, rewards))


def test_clipping_changes_nothing_while_the_policy_is_the_one_that_was_drawn_from() -> None:
    logits, _, rewards = start()
    found = mean_gradient(logits, lambda p, i: policy_losses.clipped(p[i], p[i].detach(), advantages.rloo(rewards[i][None])[0]).mean())
    torch.testing.assert_close(found, true_gradient(logits, rewards))


def test_dr_grpo_has_that_gradient_times_one_less_than_the_group_over_the_group() -> None:
    logits, _, rewards = start()
    found = mean_gradient(logits, lambda p, i: policy_losses.policy_gradient(p[i], advantages.dr_grpo(rewards[i][None])[0]).mean())
    torch.testing.assert_close(found, true_gradient(logits, rewards) * (GROUP - 1) / GROUP)


def test_grpo_has_another_direction_because_it_divides_by_the_deviation() -> None:
    logits, _, rewards = start()
    found = mean_gradient(logits, lambda p, i: policy_losses.policy_gradient(p[i], advantages.grpo(rewards[i][None])[0]).mean())
    assert torch.cosine_similarity(found, true_gradient(logits, rewards), 0) < 0.999


def test_the_divergence_inside_the_reward_has_the_gradient_of_the_penalised_objective() -> None:
    logits, reference, rewards = start()
    beta = 0.3

    def loss(log_probs: Tensor, index: Tensor) -> Tensor:
        mask = torch.ones(GROUP, 1, dtype=torch.bool)
        scores = advantages.kl_penalised_scores(rewards[index], (log_probs.detach() - reference)[index, None], mask, beta)
        return policy_losses.policy_gradient(log_probs[index], advantages.rloo(scores[None])[0]).mean()

    policy = logits.log_softmax(0)
    objective = (policy.exp() * (rewards - beta * (policy - reference))).sum()
    torch.testing.assert_close(mean_gradient(logits, loss), gradient(-objective, logits))


def test_as_losses_the_estimators_of_the_divergence_have_different_gradients() -> None:
    logits, reference, _ = start()
    policy = logits.log_softmax(0)
    reverse = gradient((policy.exp() * (policy - reference)).sum(), logits)
    policy = logits.log_softmax(0)
    forward = gradient((reference.exp() * (reference - policy)).sum(), logits)
    ratio = {
        "k1": mean_gradient(logits, lambda p, i: advantages.k1(p - reference)[i].mean(), 1),
        "k2": mean_gradient(logits, lambda p, i: advantages.k2(p - reference)[i].mean(), 1),
        "k3": mean_gradient(logits, lambda p, i: advantages.k3(p - reference)[i].mean(), 1),
        "weighted k3": mean_gradient(logits, lambda p, i: advantages.importance_weighted_k3(p[i], p[i].detach(), reference[i]).mean(), 1),
    }
    torch.testing.assert_close(ratio["k1"], torch.zeros_like(reverse), atol=1e-12, rtol=0)
    torch.testing.assert_close(ratio["k2"], reverse)
    torch.testing.assert_close(ratio["k3"], forward)
    torch.testing.assert_close(ratio["weighted k3"], reverse)


def test_weighted_k3_is_unbiased_in_value_and_gradient_for_responses_of_an_older_policy() -> None:
    logits, reference, rewards = start()
    old = (logits.detach() + 0.3 * rewards).log_softmax(0)
    policy = logits.log_softmax(0)
    estimate = (old.exp() * advantages.importance_weighted_k3(policy, old, reference)).sum()
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close(estimate, exact)
    again = logits.log_softmax(0)
    torch.testing.assert_close(gradient(estimate, logits), gradient((again.exp() * (again - reference)).sum(), logits))


def test_k1_and_k3_have_the_divergence_as_mean_and_k3_is_never_negative() -> None:
    logits, reference, _ = start()
    ratio = logits.detach().log_softmax(0) - reference
    policy = logits.detach().softmax(0)
    exact = (policy * ratio).sum()
    torch.testing.assert_close((policy * advantages.k1(ratio)).sum(), exact)
    torch.testing.assert_close((policy * advantages.k3(ratio)).sum(), exact)
    assert (advantages.k3(ratio) >= 0).all() and (advantages.k1(ratio) < 0).any()


def test_sampled_rloo_gradients_lie_within_three_standard_errors_of_the_exact_one() -> None:
    logits, _, rewards = start()
    generator = torch.Generator().manual_seed(9)
    groups = 4000
    drawn = torch.multinomial(logits.detach().softmax(0), groups * GROUP, replacement=True, generator=generator).view(groups, GROUP)
    score = torch.eye(COUNT, dtype=torch.float64)[drawn] - logits.detach().softmax(0)  # gradient of ln pi
    each = -(advantages.rloo(rewards[drawn])[..., None] * score).mean(1)
    error = each.std(0) / groups**0.5
    assert ((each.mean(0) - true_gradient(logits, rewards)).abs() < 3 * error).all()


def test_gae_with_lambda_one_is_the_return_less_the_value_and_with_zero_one_step_ahead() -> None:
    generator = torch.Generator().manual_seed(3)
    rewards, values = torch.randn(2, 4, generator=generator), torch.randn(2, 4, generator=generator)
    mask = torch.ones(2, 4, dtype=torch.bool)
    full, returns = advantages.gae(rewards, values, mask, 0.9, 1.0)
    discounted = torch.stack([sum(0.9 ** (s - t) * rewards[:, s] for s in range(t, 4)) for t in range(4)], 1)  # type: ignore[misc]
    torch.testing.assert_close(full, discounted - values)
    torch.testing.assert_close(returns, discounted)
    one_step, _ = advantages.gae(rewards, values, mask, 0.9, 0.0)
    following = torch.cat((values[:, 1:], torch.zeros(2, 1)), 1)
    torch.testing.assert_close(one_step, rewards + 0.9 * following - values)
