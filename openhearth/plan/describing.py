"""`openhearth.plan.shape`, the function behind `hearth plan shape`: what a model's shape costs, at a glance, as plain values."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError
from openhearth.inputs import read_small
from openhearth.plan.memory import activations_per_token, states
from openhearth.plan.shapes import CONVENTIONS, MAX_BYTES, Shape

LONGEST = 8192
"""Of the sequence that is assumed when nobody says: models may stand for more positions than they are trained on."""
STATES = (("bf16-mixed", "adamw"), ("bf16-mixed", "muon"), ("bf16-mixed", "adamw-8bit"), ("megatron", "adamw"), ("bf16", "adamw"))


def shape(model: Path | str | Mapping[str, Any] | Shape, *, sequence_length: int | None = None) -> dict[str, Any]:
    """Parameters, FLOPs per token under every convention, bytes of training states, activations and cache.

    `model` is the path of a config.json, of a folder that has one, or of a recipe; or a config.json's content; or a `Shape`. Without
    `sequence_length`: the published one of a recipe, else the model's positions, at most 8,192. Keys of the answer: docs/plan/memory.md.
    """
    tokens: float | None = None
    if isinstance(model, Shape):
        known = model
    elif isinstance(model, Mapping):
        known = Shape.from_hf(model)
    else:
        known = Shape.load(model)
        if Path(model).suffix == ".toml":
            published = tomllib.loads(read_small(Path(model), limit=MAX_BYTES, what="recipe", suffix=".toml"))["published"]
            tokens = published.get("tokens")
            sequence_length = published.get("sequence_length") if sequence_length is None else sequence_length
    length = min(known.max_position_embeddings or 2048, LONGEST) if sequence_length is None else sequence_length
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= 100_000_000:
        raise HearthError(f"sequence_length must be a whole number between 1 and 100,000,000, not {length!r}")
    flops = {name: float(known.flops_per_token(length, name)) for name in CONVENTIONS}
    return {
        "model_type": known.model_type,
        "shape": known.model_dump(mode="json", exclude={"model_type", "notes"}, exclude_none=True),
        "parameters": known.parameters,
        "active_parameters": known.active_parameters,
        "embedding_parameters": known.embedding_parameters,
        "non_embedding_parameters": known.non_embedding_parameters,
        "matmul_parameters": known.matmul_parameters,
        "sequence_length": length,
        "flops_per_token": flops,
        "attention_share": known.attention_flops_per_token(length) / flops["full"],
        "tokens": tokens,
        "training_flops": None if tokens is None else {name: each * tokens for name, each in flops.items()},
        "state_bytes": {
            f"{precision} {optimizer}": sum(states(known.parameters, precision=precision, optimizer=optimizer))
            for precision, optimizer in STATES
        },
        "activation_bytes_per_token": {
            way: float(known.num_layers * activations_per_token(known, sequence_length=length, recompute=way))
            for way in ("none", "operations", "full")
        },
        "weight_bytes": {"bf16": 2 * known.parameters, "fp32": 4 * known.parameters},
        "kv_bytes_per_token": known.kv_bytes_per_token(),
        "kv_bytes": float(known.kv_bytes(length)),
        "notes": list(known.notes),
    }
