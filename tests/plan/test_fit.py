"""Fits against what can be known exactly: laws that made the data, other optimisers, and the algebra of the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import openhearth.plan as plan
from openhearth.errors import HearthError
from openhearth.plan import forms, scaling_laws, solving
from openhearth.plan.fitting import fit
from openhearth.plan.forms import Free, Objective, Runs
from openhearth.plan.newton import minimise
from tests.plan.fit_runs import CHINCHILLA, datablations, grid, law_loss, noisy

pytestmark = pytest.mark.filterwarnings("error")


def huber(residuals: Any, delta: float = 1e-3) -> float:
    small = np.abs(residuals) <= delta
    return float(np.where(small, 0.5 * residuals**2, delta * (np.abs(residuals) - 0.5 * delta)).sum())


def objective_of(n: Any, d: Any, loss: Any, weights: Any = 1.0, delta: float = 1e-3) -> Callable[[Any], float]:
    """The objective written down again, plainly: of (ln A, ln B, ln E, alpha, beta)."""

    def value(theta: Any) -> float:
        a, b, e, alpha, beta = theta
        with np.errstate(over="ignore"):
            r = np.log(loss) - np.log(np.exp(a - alpha * np.log(n)) + np.exp(b - beta * np.log(d)) + np.exp(e))
        each = np.where(np.abs(r) <= delta, 0.5 * r * r, delta * (np.abs(r) - 0.5 * delta))
        total = float((weights * each).sum())
        return total if math.isfinite(total) else math.inf

    return value


def vector(coefficients: Any) -> Any:
    return np.array([*(math.log(coefficients[name]) for name in "ABE"), coefficients["alpha"], coefficients["beta"]])


def nelder_mead(function: Callable[[Any], float], start: Any, size: float, steps: int = 900) -> tuple[Any, float]:
    """Nelder and Mead 1965: knows nothing of gradients, so it shares no mistake with ours."""
    points = np.vstack([start, start + size * np.diag(np.maximum(0.02, np.abs(start)))])
    values = np.array([function(point) for point in points])
    for _ in range(steps):
        order = np.argsort(values)
        points, values = points[order], values[order]
        centre = points[:-1].mean(axis=0)
        reflected = centre + (centre - points[-1])
        value = function(reflected)
        if value < values[0]:
            farther = centre + 2 * (centre - points[-1])
            far = function(farther)
            points[-1], values[-1] = (farther, far) if far < value else (reflected, value)
        elif value < values[-2]:
            points[-1], values[-1] = reflected, value
        else:
            inner = centre + 0.5 * (points[-1] - centre)
            near = function(inner)
            if near < values[-1]:
                points[-1], values[-1] = inner, near
            else:
                points[1:] = points[0] + 0.5 * (points[1:] - points[0])
                values[1:] = [function(point) for point in points[1:]]
    return points[values.argmin()], float(values.min())


# -- data without noise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 8, 12, 40, 240])
def test_data_without_noise_give_back_their_law(count: int) -> None:
    n, d = grid(count, seed=count)
    found = fit(n, d, law_loss(n, d), bootstraps=0)
    assert found.coefficients == pytest.approx(CHINCHILLA, rel=1e-9)
    assert found.objective < 1e-27 and found.converged and found.outliers == ()


@pytest.mark.parametrize("delta", [1e-6, 1e-3, 0.1, math.inf])
@pytest.mark.parametrize("residuals", ["log", "loss"])
def test_every_objective_gives_back_the_law_of_data_without_noise(delta: float, residuals: str) -> None:
    n, d = grid(30)
    assert fit(n, d, law_loss(n, d), delta=delta, residuals=residuals, bootstraps=0).coefficients == pytest.approx(CHINCHILLA, rel=1e-8)


def test_data_without_noise_have_no_uncertainty() -> None:
    n, d = grid(30)
    found = fit(n, d, law_loss(n, d), bootstraps=50)
    assert all(estimate.standard_error < 1e-7 * estimate.value for estimate in found.estimates.values())


def test_the_over_training_form_gives_back_its_law() -> None:
    n, d = grid(30)
    m, c = d / n, 6 * n * d
    found = fit(n, d, 1.51 + (141 * m**0.121 + 190 * m**-0.121) * c**-0.121, form="gadre", bootstraps=0)
    assert found.coefficients == pytest.approx({"E": 1.51, "a": 141.0, "b": 190.0, "eta": 0.121}, rel=1e-9)


def test_the_repeated_data_form_gives_back_its_law() -> None:
    n, d, _, unique = datablations()
    law = scaling_laws.law("muennighoff")
    found = fit(n, d, law.loss(n, d, unique), unique_tokens=unique, form="muennighoff", bootstraps=0)
    assert found.coefficients == pytest.approx({name: law.coefficients.get(name, 0.3526596) for name in found.coefficients}, rel=1e-6)
    assert found.objective < 1e-20


def test_text_that_a_run_has_not_come_to_changes_nothing() -> None:
    n, d, loss, unique = datablations()
    held: dict[str, Any] = {"form": "muennighoff", "bootstraps": 0, "hold_out": 0}
    once = unique == d
    found = fit(n, d, loss, unique_tokens=unique, **held)
    assert fit(n, d, loss, unique_tokens=np.where(once, 100 * d, unique), **held).coefficients == found.coefficients
    assert found.loss(1e9, 1e10) == found.loss(1e9, 1e10, 1e10) == found.loss(1e9, 1e10, 5e12) == found.predict(1e9, 1e10, 5e12).loss
    assert found.loss(1e9, 1e10, 1e9) > found.loss(1e9, 1e10)


def test_isoflop_parabolas_find_the_minima_that_the_runs_have() -> None:
    budgets = np.repeat([1e18, 1e19, 1e20, 1e21], 7)
    centre = 0.3 * budgets**0.45
    n = centre * np.tile(np.geomspace(0.3, 3, 7), 4)
    loss = 2.0 + 1e3 / budgets**0.15 + 0.04 * np.log(n / centre) ** 2
    found = fit(n, budgets / 6 / n, loss, form="isoflop", flops=budgets, bootstraps=100)
    assert found.coefficients == pytest.approx({"kN": 0.3, "a": 0.45}, rel=1e-9)
    assert [one.parameters for one in found.parabolas] == pytest.approx([0.3 * c**0.45 for c in (1e18, 1e19, 1e20, 1e21)], rel=1e-9)
    assert found.optimal(1e22).parameters.value == pytest.approx(0.3 * 1e22**0.45)
    with pytest.raises(HearthError, match="not what loss"):
        found.loss(1e9, 1e10)


# -- the optimum ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "on_log", "delta"), [(5, True, 1e-3), (5, False, 0.02), (7, True, 1e-3), (7, False, 0.02)])
def test_gradient_and_hessian_are_those_of_the_objective(size: int, on_log: bool, delta: float) -> None:
    n, d, loss, unique = datablations()
    runs = Runs(n, d, loss, unique if size == 7 else None)
    weights = np.random.RandomState(3).randint(0, 4, (1, len(n))).astype(float)
    objective = Objective(runs, Free.of(runs, size), delta, on_log, weights)
    theta = np.array([6.2 - 0.34 * runs.mean_x, 7.5 - 0.36 * runs.mean_y, 0.6, 0.34, 0.36, 2.7, 1.6][:size])[None]
    row, step = np.array([0]), 1e-6
    _, gradient, hessian, metric = objective(theta, row)
    moved = [(objective(theta + step * axis, row), objective(theta - step * axis, row)) for axis in np.eye(size)]
    assert gradient[0] == pytest.approx([(up[0][0] - down[0][0]) / (2 * step) for up, down in moved], rel=1e-5, abs=1e-9)
    by_differences = np.array([(up[1][0] - down[1][0]) / (2 * step) for up, down in moved])
    assert hessian[0] == pytest.approx(by_differences, rel=1e-4, abs=1e-6 * np.abs(by_differences).max())
    assert np.linalg.eigvalsh(metric[0]).min() > -1e-12 * np.trace(metric[0])


@pytest.mark.parametrize("count", [9, 16, 40, 150])
def test_the_gradient_is_zero_at_the_optimum_and_every_way_leads_up(count: int) -> None:
    n, d, loss = noisy(count)
    runs = Runs(n, d, loss)
    optimum = solving.solve(runs, forms.FORMS["chinchilla"], tied=False, fixed={}, delta=1e-3, on_log=True)
    value, gradient, hessian, _ = Objective(runs, optimum.free, 1e-3)(optimum.theta[None], np.array([0]))
    assert optimum.converged and np.abs(gradient).max() < 1e-9 * count
    assert np.linalg.eigvalsh(hessian[0]).min() > 0
    assert value[0] == pytest.approx(huber(fit(n, d, loss, bootstraps=0).relative_residuals()), rel=1e-9)


@pytest.mark.parametrize("count", [9, 16, 40])
def test_no_other_optimiser_finds_a_better_point(count: int) -> None:
    n, d, loss = noisy(count)
    found = fit(n, d, loss, bootstraps=0)
    function = objective_of(n, d, loss)
    best = function(vector(found.coefficients))
    assert best == pytest.approx(found.objective, rel=1e-9)
    generator = np.random.RandomState(count)
    ends = [nelder_mead(function, vector(CHINCHILLA) * generator.uniform(0.7, 1.4, 5), 0.2)[1] for _ in range(3)]
    assert min(ends) >= best * (1 - 1e-9)
    assert nelder_mead(function, vector(found.coefficients), 0.01)[1] >= best * (1 - 1e-9)


def test_starts_everywhere_reach_the_same_optimum() -> None:
    n, d, loss = noisy(60)
    runs = Runs(n, d, loss)
    free = Free.of(runs, 5)
    objective = Objective(runs, free, 1e-3)
    starts = solving._grid(runs, False, {})
    starts = starts[np.argsort(objective.value(starts))[:300]]
    found = minimise(objective, starts)
    assert (found.values < found.values.min() * (1 + 1e-9)).mean() > 0.98
    assert np.median(found.steps) < 30


def test_what_is_tied_or_fixed_stays_so_and_costs_something() -> None:
    n, d, loss = noisy()
    free = fit(n, d, loss, bootstraps=0)
    tied = fit(n, d, loss, tied=True, bootstraps=0)
    fixed = fit(n, d, loss, fixed={"E": 1.6, "A": 400.0}, bootstraps=20)
    assert tied.coefficients["alpha"] == tied.coefficients["beta"]
    assert fixed.coefficients["E"] == pytest.approx(1.6, rel=1e-12) and fixed.coefficients["A"] == pytest.approx(400.0, rel=1e-9)
    assert fixed.estimates["A"].standard_error == pytest.approx(0.0, abs=1e-9)
    assert free.objective < min(tied.objective, fixed.objective)
    same = fit(n, d, loss, fixed={"alpha": free.coefficients["alpha"], "beta": free.coefficients["beta"]}, bootstraps=0)
    assert same.objective == pytest.approx(free.objective, rel=1e-9)
    assert fit(n, d, loss, fixed={"E": 0.0}, bootstraps=0).coefficients["E"] == 0.0


def test_an_infinite_delta_is_least_squares() -> None:
    n, d, loss = noisy()
    found = fit(n, d, loss, delta=math.inf, bootstraps=0)
    assert found.objective == pytest.approx(0.5 * (found.relative_residuals() ** 2).sum(), rel=1e-9)
    assert found.objective < 0.5 * (fit(n, d, loss, bootstraps=0).relative_residuals() ** 2).sum()


def test_units_of_size_and_data_change_only_the_two_coefficients_that_have_them() -> None:
    n, d, loss = noisy()
    base, other = fit(n, d, loss, bootstraps=0), fit(n / 1e6, d / 1e9, loss, bootstraps=0)
    for name in ("E", "alpha", "beta"):
        assert other.coefficients[name] == pytest.approx(base.coefficients[name], rel=1e-8)
    assert other.coefficients["A"] * 1e6 ** base.coefficients["alpha"] == pytest.approx(base.coefficients["A"], rel=1e-7)
    assert other.coefficients["B"] * 1e9 ** base.coefficients["beta"] == pytest.approx(base.coefficients["B"], rel=1e-7)


def test_the_order_of_runs_does_not_matter() -> None:
    n, d, loss = noisy()
    order = np.random.RandomState(5).permutation(len(n))
    assert fit(n[order], d[order], loss[order], bootstraps=0).coefficients == pytest.approx(
        fit(n, d, loss, bootstraps=0).coefficients, rel=1e-8
    )


# -- uncertainty ------------------------------------------------------------------------------------------------------------


def test_the_same_question_gets_the_same_bits() -> None:
    n, d, loss = noisy()
    one, other = (fit(n, d, loss, bootstraps=60, seed=3) for _ in range(2))
    assert one.to_json() == other.to_json()
    assert one.samples is not None and other.samples is not None
    assert all((one.samples[name] == other.samples[name]).all() for name in one.samples)
    assert fit(n, d, loss, bootstraps=60, seed=4).estimates["A"] != one.estimates["A"]


def test_resamples_are_those_of_the_replication_of_besiroglu() -> None:
    np.random.seed(42)
    drawn = [np.random.choice(list(range(240)), size=240, replace=True) for _ in range(3)]
    assert (solving.resamples(240, 5, 3, 42) == [np.bincount(rows, minlength=240) for rows in drawn]).all()


def test_every_resample_is_fitted_as_well_as_by_hand() -> None:
    n, d, loss = noisy(30)
    found = fit(n, d, loss, bootstraps=200)
    weights = solving.resamples(30, 5, 200, found.seed)
    assert found.samples is not None
    for row in range(3):
        ours = vector({name: values[row] for name, values in found.samples.items()})
        function = objective_of(n, d, loss, weights[row])
        for start, size in ((ours, 0.01), (vector(CHINCHILLA), 0.1)):
            assert nelder_mead(function, start, size, 1200)[1] >= function(ours) * (1 - 1e-7)
    for name, values in found.samples.items():
        estimate = found.estimates[name]
        assert estimate.standard_error == pytest.approx(np.std(values, ddof=1))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))


def test_a_resample_without_enough_different_runs_is_drawn_again() -> None:
    weights = solving.resamples(6, 5, 500, 1)
    assert weights.shape == (500, 6) and (weights.sum(axis=1) == 6).all()
    assert (weights > 0).sum(axis=1).min() >= 5


def test_too_few_runs_get_no_intervals_and_are_told_so() -> None:
    n, d, loss = noisy(9)
    found = fit(n, d, loss)
    assert found.samples is None and found.estimates["A"].low is None
    assert any("too few for standard errors" in note for note in found.notes)
    assert fit(*(column[:5] for column in (n, d, loss))).notes[1].startswith("as many coefficients as runs")


@pytest.mark.soak
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    inside = 0
    for seed in range(100):
        n, d = grid(60, seed)
        found = fit(n, d, law_loss(n, d, 0.004, seed + 1000), bootstraps=300, hold_out=0)
        inside += found.exponent.low <= 0.28 / 0.62 <= found.exponent.high
    assert 88 <= inside <= 100  # 95 of 100 within three standard deviations, less the small-sample shortfall of the bootstrap


def test_predictions_hold_single_runs_as_often_as_they_say() -> None:
    n, d, loss = noisy(150)
    found = fit(n, d, loss, bootstraps=300, hold_out=0)
    new_n, new_d = grid(400, seed=77)
    inside_domain = new_d < d.max()
    said = found.predict(new_n[inside_domain], new_d[inside_domain], extrapolate=True)
    measured = law_loss(new_n, new_d, 0.004, seed=5)[inside_domain]
    assert 0.90 <= ((said.run_low <= measured) & (measured <= said.run_high)).mean() <= 0.99
    assert ((said.low <= said.loss) & (said.loss <= said.high) & (said.run_low < said.low) & (said.high < said.run_high)).mean() > 0.97


def test_ten_thousand_questions_are_one_call() -> None:
    n, d, loss = noisy()
    found = fit(n, d, loss, bootstraps=50, hold_out=0)
    many = np.geomspace(1e18, 1e21, 10_000)
    optimum = found.optimal(many, intervals=False)
    assert optimum.parameters.value.shape == (10_000,) and optimum.parameters.low is None
    assert found.predict(optimum.parameters.value, optimum.tokens.value, intervals=False).loss == pytest.approx(optimum.loss.value)
    three = found.optimal(many[::4000])
    assert three.parameters.low.shape == (3,) and (three.parameters.low < three.parameters.value).all()


# -- what surrounds the optimum -----------------------------------------------------------------------------------------------


def test_planted_outliers_are_named_and_no_others_and_both_fits_are_given() -> None:
    n, d = grid(60)
    loss = law_loss(n, d) * np.exp(0.004 * np.random.RandomState(2).uniform(-1, 1, 60))
    loss[[7, 31]] *= [1.3, 0.8]
    found = fit(n, d, loss, bootstraps=0)
    rest = np.setdiff1d(np.arange(60), [7, 31])
    assert found.outliers == (7, 31) and not found.dropped
    assert found.with_outliers == found.coefficients
    assert found.without_outliers == pytest.approx(fit(n[rest], d[rest], loss[rest], bootstraps=0).coefficients, rel=1e-9)
    dropped = fit(n, d, loss, bootstraps=0, drop_outliers=True)
    assert dropped.dropped and dropped.coefficients == found.without_outliers and len(dropped.runs) == 58


def test_the_largest_runs_are_foretold_by_the_others() -> None:
    n, d, loss = noisy(50)
    cost = n * d
    found = fit(n, d, loss, bootstraps=0)
    assert found.held_out is not None and len(found.held_out.rows) == 5
    assert set(found.held_out.rows) == set(np.argsort(cost)[-5:])
    rest = np.argsort(cost)[:-5]
    by_hand = fit(n[rest], d[rest], loss[rest], bootstraps=0, hold_out=0)
    largest = list(found.held_out.rows)
    assert found.held_out.predicted == pytest.approx(by_hand.loss(n[largest], d[largest]), rel=1e-9)
    errors = np.array(found.held_out.predicted) / loss[largest] - 1
    assert (found.held_out.mean, found.held_out.largest) == pytest.approx((np.abs(errors).mean(), np.abs(errors).max()))
    assert found.held_out.decades == pytest.approx(math.log10(cost[largest].max() / cost[rest].max()))
    assert len(fit(n[:12], d[:12], loss[:12], bootstraps=0).held_out.rows) == 3  # type: ignore[union-attr]
    assert fit(n, d, loss, bootstraps=0, hold_out=0).held_out is None


def test_runs_marked_as_held_out_stay_out_of_the_fit() -> None:
    n, d, loss = noisy(40)
    mask = np.arange(40) >= 37
    found = fit(n, d, loss, bootstraps=100, hold_out=list(mask))
    assert found.coefficients == fit(n[:37], d[:37], loss[:37], bootstraps=0).coefficients
    assert found.held_out is not None and found.held_out.rows == (37, 38, 39) and found.held_out.inside in (0, 1, 2, 3)


def test_two_decades_beyond_the_runs_is_refused_unless_asked_for() -> None:
    n, d, loss = noisy()
    found = fit(n, d, loss, bootstraps=0)
    largest = 6 * (n * d).max()
    assert found.optimal(99 * largest).decades == pytest.approx(math.log10(99))
    assert found.optimal(0.01 * 6 * (n * d).min()).decades == pytest.approx(2.0)
    with pytest.raises(HearthError, match=r"2\.1 decades beyond .* --extrapolate"):
        found.optimal(130 * largest)
    with pytest.raises(HearthError, match="--extrapolate"):
        found.predict(n.max() * 101, d.min())
    assert found.optimal(1e4 * largest, extrapolate=True).decades == pytest.approx(4.0)


def test_a_fit_is_a_law_of_the_room() -> None:
    n, d, loss = noisy()
    found = fit(n, d, loss, bootstraps=80)
    law = scaling_laws.law(found.law)
    optimum = found.optimal(1e20)
    assert law.optimal(1e20) == pytest.approx((optimum.parameters.value, optimum.tokens.value))
    assert law.loss(n, d) == pytest.approx(loss, rel=0.1) and law.resamples is found.samples
    g = (found.coefficients["alpha"] * found.coefficients["A"] / found.coefficients["beta"] / found.coefficients["B"]) ** (
        1 / (found.coefficients["alpha"] + found.coefficients["beta"])
    )
    assert optimum.parameters.value == pytest.approx(g * (1e20 / 6) ** found.exponent.value)
    assert optimum.loss.value == pytest.approx(
        min(found.loss(k * optimum.parameters.value, optimum.tokens.value / k) for k in (0.97, 1, 1.03))
    )
    assert plan.fit is fit
