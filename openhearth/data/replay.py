"""Old text among new: which sample is replayed, which window it shows, and from which documents that window comes.

The idea: with a share of a/b the first n samples hold floor(n a / b) replayed ones, so sample i is replayed exactly when
floor((i + 1) a / b) exceeds floor(i a / b), and it is then old sample number floor(i a / b). Both corpora are visited in keyed orders
(`order.Windows`), so that everything follows from (share, seed, index): no draw, no state, equal shares in every batch, and a count that
anyone can repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.data.order import Windows, keys_of
from openhearth.data.shards import Tokens
from openhearth.ledger import digest_json

Indices = npt.NDArray[np.int64]

FINEST = 1_000_000
"""The largest denominator of a share: finer ones differ in less than one sample of a million."""


class Joined:
    """The tokens of several corpora as one sequence, in the order in which they were learned."""

    def __init__(self, parts: Sequence[Tokens]) -> None:
        self.parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)

    @property
    def digest(self) -> str:
        """One sha256 for all tokens."""
        return digest_json([part.digest for part in self.parts])

    def verify(self) -> None:
        """Read everything once; raises DamagedError naming the first shard that is not as it was written."""
        for part in self.parts:
            part.verify()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, span: slice) -> npt.NDArray[Any]:
        start, stop, _ = span.indices(len(self))
        pieces = [
            part[max(0, start - int(first)) : stop - int(first)]
            for part, first in zip(self.parts, self._starts[:-1], strict=True)
            if start < int(first) + len(part) and stop > int(first)
        ]
        return np.concatenate([piece.astype(np.int64) for piece in pieces]) if pieces else np.empty(0, np.int64)

    def documents(self) -> list[dict[str, Any]]:
        """Every document with its span in the whole sequence (`start`, `end`), its id and where it is from."""
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = []
        at = 0
        for part in self.parts:
            for path in sorted(part.folder.glob("*.docs.parquet")):
                table = pq.read_table(path, columns=["start", "end", "doc_id", "uri", "licence", "sha256"])
                rows += [{**row, "start": at + row["start"], "end": at + row["end"]} for row in table.to_pylist()]
                at = rows[-1]["end"]
        return rows


class Replay:
    """Samples of new text with a share of old ones among them. `old` may be None when the share is 0."""

    def __init__(self, new: Windows, old: Windows | None, share: float) -> None:
        fraction = Fraction(str(share)).limit_denominator(FINEST)
        if not 0 <= fraction < 1:
            raise ValueError(f"a share of {share} is outside [0, 1)")
        if fraction and old is None:
            raise ValueError("nothing to replay")
        self.new, self.old, self.share = new, old, fraction

    def replayed_before(self, index: Indices) -> Indices:
        """How many of the samples before each `index` are replayed ones: floor(index a / b)."""
        counts: Indices = np.asarray(index, np.int64) * self.share.numerator // self.share.denominator
        return counts

    def old_samples(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Of the samples [start, stop): those that are replayed, and which old sample each of them is."""
        index = np.arange(start, stop, dtype=np.int64)
        number = self.replayed_before(index)
        chosen = self.replayed_before(index + 1) > number
        return index[chosen], number[chosen]

    def sample(self, start: int, stop: int) -> tuple[Indices, Indices]:
        """Samples [start, stop) as (inputs, targets), int64 of shape (stop - start, sequence_length)."""
        rows, numbers = self.old_samples(start, stop)
        first = start - int(self.replayed_before(np.array([start]))[0])
        fresh = self.new.sample(first, first + (stop - start) - len(rows))
        if not len(rows):
            return fresh
        assert self.old is not None, "a share above 0 has old text"
        again = self.old.sample(int(numbers[0]), int(numbers[-1]) + 1)
        old = np.zeros(stop - start, dtype=bool)
        old[rows - start] = True
        mixed = tuple(np.empty((stop - start, self.new.sequence_length), np.int64) for _ in range(2))
        for whole, ours, theirs in zip(mixed, fresh, again, strict=True):
            whole[~old], whole[old] = ours, theirs
        return mixed[0], mixed[1]


def replay_seed(seed: int) -> int:
    """The seed of the order in which old text is replayed: another than that in which it was first learned."""
    return int(keys_of("replay", seed)[0] >> np.uint64(1))


# -- provenance -------------------------------------------------------------------------------------------------------------


def learned_batches(steps: int, events: Iterable[dict[str, Any]]) -> list[int]:
    """The batches that changed the weights, in order, from the events of the guard: skipped steps are left out, and what a rewind took
    back; the batches that a rewind passes over come in their place."""
    batches: list[int] = []
    skipped: set[int] = set()
    moved = 0
    for event in [*events, {"event": "end", "step": steps}]:
        reached = event["step"] - (event["event"] == "skip")
        batches += range(len(batches) + moved, reached + moved)
        if event["event"] == "skip":
            skipped.add(reached)
        elif event["event"] == "rewind":
            del batches[event["to"] :]
            skipped = {step for step in skipped if step < event["to"]}
            moved += event["batches"]
    return [batch for step, batch in enumerate(batches) if step not in skipped]


def provenance(mix: Replay, tokens: Joined, batches: Sequence[int], rows: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What was replayed in `batches` of `rows` samples: a row for each window (sample, window, the span of its targets in the old text)
    and one for each document (id, where from, windows and tokens of it that were targets)."""
    if mix.old is None:
        return [], []
    length, total = mix.old.sequence_length, len(tokens)
    documents = tokens.documents()
    ends = np.array([document["end"] for document in documents], np.int64)
    counts = np.zeros((2, len(documents)), np.int64)
    windows: list[dict[str, Any]] = []
    for batch in batches:
        samples, numbers = mix.old_samples(batch * rows, (batch + 1) * rows)
        for sample, number in zip(samples.tolist(), numbers.tolist(), strict=True):
            window = int(mix.old.windows(number, number + 1)[0])
            start, end = window * length + 1, min((window + 1) * length + 1, total)
            windows.append({"sample": sample, "window": window, "start": start, "end": end})
            at = int(np.searchsorted(ends, start, side="right"))
            while at < len(documents) and documents[at]["start"] < end:
                counts[:, at] += 1, min(end, documents[at]["end"]) - max(start, documents[at]["start"])
                at += 1
    named = ("doc_id", "uri", "licence", "sha256")
    touched = [
        {name: documents[at][name] for name in named} | {"windows": int(counts[0, at]), "tokens": int(counts[1, at])}
        for at in np.flatnonzero(counts[0]).tolist()
    ]
    return windows, touched


def write_provenance(folder: Path, windows: Sequence[dict[str, Any]], documents: Sequence[dict[str, Any]]) -> None:
    """`replay.parquet` (windows) and `replay_documents.parquet`; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers, names = ("sample", "window", "start", "end"), ("doc_id", "uri", "licence", "sha256")
    shapes = {
        "replay.parquet": (windows, pa.schema([(name, pa.int64()) for name in numbers])),
        "replay_documents.parquet": (
            documents,
            pa.schema([(name, pa.string()) for name in names] + [(name, pa.int64()) for name in ("windows", "tokens")]),
        ),
    }
    for name, (rows, schema) in shapes.items():
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / name, compression="zstd")
