"""Where the time of a training step goes on this machine, beside what the machine can do: every figure is measured, none is looked up.

The step is the trainer's own. Its parts are timed alone, warm, in the sizes of the model, and in turns with whole steps, so that a machine
whose speed drifts changes all of them alike; what the parts leave of a step is called the rest.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from openhearth.data.order import Windows
from openhearth.model.config import ModelConfig
from openhearth.model.hf import tensor_shapes
from openhearth.model.init import initial_tensor
from openhearth.model.ops import head_loss
from openhearth.train.machine import prepare
from openhearth.train.plan_file import training_bytes
from openhearth.train.probe import product_rate
from openhearth.train.settings import GROUPS, Settings
from openhearth.train.trainer import Trainer

COPIED = 1 << 26
"""fp32 numbers that are copied to measure the memory's bandwidth: many times what a cache holds."""


@dataclass(frozen=True)
class Task:
    """What is measured: a shape, and how it is trained."""

    name: str
    config: ModelConfig
    batch_tokens: int
    optimizer: str
    dtype: str
    compile: bool
    threads: int
    rounds: int


def ceilings(threads: int) -> dict[str, Any]:
    """Product rates in FLOP/s by dtype (square, 1,024) and the memory's bandwidth in bytes/s (a copy: read and written)."""
    prepare(threads)
    source, target = torch.ones(COPIED), torch.empty(COPIED)
    target.copy_(source)
    return {
        "product_flops": {name: product_rate(getattr(torch, name)) for name in ("float32", "bfloat16")},
        "memory_bytes_per_second": 8 * COPIED / statistics.median(_seconds(lambda: target.copy_(source)) for _ in range(3)),
    }


def measure(task: Task) -> dict[str, Any]:
    """Seconds of a step and of its parts, tokens/s, share of the product rate, memory: the keys are listed in docs/benchmarks.md.

    To be called in a process of its own, since its peak of memory is that of the process.
    """
    config, sequence = task.config, task.config.max_position_embeddings
    dtype = getattr(torch, task.dtype)
    settings = Settings(
        sequence_length=sequence, batch_tokens=task.batch_tokens, micro_batch_tokens=task.batch_tokens, steps=1000,
        learning_rate=dict.fromkeys(GROUPS, 0.001), dtype=task.dtype, compile=task.compile, threads=task.threads,
        optimizer=task.optimizer,  # type: ignore[arg-type]
    )  # fmt: skip
    trainer = Trainer(config, settings, {name: initial_tensor(name, shape, config, 0) for name, shape in tensor_shapes(config).items()})
    rows = task.batch_tokens // sequence
    windows = Windows(np.random.default_rng(0).integers(0, config.vocab_size, 64 * task.batch_tokens), sequence, 0)
    first = _seconds(lambda: trainer.step(0, windows.sample(0, rows)))
    trainer.step(1, windows.sample(0, rows))
    peak = peak_bytes()
    parts = {
        "products": products(config, task.batch_tokens, dtype),
        "attention": attention(config, task.batch_tokens, dtype),
        "head_and_loss": head(config, task.batch_tokens, dtype),
    }
    for part in parts.values():
        part()  # warm
    times: dict[str, list[float]] = {name: [] for name in ("data", "gradient", "optimiser", *parts)}
    rates: list[float] = []
    for number in range(2, task.rounds + 2):
        began = time.perf_counter()
        batch = windows.sample(number * rows, (number + 1) * rows)
        times["data"].append(time.perf_counter() - began)
        times["gradient"].append(_seconds(lambda batch=batch: trainer.gradient(batch)))  # type: ignore[misc]
        times["optimiser"].append(_seconds(lambda number=number: trainer.update(number, number)))  # type: ignore[misc]
        rates.append(product_rate(dtype))
        for name, part in parts.items():
            times[name].append(_seconds(part))
    seconds = {name: statistics.median(values) for name, values in times.items()}
    steps = [sum(values) for values in zip(times["data"], times["gradient"], times["optimiser"], strict=True)]
    step = statistics.median(steps)
    flops = task.batch_tokens * config.flops_per_token(sequence)
    matrices = 6 * task.batch_tokens * (config.matmul_parameters - config.vocab_size * config.hidden_size)
    return {
        "name": task.name,
        "model": config.model_dump(),
        "parameters": config.parameters,
        **{key: getattr(task, key) for key in ("batch_tokens", "optimizer", "dtype", "compile", "threads", "rounds")},
        "step_seconds": step,
        "first_step_seconds": first,
        "tokens_per_second": task.batch_tokens / step,
        "flops_per_step": flops,
        "product_flops": statistics.median(rates),
        "share_of_product_rate": statistics.median(flops / seconds / rate for seconds, rate in zip(steps, rates, strict=True)),
        "model_products_flops": matrices / seconds["products"],
        "parts_seconds": {
            **{name: seconds[name] for name in ("products", "attention", "head_and_loss", "optimiser", "data")},
            "rest": step - sum(seconds[name] for name in ("products", "attention", "head_and_loss", "optimiser", "data")),
        },
        "peak_bytes": peak,
        "predicted_peak_bytes": training_bytes(config, task.batch_tokens, task.dtype, saves=False),
    }


def peak_bytes() -> int:
    """Bytes of physical memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # what a process inherits from the one that started it is not counted here, as it is in getrusage
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def products(config: ModelConfig, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """The matrix products of all blocks, forward and backward: for each matrix the output and both gradients. Without the head."""
    shapes = [shape for name, shape in tensor_shapes(config).items() if len(shape) == 2 and name.startswith("model.layers.0.")]
    sides = {size: torch.ones(tokens, size, dtype=dtype) for shape in shapes for size in shape}
    weights = {shape: torch.ones(shape, dtype=dtype) for shape in shapes}

    def run() -> None:
        for outputs, inputs in shapes * config.num_layers:
            weight = weights[outputs, inputs]
            torch.mm(sides[inputs], weight.t())
            torch.mm(sides[outputs], weight)
            torch.mm(sides[outputs].t(), sides[inputs])

    return run


def attention(config: ModelConfig, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """Scores, softmax and weighted values of all layers, forward and backward."""
    sequence = config.max_position_embeddings
    shape = (tokens // sequence, config.num_heads, sequence, config.head_dim)
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
    gradient = torch.ones(shape, dtype=dtype)

    def run() -> None:
        for _ in range(config.num_layers):
            F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(gradient)  # type: ignore[no-untyped-call]

    return run


def head(config: ModelConfig, tokens: int, dtype: torch.dtype) -> Callable[[], None]:
    """The product with the head and the loss, forward and backward."""
    hidden = torch.randn(tokens, config.hidden_size).to(dtype).requires_grad_()
    weight = torch.zeros(config.vocab_size, config.hidden_size, dtype=dtype, requires_grad=True)
    targets = torch.arange(tokens) % config.vocab_size

    def run() -> None:
        head_loss(hidden, weight, targets, 1.0 / tokens).backward()  # type: ignore[no-untyped-call]

    return run


def _seconds(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began
