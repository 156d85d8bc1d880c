"""Bytes per device of a training run, part by part: weights, gradients, optimiser, activations, logits, buffers, framework.

Every part is a count from the shape times bytes per element, divided by the ways in which a layout divides it. The layout's numbers may
be arrays, so that a search over ten thousand layouts is one call. Sources: Rajbhandari et al. 2020 (ZeRO) for the states, Korthikanti
et al. 2022 for the activations, Dao et al. 2022 for attention without its matrix; docs/plan/memory.md derives each line and says how far
the sums lie from measured ones.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from openhearth.errors import HearthError, nearest
from openhearth.plan.shapes import Shape

Numbers = Any
"""An int, a float, or a numpy array of them."""
Names = Any
"""A str, or a numpy array of them."""

FIT_LIMIT = 0.9
"""The share of a device's memory that a plan may fill: the allocator loses 5 to 10 % to fragments."""
FRAMEWORK_BYTES = 1e9
"""Of the CUDA context and the communication library, before the first tensor."""
LOSSES = {"plain": (10, 2, 6), "compiled": (4, 0, 0), "chunked": (10, 2, 6)}
"""Bytes per token and entry of the vocabulary of the logits, and what their backward pass adds at its peak, on one rank and on several.
Plain: 2 of the logits, 4 of their fp32 copy, 4 of the logarithm of the softmax; backward 4 of that, of its gradient and of the result, and
4 more in torch's loss over a divided vocabulary. Compiled: 2 of the logits, 2 of the gradient. Chunked: plain, some tokens at a time."""
LOSS_CHUNK = 1024
"""Tokens whose logits exist at once when the loss is computed in chunks."""


@dataclass(frozen=True)
class Precision:
    """Bytes per parameter of each state; `moment` of one optimiser state, `gathered` of a weight while ZeRO-3 has it whole, `element` of an
    activation."""

    weights: float
    gradients: float
    master: float
    moment: float
    gathered: float
    element: float
    title: str


PRECISIONS: dict[str, Precision] = {
    "bf16-mixed": Precision(2, 2, 4, 4, 2, 2, "bf16 weights and gradients, fp32 master weights and optimiser"),
    "fp16-mixed": Precision(2, 2, 4, 4, 2, 2, "fp16 weights and gradients, fp32 master weights and optimiser"),
    "fp8-mixed": Precision(2, 2, 4, 4, 2, 2, "matrix products in fp8; states and activations as bf16-mixed"),
    "megatron": Precision(2, 4, 4, 4, 2, 2, "bf16 weights, fp32 gradients, master weights and optimiser"),
    "fsdp2": Precision(4, 4, 0, 4, 2, 2, "fp32 weights that are gathered as bf16, fp32 gradients and optimiser: torchtitan"),
    "fp32": Precision(4, 4, 0, 4, 4, 4, "everything in fp32"),
    "bf16": Precision(2, 2, 0, 2, 2, 2, "everything in bf16"),
}

OPTIMIZERS: dict[str, str] = {
    "adamw": "two moments",
    "adamw-8bit": "two moments of one byte (Dettmers et al. 2022)",
    "adafactor": "row and column sums of the second moment (Shazeer and Stern 2018)",
    "muon": "one moment",
    "sgd-momentum": "one moment",
    "sgd": "none",
}

