"""The one training loop, for pretraining and for fine-tuning: batches in, weights out, unkillable.

A run is a pure function of (settings, initial weights, batches): batch number `step` is asked for by its number, so that the
only state is what a checkpoint holds. Killed and started again, it goes on from the newest checkpoint that verifies and ends
with the same bits.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from openhearth.errors import DiskFullError, HearthError
from openhearth.ledger import TELEMETRY, Json, digest_bytes, require_space, write_atomic
from openhearth.model.config import ModelConfig
from openhearth.model.hf import save_model, tensor_shapes
from openhearth.model.transformer import Transformer
from openhearth.stage import Tell
from openhearth.train.checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from openhearth.train.flat import FlatParameters
from openhearth.train.machine import prepare
from openhearth.train.optim import Optimizer
from openhearth.train.settings import Settings

Batch = tuple[np.ndarray, np.ndarray]
"""Inputs and targets of one optimiser step, each (sequences, sequence_length) int64; a target of -1 is not counted."""

TRACES = 16
"""How often over a run the digest of every tensor is noted, so that a rebuild can say where it first differs."""


class Trainer:
    """A model, its flat weights and its optimiser, able to take one step."""

    def __init__(self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor]) -> None:
        prepare(settings.threads)
        self.settings = settings
        dtype = getattr(torch, settings.dtype)
        self.model = Transformer(config)
        self.flat = FlatParameters(self.model, dtype)
        self.flat.load(initial)
        self.model.cos, self.model.sin = self.model.cos.to(dtype), self.model.sin.to(dtype)
        self.optimizer = Optimizer(self.flat, settings.optimizer, weight_decay=settings.weight_decay, orthogonalise_in=dtype)
        self.accumulated = torch.zeros_like(self.flat.master)
        if settings.compile:
            for block in self.model.model.layers:
                block.compile(dynamic=False)

    def step(self, number: int, batch: Batch) -> float:
        """Optimiser step `number` (from 0); returns the loss of the batch before the update, nats per counted token."""
        inputs, targets = batch
        rows = max(1, self.settings.micro_batch_tokens // inputs.shape[1])
        scale = 1.0 / max(1, int((targets >= 0).sum()))
        losses: list[Tensor] = []
        several = len(inputs) > rows
        for start in range(0, len(inputs), rows):
            part = slice(start, start + rows)
            loss = self.model.loss(torch.from_numpy(inputs[part]), torch.from_numpy(targets[part]), scale)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            if several:  # sum micro-batches in fp32
                self.accumulated.add_(self.flat.grad)
                self.flat.grad.zero_()
        schedule, steps = self.settings.schedule, self.settings.steps
        factor = schedule.rate(number, steps)
        rates = {group: rate * factor for group, rate in self.settings.learning_rate.items()}
        gradient = self.accumulated if several else self.flat.grad
        self.optimizer.step(gradient, rates, schedule.muon_momentum(number, steps), number + 1)
        gradient.zero_()
        return float(torch.stack(losses).sum())

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """The flat buffers that a checkpoint keeps."""
        return {"master": self.flat.master, **self.optimizer.state}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the flat buffers from a checkpoint."""
        for name, buffer in self.checkpoint_tensors().items():
            buffer.copy_(tensors[name])
        self.flat.refresh()

    def tensor_digests(self) -> dict[str, str]:
        """sha256 of the fp32 bytes of every tensor."""
        return {name: digest_bytes(tensor.numpy().tobytes()) for name, tensor in sorted(self.flat.tensors().items())}


