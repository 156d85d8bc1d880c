"""Milliseconds of a training step beside other trainers: same shape, same tokens, forward, backward and optimiser, in turns.

    .venv/bin/python benchmarks/train.py --shape S --nanogpt ../nanoGPT --nanochat ../nanochat
    .venv/bin/python benchmarks/train.py --shape S --shape M --bf16 --compile --python /path/to/venv/bin/python   # with litgpt in it

Each program has a process of its own, which takes one step when it is told to: one step of each, then again, so that a machine whose speed
drifts changes all alike. Printed are medians of milliseconds, medians of the ratio to the first program within a round, first steps and
peaks of memory. Peers are used through what they offer to anybody; AdamW is PyTorch's default as their own loops make it. nanochat is a
model of more parameters (value embeddings) with Muon. Without bf16 instructions --bf16 takes minutes a step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openhearth.train.bench import peak_bytes
from openhearth.train.bench_command import shape

Step = Callable[[Any, Any], None]


def ours(config: Any, options: argparse.Namespace) -> Step:
    from openhearth.model.hf import tensor_shapes
    from openhearth.model.init import initial_tensor
    from openhearth.train.settings import GROUPS, Settings
    from openhearth.train.trainer import Trainer

    settings = Settings(
        sequence_length=config.max_position_embeddings, batch_tokens=options.tokens, micro_batch_tokens=options.tokens, steps=1000,
        learning_rate=dict.fromkeys(GROUPS, 0.001), dtype="bfloat16" if "bf16" in options.worker else "float32",
        compile="compiled" in options.worker, threads=options.threads, optimizer="adamw" if "adamw" in options.worker else "muon",
    )  # fmt: skip
    trainer = Trainer(config, settings, {name: initial_tensor(name, size, config, 0) for name, size in tensor_shapes(config).items()})
    return lambda x, y: print(trainer.step(0, (x.numpy(), y.numpy())), file=sys.stderr)


def loop(model: Any, loss: Callable[[Any, Any, Any], Any], optimizer: Any, bf16: bool) -> Step:
    """The loop that everybody writes."""

    def step(x: Any, y: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            value = loss(model, x, y)
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value.item()

    return step


def transformers(config: Any, options: argparse.Namespace) -> Step:
    from transformers import LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
        max_position_embeddings=config.max_position_embeddings, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(llama)
    if "compiled" in options.worker:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return loop(model, lambda m, x, y: torch.nn.functional.cross_entropy(m(x).logits.flatten(0, 1).float(), y.flatten()), optimizer,
                "bf16" in options.worker)  # fmt: skip


def litgpt(config: Any, options: argparse.Namespace) -> Step:
    from litgpt import GPT, Config

    model = GPT(Config(
        block_size=config.max_position_embeddings, vocab_size=config.vocab_size, padded_vocab_size=config.vocab_size,
        n_layer=config.num_layers, n_head=config.num_heads, n_embd=config.hidden_size, intermediate_size=config.intermediate_size,
        mlp_class_name="LLaMAMLP", norm_class_name="RMSNorm", bias=False, rotary_percentage=1.0, parallel_residual=False,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return loop(model, lambda m, x, y: torch.nn.functional.cross_entropy(m(x).flatten(0, 1).float(), y.flatten()), optimizer,
                "bf16" in options.worker)  # fmt: skip


def nanogpt(config: Any, options: argparse.Namespace) -> Step:
    sys.path.insert(0, str(options.nanogpt))
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    sizes = {"n_layer": config.num_layers, "n_head": config.num_heads, "n_embd": config.hidden_size}
    model = GPT(GPTConfig(block_size=config.max_position_embeddings, vocab_size=config.vocab_size, bias=False, **sizes))
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), "cpu")
    runs = torch.compile(model) if "compiled" in options.worker else model
    return loop(runs, lambda m, x, y: m(x, y)[1], optimizer, "bf16" in options.worker)


def nanochat(config: Any, options: argparse.Namespace) -> Step:
    os.environ["NANOCHAT_DTYPE"] = "bfloat16" if "bf16" in options.worker else "float32"
    sys.path.insert(0, str(options.nanochat))
    from nanochat.gpt import GPT, GPTConfig  # type: ignore[import-not-found]

    sizes = {"n_layer": config.num_layers, "n_head": config.num_heads, "n_kv_head": config.num_heads, "n_embd": config.hidden_size}
    model = GPT(GPTConfig(sequence_len=config.max_position_embeddings, vocab_size=config.vocab_size, window_pattern="L", **sizes))
    model.init_weights()
    return loop(model, lambda m, x, y: m(x, y), model.setup_optimizer(), False)


PROGRAMS = {"ours": ours, "transformers": transformers, "litgpt": litgpt, "nanogpt": nanogpt, "nanochat": nanochat}


def work(options: argparse.Namespace) -> None:
    """One step for each line that comes in; its seconds and the peak of memory go out."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = shape(options.shape[0], options.context, options.vocab)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a program prints goes to the standard error
    step = PROGRAMS[options.worker.split()[0]](config, options)
    rows, length = options.tokens // config.max_position_embeddings, config.max_position_embeddings
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, config.vocab_size, (rows, length + 1)))
    for _ in sys.stdin:
        began = time.perf_counter()
        step(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        print(json.dumps([time.perf_counter() - began, peak_bytes()]), file=out, flush=True)


def names(options: argparse.Namespace) -> list[str]:
    """The programs that are run, in their order; a peer that is not there is said and left out."""
    chosen = ["ours adamw", "ours muon"]
    peers = ["transformers", *(["litgpt"] if options.python else [])]
    peers += [name for name in ("nanogpt", "nanochat") if getattr(options, name)]
    for peer in peers:
        chosen += [peer, *([f"{peer} bf16"] if options.bf16 else [])]
        chosen += [f"{peer} compiled"] if options.compile and peer in ("transformers", "nanogpt") else []
    return chosen + (["ours adamw bf16"] if options.bf16 else []) + (["ours adamw compiled"] if options.compile else [])


def compare(name: str, options: argparse.Namespace) -> None:
    """One table."""
    started: dict[str, subprocess.Popen[str]] = {}
    for program in names(options):
        python = options.python if program.startswith("litgpt") else sys.executable
        given = [f"--{key}={value}" for key in ("context", "vocab", "nanogpt", "nanochat") if (value := getattr(options, key)) is not None]
        command = [str(python), __file__, f"--worker={program}", f"--shape={name}", f"--tokens={options.tokens}", *given]
        started[program] = subprocess.Popen(
            [*command, f"--threads={options.threads}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    found: dict[str, list[float]] = {program: [] for program in started}
    memory: dict[str, int] = {}
    for _ in range(options.rounds + 2):
        for program, process in started.items():
            assert process.stdin is not None and process.stdout is not None
            if process.poll() is None:
                process.stdin.write("\n")
                process.stdin.flush()
            if line := process.stdout.readline():
                seconds, memory[program] = json.loads(line)
                found[program].append(seconds)
    for process in started.values():
        process.kill()
    reference, *_ = found
    print(f"\n{name}, {options.tokens:,} tokens a step, {options.threads} threads, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for program, times in found.items():
        if len(times) < options.rounds + 2:
            print(f"{program:24} did not run: start it alone with --worker to see why")
            continue
        ratio = statistics.median(a / b for a, b in zip(times[2:], found[reference][2:], strict=True))
        middle = 1000 * statistics.median(times[2:])
        print(f"{program:24}{middle:9,.0f} ms  x {ratio:5.2f}  first {times[0]:6.1f} s  {memory[program] / 1e9:5.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="S, M or LAYERSxWIDTH; may be repeated")
    parser.add_argument("--context", type=int)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--nanogpt", type=Path, help="a checkout")
    parser.add_argument("--nanochat", type=Path, help="a checkout")
    parser.add_argument("--python", type=Path, help="an interpreter that has litgpt, and this package on its path")
    parser.add_argument("--bf16", action="store_true", help="the peers with bf16 too, and ours")
    parser.add_argument("--compile", action="store_true", help="those that can, compiled too")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.shape = options.shape or ["S", "M"]
    if options.worker:
        work(options)
        return
    for name in options.shape:
        compare(name, options)


if __name__ == "__main__":
    main()
