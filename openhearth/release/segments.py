"""Training in pieces: from one released state of pretraining to the next, with nothing but the record.

A state is all that the next step depends on: the flat buffers (weights, moments) and what the guard has seen. It has a digest, so that
two makings of it are compared by 32 bytes; the digests of all states are the leaves of a Merkle tree (RFC 6962) with one root.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openhearth import runner
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Artifact, Json, canonical_json, digest_bytes, digest_json, read_json, write_atomic
from openhearth.model.hf import save_model
from openhearth.recipe import Recipe
from openhearth.release import layout
from openhearth.release.weights import read_tensors
from openhearth.stage import Stage
from openhearth.train.guard import fault
from openhearth.train.history import History
from openhearth.train.pretrain import Course, Pretrain
from openhearth.train.trainer import Trainer

Progress = Callable[[int, int], None]
"""Told after each step: steps done of steps to do."""


@dataclass(frozen=True)
class State:
    """What training is after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    """The flat buffers by name, fp32."""
    history: Json
    """Losses, norms and skipped steps so far."""

    def digest(self) -> str:
        """sha256 over step, history, and name, length and bytes of every buffer."""
        buffers = {name: [tensor.numel(), digest_bytes(tensor.numpy().tobytes())] for name, tensor in sorted(self.tensors.items())}
        return digest_json([self.step, buffers, self.history])

    def save(self, folder: Path) -> tuple[str, str]:
        """Write it into a folder; gives the names of its two files."""
        names = f"step-{self.step:08d}.safetensors", f"step-{self.step:08d}.json"
        write_atomic(folder / names[0], _safetensors(self.tensors))
        write_atomic(folder / names[1], json.dumps({"step": self.step, "history": self.history}, allow_nan=False).encode())
        return names


def read_state(folder: Path, leaf: Json) -> State:
    """The state that a leaf of the tree names, as its files hold it; raises DamagedError for files that are none."""
    values = read_json(folder / leaf["values"])
    if not isinstance(values, dict) or values.get("step") != leaf["step"] or not isinstance(values.get("history"), dict):
        raise DamagedError(f"{leaf['values']}: not the values of a state after {leaf['step']} steps")
    tensors = {name: torch.from_numpy(np.array(tensor)) for name, tensor in read_tensors(folder / leaf["tensors"], leaf["tensors"])}
    return State(values["step"], tensors, values["history"])


def _safetensors(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata={"format": "pt"}))


# -- the tree ---------------------------------------------------------------------------------------------------------------


def leaf_hash(number: int, step: int, digest: str) -> bytes:
    """RFC 6962, section 2.1: a leaf is hashed behind a zero byte; this one says which state it is, and after how many steps."""
    return hashlib.sha256(b"\x00" + canonical_json([number, step, digest])).digest()


def merkle_root(leaves: Sequence[bytes]) -> str:
    """The root of the tree over leaf hashes, RFC 6962, section 2.1."""
    if len(leaves) == 1:
        return leaves[0].hex()
    if not leaves:
        return hashlib.sha256(b"").hexdigest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + bytes.fromhex(merkle_root(leaves[:half])) + bytes.fromhex(merkle_root(leaves[half:]))).hexdigest()


# -- training ---------------------------------------------------------------------------------------------------------------


class Replay:
    """A release's training, ready to be run in pieces inside a folder. Its text must be in the release."""

    def __init__(self, release: Path, place: Path) -> None:
        from openhearth.release.rebuild import has_text, lay_corpus

        if not has_text(release):
            raise HearthError(f"{release}: does not hold its text, and without it no segment can be trained again")
        self.release, self.place = release, place
        recipe, plan = Recipe.load(release / layout.RECIPE), read_json(release / layout.PLAN)
        self.made = dict(
            runner.run(recipe, place / "run", until="plan", plan=plan, given={"corpus": lay_corpus(release, place / "corpus")}).made
        )
        self.stages: dict[str, Stage] = dict(recipe.resolved(plan).stages)
        pretrain = self.stages["pretrain"]
        assert isinstance(pretrain, Pretrain)
        self.course: Course = pretrain.course(self.made)

    @property
    def steps(self) -> int:
        """Of pretraining."""
        return self.course.settings.steps

    def start(self) -> tuple[Trainer, History]:
        """The first weights, which follow from the seed."""
        return Trainer(self.course.config, self.course.settings, self.course.initial()), History()

    def restored(self, state: State) -> tuple[Trainer, History]:
        """Training as it stood at a state; raises DamagedError when the state is none of this model."""
        trainer, history = self.start()
        shapes = {name: tensor.numel() for name, tensor in trainer.checkpoint_tensors().items()}
        if {name: tensor.numel() for name, tensor in state.tensors.items()} != shapes:
            raise DamagedError(f"the state after {state.step:,} steps does not have the buffers of this model")
        trainer.restore(state.tensors)
        try:
            history = History(**state.history, seconds=[0.0] * state.step)
        except TypeError:
            raise DamagedError(f"the state after {state.step:,} steps has no history that training knows") from None
        return trainer, history

    def advance(self, trainer: Trainer, history: History, until: int, tell: Progress = lambda done, total: None) -> None:
        """Take steps until `until` were taken, deciding about each as training does. Changes `trainer` and `history`."""
        first, guard = history.steps, self.course.settings.guard
        while history.steps < until:
            number = history.steps
            loss, norm = trainer.gradient(self.course.batches(history.next_batch))
            reason = fault(history, loss, norm, guard)
            if reason is None:
                trainer.update(number, history.updates)
            else:
                trainer.discard()
            history.add(loss, norm, 0.0, reason)
            if reason is not None and history.bad_in_a_row >= guard.patience:
                raise HearthError(f"training went back from step {history.steps:,}; such a run is made again whole: hearth rebuild")
            tell(history.steps - first, until - first)

    def state(self, trainer: Trainer, history: History) -> State:
        """The state that training is in now."""
        kept = ("losses", "gradient_norms", "skipped", "events")
        return State(history.steps, trainer.checkpoint_tensors(), {name: list(getattr(history, name)) for name in kept})

    def tuned(self, trainer: Trainer) -> dict[str, str]:
        """The digests of the tensors after fine-tuning from these pretrained weights."""
        folder = self.place / "pretrained"
        folder.mkdir(exist_ok=True)
        save_model({name: tensor.clone() for name, tensor in trainer.flat.tensors().items()}, self.course.config, folder)
        out = self.place / "sft"
        out.mkdir()
        self.stages["sft"].run({**self.made, "pretrain": Artifact(folder, "pretrain", "", "", {}, {})}, out, _Silent())
        return {name: digest_bytes(tensor.tobytes()) for name, tensor in read_tensors(out / "model.safetensors", "model.safetensors")}


class _Silent:
    """A Tell that nobody listens to."""

    def progress(self, done: float, total: float, **figures: float | str) -> None: ...

    def note(self, text: str) -> None: ...

    def record(self, **facts: Any) -> None: ...

    def measure(self, **figures: Any) -> None: ...


def recorded_end(release: Path, kind: str) -> dict[str, str]:
    """The digests of the tensors after the last step of a stage, as the release records them; {} when it took no step."""
    lines = (release / f"training/{kind}/trace.jsonl").read_bytes().splitlines()
    return dict(json.loads(lines[-1])["tensors"]) if lines else {}
