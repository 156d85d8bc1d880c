"""What more would buy: a model several times as large, twice the data, twice the budget; and where a curve of loss seems to bend.

Everything is nats of a law, and what they are in other coin: percent of perplexity, tokens that would buy the same, the served tokens
after which the smaller model is the cheaper one. A power law has no knee: `knee` says where one *appears* on an axis, and so how the axis
makes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from openhearth.plan.scaling_laws import DEFAULT, Array, Law, Number, Terms, above_zero, plain
from openhearth.plan.scaling_laws import law as law_named
from openhearth.plan.splitting import tokens_for


def bigger(
    parameters: Number, tokens: Number, factor: Number = 4.0, law: str | Law = DEFAULT, unique_tokens: Number = None
) -> dict[str, Number]:
    """What `factor` times the parameters buy, in two ways. `unique_tokens` limits the first: more tokens are repetitions.

    On the same tokens: `nats` and `perplexity` (the share it falls by) gained, for `compute_factor` times the training FLOPs; the
    `tokens_to_tie` after which the smaller model is as good (infinite: never), with `tie_compute_share` of the larger model's training; and
    `break_even_tokens`, the served tokens after which having trained the smaller one longer is cheaper in all (0: from the first).
    Along the line of best splits: `optimal_compute_factor` times the FLOPs for a best model `factor` times as large, `optimal_nats` gained.
    Raises HearthError for a law without such a loss.
    """
    terms = law_named(law).terms
    n, d, k = above_zero("parameters", parameters), above_zero("tokens", tokens), above_zero("factor", factor)
    unique = None if unique_tokens is None else above_zero("unique tokens", unique_tokens)
    small, large = terms.loss(n, d, unique), terms.loss(k * n, d, unique)
    tie = tokens_for(terms, n, large, unique)
    # 6 k N D + 2 k N T = 6 N D' + 2 N T: both sides as good, T served tokens
    with np.errstate(invalid="ignore"):
        break_even = np.where(np.isinf(tie), np.inf, np.maximum(3 * (tie - k * d) / (k - 1), 0.0))
    budget = 6 * (n / terms.balance) ** (1 / terms.exponent)
    factor_c = k ** (1 / terms.exponent)
    at_one, at_more = (terms.loss(*terms.optimal(c)) for c in (budget, budget * factor_c))
    return {
        "loss": plain(small),
        "loss_bigger": plain(large),
        "nats": plain(small - large),
        "perplexity": plain(-np.expm1(large - small)),
        "reducible_ratio": plain((large - terms.E) / (small - terms.E)),
        "compute_factor": plain(k + np.zeros_like(n)),
        "tokens_to_tie": plain(tie),
        "tie_compute_share": plain(tie / (k * d)),
        "break_even_tokens": plain(break_even),
        "optimal_compute_factor": plain(factor_c + np.zeros_like(n)),
        "optimal_nats": plain(at_one - at_more),
    }


def doubling(tokens: Number, law: str | Law = DEFAULT) -> dict[str, Number]:
    """What more tokens buy a model of any size after so many.

    `twice`: nats that twice the tokens gain; `another_billion`: nats of 1B more; `left`: the whole data term, what endless tokens would
    gain.
    """
    terms = law_named(law).terms
    d = above_zero("tokens", tokens)
    left = terms.B / d**terms.beta
    return {
        "twice": plain(left * -np.expm1(-terms.beta * np.log(2))),
        "another_billion": plain(left * -np.expm1(-terms.beta * np.log1p(1e9 / d))),
        "left": plain(left),
    }


def knee(axis_end: Number, axis_start: float = 1e9, law: str | Law = DEFAULT) -> Number:
    """The tokens at which a curve of loss, drawn over a linear axis from `axis_start` to `axis_end`, bends: where its slope is that of
    its chord.

    The rule of Satopaa et al. 2011 ("kneedle"), in closed form for B/D^beta. It moves with the axis: a power law has no knee of its own.
    """
    terms = law_named(law).terms
    start, end = above_zero("axis_start", axis_start), above_zero("axis_end", axis_end)
    chord = (start**-terms.beta - end**-terms.beta) / (end - start)
    return plain((terms.beta / chord) ** (1 / (1 + terms.beta)))


def gain_by_size_and_data(parameters: Number, tokens: Number, law: str | Law = DEFAULT) -> dict[str, Any]:
    """The terms of N and of D that are left, and which is the larger: what holds this model back."""
    terms = law_named(law).terms
    by_n = terms.A / above_zero("parameters", parameters) ** terms.alpha
    by_d = terms.B / above_zero("tokens", tokens) ** terms.beta
    return {"parameters": plain(by_n), "tokens": plain(by_d), "bottleneck": np.where(by_n > by_d, "parameters", "tokens")[()]}


def more_budget(flops: Number, factor: Number = 2.0, law: str | Law = DEFAULT) -> dict[str, Any]:
    """What `factor` times the FLOPs buy along the line of best splits: parameters, tokens, loss, and `nats` and `perplexity` gained.

    `interval` is of the nats, 95 %, None without the law's runs. Raises HearthError for a law without such a loss.
    """
    each = law_named(law)
    c, k = above_zero("FLOPs", flops), above_zero("factor", factor)

    def gained(terms: Terms) -> Array:
        return np.asarray(terms.loss(*terms.optimal(c)) - terms.loss(*terms.optimal(k * c)))

    n, d = each.terms.optimal(k * c)
    nats = gained(each.terms)
    return {
        "factor": plain(k),
        "parameters": plain(n),
        "tokens": plain(d),
        "loss": plain(each.terms.loss(n, d)),
        "nats": plain(nats),
        "interval": each.interval(gained),
        "perplexity": plain(-np.expm1(-nats)),
    }
