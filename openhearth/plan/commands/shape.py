"""`hearth plan shape`: parameters, FLOPs and memory of one model, counted."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Any

from openhearth.plan.describing import shape
from openhearth.plan.quantities import count, say
from openhearth.plan.shapes import CONVENTIONS

GIB = 2**30
SHOWN = ("full", "causal", "6n", "6n-total")
"""Of the conventions; --json has all."""


def shape_command(path: Path, *, sequence_length: str | None = None, json: bool = False) -> int:
    """Print what the shape in `path` costs."""
    length = None if sequence_length is None else round(count(sequence_length, "--sequence-length", low=1, high=1e8, unit="tokens"))
    facts = shape(path, sequence_length=length)
    if json:
        print(jsonlib.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    for note in facts["notes"]:
        print(f"note: {note}", file=sys.stderr)
    _show(path, facts)
    return 0


def _show(path: Path, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text.assemble((path.stem if path.suffix == ".toml" else str(path), "bold"), f"  {in_words(facts)}"), soft_wrap=True)
    length = facts["sequence_length"]
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    mixture = facts["active_parameters"] != facts["parameters"]
    rows: list[tuple[str, str, str]] = [("parameters", f"{facts['parameters']:,}", "all, an embedding that is tied once")]
    if mixture:
        rows.append(("  active", f"{facts['active_parameters']:,}", "that a token meets"))
    rows += [
        ("  in matrix products", f"{facts['matmul_parameters']:,}", "of a token, the head with them"),
        ("  without embeddings", f"{facts['non_embedding_parameters']:,}", "Kaplan's N"),
        ("", "", ""),
        ("FLOPs per token", "", f"training, in a sequence of {length:,}; attention is {facts['attention_share']:.1%} of 'full'"),
    ]
    six_n = facts["flops_per_token"]["6n"]
    for name in SHOWN if mixture else SHOWN[:3]:
        flops = facts["flops_per_token"][name]
        rows.append((f"  {name}", f"{flops:.4g}", f"{flops / six_n:.3f} x 6n: {CONVENTIONS[name].split(':')[0]}"))
    if facts["training_flops"]:
        flops = facts["training_flops"]
        rows.append((f"of {say(facts['tokens'])} tokens", f"{flops['full']:.4g}", f"{flops['6n']:.4g} by 6n"))
    rows.append(("", "", ""))
    rows.append(("memory", "GiB", "of one copy; a layout divides it"))
    rows += [
        (f"  states, {name}", _gib(size), f"{size / facts['parameters']:g} bytes per parameter")
        for name, size in facts["state_bytes"].items()
    ]
    for way, size in facts["activation_bytes_per_token"].items():
        said = {
            "none": "nothing computed again",
            "operations": "every second operation computed again",
            "full": "all but inputs computed again",
        }
        rows.append((f"  activations, {way}", _gib(size * length), f"one sequence of {length:,}, {said[way]}"))
    rows.append(("  weights to serve, bf16", _gib(facts["weight_bytes"]["bf16"]), ""))
    rows.append(("  cache of one sequence", _gib(facts["kv_bytes"]), f"{facts['kv_bytes_per_token']:,.0f} bytes per token in bf16"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def in_words(facts: dict[str, Any]) -> str:
    """'llama: 80 layers of 8,192, 64 heads of 128, feed-forward 22,016 gated, 32,000 ids'."""
    made = facts["shape"]
    heads = f"{made['num_heads']} heads of {made['head_dim']}"
    if made["num_kv_heads"] != made["num_heads"]:
        heads += f" sharing {made['num_kv_heads']} of keys and values"
    parts = [f"{made['num_layers']} layers of {made['hidden_size']:,}", heads]
    experts = made.get("experts")
    if experts:
        parts.append(
            f"{experts['per_token']} of {experts['count']} experts of {experts['intermediate_size']:,} in {experts['layers']} layers"
        )
    if not experts or experts["layers"] < made["num_layers"]:
        parts.append(f"feed-forward of {made['intermediate_size']:,}{', gated' if made['gated'] else ''}")
    if made["sliding_layers"]:
        parts.append(f"a window of {made['sliding_window']:,} in {made['sliding_layers']} layers")
    parts.append(f"{made['vocab_size']:,} ids, {'tied' if made['tie_word_embeddings'] else 'untied'}")
    return f"{facts['model_type']}: {', '.join(parts)}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f}"
