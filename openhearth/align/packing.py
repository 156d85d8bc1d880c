"""Conversations packed into windows of one length: none is cropped, none is lost, little is padding.

Best-fit decreasing: the longest conversation first, each into the fullest window that still holds it. Which windows have how much
room is one integer used as a set of bits, so that "the smallest room that is large enough" is a shift and a lowest set bit.
Each conversation begins with its own <|endoftext|>; targets are the next ids where the loss is taken, and -1 elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openhearth.errors import HearthError

NO_LOSS = -1


@dataclass(frozen=True)
class Packed:
    """Windows ready for training: `inputs` and `targets` (window, sequence) int64; a target is -1 where no loss is taken."""

    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    conversations: int
    tokens: int
    """Positions that hold a conversation, that is, are not padding."""

    @property
    def learned(self) -> int:
        """Positions with a loss."""
        return int((self.targets != NO_LOSS).sum())


def keyed_order(count: int, seed: int, purpose: str) -> list[int]:
    """The numbers below `count` in an order that depends on (seed, purpose) alone, on every machine and version."""

    def key(index: int) -> bytes:
        return hashlib.blake2b(f"{seed}:{purpose}:{index}".encode(), digest_size=8).digest()

    return sorted(range(count), key=key)


def best_fit(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Indices of `lengths` grouped into windows of `capacity`; equal lengths are taken in `order`."""
    windows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0  # bit r is set while some window has exactly r positions left
    for index in sorted(order, key=lambda i: -lengths[i]):
        length = lengths[index]
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            window = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            room, window = capacity, len(windows)
            windows.append([])
        windows[window].append(index)
        left = room - length
        by_room[left].append(window)
        rooms |= 1 << left
    return windows


def pack(conversations: Sequence[tuple[Sequence[int], Sequence[bool]]], sequence_length: int, pad: int, seed: int) -> Packed:
    """Pack rendered conversations (ids, loss mask) into windows of `sequence_length` inputs; the order depends on `seed` alone.

    A conversation of n ids takes n - 1 positions: each input predicts the id after it. Raises HearthError when one is too long.
    """
    lengths = [len(ids) - 1 for ids, _ in conversations]
    for number, length in enumerate(lengths, 1):
        if not 1 <= length <= sequence_length:
            raise HearthError(
                f"conversation {number} has {length + 1:,} tokens; a window of {sequence_length:,} takes 2 to {sequence_length + 1:,}"
            )
    order = keyed_order(len(lengths), seed, "conversation")
    rank = {index: place for place, index in enumerate(order)}
    windows = best_fit(lengths, sequence_length, order)
    inputs = np.full((len(windows), sequence_length), pad, dtype=np.int64)
    targets = np.full((len(windows), sequence_length), NO_LOSS, dtype=np.int64)
    for row, place in enumerate(keyed_order(len(windows), seed, "window")):
        start = 0
        for index in sorted(windows[place], key=rank.__getitem__):  # else the longest would always stand first
            ids = np.asarray(conversations[index][0], dtype=np.int64)
            learned = np.asarray(conversations[index][1], dtype=bool)
            end = start + len(ids) - 1
            inputs[row, start:end] = ids[:-1]
            targets[row, start:end] = np.where(learned[1:], ids[1:], NO_LOSS)
            start = end
    return Packed(inputs, targets, len(conversations), sum(lengths))
