"""A model, its flat weights and its optimiser, able to take one step: a gradient first, then an update or none.

The two halves are apart so that a gradient can be looked at, computed again or thrown away before it changes anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from openhearth.errors import HearthError
from openhearth.ledger import digest_bytes
from openhearth.model.config import ModelConfig
from openhearth.model.hf import save_model
from openhearth.model.transformer import Transformer
from openhearth.train.flat import FlatParameters
from openhearth.train.machine import prepare
from openhearth.train.optim import Optimizer
from openhearth.train.settings import Settings

Batch = tuple[np.ndarray, ...]
"""Inputs and targets of one optimiser step, each (sequences, sequence_length) int64; a target of -1 is not counted. What else a trainer of
another loss needs follows them."""

NORM_CHUNK = 1 << 18
"""Entries of the gradient whose fp32 copy exists at once: small enough for the cache."""

MOST_ATTEMPTS = 5
"""How often a gradient is computed in search of two equal ones."""


class Trainer:
    """A model, its flat weights and its optimiser. Another loss is another `pieces`, another head another `architecture`."""

    architecture: ClassVar[type[Transformer]] = Transformer

    def __init__(self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor]) -> None:
        prepare(settings.threads)
        self.config, self.settings = config, settings
        self.figures: dict[str, float] = {}
        """What else is worth seeing while it trains, besides the loss."""
        dtype = getattr(torch, settings.dtype)
        self.model = self.architecture(config)
        self.flat = FlatParameters(self.model, dtype)
        self.flat.load(initial)
        self.model.cos, self.model.sin = self.model.cos.to(dtype), self.model.sin.to(dtype)
        self.optimizer = Optimizer(self.flat, settings.optimizer, weight_decay=settings.weight_decay, orthogonalise_in=dtype)
        self.accumulated = torch.zeros_like(self.flat.master)
        self._gradient = self.flat.grad
        self._norm = 0.0
        if settings.compile:
            for block in self.model.model.layers:
                block.compile(dynamic=False)

    def step(self, number: int, batch: Batch) -> float:
        """Optimiser step `number` (from 0); returns the loss of the batch before the update, nats per counted token."""
        loss, _ = self.gradient(batch)
        self.update(number, number)
        return loss

    def pieces(self, batch: Batch) -> list[Callable[[], Tensor]]:
        """The forward passes, one per micro-batch, whose results add up to the loss of a global batch: nats per counted token."""
        inputs, targets = batch
        rows = max(1, self.settings.micro_batch_tokens // inputs.shape[1])
        scale = 1.0 / max(1, int((targets >= 0).sum()))

        def piece(start: int) -> Tensor:
            part = slice(start, start + rows)
            return self.model.loss(torch.from_numpy(inputs[part]), torch.from_numpy(targets[part]), scale)

        return [partial(piece, start) for start in range(0, len(inputs), rows)]

    def gradient(self, batch: Batch) -> tuple[float, float]:
        """Compute the gradient of a global batch; gives its loss and the gradient's L2 norm, both in fp32."""
        losses: list[Tensor] = []
        pieces = self.pieces(batch)
        several = len(pieces) > 1
        self._gradient = self.accumulated if several else self.flat.grad
        for piece in pieces:
            loss = piece()
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            if several:  # sum micro-batches in fp32
                self.accumulated.add_(self.flat.grad)
                self.flat.grad.zero_()
        norms = [torch.linalg.vector_norm(chunk.float()) for chunk in self._gradient.split(NORM_CHUNK)]  # type: ignore[no-untyped-call]
        self._norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        return float(torch.stack(losses).sum()), self._norm

    def update(self, number: int, updates: int) -> None:
        """Apply the gradient as step `number` of the schedule, after `updates` earlier ones (fewer where steps were skipped)."""
        schedule, steps, longest = self.settings.schedule, self.settings.steps, self.settings.max_grad_norm
        if longest is not None and self._norm > longest:  # Pascanu et al. 2013, algorithm 1
            self._gradient.mul_(longest / self._norm)
        factor = schedule.rate(number, steps)
        rates = {group: rate * factor for group, rate in self.settings.learning_rate.items()}
        self.optimizer.step(self._gradient, rates, schedule.muon_momentum(number, steps), updates + 1)
        self._gradient.zero_()

    def discard(self) -> None:
        """Throw the gradient away: weights and optimiser state stay as they are, bit for bit."""
        self._gradient.zero_()

    def gradient_digest(self) -> str:
        """sha256 of the gradient's bytes."""
        return hashlib.sha256(self._gradient.view(torch.uint8).numpy().data).hexdigest()

    def agreed_gradient(self, batch: Batch) -> tuple[float, float, int]:
        """Compute the gradient again until two results are equal bit for bit, and keep that one; a processor that multiplies wrongly
        now and then is found so. Gives loss, norm, and how many results were wrong. Raises HearthError when none is had twice."""
        seen = {self.gradient_digest()}
        for _ in range(1, MOST_ATTEMPTS):
            self.discard()
            loss, norm = self.gradient(batch)
            digest = self.gradient_digest()
            if digest in seen:
                return loss, norm, len(seen) - 1
            seen.add(digest)
        raise HearthError(
            f"the same gradient was computed {MOST_ATTEMPTS} times with {MOST_ATTEMPTS} different results: this machine computes wrongly; "
            "test its memory and its cooling, or go on elsewhere"
        )

    def checkpoint_tensors(self) -> dict[str, Tensor]:
        """The flat buffers that a checkpoint keeps."""
        return {"master": self.flat.master, **self.optimizer.state}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the flat buffers from a checkpoint."""
        for name, buffer in self.checkpoint_tensors().items():
            buffer.copy_(tensors[name])
        self.flat.refresh()

    def begin_again(self, initial: Mapping[str, Tensor]) -> None:
        """Back to the first weights and an optimiser that has seen nothing."""
        for buffer in self.optimizer.state.values():
            buffer.zero_()
        self.flat.load(initial)

    def save(self, folder: Path) -> None:
        """Write the trained model into `folder`."""
        save_model(self.flat.tensors(), self.config, folder)

    def tensor_digests(self) -> dict[str, str]:
        """sha256 of the fp32 bytes of every tensor."""
        return {name: digest_bytes(tensor.numpy().tobytes()) for name, tensor in sorted(self.flat.tensors().items())}
