"""Real processes that are killed and stopped: what is left is that of a run which nobody touched."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openhearth.train import checkpoint
from openhearth.train.checkpoint import latest_checkpoint
from openhearth.train.loop import Batch
from openhearth.train.settings import Guard
from tests.train.tiny import Quiet, batches, run, same_results

SETTINGS: dict[str, Any] = {"steps": 60, "checkpoint_steps": 3, "guard": Guard(recompute=10)}

PROCESSES = multiprocessing.get_context("forkserver")  # torch is imported once, and every process begins in milliseconds
PROCESSES.set_forkserver_preload(["tests.train.test_kills"])


def slowly(number: int) -> Batch:
    time.sleep(0.004)
    return batches(number)


def work(out: Path, fatal: int = 0) -> None:
    """A run in a process of its own; the `fatal`-th call of a save (0: none) kills it."""
    count, real = 0, {name: getattr(os, name) for name in ("fsync", "open")}

    def dying(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            if threading.current_thread() is not threading.main_thread():
                count += 1
                if count == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments, **more)

        return call

    if fatal:
        for name in real:
            setattr(os, name, dying(name))
    run(out, slowly, **SETTINGS)


def started(out: Path, fatal: int = 0) -> Any:
    process = PROCESSES.Process(target=work, args=(out, fatal))
    process.start()
    return process


def killed(out: Path, kills: int, seed: int) -> None:
    """Begin a run again and again until it was killed `kills` times, every other time inside of a save; then let it end."""
    chance = random.Random(seed)
    for number in range(kills):
        process = started(out, fatal=chance.randrange(1, 30) if number % 2 else 0)
        if number % 2 == 0:
            process.join(chance.uniform(0.05, 0.5))
            process.kill()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
    process = started(out)
    process.join()
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("whole")
    run(out, **SETTINGS)
    return out


def test_five_kills_lose_nothing(whole: Path, tmp_path: Path) -> None:
    killed(tmp_path, 5, seed=1)
    assert same_results(whole, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_fifty_kills_lose_nothing(whole: Path, tmp_path: Path, seed: int) -> None:
    for number in range(5):
        killed(tmp_path / str(number), 10, seed=10 * seed + number)
        assert same_results(whole, tmp_path / str(number))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_told_to_stop_keeps_the_step_that_it_is_at(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = started(tmp_path)
    while latest_step(tmp_path) < 3:
        assert process.is_alive(), "it ended before its first checkpoint"
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == (1 if number is signal.SIGINT else -number)  # Python's own ends, since nobody else handles them here
    found, passed_over = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and passed_over == [] and 3 <= found.step < 60
    tell = run(tmp_path, **SETTINGS)
    assert tell.notes == [f"going on from step {found.step} of 60"] and same_results(whole, tmp_path)


def latest_step(out: Path) -> int:
    return max((int(path.name[5:]) for path in out.glob("checkpoints/step-????????")), default=0)


class Stopped(BaseException):
    """What the handler of these tests raises."""


@pytest.fixture
def handled() -> Any:
    """SIGTERM raises in this process."""

    def stop(number: int, frame: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    yield stop
    assert signal.getsignal(signal.SIGTERM) is stop  # given back
    signal.signal(signal.SIGTERM, before)


def signalling(at: int, times: int = 1) -> Callable[[int], Batch]:
    def reads(number: int) -> Batch:
        if number == at:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
        return batches(number)

    return reads


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("at", [0, 6, 7, 59])
def test_it_stops_after_exactly_the_step_at_which_it_was_told_to(whole: Path, tmp_path: Path, at: int) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, signalling(at), **SETTINGS)
    found, _ = latest_checkpoint(tmp_path / "checkpoints")
    assert found is not None and found.step == at + 1
    run(tmp_path, **SETTINGS)
    assert same_results(whole, tmp_path)


@pytest.mark.usefixtures("handled")
def test_told_twice_it_stops_at_once(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tmp_path, signalling(7, times=2), **SETTINGS)
    assert latest_step(tmp_path) == 6  # the seventh step is not kept
    run(tmp_path, **SETTINGS)
    assert same_results(whole, tmp_path)


@pytest.mark.usefixtures("handled")
def test_told_to_stop_during_a_save_both_are_kept(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, saving = checkpoint.save_checkpoint, threading.Event()

    def slow(*arguments: Any) -> None:
        saving.set()
        time.sleep(0.05)
        real(*arguments)

    def reads(number: int) -> Batch:
        if number == 4:  # the checkpoint after step 3 is being saved
            assert saving.wait(10)
            os.kill(os.getpid(), signal.SIGTERM)
        return batches(number)

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    with pytest.raises(Stopped):
        run(tmp_path, reads, **SETTINGS)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000005"]
    monkeypatch.undo()
    run(tmp_path, **SETTINGS)
    assert same_results(whole, tmp_path)


@pytest.mark.usefixtures("handled")
def test_told_to_stop_with_a_full_disk_it_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = Quiet()

    def full(*_: object) -> None:
        raise checkpoint.DiskFullError("no space left")

    monkeypatch.setattr("openhearth.train.loop.save_checkpoint", full)
    monkeypatch.setattr("tests.train.tiny.Quiet", lambda: tell)
    with pytest.raises(Stopped):
        run(tmp_path, signalling(7), **SETTINGS)
    assert tell.notes == ["no space left", "stopped after step 8 of 60; 6 steps are kept"]
