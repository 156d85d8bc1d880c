"""`hearth run --log`: boards see what the run tells, and whatever becomes of a board, the run goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from openhearth.exporters import BOARDS, Exporter
from openhearth.runner import Watcher, run
from tests.fakes import fake, refused


class Notes(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, kind: str, text: str) -> None:
        self.said.append(text)


class FakeTracker(ModuleType):
    """A wandb that remembers, or fails at its `failing`-th figure."""

    def __init__(self, failing: int | None = None) -> None:
        super().__init__("wandb")
        self.failing = failing
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended = False

    def init(self, **settings: Any) -> FakeTracker:
        self.settings = settings
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        if len(self.logged) == self.failing:
            raise ConnectionError("the server is gone\nand more")
        self.logged.append((step, figures))

    def finish(self) -> None:
        self.ended = True


def logged(folder: Path, name: str) -> Notes:
    """Run the fake recipe with this board."""
    notes = Notes()
    exporter = Exporter(name, notes)
    run(fake("count.steps=4"), folder, watcher=exporter)
    exporter.close()
    return notes


def test_tensorboard_reads_the_curves_and_the_facts(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert logged(tmp_path / "run", "tensorboard").said == []
    board = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    curve = board.Scalars("count/tokens_per_second")
    assert [point.step for point in curve] == sorted({point.step for point in curve}) and len(curve) == 4
    tokens = run(fake("count.steps=4"), tmp_path / "run").made["count"].facts["tokens"]
    assert board.Scalars("count/made/tokens")[0].value == tokens > 0


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_one_rising_step_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    assert logged(tmp_path / "run", name).said == []
    steps = [step for step, _ in tracker.logged]
    assert steps == list(range(1, len(steps) + 1)) and tracker.ended
    assert tracker.settings["name"] == "fake" and "[count]" in tracker.settings["config"]["recipe"]
    assert any("count/made/tokens" in figures for _, figures in tracker.logged)


@pytest.mark.parametrize("failing", [0, 3])
def test_a_board_that_fails_is_said_once_and_costs_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    tracker = FakeTracker(failing)
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    assert logged(tmp_path / "run", "wandb").said == ["--log wandb: the server is gone; the run goes on without"]
    assert len(tracker.logged) == failing
    assert run(fake("count.steps=4"), tmp_path / "run").fresh == ()


def test_a_run_with_nothing_to_do_opens_no_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(fake("count.steps=4"), tmp_path / "run")
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    logged(tmp_path / "run", "wandb")
    assert tracker.settings == {}


def test_an_unknown_board_and_one_that_is_not_there_are_refused_before_the_start(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(capfd, "run", "--log", "tensorbord").startswith("--log tensorbord: no such board (did you mean 'tensorboard'?)")
    for name in BOARDS:
        monkeypatch.setitem(sys.modules, name, None)
        assert refused(capfd, "run", "--log", name) == f"--log {name} needs {name}, which is not installed: pip install {name}"
    assert list(here.iterdir()) == []
