"""The energy of a stage: the processor's counter where there is one, an estimate that says so where there is none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from openhearth.energy import ESTIMATED, MEASURED, WATTS_PER_CORE, Meter


def counter(folder: Path, name: str, microjoules: int, span: int = 1_000_000_000) -> Path:
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{span}\n")
    return place


def test_packages_are_summed_and_their_parts_left_out(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counter(tmp_path, name, 1_000_000)
    meter = Meter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 3_500_000)
    counter(tmp_path, "intel-rapl:1", 2_000_000)
    counter(tmp_path, "intel-rapl:0:0", 900_000_000)
    assert (meter.read().joules, meter.read().source) == (3.5, MEASURED)


def test_a_counter_that_ran_over_is_corrected(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 990_000_000)
    meter = Meter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 2_000_000)
    assert meter.read().joules == pytest.approx(12.0)


@pytest.mark.parametrize("kind", ["none", "unreadable", "still"])
def test_without_a_counter_the_energy_is_an_estimate_from_processor_time(tmp_path: Path, kind: str) -> None:
    if kind != "none":
        counter(tmp_path, "intel-rapl:0", 5)
    if kind == "unreadable":
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    meter = Meter(tmp_path)
    began = time.process_time()
    while time.process_time() - began < 0.1:
        pass
    energy = meter.read()
    assert energy.source == ESTIMATED
    assert 0.07 * WATTS_PER_CORE < energy.joules < 2 * WATTS_PER_CORE  # the clock of os.times has steps of 10 ms
