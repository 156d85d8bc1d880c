"""From rewards to advantages: estimators of the KL divergence, the KL penalty inside the reward, GAE, and baselines within a group.

Pure functions; nothing here takes a gradient except the estimators of the divergence, which may serve as losses.
Suffixes: B responses, T tokens of a response, P prompts, G responses to one prompt. `mask_BT` is true on the response's own tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

# -- divergence from the reference, per token -------------------------------------------------------------------------------
# `log_ratio` is ln pi - ln pi_ref of tokens drawn from pi. All three have the mean KL(pi || pi_ref), or k2 nearly; as losses, that is
# differentiated through the formula on tokens drawn from pi, they differ (Tang and Munos 2025; shown exactly in tests/align).


def k1(log_ratio: Tensor) -> Tensor:
    """ln pi / pi_ref: unbiased, may be negative. As a loss its mean gradient is zero; it belongs in the reward. Schulman 2020."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """(ln pi / pi_ref)^2 / 2: biased, small variance. As a loss its mean gradient is that of KL(pi || pi_ref). Schulman 2020."""
    return log_ratio.square() / 2


def k3(log_ratio: Tensor) -> Tensor:
    """pi_ref / pi - 1 - ln pi_ref / pi: unbiased, never negative. As a loss its mean gradient is that of KL(pi_ref || pi), the other
    direction. Schulman 2020; the KL term of GRPO (Shao et al. 2024, eq. 4)."""
    return torch.expm1(-log_ratio) + log_ratio


def importance_weighted_k3(log_probs: Tensor, old_log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """pi / pi_old x k3: unbiased for tokens drawn from pi_old, and its mean gradient is that of KL(pi || pi_ref). DeepSeek-AI 2025 (V3.2),
    eq. 7; TRL's `use_bias_correction_kl`."""
    return torch.exp(log_probs - old_log_probs) * k3(log_probs - reference_log_probs)


# -- rewards ----------------------------------------------------------------------------------------------------------------


def kl_penalised_rewards(score_B: Tensor, log_ratio_BT: Tensor, mask_BT: Tensor, beta: float) -> Tensor:
    """Rewards per token, (B, T): -beta x k1 at each, and the response's score at its last. Ziegler et al. 2019, eq. 2."""
    rewards = torch.where(mask_BT, -beta * log_ratio_BT, 0.0)
    return rewards.scatter_add(1, last_token(mask_BT)[:, None], score_B[:, None].to(rewards.dtype))


def kl_penalised_scores(score_B: Tensor, log_ratio_BT: Tensor, mask_BT: Tensor, beta: float) -> Tensor:
    """The same summed over the response, (B,): score - beta ln pi(y|x) / pi_ref(y|x). Ahmadian et al. 2024 (RLOO), eq. 2."""
    return score_B - beta * (log_ratio_BT * mask_BT).sum(-1)


def last_token(mask_BT: Tensor) -> Tensor:
    """Index of the last true position in each row, (B,); 0 where there is none."""
    positions = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return torch.where(mask_BT, positions, 0).amax(-1)


def overlong_penalty(tokens_B: Tensor, longest: int, buffer: int) -> Tensor:
    """0 up to `longest` - `buffer` tokens, falling linearly to -1 at `longest`, (B,). Yu et al. 2025 (DAPO), eq. 13."""
    return ((longest - buffer - tokens_B) / buffer).clamp(-1.0, 0.0)


# -- advantages per token ---------------------------------------------------------------------------------------------------


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both (B, T), 0 outside the mask. Schulman et al. 2016, eq. 16; returns = advantages + values.

    Positions outside the mask are passed over, on whichever side or in the middle they lie; after the last token the value is 0.
    """
    advantages = torch.zeros_like(values_BT)
    following = torch.zeros_like(values_BT[:, 0])
    running = torch.zeros_like(following)
    for t in range(values_BT.shape[1] - 1, -1, -1):
        here = mask_BT[:, t]
        delta = rewards_BT[:, t] + gamma * following - values_BT[:, t]
        running = torch.where(here, delta + gamma * lam * running, running)
        following = torch.where(here, values_BT[:, t], following)
        advantages[:, t] = torch.where(here, running, 0.0)
    return advantages, torch.where(mask_BT, advantages + values_BT, 0.0)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, epsilon: float = 1e-8) -> Tensor:
    """Mean 0 (kept when not `shift_mean`) and unbiased variance 1 over the mask, 0 outside it. `epsilon` is added to the variance.

    With fewer than two values under the mask there is no variance: then only the mean is taken away.
    """
    chosen = values[mask]
    mean = chosen.mean() if chosen.numel() else values.new_zeros(())
    variance = chosen.var() if chosen.numel() > 1 else values.new_ones(())
    whitened = (values - mean) * torch.rsqrt(variance + epsilon)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


# -- advantages per response, within the group of one prompt ----------------------------------------------------------------


def reinforce(rewards: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """reward - baseline; unbiased for every baseline that does not depend on the response itself. Williams 1992."""
    return rewards - baseline


def rloo(rewards_PG: Tensor) -> Tensor:
    """Each reward less the mean of the others': (P, G), G at least 2. Kool et al. 2019; Ahmadian et al. 2024, eq. 8. Unbiased."""
    size = rewards_PG.shape[1]
    if size < 2:
        raise ValueError("leave-one-out needs at least two responses to a prompt")
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) * (size / (size - 1))


def dr_grpo(rewards_PG: Tensor) -> Tensor:
    """Each reward less its group's mean, (P, G): (G - 1) / G times `rloo`. Liu et al. 2025 (Dr. GRPO), section 3.2."""
    return rewards_PG - rewards_PG.mean(1, keepdim=True)


def grpo(rewards_PG: Tensor, epsilon: float = 1e-4) -> Tensor:
    """(reward - mean) / (unbiased standard deviation + epsilon) within each group, (P, G). Shao et al. 2024 (DeepSeekMath), section 4.1.2.

    Dividing by the deviation sigma makes beta of a KL term act as beta x sigma: the optimum is pi_ref exp(r / (beta sigma)) / Z.
    """
    if rewards_PG.shape[1] < 2:
        return torch.zeros_like(rewards_PG)
    return dr_grpo(rewards_PG) / (rewards_PG.std(1, keepdim=True) + epsilon)


def informative_groups(rewards_PG: Tensor) -> Tensor:
    """Which groups say anything, (P,) bool: those whose rewards are not all equal. DAPO keeps only these (Yu et al. 2025, eq. 11)."""
    return (rewards_PG != rewards_PG[:, :1]).any(1)
