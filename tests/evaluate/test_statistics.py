"""Intervals against published values, closed forms and simulated coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhearth.evaluate.statistics import bootstrap_ratio, totals, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3 (score without continuity correction)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, trials: int, low: float, high: float) -> None:
    estimate = wilson(successes, trials)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)
    assert estimate.value == successes / trials


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_solves_the_score_equation_and_never_is_a_point(case: tuple[int, int]) -> None:
    successes, trials = case
    estimate = wilson(successes, trials)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1 and estimate.low < estimate.high
    for bound in (estimate.low, estimate.high):
        if 0 < bound < 1:  # (share - p)^2 = z^2 p (1 - p) / n
            assert (estimate.value - bound) ** 2 == pytest.approx(1.959963984540054**2 * bound * (1 - bound) / trials, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, trials: int) -> None:
    with pytest.raises(ValueError):
        wilson(successes, trials)


def test_the_ratio_is_of_sums_and_not_a_mean_of_ratios() -> None:
    assert bootstrap_ratio(np.array([1.0, 30.0]), np.array([10.0, 100.0]), seed=0).value == 31 / 110


def test_documents_that_all_agree_leave_nothing_open() -> None:
    sizes = np.array([10.0, 20.0, 400.0])
    estimate = bootstrap_ratio(2.5 * sizes, sizes, seed=0)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((2.5, 2.5, 2.5))


def test_the_interval_is_the_exact_one_where_all_resamples_can_be_listed() -> None:
    numerators, denominators = np.array([2.0, 9.0, 40.0, 1.0, 7.5]), np.array([1.0, 3.0, 10.0, 2.0, 5.0])
    drawn = np.array(list(itertools.product(range(5), repeat=5)))
    ratios = np.sort(numerators[drawn].sum(axis=1) / denominators[drawn].sum(axis=1))
    estimate = bootstrap_ratio(numerators, denominators, seed=0)
    # Within a percent of probability of the exact 2.5 % and 97.5 % points.
    assert np.quantile(ratios, 0.02) <= estimate.low <= np.quantile(ratios, 0.03)
    assert np.quantile(ratios, 0.97) <= estimate.high <= np.quantile(ratios, 0.98)


def test_the_spread_is_that_of_theory() -> None:
    # Equal sizes: the resampled mean has standard deviation s / sqrt(n), and is close to normal for 400 documents.
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    estimate = bootstrap_ratio(values, np.ones(400), seed=0)
    half = 1.959964 * values.std() / 20
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.05)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.05)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        sizes = draw.lognormal(0.0, 0.5, 50)
        rates = draw.normal(2.0, 0.5, 50)  # one rate per document: what its bytes share
        estimate = bootstrap_ratio(rates * sizes, sizes, seed=trial, resamples=500)
        covered += estimate.low <= 2.0 <= estimate.high
    assert 0.90 <= covered / 400 <= 0.97


def test_the_interval_follows_the_seed() -> None:
    numerators, denominators = np.arange(1.0, 8.0), np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0])
    once = bootstrap_ratio(numerators, denominators, seed=7)
    assert once == bootstrap_ratio(numerators, denominators, seed=7) != bootstrap_ratio(numerators, denominators, seed=8)


def test_memory_does_not_grow_with_the_number_of_documents_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from openhearth.evaluate import statistics

    numerators, denominators = np.arange(1.0, 31.0), np.arange(31.0, 1.0, -1.0)
    whole = bootstrap_ratio(numerators, denominators, seed=0, resamples=1000)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert bootstrap_ratio(numerators, denominators, seed=0, resamples=1000) == whole


def test_one_document_has_no_interval() -> None:
    estimate = bootstrap_ratio(np.array([3.0]), np.array([2.0]), seed=0)
    assert (estimate.value, estimate.low, estimate.high) == (1.5, None, None)


def test_nothing_to_measure_is_refused() -> None:
    for numerators, denominators in (([], []), ([1.0], [0.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError):
            bootstrap_ratio(np.array(numerators), np.array(denominators), seed=0)


def test_totals_are_sums_by_unit() -> None:
    assert totals([1.0, 2.0, 4.0], [1, 0, 1]).tolist() == [2.0, 5.0]
