"""`loss` and `hearth plan loss`: one model against another by every law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth import cli
from openhearth.errors import HearthError
from openhearth.plan import loss
from openhearth.plan.losses import loss_interval, ratio_interval
from openhearth.plan.scaling_laws import LAWS, law


def facts(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli._status(["plan", "loss", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_by_one_law_or_by_all_floats_or_arrays() -> None:
    assert loss(70e9, 1.4e12) == law("refit").loss(70e9, 1.4e12)
    every = loss(np.array([7e9, 70e9]), 1e12, law="all")
    assert set(every) == {name for name, each in LAWS.items() if each.has_loss}
    assert every["kaplan"][1] == law("kaplan").loss(70e9, 1e12)
    repeated = loss(7e9, 1e12, law="all", unique_tokens=1e10)
    assert "kaplan" not in repeated and repeated["muennighoff"] > every["muennighoff"][0]
    with pytest.raises(HearthError, match="deepseek says how to split"):
        loss(7e9, 1e12, law="deepseek")


def test_thirty_billion_fits_almost_as_well_as_four_times_its_size(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "30B:450B", "120B:450B")
    second = found["models"][1]
    assert second["over_first"] == pytest.approx(0.9794, abs=5e-5)
    assert second["over_first_interval"] == pytest.approx([0.976, 0.982], abs=5e-4)
    published = {"hoffmann-3": 0.979, "muennighoff": 0.981, "kaplan": 0.919, "gadre-c4": 0.955, "gadre-redpajama": 0.968}
    for name, ratio in published.items():
        assert second["over_first_by_law"][name] == pytest.approx(ratio, abs=6e-4)
    assert found["models"][0]["bigger"]["nats"] == pytest.approx(0.042, abs=5e-4)
    assert found["models"][0]["knee_tokens"] == pytest.approx(45e9, rel=1.5e-2)


def test_a_ratio_is_known_better_than_its_losses() -> None:
    one, ratio = loss_interval(120e9, 450e9), ratio_interval((120e9, 450e9), (30e9, 450e9))
    assert one is not None and ratio is not None
    assert ratio[1] - ratio[0] < 0.2 * (one[1] - one[0])
    assert loss_interval(1e9, 1e10, law="hoffmann-3") is None
    band = loss_interval(30e9, np.logspace(10, 12, 5))
    assert band is not None and band[0].shape == (5,) and (band[0] < loss(30e9, np.logspace(10, 12, 5))).all()
    assert band[1][2] == pytest.approx(loss_interval(30e9, 1e11)[1], rel=1e-12)  # type: ignore[index]


def test_the_page_and_a_picture(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "120")
    file = tmp_path / "curves.png"
    assert cli._status(["plan", "loss", "30B:450B", "120B:450B", "--plot", str(file)]) == 0
    out = capfd.readouterr().out
    assert "1.998 (0.9794)" in out and "Over the first: 0.9794 [0.9759, 0.9820]." in out
    assert "extrapolates 0.8 decades beyond the law's data" in out
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["70B"], "70B: not a model; write parameters and tokens as 70B:1.4T"),
        (["70B:"], "70B:: tokens : not a number"),
        (["0:1T"], "0:1T: parameters 0: must be above zero"),
        (["nan:1T"], "must be a finite number"),
        (["70B:1T", "--law", "chinchila"], "no law 'chinchila'"),
        (["70B:1T", "--law", "deepseek"], "the law deepseek says how to split a budget"),
        (["70B:1T", "--unique-tokens", "-1"], "--unique-tokens -1"),
        (["70B:1T", "--bigger", "0"], "--bigger 0"),
        (["70B:1T", "--plot", "a.gif"], "--plot a.gif"),
    ],
)
def test_mistakes_are_one_line_and_status_two(capfd: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert cli._status(["plan", "loss", *arguments]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.startswith("hearth: ") and printed.err.count("\n") == 1 and said in printed.err
