"""The loop, the optimisers and the checkpoints: exact where exactness is promised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from openhearth.errors import DiskFullError, HearthError
from openhearth.model.hf import load_tensors, tensor_shapes
from openhearth.model.transformer import Transformer
from openhearth.train.checkpoint import Checkpoint, save_checkpoint
from openhearth.train.flat import FlatParameters, group_of
from openhearth.train.loop import Batch, Trainer, train
from openhearth.train.optim import Optimizer, orthogonalise
from openhearth.train.results import results_space
from openhearth.train.schedule import Schedule
from tests.train.tiny import CONFIG, RATES, Quiet, batches, first_weights, run, settings, weights


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_settings_give_the_same_bytes(tmp_path: Path, dtype: str) -> None:
    run(tmp_path / "a", dtype=dtype)
    run(tmp_path / "b", dtype=dtype)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert (tmp_path / "a/trace.jsonl").read_bytes() == (tmp_path / "b/trace.jsonl").read_bytes()


def test_training_learns_which_ids_occur(tmp_path: Path) -> None:
    tell = run(tmp_path / "a", steps=60)
    assert tell.facts["final_loss"] < np.log(8) + 0.4 < np.log(64)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "a/steps.jsonl").read_text().splitlines()]
    assert len(losses) == 60 and losses[0] == pytest.approx(np.log(64), abs=0.05)


def test_one_global_batch_is_the_same_step_however_it_is_split() -> None:
    results = []
    for micro in (64, 32, 16):
        trainer = Trainer(CONFIG, settings(micro_batch_tokens=micro), first_weights())
        inputs, targets = batches(0)
        targets[0, :9] = -1  # micro-batches with different counts of valid targets
        results.append((trainer.step(0, (inputs, targets)), trainer.flat.master.clone()))
    for loss, master in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-6)
        # Muon divides by a norm: tiny differences of sums grow, by less than the step size times 1e-2
        assert float((master - results[0][1]).abs().max()) < 1e-3 * RATES["embedding"] + 1e-4


class Killed(BaseException):
    """Stands for a kill in the middle of training."""


@pytest.mark.parametrize("at", [3, 4, 9, 11])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bytes(tmp_path: Path, at: int) -> None:
    run(tmp_path / "whole")
    out = tmp_path / "stopped"
    out.mkdir()

    def failing(step: int) -> Batch:
        if step == at:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        train(CONFIG, settings(), first_weights, failing, out, Quiet())
    run(out)
    for name in ("model.safetensors", "steps.jsonl", "trace.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "checkpoints").exists()


def test_a_disk_that_fills_up_during_training_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFullError("no space left")

    monkeypatch.setattr("openhearth.train.checkpoint.save_checkpoint", full)
    tell = run(tmp_path / "a")
    assert any("goes on without this checkpoint" in note for note in tell.notes)
    monkeypatch.undo()
    run(tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_disk_too_full_for_the_results_stops_training_and_says_which_steps_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[int] = []

    def full_at(limit: int) -> None:
        def save(folder: Path, checkpoint: Checkpoint) -> None:
            if checkpoint.step >= limit:
                monkeypatch.setattr("openhearth.ledger.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
                raise DiskFullError("no space left")
            save_checkpoint(folder, checkpoint)

        monkeypatch.setattr("openhearth.train.checkpoint.save_checkpoint", save)

    def batches_seen(step: int) -> Batch:
        stepped.append(step)
        return batches(step)

    full_at(8)
    with pytest.raises(
        DiskFullError,
        match=r"4 of 12 steps are kept, later ones are lost; free 5[\d,]{9} bytes, .* the same command again to go on from step 4",
    ):
        train(CONFIG, settings(), first_weights, batches_seen, tmp_path, Quiet())
    assert stepped[-1] in (8, 9)  # the error of a save in the background is heard at the next step
    monkeypatch.undo()
    tell = run(tmp_path)
    assert tell.notes == ["going on from step 4 of 12"]
    run(tmp_path / "whole")
    assert weights(tmp_path) == weights(tmp_path / "whole")


def test_the_room_that_the_results_are_said_to_need_is_enough(tmp_path: Path) -> None:
    run(tmp_path)
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert used <= results_space(CONFIG, settings()) < 4 * CONFIG.parameters + 1_000_000


def test_results_that_cannot_be_written_are_not_said_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFullError("no space left (nothing is lost)")

    monkeypatch.setattr("openhearth.train.trainer.save_model", full)
    with pytest.raises(DiskFullError, match="8 of 12 steps are kept, later ones are lost"):
        run(tmp_path)


def test_without_a_whole_checkpoint_training_says_that_it_begins_again(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/step-00000004").mkdir(parents=True)
    (note,) = run(tmp_path).notes
    assert note.endswith("no checkpoint is whole: beginning again")


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(HearthError, match=r"stopped at step 4 .4 bad steps in a row, after going back 3 times.: the loss is nan"):
        train(CONFIG, settings(), lambda: {name: t * float("nan") for name, t in first_weights().items()}, batches, tmp_path, Quiet())


def test_saved_weights_are_the_master_weights(tmp_path: Path) -> None:
    run(tmp_path, steps=1, dtype="bfloat16")
    trainer = Trainer(CONFIG, settings(steps=1, dtype="bfloat16"), first_weights())
    trainer.step(0, batches(0))
    for name, tensor in load_tensors(tmp_path, CONFIG).items():
        assert torch.equal(tensor, trainer.flat.tensors()[name])


def test_every_parameter_belongs_to_exactly_one_group() -> None:
    flat = FlatParameters(Transformer(CONFIG), torch.float32)
    named = [name for span in flat.spans for name in span.names]
    assert sorted(named) == sorted(tensor_shapes(CONFIG))
    assert [span.start for span in flat.spans[1:]] == [span.end for span in flat.spans[:-1]]
    with pytest.raises(KeyError):
        group_of("model.surprise", (3, 3))


def test_adamw_equals_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    flat = FlatParameters(Transformer(CONFIG), torch.float32)
    flat.load(first_weights())
    ours = Optimizer(flat, "adamw", weight_decay=0.1)
    theirs = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in flat.tensors().items()}
    groups = [
        {
            "params": [p],
            "lr": RATES[(g := group_of(n, tuple(p.shape)))],
            "betas": (0.9 if g == "matrix" else 0.8, 0.95),
            "weight_decay": 0.1 if g == "matrix" else 0.0,
        }
        for n, p in theirs.items()
    ]
    reference = torch.optim.AdamW(groups, eps=1e-10)
    for number in range(1, 4):
        gradient = torch.randn_like(flat.master)
        for name, parameter in theirs.items():
            start, end, shape = flat.places[name]
            parameter.grad = gradient[start:end].view(shape).clone()
        reference.step()
        ours.step(gradient, RATES, 0.9, number)
    for name, tensor in flat.tensors().items():
        assert torch.allclose(tensor, theirs[name], atol=1e-6), name


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 96, 32), (2, 32, 96)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spectrum = torch.logspace(0, -2, left.shape[-1])  # condition number 100; the polynomials are made for up to 1000
    update = orthogonalise(left * spectrum @ right, torch.float32)
    values = torch.linalg.svdvals(update)
    assert float(values.min()) > 0.7 and float(values.max()) < 1.3
    assert torch.allclose(left.mT @ update @ right.mT, torch.diag_embed((left.mT @ update @ right.mT).diagonal(dim1=1, dim2=2)), atol=1e-4)


def test_schedules_are_fractions_of_the_run() -> None:
    schedule = Schedule(warmup=0.1, cooldown=0.5, final=0.1)
    for steps in (20, 2000):
        rates = [schedule.rate(step, steps) for step in range(steps)]
        assert max(rates) == 1.0 and rates[0] < 0.3 and rates[-1] == pytest.approx(0.1, abs=0.05)
        assert rates[steps * 3 // 10] == 1.0
        assert schedule.muon_momentum(0, steps) < 0.9 and schedule.muon_momentum(steps - 1, steps) == pytest.approx(0.95)
