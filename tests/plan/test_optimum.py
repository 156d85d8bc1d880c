"""`optimal`: published optima, closed forms, brute force, and what must hold between questions."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.errors import HearthError
from openhearth.plan import optimal
from openhearth.plan.fitting import fit
from openhearth.plan.optimum import Optimum, beyond
from openhearth.plan.scaling_laws import LAWS, law
from openhearth.plan.splitting import Work, within_budget

H100: dict[str, Any] = {"price_per_hour": 2.95, "peak_flops": 989.4e12, "mfu": 0.40}


# -- published and exactly computed -----------------------------------------------------------------------------------------


def test_chinchillas_budget_with_intervals() -> None:
    found = optimal(flops=5.76e23)
    assert found.parameters == pytest.approx(73.2e9, rel=1e-3) and found.tokens == pytest.approx(1.31e12, rel=5e-3)
    assert found.loss == pytest.approx(1.974, abs=5e-4) and found.binding == "compute"
    assert found.interval["parameters"] == pytest.approx((52e9, 112e9), rel=1e-2)
    assert found.interval["tokens_per_parameter"] == pytest.approx((7.6, 36), rel=1e-2)
    assert optimal(flops=1e22).interval["parameters"] == pytest.approx((7.3e9, 11.8e9), rel=1e-2)
    assert optimal(flops=1e23).interval["parameters"] == pytest.approx((22e9, 43e9), rel=2e-2)
    assert optimal(flops=3.8e25).interval["parameters"] == pytest.approx((388e9, 1.16e12), rel=1e-2)
    assert optimal(flops=3.8e25).interval["tokens_per_parameter"] == pytest.approx((4.7, 42), rel=1e-2)


def test_the_data_constrained_optimum_of_muennighoff() -> None:
    found = optimal(flops=1e22, unique_tokens=25e9)
    assert found.law.name == "muennighoff" and found.binding == "data"
    assert found.parameters == pytest.approx(7.026159e9, rel=1e-7)
    assert found.tokens == pytest.approx(237.209e9, rel=1e-5) and found.epochs == pytest.approx(9.488, abs=5e-4)


def test_sardanas_thirteen_billion_with_two_trillion_served() -> None:
    found = optimal(quality_of=13e9, serve_tokens=2e12, law="hoffmann-3")
    assert found.parameters == pytest.approx(7.12e9, rel=1e-3) and found.binding == "serving"
    plain = optimal(quality_of=13e9, law="hoffmann-3")
    assert plain.parameters == pytest.approx(13e9, rel=1e-9) and plain.binding == "quality"
    assert plain.loss == pytest.approx(found.loss, rel=1e-12)
    without = plain.training_flops + 2 * 13e9 * 2e12
    assert 1 - found.total_flops / without == pytest.approx(0.163, abs=5e-4)


def test_a_budget_of_what_the_cheapest_costs_buys_the_same_model() -> None:
    cheapest = optimal(quality_of=13e9, serve_tokens=2e12, law="hoffmann-3")
    bought = optimal(flops=cheapest.total_flops, serve_tokens=2e12, law="hoffmann-3")
    assert bought.parameters == pytest.approx(cheapest.parameters, rel=1e-9) and bought.loss == pytest.approx(cheapest.loss, rel=1e-12)


@pytest.mark.parametrize(
    ("usd", "parameters", "tokens", "loss"),
    [
        (100, 588e6, 13.7e9, 2.65),
        (1e3, 1.92e9, 42e9, 2.37),
        (1e4, 6.3e9, 128e9, 2.19),
        (1e5, 20.5e9, 393e9, 2.06),
        (1e6, 66.8e9, 1.20e12, 1.979),
        (1e7, 218e9, 3.7e12, 1.924),
        (1e8, 0.71e12, 11.3e12, 1.888),
    ],
)
def test_the_ladder_of_budgets_on_h100(usd: float, parameters: float, tokens: float, loss: float) -> None:
    found = optimal(usd=usd, **H100)
    assert found.parameters == pytest.approx(parameters, rel=8e-3) and found.tokens == pytest.approx(tokens, rel=1.5e-2)
    assert found.loss == pytest.approx(loss, abs=6e-3 if loss > 2 else 6e-4) and found.binding == "money"
    assert found.usd == pytest.approx(usd, rel=1e-12)


# -- against brute force ----------------------------------------------------------------------------------------------------


def best_of_grid(loss: Any, tokens: Any, centre: float) -> tuple[float, float]:
    """(N, loss) of the best point of a grid of sizes along tokens(N)."""
    sizes = centre * np.logspace(-3, 3, 60_001)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        d = tokens(sizes)
        losses = np.where(d > 1, loss(sizes, np.maximum(d, 1)), np.inf)
    return float(sizes[losses.argmin()]), float(losses.min())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["refit", "hoffmann-3", "muennighoff", "gadre-c4"]),
    st.floats(19, 26),
    st.none() | st.floats(8, 14),
    st.none() | st.floats(8, 14),
    st.none() | st.sampled_from([1024, 8192, 131072]),
)
def test_no_size_of_a_grid_is_better(name: str, exponent: float, unique: float | None, served: float | None, length: int | None) -> None:
    budget = 10**exponent
    question: dict[str, Any] = {"unique_tokens": None if unique is None else 10**unique, "sequence_length": length}
    if served is not None:
        question["serve_tokens"] = min(10**served, budget / 1e6)  # at least the smallest models can be served
    found = optimal(flops=budget, law=name, intervals=False, **question)
    work = Work(length)

    def tokens(n: Any) -> Any:
        return (budget - work.serve(n) * question.get("serve_tokens", 0.0)) / work.train(n)

    def loss(n: Any, d: Any) -> Any:
        return law(name).loss(n, d, question["unique_tokens"])

    _, least = best_of_grid(loss, tokens, found.parameters)
    assert found.loss <= least + 1e-12
    assert found.total_flops == pytest.approx(budget, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.floats(8, 11.5), st.floats(9, 14), st.none() | st.floats(11, 14))
def test_no_size_of_a_grid_is_as_good_for_less(size: float, served: float, unique: float | None) -> None:
    question: dict[str, Any] = {"serve_tokens": 10**served, "unique_tokens": None if unique is None else 10**unique}
    try:
        found = optimal(quality_of=10**size, law="refit", intervals=False, **question)
    except HearthError:
        assert unique is not None  # so little text never gets there
        return
    assert law("refit").loss(found.parameters, found.tokens, question["unique_tokens"]) == pytest.approx(found.loss, rel=1e-12)
    target = law("refit").loss(*law("refit").optimal(optimal(quality_of=10**size).training_flops))
    assert found.loss == pytest.approx(target, rel=1e-10)
    for factor in np.logspace(-0.5, 0.5, 21):
        n = found.parameters * factor
        low, high = 1.0, 1e30  # the tokens that this size needs, by bisection of the loss
        if law("refit").loss(n, high, question["unique_tokens"]) > target:
            continue
        for _ in range(200):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if law("refit").loss(n, middle, question["unique_tokens"]) > target else (low, middle)
        assert 6 * n * high + 2 * n * 10**served >= found.total_flops * (1 - 1e-9)


# -- between questions ------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([name for name, each in LAWS.items() if each.additive]), st.floats(17, 28))
def test_the_search_finds_the_closed_form(name: str, exponent: float) -> None:
    n, d = law(name).optimal(10**exponent)
    for unique in (None, np.array(1e40)):
        found_n, found_d = within_budget(law(name).terms, np.array(10**exponent), unique, None, Work())
        assert found_n == pytest.approx(n, rel=1e-10) and found_d == pytest.approx(d, rel=1e-10)


def test_endless_text_and_hardly_any_serving_change_nothing() -> None:
    free = optimal(flops=1e22, law="refit")
    assert optimal(flops=1e22, law="refit", unique_tokens=1e18).parameters == pytest.approx(free.parameters, rel=1e-10)
    assert optimal(flops=1e22, law="refit", unique_tokens=1e18).binding == "compute"
    little = optimal(flops=1e22, law="refit", serve_tokens=1.0)
    assert little.parameters == pytest.approx(free.parameters, rel=1e-8) and little.binding == "compute"


def test_more_of_anything_never_hurts_and_serving_shrinks_the_model() -> None:
    budgets = np.logspace(20, 25, 40)
    assert (np.diff(optimal(flops=budgets, law="refit").loss) < 0).all()
    by_text = optimal(flops=1e23, unique_tokens=np.logspace(9, 13, 40), law="muennighoff")
    assert (np.diff(by_text.loss) <= 1e-12).all()
    served = optimal(flops=1e23, serve_tokens=np.logspace(9, 12.5, 40))
    assert (np.diff(served.parameters) < 0).all() and (np.diff(served.loss) > 0).all()
    assert (served.tokens_per_parameter > optimal(flops=1e23).tokens_per_parameter).all()


def test_the_constraint_that_binds_is_named_element_by_element() -> None:
    found = optimal(flops=1e23, unique_tokens=np.array([1e9, 1e11, 1e13]), law="muennighoff")
    assert list(found.binding) == ["data", "data", "compute"]
    assert found.gains["data"][0] > found.gains["data"][1] > found.gains["data"][2] == pytest.approx(0, abs=1e-12)
    both = optimal(flops=np.array([1e21, 1e23]), usd=1e5, **H100)
    assert list(both.binding) == ["compute", "money"]
    assert both.training_flops[0] == pytest.approx(1e21) and both.usd[1] == pytest.approx(1e5)


def test_gains_are_what_a_tenth_more_buys() -> None:
    found = optimal(flops=1e23, unique_tokens=1e11, serve_tokens=1e11)
    assert found.gains["budget"] == pytest.approx(found.loss - optimal(flops=1.1e23, unique_tokens=1e11, serve_tokens=1e11).loss, rel=1e-9)
    assert found.gains["data"] == pytest.approx(found.loss - optimal(flops=1e23, unique_tokens=1.1e11, serve_tokens=1e11).loss, rel=1e-9)
    assert found.gains["serving"] == pytest.approx(found.loss - optimal(flops=1e23, unique_tokens=1e11, serve_tokens=0.9e11).loss, rel=1e-9)


def test_a_size_and_its_tokens_ask_for_the_same_run() -> None:
    for name in LAWS:
        n, d = law(name).optimal(1e22)
        by_size, by_tokens = optimal(quality_of=n, law=name), optimal(tokens=d, law=name)
        assert (by_size.parameters, by_size.tokens) == pytest.approx((n, d), rel=2e-4)  # DeepSeek spends 1.0001 of its budget
        assert (by_tokens.parameters, by_tokens.tokens) == pytest.approx((n, d), rel=2e-4)
        assert law(name).budget_for(parameters=n) == pytest.approx(1e22, rel=1e-9)
        assert law(name).budget_for(tokens=d) == pytest.approx(1e22, rel=1e-9)
    assert optimal(tokens=np.array([1e11, 1e12])).parameters.shape == (2,)


def test_serving_at_a_poorer_utilisation_is_dearer() -> None:
    same, poorer = (optimal(usd=1e6, serve_tokens=1e12, serve_mfu=mfu, **H100) for mfu in (0.40, 0.10))
    assert same.parameters == optimal(usd=1e6, serve_tokens=1e12, **H100).parameters
    assert poorer.parameters < same.parameters and poorer.usd == pytest.approx(1e6, rel=1e-9)
    flops = poorer.training_flops + 4 * 2 * poorer.parameters * 1e12
    assert flops == pytest.approx(1e6 / (2.95 / (3600 * 989.4e12 * 0.40)), rel=1e-9)


def test_attention_costs_tokens() -> None:
    plain, long = optimal(flops=1e23, intervals=False), optimal(flops=1e23, sequence_length=131072, intervals=False)
    assert long.loss > plain.loss and long.training_flops == pytest.approx(1e23, rel=1e-9)
    assert optimal(flops=1e23, sequence_length=1, intervals=False).parameters == pytest.approx(plain.parameters, rel=1e-4)
    # 12 x layers x width x length a token, in 12 x layers x width^2 parameters at width = 128 layers
    n = np.array(12 * 40 * 5120.0**2)
    assert Work(2048).train(n) == pytest.approx(6 * n + 12 * 40 * 5120 * 2048, rel=1e-12)
    step = 1e-6
    slope = (np.log(Work(2048).train(n * (1 + step))) - np.log(Work(2048).train(n))) / math.log1p(step)
    assert Work(2048).slope(n) == pytest.approx(slope, rel=1e-5)


# -- all laws, arrays, time -------------------------------------------------------------------------------------------------


def test_all_laws_side_by_side() -> None:
    found = optimal(flops=1e23, law="all")
    assert list(found) == list(LAWS)
    assert found["hoffmann-1"].loss is None and found["kaplan"].parameters == pytest.approx(224e9, rel=5e-3)
    served = optimal(flops=1e23, law="all", serve_tokens=1e12)
    assert set(served) == {name for name, each in LAWS.items() if each.additive}
    assert "knows no repetition: takes repeated tokens for new ones" in optimal(flops=1e23, law="hoffmann-1", unique_tokens=1e10).notes


def test_intervals_hold_the_answer_and_are_there_where_runs_are_open() -> None:
    found = optimal(flops=1e21, law="all")
    with_interval = {name for name, each in found.items() if each.interval is not None}
    assert with_interval - {"openhearth"} == {"besiroglu", "refit", "gadre-c4", "gadre-redpajama", "gadre-refinedweb", "porian"}
    for name in with_interval - {"openhearth"}:
        for key, (low, high) in found[name].interval.items():
            assert low < high and low <= getattr(found[name], key) <= high
    assert optimal(flops=5.88e23, law="porian").interval["parameters"] == pytest.approx((70.0e9, 86.4e9), rel=5e-3)  # their 1,000
    repeated = optimal(flops=1e22, unique_tokens=25e9)
    assert repeated.interval["parameters"][0] < repeated.parameters < repeated.interval["parameters"][1]


def test_arrays_are_answered_as_their_elements_are() -> None:
    budgets, texts = np.logspace(20, 25, 6), np.logspace(9, 12, 4)
    found = optimal(flops=budgets[:, None], unique_tokens=texts, serve_tokens=1e10, law="muennighoff", intervals=True)
    assert found.parameters.shape == found.loss.shape == found.binding.shape == (6, 4)
    one = optimal(flops=budgets[3], unique_tokens=texts[2], serve_tokens=1e10, law="muennighoff")
    assert isinstance(one.parameters, float) and found.parameters[3, 2] == one.parameters and found.binding[3, 2] == one.binding
    line = optimal(flops=budgets, intervals=True)
    assert line.interval["loss"][1][2] == pytest.approx(optimal(flops=budgets[2]).interval["loss"][1], rel=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_ten_thousand_optima_take_less_than_a_second(name: str) -> None:
    budgets = np.logspace(18, 28, 10_000)
    begin = time.process_time()
    assert optimal(flops=budgets, law=name).parameters.shape == (10_000,)
    if law(name).additive:
        optimal(flops=budgets, unique_tokens=1e11, law=name)
    assert time.process_time() - begin < 1


def test_a_fits_law_is_a_law_like_any_other() -> None:
    n, d = (grid.ravel() for grid in np.meshgrid(np.logspace(7, 10, 6), np.logspace(9, 11, 5)))
    found = fit(n, d, law("refit").loss(n, d), bootstraps=50, hold_out=0)
    assert optimal(flops=1e22, law=found.law).parameters == pytest.approx(optimal(flops=1e22).parameters, rel=1e-6)


def test_how_far_it_extrapolates_is_said() -> None:
    assert beyond(optimal(flops=1.2956e22 * 10**3.1).decades) == "extrapolates 3.1 decades beyond the law's data"
    assert beyond(optimal(flops=1e17).decades) == "extrapolates 1.1 decades below the law's data"
    assert beyond(optimal(flops=1e21).decades) == ""


# -- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"flops": 1e14}, "flops 1e+14: out of bounds; it must lie between 1e+15 and 1e+30"),
        ({"flops": 1e31}, "out of bounds"),
        ({"flops": 0}, "flops: must be finite and above zero"),
        ({"flops": -1e20}, "flops: must be finite and above zero"),
        ({"flops": math.nan}, "flops: must be finite and above zero"),
        ({"flops": np.array([1e20, 1e14])}, "flops 1e+14: out of bounds"),
        ({"flops": 1e20, "law": "chinchila"}, "no law 'chinchila'"),
        ({"flops": 1e20, "law": "hofmann-1"}, "did you mean 'hoffmann-1'?"),
        ({}, "ask for one of: a budget"),
        ({"flops": 1e20, "quality_of": 1e9}, "ask for one of: a budget"),
        ({"usd": 100}, "needs the price of a FLOP"),
        ({"usd": 100, "price_per_hour": 2.0, "peak_flops": 1e15}, "mfu is missing"),
        ({"usd": 100, "price_per_hour": 2.0, "peak_flops": 1e15, "mfu": 40}, "mfu 40: a utilisation must lie above 0 and at most at 1"),
        ({"usd": 1e-9, **H100}, "FLOPs for this money"),
        ({"flops": 1e20, "serve_tokens": 1e9, "law": "deepseek"}, "the law deepseek says nothing of serving; take refit"),
        ({"flops": 1e20, "sequence_length": 2048, "law": "kaplan"}, "the law kaplan says nothing of attention"),
        ({"loss": 2.0, "law": "llama3"}, "the law llama3 says nothing of a loss"),
        ({"loss": 1.5}, "no size reaches this loss by the law refit; it never falls below 1.817 nats per token"),
        ({"quality_of": 1e12, "unique_tokens": 1e9, "law": "refit"}, "no size reaches this loss by the law refit with these unique tokens"),
        ({"flops": 1e20, "serve_tokens": 1e21}, "serving so many tokens takes more than the budget at any size"),
        ({"flops": 1e20, "unique_tokens": -1}, "unique_tokens: must be finite and above zero"),
    ],
)
def test_questions_without_an_answer(question: dict[str, Any], said: str) -> None:
    with pytest.raises(HearthError) as refused:
        optimal(**question)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_an_optimum_says_what_it_is() -> None:
    found = optimal(loss=2.0)
    assert isinstance(found, Optimum) and found.loss == pytest.approx(2.0, rel=1e-9) and found.interval is None
    assert found.tokens_per_parameter == pytest.approx(found.tokens / found.parameters) and found.epochs is None and found.usd is None
