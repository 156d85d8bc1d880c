"""What `hearth bench train` does: reads shapes, has each measured in a process of its own, and prints. No torch in this process."""

from __future__ import annotations

import json as jsonlib
import multiprocessing
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from openhearth.errors import HearthError
from openhearth.model.config import ModelConfig
from openhearth.plan import host
from openhearth.train.plan_file import MOST_LAYERS, WIDEST, require_memory, training_bytes
from openhearth.train.settings import LARGEST_BATCH, LONGEST_SEQUENCE

SHAPES = {"S": (4, 256, 256, 4096), "M": (6, 512, 512, 8192)}
"""(layers, width, context, vocabulary) of the shapes in which trainers are compared (docs/benchmarks.md)."""

CONVENTION = "per token 6 x matmul parameters incl. head + 12 x layers x heads x head_dim x context; optimiser not counted"


def shape(text: str, context: int | None = None, vocab: int | None = None) -> ModelConfig:
    """'S', 'M' or '4x256' as a shape: heads of 64 (32 where that does not divide the width), SwiGLU of 8/3 the width in steps of 64."""
    found = re.fullmatch(r"(\d{1,4})x(\d{1,6})", text)
    if text not in SHAPES and found is None:
        raise HearthError(f"--shape {text}: give S, M or LAYERSxWIDTH, as 4x256")
    layers, width, own_context, own_vocab = SHAPES[text] if found is None else (int(found[1]), int(found[2]), 256, 4096)
    if not 1 <= layers <= MOST_LAYERS or not 32 <= width <= WIDEST or width % 32:
        raise HearthError(f"--shape {text}: 1 to {MOST_LAYERS} layers, and a width that is a multiple of 32 up to {WIDEST:,}")
    head_dim = 64 if width % 64 == 0 else 32
    return ModelConfig(
        vocab_size=vocab or own_vocab,
        hidden_size=width,
        intermediate_size=max(64, round(width * 8 / 3 / 64) * 64),
        num_layers=layers,
        num_heads=width // head_dim,
        num_kv_heads=width // head_dim,
        head_dim=head_dim,
        max_position_embeddings=context or own_context,
    )


def train_command(
    shapes: Sequence[str],
    *,
    context: int | None = None,
    vocab: int | None = None,
    batch_tokens: int = 4096,
    optimizer: str = "muon",
    dtype: str = "auto",
    compiled: bool = False,
    threads: int | None = None,
    rounds: int = 5,
    json: bool = False,
) -> int:
    """Measure the machine and a training step of each shape, and print."""
    named = {text: shape(text, context, vocab) for text in shapes}
    for text, config in named.items():
        if config.max_position_embeddings > LONGEST_SEQUENCE or batch_tokens > LARGEST_BATCH:
            raise HearthError(f"--context is at most {LONGEST_SEQUENCE:,}, --batch-tokens at most {LARGEST_BATCH:,}")
        if batch_tokens % config.max_position_embeddings:
            raise HearthError(
                f"--batch-tokens {batch_tokens:,}: must be a multiple of the context of {text}, {config.max_position_embeddings:,}"
            )
        least = "bfloat16" if dtype == "auto" else dtype
        require_memory(training_bytes(config, batch_tokens, least, saves=False), f"--shape {text}: needs", "lower it, or --batch-tokens")
    if compiled:
        from openhearth.train.machine import compiler_available

        if not compiler_available():
            raise HearthError("--compile: no C++ compiler (c++, g++ or clang++) is on this machine; leave it out")
    threads = threads or host.usable_threads()
    from openhearth.train.bench import Task, ceilings, measure
    from openhearth.train.probe import best_dtype

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as one_by_one:
        _say(f"measuring products and memory with {threads} threads")
        machine = one_by_one.submit(ceilings, threads).result()
        taken = best_dtype(machine["product_flops"]) if dtype == "auto" else dtype
        found = []
        for text, config in named.items():
            _say(f"measuring {text}: {config.parameters / 1e6:.1f} M parameters, {rounds} rounds")
            task = Task(text, config, batch_tokens, optimizer, taken, compiled, threads, rounds)
            found.append(one_by_one.submit(measure, task).result())
    facts = {"machine": {**host.describe(), "threads_used": threads, **machine}, "flops_convention": CONVENTION, "shapes": found}
    print(jsonlib.dumps(facts, indent=2) if json else "\n".join(lines(facts)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def lines(facts: dict[str, Any]) -> list[str]:
    """The table, for people."""
    machine = facts["machine"]
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in machine["product_flops"].items())
    out = [
        f"{machine['processor']}, {machine['threads_used']} threads",
        f"products of 1,024: {rates}; memory {machine['memory_bytes_per_second'] / 1e9:.1f} GB/s",
    ]
    for row in facts["shapes"]:
        model = row["model"]
        out += [
            "",
            f"{row['name']}: {model['num_layers']} x {model['hidden_size']}, context {model['max_position_embeddings']:,}, vocabulary "
            f"{model['vocab_size']:,}, {row['batch_tokens']:,} tokens a step, {row['optimizer']}, {row['dtype']}"
            f"{', compiled' if row['compile'] else ''}",
            f"  {1000 * row['step_seconds']:,.0f} ms a step, {row['tokens_per_second']:,.0f} tokens/s, "
            f"{row['share_of_product_rate']:.0%} of the product rate measured between the steps "
            f"({row['product_flops'] / 1e9:,.0f} GFLOP/s); first step {row['first_step_seconds']:,.1f} s",
        ]
        for name, seconds in row["parts_seconds"].items():
            share = seconds / row["step_seconds"]
            out.append(f"  {name.replace('_', ' '):<14}{1000 * seconds:>9,.1f} ms {share:>5.0%}  {'█' * round(40 * max(0.0, share))}")
        error = row["predicted_peak_bytes"] / row["peak_bytes"] - 1
        out.append(
            f"  memory at most {row['peak_bytes'] / 1e6:,.0f} MB; predicted {row['predicted_peak_bytes'] / 1e6:,.0f} MB ({error:+.0%})"
        )
    return [*out, "", f"FLOPs: {facts['flops_convention']}."]
