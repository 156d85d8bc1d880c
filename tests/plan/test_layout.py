"""The choice of a layout: it fits, nothing that fits is clearly faster, and what is said of it is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan import layout, speed
from openhearth.plan.calibration import mpt
from openhearth.plan.catalogue import device
from openhearth.plan.layout import Choice, choose, describe, parse
from openhearth.plan.memory import Layout, memory
from openhearth.plan.shapes import Shape

ROOT = Path(__file__).parents[2]
LLAMA_65B = Shape.load(ROOT / "recipes/llama-65b.toml")
MIXTRAL = Shape.load(ROOT / "recipes/mixtral-8x7b.toml")
CASES = [
    (LLAMA_65B, "a100-80", 2048, 2048, 4e6), (LLAMA_65B, "a100-80", 64, 2048, 4e6), (MIXTRAL, "h100", 256, 4096, 4e6),
    (mpt("7b", 2048), "h100", 8, 2048, 1e6), (mpt("125m", 2048), "rtx4090", 1, 2048, 5e5), (mpt("70b", 8192), "h100", 768, 8192, 8e6),
]  # fmt: skip


def chosen(shape: Shape, name: str, devices: int, length: int, batch: float, **options: object) -> Choice:
    return choose(shape, device(name), devices, sequence_length=length, batch_tokens=batch, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "name", "devices", "length", "batch"), CASES)
def test_the_layout_uses_all_devices_keeps_tensor_ranks_in_a_node_and_fits(
    shape: Shape, name: str, devices: int, length: int, batch: float
) -> None:
    found = chosen(shape, name, devices, length, batch)
    assert found.layout.devices == devices and found.layout.tensor <= device(name).devices_per_node
    held = memory(shape, found.layout, sequence_length=length, loss="chunked", micro_batches=found.micro_batches)
    assert found.memory.total == held.total <= 0.9 * device(name).memory_bytes
    sequences = round(batch / length)
    ranks = found.layout.data * found.layout.micro_batch
    assert ranks * (found.micro_batches - 1) < sequences <= ranks * found.micro_batches


@pytest.mark.parametrize(("shape", "name", "devices", "length", "batch"), CASES)
def test_no_neighbour_that_fits_is_faster_by_more_than_predictions_are_off(
    shape: Shape, name: str, devices: int, length: int, batch: float
) -> None:
    """Each number halved or doubled, one or two at a time; each sharding and recomputation."""
    found = chosen(shape, name, devices, length, batch)
    own, sequences = float(np.asarray(found.step.total)), round(batch / length)
    numbers = ("data", "tensor", "pipeline", "context", "expert", "micro_batch", "chunks")
    tried = 0
    for first in numbers:
        for second in numbers:
            for sharding in ("none", "zero1", "zero3"):
                for recompute in ("none", "full"):
                    values = {name_: getattr(found.layout, name_) for name_ in numbers}
                    values[first] *= 2
                    if values[second] % 2:
                        continue
                    values[second] //= 2
                    try:
                        other = Layout(**values, sharding=sharding, recompute=recompute, sequence_parallel=True)
                        many = -(-sequences // (other.data * other.micro_batch))
                        if (
                            other.devices != devices
                            or other.data * other.micro_batch > sequences
                            or other.tensor > device(name).devices_per_node
                        ):
                            continue
                        held = memory(shape, other, sequence_length=length, micro_batches=many)
                    except HearthError:
                        continue
                    if other.context > 1 or (sharding == "none" and other.shards > 1):
                        continue
                    if held.fits(device(name).memory_bytes):
                        took = speed.step(shape, device(name), other, sequence_length=length, micro_batches=many)
                        assert float(np.asarray(took.total)) >= own / layout.CLOSE * (1 - 1e-9), describe(other)
                        tried += 1
    assert tried > 0


def test_of_layouts_that_are_as_fast_the_simplest_is_taken() -> None:
    found = chosen(mpt("7b", 2048), "h100", 8, 2048, 4e6)
    assert (found.layout.data, found.layout.tensor, found.layout.pipeline, found.layout.recompute) == (8, 1, 1, "none")
    smaller = chosen(mpt("7b", 2048), "h100", 8, 2048, 4e6, fixed=parse("mb=1"))
    assert found.layout.micro_batch > 1 and found.step.total <= 1.01 * smaller.step.total


def test_weights_are_cut_where_nothing_else_makes_them_fit() -> None:
    found = chosen(mpt("30b", 2048), "a100-80", 8, 2048, 1e6, fixed=parse("tp=1,pp=1"))
    assert found.fits and found.layout.sharding == "zero3"


def test_tensor_ranks_stay_in_a_node() -> None:
    """64 sequences over 4,096 devices without a pipeline want 64 tensor ranks: an NVLink domain of 72 has them, a node of 8 has not."""
    assert chosen(LLAMA_65B, "gb200", 4096, 2048, 64 * 2048, fixed=parse("pp=1")).layout.tensor == 64
    with pytest.raises(HearthError, match="cannot be laid over 4,096 devices"):
        chosen(LLAMA_65B, "h100", 4096, 2048, 64 * 2048, fixed=parse("pp=1"))


def test_what_is_said_not_to_fit_does_not_fit() -> None:
    found = chosen(LLAMA_65B, "a100-80", 64, 2048, 4e6)
    assert found.too_large
    for each in found.too_large:
        held = memory(LLAMA_65B, each.layout, sequence_length=2048)
        assert held.total == pytest.approx(each.bytes, rel=1e-6) and held.total > found.limit
    assert any("data parallelism alone" in each.why for each in found.too_large)
    for each in found.rejected:
        if each.bytes <= found.limit:
            assert each.seconds >= float(np.asarray(found.step.total)) / layout.CLOSE


def test_where_nothing_fits_the_least_need_and_enough_devices_are_said() -> None:
    with pytest.raises(
        HearthError, match=r"does not fit on 4 x a100-80: .* needs 2\d\d\.\d GiB a device, of which 72\.0 GiB .*; 16 are enough"
    ):
        chosen(LLAMA_65B, "a100-80", 4, 2048, 4e6)
    assert chosen(LLAMA_65B, "a100-80", 16, 2048, 4e6).fits
    with pytest.raises(HearthError, match="no memory of cpu-avx512"):
        chosen(mpt("125m", 2048), "cpu-avx512", 8, 2048, 1e5)


def test_choices_of_ones_own_are_kept() -> None:
    found = chosen(LLAMA_65B, "a100-80", 512, 2048, 4e6, fixed=parse("tp=8,pp=1,sharding=fsdp"))
    assert (found.layout.tensor, found.layout.pipeline, found.layout.data, found.layout.sharding) == (8, 1, 64, "zero3")
    whole = chosen(LLAMA_65B, "a100-80", 64, 2048, 4e6, fixed=parse("dp=64 tp=1 pp=1 zero=1 ac=none mb=1"))
    assert not whole.fits and whole.layout.sharding == "zero1" and "exceeds" in whole.reasons[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tq=8", "not a choice"), ("tensr=8", r"did you mean 'tensor'"), ("tp=0", "whole number"), ("tp=1.5", "whole number"),
        ("tp", "not a choice"), ("tp=2,tensor=4", "given twice"), ("sharding=zero9", "must be one of none, zero1"),
        ("recompute=half", "must be one of none"), ("", "is empty"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(HearthError, match=said):
        parse(text)


def test_a_layout_that_cannot_be_laid_is_refused_with_its_numbers() -> None:
    with pytest.raises(HearthError, match="tensor 3 does not divide the 64 heads"):
        chosen(LLAMA_65B, "a100-80", 48, 2048, 4e6, fixed=parse("tp=3"))
    with pytest.raises(HearthError, match="cannot be laid over 64 devices"):
        chosen(LLAMA_65B, "a100-80", 64, 2048, 4e6, fixed=parse("dp=64,tp=8"))
    with pytest.raises(HearthError, match=r"cannot share batches of 2 sequences.*--batch-tokens"):
        chosen(mpt("125m", 2048), "a100-80", 4096, 2048, 4096)


def test_a_layout_in_words() -> None:
    said = describe(Layout(data=32, tensor=4, pipeline=8, chunks=2, sharding="zero1", recompute="full", micro_batch=2))
    assert said == "data 32 x tensor 4 x pipeline 8, ZeRO-1, 2 chunks a stage, full recomputation, micro-batch 2"
    assert describe(Layout()) == "one device, no recomputation, micro-batch 1"
