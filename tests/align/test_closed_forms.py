"""On responses that can all be listed, each method ends where its theory says it must: total variation under 0.02, other seeds included.

A policy gradient is followed in expectation where that can be written down, and from samples where the method itself is a statement about
samples (groups, clipping, several steps per batch, a learned value).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from openhearth.align import advantages, losses, policy_losses
from tests.align.tabular import descend, tilted, total_variation, world

SEEDS = [1, 2]
BETA = 0.7
CLOSE = 0.02


def pairs(count: int) -> tuple[Tensor, Tensor]:
    """All ordered pairs of different responses."""
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    different = first != second
    return first[different], second[different]


@pytest.mark.parametrize("seed", SEEDS)
def test_cdpo_with_exact_bradley_terry_labels_reaches_the_optimum_of_the_penalised_reward(seed: int) -> None:
    reference, rewards = world(seed, 64)
    first, second = pairs(len(rewards))
    labels = torch.sigmoid(rewards[first] - rewards[second])
    found = descend(lambda p: losses.cdpo((p - reference)[first], (p - reference)[second], BETA, labels).mean(), reference)
    assert total_variation(found, tilted(reference, rewards, BETA)) < CLOSE


@pytest.mark.parametrize("seed", SEEDS)
def test_dpo_weighted_by_how_often_each_order_is_drawn_is_cdpo(seed: int) -> None:
    reference, rewards = world(seed, 64)
    first, second = pairs(len(rewards))
    labels = torch.sigmoid(rewards[first] - rewards[second])
    found = descend(lambda p: (labels * losses.dpo((p - reference)[first], (p - reference)[second], BETA)).mean(), reference)
    assert total_variation(found, tilted(reference, rewards, BETA)) < CLOSE


@pytest.mark.parametrize("seed", SEEDS)
def test_ipo_reaches_the_optimum_of_the_mean_preference_and_not_that_of_the_reward(seed: int) -> None:
    reference, rewards = world(seed, 64)
    first, second = pairs(len(rewards))
    tau = 0.1
    labels = torch.sigmoid(rewards[first] - rewards[second])
    # least squares over all pairs: ln pi / pi_ref is the mean over opponents (itself, with preference one half, included)
    won = torch.sigmoid(rewards[:, None] - rewards[None]).mean(1)
    found = descend(lambda p: losses.ipo((p - reference)[first], (p - reference)[second], tau, labels).mean(), reference)
    assert total_variation(found, tilted(reference, won, tau)) < CLOSE
    assert total_variation(found, tilted(reference, rewards, tau)) > 0.1


def test_ipo_averaged_over_tokens_has_another_optimum_than_ipo() -> None:
    reference, rewards = world(3)
    first, second = pairs(len(rewards))
    tokens = torch.arange(len(rewards)) % 7 + 1
    labels = torch.sigmoid(rewards[first] - rewards[second])
    won = torch.sigmoid(rewards[:, None] - rewards[None]).mean(1)

    def loss(p: Tensor) -> Tensor:
        ratio = p - reference
        return losses.ipo_token_averaged(ratio[first], ratio[second], tokens[first], tokens[second], 0.5, labels).mean()

    found = descend(loss, reference, steps=1000)
    # ln pi / pi_ref per token is the mean preference over tau up to a constant c, and c is the one that normalises
    assert total_variation(found, tilted(reference, won, 0.5)) > 0.1
    low, high = -20.0, 20.0
    for _ in range(80):
        c = (low + high) / 2
        low, high = (c, high) if float((reference + tokens * (won / 0.5 + c)).logsumexp(0)) < 0 else (low, c)
    assert total_variation(found, reference + tokens * (won / 0.5 + c)) < CLOSE


@pytest.mark.parametrize("seed", SEEDS)
def test_kto_moves_to_what_is_desirable_and_stays_near_the_reference_when_nothing_is_said(seed: int) -> None:
    reference, rewards = world(seed, 64)
    desirable = rewards > 0
    found = descend(lambda p: losses.kto(p - reference, desirable, 0.0, BETA).mean(), reference)
    assert float(found.exp()[desirable].sum()) > float(reference.exp()[desirable].sum())
    even = torch.cat((torch.ones(len(rewards), dtype=torch.bool), torch.zeros(len(rewards), dtype=torch.bool)))
    both = descend(lambda p: losses.kto((p - reference).repeat(2), even, 0.0, BETA).mean(), reference)
    assert total_variation(both, reference) < CLOSE


# -- policy gradients -------------------------------------------------------------------------------------------------------


def ascend(
    reference: Tensor, rewards: Tensor, gradient: object, *, seed: int, updates: int = 500, group: int = 2048, epochs: int = 1
) -> Tensor:
    """Sample groups from the policy, take `gradient(policy, drawn, scores, old)` as loss; ln pi averaged over the second half."""
    assert callable(gradient)
    generator = torch.Generator().manual_seed(seed)
    logits = reference.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates * epochs)
    average = torch.zeros_like(reference)
    for update in range(updates):
        old = logits.detach().log_softmax(0)
        drawn = torch.multinomial(old.exp(), group, replacement=True, generator=generator)
        for _ in range(epochs):
            optimizer.zero_grad()
            gradient(logits.log_softmax(0), drawn, old).backward()
            optimizer.step()
            schedule.step()
        if update >= updates // 2:
            average += logits.detach().log_softmax(0).exp()
    return (average / average.sum()).log()


@pytest.mark.parametrize("seed", SEEDS)
def test_rloo_with_the_divergence_in_the_reward_reaches_the_closed_form(seed: int) -> None:
    reference, rewards = world(seed)

    def loss(policy: Tensor, drawn: Tensor, old: Tensor) -> Tensor:
        mask = torch.ones(len(drawn), 1, dtype=torch.bool)
        scores = advantages.kl_penalised_scores(rewards[drawn], (old - reference)[drawn, None], mask, BETA)
        return policy_losses.clipped(policy[drawn], old[drawn], advantages.rloo(scores[None])[0]).mean()

    found = ascend(reference, rewards, loss, seed=seed)
    assert total_variation(found, tilted(reference, rewards, BETA)) < CLOSE


@pytest.mark.parametrize("seed", SEEDS)
def test_dr_grpo_reaches_the_closed_form_with_the_divergence_as_a_weighted_k3_loss(seed: int) -> None:
    reference, rewards = world(seed)

    def loss(policy: Tensor, drawn: Tensor, old: Tensor) -> Tensor:
        reward = policy_losses.clipped(policy[drawn], old[drawn], advantages.dr_grpo(rewards[drawn][None])[0])
        divergence = advantages.importance_weighted_k3(policy[drawn], old[drawn], reference[drawn])
        return (reward + BETA * divergence).mean()

    found = ascend(reference, rewards, loss, seed=seed)
    assert total_variation(found, tilted(reference, rewards, BETA)) < CLOSE


@pytest.mark.parametrize("seed", SEEDS)
def test_grpo_reaches_the_closed_form_of_beta_times_sigma_and_not_that_of_beta(seed: int) -> None:
    reference, rewards = world(seed)
    beta = 2.0  # with a small beta the only fixed point is sigma = 0: the policy collapses onto the best response

    def loss(policy: Tensor, drawn: Tensor, old: Tensor) -> Tensor:
        reward = policy_losses.clipped(policy[drawn], old[drawn], advantages.grpo(rewards[drawn][None])[0])
        return (reward + beta * advantages.importance_weighted_k3(policy[drawn], old[drawn], reference[drawn])).mean()

    found = ascend(reference, rewards, loss, seed=seed)
    # sigma is that of rewards under the policy itself: the fixed point of pi = tilted(beta x sigma(pi))
    sigma = 1.0
    for _ in range(200):
        policy = tilted(reference, rewards, beta * sigma).exp()
        sigma = 0.5 * sigma + 0.5 * float(((policy * rewards**2).sum() - (policy * rewards).sum() ** 2).sqrt())
    assert abs(sigma - 1) > 0.05, "else the two forms are one"
    assert total_variation(found, tilted(reference, rewards, beta * sigma)) < CLOSE
    assert total_variation(found, tilted(reference, rewards, beta)) > 2 * total_variation(found, tilted(reference, rewards, beta * sigma))


@pytest.mark.parametrize("seed", SEEDS)
def test_ppo_with_a_learned_value_several_epochs_and_clipping_reaches_the_closed_form(seed: int) -> None:
    reference, rewards = world(seed)
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    critic = torch.optim.Adam([value], lr=0.02)

    def loss(policy: Tensor, drawn: Tensor, old: Tensor) -> Tensor:
        mask = torch.ones(len(drawn), 1, dtype=torch.bool)
        scored = advantages.kl_penalised_rewards(rewards[drawn], (old - reference)[drawn, None], mask, BETA)
        values = value.detach().expand(len(drawn), 1)
        found, returns = advantages.gae(scored, values, mask, 1.0, 0.95)
        critic.zero_grad()
        policy_losses.value_loss(value.expand(len(drawn), 1), values, returns).mean().backward()  # type: ignore[no-untyped-call]
        critic.step()
        return policy_losses.clipped(policy[drawn, None], old[drawn, None], found).mean()

    found = ascend(reference, rewards, loss, seed=seed, epochs=2)
    assert total_variation(found, tilted(reference, rewards, BETA)) < CLOSE


# -- best of n and reward models --------------------------------------------------------------------------------------------


def test_the_divergence_of_best_of_n_bounds_the_true_one_and_is_exact_for_many_equally_likely_responses() -> None:
    from openhearth.align import best_of_n

    for seed in SEEDS:
        reference, rewards = world(seed)
        order = rewards.argsort()
        below = reference.exp()[order].cumsum(0)
        for n in (1, 2, 4, 16):
            chosen = below**n - torch.cat((torch.zeros(1), below[:-1])) ** n
            true = float((chosen * (chosen.clamp(min=1e-300).log() - reference[order])).sum())
            assert true <= best_of_n.divergence(n) + 1e-9
    even = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    chosen = even[1:] ** 4 - even[:-1] ** 4
    true = float((chosen * (chosen * 100_000).log()).sum())
    assert true == pytest.approx(best_of_n.divergence(4), abs=1e-3)


def test_the_expected_best_of_n_is_the_mean_over_all_draws() -> None:
    from itertools import combinations

    from openhearth.align import best_of_n

    proxy, gold = [0.3, 1.0, 1.0, -2.0, 0.5, 0.3], [1.0, 5.0, 2.0, 0.0, 3.0, 4.0]
    for n in range(1, 7):
        kept = []
        for drawn in combinations(range(6), n):
            best = max(proxy[i] for i in drawn)
            winners = [gold[i] for i in drawn if proxy[i] == best]
            kept.append(sum(winners) / len(winners))
        assert best_of_n.expected(proxy, gold, n) == pytest.approx(sum(kept) / len(kept))


def test_a_reward_model_recovers_utilities_up_to_a_constant_and_soft_labels_do_so_with_less_scatter() -> None:
    generator = torch.Generator().manual_seed(5)
    utilities = torch.randn(12, generator=generator, dtype=torch.float64)
    first, second = pairs(12)
    probability = torch.sigmoid(utilities[first] - utilities[second])

    def fit(labels: Tensor) -> Tensor:
        scores = torch.zeros(12, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([scores], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimizer.zero_grad()
            loss = losses.bradley_terry_soft(scores[first], scores[second], labels).mean()
            loss = loss + 1e-9 * losses.reward_centring(scores[first], scores[second]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(closure)
        return scores.detach() - scores.detach().mean()

    truth = utilities - utilities.mean()
    torch.testing.assert_close(fit(probability), truth, atol=2e-3, rtol=0)
    noisy = (probability.logit() + torch.randn(len(first), generator=generator, dtype=torch.float64) * 0.3).sigmoid()
    soft = fit(noisy)  # a judge that errs by 0.3 in the logit, beside draws from the exact probabilities
    hard = torch.stack([fit(torch.bernoulli(probability, generator=generator)) for _ in range(5)])
    assert float((soft - truth).square().mean()) < 0.3 * float((hard - truth).square().mean())


def test_centring_picks_the_rewards_whose_pairs_sum_to_zero() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.05)
    for _ in range(1500):
        optimizer.zero_grad()
        centring = 0.01 * losses.reward_centring(scores[:2], scores[1:])
        loss = losses.bradley_terry_soft(scores[:2], scores[1:], torch.tensor([0.7, 0.4])) + centring
        loss.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert abs(float(scores.mean())) < 0.3