BASES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes per frozen element under LoRA; nf4 has an fp32 scale per 64 elements, quantised once more in 'double' (Dettmers et al. 2023)."""

SHARDINGS = {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3}
"""How many of optimiser, gradients and weights are cut over the data-parallel ranks."""

RECOMPUTE = ("none", "selective", "operations", "full")
"""What the backward pass computes again: nothing; the attention matrix; torchtitan's choice of operations; all but a layer's input."""


@dataclass(frozen=True)
class Layout:
    """How a run is laid over devices. Everything may be arrays of one shape; expert ranks lie inside data x context."""

    data: Numbers = 1
    tensor: Numbers = 1
    pipeline: Numbers = 1
    context: Numbers = 1
    expert: Numbers = 1
    sharding: Names = "none"
    sequence_parallel: bool = False
    recompute: Names = "none"
    micro_batch: Numbers = 1  # sequences per device group and pass
    chunks: Numbers = 1  # of layers per pipeline stage: interleaved schedules have more than one

    def __post_init__(self) -> None:
        for name, table in (("sharding", SHARDINGS), ("recompute", RECOMPUTE)):
            if isinstance(value := getattr(self, name), str):
                known(value, table, name)
        for name in ("data", "tensor", "pipeline", "context", "expert", "micro_batch", "chunks"):
            if np.any(np.asarray(getattr(self, name)) < 1):
                raise HearthError(f"layout: {name} must be at least 1, not {getattr(self, name)}")

    @property
    def devices(self) -> Numbers:
        """Devices in all."""
        return self.data * self.tensor * self.pipeline * self.context

    @functools.cached_property
    def level(self) -> Numbers:
        """How many of optimiser, gradients and weights are cut over the shards."""
        return per_name(SHARDINGS, self.sharding, "sharding")

    @property
    def shards(self) -> Numbers:
        """Ranks over which ZeRO cuts the states: data and context ranks hold the same weights."""
        return self.data * self.context


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device, or arrays of them."""

    weights: Numbers
    gradients: Numbers
    optimizer: Numbers
    activations: Numbers
    logits: Numbers
    buffers: Numbers
    framework: Numbers

    @property
    def total(self) -> Numbers:
        """The sum of all parts."""
        return sum(getattr(self, part.name) for part in fields(self))

    def fits(self, capacity: Numbers) -> Any:
        """Whether it fits a device of this many bytes, with a tenth left to the allocator."""
        return self.total <= FIT_LIMIT * capacity

    def at(self, i: int) -> Memory:
        """Of arrays, the ones at this place."""
        return Memory(**{name: at(value, i) for name, value in self.parts().items()})

    def parts(self) -> dict[str, Numbers]:
        """The parts by name, in the order of a stacked bar."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


def memory(
    shape: Shape,
    layout: Layout,
    *,
    sequence_length: Numbers,
    precision: str = "bf16-mixed",
    optimizer: str = "adamw",
    flash: bool = True,
    dropout: bool = False,
    loss: str = "chunked",
    micro_batches: Numbers | None = None,
    lora_rank: int = 0,
    base: str = "bf16",
    framework_bytes: float = FRAMEWORK_BYTES,
) -> Memory:
    """Bytes per part on the fullest device: the first pipeline stage (most activations) or the last (head and logits).

    `flash`: attention without its matrix in memory. `dropout`: of attention and both residual branches, as GPT-2 trains. `loss`: how the
    logits are held, see `LOSSES`. `micro_batches` per step and pipeline bound how many are in flight. `lora_rank` above 0 trains adapters
    on all matrices over a frozen `base`.

    Raises HearthError for names that are not known and layouts that do not divide the shape.
    """
    check(shape, layout, sequence_length)
    each = {"sequence_length": sequence_length, "tensor": layout.tensor, "sequence_parallel": layout.sequence_parallel}
    each |= {"flash": flash, "dropout": dropout, "element": known(precision, PRECISIONS, "precision").element}
    per_token = tuple(activations_per_token(shape, recompute=way, **each) for way in (layout.recompute, "none"))
    stages = [
        _stage(shape, layout, sequence_length, precision, optimizer, loss, micro_batches, lora_rank, base, which, *per_token)
        for which in ("first", "last")
    ]
    first, last = (replace(stage, framework=stage.framework + framework_bytes) for stage in stages)
    if np.ndim(first.total) == 0 and np.ndim(last.total) == 0:
        return first if first.total >= last.total else last
    fuller = np.asarray(first.total >= last.total)
    return Memory(**{name: np.where(fuller, value, getattr(last, name)) for name, value in first.parts().items()})


def check(shape: Shape, layout: Layout, sequence_length: Numbers = 1) -> None:
    """Refuse a layout that cannot be laid over this shape, naming the numbers. For arrays every element must be possible."""
    experts = shape.experts.count if shape.experts else 1
    rules = (
        (layout.tensor, shape.num_heads, "tensor", f"the {shape.num_heads} heads"),
        (layout.expert, experts, "expert", f"the {experts} experts"),
        (layout.expert, layout.shards, "expert", "the data and context ranks"),
        (layout.context, sequence_length, "context", f"a sequence of {sequence_length}"),
    )
    for ways, whole, name, said in rules:
        if np.any(np.asarray(whole) % np.asarray(ways)):
            raise HearthError(f"layout: {name} {ways} does not divide {said}")
    if np.any(np.asarray(layout.pipeline) * np.asarray(layout.chunks) > shape.num_layers):
        raise HearthError(f"layout: pipeline {layout.pipeline} x chunks {layout.chunks} is more than the {shape.num_layers} layers")


# -- states ------------------------------------------------------------------------------------------------------------------------


def states(
    parameters: Numbers,
    *,
    precision: str = "bf16-mixed",
    optimizer: str = "adamw",
    sharding: Names = "none",
    shards: Numbers = 1,
    factors: Numbers = 0,
) -> tuple[Numbers, Numbers, Numbers]:
    """Bytes of weights, gradients and optimiser (master weights with it) for `parameters` on a device before sharding over `shards`.

    Mixed AdamW is 2 + 2 + 12 = 16 bytes per parameter: ZeRO-1 cuts the 12, ZeRO-2 also the gradients, ZeRO-3 (FSDP) also the weights
    (Rajbhandari et al. 2020, section 3). `factors` are Adafactor's row and column sums.
    """
    return _states(parameters, precision, optimizer, per_name(SHARDINGS, sharding, "sharding"), shards, factors)


def _states(
    parameters: Numbers, precision: str, optimizer: str, level: Numbers, shards: Numbers, factors: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    bytes_ = known(precision, PRECISIONS, "precision")
    weights = bytes_.weights * parameters / where(level >= 3, shards, 1)
    gradients = bytes_.gradients * parameters / where(level >= 2, shards, 1)
    moments = optimizer_bytes(optimizer, precision) * parameters + (4 * factors if optimizer == "adafactor" else 0)
    return weights, gradients, (bytes_.master * parameters + moments) / where(level >= 1, shards, 1)


def optimizer_bytes(optimizer: str, precision: str) -> float:
    """Bytes of moments per parameter."""
    known(optimizer, OPTIMIZERS, "optimizer")
    moment = PRECISIONS[precision].moment
    return {"adamw": 2 * moment, "adamw-8bit": 2.0, "muon": moment, "sgd-momentum": moment}.get(optimizer, 0.0)


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Parameters of LoRA on every matrix of every layer: rank x (inputs + outputs) each (Hu et al. 2021). Of experts, each its own."""
    return rank * _widths(shape)


