"""What training leaves when it is done, and how much room that takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from openhearth.ledger import TELEMETRY, Json, write_atomic
from openhearth.model.config import ModelConfig
from openhearth.model.hf import tensor_shapes
from openhearth.train.checkpoint import permanent_checkpoints
from openhearth.train.history import History
from openhearth.train.settings import Settings
from openhearth.train.trainer import Trainer

TRACES = 16
"""How often over a run the digest of every tensor is noted, so that a rebuild can say where it first differs."""

STEP_BYTES, TRACE_BYTES = 300, 120
"""Of the results, for each step and for each tensor that is traced: generous."""


def training_space(config: ModelConfig) -> int:
    """Bytes of disk that training asks for at its start: checkpoints with room to spare, and the results."""
    return 6 * 12 * config.parameters + 50_000_000


def results_space(config: ModelConfig, settings: Settings) -> int:
    """Bytes of disk that the results take at most."""
    traced = (TRACES + 2) * TRACE_BYTES * len(tensor_shapes(config))
    return 4 * config.parameters + STEP_BYTES * settings.steps + traced + 100_000


def write_results(out: Path, trainer: Trainer, history: History) -> None:
    """`model.safetensors`, `config.json`, `steps.jsonl`, `trace.jsonl`, and `guard.jsonl` when a step was skipped; what this machine
    measured, computed wrongly or was asked to keep lies apart, in `telemetry/`. Raises DiskFullError."""
    trainer.save(out)
    settings = trainer.settings
    size, skipped = settings.batch_tokens, set(history.skipped)
    rows: list[Json] = [
        {"step": number + 1, "tokens": (number + 1) * size, "loss": loss, "gradient_norm": norm}
        | ({"skipped": True} if number in skipped else {})
        for number, (loss, norm) in enumerate(zip(history.losses, history.gradient_norms, strict=True))
    ]
    write_lines(out / "steps.jsonl", rows)
    write_lines(out / "trace.jsonl", history.traces)
    if history.events:
        write_lines(out / "guard.jsonl", history.events)
    telemetry = out / TELEMETRY
    telemetry.mkdir(exist_ok=True)
    times: list[Json] = [
        {"step": row["step"], "tokens": row["tokens"], "seconds": seconds, "tokens_per_second": size / max(seconds, 1e-9)}
        for row, seconds in zip(rows, history.seconds, strict=True)
    ]
    write_lines(telemetry / "steps.jsonl", times)
    if history.faults:
        write_lines(telemetry / "faults.jsonl", history.faults)
    _settle_checkpoints(out / "checkpoints", telemetry / "checkpoints")


def _settle_checkpoints(folder: Path, kept: Path) -> None:
    """Move the permanent checkpoints to where they stay (they hold times, so no digest may cover them) and remove the others."""
    for path in permanent_checkpoints(folder):
        kept.mkdir(exist_ok=True)
        shutil.rmtree(kept / path.name, ignore_errors=True)  # of an attempt that was killed right here
        path.replace(kept / path.name)
    shutil.rmtree(folder, ignore_errors=True)


def write_lines(path: Path, rows: list[Json]) -> None:
    """JSON lines, atomically."""
    write_atomic(path, b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows))
