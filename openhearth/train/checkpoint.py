"""Checkpoints that survive a kill at any moment: written aside, flushed, digested, renamed, and verified when read.

A checkpoint is a folder `step-00000123`:

    state.safetensors   the flat buffers, fp32
    state.json          what the run has seen (`history.History`), and the seconds it took
    MANIFEST.json       size and sha256 of both; step, tokens, next batch, settings, environment; and its own sha256

It is written as `step-00000123.tmp-<uuid>`, each file flushed to the disk and digested as it is written, then the folder flushed, renamed,
its parent flushed and the manifest read again; only then are older ones removed. The latest is found by verifying, newest first, never by
a pointer: a damaged one is named and the one before it is used. No pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from openhearth.errors import DamagedError, DiskFullError, HearthError
from openhearth.ledger import Json, digest_file, digest_json, read_json, require_space, sync_folder

FORMAT = "openhearth-checkpoint/2"
STATE, VALUES, MANIFEST = "state.safetensors", "state.json", "MANIFEST.json"

KEEP = 2
"""The newest ones, which are kept beside the permanent ones."""

CHUNK = 1 << 22
"""Bytes that are written and digested at once."""


@dataclass(frozen=True)
class Checkpoint:
    """What training needs to go on after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    """The flat buffers by name, fp32."""
    values: Json
    """The contents of state.json."""
    about: Json = field(default_factory=dict)
    """What else the manifest says: tokens, next batch, settings, environment."""
    rewind_to: int = 0
    """The step of the checkpoint that a rewind from here goes back to; its own when it may be rewound to; 0 for the first weights."""
    permanent: bool = False
    """Whether it is kept for good."""


def place(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step-{step:08d}"


# -- writing ----------------------------------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` below `folder`; raises DiskFullError or DamagedError, leaving the earlier ones as they were."""
    final = place(folder, checkpoint.step)
    aside = final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex}")
    try:
        folder.mkdir(exist_ok=True)
        needed = 2 * sum(4 * tensor.numel() for tensor in checkpoint.tensors.values())
        require_space(folder, needed, f"the checkpoint after step {checkpoint.step:,}")
        aside.mkdir()
        files = {
            STATE: _write(aside / STATE, _safetensors(checkpoint.tensors)),
            VALUES: _write(aside / VALUES, [json.dumps(checkpoint.values, allow_nan=False).encode()]),
        }
        said = {"format": FORMAT, "step": checkpoint.step, "rewind_to": checkpoint.rewind_to, "permanent": checkpoint.permanent}
        manifest = {**said, **checkpoint.about, "files": files}
        _write(aside / MANIFEST, [(json.dumps({**manifest, "sha256": digest_json(manifest)}, indent=2) + "\n").encode()])
        sync_folder(aside)
        if final.exists():
            final.rename(final.with_name(f"{final.name}.tmp-{uuid.uuid4().hex}"))
        aside.replace(final)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise DiskFullError(
            f"{final}: the checkpoint could not be written ({os.strerror(error.errno or 0)}); those before it are intact"
        ) from error
    written = read_manifest(final)
    for name, listed in written["files"].items():
        if (final / name).stat().st_size != listed["bytes"]:
            raise DamagedError(f"{final / name}: not as long as what was written; those before it are intact")
    rotate(folder)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> Json:
    """Write a file so that it is on the disk; gives its size and digest for the manifest."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _safetensors(tensors: dict[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, in pieces of the tensors' own memory: nothing as large as a tensor is copied."""
    header: Json = {}
    at = 0
    for name, tensor in sorted(tensors.items()):
        assert tensor.dtype == torch.float32 and tensor.is_contiguous(), name
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + 4 * tensor.numel()]}
        at += 4 * tensor.numel()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in sorted(tensors.items()):
        content = tensor.numpy().reshape(-1).data.cast("B")
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]


