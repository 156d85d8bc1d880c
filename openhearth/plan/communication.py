"""Bytes that one device sends per optimiser step for each kind of parallelism, the pipeline's bubble, and the seconds on given links.

Ring algorithms: an all-reduce of B bytes over n ranks sends 2 (n - 1) / n B from each, an all-gather or a reduce-scatter half of that. The
layout's numbers may be arrays. Sources: Rajbhandari et al. 2020 (data), Narayanan et al. 2021 (tensor, pipeline), Liu et al. 2023
(context), Lepikhin et al. 2020 (expert).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.memory import PRECISIONS, Layout, Numbers, check, known, where
from openhearth.plan.shapes import Shape


@dataclass(frozen=True)
class Traffic:
    """Bytes sent by one device per optimiser step, by kind; `pipeline_bubble` is idle time over busy time, (p - 1) / (m v)."""

    data: Numbers
    tensor: Numbers
    pipeline: Numbers
    context: Numbers
    expert: Numbers
    pipeline_bubble: Numbers

    @property
    def total(self) -> Numbers:
        """Bytes of all kinds."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, Numbers]:
        """The bytes by kind."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "pipeline_bubble"}

    def seconds(
        self, layout: Layout, *, intra_node_gb_per_s: float, inter_node_gbit_per_s: float, devices_per_node: int = 8
    ) -> dict[str, Numbers]:
        """Seconds per kind, each on the slowest link that its group crosses, if nothing is hidden behind computing.

        Both speeds are of one device in one direction: GB/s inside a node, Gb/s between nodes. Ranks are numbered tensor, context, data
        (expert within it), pipeline, as Megatron does, so tensor groups are neighbours and pipeline stages lie furthest apart.
        """
        for name, value in (("intra_node_gb_per_s", intra_node_gb_per_s), ("inter_node_gbit_per_s", inter_node_gbit_per_s)):
            if not value > 0:
                raise HearthError(f"{name} must be above zero, not {value}")
        inside, between = intra_node_gb_per_s * 1e9, inter_node_gbit_per_s * 1e9 / 8
        local = layout.tensor * layout.context
        spans = {
            "tensor": layout.tensor,
            "context": local,
            "expert": layout.tensor * np.maximum(layout.expert, layout.context),
            "data": local * layout.data,
            "pipeline": layout.devices,
        }
        found = {}
        for kind, sent in self.parts().items():
            speed = np.where(np.asarray(spans[kind]) <= devices_per_node, inside, between)
            found[kind] = _plain(sent / speed)
        return found


def traffic(
    shape: Shape, layout: Layout, *, sequence_length: Numbers, micro_batches: Numbers = 1, precision: str = "bf16-mixed"
) -> Traffic:
    """Bytes per device and optimiser step of `micro_batches` micro-batches of `layout.micro_batch` sequences.

    Raises HearthError for a layout that does not divide the shape.
    """
    check(shape, layout, sequence_length)
    bytes_ = known(precision, PRECISIONS, "precision")
    tensor, context, expert, pipeline = layout.tensor, layout.context, layout.expert, layout.pipeline
    tokens = sequence_length * layout.micro_batch / context
    stream = tokens * shape.hidden_size * bytes_.element  # the hidden state of one micro-batch on one device
    layers = shape.num_layers / pipeline
    again = (layout.recompute == "full") | (layout.recompute == "operations")  # the forward pass and its collectives run twice

    reductions = (4 if shape.norms_per_layer > 1 else 2) * where(again, 1.5, 1)  # attention and feed-forward side by side share one
    in_tensor = micro_batches * layers * reductions * 2 * _share(tensor) * stream
    in_pipeline = np.where(np.asarray(pipeline) > 1, micro_batches * layout.chunks * 2 * stream / tensor, 0.0)
    keys = shape.latent.rank + shape.latent.rope_dim if shape.latent else 2 * shape.num_kv_heads * shape.head_dim
    divided = 1 if shape.latent else np.minimum(tensor, shape.num_kv_heads)
    whole = sequence_length * layout.micro_batch * keys * bytes_.element / divided
    in_context = micro_batches * layers * where(again, 3, 2) * _share(context) * whole
    in_expert: Numbers = 0.0 * in_tensor
    if shape.experts:
        moe_layers = shape.experts.layers / pipeline
        rows = stream / (tensor if layout.sequence_parallel else 1)
        in_expert = micro_batches * moe_layers * where(again, 6, 4) * shape.experts.per_token * _share(expert) * rows
    bubble = (pipeline - 1) / (micro_batches * layout.chunks)
    found = (_data(shape, layout, micro_batches, precision), in_tensor, in_pipeline, in_context, in_expert, bubble)
    return Traffic(*(_plain(part) for part in found))


def _data(shape: Shape, layout: Layout, micro_batches: Numbers, precision: str) -> Numbers:
    """Gradients reduced and weights gathered over the ranks that hold the same part: 2 P without ZeRO-3, 3 P with it, each (n - 1) / n.

    ZeRO-3 gathers twice and reduces once per micro-batch; in a pipeline the weights stay gathered, so once per step.
    """
    bytes_ = PRECISIONS[precision]
    level = layout.level
    pipelined = np.asarray(layout.pipeline) > 1
    experts = shape.experts.layers * shape.experts.count * shape.expert_parameters if shape.experts else 0
    sent: Numbers = 0.0
    groups = [(shape.parameters - experts, layout.shards)] + ([(experts / layout.expert, layout.shards / layout.expert)] if experts else [])
    for parameters, ranks in groups:
        local = parameters / (layout.tensor * layout.pipeline)
        gathers = bytes_.gathered * where(pipelined, 1, 2)
        whole = where(pipelined, 1, micro_batches) * (gathers + bytes_.gradients)
        reduced = bytes_.gradients + where(level == 0, bytes_.gradients, bytes_.gathered)
        sent = sent + _share(ranks) * local * where(level >= 3, whole, reduced)
    return sent


def _share(ranks: Numbers) -> Numbers:
    """(n - 1) / n: what of a ring's bytes leaves a device."""
    return (ranks - 1) / ranks


def _plain(value: Any) -> Numbers:
    return float(value) if np.ndim(value) == 0 else value
