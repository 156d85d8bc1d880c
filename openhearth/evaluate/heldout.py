"""The held-out text that is measured: all of it where it fits, else whole documents in keyed order, up to a number of bytes.

Where there is more than fits, a document longer than an eighth of that number is read in pieces, cut at line ends, so that one
document cannot be everything; all first pieces come before all second pieces. Nothing is chosen by what a model makes of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from openhearth.errors import HearthError

FEWEST_DOCUMENTS = 5
"""With fewer documents than this the interval is drawn over their pieces, and says so."""
SHORTEST_PIECE = 512
"""Bytes; no document is cut into pieces shorter than this because a limit is small."""


class BatchTokenizer(Protocol):
    """What measuring needs of a tokenizer."""

    bos: int

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes: ...


@dataclass(frozen=True)
class HeldOut:
    """The chosen texts, with their ids and the unit of the bootstrap that each belongs to."""

    uris: list[str]
    texts: list[bytes]
    ids: list[npt.NDArray[np.int64]]
    """Without a bos; they decode to exactly the text's bytes."""
    units: list[int]
    unit: str
    """'document' or 'piece of a document'."""
    documents: int
    available_documents: int
    available_bytes: int

    @property
    def bytes(self) -> int:
        return sum(map(len, self.texts))

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))


def pieces(text: str, cap: int) -> list[str]:
    """`text` in consecutive pieces of at most `cap` UTF-8 bytes, cut at line ends; a longer line is cut between characters."""
    data = text.encode()
    found, start = [], 0
    while start < len(data):
        end = min(start + cap, len(data))
        if end < len(data):
            newline = data.rfind(b"\n", start, end)
            if newline >= 0:
                end = newline + 1
            else:
                while end > start + 1 and data[end] & 0b1100_0000 == 0b1000_0000:  # not the first byte of a character
                    end -= 1
        found.append(data[start:end].decode())
        start = end
    return found


def choose(documents: pa.Table, limit: int, tokenizer: BatchTokenizer, seed: int) -> HeldOut:
    """Held-out texts of at most `limit` bytes in all. Raises HearthError when the corpus holds none out.

    Raises HearthError as well when the tokenizer does not give a text back byte for byte, since bytes would be miscounted.
    """
    rows = [row for row, split in enumerate(documents["split"].to_pylist()) if split == "heldout"]
    ids = documents["doc_id"].to_pylist()
    keys = {row: hashlib.blake2b(f"{seed}:{ids[row]}".encode(), digest_size=8).digest() for row in rows}
    rows.sort(key=keys.__getitem__)
    texts = {row: documents["text"][row].as_py() for row in rows}
    available = sum(len(text.encode()) for text in texts.values())
    fits = available <= limit and len(rows) >= FEWEST_DOCUMENTS
    cap = available if fits else max(4, min(limit, max(SHORTEST_PIECE, limit // 8)))
    split = {row: pieces(text, cap) for row, text in texts.items()}
    order = [
        (row, piece) for turn in range(max(map(len, split.values()), default=0)) for row in rows for piece in split[row][turn : turn + 1]
    ]
    chosen: list[tuple[int, bytes]] = []
    size = 0
    for row, piece in order:
        data = piece.encode()
        if size + len(data) > limit:
            break
        size += len(data)
        chosen.append((row, data))
    if not chosen:
        raise HearthError("the corpus holds no text out, so nothing can be measured; raise held_out under [corpus] or give more text")
    uris = [documents["uri"][row].as_py() for row, _ in chosen]
    encoded = [np.asarray(tokenizer.encode(data.decode()), dtype=np.int64) for _, data in chosen]
    for uri, (_, data), tokens in zip(uris, chosen, encoded, strict=True):
        if tokenizer.decode_bytes(tokens.tolist()) != data:
            raise HearthError(f"{uri}: the tokenizer does not give this text back byte for byte; make the tokenizer again")
    numbers = {row: number for number, row in enumerate(dict.fromkeys(row for row, _ in chosen))}
    few = len(numbers) < FEWEST_DOCUMENTS
    return HeldOut(
        uris=uris,
        texts=[data for _, data in chosen],
        ids=encoded,
        units=list(range(len(chosen))) if few else [numbers[row] for row, _ in chosen],
        unit="piece of a document" if few else "document",
        documents=len(numbers),
        available_documents=len(rows),
        available_bytes=available,
    )