def rotate(folder: Path) -> None:
    """Remove all but the newest `KEEP`, those that they would rewind to, and the permanent ones."""
    kept = set(permanent_checkpoints(folder))
    newest = 0
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            manifest = read_manifest(path)
        except DamagedError:
            continue
        kept |= {path, place(folder, manifest["rewind_to"])}
        newest += 1
        if newest == KEEP:
            break
    for path in folder.glob("step-*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def permanent_checkpoints(folder: Path) -> list[Path]:
    """Those that are kept for good."""
    found = []
    for path in sorted(folder.glob("step-????????")):
        with suppress(DamagedError):
            if read_manifest(path)["permanent"]:
                found.append(path)
    return found


def forget_after(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step` steps: what they hold was taken back."""
    for path in folder.glob("step-????????"):
        if path > place(folder, step):
            shutil.rmtree(path, ignore_errors=True)


class Saver:
    """Saves in the background. What is saved is copied first, so that training may go on changing the buffers; the copy stays, to be
    rewound to. One save at a time; how it ended is asked for with `ended`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copied: Checkpoint | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def begin(self, checkpoint: Checkpoint) -> None:
        """Copy `checkpoint` and begin to save it; call `ended(wait=True)` before, when one is under way."""
        assert self._pending is None, "one at a time"
        if self.copied is None:
            copies = {name: tensor.clone() for name, tensor in checkpoint.tensors.items()}
        else:
            copies = self.copied.tensors
            for name, tensor in checkpoint.tensors.items():
                copies[name].copy_(tensor)
        self.copied = replace(checkpoint, tensors=copies)
        self._pending = self._thread.submit(save_checkpoint, self.folder, self.copied)

    def ended(self, *, wait: bool = False) -> tuple[int, HearthError | None] | None:
        """The step of a save that ended since this was last asked, and its error (None: it is on the disk); None when there is no news."""
        if self._pending is None or self.copied is None or not (wait or self._pending.done()):
            return None
        pending, self._pending = self._pending, None
        error = pending.exception()
        if error is not None and not isinstance(error, HearthError):
            raise error
        return self.copied.step, error

    def close(self) -> None:
        """Wait for the save that is under way."""
        self._thread.shutdown(wait=True)


# -- reading ----------------------------------------------------------------------------------------------------------------


def read_manifest(path: Path) -> Json:
    """The manifest of the checkpoint in `path`; raises DamagedError unless it is whole and of this format."""
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise DamagedError(f"{path}: damaged, or written by an earlier version of openhearth, whose checkpoints are not read")
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    if manifest.get("sha256") != digest_json(content):
        raise DamagedError(f"{path / MANIFEST}: damaged (its sha256 is not the one that it states)")
    if manifest["format"] != FORMAT:
        raise DamagedError(f"{path}: of the format {manifest['format']}; this version of openhearth reads {FORMAT}")
    return manifest


def verify_checkpoint(path: Path) -> Json:
    """The manifest of the checkpoint in `path`, when every byte of it is the one that was written; else raises DamagedError."""
    manifest = read_manifest(path)
    for name, listed in manifest["files"].items():
        file = path / name
        try:
            size, digest = file.stat().st_size, digest_file(file)
        except OSError as error:
            raise DamagedError(f"{file}: not readable ({os.strerror(error.errno or 0)})") from None
        if (size, digest) != (listed["bytes"], listed["sha256"]):
            raise DamagedError(f"{file}: damaged (its sha256 is not the one in {MANIFEST})")
    return manifest


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, every byte verified and every number finite; raises DamagedError naming the file."""
    manifest = verify_checkpoint(path)
    try:
        tensors = load_file(path / STATE)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"{path / STATE}: not readable as safetensors ({error})") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise DamagedError(f"{path / STATE}: {name} holds a value that is not finite")
    own = ("format", "step", "rewind_to", "permanent", "files", "sha256")
    about = {name: value for name, value in manifest.items() if name not in own}
    return Checkpoint(manifest["step"], tensors, read_json(path / VALUES), about, manifest["rewind_to"], manifest["permanent"])


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that verifies, as does the one that it would rewind to (None: start from the beginning), and a line for each
    one passed over. What a kill left half written is removed."""
    passed_over: list[str] = []
    for aside in folder.glob("step-*.tmp*"):
        shutil.rmtree(aside, ignore_errors=True)
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            found = read_checkpoint(path)
            if found.rewind_to not in (0, found.step):
                verify_checkpoint(place(folder, found.rewind_to))
            return found, passed_over
        except DamagedError as error:
            passed_over.append(str(error))
    return None, passed_over
