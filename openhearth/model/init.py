"""Initial weights, drawn by parameter name.

Every tensor comes from its own counter-based generator keyed by (seed, name), through integers and one exact division: any
sharding, order or processor starts from the same bits. `initialise` is exhaustive: a name without a rule is an error.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from openhearth.model.config import ModelConfig


def uniform(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """fp32 values in [-1, 1), multiples of 2^-23, from Philox keyed by (seed, name)."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key).random_raw(int(np.prod(shape))) >> np.uint64(40)
    return (bits.astype(np.float32) / np.float32(2**23) - np.float32(1)).reshape(shape)


def standard_deviation(name: str, config: ModelConfig) -> float | None:
    """The spread of a parameter's initial values; None: a norm's gain, which starts at one. Raises KeyError for an unknown name.

    Output projections start at zero, so that every block begins as the identity; the head starts small, so that the first loss
    is ln(vocabulary); other matrices keep the size of their input (1 / sqrt(width)). An embedding that is also the head must be as small
    as a head: its logits then have a spread of one.
    """
    kind = name.removesuffix(".weight").rsplit(".", 1)[-1]
    if kind.endswith("norm"):
        return None
    spread: dict[str, float] = {
        "embed_tokens": config.hidden_size**-0.5 if config.tie_word_embeddings else 0.3,
        "lm_head": config.hidden_size**-0.5 if config.tie_word_embeddings else 0.001,
        "q_proj": config.hidden_size**-0.5,
        "k_proj": config.hidden_size**-0.5,
        "v_proj": config.hidden_size**-0.5,
        "o_proj": 0.0,
        "gate_proj": 0.5 * config.hidden_size**-0.5,
        "up_proj": 0.5 * config.hidden_size**-0.5,
        "down_proj": 0.0,
    }
    return spread[kind]


def initial_tensor(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> Tensor:
    """The initial value of the parameter `name`, fp32."""
    deviation = standard_deviation(name, config)
    if deviation is None:
        return torch.ones(shape)
    if deviation == 0.0:
        return torch.zeros(shape)
    return torch.from_numpy(uniform(seed, name, shape) * np.float32(deviation * 3**0.5))


@torch.no_grad()
def initialise(model: torch.nn.Module, config: ModelConfig, seed: int) -> None:
    """Give every parameter its initial value."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_tensor(name, tuple(parameter.shape), config, seed))
