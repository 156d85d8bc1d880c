"""Reading a safetensors file without trusting it: the header is parsed here, checked and bounded, before any tensor is touched.

The safetensors library accepts repeated keys, an empty header, odd names and non-finite values in silence; a release does not.
Nothing here needs torch, so that a release is checked in a second on a machine that has none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.errors import DamagedError
from openhearth.ledger import digest_bytes
from openhearth.model.config import ModelConfig
from openhearth.release.manifest import strict_json

MAX_HEADER_BYTES = 16_000_000
_SIZES = {"F32": 4}


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: its shape, and where its bytes begin and end, counted from the start of the file."""

    shape: tuple[int, ...]
    begin: int
    end: int


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the Qwen3 layout, from the configuration alone (the tied head is not stored)."""
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, width), "model.norm.weight": (width,)}
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (queries, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.v_proj.weight"] = (keys, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, queries)
        shapes[f"{prefix}.self_attn.q_norm.weight"] = (config.head_dim,)
        shapes[f"{prefix}.self_attn.k_norm.weight"] = (config.head_dim,)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (inner, width)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (inner, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, inner)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, width)
    return shapes


def _entry(where: str, name: str, content: Any) -> Entry:
    if not isinstance(content, dict) or set(content) != {"dtype", "shape", "data_offsets"}:
        raise DamagedError(f"{where}: the entry of tensor {name!r} is not a dtype, a shape and two offsets")
    dtype, shape, offsets = content["dtype"], content["shape"], content["data_offsets"]
    if dtype not in _SIZES:
        raise DamagedError(f"{where}: tensor {name!r} has dtype {str(dtype)[:20]!r}; a release holds F32")
    if not isinstance(shape, list) or len(shape) > 8 or any(type(size) is not int or size < 0 for size in shape):
        raise DamagedError(f"{where}: the shape of tensor {name!r} is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(at) is not int or at < 0 for at in offsets):
        raise DamagedError(f"{where}: the offsets of tensor {name!r} are not two positions")
    begin, end = offsets
    if end - begin != _SIZES[dtype] * math.prod(shape):
        raise DamagedError(
            f"{where}: tensor {name!r} spans {end - begin:,} bytes, its shape {shape} needs {_SIZES[dtype] * math.prod(shape):,}"
        )
    return Entry(tuple(shape), begin, end)


def read_header(path: Path, where: str) -> dict[str, Entry]:
    """The tensors of a safetensors file by name; raises DamagedError unless the header is whole, sane and covers the file exactly."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise DamagedError(f"{where}: too short to be a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise DamagedError(f"{where}: the header is said to have {length:,} bytes; the file has {size:,}")
        header = file.read(length)
    if not header.startswith(b"{"):
        raise DamagedError(f"{where}: the header is not a JSON object")
    content = strict_json(header, f"{where}: header")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedError(f"{where}: the metadata are not texts")
    entries = {name: _entry(where, name, tensor) for name, tensor in content.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise DamagedError(f"{where}: tensor {name!r} begins at {entry.begin:,}, the one before it ends at {at:,}")
        at = entry.end
    if 8 + length + at != size:
        raise DamagedError(f"{where}: the tensors end at byte {8 + length + at:,}, the file at {size:,}")
    start = 8 + length
    return {name: Entry(entry.shape, start + entry.begin, start + entry.end) for name, entry in entries.items()}


def check_shapes(entries: dict[str, Entry], config: ModelConfig, where: str) -> None:
    """Raise DamagedError unless names and shapes are exactly those that the configuration describes."""
    if config.parameters > sum(entry.end - entry.begin for entry in entries.values()):  # before a table for a billion layers is built
        raise DamagedError(f"{where}: smaller than the {config.parameters:,} parameters that config.json describes")
    shapes = expected_shapes(config)
    if missing := sorted(set(shapes) - set(entries)):
        raise DamagedError(f"{where}: tensor {missing[0]} is missing")
    if extra := sorted(set(entries) - set(shapes)):
        raise DamagedError(f"{where}: tensor {extra[0]!r} does not belong to the shape that config.json describes")
    for name, shape in shapes.items():
        if entries[name].shape != shape:
            raise DamagedError(f"{where}: tensor {name} has shape {entries[name].shape}, config.json says {shape}")


def read_tensors(path: Path, where: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """The tensors, one after another, in the order of their names."""
    for name, entry in sorted(read_header(path, where).items()):
        with path.open("rb") as file:
            file.seek(entry.begin)
            data = file.read(entry.end - entry.begin)
        yield name, np.frombuffer(data, dtype="<f4").reshape(entry.shape)


def check_finite(path: Path, where: str) -> None:
    """Raise DamagedError naming the first tensor that holds a value that is not finite."""
    for name, tensor in read_tensors(path, where):
        if not np.isfinite(tensor).all():
            raise DamagedError(f"{where}: tensor {name} holds values that are not finite")


def tensor_digests(path: Path, where: str) -> dict[str, str]:
    """sha256 of each tensor's bytes, by name."""
    return {name: digest_bytes(tensor.tobytes()) for name, tensor in read_tensors(path, where)}
