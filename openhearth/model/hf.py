"""Weights in the Hugging Face layout: one safetensors file and a `config.json`, equal weights in equal bytes.

safetensors writes several metadata keys in random order; with exactly one key its bytes depend on the tensors alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from openhearth.errors import DamagedError
from openhearth.ledger import write_atomic
from openhearth.model.config import CONFIG as CONFIG
from openhearth.model.config import ModelConfig
from openhearth.model.config import load_config as load_config
from openhearth.model.transformer import Transformer, rotary_tables

WEIGHTS = "model.safetensors"


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a released model, computed from its shape alone."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def save_model(state: Mapping[str, Tensor] | Transformer, config: ModelConfig, folder: Path) -> None:
    """Write `model.safetensors` (fp32) and `config.json` into `folder`, each atomically."""
    tensors = dict(state.named_parameters()) if isinstance(state, Transformer) else state
    shapes = tensor_shapes(config)
    ordered = {name: tensors[name].detach().to(torch.float32).contiguous() for name in sorted(shapes)}
    write_atomic(folder / WEIGHTS, save(ordered, metadata={"format": "pt"}))
    write_atomic(folder / CONFIG, (json.dumps(config.to_hf(), indent=2, sort_keys=True) + "\n").encode())


def load_tensors(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors in `folder/model.safetensors`, fp32; raises DamagedError unless names, shapes and finiteness are as configured."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise DamagedError(f"{path}: missing")
    if config.parameters * 4 > 2 * path.stat().st_size + 1_000_000:
        raise DamagedError(f"{path}: smaller than the {config.parameters:,} parameters that config.json describes")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(f"{path}: not readable as safetensors ({error})") from None
    shapes = tensor_shapes(config)
    if missing := sorted(set(shapes) - set(tensors)):
        raise DamagedError(f"{path}: tensor {missing[0]} is missing")
    if extra := sorted(set(tensors) - set(shapes)):
        raise DamagedError(f"{path}: tensor {extra[0]} does not belong to the configured shape")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DamagedError(f"{path}: tensor {name} has shape {tuple(tensors[name].shape)}, config.json says {shape}")
        if not torch.isfinite(tensors[name]).all():
            raise DamagedError(f"{path}: tensor {name} holds values that are not finite")
    return {name: tensor.float() for name, tensor in tensors.items()}


def load_model(folder: Path) -> Transformer:
    """The model in `folder`, fp32, ready to read and generate."""
    config = load_config(folder)
    tensors = load_tensors(folder, config)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(tensors, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    model.cos, model.sin = rotary_tables(config)
    return model.eval().requires_grad_(False)
