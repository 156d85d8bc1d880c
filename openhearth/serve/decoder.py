"""The transformer for serving: many conversations at once, each with the numbers that it would have alone.

A float product may round differently when a batch has other rows: libraries choose another kernel for another shape, and the same
request then draws another token because a stranger asked something at the same moment. Here
  - a product is oneDNN's with weights packed once, whose rows do not depend on how many there are (and which does not pack the
    weights anew for each call, as a plain product of few rows does);
  - each conversation attends alone, over its own length;
  - a prompt is read in chunks that begin at multiples of CHUNK, whatever else is in the same pass.
That the first holds on this machine, for these weights and threads, is measured when the decoder is made (`rows_alike`); where it does
not, conversations take their passes one after another.

Shape suffixes: N rows (the tokens of all segments), D width, H heads, K key/value heads, E head_dim, S a segment's rows, L its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from openhearth.model.transformer import Block, Transformer, rotary_tables, rotate

CHUNK = 128
"""Tokens of a prompt that are read in one pass; at the same time the others get their next token."""

PROMPT_TOKENS = 2 * CHUNK
"""Tokens of prompts in one pass at most, so that those who wait for their next token do not wait long."""


@dataclass(frozen=True)
class Segment:
    """Tokens that follow one another in one conversation: a chunk of a prompt, or the last token of an answer."""

    slot: int
    ids: Sequence[int]
    start: int
    """The position of the first one."""


class Product:
    """`x @ weight.T` for any number of rows; see the module's text for why it is not `F.linear`."""

    def __init__(self, *weights: Tensor) -> None:
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
        self.width = weight.shape[1]
        self.packed = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 16) if self.packed else weight

    def __call__(self, x_ND: Tensor) -> Tensor:
        if self.packed:
            out: Tensor = torch.ops.mkldnn._linear_pointwise(x_ND, self.weight, None, "none", [], "")
            return out
        return F.linear(x_ND, self.weight)


class Layer:
    """A block with its products packed: three become one where they read the same input."""

    def __init__(self, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        self.norm, self.mlp_norm = block.input_layernorm.weight, block.post_attention_layernorm.weight
        self.q_norm, self.k_norm = attention.q_norm.weight, attention.k_norm.weight
        self.qkv = Product(attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight)
        self.out = Product(attention.o_proj.weight)
        self.gate_up = Product(mlp.gate_proj.weight, mlp.up_proj.weight)
        self.down = Product(mlp.down_proj.weight)


class Decoder:
    """A model and a pool of key/value slots. Not for several threads: whoever owns it calls it."""

    @torch.inference_mode()
    def __init__(self, model: Transformer, slots: int) -> None:
        """`slots` conversations can be under way at once; memory is taken as their tokens come."""
        config = self.config = model.config
        self.slots = slots
        self.embedding = model.model.embed_tokens.weight
        self.cos, self.sin = rotary_tables(config)
        self.layers = [Layer(block) for block in model.model.layers]  # type: ignore[arg-type]
        self.norm = model.model.norm.weight
        self.head = Product(model.lm_head.weight)
        shape = (config.num_layers, slots + 1, config.num_kv_heads, config.max_position_embeddings, config.head_dim)
        self.keys, self.values = torch.empty(shape), torch.empty(shape)  # a page is real memory only once it is written
        # the last slot is for `embed`
        self.together = self.rows_alike(slots)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """Read `segments`, each after what its slot holds; returns the normed hidden states of all their tokens, (N, D)."""
        if self.together:
            return self._forward(segments)
        return torch.cat([self._forward([segment]) for segment in segments])

    def _forward(self, segments: Sequence[Segment]) -> Tensor:
        config, eps = self.config, self.config.rms_norm_eps
        width, head = (config.hidden_size,), (config.head_dim,)
        sizes = [len(segment.ids) for segment in segments]
        ids_N = torch.tensor([token for segment in segments for token in segment.ids])
        slots_N = torch.tensor([segment.slot for segment in segments]).repeat_interleave(torch.tensor(sizes))
        at_N = torch.cat([torch.arange(one.start, one.start + size) for one, size in zip(segments, sizes, strict=True)])
        masks = [
            torch.ones(size, one.start + size, dtype=torch.bool).tril(one.start) if size > 1 else None
            for one, size in zip(segments, sizes, strict=True)
        ]
        heads = [config.num_heads, config.num_kv_heads, config.num_kv_heads]
        cos, sin = self.cos[at_N, None], self.sin[at_N, None]
        x_ND = F.embedding(ids_N, self.embedding)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            qkv_NHE = layer.qkv(F.rms_norm(x_ND, width, layer.norm, eps)).view(len(ids_N), -1, config.head_dim)
            q, k, v = torch.split(qkv_NHE, heads, dim=1)
            q, k = rotate(F.rms_norm(q, head, layer.q_norm, eps), cos, sin), rotate(F.rms_norm(k, head, layer.k_norm, eps), cos, sin)
            keys[slots_N, :, at_N], values[slots_N, :, at_N] = k, v
            y_NHE = torch.cat([
                _attention(q_SHE, keys[one.slot, :, : one.start + size], values[one.slot, :, : one.start + size], mask)
                for q_SHE, one, size, mask in zip(torch.split(q, sizes), segments, sizes, masks, strict=True)
            ])  # fmt: skip
            x_ND = x_ND + layer.out(y_NHE.flatten(1))
            gate, up = layer.gate_up(F.rms_norm(x_ND, width, layer.mlp_norm, eps)).chunk(2, dim=-1)
            x_ND = x_ND + layer.down(F.silu(gate).mul_(up))
        return F.rms_norm(x_ND, width, self.norm, eps)

    @torch.inference_mode()
    def logits(self, hidden_ND: Tensor) -> Tensor:
        """fp32 logits, (N, vocabulary)."""
        return self.head(hidden_ND)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """The mean of the normed hidden states of a text, scaled to length 1; (D,)."""
        chunks = [self._forward([Segment(self.slots, ids[start : start + CHUNK], start)]) for start in range(0, len(ids), CHUNK)]
        return F.normalize(torch.cat(chunks).mean(0), dim=0)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @torch.inference_mode()
    def rows_alike(self, slots: int) -> bool:
        """Whether each row of a product has the very bits that it has alone, for each shape of weights that the model has.

        Tried are products of 2 to 16 rows, of each power of two, and of as many as a pass can have.
        """
        largest = slots + PROMPT_TOKENS
        sizes = [*range(2, 17), *(size for size in (32, 64, 128, 256, 512, 1024) if size < largest), largest]
        first = self.layers[0]
        for product in (first.qkv, first.out, first.gate_up, first.down, self.head):
            x_ND = torch.randn(largest, product.width, generator=torch.Generator().manual_seed(0))
            alone = torch.cat([product(x_ND[row : row + 1]) for row in range(16)])
            if not all(torch.equal(product(x_ND[:size])[:16], alone[:size]) for size in sizes):
                return False
        return True


def _attention(q_SHE: Tensor, k_KLE: Tensor, v_KLE: Tensor, mask_SL: Tensor | None) -> Tensor:
    """Attention of one segment over its conversation; heads share keys in groups. (S, H, E)."""
    grouped = q_SHE.shape[1] != k_KLE.shape[0]
    q_HSE = q_SHE.transpose(0, 1)
    y_HSE = F.scaled_dot_product_attention(q_HSE[None], k_KLE[None], v_KLE[None], attn_mask=mask_SL, enable_gqa=grouped)[0]
    return y_HSE.transpose(0, 1)
