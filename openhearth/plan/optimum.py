"""`optimal`: parameters, tokens and loss that a budget buys, by one law or by all of them side by side.

One objective takes every constraint: the least loss with training plus serving inside the budget, the budget in FLOPs or in money, the
tokens drawn from so many unique ones. The constraint that binds is named. `quality_of` asks the question backwards: the cheapest model
that is as good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.questions import Question, ask, price_of_a_flop, refusal, share
from openhearth.plan.scaling_laws import DEFAULT, LAWS, Array, Law, Number, Terms, interval_of, plain
from openhearth.plan.scaling_laws import law as law_named
from openhearth.plan.splitting import HALVINGS, ROUGH, at_quality, within_budget

INTERVALS_UP_TO = 64
"""Optima for which intervals are computed unasked: each costs as many optima as the law has resamples."""
SEARCHED = 1000
"""Resamples, at most, whose optima are searched for; closed forms take all."""
_ARRAYS = ("budget", "unique", "served", "quality_of", "size_for")
SERVING_BINDS = 0.01
"""Serving is said to bind when it moves the size by more than this share."""


@dataclass(frozen=True)
class Optimum:
    """The best split of one budget, or of an array of them, by one law. Parameters are counted as the law counts them (`law.counts`).

    FLOPs are training FLOPs' worth: where serving is dearer per FLOP, `serving_flops` counts it by its cost.
    """

    law: Law
    parameters: Number
    tokens: Number
    loss: Number | None
    """Nats per token of the law's own text; None for a law that only allocates."""
    training_flops: Number
    serving_flops: Number
    usd: Number | None
    """Training and serving, where a price is given."""
    unique_tokens: Number | None
    binding: Any
    """compute, money, data, serving or quality: the constraint that shapes the answer; an array of them for arrays."""
    decades: Number
    """Powers of ten by which training lies beyond the law's largest run (negative: below its least; 0: inside)."""
    interval: Mapping[str, tuple[Number, Number]] | None = None
    """95 % intervals of parameters, tokens, tokens_per_parameter, loss, from refits to resamples of the law's runs; None without."""
    gains: Mapping[str, Number] = field(default_factory=dict)
    """Nats by which a tenth more of each constraint (of serving: a tenth less) lowers the loss."""
    notes: tuple[str, ...] = ()

    @property
    def tokens_per_parameter(self) -> Number:
        """D/N."""
        return plain(np.asarray(self.tokens) / self.parameters)

    @property
    def epochs(self) -> Number | None:
        """Passes over the unique tokens, 1 where they are not all needed; None if no limit was given."""
        return None if self.unique_tokens is None else plain(np.maximum(np.asarray(self.tokens) / self.unique_tokens, 1.0))

    @property
    def total_flops(self) -> Number:
        """Training and serving."""
        return plain(np.asarray(self.training_flops) + self.serving_flops)


def optimal(
    flops: Number | None = None,
    *,
    law: str | Law | None = None,
    unique_tokens: Number | None = None,
    serve_tokens: Number | None = None,
    usd: Number | None = None,
    usd_per_flop: float | None = None,
    price_per_hour: float | None = None,
    peak_flops: float | None = None,
    mfu: float | None = None,
    serve_mfu: float | None = None,
    quality_of: Number | None = None,
    tokens: Number | None = None,
    loss: Number | None = None,
    sequence_length: float | None = None,
    intervals: bool | None = None,
) -> Any:
    """What a budget buys: an `Optimum`, or with law="all" {name: Optimum} of all laws that can answer. Floats or arrays.

    flops: training FLOPs (with `serve_tokens`: of training and serving together), 1e15 to 1e30.
    law: a name, a Law, or "all". By default refit, and muennighoff where `unique_tokens` are given: it alone was fitted to repeated data.
    unique_tokens: different tokens there are; more are repetitions, worth less each time (Muennighoff et al. 2023).
    serve_tokens: tokens that the model will be asked for: 2N FLOPs each, paid from the same budget (Sardana et al. 2023).
    usd: the budget in money; a FLOP costs `usd_per_flop`, or `price_per_hour` / (3600 x `peak_flops` x `mfu`). With `flops` too, both hold.
    serve_mfu: utilisation while serving; by default that of training. A lower one makes served FLOPs dearer.
    quality_of, tokens, loss: instead of a budget, the cheapest model as good as the compute-optimal one of so many parameters, as the
        compute-optimal run of so many tokens, or of this loss.
    sequence_length: counts attention in a decoder 128 times as wide as deep, instead of 6N a token.
    intervals: 95 % intervals where the law's runs are open; by default for up to 64 optima.

    Raises HearthError on an unknown law, numbers out of bounds, and questions that the law cannot answer.
    """
    question = ask(
        flops,
        unique_tokens=unique_tokens,
        serve_tokens=serve_tokens,
        usd=usd,
        usd_per_flop=price_of_a_flop(price_per_hour, peak_flops, mfu) if usd_per_flop is None else usd_per_flop,
        serving_costs=1.0 if serve_mfu is None else share("mfu", mfu) / share("serve_mfu", serve_mfu),
        quality_of=quality_of,
        tokens=tokens,
        loss=loss,
        sequence_length=sequence_length,
    )
    if isinstance(law, str) and law == "all":
        return {name: answer(each, question, intervals) for name, each in LAWS.items() if refusal(each, question) is None}
    chosen = law_named(law if law is not None else DEFAULT if unique_tokens is None else "muennighoff")
    said = refusal(chosen, question)
    if said is not None:
        raise HearthError(said)
    return answer(chosen, question, intervals)