def _widths(shape: Shape) -> int:
    """Inputs plus outputs of every matrix of every layer: what LoRA and Adafactor grow with."""
    hidden, queries, keys = shape.hidden_size, shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    if shape.latent:
        low = shape.latent
        inner, values = low.rank + low.rope_dim, shape.num_heads * low.value_dim
        into = 2 * low.query_rank + hidden + queries if low.query_rank else hidden + queries
        attention = into + hidden + inner + low.rank + shape.num_heads * (low.nope_dim + low.value_dim) + values + hidden
    else:
        attention = 2 * (hidden + queries) + 2 * (hidden + keys)
    matrices = 3 if shape.gated else 2
    total = shape.num_layers * attention + shape.dense_layers * matrices * (hidden + shape.intermediate_size)
    if shape.experts:
        own = shape.experts.count * (hidden + shape.experts.intermediate_size)
        shared = hidden + shape.experts.shared_intermediate_size if shape.experts.shared_intermediate_size else 0
        total += shape.experts.layers * matrices * (own + shared)
    return total


# -- activations -------------------------------------------------------------------------------------------------------------------


def activations_per_token(
    shape: Shape,
    *,
    sequence_length: Numbers,
    tensor: Numbers = 1,
    sequence_parallel: bool = False,
    recompute: Names = "none",
    flash: bool = True,
    dropout: bool = False,
    element: float = 2,
) -> Numbers:
    """Bytes that one token leaves for the backward pass in an average layer (Korthikanti et al. 2022, section 4, generalised).

    Kept whole by tensor parallelism: inputs of norms, of the query matrix, of the feed-forward; masks of dropout. Divided: queries,
    keys, values, what attention gives, the inside of the feed-forward, the attention matrix without flash. With GPT's block this is
    34 h + 5 a s bytes, 10 h + 24 h / t + 5 a s / t on t ranks, and (34 h + 5 a s) / t with sequence parallelism.
    """
    if not isinstance(recompute, str):
        given = {"sequence_length": sequence_length, "tensor": tensor, "sequence_parallel": sequence_parallel}
        given |= {"flash": flash, "dropout": dropout, "element": element}
        ways = [way for way in RECOMPUTE if (recompute == way).any()]
        return np.select([recompute == way for way in ways], [activations_per_token(shape, recompute=way, **given) for way in ways])
    known(recompute, RECOMPUTE, "recompute")
    hidden = shape.hidden_size
    ranks = tensor if sequence_parallel else 1
    if recompute == "full":
        return element * hidden / ranks
    queries, keys, values, low = _attention_widths(shape)
    inside, dispatched = _feed_forward_widths(shape)
    if recompute == "operations":  # torchtitan: every second matrix product and attention's output are kept, the rest is computed again
        kept = element * (queries + values + shape.num_heads * (shape.latent.value_dim if shape.latent else shape.head_dim))
        return element * 2 * hidden / ranks + (kept + element * inside / (4 if shape.gated else 2)) / tensor
    inputs = shape.norms_per_layer + (2 if shape.norms_per_layer > 1 else 1)
    whole = element * (inputs * hidden + low) + (2 * hidden if dropout else 0)
    normed = queries + keys if shape.query_key_norm != "none" else 0
    output = shape.num_heads * (shape.latent.value_dim if shape.latent else shape.head_dim)
    divided = element * (queries + keys + values + output + normed + inside + dispatched)
    if not flash and recompute != "selective":
        matrix = shape.num_heads * sequence_length * (2 * element + 1 if dropout else element)
        divided = divided + matrix
    return whole / ranks + divided / tensor


