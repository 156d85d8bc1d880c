"""Bad steps: skipped with nothing changed, gone back from, given up on; and results that a machine computed wrongly."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openhearth.errors import HearthError
from openhearth.train.guard import FEWEST, fault
from openhearth.train.history import History
from openhearth.train.loop import Batch, Trainer
from openhearth.train.settings import Guard
from tests.train.tiny import CONFIG, Quiet, batches, first_weights, run, same_results, settings, weights

POISON = 63
"""The first id of a batch on which the gradient of these tests is not finite."""


def poisoned(*numbers: int) -> Callable[[int], Batch]:
    """The batches, of which some carry poison."""

    def reads(number: int) -> Batch:
        inputs, targets = batches(number)
        if number in numbers:
            inputs[0, 0] = POISON
        return inputs, targets

    return reads


@pytest.fixture(params=["loss", "gradient"])
def poison(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Poison makes the loss NaN and the gradient with it, or one entry of the gradient infinite while the loss stays finite."""
    real = Trainer.gradient

    def gradient(trainer: Trainer, batch: Batch) -> tuple[float, float]:
        loss, norm = real(trainer, batch)
        if batch[0][0, 0] == POISON:
            trainer._gradient[7] = float("nan") if request.param == "loss" else float("inf")
            return (float("nan") if request.param == "loss" else loss), float(trainer._gradient.norm())
        return loss, norm

    monkeypatch.setattr(Trainer, "gradient", gradient)
    yield


