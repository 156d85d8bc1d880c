"""Batch size and learning rate by rule. The rules disagree by a factor of two or three, so `rates` gives all of them and the range
between them.

Two kinds of batch: the *best* one (least loss at given tokens; StepLaw, DeepSeek, Porian, Power Lines) and the *critical* one (beyond it,
a larger batch saves hardly any steps; Kaplan, Zhang, Power Lines). Batches are in tokens. Everything takes floats or arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from openhearth.plan.scaling_laws import LAWS, Number, above_zero, plain

STEPLAW_MEAN = (0.58630779, -0.71292229, 0.30749095, -0.54354217, 0.57094436)
"""Means of the 1,000 bootstraps that StepLaw publishes: ln lr = c + n ln N + d ln D; ln batch = c + d ln D."""
STEPLAW_PRINTED = (math.log(1.79), -0.713, 0.307, math.log(0.58), 0.571)
"""As the paper prints them: 1.5 % lower rates at 7B parameters on 1.4T tokens."""
STEPLAW_RATE_COVARIANCE = (
    (3.89062111e-01, -1.35589390e-02, -5.13249353e-03),
    (-1.35589390e-02, 8.91485737e-04, -1.74331789e-04),
    (-5.13249353e-03, -1.74331789e-04, 3.66311843e-04),
)
STEPLAW_BATCH_COVARIANCE = ((1.91179636e-01, -8.15157225e-03), (-8.15157225e-03, 3.48517939e-04))
Z95 = 1.959963985


@dataclass(frozen=True)
class Rule:
    """A rule's name, source, what it was measured on, and its functions of (parameters, tokens): None where it says nothing."""

    name: str
    source: str
    domain: str
    learning_rate: Callable[[Any, Any], Any] | None
    batch_tokens: Callable[[Any, Any], Any] | None
    kind: str = "best"
    note: str = ""


def step_law(parameters: Number, tokens: Number, printed: bool = False) -> tuple[Number, Number]:
    """(learning rate, batch in tokens) of StepLaw (Li et al. 2025, arXiv:2503.04715): 1.797 N^-0.713 D^0.307 and 0.581 D^0.571.

    With `printed`, by the rounded coefficients of the paper.
    """
    log_n, log_d = np.log(above_zero("parameters", parameters)), np.log(above_zero("tokens", tokens))
    c, n, d, batch_c, batch_d = STEPLAW_PRINTED if printed else STEPLAW_MEAN
    return plain(np.exp(c + n * log_n + d * log_d)), plain(np.exp(batch_c + batch_d * log_d))