def train(
    config: ModelConfig,
    settings: Settings,
    initial: Callable[[], Mapping[str, Tensor]],
    batches: Callable[[int], Batch],
    out: Path,
    tell: Tell,
) -> None:
    """Train from `initial` for `settings.steps` steps and leave weights, losses and traces in `out`.

    Goes on from the checkpoints in `out` when there are any. Raises HearthError when the loss is no longer finite.
    """
    require_space(out, _training_bytes(config), "training (three checkpoints of weights and optimiser state)")
    trainer = Trainer(config, settings, initial())
    folder = out / "checkpoints"
    found, damaged = latest_checkpoint(folder)
    for line in damaged:
        tell.note(f"{line}; {'going on from a checkpoint before it' if found is not None else 'no checkpoint is whole: beginning again'}")
    losses: list[float] = []
    seconds: list[float] = []
    traces: list[Json] = []
    before = 0.0
    if found is not None:
        trainer.restore(found.tensors)
        losses, seconds, traces = found.values["losses"], found.values["seconds"], found.values["traces"]
        before = found.values["elapsed"]
        tell.note(f"going on from step {len(losses):,} of {settings.steps:,}")
    tell.measure(seconds_before=before)
    kept = len(losses)
    every = max(1, settings.steps // TRACES)
    began = time.monotonic()
    gc.collect()
    gc.freeze()
    for step in range(len(losses), settings.steps):
        started = time.monotonic()
        loss = trainer.step(step, batches(step))
        if not np.isfinite(loss):
            raise HearthError(f"the loss is {loss} at step {step + 1}: lower the learning rate (plan.learning_rate_scale) and run again")
        losses.append(loss)
        seconds.append(time.monotonic() - started)
        done = step + 1
        if done % every == 0 or done == settings.steps:
            traces.append({"step": done, "tensors": trainer.tensor_digests()})
        if done % settings.checkpoint_steps == 0 and done < settings.steps:
            elapsed = before + time.monotonic() - began
            values = {"losses": losses, "seconds": seconds, "traces": traces, "elapsed": elapsed}
            try:
                save_checkpoint(folder, done, Checkpoint(trainer.checkpoint_tensors(), values))
                kept = done
            except DiskFullError as error:
                _require_results(out, config, settings, kept)  # steps that can never be written are not worth taking
                tell.note(f"{error}; training goes on without this checkpoint")
        recent = seconds[-20:]
        tell.progress(
            done * settings.batch_tokens,
            settings.tokens,
            step=float(done),
            loss=float(np.mean(losses[-20:])),
            tokens_per_second=settings.batch_tokens * len(recent) / sum(recent),
        )
    gc.unfreeze()
    try:
        write_results(out, config, settings, trainer, losses, seconds, traces)
    except DiskFullError as error:
        raise _results_lost(out, config, settings, kept) from error
    tokens = settings.tokens
    tell.record(
        tokens=tokens,
        flops=tokens * config.flops_per_token(settings.sequence_length),
        steps=settings.steps,
        parameters=config.parameters,
        dtype=settings.dtype,
        final_loss=float(np.mean(losses[-20:])),
    )
    tell.measure(tokens_per_second=tokens / max(sum(seconds), 1e-9), step_seconds=float(np.median(seconds)))


STEP_BYTES, TRACE_BYTES = 300, 120
"""Of the results, for each step and for each tensor that is traced: generous."""


def _training_bytes(config: ModelConfig) -> int:
    return 6 * 12 * config.parameters + 50_000_000


def _results_bytes(config: ModelConfig, settings: Settings) -> int:
    traced = (TRACES + 2) * TRACE_BYTES * len(tensor_shapes(config))
    return 4 * config.parameters + STEP_BYTES * settings.steps + traced + 100_000


def _require_results(out: Path, config: ModelConfig, settings: Settings, kept: int) -> None:
    """Raise DiskFullError, saying what is lost, unless the results could be written now."""
    try:
        require_space(out, _results_bytes(config, settings), "the trained model")
    except DiskFullError as error:
        raise _results_lost(out, config, settings, kept) from error


def _results_lost(out: Path, config: ModelConfig, settings: Settings, kept: int) -> DiskFullError:
    return DiskFullError(
        f"{out}: no space left on the disk: {kept:,} of {settings.steps:,} steps are kept, later ones are lost;"
        f" free {_training_bytes(config):,} bytes, which training asks for, and type the same command again to go on from step {kept:,}"
    )


def write_results(
    out: Path, config: ModelConfig, settings: Settings, trainer: Trainer, losses: list[float], seconds: list[float], traces: list[Json]
) -> None:
    """`model.safetensors`, `config.json`, `steps.jsonl`, `trace.jsonl`; measured times apart, in `telemetry/`."""
    save_model(trainer.flat.tensors(), config, out)
    tokens = [(step + 1) * settings.batch_tokens for step in range(len(losses))]
    write_lines(out / "steps.jsonl", [{"step": i + 1, "tokens": tokens[i], "loss": loss} for i, loss in enumerate(losses)])
    write_lines(out / "trace.jsonl", traces)
    (out / TELEMETRY).mkdir(exist_ok=True)
    write_lines(
        out / TELEMETRY / "steps.jsonl",
        [{"step": i + 1, "tokens": tokens[i], "seconds": s, "tokens_per_second": settings.batch_tokens / s} for i, s in enumerate(seconds)],
    )
    for file in sorted((out / "checkpoints").glob("**/*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    if (out / "checkpoints").is_dir():
        (out / "checkpoints").rmdir()


def write_lines(path: Path, rows: list[Json]) -> None:
    """JSON lines, atomically."""
    write_atomic(path, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