def answer(law: Law, question: Question, intervals: bool | None = None) -> Optimum:
    """One law's answer; `refusal` must have found nothing."""
    n, d = split(law, question)
    if np.isnan(n).any():
        raise HearthError(_out_of_reach(law, question))
    if (d < 1).any():
        raise HearthError("serving so many tokens takes more than the budget at any size; serve fewer or spend more")
    value = np.asarray(law.loss(n, d, question.unique if law.additive else None)) if law.has_loss else None
    training = question.work.train(n) * d
    serving = np.zeros_like(n) if question.served is None else question.work.serve(n) * question.served
    usd = None if question.usd_per_flop is None else (training + serving) * question.usd_per_flop
    gains = _gains(law, question, value)
    decades = law.domain.decades(training)
    interval = None
    if intervals or (intervals is None and n.size <= INTERVALS_UP_TO):
        interval = _interval(law, question)
    return Optimum(
        law=law,
        parameters=plain(n),
        tokens=plain(d),
        loss=None if value is None else plain(value),
        training_flops=plain(training),
        serving_flops=plain(serving),
        usd=None if usd is None else plain(usd),
        unique_tokens=None if question.unique is None else plain(np.broadcast_to(question.unique, n.shape)),
        binding=_binding(law, question, n, d, gains),
        decades=decades,
        interval=interval,
        gains={name: plain(gain) for name, gain in gains.items()},
        notes=_notes(law, question, d),
    )


def split(law: Law, question: Question, halvings: int = HALVINGS) -> tuple[Array, Array]:
    """(parameters, tokens), as arrays."""
    if not law.additive:
        n, d = law.optimal(_budget(law, question))
        return np.asarray(n), np.asarray(d)
    n, d = _split(law.terms, question, halvings)
    return np.asarray(n, float), np.asarray(d, float)


def _budget(law: Law, question: Question) -> Array:
    """Of a law without a loss, to which a quality is a size or a number of tokens."""
    if question.budget is not None:
        return question.budget
    if question.quality_of is not None:
        return np.asarray(law.budget_for(parameters=question.quality_of))
    return np.asarray(law.budget_for(tokens=question.size_for))


def _split(terms: Terms, question: Question, halvings: int = HALVINGS) -> tuple[Array, Array]:
    if question.budget is None:
        return at_quality(terms, _target(terms, question), question.unique, question.served, question.work, halvings)
    if question.unique is None and question.plain:
        return terms.optimal(question.budget)
    return within_budget(terms, question.budget, question.unique, question.served, question.work, halvings)


def _target(terms: Terms, question: Question) -> Array:
    """The loss asked for: given, or that of the compute-optimal model of so many parameters, or of so many tokens, on fresh text."""
    if question.loss is not None:
        return question.loss
    n = question.quality_of if question.size_for is None else terms.matched_parameters(question.size_for)
    assert n is not None
    return terms.loss(n, (n / terms.balance) ** (1 / terms.exponent) / n)


