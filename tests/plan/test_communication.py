"""Bytes on the wire against the closed forms of the papers, and links against groups."""

from __future__ import annotations

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan.communication import traffic
from openhearth.plan.memory import Layout
from openhearth.plan.shapes import Shape
from tests.plan.test_shapes import LLAMA, LLAMA_3, MIXTRAL

SEVEN = Shape.from_hf(LLAMA)


def test_gradients_of_llama_7b_over_eight_devices_are_the_known_gigabytes() -> None:
    sent = {
        kind: traffic(SEVEN, Layout(data=8, sharding=kind), sequence_length=2048).data / 1e9 for kind in ("none", "zero1", "zero2", "fsdp")
    }
    assert {kind: round(value, 1) for kind, value in sent.items()} == {"none": 23.6, "zero1": 23.6, "zero2": 23.6, "fsdp": 35.4}


def test_fsdp_gathers_for_every_micro_batch_but_in_a_pipeline_once() -> None:
    once = traffic(SEVEN, Layout(data=8, sharding="fsdp"), sequence_length=2048).data
    assert traffic(SEVEN, Layout(data=8, sharding="fsdp"), sequence_length=2048, micro_batches=4).data == pytest.approx(4 * once)
    piped = traffic(SEVEN, Layout(data=8, pipeline=2, sharding="fsdp"), sequence_length=2048, micro_batches=4).data
    assert piped == pytest.approx(7 / 8 * 4 * SEVEN.parameters / 2)
    plain = traffic(SEVEN, Layout(data=8), sequence_length=2048, micro_batches=4).data
    assert plain == traffic(SEVEN, Layout(data=8), sequence_length=2048).data


def test_context_ranks_reduce_gradients_too() -> None:
    assert traffic(SEVEN, Layout(data=2, context=4), sequence_length=2048).data == traffic(SEVEN, Layout(data=8), sequence_length=2048).data


@pytest.mark.parametrize(("recompute", "reductions"), [("none", 4), ("selective", 4), ("operations", 6), ("full", 6)])
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_tensor_parallel_reduces_the_hidden_state_four_times_a_layer(recompute: str, reductions: int, sequence_parallel: bool) -> None:
    layout = Layout(tensor=8, micro_batch=2, recompute=recompute, sequence_parallel=sequence_parallel)
    sent = traffic(SEVEN, layout, sequence_length=2048, micro_batches=3)
    assert sent.tensor == pytest.approx(3 * 32 * reductions * (2 * 7 / 8) * (2048 * 2 * 4096 * 2))
    assert sent.data == sent.pipeline == sent.context == sent.expert == 0


def test_a_pipeline_sends_the_hidden_state_both_ways_and_idles() -> None:
    sent = traffic(SEVEN, Layout(pipeline=4, tensor=2, chunks=2), sequence_length=2048, micro_batches=16)
    assert sent.pipeline == 16 * 2 * 2 * 2048 * 4096 * 2 / 2
    assert sent.pipeline_bubble == 3 / (16 * 2)
    assert traffic(SEVEN, Layout(tensor=2), sequence_length=2048).pipeline_bubble == 0


def test_context_parallel_passes_keys_and_values_around() -> None:
    shape = Shape.from_hf(LLAMA_3)
    sent = traffic(shape, Layout(context=4), sequence_length=8192).context
    assert sent == 32 * 2 * (3 / 4) * 8192 * 8 * 128 * 2 * 2


def test_experts_get_their_tokens_by_four_exchanges_a_layer() -> None:
    shape = Shape.from_hf(MIXTRAL)
    sent = traffic(shape, Layout(data=8, expert=8), sequence_length=4096)
    assert sent.expert == pytest.approx(32 * 4 * 2 * (7 / 8) * 4096 * 4096 * 2)
    experts = 32 * 8 * 3 * 4096 * 14336
    assert sent.data == pytest.approx(2 * 2 * (shape.parameters - experts) * 7 / 8)  # each rank holds its own expert: nothing to reduce


def test_seconds_are_those_of_the_link_that_the_group_crosses() -> None:
    layout = Layout(data=4, tensor=8)
    sent = traffic(SEVEN, layout, sequence_length=2048)
    seconds = sent.seconds(layout, intra_node_gb_per_s=450, inter_node_gbit_per_s=400)
    assert seconds["tensor"] == sent.tensor / 450e9 and seconds["data"] == sent.data / 50e9
    one_node = Layout(data=8)
    sent = traffic(SEVEN, one_node, sequence_length=2048)
    assert sent.seconds(one_node, intra_node_gb_per_s=450, inter_node_gbit_per_s=400)["data"] == sent.data / 450e9
    mixed, spread = Shape.from_hf(MIXTRAL), Layout(data=8, tensor=2, expert=8)  # eight experts on pairs: two nodes
    sent = traffic(mixed, spread, sequence_length=2048)
    assert sent.seconds(spread, intra_node_gb_per_s=450, inter_node_gbit_per_s=400)["expert"] == sent.expert / 50e9
    with pytest.raises(HearthError, match="inter_node_gbit_per_s must be above zero"):
        sent.seconds(spread, intra_node_gb_per_s=450, inter_node_gbit_per_s=0)


def test_ten_thousand_layouts_are_one_call() -> None:
    tensor = np.repeat([1, 2, 4, 8], 2500)
    pipeline = np.tile(np.repeat([1, 2, 4, 8], 625), 4)
    layout = Layout(data=64, tensor=tensor, pipeline=pipeline, sharding="zero1", sequence_parallel=True)
    sent = traffic(SEVEN, layout, sequence_length=2048, micro_batches=8)
    assert sent.total.shape == (10_000,)
    for index in (0, 3000, 9999):
        one = Layout(data=64, tensor=int(tensor[index]), pipeline=int(pipeline[index]), sharding="zero1", sequence_parallel=True)
        alone = traffic(SEVEN, one, sequence_length=2048, micro_batches=8)
        assert sent.total[index] == pytest.approx(alone.total) and sent.pipeline_bubble[index] == alone.pipeline_bubble
