"""What `optimal` is asked, checked: one budget or goal, and the constraints under which it is to be met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.scaling_laws import Array, Law, Number, above_zero
from openhearth.plan.splitting import Work

LEAST_FLOPS, MOST_FLOPS = 1e15, 1e30


@dataclass(frozen=True)
class Question:
    """What is asked, as arrays that broadcast against each other."""

    budget: Array | None
    """Training FLOPs' worth, training and serving; None where a quality is asked for."""
    by_money: Any = False
    """Where the money, not the FLOPs, is the smaller budget."""
    usd_per_flop: float | None = None
    unique: Array | None = None
    served: Array | None = None
    """Served tokens, times what a FLOP of serving costs over one of training."""
    quality_of: Array | None = None
    """Parameters of the compute-optimal model that is to be equalled."""
    size_for: Array | None = None
    """Tokens of the compute-optimal run that is to be equalled."""
    loss: Array | None = None
    work: Work = field(default_factory=Work)

    @property
    def plain(self) -> bool:
        """Whether FLOPs are 6ND of training and nothing else."""
        return self.served is None and self.work.sequence_length is None


def price_of_a_flop(price_per_hour: float | None, peak_flops: float | None, mfu: float | None) -> float | None:
    """USD per FLOP done: the price of an hour over the FLOPs done in it. None if no price is given; raises HearthError on half a price."""
    given = {"price_per_hour": price_per_hour, "peak_flops": peak_flops, "mfu": mfu}
    if price_per_hour is None and peak_flops is None:
        return None
    missing = [name for name, value in given.items() if value is None]
    if missing or price_per_hour is None or peak_flops is None:
        raise HearthError(f"a price of FLOPs needs {', '.join(given)}: {missing[0]} is missing")
    return float(above_zero("price_per_hour", price_per_hour)) / (3600 * float(above_zero("peak_flops", peak_flops)) * share("mfu", mfu))


def ask(
    flops: Number | None = None,
    *,
    unique_tokens: Number | None = None,
    serve_tokens: Number | None = None,
    usd: Number | None = None,
    usd_per_flop: float | None = None,
    serving_costs: float = 1.0,
    quality_of: Number | None = None,
    tokens: Number | None = None,
    loss: Number | None = None,
    sequence_length: float | None = None,
) -> Question:
    """The arguments of `optimal`, checked. `serving_costs`: what a served FLOP costs over a trained one. Raises HearthError."""
    goals = sum(value is not None for value in (quality_of, tokens, loss))
    if goals + (flops is not None or usd is not None) != 1:
        raise HearthError("ask for one of: a budget (flops, usd), as good as a size (quality_of) or a run (tokens), a loss")
    if usd is not None and usd_per_flop is None:
        raise HearthError("a budget in money needs the price of a FLOP: usd_per_flop, or price_per_hour with peak_flops and mfu")
    if usd_per_flop is not None:
        above_zero("usd_per_flop", usd_per_flop)
    budget, by_money = None, np.asarray(False)
    if flops is not None:
        budget = _in_bounds("flops", above_zero("flops", flops))
    if usd is not None:
        bought = _in_bounds("FLOPs for this money", above_zero("usd", usd) / np.asarray(usd_per_flop))
        by_money = np.asarray(True) if budget is None else bought < budget
        budget = bought if budget is None else np.minimum(bought, budget)
    return Question(
        budget=budget,
        by_money=by_money,
        usd_per_flop=usd_per_flop,
        unique=None if unique_tokens is None else above_zero("unique_tokens", unique_tokens),
        served=None if serve_tokens is None else above_zero("serve_tokens", serve_tokens) * serving_costs,
        quality_of=None if quality_of is None else above_zero("quality_of", quality_of),
        size_for=None if tokens is None else above_zero("tokens", tokens),
        loss=None if loss is None else above_zero("loss", loss),
        work=Work(None if sequence_length is None else float(above_zero("sequence_length", sequence_length))),
    )


def refusal(law: Law, question: Question) -> str | None:
    """Why a law cannot answer; None if it can."""
    if law.additive or (question.loss is None and question.plain):
        return None
    asked = "serving" if question.served is not None else "attention" if question.work.sequence_length is not None else "a loss"
    return f"the law {law.name} says nothing of {asked}; take refit"


def _in_bounds(what: str, flops: Array) -> Array:
    outside = (flops < LEAST_FLOPS) | (flops > MOST_FLOPS)
    if outside.any():
        raise HearthError(f"{what} {flops[outside].flat[0]:.3g}: out of bounds; it must lie between {LEAST_FLOPS:.0e} and {MOST_FLOPS:.0e}")
    return flops


def share(what: str, value: float | None) -> float:
    """A utilisation, between 0 and 1. Raises HearthError."""
    if value is None or not 0 < value <= 1:
        raise HearthError(f"{what} {value}: a utilisation must lie above 0 and at most at 1")
    return float(value)
