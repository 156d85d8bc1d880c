"""A model of ten thousand parameters, its batches, and a `Tell` that listens: training in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openhearth.model.config import ModelConfig
from openhearth.model.hf import tensor_shapes
from openhearth.model.init import initial_tensor
from openhearth.train.loop import Batch, train
from openhearth.train.settings import Settings

CONFIG = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=16, max_position_embeddings=32
)
RATES = {"matrix": 0.02, "embedding": 0.1, "head": 0.005, "gain": 0.01}


def settings(**changes: Any) -> Settings:
    return Settings(
        **{"sequence_length": 16, "batch_tokens": 64, "micro_batch_tokens": 64, "steps": 12, "learning_rate": RATES, "checkpoint_steps": 4}
        | changes
    )


def first_weights() -> Mapping[str, torch.Tensor]:
    return {name: initial_tensor(name, shape, CONFIG, 1) for name, shape in tensor_shapes(CONFIG).items()}


def batches(step: int) -> Batch:
    ids = np.random.default_rng(step).integers(0, 8, (4, 17))  # eight of 64 ids: there is something to learn
    return ids[:, :-1].copy(), ids[:, 1:].copy()


class Quiet:
    """A `Tell` that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}

    def progress(self, done: float, total: float, **figures: float | str) -> None:
        assert 0 <= done <= total

    def note(self, text: str) -> None:
        self.notes.append(text)

    def record(self, **facts: Any) -> None:
        self.facts |= facts

    def measure(self, **figures: Any) -> None:
        self.measured |= figures


def run(out: Path, reads: Callable[[int], Batch] = batches, **changes: Any) -> Quiet:
    """Train in `out`; `changes` are settings."""
    out.mkdir(exist_ok=True)
    tell = Quiet()
    train(CONFIG, settings(**changes), first_weights, reads, out, tell)
    return tell


def same_results(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files with the same bytes, measurements left out."""
    there = [{path.relative_to(out) for path in out.rglob("*") if path.is_file() and "telemetry" not in path.parts} for out in (a, b)]
    return there[0] == there[1] and all((a / name).read_bytes() == (b / name).read_bytes() for name in there[0])


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
