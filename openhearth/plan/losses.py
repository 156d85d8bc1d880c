"""`loss`: what models of given sizes and tokens should reach, by one law or by all, and how one stands against another."""

from __future__ import annotations

from typing import Any

import numpy as np

from openhearth.plan.scaling_laws import DEFAULT, LAWS, Law, Number, Terms, above_zero
from openhearth.plan.scaling_laws import law as law_named


def loss(parameters: Number, tokens: Number, *, law: str | Law = DEFAULT, unique_tokens: Number | None = None) -> Any:
    """Nats per token of models of so many parameters after so many tokens; with law="all" {name: nats} of every law that has a loss.

    unique_tokens: different tokens among them; the others are repetitions (laws without a sum of terms leave them out of "all").
    Floats or arrays. Raises HearthError on an unknown law, one without a loss, and counts that are not above zero.
    """
    if isinstance(law, str) and law == "all":
        able = (each for each in LAWS.values() if each.additive or (each.has_loss and unique_tokens is None))
        return {each.name: each.loss(parameters, tokens, unique_tokens) for each in able}
    return law_named(law).loss(parameters, tokens, unique_tokens)


def loss_interval(
    parameters: Number, tokens: Number, *, law: str | Law = DEFAULT, unique_tokens: Number | None = None
) -> tuple[Number, Number] | None:
    """95 % interval of `loss`, by the law's refits to resamples of its runs; None where they are not open."""
    n, d = above_zero("parameters", parameters), above_zero("tokens", tokens)
    unique = None if unique_tokens is None else above_zero("unique tokens", unique_tokens)
    return law_named(law).interval(lambda terms: terms.loss(n, d, unique))


def ratio_interval(
    model: tuple[float, float], first: tuple[float, float], *, law: str | Law = DEFAULT, unique_tokens: float | None = None
) -> tuple[Number, Number] | None:
    """95 % interval of one model's loss over another's: much narrower than either, since both move together."""
    unique = None if unique_tokens is None else above_zero("unique tokens", unique_tokens)

    def ratio(terms: Terms) -> Any:
        over, under = (terms.loss(np.asarray(n), np.asarray(d), unique) for n, d in (model, first))
        return over / under

    return law_named(law).interval(ratio)
