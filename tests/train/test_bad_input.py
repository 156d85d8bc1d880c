"""What cannot be trained, and what happens to the folder meanwhile: one line each, and the checkpoint before it is intact."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError, RecipeError
from openhearth.recipe import Recipe
from openhearth.train.checkpoint import latest_checkpoint
from openhearth.train.loop import Batch, train
from tests.train.tiny import CONFIG, Quiet, batches, first_weights, run, same_results, settings, weights


class Killed(BaseException):
    """Stands for a kill in the middle of training."""


def until(at: int, out: Path, **more: Any) -> None:
    """Train up to step `at`, where the run is killed."""

    def failing(number: int) -> Batch:
        if number == at:
            raise Killed
        return batches(number)

    with pytest.raises(Killed):
        train(CONFIG, settings(), first_weights, failing, out, Quiet(), **more)


def kept(out: Path) -> int:
    found, passed_over = latest_checkpoint(out / "checkpoints")
    assert passed_over == []
    return found.step if found is not None else 0


RECIPE = 'name = "small"\nbudget = "1 min"\n[corpus]\n[tokenizer]\n[plan]\n{plan}\n[pretrain]\n{pretrain}\n[sft]\n[evaluate]\n[release]\n'


@pytest.mark.parametrize(
    ("plan", "pretrain", "said"),
    [
        ("tokens = 0", "", r"tokens"),
        ("learning_rate_scale = nan", "", r"learning_rate_scale"),
        ('learning_rate_scale = "fast"', "", r"learning_rate_scale"),
        ('learning_rate_scale = "0.5"', "", r"learning_rate_scale"),
        ("", "learning_rate = nan", r"learning_rate"),
        ("", "learning_rate = inf", r"learning_rate"),
        ("", "learning_rate = -1.0", r"learning_rate"),
        ("", 'learning_rate = "0.1"', r"learning_rate"),
        ("", "weight_decay = nan", r"weight_decay"),
        ("", "guard.spike = nan", r"spike"),
        ("", "guard.patience = 0", r"patience"),
        ("", "guard.patiense = 3", r"patience"),
        ("", "permanent_steps = -1", r"permanent_steps"),
        ("", "schedule.warmup = 2.0", r"warmup"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_that_names_it(plan: str, pretrain: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        Recipe.parse(RECIPE.format(plan=plan, pretrain=pretrain))
    assert "\n" not in str(caught.value)


def test_a_sequence_longer_than_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sequence_length is 64, the model sees 32 tokens"):
        run(tmp_path, sequence_length=64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("which", "id_", "named"), [(0, 64, "64"), (1, 70_000, "70,000"), (0, -1, "-1")])
def test_an_id_outside_of_the_vocabulary_is_refused(tmp_path: Path, which: int, id_: int, named: str) -> None:
    def reads(number: int) -> Batch:
        batch = batches(number)
        if number == 6:
            batch[which][1, 3] = id_
        return batch

    with pytest.raises(HearthError, match=f"batch 6 holds the token id {named}; the model's vocabulary has 64 ids: tokenise"):
        run(tmp_path, reads)
    assert kept(tmp_path) == 4


def test_shards_that_changed_since_the_start_are_refused(tmp_path: Path) -> None:
    until(7, tmp_path, data="as it was")
    with pytest.raises(HearthError, match="step-00000004: made with other data: the shards changed since the start; delete"):
        train(CONFIG, settings(), first_weights, batches, tmp_path, Quiet(), data="changed")
    assert kept(tmp_path) == 4
    train(CONFIG, settings(), first_weights, batches, tmp_path, Quiet(), data="as it was")
    run(tmp_path / "whole")
    assert weights(tmp_path) == weights(tmp_path / "whole")


def test_a_checkpoint_of_another_shape_or_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    until(7, tmp_path)
    wider = CONFIG.model_copy(update={"intermediate_size": 96})
    with pytest.raises(HearthError, match="made with intermediate_size = 64, this run has 96; choose another folder"):
        train(wider, settings(), first_weights_of(wider), batches, tmp_path, Quiet())
    with pytest.raises(HearthError, match="made with steps = 12, this run has 20"):
        run(tmp_path, steps=20)
    assert kept(tmp_path) == 4


def first_weights_of(config: Any) -> Any:
    from openhearth.model.hf import tensor_shapes
    from openhearth.model.init import initial_tensor

    return lambda: {name: initial_tensor(name, shape, config, 1) for name, shape in tensor_shapes(config).items()}


def test_a_folder_that_is_deleted_while_it_is_trained_in_ends_in_one_line(tmp_path: Path) -> None:
    for at in (2, 10):  # before a checkpoint, and after the last one
        out = tmp_path / "run"

        def reads(number: int, at: int = at, out: Path = out) -> Batch:
            if number == at:
                out.rename(tmp_path / f"gone-{at}")  # at once, whatever is being saved
            return batches(number)

        with pytest.raises(HearthError, match="run: the folder is gone, and what was in it; start the run again") as caught:
            run(out, reads)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "said"), [(errno.EROFS, "Read-only file system"), (errno.ENOSPC, "No space left"), (errno.EIO, "output error")]
)
def test_a_disk_that_cannot_be_written_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    real = Path.open

    def refuses(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if "step-00000008" in str(path) and "r" not in mode:
            raise OSError(number, said)
        return real(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refuses)
    tell = run(tmp_path / "refused")
    assert any(
        said in note and note.endswith("those before it are intact; training goes on without this checkpoint") for note in tell.notes
    )
    monkeypatch.undo()
    run(tmp_path / "whole")
    assert same_results(tmp_path / "refused", tmp_path / "whole")


def test_a_read_only_disk_at_the_end_is_one_line_and_the_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def refuses(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if ".steps.jsonl" in path.name:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refuses)
    with pytest.raises(HearthError, match=r"steps\.jsonl: cannot be written \(Read-only file system\)"):
        run(tmp_path)
    assert kept(tmp_path) == 8


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.linspace(2e9, 0, 100_000))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    tell = run(tmp_path / "a")
    assert tell.measured["tokens_per_second"] > 0 and tell.measured["step_seconds"] > 0
    monkeypatch.undo()
    run(tmp_path / "b")
    assert same_results(tmp_path / "a", tmp_path / "b")
