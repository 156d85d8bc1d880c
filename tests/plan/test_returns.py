"""What more buys: against figures computed once from the same law by other means, and against its own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan.returns import bigger, doubling, gain_by_size_and_data, knee, more_budget
from openhearth.plan.scaling_laws import law


def test_thirty_billion_against_four_times_its_size() -> None:
    found = bigger(30e9, 450e9)
    assert found["loss_bigger"] / found["loss"] == pytest.approx(0.9794, abs=5e-5)
    assert found["perplexity"] == pytest.approx(0.041, abs=5e-4) and found["reducible_ratio"] == pytest.approx(0.81, abs=5e-3)
    assert found["tokens_to_tie"] == pytest.approx(1.60e12, rel=5e-3) and found["tie_compute_share"] == pytest.approx(0.89, abs=5e-3)
    assert found["break_even_tokens"] == 0
    later = bigger(30e9, 1.4e12)
    assert later["tokens_to_tie"] == pytest.approx(13.4e12, rel=5e-3) and later["tie_compute_share"] == pytest.approx(2.4, abs=5e-2)
    assert math.isinf(bigger(30e9, 15e12)["tokens_to_tie"]) and math.isinf(bigger(30e9, 15e12)["break_even_tokens"])


def test_the_tie_is_one_and_the_break_even_costs_the_same() -> None:
    n, d, factor = 30e9, 1.4e12, 4.0
    found = bigger(n, d, factor)
    assert law("refit").loss(n, found["tokens_to_tie"]) == pytest.approx(law("refit").loss(factor * n, d), rel=1e-12)
    small = 6 * n * found["tokens_to_tie"] + 2 * n * found["break_even_tokens"]
    assert small == pytest.approx(6 * factor * n * d + 2 * factor * n * found["break_even_tokens"], rel=1e-12)


def test_along_the_line_of_best_splits() -> None:
    n, d = law("refit").optimal(1e23)
    found = bigger(n, d)
    assert law("refit").optimal(1e23 * found["optimal_compute_factor"])[0] == pytest.approx(4 * n, rel=1e-12)
    assert found["optimal_nats"] == pytest.approx(
        law("refit").loss(n, d) - law("refit").loss(*law("refit").optimal(1e23 * found["optimal_compute_factor"])), rel=1e-9
    )


def test_repeated_tokens_limit_what_a_smaller_model_can_catch_up() -> None:
    fresh, repeated = bigger(1e9, 1e11, law="muennighoff"), bigger(1e9, 1e11, law="muennighoff", unique_tokens=1e10)
    assert repeated["tokens_to_tie"] != fresh["tokens_to_tie"]
    if not math.isinf(repeated["tokens_to_tie"]):
        assert law("muennighoff").loss(1e9, repeated["tokens_to_tie"], 1e10) == pytest.approx(repeated["loss_bigger"], rel=1e-9)


def test_gain_of_doubling_the_tokens() -> None:
    found = doubling(np.array([1e10, 1e11, 3e11, 1e12, 1e13]))
    assert found["twice"] == pytest.approx([0.103, 0.044, 0.029, 0.019, 0.008], abs=5e-4)
    assert found["left"][2] == pytest.approx(0.131, abs=5e-4)
    assert doubling(3e11, "hoffmann-3")["left"] == pytest.approx(0.221, abs=5e-4)
    assert found["another_billion"][1] == pytest.approx(0.0007, abs=5e-5)
    assert doubling(1e11)["twice"] == pytest.approx(law("refit").loss(1e30, 1e11) - law("refit").loss(1e30, 2e11), rel=1e-9)


def test_the_knee_moves_with_the_axis() -> None:
    ends = np.array([300e9, 450e9, 1e12, 1.4e12, 2e12])
    assert knee(ends) / 1e9 == pytest.approx([34, 45, 80, 101, 131], abs=0.5)


def test_the_knee_is_where_the_curve_lies_farthest_below_its_chord() -> None:
    tokens = np.linspace(1e9, 450e9, 200_001)
    losses = law("refit").loss(30e9, tokens)
    chord = losses[0] + (losses[-1] - losses[0]) * (tokens - tokens[0]) / (tokens[-1] - tokens[0])
    assert tokens[(chord - losses).argmax()] == pytest.approx(knee(450e9), rel=1e-4)


def test_more_budget() -> None:
    each = law("refit")
    found = more_budget(1e23, 3.0)
    assert found["nats"] == pytest.approx(each.loss(*each.optimal(1e23)) - each.loss(*each.optimal(3e23)), rel=1e-9)
    assert (found["parameters"], found["tokens"]) == pytest.approx(each.optimal(3e23))
    low, high = found["interval"]
    assert low < found["nats"] < high < 1.5 * low
    hundredfold = more_budget(5.88e23, 100)  # ten times the size and the data of a 70B
    assert hundredfold["loss"] == pytest.approx(1.886, abs=5e-4) and hundredfold["nats"] == pytest.approx(0.088, abs=1e-3)
    assert more_budget(np.array([1e20, 1e23]), 3.0)["nats"][1] == pytest.approx(found["nats"], rel=1e-12)
    assert more_budget(1e23, 2, "hoffmann-3")["interval"] is None


def test_the_bottleneck() -> None:
    terms = gain_by_size_and_data(530e9, 270e9)
    assert terms["bottleneck"] == "tokens" and terms["tokens"] > terms["parameters"]
    assert law("refit").terms.E + terms["tokens"] + terms["parameters"] == pytest.approx(law("refit").loss(530e9, 270e9))


def test_laws_without_such_terms_are_refused() -> None:
    with pytest.raises(HearthError, match="deepseek has no loss"):
        doubling(1e11, "deepseek")
