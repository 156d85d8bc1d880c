"""Bits per byte: how many bits the model needs for each byte of text it has never seen. Lower is better; it needs no tokenizer to compare.

    sum over tokens of -ln p(token | what came before in its document) / (ln 2 x UTF-8 bytes)

Each document is read by itself behind a bos, which conditions but is not scored. Where a document is longer than the window, windows
overlap and every token is scored exactly once: by the window that begins at position 0, or by the first in which at least
window - stride tokens stand before it. Arithmetic is fp32, sums over tokens are fp64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from openhearth.errors import HearthError
from openhearth.evaluate.statistics import Estimate, bootstrap_ratio, totals

if TYPE_CHECKING:
    from openhearth.model.transformer import Transformer

BATCH_TOKENS = 8192
"""Tokens read at a time."""
LOGIT_ROWS = 1024
"""Rows of fp32 logits alive at a time."""


@dataclass(frozen=True)
class Window:
    """Input positions [start, end) of one text; those from `first` on are scored."""

    text: int
    start: int
    first: int
    end: int


def windows(text: int, length: int, window: int, stride: int) -> list[Window]:
    """The windows over `length` positions; every position is scored by exactly one."""
    found = [Window(text, 0, 0, min(window, length))] if length else []
    while found and found[-1].end < length:
        last = found[-1]
        found.append(Window(text, last.start + stride, last.end, min(last.start + stride + window, length)))
    return found


@torch.inference_mode()
def nats(
    model: Transformer,
    texts: Sequence[npt.NDArray[np.int64]],
    bos: int,
    window: int,
    stride: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
    names: Sequence[str] = (),
) -> npt.NDArray[np.float64]:
    """Nats of each text, (texts,): the sum of -ln p over its ids, each text behind its own bos.

    `tick(done, total)` is told how many positions have been read. Raises HearthError, with the text's name or number,
    when the model gives no finite number.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride {stride} does not lie between 1 and the window, {window}")
    inputs = [np.concatenate(([bos], ids[:-1])) if len(ids) else ids for ids in texts]
    todo = [piece for text, ids in enumerate(texts) for piece in windows(text, len(ids), window, stride)]
    todo.sort(key=lambda piece: piece.start - piece.end)  # stable: longest first, so that a batch holds little padding
    total = sum(piece.end - piece.start for piece in todo)
    sums, done, at = np.zeros(len(texts)), 0, 0
    while at < len(todo):
        length = todo[at].end - todo[at].start
        batch = todo[at : at + max(1, BATCH_TOKENS // length)]
        at += len(batch)
        ids = torch.full((len(batch), length), bos)
        targets = torch.full((len(batch), length), -1)
        owner = np.full((len(batch), length), -1)
        for row, piece in enumerate(batch):
            ids[row, : piece.end - piece.start] = torch.from_numpy(inputs[piece.text][piece.start : piece.end])
            scored = slice(piece.first - piece.start, piece.end - piece.start)
            targets[row, scored] = torch.from_numpy(texts[piece.text][piece.first : piece.end])
            owner[row, scored] = piece.text
        losses = _losses(model, ids, targets)
        sums += np.bincount(owner[owner >= 0], losses, minlength=len(texts))
        done += sum(piece.end - piece.start for piece in batch)
        tick(done, total)
    for number in np.flatnonzero(~np.isfinite(sums)):
        raise HearthError(
            f"held-out text {number + 1}: the model's loss is {sums[number]}; its weights are damaged or its training diverged"
        )
    return sums


def _losses(model: Transformer, ids: torch.Tensor, targets: torch.Tensor) -> npt.NDArray[np.float64]:
    """-ln p of the targets that are not -1, in their order, as fp64."""
    scored = targets >= 0
    hidden, wanted = model.hidden(ids)[scored], targets[scored]
    pieces = [
        F.cross_entropy(model.lm_head(hidden[start : start + LOGIT_ROWS]).float(), wanted[start : start + LOGIT_ROWS], reduction="none")
        for start in range(0, len(wanted), LOGIT_ROWS)
    ]
    return torch.cat(pieces).double().numpy()


def bits_per_byte(nats_of: npt.NDArray[np.float64], sizes: Sequence[int], units: Sequence[int], seed: int) -> Estimate:
    """Bits per byte with its interval: `nats_of` and `sizes` (UTF-8 bytes) per text, `units` the bootstrap unit of each text."""
    return bootstrap_ratio(totals(nats_of, units) / math.log(2), totals(sizes, units), seed)
