"""The contract of a checkpoint: whole or not there, verified when read, and never the only one that is at risk."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from openhearth.errors import DamagedError, DiskFullError, HearthError
from openhearth.ledger import digest_json
from openhearth.train import checkpoint as module
from openhearth.train.checkpoint import Checkpoint, Saver, latest_checkpoint, place, read_checkpoint, read_manifest, save_checkpoint
from tests.train.tiny import run


def made(step: int, **more: Any) -> Checkpoint:
    return Checkpoint(
        step, {"master": torch.full((40,), float(step)), "first_moment": torch.arange(40.0)}, {"step": step}, **{"rewind_to": step} | more
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def latest_step(folder: Path) -> int | None:
    found, _ = latest_checkpoint(folder)
    if found is not None:
        assert found.values == {"step": found.step} and float(found.tensors["master"][0]) == found.step  # never a mix of two
    return found.step if found is not None else None


# -- writing ----------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_safetensors_and_json_with_a_manifest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(7, about={"tokens": 448, "next_batch": 9}))
    folder = place(tmp_path, 7)
    assert names(folder) == ["MANIFEST.json", "state.json", "state.safetensors"]
    tensors = load_file(folder / "state.safetensors")
    assert torch.equal(tensors["master"], torch.full((40,), 7.0)) and torch.equal(tensors["first_moment"], torch.arange(40.0))
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    assert (manifest["step"], manifest["tokens"], manifest["next_batch"], manifest["rewind_to"]) == (7, 448, 9, 7)
    assert manifest["files"]["state.safetensors"]["bytes"] == (folder / "state.safetensors").stat().st_size


def test_the_manifest_of_a_run_says_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openhearth.train.results._settle_checkpoints", lambda *_: None)
    run(tmp_path)
    manifest = read_manifest(place(tmp_path / "checkpoints", 8))
    assert (manifest["step"], manifest["tokens"], manifest["next_batch"], manifest["world_size"]) == (8, 512, 8, 1)
    assert manifest["environment"]["torch"] == torch.__version__ and manifest["config_sha256"] == digest_json(manifest["config"])
    assert manifest["config"]["model"]["hidden_size"] == 32 and manifest["config"]["settings"]["steps"] == 12


class Crashed(BaseException):
    """Stands for the end of the process at a call to the system."""


@pytest.mark.parametrize("fault", ["crash", "full"])
def test_whatever_call_a_save_ends_in_the_checkpoint_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    counted, at = 0, 0

    def save(step: int) -> None:
        with monkeypatch.context() as patched:
            nonlocal counted
            counted = 0
            for owner, name in ((os, "fsync"), (os, "open"), (Path, "open"), (Path, "mkdir"), (Path, "replace"), (module, "rotate")):
                real = getattr(owner, name)

                def call(*arguments: Any, real: Any = real, **more: Any) -> Any:
                    nonlocal counted
                    if "rb" in (*arguments, more.get("mode")) and fault == "full":  # reading needs no room
                        return real(*arguments, **more)
                    counted += 1
                    if counted == at:
                        raise Crashed if fault == "crash" else OSError(errno.ENOSPC, "no space left")
                    return real(*arguments, **more)

                patched.setattr(owner, name, call)
            save_checkpoint(tmp_path, made(step))

    for step in (1, 2):
        save(step)
    calls = counted
    assert calls >= 12
    for number in range(1, calls + 1):
        at = number
        with suppress(Crashed, HearthError, OSError):  # a disk that fills up after the rename costs nothing
            save(3)
        at = 0
        assert latest_step(tmp_path) in (2, 3)
        assert [name for name in names(tmp_path) if "tmp" in name] == []
        read_checkpoint(place(tmp_path, 2))
        shutil.rmtree(place(tmp_path, 3), ignore_errors=True)


def test_a_step_that_is_saved_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1, rewind_to=0))
    save_checkpoint(tmp_path, made(1))
    assert names(tmp_path) == ["step-00000001"] and read_checkpoint(place(tmp_path, 1)).rewind_to == 1


def test_a_disk_with_less_than_twice_the_room_is_refused_with_the_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, made(1))
    monkeypatch.setattr("openhearth.ledger.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 600))
    with pytest.raises(DiskFullError, match="the checkpoint after step 2 needs 0 MB"):
        save_checkpoint(tmp_path, made(2))
    assert names(tmp_path) == ["step-00000001"]


# -- what is kept -----------------------------------------------------------------------------------------------------------


def test_two_are_kept_beside_the_permanent_ones_and_half_written_ones_removed(tmp_path: Path) -> None:
    (tmp_path / "step-00000009.tmp-abc").mkdir()
    (tmp_path / "step-00000008.tmp").mkdir()  # of an earlier version
    for step in range(1, 7):
        save_checkpoint(tmp_path, made(step, permanent=step in (2, 3)))
    latest_checkpoint(tmp_path)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (2, 3, 5, 6)]


def test_the_one_that_a_rewind_needs_is_kept_and_verified(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(4))
    for step in (5, 6, 7):
        save_checkpoint(tmp_path, made(step, rewind_to=4))
    assert names(tmp_path) == [f"step-{step:08d}" for step in (4, 6, 7)]
    (place(tmp_path, 4) / "state.json").write_text("{}")
    found, passed_over = latest_checkpoint(tmp_path)
    assert found is None and len(passed_over) == 3


def test_one_that_is_damaged_does_not_count_among_the_two(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, made(step))
        if step == 2:
            (place(tmp_path, 2) / "MANIFEST.json").write_text("{}")
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_permanent_checkpoints_stay_beside_the_results_without_changing_their_digest(tmp_path: Path) -> None:
    for name, permanent in (("a", 0), ("b", 5)):
        run(tmp_path / name, checkpoint_steps=4, permanent_steps=permanent)
    kept = tmp_path / "b/telemetry/checkpoints"
    assert names(kept) == ["step-00000005", "step-00000010"] and read_checkpoint(kept / "step-00000005").step == 5
    assert not (tmp_path / "a/telemetry/checkpoints").exists()
    for name in ("model.safetensors", "steps.jsonl", "trace.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert not (tmp_path / "b/checkpoints").exists()


# -- damaged ----------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_and_the_checkpoint_before_it_is_used(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step, about={"tokens": 64 * step, "config": {"a": [1, 2.5, "x"]}}))
    chance = random.Random(0)
    for file in ("state.safetensors", "state.json", "MANIFEST.json"):
        path = place(tmp_path, 2) / file
        whole = path.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            try:
                same = json.loads(data) == json.loads(whole) if file == "MANIFEST.json" else False
            except ValueError:
                same = False
            found, passed_over = latest_checkpoint(tmp_path)
            assert same or (found is not None and found.step == 1 and len(passed_over) == 1 and "step-00000002" in passed_over[0])
        path.write_bytes(whole)
    assert latest_step(tmp_path) == 2


def test_a_file_cut_off_anywhere_is_found(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step))
    for file in ("state.safetensors", "state.json", "MANIFEST.json"):
        path = place(tmp_path, 2) / file
        whole = path.read_bytes()
        for length in random.Random(0).sample(range(len(whole) - 1), min(20, len(whole) - 1)):
            path.write_bytes(whole[:length])
            assert latest_step(tmp_path) == 1
        path.write_bytes(whole)


def test_files_of_two_checkpoints_are_never_mixed(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step))
    shutil.copy(place(tmp_path, 1) / "state.safetensors", place(tmp_path, 2) / "state.safetensors")
    assert latest_step(tmp_path) == 1
    place(tmp_path, 1).joinpath("state.json").unlink()
    assert latest_step(tmp_path) is None


def test_numbers_that_are_not_finite_are_not_gone_on_from(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(1))
    save_checkpoint(tmp_path, Checkpoint(2, {"master": torch.tensor([1.0, float("nan")])}, {"step": 2}, rewind_to=2))
    found, passed_over = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    assert passed_over == [f"{place(tmp_path, 2)}/state.safetensors: master holds a value that is not finite"]


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ({"state.safetensors": "00", "state.json": "00"}, "written by an earlier version"),
        ({"format": "openhearth-checkpoint/3", "sha256": digest_json({"format": "openhearth-checkpoint/3"})}, "checkpoint/3; this version"),
    ],
)
def test_a_checkpoint_of_another_version_is_named_and_training_begins_again(tmp_path: Path, manifest: dict[str, str], said: str) -> None:
    old = tmp_path / "checkpoints/step-00000004"
    old.mkdir(parents=True)
    (old / "MANIFEST.json").write_text(json.dumps(manifest))
    (note,) = run(tmp_path).notes
    assert said in note and note.endswith("no checkpoint is whole: beginning again")


# -- in the background ------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_the_buffers_held_when_the_save_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, real = threading.Event(), module.save_checkpoint

    def late(folder: Path, checkpoint: Checkpoint) -> None:
        assert changed.wait(10)
        real(folder, checkpoint)

    monkeypatch.setattr(module, "save_checkpoint", late)
    saver, buffers = Saver(tmp_path), made(3)
    saver.begin(buffers)
    assert saver.ended() is None  # training is not held up
    buffers.tensors["master"].fill_(99.0)
    changed.set()
    assert saver.ended(wait=True) == (3, None) and saver.ended(wait=True) is None
    assert latest_step(tmp_path) == 3
    saver.begin(made(4))
    assert saver.ended(wait=True) == (4, None)
    saver.close()
    assert latest_step(tmp_path) == 4


def test_what_goes_wrong_in_the_background_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver = Saver(tmp_path / "gone" / "checkpoints")
    saver.begin(made(3))
    ended = saver.ended(wait=True)
    assert ended is not None and isinstance(ended[1], DiskFullError) and "(No such file or directory)" in str(ended[1])
    monkeypatch.setattr(module, "save_checkpoint", lambda *_: 1 / 0)
    saver.begin(made(4))
    with pytest.raises(ZeroDivisionError):
        saver.ended(wait=True)
    saver.close()


def test_a_manifest_that_is_not_what_was_written_keeps_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, made(step))
    real = Path.replace

    def torn(path: Path, target: Path) -> Path:
        (path / "MANIFEST.json").write_text("{}")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", torn)
    with pytest.raises(DamagedError):
        save_checkpoint(tmp_path, made(3))
    assert latest_step(tmp_path) == 2 and place(tmp_path, 1).exists()
