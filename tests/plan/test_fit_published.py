"""Fits of published runs against published figures, and what is refused, or said, of runs that no law describes."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan import forms, scaling_laws, solving
from openhearth.plan.fitting import fit
from openhearth.plan.forms import Objective, Runs
from openhearth.plan.newton import minimise
from openhearth.plan.runs_table import read_table
from tests.plan.fit_runs import CHINCHILLA, TABLES, datablations

pytestmark = pytest.mark.filterwarnings("error")

POINTS = os.environ.get("OPENHEARTH_CHINCHILLA_POINTS")
"""data/svg_extracted_data.csv of github.com/epoch-research/analyzing-chinchilla: without a licence, so it is not in this repository."""


# -- published figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "name"), [("c4_original", "gadre-c4"), ("rpj", "gadre-redpajama"), ("rw_original", "gadre-refinedweb")])
def test_the_over_training_law_of_gadre_comes_from_its_five_runs(train: str, name: str) -> None:
    with (TABLES / "gadre_runs_104.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train"] == train and row["model"].startswith("d=")]
    five = [
        row
        for row in rows
        if float(row["chinchilla_mult"]) == 1 or (row["model"] == "d=96_l=8_h=4" and float(row["chinchilla_mult"]) == 16)
    ]
    columns = [[float(row[key]) for row in five] for key in ("params", "tokens", "loss_c4_val")]
    found = fit(*columns, form="gadre", delta=math.inf, residuals="loss", hold_out=0)
    assert len(five) == 5
    printed = scaling_laws.law(name).printed
    digits = {"E": 2, "a": 0, "b": 0, "eta": 3}
    assert {key: round(found.coefficients[key], digits[key]) for key in printed} == pytest.approx(dict(printed))


def test_the_repeated_data_optimum_of_muennighoff_is_a_local_one() -> None:
    n, d, loss, unique = datablations()
    base = {name: value for name, value in scaling_laws.law("muennighoff").coefficients.items() if name in CHINCHILLA}
    held: dict[str, Any] = {"form": "muennighoff", "unique_tokens": unique, "bootstraps": 0, "hold_out": 0}
    published = fit(n, d, loss, fixed={**base, "repeat_tokens": 15.387756, "repeat_parameters": 5.309743}, **held)
    assert published.objective == pytest.approx(0.0158259, abs=1e-7)
    found = fit(n, d, loss, fixed=base, **held)
    assert found.objective == pytest.approx(0.0158047, abs=1e-7)
    assert found.coefficients["repeat_tokens"] == pytest.approx(95.4, abs=0.1)
    assert found.coefficients["repeat_parameters"] == pytest.approx(1.71, abs=0.01)
    low, high = found.profiles["repeat_tokens"].flat
    assert low < 15 and high > 250
    assert any(note.startswith("R_D* is weakly identified") for note in fit(n, d, loss, fixed=base, **{**held, "bootstraps": 60}).notes)


def test_a_profile_is_the_best_fit_with_the_coefficient_held_there() -> None:
    n, d, loss, unique = datablations()
    base = {name: value for name, value in scaling_laws.law("muennighoff").coefficients.items() if name in CHINCHILLA}
    held: dict[str, Any] = {"form": "muennighoff", "unique_tokens": unique, "bootstraps": 0, "hold_out": 0}
    profile = fit(n, d, loss, fixed=base, **held).profiles["repeat_tokens"]
    for place in (4, 8, 12, 20):
        alone = fit(n, d, loss, fixed={**base, "repeat_tokens": profile.values[place]}, **held)
        assert profile.objective[place] == pytest.approx(alone.objective, rel=1e-6)


def test_a_resample_takes_the_lowest_of_the_minima_that_it_is_started_from() -> None:
    n, d, loss, unique = datablations()
    runs = Runs(n, d, loss, unique)
    base = {name: value for name, value in scaling_laws.law("muennighoff").coefficients.items() if name in CHINCHILLA}
    optimum = solving.solve(runs, forms.FORMS["muennighoff"], tied=False, fixed=forms.places("muennighoff", base), delta=1e-3, on_log=True)
    assert len(optimum.others) > 1
    thetas = solving.resampled(runs, optimum, delta=1e-3, on_log=True, count=40, seed=42)
    objective = Objective(runs, optimum.free, 1e-3, True, solving.resamples(len(n), 2, 40, 42))
    reached = objective(optimum.free.phi(thetas), np.arange(40))[0]
    for start in optimum.others:
        alone = minimise(objective, np.tile(optimum.free.phi(start[None]), (40, 1))).values
        assert (reached <= alone * (1 + 1e-9)).all()


def test_base_law_and_repetition_are_fitted_together() -> None:
    n, d, loss, unique = datablations()
    found = fit(n, d, loss, form="muennighoff", unique_tokens=unique, bootstraps=60)
    assert found.objective == pytest.approx(0.00696125, abs=1e-8)
    assert found.coefficients["repeat_tokens"] == pytest.approx(33.58, abs=0.01)
    assert found.coefficients["alpha"] == found.coefficients["beta"]
    assert any(note.startswith("R_N* is weakly identified") for note in found.notes)
    assert not any(note.startswith("R_D* is weakly identified") for note in found.notes)
    residuals = loss - found.loss(n, d, unique)
    assert 1 - (residuals**2).sum() / ((loss - loss.mean()) ** 2).sum() == pytest.approx(0.94, abs=0.01)
    profile = found.profiles["repeat_tokens"]
    assert min(profile.objective) >= found.objective * (1 - 1e-9)


@pytest.mark.skipif(POINTS is None, reason="OPENHEARTH_CHINCHILLA_POINTS does not name the points that Besiroglu et al. extracted")
def test_the_true_optimum_on_the_chinchilla_points() -> None:
    assert POINTS is not None
    table = read_table(Path(POINTS))
    n, d, loss = (np.array(column) for column in (table.parameters, table.tokens, table.loss))
    kept = loss < np.sort(loss)[-5]
    n, d, loss = n[kept], d[kept], loss[kept]
    found = fit(n, d, loss)
    assert found.objective <= 1.01827402e-3
    assert found.coefficients == pytest.approx(
        {"E": 1.817218, "A": 477.826, "B": 2143.417, "alpha": 0.347311, "beta": 0.367172}, rel=1.5e-6
    )
    errors = {"E": 0.02566, "A": 124.49, "B": 1293.17, "alpha": 0.01540, "beta": 0.02059}
    assert {name: estimate.standard_error for name, estimate in found.estimates.items()} == pytest.approx(errors, rel=1e-3)
    assert (found.exponent.value, found.exponent.standard_error) == pytest.approx((0.5139, 0.0200), abs=1e-4)
    assert (found.exponent.low, found.exponent.high) == pytest.approx((0.480, 0.556), abs=5e-4)
    optimum = found.optimal(5.76e23)
    assert (optimum.tokens_per_parameter.value, optimum.tokens_per_parameter.low, optimum.tokens_per_parameter.high) == pytest.approx(
        (17.9, 7.6, 36), rel=0.02
    )
    for delta, a, b, e, alpha, beta in (
        (1e-1, 593, 4876, 1.865, 0.360, 0.406),
        (1e-2, 539, 2906, 1.838, 0.354, 0.382),
        (1e-7, 482.0, 2085, 1.8168, 0.3478, 0.3658),
    ):
        other = fit(n, d, loss, delta=delta, bootstraps=0).coefficients
        assert (other["A"], other["B"]) == pytest.approx((a, b), rel=2e-3)
        assert (other["E"], other["alpha"], other["beta"]) == pytest.approx((e, alpha, beta), abs=6e-4)


# -- refusals -----------------------------------------------------------------------------------------------------------------

GOOD = (np.array([1e7, 2e7, 4e7, 8e7, 1e8, 2e8]), np.array([1e9, 4e9, 2e9, 8e9, 3e9, 5e9]), np.array([4.0, 3.5, 3.6, 3.2, 3.3, 3.1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"form": "chinchila"}, r"no form 'chinchila' \(did you mean 'chinchilla'\?\)"),
        ({"loss": [4.0, math.nan, 3.6, 3.2, 3.3, 3.1]}, "loss: must be finite and above zero"),
        ({"loss": [4.0, -1.0, 3.6, 3.2, 3.3, 3.1]}, "loss: must be finite and above zero"),
        ({"tokens": [0.0, 4e9, 2e9, 8e9, 3e9, 5e9]}, "tokens: must be finite and above zero"),
        ({"parameters": [math.inf] * 6}, "parameters: must be finite and above zero"),
        ({"parameters": ["many"] * 6}, "parameters: not numbers"),
        ({"loss": [1e20] * 6}, r"loss: must lie between 1e-09 and 1e\+09"),
        ({"tokens": [1e-15] * 6}, r"tokens: must lie between 1e-12 and 1e\+30"),
        ({"loss": [4.0, 3.5]}, r"loss of shape \(2,\)"),
        ({"parameters": [1e8] * 6}, "all runs have the same parameters"),
        ({"tokens": [1e8] * 6}, "all runs have the same tokens"),
        ({"delta": 0.0}, "delta 0: must be above zero"),
        ({"residuals": "logs"}, "did you mean 'log'"),
        ({"fixed": {"alfa": 0.3}}, r"cannot fix alfa \(did you mean 'alpha'\?\)"),
        ({"fixed": {"A": -3.0}}, "cannot fix A at -3"),
        ({"form": "muennighoff"}, "give unique_tokens"),
        ({"form": "muennighoff", "unique_tokens": [0.0] * 6}, "unique tokens: must be finite and above zero"),
        ({"hold_out": 3}, "--hold-out 3: leaves 3 runs for 5 coefficients; hold out at most 1"),
        ({"hold_out": [True]}, "a mask of 1 runs"),
        ({"bootstraps": -1}, "bootstraps lie between"),
        ({"form": "isoflop"}, "isoFLOP parabolas need two"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(change: dict[str, Any], said: str) -> None:
    arguments = dict(zip(("parameters", "tokens", "loss"), GOOD, strict=True)) | change
    with pytest.raises(HearthError, match=said) as refused:
        fit(arguments.pop("parameters"), arguments.pop("tokens"), arguments.pop("loss"), **{"bootstraps": 0, **arguments})
    assert "\n" not in str(refused.value)


def test_fewer_runs_than_coefficients_are_refused_with_what_to_hold() -> None:
    four = [column[:4] for column in GOOD]
    with pytest.raises(HearthError, match=r"4 runs for 5 coefficients; give at least 5, or hold some of them: --fix E=1\.7, or --tied"):
        fit(*four)
    assert fit(*four, tied=True).form.name == "chinchilla"


@pytest.mark.parametrize(
    ("n", "d", "loss", "said"),
    [
        (GOOD[0], 20 * GOOD[0] * np.array([1, 1.001, 1, 0.999, 1, 1]), GOOD[2], "tokens grow in step with parameters"),
        (GOOD[0], GOOD[1], np.array([3.1, 3.2, 3.3, 3.4, 3.5, 3.6]), "not above zero|E went to zero|weakly"),
    ],
)
def test_what_the_runs_cannot_tell_is_said(n: Any, d: Any, loss: Any, said: str) -> None:
    assert re.search(said, " ".join(fit(n, d, loss, bootstraps=0).notes))


@pytest.mark.parametrize("form", list(forms.FORMS))
def test_data_without_a_law_in_them_give_a_fit_or_one_line(form: str) -> None:
    generator = np.random.RandomState(len(form))
    answered = 0
    for case in range(12):
        count = int(generator.choice([5, 7, 12, 20]))
        n, d = (np.exp(generator.uniform(*ends, count)) for ends in ((0, 55), (5, 30)))
        loss = np.exp(generator.uniform(-3, 3, count)) if case % 2 else 1.5 + np.log(n) / 10 + np.log(d) / 10
        try:
            found = fit(n, d, loss, form=form, unique_tokens=d * generator.uniform(0.01, 1, count), bootstraps=5)
            json.dumps(found.to_json())
            found.optimal(1e21, extrapolate=True)
            answered += 1
        except HearthError as error:
            assert "\n" not in str(error)
    assert answered or form == "isoflop"