def _attention_widths(shape: Shape) -> tuple[int, int, int, int]:
    """Elements per token of queries, keys, values, and of the low-rank vectors before them."""
    if shape.latent:
        wide = shape.num_heads * (shape.latent.nope_dim + shape.latent.rope_dim)
        return wide, wide, shape.num_heads * shape.latent.value_dim, shape.latent.rank + shape.latent.rope_dim + shape.latent.query_rank
    keys = shape.num_kv_heads * shape.head_dim
    return shape.num_heads * shape.head_dim, keys, keys, 0


def _feed_forward_widths(shape: Shape) -> tuple[float, float]:
    """Elements per token inside the feed-forward of an average layer (two projections, their activation, the product: four times the width
    when gated, twice otherwise), and of the copies that go to experts and come back."""
    times = 4 if shape.gated else 2
    if shape.experts is None:
        return times * shape.intermediate_size, 0
    share = shape.experts.layers / shape.num_layers
    routed = shape.experts.per_token * shape.experts.intermediate_size + shape.experts.shared_intermediate_size
    return times * ((1 - share) * shape.intermediate_size + share * routed), 2 * share * shape.experts.per_token * shape.hidden_size


def layers_in_flight(shape: Shape, layout: Layout, which: str = "first", micro_batches: Numbers | None = None) -> Numbers:
    """Layers times micro-batches whose activations a stage holds at once, under 1F1B or its interleaved form.

    The first of p stages with m chunks holds L (1 + (p - 1) / (p m)) (Korthikanti et al. 2022, section 4.2.3), with one chunk L; the
    last holds one micro-batch.
    """
    per_chunk = _layers_per_stage(shape, layout) / layout.chunks
    behind = layout.pipeline - 1 if which == "first" else 0 * layout.pipeline
    interleaved = 2 * behind + (layout.chunks - 1) * layout.pipeline + 1
    held = np.where(np.asarray(layout.chunks) > 1, interleaved, behind + 1)
    if micro_batches is not None:
        held = np.minimum(held, micro_batches * layout.chunks)
    flying = per_chunk * held
    return flying if np.ndim(flying) else float(flying)


