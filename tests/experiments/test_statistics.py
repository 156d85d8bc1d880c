"""Student's distribution against closed forms and printed tables, Welch's test against a worked example, resamples that pair."""

from __future__ import annotations

import math

import numpy as np
import pytest

from openhearth.experiments.runs import Text
from openhearth.experiments.statistics import incomplete_beta, interval, resampled_bits, two_sided, welch


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0, 2.5, 12.706, 400.0])
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    assert two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9)
    assert two_sided(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-8)


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(2.776, 4, 0.05), (2.228, 10, 0.05), (3.169, 10, 0.01), (2.042, 30, 0.05), (1.96, 100_000, 0.05)]
)
def test_the_printed_table_of_students_distribution(t: float, freedom: float, p: float) -> None:
    assert two_sided(t, freedom) == pytest.approx(p, rel=2e-3)


def test_the_incomplete_beta_function_is_a_power_where_one_parameter_is_one() -> None:
    assert incomplete_beta(3.0, 1.0, 0.4) == pytest.approx(0.4**3, rel=1e-12)
    assert incomplete_beta(1.0, 2.5, 0.9) == pytest.approx(1 - 0.1**2.5, rel=1e-12)
    assert (incomplete_beta(2, 3, 0.0), incomplete_beta(2, 3, 1.0)) == (0.0, 1.0)


def test_welchs_test_by_hand() -> None:
    first, second = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0, 8.0]
    found = welch(first, second)
    assert found is not None
    parts = (1.0 / 3, (20 / 3) / 4)  # variance over n of each
    assert found.difference == 3.0 and found.standard_error == pytest.approx(math.sqrt(sum(parts)))
    assert found.freedom == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3))
    assert found.p == pytest.approx(two_sided(3 / math.sqrt(2.0), found.freedom))


def test_one_seed_has_no_test_and_equal_seeds_have_no_doubt() -> None:
    assert welch([1.0], [2.0, 3.0]) is None
    same, other = welch([1.0, 1.0], [1.0, 1.0]), welch([1.0, 1.0], [2.0, 2.0])
    assert same is not None and same.p == 1.0 and other is not None and other.p == 0.0


def test_noise_alone_is_called_a_difference_as_often_as_p_says() -> None:
    source = np.random.default_rng(3)
    values = [found.p for _ in range(800) if (found := welch(list(source.normal(size=3)), list(source.normal(size=4) * 3)))]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_runs_are_resampled_on_the_same_documents() -> None:
    sizes = np.array([100.0, 300.0, 50.0, 800.0])
    nats = np.array([90.0, 200.0, 60.0, 500.0])
    bits = resampled_bits([Text(nats, sizes, "document"), Text(nats + 0.1 * sizes, sizes, "document")], 500, seed=1)
    assert bits[:, 1] - bits[:, 0] == pytest.approx(np.full(500, 0.1 / math.log(2)))
    assert interval(bits[:, 0])[0] < nats.sum() / math.log(2) / sizes.sum() < interval(bits[:, 0])[1]
