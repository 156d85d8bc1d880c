"""Losses on preferences: a reward model's (Bradley-Terry) and those that train the policy directly (DPO, IPO, KTO, SimPO, ORPO).

Pure functions of numbers per response, one loss per row: no reduction, so that a batch may be split and weighted at will. The numbers are
scores of a reward model, log-ratios ln pi(y|x) / pi_ref(y|x) summed over the response's tokens, or log-probabilities averaged over
them. `preference` is the probability that the first response is the better one: 1 is a hard label, 0.5 a tie. Each function is named
for what it computes; docs/align-methods.md says which library calls what by the same name. Suffixes: P pairs, B responses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _logistic(difference_P: Tensor, preference: Tensor | float) -> Tensor:
    """Cross-entropy between a label, `preference`, and sigmoid(`difference`)."""
    return -(preference * F.logsigmoid(difference_P) + (1 - preference) * F.logsigmoid(-difference_P))


# -- reward models ----------------------------------------------------------------------------------------------------------


def bradley_terry(chosen_P: Tensor, rejected_P: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-ln sigmoid(r_chosen - r_rejected - margin): (pairs,) nats. Ouyang et al. 2022, eq. 1; margin: Touvron et al. 2023, eq. 2."""
    return _logistic(chosen_P - rejected_P - margin, 1.0)


def bradley_terry_soft(first_P: Tensor, second_P: Tensor, preference: Tensor | float) -> Tensor:
    """Cross-entropy of sigmoid(r_first - r_second) with a label in [0, 1] of its own for each pair: (pairs,) nats.

    Least where sigmoid(r_first - r_second) = preference. Bai et al. 2022 (Constitutional AI), section 4.1.
    """
    return _logistic(first_P - second_P, preference)


def reward_centring(chosen_P: Tensor, rejected_P: Tensor) -> Tensor:
    """(r_chosen + r_rejected)^2, to be added with a small weight: of all rewards that differ by a constant it picks the one around zero.
    Eisenstein et al. 2023, section 2.2."""
    return (chosen_P + rejected_P).square()


# -- direct methods with a reference ----------------------------------------------------------------------------------------


def dpo(chosen_P: Tensor, rejected_P: Tensor, beta: float) -> Tensor:
    """-ln sigmoid(beta (h_chosen - h_rejected)) of summed log-ratios h. Rafailov et al. 2023, eq. 7."""
    return _logistic(beta * (chosen_P - rejected_P), 1.0)


def cdpo(first_P: Tensor, second_P: Tensor, beta: float, preference: Tensor | float) -> Tensor:
    """DPO with a label in [0, 1] of its own for each pair. Mitchell 2023 (A note on DPO with noisy preferences), eq. 3.

    With preference = sigmoid(r_first - r_second) its minimum is pi_ref exp(r / beta) / Z.
    """
    return _logistic(beta * (first_P - second_P), preference)


def ipo(chosen_P: Tensor, rejected_P: Tensor, tau: float, preference: Tensor | float = 1.0) -> Tensor:
    """(h_chosen - h_rejected - (2 preference - 1) / (2 tau))^2 of summed log-ratios. Azar et al. 2023, eq. 17 (eq. 12 for soft labels)."""
    return (chosen_P - rejected_P - (2 * preference - 1) / (2 * tau)).square()


def ipo_token_averaged(
    chosen_P: Tensor, rejected_P: Tensor, chosen_tokens_P: Tensor, rejected_tokens_P: Tensor, tau: float, preference: Tensor | float = 1.0
) -> Tensor:
    """IPO of log-ratios divided by their response's number of tokens: what TRL calls IPO. Another optimum than `ipo`."""
    return ipo(chosen_P / chosen_tokens_P, rejected_P / rejected_tokens_P, tau, preference)


def kto(
    log_ratio_B: Tensor,
    desirable_B: Tensor,
    reference_point: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Unpaired: weight x (1 - sigmoid(+-beta (h - z))), + where `desirable_B` (bool) holds. (responses,) Ethayarajh et al. 2024, eq. 8.

    `reference_point` is z, from `kto_reference_point`; no gradient flows through it.
    """
    sign = torch.where(desirable_B, 1.0, -1.0)
    weight = torch.where(desirable_B, desirable_weight, undesirable_weight)
    return weight * torch.sigmoid(-sign * beta * (log_ratio_B - reference_point))


def kto_reference_point(mismatched_log_ratio_B: Tensor) -> Tensor:
    """z of KTO, a scalar: the mean log-ratio of responses to other prompts than theirs, at least 0. Ethayarajh et al. 2024, section 4.1."""
    return mismatched_log_ratio_B.detach().mean().clamp(min=0)


# -- direct methods without a reference -------------------------------------------------------------------------------------


def simpo(chosen_mean_P: Tensor, rejected_mean_P: Tensor, beta: float, gamma: float, preference: Tensor | float = 1.0) -> Tensor:
    """-ln sigmoid(beta (m_chosen - m_rejected) - gamma) of log-probabilities averaged over tokens. Meng et al. 2024, eq. 6."""
    return _logistic(beta * (chosen_mean_P - rejected_mean_P) - gamma, preference)


def odds_ratio(chosen_mean_P: Tensor, rejected_mean_P: Tensor, preference: Tensor | float = 1.0) -> Tensor:
    """-ln sigmoid(ln odds_chosen - ln odds_rejected), odds = p / (1 - p), ln p averaged over tokens. Hong et al. 2024 (ORPO), eq. 7."""
    return _logistic(log_odds(chosen_mean_P) - log_odds(rejected_mean_P), preference)


def orpo(chosen_mean_P: Tensor, rejected_mean_P: Tensor, weight: float, preference: Tensor | float = 1.0) -> Tensor:
    """Likelihood of the chosen response plus `weight` times `odds_ratio`. Hong et al. 2024, eq. 6, with both terms per token."""
    return -chosen_mean_P + weight * odds_ratio(chosen_mean_P, rejected_mean_P, preference)


def log_odds(log_probability: Tensor) -> Tensor:
    """ln p / (1 - p) from ln p < 0, exact also near 0 and 1 (Maechler 2012: log1mexp)."""
    near_one = torch.log(-torch.expm1(log_probability.clamp(min=-math.log(2))))
    near_zero = torch.log1p(-torch.exp(log_probability.clamp(max=-math.log(2))))
    return log_probability - torch.where(log_probability > -math.log(2), near_one, near_zero)