def _layers_per_stage(shape: Shape, layout: Layout) -> Numbers:
    ways = layout.pipeline * layout.chunks
    return -(-shape.num_layers // ways) * layout.chunks


# -- one stage ---------------------------------------------------------------------------------------------------------------------


def _stage(
    shape: Shape,
    layout: Layout,
    sequence_length: Numbers,
    precision: str,
    optimizer: str,
    loss: str,
    micro_batches: Numbers | None,
    lora_rank: int,
    base: str,
    which: str,
    kept: Numbers,
    whole: Numbers,
) -> Memory:
    """The parts on a device of the first or the last pipeline stage, without the framework; a token leaves `kept` bytes in a layer, and
    `whole` while that layer is gone back through.

    A pipeline cuts gradients, and gives gathered weights back, only after its last micro-batch.
    """
    bytes_ = known(precision, PRECISIONS, "precision")
    layers = _layers_per_stage(shape, layout)
    experts = shape.experts.layers * shape.experts.count * shape.expert_parameters if shape.experts else 0
    shared_layer = (shape.layer_parameters - experts) / shape.num_layers / layout.tensor
    expert_layer = experts / shape.num_layers / layout.tensor / layout.expert
    ends = _ends(shape, layout, which) / layout.tensor
    level = layout.level
    pipelined = np.asarray(layout.pipeline) > 1

    weights = gradients = optimizer_ = 0.0
    groups = [(layers * shared_layer + ends, layout.shards)] + ([(layers * expert_layer, layout.shards / layout.expert)] if experts else [])
    for parameters, shards in groups:
        trained = parameters
        if lora_rank:
            share = known(base, BASES, "base")
            trained = adapter_parameters(shape, lora_rank) * parameters / shape.parameters
            matrices = parameters * (1 - (shape.embedding_parameters + shape.projection_parameters) / shape.parameters)
            frozen = share * matrices + bytes_.element * (parameters - matrices)
            weights = weights + frozen / where(level >= 3, shards, 1)
        factors = _widths(shape) * trained / shape.parameters if optimizer == "adafactor" else 0
        parts = _states(trained, precision, optimizer, level, shards, factors)
        weights = weights + parts[0]
        gradients = gradients + bytes_.gradients * trained / where(~pipelined & (level >= 2), shards, 1)
        optimizer_ = optimizer_ + parts[2]

    tokens = sequence_length * layout.micro_batch / layout.context
    activations = tokens * kept * layers_in_flight(shape, layout, which, micro_batches)
    # Under ZeRO-3 one unit is in use, the next one on its way, the gradient of one being reduced.
    unit = np.maximum(shared_layer + expert_layer, _largest_end(shape) / layout.tensor)
    gathered = np.where(pipelined, layers * (shared_layer + expert_layer) + ends, 2 * unit)
    units = where(level >= 3, bytes_.gathered * gathered + bytes_.gradients * unit, 0.0)

    held, peak_alone, peak_divided = known(loss, LOSSES, "loss")
    divided = np.asarray(layout.tensor) > 1
    rows = np.minimum(tokens, LOSS_CHUNK) if loss == "chunked" else tokens
    last = (which == "last") | ~pipelined
    if bytes_.element == 4:  # no copy to make, and a gradient that is not rounded
        held, peak_alone, peak_divided = 8, peak_alone and peak_alone + 2, peak_divided and peak_divided + 2
    table = np.where(last, rows * shape.vocab_size / layout.tensor, 0.0)
    logits = held * table
    # The backward pass goes through the loss, then through one layer at a time. Under sequence parallelism the head keeps its whole input;
    # a layer has its input, a gradient and a sum of all ranks, besides what is computed again and the gradients of its inside.
    sequence = np.where(divided & layout.sequence_parallel, bytes_.element * tokens * shape.hidden_size, 0.0)
    in_loss = logits + np.where(divided, peak_divided, peak_alone) * table + np.where(last, sequence, 0)
    again = tokens * (whole - kept)
    in_layer = again + 0.75 * bytes_.element * tokens * _feed_forward_widths(shape)[0] / layout.tensor + 3 * sequence
    buffers = units + np.maximum(in_loss, in_layer) - logits
    found = (weights, gradients, optimizer_, activations, logits, buffers, 0.0)
    return Memory(*(float(part) if np.ndim(part) == 0 else part for part in found))


def _ends(shape: Shape, layout: Layout, which: str) -> Numbers:
    """Embedding and head: both on one stage, else the embedding on the first and the head on the last, a tied one on both."""
    table = shape.vocab_size * (shape.embedding_size or shape.hidden_size)
    alone = shape.parameters - shape.layer_parameters
    first = table + shape.learned_positions * shape.hidden_size
    last = table + alone - shape.embedding_parameters
    return np.where(np.asarray(layout.pipeline) > 1, first if which == "first" else last, alone)


def _largest_end(shape: Shape) -> int:
    return shape.vocab_size * (shape.embedding_size or shape.hidden_size)


# -- serving -----------------------------------------------------------------------------------------------------------------------


def serving(
    shape: Shape,
    *,
    sequences: Numbers = 1,
    sequence_length: Numbers,
    weights: str = "bf16",
    cache_bytes: float = 2,
    tensor: Numbers = 1,
    framework_bytes: float = FRAMEWORK_BYTES,
) -> Mapping[str, Numbers]:
    """Bytes per device for answering: weights, cached keys and values of all sequences, framework, and their total.

    Grouped heads divide the cache over at most num_kv_heads ranks; a latent cache is not divided.
    """
    per = known(weights, BASES, "weights")
    quantised = shape.parameters - shape.embedding_parameters
    held = (per * quantised + (per if per >= 2 else 2) * shape.embedding_parameters) / tensor
    ways = 1 if shape.latent else np.minimum(tensor, shape.num_kv_heads)
    cache = sequences * shape.kv_bytes(sequence_length, cache_bytes) / ways
    return {"weights": held, "kv_cache": cache, "framework": framework_bytes, "total": held + cache + framework_bytes}


def at(values: Numbers, i: int) -> float:
    """One of an array; a number stands for all."""
    return float(values[i] if np.ndim(values) else values)


def where(condition: Any, yes: Numbers, no: Numbers) -> Numbers:
    """`np.where`, of numbers a number."""
    return np.where(condition, yes, no) if np.ndim(condition) else yes if condition else no


def per_name(table: Mapping[str, float], names: Names, what: str) -> Numbers:
    """The table's number of a name, or an array of them of an array of names. Raises HearthError on one that is not known."""
    if isinstance(names, str):
        return known(names, table, what)
    return sum((names == name) * number for name, number in table.items())


def known(name: str, table: Any, what: str) -> Any:
    if name not in table:
        raise HearthError(f"{what} '{name}' is not known{nearest(str(name), table)}; known are {', '.join(table)}")
    return table[name] if isinstance(table, Mapping) else name
