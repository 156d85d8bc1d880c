"""The catalogue: dense peaks, names as papers write them, a user's own rows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from openhearth.errors import HearthError
from openhearth.plan import accelerators, catalogue
from openhearth.plan.commands.hardware import hardware_command


@pytest.fixture(autouse=True)
def nobodys_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the file of whoever runs the tests."""
    monkeypatch.delenv("OPENHEARTH_ACCELERATORS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))


def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("OPENHEARTH_ACCELERATORS", str(file))
    return file


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("a100-80", "bf16", 312), ("h100", "bf16", 989.4), ("h100", "fp8", 1978.9), ("v100", "fp16", 125), ("tpu-v4", "bf16", 275),
        ("b200", "bf16", 2250),
    ],
)  # fmt: skip
def test_peaks_are_those_of_dense_matrices(name: str, precision: str, tflops: float) -> None:
    assert catalogue.device(name).peak(precision) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    ("written", "id_"),
    [
        ("h100", "h100-sxm"), ("NVIDIA H100-SXM5-80GB", "h100-sxm"), ("H100 80GB HBM3", "h100-sxm"), ("a100", "a100-80"),
        ("A100 40GB", "a100-40"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"), ("V100 32GB", "v100-32"), ("TPU v4", "tpu-v4"), ("TPUv5p", "tpu-v5p"), ("H800", "h800-sxm"),
    ],
)  # fmt: skip
def test_a_device_is_found_under_the_names_that_papers_use(written: str, id_: str) -> None:
    found = catalogue.find(written)
    assert found is not None and found.id == id_


def test_every_alias_names_one_device_and_no_id_of_another() -> None:
    known = catalogue.devices()
    aliases = [alias for device in known.values() for alias in device.aliases]
    assert len(aliases) == len(set(aliases)) and not set(aliases) & set(known)


def test_hardware_is_a_number_and_a_device() -> None:
    number, device = catalogue.parse("2048xa100-80")
    assert (number, device.id) == (2048, "a100-80")
    assert catalogue.parse("mi300x")[0] == 1


def test_an_unknown_device_is_answered_with_the_nearest() -> None:
    with pytest.raises(HearthError, match=r"'h10' is not in the catalogue \(did you mean 'h100'\?\)"):
        catalogue.device("h10")


@pytest.mark.parametrize("name", ["v100", "t4"])
def test_bf16_is_refused_where_there_are_no_units_for_it_and_fp16_is_named(name: str) -> None:
    with pytest.raises(HearthError, match=r"no bf16 units.*--precision fp16"):
        catalogue.device(name).peak("bf16-mixed")
    assert catalogue.device(name).training_peak()[0] == "fp16"


@pytest.mark.parametrize(
    ("name", "peak", "dense"), [("h100", 1979, "989.4"), ("h100", 1978.9, "989.4"), ("a100", 624, "312"), ("h200", 1979, "989")]
)
def test_a_sparse_peak_is_refused_and_the_dense_one_is_named(name: str, peak: float, dense: str) -> None:
    with pytest.raises(HearthError, match=f"2:4 sparsity.*write {dense}$"):
        catalogue.device(name).with_peak(peak, "bf16")


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_peak_out_of_bounds_is_refused(peak: float) -> None:
    with pytest.raises(HearthError, match="must lie between"):
        catalogue.device("h100").with_peak(peak, "bf16")


def test_a_peak_that_is_right_is_taken_and_an_odd_one_is_doubted() -> None:
    assert catalogue.device("h100").with_peak(800, "bf16").peak("bf16") == 800e12
    assert not catalogue.device("h100").with_peak(800, "bf16").questions
    assert catalogue.device("h100").with_peak(100, "bf16").questions


def test_a_row_of_ones_own_changes_what_it_names_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, "id,usd_h_typ,price_date", "h100,2.10,2026-11")
    device = catalogue.device("h100-sxm")
    assert device.price is not None and (device.price.typical, device.price.low, device.price.date) == (2.10, 2.10, "2026-11")
    assert device.peak("bf16") == pytest.approx(989.4e12) and device.watts == 700


def test_a_device_of_ones_own_is_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, "# mine", "id,bf16_dense_tflops,memory_GB,aliases", "", "wonder-1,500,64,wonder w1")
    assert catalogue.device("w1").peak("bf16") == 500e12
    assert catalogue.device("wonder-1").memory_bytes == 64 * 2**30


def test_the_usual_place_is_read_where_nothing_else_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "config/openhearth"
    folder.mkdir(parents=True)
    (folder / "accelerators.csv").write_text("id,tdp_W\nh100,500\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert catalogue.device("h100").watts == 500


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("id,bf16_dense_tflops", "h100,1979"), r"mine\.csv:2: bf16_dense_tflops 1979: twice the dense .* write 989\.4"),
        (("id,bf16_dense_tflops", "a100,624"), r":2: .*2:4 sparsity.* write 312"),
        (("id,bf16_dense_tflops", "h100,much"), r":2: bf16_dense_tflops 'much' is not a number"),
        (("id,memory_GB", "h100,-80"), r":2: memory_GB -80 must lie between"),
        (("id,memory_GB", "h100,nan"), r":2: memory_GB nan must lie between"),
        (("id,memory_gb", "h100,80"), r":1: column 'memory_gb' is not known \(did you mean 'memory_GB'\?\)"),
        (("name,memory_GB", "h100,80"), r":1: there must be a column id"),
        (("id,memory_GB", "new-1,80"), r":2: new-1 is new and has no peak"),
        (("id,bf16_dense_tflops", "new-1,80"), r":2: new-1 is new and has no memory_GB"),
        (("id,memory_GB", "h100,80", "h100,80"), r":3: 'h100' stands in line 2 already"),
        (("id,memory_GB", "h100,80,9"), r":2: 3 cells under 2 columns"),
        (("id,memory_GB", "H 100,80"), r":2: id 'H 100' must be lower-case"),
        (("id,usd_h_low,usd_h_typ", "h100,3,2"), r":2: prices of h100-sxm must rise"),
        (("",), r"is empty"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_file_and_line(lines: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, *lines)
    with pytest.raises(HearthError, match=said) as caught:
        catalogue.devices()
    assert "\n" not in str(caught.value)


def test_a_new_device_with_the_sparse_peak_of_a_known_one_is_questioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own(monkeypatch, tmp_path, "id,bf16_dense_tflops,memory_GB", "our-hopper,1979,80", "our-other,1500,80")
    assert "2:4 sparsity" in catalogue.device("our-hopper").questions[0]
    assert not catalogue.device("our-other").questions


def test_a_file_that_is_named_and_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENHEARTH_ACCELERATORS", str(tmp_path / "gone.csv"))
    with pytest.raises(HearthError, match=r"gone\.csv: no such file"):
        catalogue.devices()


def test_the_command_lists_every_device_and_says_that_peaks_are_dense(capsys: pytest.CaptureFixture[str]) -> None:
    assert hardware_command() == 0
    shown = capsys.readouterr().out
    assert all(device["id"] in shown for device in accelerators()) and "dense" in shown and "…" not in shown
    assert hardware_command("h100", json=True) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["id"] == "h100-sxm" and one["peak_tflops"]["bf16"] == pytest.approx(989.4) and one["price_date"]
