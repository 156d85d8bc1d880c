"""Short measurements on this machine, for the plan: matrix products, training steps, reading, decoding. Random tokens, real code."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from openhearth.energy import MEASURED, Meter
from openhearth.model.config import ModelConfig
from openhearth.model.generate import Sampling, generate
from openhearth.model.hf import tensor_shapes
from openhearth.model.init import initial_tensor
from openhearth.model.transformer import Transformer
from openhearth.train.loop import Trainer
from openhearth.train.machine import prepare
from openhearth.train.settings import Settings

LONG = 8.0
"""Seconds of updates after which no more are timed."""


def product_rate(dtype: torch.dtype, size: int = 1024, repeats: int = 3) -> float:
    """FLOP/s of a square matrix product, the median of a few.

    A small product comes first: a processor without bf16 instructions runs bf16 a hundred times slower than fp32, and the large one
    would take seconds to say so.
    """
    if size > 192 and (rate := product_rate(dtype, 192, 2)) < 10e9:
        return rate
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    torch.mm(a, b)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(times)


def best_dtype(rates: Mapping[str, float]) -> str:
    """bfloat16 where its products run at least 1.3 times as fast as fp32's, else float32; from FLOP/s by dtype."""
    return "bfloat16" if rates["bfloat16"] > 1.3 * rates["float32"] else "float32"


class _Silence:
    """A codec for generation that never ends an answer."""

    bos = -1
    im_end = -1

    def decode_bytes(self, ids: object) -> bytes:
        return b"x"


class MachineBench:
    """The `Bench` of the plan on the machine at hand."""

    def __init__(self, threads: int) -> None:
        self.began = time.monotonic()
        self.meter = Meter()
        prepare(threads)
        self.rates = {name: product_rate(getattr(torch, name)) for name in ("float32", "bfloat16")}

    def elapsed(self) -> float:
        """Seconds since the first measurement."""
        return time.monotonic() - self.began

    def watts(self) -> float | None:
        """Mean power since the first measurement, where the processor counts it."""
        energy = self.meter.read()
        return energy.joules / max(self.elapsed(), 1e-3) if energy.source == MEASURED else None

    def best_dtype(self) -> str:
        """The dtype that training computes in here."""
        return best_dtype(self.rates)

    def step_seconds(self, config: ModelConfig, settings: dict[str, Any], repeats: int = 3) -> float:
        """Seconds of one optimiser step on random tokens: one to warm up, then the median of `repeats`, of fewer when they are long."""
        resolved = Settings.model_validate(settings)
        trainer = Trainer(config, resolved, {name: initial_tensor(name, shape, config, 0) for name, shape in tensor_shapes(config).items()})
        rows = max(1, resolved.batch_tokens // resolved.sequence_length)
        ids = np.random.default_rng(0).integers(0, config.vocab_size, (rows, resolved.sequence_length + 1))
        batch = ids[:, :-1].copy(), ids[:, 1:].copy()
        times: list[float] = []
        while len(times) < 2 or (len(times) <= repeats and sum(times) < LONG):
            began = time.perf_counter()
            trainer.step(len(times), batch)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    def reading_rate(self, config: ModelConfig) -> float:
        """Tokens per second that an fp32 model scores."""
        model = Transformer(config).requires_grad_(False)
        ids = torch.zeros(8, config.max_position_embeddings, dtype=torch.long)
        with torch.inference_mode():
            model(ids).logsumexp(-1)
            began = time.perf_counter()
            model(ids).logsumexp(-1)
        return ids.numel() / (time.perf_counter() - began)

    def decode_seconds(self, config: ModelConfig, prompts: int) -> float:
        """Seconds per generated token for a batch of prompts of 64 tokens."""
        model = Transformer(config).requires_grad_(False)
        batch = [[0] * 64] * prompts
        times = {}
        for count in (2, 10):
            began = time.perf_counter()
            generate(model, _Silence(), batch, Sampling(max_new_tokens=count, temperature=0.0))
            times[count] = time.perf_counter() - began
        return max(1e-4, (times[10] - times[2]) / 8)
