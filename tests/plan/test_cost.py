"""Energy, CO2 and money against what the papers print."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan import cost, energy
from openhearth.plan.catalogue import device
from openhearth.plan.commands.hardware import energy_command

LLAMA = [(82_432, 36, 14), (135_168, 59, 23), (530_432, 233, 90), (1_022_362, 449, 173)]
"""Touvron et al. 2023, table 15: GPU-hours, MWh (cut, not rounded), tonnes."""


@pytest.mark.parametrize(("hours", "mwh", "tonnes"), LLAMA)
def test_llamas_table_comes_out_to_its_printed_digits(hours: float, mwh: int, tonnes: int) -> None:
    found = energy(hours, "a100-80", watts=400)
    assert math.floor(found["mwh"]) == mwh and round(found["tco2e"]) == tonnes


def test_llama_2_and_llama_3_1_give_the_grid_that_their_cards_imply() -> None:
    assert cost.carbon_tonnes(cost.energy_kwh(184_320, 400, 1.0), 0.4234) == pytest.approx(31.22, abs=0.01)  # Llama 2 7B
    energy_of_405b = cost.energy_kwh(30.84e6, 700, 1.0)
    assert energy_of_405b / 1e6 == pytest.approx(21.6, abs=0.05)  # GWh
    assert 8930 / (energy_of_405b / 1000) == pytest.approx(0.414, abs=0.001)


def test_gopher_and_opt_as_their_authors_count() -> None:
    assert cost.energy_kwh(809_472, 400) / 1000 == pytest.approx(356, abs=0.5)  # OPT-175B in LLaMA's table
    assert cost.energy_kwh(3_768_320, 283, 1.08) / 1000 == pytest.approx(1151.7, abs=0.5)  # 920 h x 4,096 chips


def test_the_default_power_is_said_and_is_0_75_tdp_with_the_host() -> None:
    found = cost.power(device("a100-80"))
    assert found is not None and found.watts == pytest.approx(0.75 * 400 * 1.25)
    assert (found.pue, found.kg_per_kwh) == (1.1, 0.385) and "TDP" in found.source


def test_a_price_of_ones_own_takes_the_place_of_the_catalogues() -> None:
    own = cost.cost(1000, device("h100"), usd_per_hour=2.10)
    assert (own.usd, own.usd_low, own.usd_high) == (2100, 2100, 2100)
    usual = cost.cost(1000, device("h100"))
    assert usual.usd == pytest.approx(2950) and usual.usd_low == pytest.approx(1990) and usual.usd_high == pytest.approx(5000)
    assert cost.cost(1000, device("gh200")).usd is None  # no price known


def test_arrays_go_in_and_come_out() -> None:
    hours = np.array([row[0] for row in LLAMA], float)
    assert np.allclose(energy(hours, "a100-80", watts=400)["mwh"], [36.27, 59.47, 233.39, 449.84], atol=0.005)


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_hours_at_or_below_zero_are_refused(hours: float) -> None:
    with pytest.raises(HearthError, match="above zero"):
        energy(hours, "a100-80")


@pytest.mark.parametrize("wrong", [{"watts": -1.0}, {"watts": float("nan")}, {"pue": 0.9}, {"kg_per_kwh": 9.0}])
def test_impossible_power_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(HearthError, match="must lie between"):
        energy(1.0, "a100-80", **wrong)


def test_the_command_says_what_it_counted_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert energy_command(on="a100-80", chip_hours="1022362", watts=400) == 0
    shown = capsys.readouterr().out
    assert "449.8 MWh" in shown and "173.2 t" in shown and "PUE 1.1" in shown and "2026-05" in shown
    assert energy_command(on="a100-80", chip_hours="1022362", watts=400, price="1/h", json=True) == 0
    assert json.loads(capsys.readouterr().out)["usd"] == 1_022_362
    with pytest.raises(HearthError, match="--chip-hours is missing"):
        energy_command(on="a100-80", chip_hours=None)
