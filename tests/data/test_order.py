from __future__ import annotations

import hashlib
import math

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data.order import IGNORED, Windows, keys_of, permute


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 5_000), seed=st.integers(0, 2**64))
def test_every_index_is_hit_exactly_once(size: int, seed: int) -> None:
    image = permute(numpy.arange(size), size, keys_of(seed))
    assert (numpy.sort(image) == numpy.arange(size)).all()


@settings(max_examples=50, deadline=None)
@given(size=st.integers(2**40, 2**62), seed=st.integers(0, 100), data=st.data())
def test_different_indices_of_a_huge_range_go_to_different_places_inside_it(size: int, seed: int, data: st.DataObject) -> None:
    index = numpy.array(data.draw(st.lists(st.integers(0, size - 1), unique=True, max_size=50)), dtype=numpy.int64)
    image = permute(index, size, keys_of(seed))
    assert len(set(image.tolist())) == len(index)
    assert all(0 <= value < size for value in image.tolist())


def test_a_part_is_permuted_as_the_whole_is() -> None:
    whole = permute(numpy.arange(1_000), 1_000, keys_of(3))
    assert (permute(numpy.array([[5, 999], [0, 5]]), 1_000, keys_of(3)) == whole[[[5, 999], [0, 5]]]).all()


def test_an_index_outside_the_range_is_refused() -> None:
    for index in (-1, 10):
        with pytest.raises(ValueError, match="outside"):
            permute(numpy.array([index]), 10, keys_of(0))


def test_the_permutation_looks_random() -> None:
    """Over 1,500 keys, 5 places: each of the 120 orders comes up about 12 times (chi-square with 119 degrees of freedom, p > 1e-6)."""
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(1_500):
        order = tuple(permute(numpy.arange(5), 5, keys_of(seed)).tolist())
        counts[order] = counts.get(order, 0) + 1
    expected = 1_500 / math.factorial(5)
    assert sum((counts.get(order, 0) - expected) ** 2 / expected for order in counts) + (120 - len(counts)) * expected < 210


def test_neighbours_do_not_stay_neighbours() -> None:
    image = permute(numpy.arange(100_000), 100_000, keys_of(1))
    assert (abs(numpy.diff(image)) == 1).mean() < 0.001
    assert abs(numpy.corrcoef(numpy.arange(100_000), image)[0, 1]) < 0.02


def plainly_permuted(index: int, size: int, words: tuple[object, ...]) -> int:
    """The permutation as its description says it, in Python's integers: published orders depend on these very values."""
    digests = [hashlib.sha256("\0".join([*map(str, words), str(number)]).encode()).digest() for number in range(8)]
    half = max(1, math.ceil((size - 1).bit_length() / 2))
    while True:
        left, right = divmod(index, 2**half)
        for digest in digests:
            mixed = right ^ int.from_bytes(digest[:8], "little")
            mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
            left, right = right, left ^ ((mixed ^ (mixed >> 31)) % 2**half)
        index = left * 2**half + right
        if index < size:
            return index


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 1_000, 2**40 + 7])
def test_the_permutation_is_the_one_that_is_described(size: int) -> None:
    index = numpy.unique(numpy.linspace(0, size - 1, 50).astype(numpy.int64))
    expected = [plainly_permuted(int(value), size, ("order", 3, size)) for value in index]
    assert permute(index, size, keys_of("order", 3, size)).tolist() == expected


@settings(max_examples=80, deadline=None)
@given(length=st.integers(2, 300), sequence_length=st.integers(1, 70), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_token_but_the_first_is_a_target_once_per_epoch(length: int, sequence_length: int, seed: int, epoch: int) -> None:
    stream = numpy.arange(length, dtype=numpy.uint16)  # each token is its own position
    windows = Windows(stream, sequence_length, seed)
    count = windows.windows_per_epoch
    inputs, targets = windows.sample(epoch * count, (epoch + 1) * count)
    assert inputs.shape == targets.shape == (count, sequence_length)
    assert inputs.dtype == targets.dtype == numpy.int64
    kept = targets != IGNORED
    assert sorted(targets[kept].tolist()) == list(range(1, length))
    assert (inputs[kept] == targets[kept] - 1).all()
    assert (inputs >= 0).all() and (inputs < length).all()
    assert count * sequence_length - kept.sum() < sequence_length  # padding is less than one window


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    stream = numpy.arange(10_001)
    orders = [Windows(stream, 10, seed).windows(epoch * 1_000, epoch * 1_000 + 1_000).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_that_spans_epochs_is_its_samples_one_by_one() -> None:
    windows = Windows(numpy.arange(95), 10, seed=7)
    inputs, targets = windows.sample(5, 35)
    for offset in range(30):
        one_input, one_target = windows.sample(5 + offset, 6 + offset)
        assert (one_input[0] == inputs[offset]).all() and (one_target[0] == targets[offset]).all()


def test_the_order_depends_on_seed_and_index_alone() -> None:
    first, second = (Windows(numpy.arange(5_000), 32, seed=11) for _ in range(2))
    second.sample(0, 50)  # what was asked before leaves no trace
    assert (first.sample(100, 120)[0] == second.sample(100, 120)[0]).all()


def test_a_stream_without_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no target"):
        Windows(numpy.arange(1), 8, 0)