def rows(out: Path, name: str = "guard.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


# -- the verdict ------------------------------------------------------------------------------------------------------------


def history(losses: list[float], norms: list[float] | None = None) -> History:
    made = History()
    for loss, norm in zip(losses, norms or [1.0] * len(losses), strict=True):
        made.add(loss, norm, 0.1, None if math.isfinite(loss + norm) else "not finite")
    return made


NOISE = [float(value) for value in np.random.default_rng(0).normal(3.0, 0.05, 200)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("seen", [0, 1, 200])
def test_what_is_not_finite_is_bad_from_the_first_step_on(bad: float, seen: int) -> None:
    assert "loss" in str(fault(history(NOISE[:seen]), bad, 1.0, Guard()))
    assert "gradient" in str(fault(history(NOISE[:seen]), 3.0, bad, Guard(spike=0)))


def test_a_spike_is_judged_by_median_and_deviation() -> None:
    usual = history(NOISE)
    deviation = 1.4826 * np.median(np.abs(np.array(NOISE[-128:]) - np.median(NOISE[-128:])))
    edge = float(np.median(NOISE[-128:]) + 10 * deviation)
    assert fault(usual, edge * 0.999, 1.0, Guard()) is None
    assert "robust deviations above the usual" in str(fault(usual, edge * 1.001, 1.0, Guard()))
    assert fault(usual, edge * 1.001, 1.0, Guard(spike=0)) is None
    assert fault(usual, 0.001, 1e-9, Guard()) is None  # what is low is no spike
    assert "gradient" in str(fault(usual, 3.0, math.exp(1.01), Guard()))  # equal norms: a deviation of 0.1 in the logarithm is assumed
    assert fault(usual, 3.0, math.exp(0.99), Guard()) is None


def test_nothing_is_a_spike_before_there_is_a_usual() -> None:
    assert fault(history(NOISE[: FEWEST - 1]), 1e6, 1e6, Guard()) is None
    assert fault(history(NOISE[:FEWEST]), 1e6, 1.0, Guard()) is not None


def test_bad_steps_never_become_the_usual() -> None:
    with_nan = history([*NOISE[:50], *[float("nan")] * 50, *NOISE[50:100]])
    for loss in (3.2, 3.4, 3.6, 9.0):
        assert fault(with_nan, loss, 1.0, Guard()) == fault(history(NOISE[:100]), loss, 1.0, Guard())


# -- skipped ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("poison")
def test_a_bad_first_step_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "a", poisoned(0), steps=1)
    trainer = Trainer(CONFIG, settings(), first_weights())
    assert rows(tmp_path / "a", "trace.jsonl")[-1]["tensors"] == trainer.tensor_digests()
    (row,) = rows(tmp_path / "a", "steps.jsonl")
    assert row["skipped"] and None in (row["loss"], row["gradient_norm"])


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bad_step_leaves_weights_and_optimiser_as_they_were(tmp_path: Path, dtype: str) -> None:
    tell = run(tmp_path / "a", poisoned(0, 1, 5), steps=7, dtype=dtype)
    trainer = Trainer(CONFIG, settings(steps=7, dtype=dtype), first_weights())
    for updates, number in enumerate((2, 3, 4, 6)):
        trainer.gradient(batches(number))
        trainer.update(number, updates)
    assert rows(tmp_path / "a", "trace.jsonl")[-1]["tensors"] == trainer.tensor_digests()
    assert [event["step"] for event in rows(tmp_path / "a")] == [1, 2, 6] and tell.facts["skipped_steps"] == 3
    assert len([note for note in tell.notes if "is skipped: the " in note]) == 3


def test_a_batch_that_makes_the_loss_jump_is_skipped(tmp_path: Path) -> None:
    def reads(number: int) -> Batch:
        inputs, targets = batches(number)
        return (inputs, targets) if number != 45 else (np.full_like(inputs, 50), np.full_like(targets, 60))

    run(tmp_path / "a", reads, steps=60)
    assert [(event["event"], event["step"]) for event in rows(tmp_path / "a")] == [("skip", 46)]


def test_a_run_without_bad_steps_has_no_events(tmp_path: Path) -> None:
    tell = run(tmp_path / "a", steps=200)
    assert not (tmp_path / "a/guard.jsonl").exists() and tell.notes == [] and "rewinds" not in tell.facts
    norms = [row["gradient_norm"] for row in rows(tmp_path / "a", "steps.jsonl")]
    trainer = Trainer(CONFIG, settings(), first_weights())
    trainer.gradient(batches(0))
    assert norms[0] == pytest.approx(float(trainer.flat.grad.double().norm()), rel=1e-5)


# -- gone back from ---------------------------------------------------------------------------------------------------------

PATIENT = Guard(patience=3, rewinds=2)


@pytest.mark.usefixtures("poison")
def test_bad_steps_in_a_row_lead_back_to_the_last_checkpoint_and_past_their_data(tmp_path: Path) -> None:
    run(tmp_path / "a", poisoned(6, 7, 8), guard=PATIENT, checkpoint_steps=4)
    run(tmp_path / "b", lambda number: batches(number if number < 4 else number + 5), guard=PATIENT, checkpoint_steps=4)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert (tmp_path / "a/trace.jsonl").read_bytes() == (tmp_path / "b/trace.jsonl").read_bytes()
    assert rows(tmp_path / "a")[-1] == {"event": "rewind", "step": 9, "to": 4, "batches": 5}


@pytest.mark.usefixtures("poison")
def test_without_a_checkpoint_it_goes_back_to_the_first_weights(tmp_path: Path) -> None:
    run(tmp_path / "a", poisoned(1, 2, 3), guard=PATIENT, checkpoint_steps=100)
    run(tmp_path / "b", lambda number: batches(number + 4), guard=PATIENT)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.usefixtures("poison")
def test_a_checkpoint_is_only_made_of_weights_that_gave_a_good_gradient(tmp_path: Path) -> None:
    # steps 4 and 5 are bad: the checkpoint due after step 4 waits, so that the rewind goes back to the one after step 2
    run(tmp_path / "a", poisoned(4, 5, 6), guard=PATIENT, checkpoint_steps=2)
    assert rows(tmp_path / "a")[-1] == {"event": "rewind", "step": 7, "to": 2, "batches": 5}


class Killed(BaseException):
    """Stands for a kill in the middle of training."""


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("at", range(20))
def test_a_run_that_was_killed_takes_the_same_decisions(tmp_path: Path, at: int) -> None:
    changes: dict[str, Any] = {"guard": PATIENT, "checkpoint_steps": 3, "steps": 14}
    reads = poisoned(1, 7, 8, 9, 12, 13, 14)
    run(tmp_path / "whole", reads, **changes)
    asked = 0

    def failing(number: int) -> Batch:
        nonlocal asked
        asked += 1
        if asked == at + 1:
            raise Killed
        return reads(number)

    with pytest.raises(Killed):
        run(tmp_path / "killed", failing, **changes)
    run(tmp_path / "killed", reads, **changes)
    assert same_results(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("moments", [(8,), (5, 6), (8, 9), (2, 10), (1, 2, 3, 4)])
def test_a_run_that_was_stopped_between_checkpoints_takes_the_same_decisions(tmp_path: Path, moments: tuple[int, ...]) -> None:
    changes: dict[str, Any] = {"guard": PATIENT, "checkpoint_steps": 4, "steps": 14}
    reads = poisoned(8, 9, 10)
    run(tmp_path / "whole", reads, **changes)

    def stop(number: int, frame: object) -> None:
        raise Killed

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for moment in moments:

            def signalled(number: int, moment: int = moment) -> Batch:
                if number == moment:
                    os.kill(os.getpid(), signal.SIGTERM)
                return reads(number)

            with pytest.raises(Killed):
                run(tmp_path / "stopped", signalled, **changes)
    finally:
        signal.signal(signal.SIGTERM, before)
    tell = run(tmp_path / "stopped", reads, **changes)
    kept = 4 if moments[-1] == 10 else moments[-1] + 1  # the step that reads batch 10 ends with the rewind
    assert tell.notes[0] == f"going on from step {kept} of 14"
    assert same_results(tmp_path / "whole", tmp_path / "stopped")


def test_weights_that_went_wrong_are_gone_back_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, spoilt = Trainer.update, []

    def update(trainer: Trainer, number: int, updates: int) -> None:
        real(trainer, number, updates)
        if number == 41 and not spoilt:
            spoilt.append(trainer.flat.master.mul_(50))

    monkeypatch.setattr(Trainer, "update", update)
    tell = run(tmp_path / "a", steps=60, checkpoint_steps=20)
    assert any("bad steps in a row: back to step 40, past the batches 40 to 45" in note for note in tell.notes)
    assert tell.facts["rewinds"] == 1 and tell.facts["final_loss"] < 2.5


@pytest.mark.usefixtures("poison")
def test_it_stops_with_the_reason_and_the_checkpoint_intact(tmp_path: Path) -> None:
    reads, changes = poisoned(*range(6, 100)), {"guard": PATIENT, "checkpoint_steps": 4}
    said = []
    for _ in range(2):  # the same command again comes to the same end
        with pytest.raises(
            HearthError, match=r"stopped at step 7 \(3 bad steps in a row, after going back 2 times\): the .*; lower the"
        ) as stopped:
            run(tmp_path / "a", reads, **changes)
        said.append(str(stopped.value))
    assert said[0] == said[1] and "\n" not in said[0]
    run(tmp_path / "a", guard=PATIENT, checkpoint_steps=4)
    run(tmp_path / "b", guard=PATIENT, checkpoint_steps=4)
    assert same_results(tmp_path / "a", tmp_path / "b")


# -- computed wrongly -------------------------------------------------------------------------------------------------------


def flipping(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """One bit of the gradient is wrong in these computations (from 0)."""
    real, count = Trainer.gradient, 0

    def gradient(trainer: Trainer, batch: Batch) -> tuple[float, float]:
        nonlocal count
        loss, norm = real(trainer, batch)
        if count in calls:
            trainer._gradient.view(torch.uint8)[4 * count + 1] ^= 1
        count += 1
        return loss, norm

    monkeypatch.setattr(Trainer, "gradient", gradient)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_flipped_bit_is_found_and_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int, dtype: str) -> None:
    changes: dict[str, Any] = {"guard": Guard(recompute=6), "dtype": dtype, "steps": 8}
    run(tmp_path / "clean", **changes)
    flipping(monkeypatch, 5 + wrong)  # the sixth step is computed twice: the first result is wrong, or the second
    tell = run(tmp_path / "flipped", **changes)
    assert tell.notes == ["this machine computed the gradient of step 6 wrongly 1 times; it was computed again"]
    assert tell.measured["wrong_results"] == 1 and rows(tmp_path / "flipped", "telemetry/faults.jsonl") == [{"step": 6, "wrong_results": 1}]
    assert same_results(tmp_path / "clean", tmp_path / "flipped")


def test_a_flipped_bit_outside_of_the_checked_steps_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "clean", guard=Guard(recompute=0))
    flipping(monkeypatch, 5)
    assert run(tmp_path / "flipped", guard=Guard(recompute=0)).notes == []
    assert weights(tmp_path / "clean") != weights(tmp_path / "flipped")


def test_a_machine_that_never_agrees_with_itself_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flipping(monkeypatch, *range(100))
    with pytest.raises(HearthError, match="computed 5 times with 5 different results: this machine computes wrongly"):
        run(tmp_path / "a", guard=Guard(recompute=6))


def test_a_bad_result_that_the_machine_does_not_repeat_is_no_bad_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "clean")
    real, count = Trainer.gradient, 0

    def gradient(trainer: Trainer, batch: Batch) -> tuple[float, float]:
        nonlocal count
        count += 1
        loss, norm = real(trainer, batch)
        if count != 4:
            return loss, norm
        trainer._gradient[3] = float("nan")
        return float("nan"), float("nan")

    monkeypatch.setattr(Trainer, "gradient", gradient)
    tell: Quiet = run(tmp_path / "once")
    assert tell.measured["wrong_results"] == 1 and same_results(tmp_path / "clean", tmp_path / "once")
