"""The smooth curve: exact on lines, also at the ends; it never rises; it knows where it passes a level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from openhearth.experiments.curves import Curve, curve, mean_curve, smooth
from openhearth.experiments.runs import Trained


def test_a_line_is_smoothed_to_itself_also_at_its_ends() -> None:
    x = np.linspace(0, 1, 200)
    at = np.array([0.0, 0.01, 0.5, 0.99, 1.0])
    assert smooth(x, 3 - 2 * x, at, 0.05) == pytest.approx(3 - 2 * at, abs=1e-9)


def test_noise_is_smoothed_and_what_is_left_never_makes_the_curve_rise(trained: Callable[..., Trained]) -> None:
    noise = np.random.default_rng(1).normal(size=5000) * 0.1
    found = curve(trained("a", lambda tokens: 1 + (tokens / 1e6) ** -0.3, steps=5000))
    noisy = curve(trained("a", lambda tokens: 1 + (tokens / 1e6) ** -0.3 + (noise if len(tokens) > 1 else 0), steps=5000))
    late = found.part > 0.2
    assert np.abs(noisy.loss - found.loss)[late].max() < 0.03 * 3.5
    flat = curve(trained("a", lambda tokens: 2 + 0 * tokens + (noise if len(tokens) > 1 else 0), steps=5000))
    assert (np.diff(flat.loss) <= 0).all()


def test_a_level_is_passed_where_the_law_says(trained: Callable[..., Trained]) -> None:
    found = curve(trained("a", lambda tokens: 1 + (tokens / 1e6) ** -0.5), 1 / np.log(2) / 3.5)
    assert found.end == pytest.approx(2.0, abs=1e-3)
    assert found.part_at(np.array([3.0, 2.25, 2.0])) == pytest.approx(np.array([0.25, 0.64, 1.0]), rel=0.01)
    assert found.part_at(np.array([1e9]))[0] == found.part[0]


def test_a_run_of_one_step_and_runs_of_different_lengths_have_curves(trained: Callable[..., Trained]) -> None:
    assert curve(trained("a", lambda tokens: 2 + 0 * tokens, steps=1)).part.tolist() == [1.0]
    mean = mean_curve([Curve(np.array([0.5, 1.0]), np.array([3.0, 1.0])), Curve(np.array([0.25, 1.0]), np.array([4.0, 2.0]))])
    assert mean.end == 1.5 and mean.part.tolist() == [0.5, 1.0]
