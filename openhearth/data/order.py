"""The order of training data as a pure function of (corpus, seed, index): no index file, no cursor but one integer.

The idea: a keyed permutation of [0, n) is computed, not stored. A balanced Feistel network permutes the next power of four; values
that fall outside [0, n) are sent through again until they do not (cycle walking; Black and Rogaway 2002), which leaves a permutation
of [0, n). The token stream is cut into windows, and epoch e visits them in the order of the permutation keyed by (seed, e). Any
number of ranks, workers or restarts sees the same samples, because each asks for them by their global index.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

ROUNDS = 8

IGNORED = -1
"""The target that no loss is taken on (padding of the last window)."""

_MULTIPLIERS = (numpy.uint64(0xBF58476D1CE4E5B9), numpy.uint64(0x94D049BB133111EB))  # the finaliser of splitmix64 (Steele et al. 2014)

Indices = NDArray[numpy.int64]


class Sequence(Protocol):
    """A long sequence of token ids: an array, or the shards of a folder (`shards.Tokens`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, span: slice) -> NDArray[Any]: ...


def keys_of(*words: object) -> NDArray[numpy.uint64]:
    """One round key of 64 bits per round, from sha256 of the words."""
    text = "\0".join(map(str, words))
    digests = [hashlib.sha256(f"{text}\0{number}".encode()).digest() for number in range(ROUNDS)]
    return numpy.array([int.from_bytes(digest[:8], "little") for digest in digests], dtype=numpy.uint64)


def permute(index: Indices, size: int, keys: NDArray[numpy.uint64]) -> Indices:
    """Where the permutation of [0, size) keyed by `keys` sends each of `index` (int64, any shape). Raises ValueError outside of it."""
    index = numpy.asarray(index, dtype=numpy.int64)
    if index.size and (int(index.min()) < 0 or int(index.max()) >= size):
        raise ValueError(f"an index is outside [0, {size})")
    half = numpy.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    value = _feistel(index.astype(numpy.uint64).ravel(), half, keys)
    while True:
        outside = numpy.flatnonzero(value >= numpy.uint64(size))
        if not len(outside):
            return value.astype(numpy.int64).reshape(index.shape)
        value[outside] = _feistel(value[outside], half, keys)


def _feistel(value: NDArray[numpy.uint64], half: numpy.uint64, keys: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
    """A permutation of [0, 4**half), whatever the round function is."""
    mask = (numpy.uint64(1) << half) - numpy.uint64(1)
    left, right = value >> half, value & mask
    for key in keys:
        mixed = right ^ key
        for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
            mixed = (mixed ^ (mixed >> numpy.uint64(shift))) * multiplier  # wraps around, as intended
        left, right = right, left ^ ((mixed ^ (mixed >> numpy.uint64(31))) & mask)
    return (left << half) | right


class Windows:
    """The training samples of a token stream: windows of `sequence_length` targets, in a new keyed order every epoch.

    Every token of the stream but the first is a target exactly once per epoch; a last window that is not full is padded.
    """

    def __init__(self, tokens: Sequence, sequence_length: int, seed: int) -> None:
        if len(tokens) < 2:
            raise ValueError(f"a stream of {len(tokens)} tokens has no target")
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}, at least 1 is needed")
        self.tokens, self.sequence_length, self.seed = tokens, sequence_length, seed
        self.windows_per_epoch = -(-(len(tokens) - 1) // sequence_length)

    def windows(self, start: int, stop: int) -> Indices:
        """The window that each of the samples [start, stop) shows; sample i belongs to epoch i // windows_per_epoch."""
        index = numpy.arange(start, stop, dtype=numpy.int64)
        epoch, within = numpy.divmod(index, self.windows_per_epoch)
        result = numpy.empty_like(index)
        for number in numpy.unique(epoch):
            chosen = epoch == number
            result[chosen] = permute(within[chosen], self.windows_per_epoch, keys_of("order", self.seed, int(number)))
        return result

    def sample(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Samples [start, stop) as (inputs, targets), int64 of shape (stop - start, sequence_length).

        Where a window is padded, the target is `IGNORED` and the input repeats the stream's last token.
        """
        shape = (stop - start, self.sequence_length)
        inputs, targets = numpy.empty(shape, numpy.int64), numpy.full(shape, IGNORED, numpy.int64)
        for row, window in enumerate(self.windows(start, stop)):
            first = int(window) * self.sequence_length
            span = self.tokens[first : first + self.sequence_length + 1].astype(numpy.int64)
            count = len(span) - 1
            inputs[row, :count], targets[row, :count] = span[:-1], span[1:]
            inputs[row, count:] = span[-1]
        return inputs, targets
