"""The best split of a budget between parameters and tokens where no closed form exists: repeated data, serving, attention in the FLOPs.

One idea: along any path D(N) the best N is where a percent more parameters gains as much loss as it costs in tokens. Both slopes are
known in closed form, so the search is a bisection on the sign of their difference, in ln N, for all questions (and all resamples of a
law) at once. Slopes are compared as logarithms: a saturated law's slopes underflow long before their order is in doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from openhearth.plan.scaling_laws import Array, Terms

ASPECT = 128
"""Width over depth of the decoder that stands for N parameters where attention is counted."""
HALVINGS = 58
"""Of an interval of some 70 units of ln N: to 2e-16 of N."""
ROUGH = 30
"""Halvings that are enough for the ends of an interval: to 7e-8 of N."""


@dataclass(frozen=True)
class Work:
    """FLOPs per token as a function of N: 6N to train and 2N to serve, and the attention of `sequence_length` tokens where that is given.

    Attention costs 12 x layers x width x sequence_length a trained token (PaLM's convention, all positions), a third of that a served one,
    in a decoder of N = 12 x layers x width^2 parameters whose width is 128 x layers.
    """

    sequence_length: float | None = None

    def train(self, n: Array) -> Array:
        """FLOPs per trained token."""
        return 6 * n if self.sequence_length is None else 6 * n + self._attention(n)

    def serve(self, n: Array) -> Array:
        """FLOPs per served token: the forward pass, a third of training."""
        return self.train(n) / 3

    def slope(self, n: Array) -> Any:
        """d ln train / d ln N: attention grows with N^(2/3)."""
        if self.sequence_length is None:
            return 1.0
        attention = self._attention(n)
        return (6 * n + 2 / 3 * attention) / (6 * n + attention)

    def _attention(self, n: Array) -> Array:
        assert self.sequence_length is not None
        width = (n * ASPECT / 12) ** (1 / 3)
        return 12 * width**2 / ASPECT * self.sequence_length


def within_budget(
    terms: Terms, budget: Array, unique: Array | None, served: Array | None, work: Work, halvings: int = HALVINGS
) -> tuple[Array, Array]:
    """(N, D) of the least loss with train(N) D + serve(N) served = `budget` FLOPs. Everything broadcasts, resamples of the law too."""
    served_tokens = np.asarray(0.0 if served is None else served)

    def tokens(n: Array) -> Array:
        return np.asarray((budget - work.serve(n) * served_tokens) / work.train(n))

    n = _crossing(terms, tokens, budget, unique, served_tokens, work, halvings, ends_right=True)
    return n, tokens(n)


def at_quality(
    terms: Terms, target: Array, unique: Array | None, served: Array | None, work: Work, halvings: int = HALVINGS
) -> tuple[Array, Array]:
    """(N, D) of the least train(N) D + serve(N) served with a loss of `target` (Sardana et al. 2023); NaN where no size reaches it."""
    served_tokens = np.asarray(0.0 if served is None else served)

    def tokens(n: Array) -> Array:
        return _tokens_for(terms, n, target, unique)

    n = _crossing(terms, tokens, np.asarray(target), unique, served_tokens, work, halvings, ends_right=False)
    d = tokens(n) if unique is None else tokens_for(terms, n, target, unique)
    found = np.isfinite(d) & (d > 0)
    return np.where(found, n, np.nan), np.where(found, d, np.nan)


def tokens_for(terms: Terms, n: Array, target: Array, unique: Array | None = None) -> Array:
    """Tokens after which N parameters reach a loss; infinite where they never do."""
    d = _tokens_for(terms, n, target, unique)
    if unique is None:
        return np.where(d > 0, d, np.inf)
    low, high = np.zeros(np.shape(d)), np.log(np.minimum(unique, np.where(d > 0, unique, 1.0)))  # where no text repeats: the loss falls
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = terms.loss(n, np.exp(middle), unique) > target
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.where(d > unique, d, np.where(d > 0, np.exp(high), np.inf))


def _tokens_for(terms: Terms, n: Array, target: Array, unique: Array | None) -> Array:
    """Tokens for a loss, -1 where the size cannot reach it."""
    worth_n, _ = terms.effective(n, np.ones_like(n), unique, None if unique is None else terms.matched_parameters(unique))
    left = target - terms.E - terms.A / worth_n**terms.alpha
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        worth_d = np.where(left > 0, (terms.B / np.maximum(left, 1e-300)) ** (1 / terms.beta), -1.0)
        if unique is None:
            return np.asarray(worth_d)
        share = 1 - (worth_d / unique - 1) / terms.repeat_tokens  # of what repetition can ever give: what is left of it
        repeated = unique * (1 - terms.repeat_tokens * np.log(np.maximum(share, 1e-300)))
    return np.where(worth_d <= unique, worth_d, np.where(share > 0, repeated, -1.0))


def _crossing(
    terms: Terms,
    tokens: Callable[[Array], Array],
    like: Array,
    unique: Array | None,
    served: Array,
    work: Work,
    halvings: int,
    *,
    ends_right: bool,
) -> Array:
    """The N where parameters stop gaining more than they cost, along the path D(N) that `tokens` gives: negative out of reach.

    A budget's path ends to the right (too many parameters leave no token), a quality's to the left (too few never reach it).
    """
    shape = np.broadcast(like, terms.A, terms.beta, 0.0 if unique is None else unique, terms.repeat_tokens, served).shape
    low, high = np.zeros(shape), np.full(shape, np.log(1e32))
    first = np.log(terms.alpha * terms.A / (terms.beta * terms.B))
    matched = None if unique is None else terms.matched_parameters(unique)
    for _ in range(halvings):
        middle = (low + high) / 2
        n = np.exp(middle)
        d = tokens(n)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            price = work.slope(n) * (1 + served * work.serve(n) / (work.train(n) * d)) if served.any() else work.slope(n)
            gain = first + _gain(terms, n, d, unique, matched) > np.log(price)
        larger = np.where(d > 0, gain, not ends_right)
        low, high = np.where(larger, middle, low), np.where(larger, high, middle)
    return np.asarray(np.exp((low + high) / 2))


def _gain(terms: Terms, n: Array, d: Array, unique: Array | None, matched: Array | None) -> Array:
    """ln of (-dL/d ln N) / (-dL/d ln D), less ln of alpha A / (beta B): what a percent of parameters gains over a percent of tokens."""
    if unique is None or matched is None:
        return np.asarray(terms.beta * np.log(d) - terms.alpha * np.log(n))
    seen = np.minimum(np.maximum(d, 1.0), unique)
    matched = np.where(d < unique, terms.matched_parameters(seen), matched)
    worth_n, worth_d = terms.effective(n, d, unique, matched)
    excess = np.maximum(n / matched - 1, 0)
    repeats = np.maximum(d / unique - 1, 0)
    # d N' / d ln N = N exp(-excess / R_N*), d D' / d ln D = D exp(-repeats / R_D*); and until all text is read, more tokens are more
    # unique ones, which are worth more parameters.
    own = n * np.exp(-excess / terms.repeat_parameters)
    raised = np.where((d < unique) & (n > matched), terms.A / terms.B * worth_n ** (-terms.alpha - 1) * (worth_n - own), 0.0)
    by_data = np.log(d) - (terms.beta + 1) * np.log(worth_d) - repeats / terms.repeat_tokens
    by_data = np.where(raised > 0, np.log(np.exp(by_data) + raised), by_data)
    return np.asarray(np.log(n) - excess / terms.repeat_parameters - (terms.alpha + 1) * np.log(worth_n) - by_data)