def step_law_interval(parameters: float, tokens: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of both, from the covariance of StepLaw's bootstraps (normal in the logarithm)."""
    rate, batch = step_law(parameters, tokens)
    spread = []
    for features, covariance in (
        (np.array([1.0, math.log(parameters), math.log(tokens)]), np.array(STEPLAW_RATE_COVARIANCE)),
        (np.array([1.0, math.log(tokens)]), np.array(STEPLAW_BATCH_COVARIANCE)),
    ):
        spread.append(math.exp(Z95 * math.sqrt(max(float(features @ covariance @ features), 0.0))))
    return (rate / spread[0], rate * spread[0]), (batch / spread[1], batch * spread[1])


def deepseek(flops: Number) -> tuple[Number, Number]:
    """(learning rate, batch in tokens) of DeepSeek LLM (arXiv:2401.02954, eq. 1): 0.3118 C^-0.125 and 0.2920 C^0.3271."""
    c = above_zero("FLOPs", flops)
    return plain(0.3118 * c**-0.1250), plain(0.2920 * c**0.3271)


def porian(parameters: Number) -> tuple[Number, Number]:
    """(learning rate, batch in tokens) of Porian et al. 2024: 0.0047 (N/108M)^-1/3 and 160 x 2048 (N/108M)^2/3; OLMo halves the rate."""
    size = above_zero("parameters", parameters) / 1.08e8
    return plain(0.0047 * size ** (-1 / 3)), plain(160 * 2048 * size ** (2 / 3))


def power_lines(tokens: Number, sequence_length: int = 2048) -> Number:
    """Best batch in tokens (Bergsma et al. 2025, arXiv:2505.13738, figure 1): 0.0306 D^0.383 sequences, of 2,048 tokens in their runs."""
    return plain(0.0306 * above_zero("tokens", tokens) ** 0.383 * sequence_length)


def power_lines_critical(tokens: Number, sequence_length: int = 2048) -> Number:
    """Critical batch in tokens (Bergsma et al. 2025, eq. 7): 0.0471 D^0.462 sequences, D the tokens needed with a small batch."""
    return plain(0.0471 * above_zero("tokens", tokens) ** 0.462 * sequence_length)


def zhang_critical(tokens: Number) -> Number:
    """Critical batch in tokens (Zhang et al. 2024, arXiv:2410.21676): 22.91 (D/1M)^0.47 sequences of 512 tokens; it grows with D, not
    with N.

    Their critical batch is the one with 20 % more tokens than a small batch needs.
    """
    return plain(22.91 * (above_zero("tokens", tokens) / 1e6) ** 0.47 * 512)


def kaplan_critical(loss: Number) -> Number:
    """Critical batch in tokens at a loss (Kaplan et al. 2020, eq. 1.4): 2e8 / L^(1/0.21). The loss is one of their own text, WebText2."""
    return plain(2e8 / above_zero("loss", loss) ** (1 / 0.21))


def trade_off(batch: Number, critical: Number, least_steps: Number, least_tokens: Number) -> tuple[Number, Number]:
    """(steps, tokens) to the same loss with another batch (McCandlish et al. 2018, arXiv:1812.06162, eq. 5.1).

    steps = least_steps (1 + critical/batch), tokens = least_tokens (1 + batch/critical): at the critical batch both are twice their least.
    """
    b, bc = above_zero("batch", batch), above_zero("critical batch", critical)
    steps, tokens = above_zero("least steps", least_steps), above_zero("least tokens", least_tokens)
    return plain(steps * (1 + bc / b)), plain(tokens * (1 + b / bc))


def _kaplan_rule(parameters: Any, tokens: Any) -> Any:
    return kaplan_critical(LAWS["kaplan"].loss(parameters, tokens))


RULES = (
    Rule(
        "steplaw",
        "Li et al. 2025, arXiv:2503.04715; means of the authors' 1,000 bootstraps",
        "0.2B to 1.1B parameters, 4B to 100B tokens",
        lambda n, d: step_law(n, d)[0],
        lambda n, d: step_law(n, d)[1],
    ),
    Rule(
        "deepseek",
        "DeepSeek LLM 2024, arXiv:2401.02954, eq. 1",
        "1e17 to 2e19 FLOPs",
        lambda n, d: deepseek(6 * np.asarray(n, float) * d)[0],
        lambda n, d: deepseek(6 * np.asarray(n, float) * d)[1],
    ),
    Rule(
        "porian",
        "Porian et al. 2024, arXiv:2406.19146",
        "5M to 108M parameters, 20 tokens each",
        lambda n, d: porian(n)[0],
        lambda n, d: porian(n)[1],
        note="of the size alone: for about 20 tokens per parameter; OLMo takes half of this learning rate",
    ),
    Rule(
        "power-lines",
        "Bergsma et al. 2025, arXiv:2505.13738, figure 1",
        "0.1B to 3.3B parameters",
        None,
        lambda n, d: power_lines(d),
    ),
    Rule(
        "zhang-critical",
        "Zhang et al. 2024, arXiv:2410.21676",
        "85M to 1.2B parameters, 20 tokens each",
        None,
        lambda n, d: zhang_critical(d),
        "critical",
    ),
    Rule(
        "power-lines-critical",
        "Bergsma et al. 2025, arXiv:2505.13738, eq. 7",
        "0.1B to 3.3B parameters",
        None,
        lambda n, d: power_lines_critical(d),
        "critical",
    ),
    Rule(
        "kaplan-critical",
        "Kaplan et al. 2020, arXiv:2001.08361, eq. 1.4, at the loss of their own law",
        "up to 1.5B parameters",
        None,
        _kaplan_rule,
        "critical",
    ),
)


def rates(parameters: Number, tokens: Number) -> dict[str, Any]:
    """Every rule's learning rate and batch for a model of so many parameters and tokens, and the ranges of the best and the critical batch.

    Returns {"rules": [{rule, kind, learning_rate, batch_tokens, source, domain, note}], "learning_rate": (low, high),
    "batch_tokens": (low, high), "critical_batch_tokens": (low, high)}. Raises HearthError on counts that are not above zero.
    """
    n, d = above_zero("parameters", parameters), above_zero("tokens", tokens)
    rows: list[dict[str, Any]] = [
        {
            "rule": rule.name,
            "kind": rule.kind,
            "learning_rate": None if rule.learning_rate is None else plain(rule.learning_rate(n, d)),
            "batch_tokens": None if rule.batch_tokens is None else plain(rule.batch_tokens(n, d)),
            "source": rule.source,
            "domain": rule.domain,
            "note": rule.note,
        }
        for rule in RULES
    ]

    def extent(key: str, kind: str) -> tuple[Number, Number]:
        values = [row[key] for row in rows if row["kind"] == kind and row[key] is not None]
        return plain(np.minimum.reduce(values)), plain(np.maximum.reduce(values))

    return {
        "rules": rows,
        "learning_rate": extent("learning_rate", "best"),
        "batch_tokens": extent("batch_tokens", "best"),
        "critical_batch_tokens": extent("batch_tokens", "critical"),
    }
