"""The one decoder: the exact Qwen3 layout, so that what is trained here loads in transformers, vLLM and llama.cpp unchanged.

Pre-RMSNorm, per-head QK-norm, rotary positions, grouped queries, SwiGLU, no biases. Parameters carry the names of
`Qwen3ForCausalLM`. Shape suffixes: B batch, S sequence, D width, H heads, K key/value heads, E head_dim, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openhearth.model.config import ModelConfig
from openhearth.model.ops import head_loss, rms_norm, swiglu


class RMSNorm(nn.Module):
    """Root-mean-square norm with a gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class KVCache:
    """Keys and values of what was read so far, for generation. `valid_BS` marks the positions that are not padding."""

    def __init__(self, config: ModelConfig, batch: int, capacity: int) -> None:
        shape = (config.num_layers, batch, config.num_kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)
        self.valid_BS = torch.zeros(batch, capacity, dtype=torch.bool)
        self.length = 0


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """cos and sin, (max_position_embeddings, head_dim / 2), fp32 (Su et al. 2021; the half-split layout of Hugging Face)."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / (config.rope_theta**exponent)
    angles = torch.arange(config.max_position_embeddings, dtype=torch.float32)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BHSE: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) by its position's angle."""
    first, second = x_BHSE.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with grouped queries and per-head QK-norm."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, x_BSD: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None) -> Tensor:
        batch, length, _ = x_BSD.shape
        q = self.q_norm(self.q_proj(x_BSD).view(batch, length, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x_BSD).view(batch, length, self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x_BSD).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is None:
            mask = None
        else:
            end = cache.length + length
            cache.keys[self.layer, :, :, cache.length : end] = k
            cache.values[self.layer, :, :, cache.length : end] = v
            k, v = cache.keys[self.layer, :, :, :end], cache.values[self.layer, :, :, :end]
            causal = torch.ones(length, end, dtype=torch.bool).tril(cache.length)
            mask = (cache.valid_BS[:, None, None, :end] & causal) | torch.eye(length, end, dtype=torch.bool).roll(cache.length, 1)
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, length, self.heads * self.head_dim))
        return out


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BSD: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None = None) -> Tensor:
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), cos, sin, cache)
        out: Tensor = x_BSD + self.mlp(self.post_attention_layernorm(x_BSD))
        return out


class Trunk(nn.Module):
    """Embedding, blocks and the last norm; the prefix `model.` of the parameter names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Transformer(nn.Module):
    """A decoder language model: ids in, fp32 logits out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, ids_BS: Tensor, cache: KVCache | None = None, positions_BS: Tensor | None = None) -> Tensor:
        """The normed last hidden state, (batch, sequence, width), in the weights' dtype. Positions default to 0, 1, 2, ..."""
        if positions_BS is None:
            cos, sin = self.cos[: ids_BS.shape[1]], self.sin[: ids_BS.shape[1]]  # type: ignore[index]
        else:
            cos, sin = self.cos[positions_BS][:, None], self.sin[positions_BS][:, None]  # type: ignore[index]
        x_BSD = self.model.embed_tokens(ids_BS)
        for block in self.model.layers:
            x_BSD = block(x_BSD, cos, sin, cache)
        if cache is not None:
            cache.length += ids_BS.shape[1]
        normed: Tensor = self.model.norm(x_BSD)
        return normed

    def forward(self, ids_BS: Tensor, cache: KVCache | None = None, positions_BS: Tensor | None = None) -> Tensor:
        """fp32 logits, (batch, sequence, vocab). With a cache, `ids` follow what the cache already holds."""
        if cache is not None and positions_BS is None:
            start = cache.length
            positions_BS = torch.arange(start, start + ids_BS.shape[1]).expand(ids_BS.shape[0], -1)
            cache.valid_BS[:, start : start + ids_BS.shape[1]] = True
        logits: Tensor = self.lm_head(self.hidden(ids_BS, cache, positions_BS))
        return logits.float()

    def loss(self, ids_BS: Tensor, targets_BS: Tensor, scale: float) -> Tensor:
        """Cross-entropy in nats, summed over the targets that are not -1 and multiplied by `scale`; fp32."""
        hidden = self.hidden(ids_BS)
        return head_loss(hidden.flatten(0, 1), self.lm_head.weight, targets_BS.flatten(), scale)