def _interval(law: Law, question: Question) -> dict[str, tuple[Number, Number]] | None:
    """Percentiles of the same answer by the law's refits to resamples of its runs."""
    if law.resamples is None or question.loss is not None:
        return None
    given = {name: value for name in _ARRAYS if (value := getattr(question, name)) is not None}
    shape = np.broadcast_shapes(*(value.shape for value in given.values()))
    arrays: dict[str, Any] = {name: np.broadcast_to(value, shape).ravel() for name, value in given.items()}
    flat = replace(question, **arrays)
    terms = law.resampled_terms
    if terms is None:
        found = law.optimal_resampled(_budget(law, flat))
        assert found is not None
        (n, d), losses = found, None
    else:
        if not (question.plain and question.unique is None):
            terms = terms.thinned(SEARCHED)
        n, d = _split(terms, flat, ROUGH)
        losses = terms.loss(n, d, flat.unique)
    columns = {"parameters": n, "tokens": d, "tokens_per_parameter": d / n} | ({} if losses is None else {"loss": losses})
    if bool((np.ptp(n, axis=0) <= 1e-12 * n.max(axis=0)).all()):  # resamples of the constants of repetition, and nothing is repeated
        return None
    if bool(np.isnan(n).any()):  # some refits hold the quality out of reach
        return None
    result = {}
    for name, values in columns.items():
        low, high = interval_of(values)
        if bool((high - low <= 1e-6 * high).all()):  # what was asked for
            continue
        result[name] = (plain(low.reshape(shape)), plain(high.reshape(shape)))
    return result


def _gains(law: Law, question: Question, value: Array | None) -> dict[str, Array]:
    """Nats that a tenth more of each constraint buys; empty where there is no budget or no loss."""
    if question.budget is None or value is None:
        return {}
    eased = {"budget": replace(question, budget=question.budget * 1.1)}
    if law.additive and question.unique is not None:
        eased["data"] = replace(question, unique=question.unique * 1.1)
    if question.served is not None:
        eased["serving"] = replace(question, served=question.served * 0.9)
    gains = {}
    for name, other in eased.items():
        n, d = split(law, other, ROUGH)  # a loss is flat about its optimum
        gains[name] = value - law.loss(n, d, other.unique if law.additive else None)
    return gains


def _binding(law: Law, question: Question, n: Array, d: Array, gains: Mapping[str, Array]) -> Any:
    """Data bind where tokens repeat, serving where it moves the size; of the two, the one that would gain more. Else the budget itself."""
    if question.budget is None:
        names = np.full(n.shape, "quality", dtype=object)
    else:
        names = np.where(np.broadcast_to(question.by_money, n.shape), "money", "compute").astype(object)
    most = np.zeros(n.shape)
    active = {}
    if question.unique is not None:
        active["data"] = d > question.unique * (1 + 1e-9)
    if question.served is not None:
        without, _ = split(law, replace(question, served=None), ROUGH)
        active["serving"] = np.abs(without / n - 1) > SERVING_BINDS
    for name, where in active.items():
        gain = np.asarray(gains[name]) if name in gains else np.ones(n.shape)
        better = where & (gain >= most)
        names, most = np.where(better, name, names), np.where(better, gain, most)
    return str(names[()]) if n.ndim == 0 else names


def _notes(law: Law, question: Question, d: Array) -> tuple[str, ...]:
    notes = [law.note] if law.note else []
    if law.counts != "all":
        notes.append(f"parameters are {law.counts} ones")
    if question.unique is not None and bool((d > question.unique).any()):
        if not law.additive:
            notes.append("knows no repetition: takes repeated tokens for new ones")
        elif "repeat_tokens" not in law.coefficients:
            notes.append("worth of repeated tokens by Muennighoff et al. 2023")
    return tuple(notes)


def beyond(decades: float) -> str:
    """'extrapolates 3.1 decades beyond the law's data', or '' within a twentieth of a decade of them."""
    if abs(decades) < 0.05:
        return ""
    return f"extrapolates {abs(decades):.1f} decades {'beyond' if decades > 0 else 'below'} the law's data"


def _out_of_reach(law: Law, question: Question) -> str:
    floor = law.terms.E
    with_data = "" if question.unique is None else " with these unique tokens"
    return f"no size reaches this loss by the law {law.name}{with_data}; it never falls below {floor:.3f} nats per token"
