"""The transformer for serving: many conversations at once, each with the numbers that it would have alone.

A float product may round differently when a batch has other rows: libraries choose another kernel for another shape, and the same
request then draws another token because a stranger asked something at the same moment. Here
  - a product is oneDNN's with weights packed once, whose rows do not depend on how many there are (and which does not pack the
    weights anew for each call, as a plain product of few rows does);
  - each row attends alone over its own length;
  - a prompt is read alone, in chunks that begin at multiples of CHUNK, whatever else is under way.
That the first holds on this machine, for these weights and threads, is measured when the decoder is made (`decodes_alike`); where it
does not, rows are decoded one at a time.

Shape suffixes: N rows (tokens of one prompt, or one token of each of N conversations), D width, H heads, K key/value heads, E head_dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from openhearth.model.ops import rms_norm
from openhearth.model.transformer import Block, Transformer, rotary_tables, rotate

CHUNK = 128
"""Tokens of a prompt that are read in one go; between two chunks the others get their next token."""

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Product:
    """`x @ weight.T` for any number of rows; see the module's text for why it is not `F.linear`."""

    def __init__(self, *weights: Tensor) -> None:
        weight = torch.cat(weights) if len(weights) > 1 else weights[0]
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
        self.together = True
        self.together = slots == 1 or self.decodes_alike()

    @torch.inference_mode()
    def prefill(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Read `ids` at positions `start`, ... into `slot`; returns the normed hidden states, (len(ids), D)."""
        end = start + len(ids)

        def attend(layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> Tensor:
            keys, values = self.keys[layer, slot, :, :end], self.values[layer, slot, :, :end]
            keys[:, start:], values[:, start:] = k_NKE.transpose(0, 1), v_NKE.transpose(0, 1)
            mask = torch.ones(len(ids), end, dtype=torch.bool).tril(start)
            return _attention(q_NHE.transpose(0, 1), keys, values, mask).transpose(0, 1)

        return self._hidden(torch.tensor(list(ids)), torch.arange(start, end), attend)

    @torch.inference_mode()
    def decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """One more token in each of `slots`, at its position there; returns fp32 logits, (len(ids), vocabulary)."""
        if not self.together:
            rows = zip(ids, slots, positions, strict=True)
            return torch.cat([self.logits(self._decode([token], [slot], [position])) for token, slot, position in rows])
        return self.logits(self._decode(ids, slots, positions))

    def _decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        where, at = torch.tensor(slots), torch.tensor(positions)

        def attend(layer: int, q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[where, :, at], values[where, :, at] = k_NKE, v_NKE
            rows = [
                _attention(q_NHE[row, :, None], keys[slot, :, : position + 1], values[slot, :, : position + 1])
                for row, (slot, position) in enumerate(zip(slots, positions, strict=True))
            ]
            return torch.cat(rows, dim=1).transpose(0, 1)

        return self._hidden(torch.tensor(ids), at, attend)

    @torch.inference_mode()
    def logits(self, hidden_ND: Tensor) -> Tensor:
        """fp32 logits, (N, vocabulary)."""
        return self.head(hidden_ND)

    @torch.inference_mode()
    def embed(self, ids: Sequence[int]) -> Tensor:
        """The mean of the normed hidden states of a text, scaled to length 1; (D,)."""
        chunks = [self.prefill(self.slots, ids[start : start + CHUNK], start) for start in range(0, len(ids), CHUNK)]
        return F.normalize(torch.cat(chunks).mean(0), dim=0)

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` positions of `source`."""
        self.keys[:, target, :, :length] = self.keys[:, source, :, :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @torch.inference_mode()
    def decodes_alike(self) -> bool:
        """Whether each of several rows gets the very bits that it gets alone. Writes into all slots.

        Tried are all batches up to 16 rows, then every 16th size and the largest.
        """
        ids = [number * 7 % self.config.vocab_size for number in range(self.slots)]
        sizes = {*range(2, min(self.slots, 16) + 1), *range(32, self.slots, 16), self.slots}
        alone = torch.cat([self.logits(self._decode([token], [slot], [0])) for slot, token in enumerate(ids)])
        return all(torch.equal(self.logits(self._decode(ids[:size], range(size), [0] * size)), alone[:size]) for size in sizes)

    def _hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        config, eps = self.config, self.config.rms_norm_eps
        cos, sin = self.cos[positions_N, None], self.sin[positions_N, None]
        x_ND = F.embedding(ids_N, self.embedding)
        for number, layer in enumerate(self.layers):
            qkv_NHE = layer.qkv(rms_norm(x_ND, layer.norm, eps)).view(len(ids_N), -1, config.head_dim)
            q, k, v = torch.split(qkv_NHE, [config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1)
            q, k = rotate(rms_norm(q, layer.q_norm, eps), cos, sin), rotate(rms_norm(k, layer.k_norm, eps), cos, sin)
            y_NHE = attend(number, q, k, v)
            x_ND = x_ND + layer.out(y_NHE.flatten(1))
            gate, up = layer.gate_up(rms_norm(x_ND, layer.mlp_norm, eps)).chunk(2, dim=-1)
            x_ND = x_ND + layer.down(F.silu(gate).mul_(up))
        return rms_norm(x_ND, self.norm, eps)


def _attention(q_HSE: Tensor, k_KLE: Tensor, v_KLE: Tensor, mask_SL: Tensor | None = None) -> Tensor:
    """Attention of one conversation; heads share keys in groups. (H, S, E)."""
    grouped = q_HSE.shape[0] != k_KLE.shape[0]
    return F.scaled_dot_product_attention(q_HSE[None], k_KLE[None], v_KLE[None], attn_mask=mask_SL, enable_gqa=grouped)[0]
