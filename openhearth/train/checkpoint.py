"""Checkpoints that survive a kill at any moment: written aside, flushed, digested, renamed, and verified when read.

A checkpoint is a folder `step-000123` with `state.safetensors` (flat buffers), `state.json` and `MANIFEST.json`. The latest is
found by verifying, newest first, never by a pointer: a damaged one is named and the one before it is used. Two are kept.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from openhearth.errors import DamagedError, DiskFullError
from openhearth.ledger import Json, digest_bytes, digest_file, read_json, sync_folder, write_atomic, write_json

KEEP = 2


@dataclass
class Checkpoint:
    """What training needs to go on: the flat buffers by name, and plain values (step, seconds, losses)."""

    tensors: dict[str, Tensor]
    values: Json


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write `folder/step-NNNNNN`; raises DiskFullError, leaving the earlier checkpoints as they were."""
    folder.mkdir(exist_ok=True)
    final = folder / f"step-{step:08d}"
    aside = folder / f"{final.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        weights = save(checkpoint.tensors)
        write_atomic(aside / "state.safetensors", weights)
        write_json(aside / "state.json", checkpoint.values)
        listed = {"state.safetensors": digest_bytes(weights), "state.json": digest_file(aside / "state.json")}
        write_json(aside / "MANIFEST.json", listed)
        shutil.rmtree(final, ignore_errors=True)
        aside.replace(final)
        sync_folder(folder)
    except (OSError, DiskFullError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, DiskFullError):
            raise
        raise DiskFullError(f"{final}: the checkpoint could not be written ({error.strerror}); the one before it is intact") from error
    for old in sorted(folder.glob("step-????????"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, every byte verified; raises DamagedError naming the file."""
    listed = read_json(path / "MANIFEST.json")
    for name in ("state.safetensors", "state.json"):
        file = path / name
        if not file.is_file():
            raise DamagedError(f"{file}: missing")
        if not isinstance(listed, dict) or digest_file(file) != listed.get(name):
            raise DamagedError(f"{file}: damaged (its sha256 is not the one in MANIFEST.json)")
    return Checkpoint(load_file(path / "state.safetensors"), read_json(path / "state.json"))


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies (None: start from the beginning), and a line for each damaged one passed over."""
    passed_over: list[str] = []
    for aside in folder.glob("step-*.tmp"):
        shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            return read_checkpoint(path), passed_over
        except DamagedError as error:
            passed_over.append(str(error))
    return None, passed_over
