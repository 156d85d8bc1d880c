"""Finding the questions of evaluations in a corpus, by n-grams of plain words, with the report both ways.

The idea: two rules of the field. A document goes when it holds any 13 words in a row of an item (Brown et al. 2020, appendix C), or at
least 70 % of the 8-grams of an item (Chowdhery et al. 2022, section 8), which also reaches items too short for the first. A bitmap over
the hashes turns nearly every word of a corpus away before anything is searched for.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow

from openhearth.data import places, readers
from openhearth.data.words import Codes, Hashes, Indices, Words
from openhearth.errors import HearthError

LONG, SHORT = 13, 8
SHARE = 0.7
"""Of an item's 8-grams in one document."""

_BITS = 24

HITS = pyarrow.schema(
    [
        ("doc_id", pyarrow.string()),
        ("set", pyarrow.string()),
        ("item", pyarrow.int64()),
        ("rule", pyarrow.string()),
        ("value", pyarrow.string()),
    ]
)


@dataclass(frozen=True)
class _Grams:
    """The hashes of all items in order, whose they are (grams[k] belongs to items[k]), and a bitmap of their lower bits."""

    grams: Hashes
    items: Indices
    marks: Any

    @classmethod
    def of(cls, grams: Hashes, items: Indices) -> _Grams:
        both = (
            numpy.unique(numpy.stack((grams, items.astype(numpy.uint64)), 1), axis=0) if len(grams) else numpy.empty((0, 2), numpy.uint64)
        )
        marks = numpy.zeros(1 << _BITS, bool)
        marks[both[:, 0] & numpy.uint64((1 << _BITS) - 1)] = True
        return cls(numpy.ascontiguousarray(both[:, 0]), both[:, 1].astype(numpy.int64), marks)

    def found(self, grams: Hashes) -> tuple[Indices, Indices]:
        """Places in `grams` that are an item's, and the items; one pair for each item that has the n-gram."""
        maybe = numpy.flatnonzero(self.marks[grams & numpy.uint64((1 << _BITS) - 1)])
        low = numpy.searchsorted(self.grams, grams[maybe], side="left")
        counts = numpy.searchsorted(self.grams, grams[maybe], side="right") - low
        at = numpy.repeat(maybe, counts)
        within = numpy.arange(len(at)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        return at, self.items[numpy.repeat(low, counts) + within]


class Evaluations:
    """The items of evaluation files, ready to be looked for."""

    def __init__(self, files: Sequence[str]) -> None:
        self.sets: list[str] = []
        self.first = [0]
        self.too_short: list[int] = []
        sizes: list[int] = []
        grams: dict[int, list[Hashes]] = {LONG: [], SHORT: []}
        of: dict[int, list[Indices]] = {LONG: [], SHORT: []}
        for file in files:
            texts, owners = [], []
            count = -1
            for count, item in enumerate(read_items(file)):
                for text in item:
                    texts.append(text)
                    owners.append(self.first[-1] + count)
            if count < 0:
                raise HearthError(f"{file}: holds no text to look for; give JSON lines with text in their fields, or plain text")
            words = Words.plain(Codes.of(texts))
            owner_of = numpy.array(owners, numpy.int64)
            for n in (LONG, SHORT):
                found, at = words.grams(n)
                grams[n].append(found)
                of[n].append(owner_of[numpy.searchsorted(words.first, at, side="right") - 1])
            short = (
                numpy.unique(numpy.stack((grams[SHORT][-1], of[SHORT][-1].astype(numpy.uint64)), 1), axis=0) if len(of[SHORT][-1]) else None
            )
            owned = (
                numpy.bincount(short[:, 1].astype(numpy.int64) - self.first[-1], minlength=count + 1)
                if short is not None
                else numpy.zeros(count + 1, int)
            )
            sizes += owned.tolist()
            self.too_short.append(int((owned == 0).sum()))
            self.sets.append(Path(file).name)
            self.first.append(self.first[-1] + count + 1)
        self.sizes = numpy.array(sizes, numpy.int64)
        empty: list[Any] = [numpy.empty(0, numpy.uint64)]
        self.long = _Grams.of(numpy.concatenate(grams[LONG] or empty), numpy.concatenate(of[LONG] or [numpy.empty(0, numpy.int64)]))
        self.short = _Grams.of(numpy.concatenate(grams[SHORT] or empty), numpy.concatenate(of[SHORT] or [numpy.empty(0, numpy.int64)]))

    def hits(self, doc_ids: Sequence[str], texts: Sequence[str]) -> pyarrow.RecordBatch:
        """A row for each document and item that break a rule together."""
        words = Words.plain(Codes.of(texts))
        rows: dict[tuple[int, int], tuple[str, str]] = {}
        grams, at = words.grams(SHORT)
        places_, items = self.short.found(grams)
        if len(places_):
            text_of = numpy.searchsorted(words.first, at[places_], side="right") - 1
            triples = numpy.unique(numpy.stack((text_of, items, grams[places_].view(numpy.int64)), 1), axis=0)
            both, counts = numpy.unique(triples[:, :2], axis=0, return_counts=True)
            shares = counts / self.sizes[both[:, 1]]
            for (text, item), share in zip(both[shares >= SHARE].tolist(), shares[shares >= SHARE].tolist(), strict=True):
                rows[text, item] = ("8_grams", f"{share:.0%} of the item")
            grams, at = words.grams(LONG)
            places_, items = self.long.found(grams)
            text_of = numpy.searchsorted(words.first, at[places_], side="right") - 1
            both, counts = numpy.unique(numpy.stack((text_of, items), 1), axis=0, return_counts=True)
            for (text, item), count in zip(both.tolist(), counts.tolist(), strict=True):
                rows[text, item] = ("13_gram", f"{count} x 13 words")
        edges = self.first
        found = []
        for (text, item), (rule, value) in sorted(rows.items()):
            number = int(numpy.searchsorted(edges, item, side="right")) - 1
            found.append(
                {"doc_id": doc_ids[text], "set": self.sets[number], "item": item - edges[number] + 1, "rule": rule, "value": value}
            )
        return pyarrow.RecordBatch.from_pylist(found, schema=HITS)


@functools.lru_cache(maxsize=1)
def evaluations(files: tuple[str, ...], digests: tuple[str, ...]) -> Evaluations:
    """The items of `files`, kept for the next batch; `digests` are those of the files."""
    return Evaluations(files)


def read_items(file: str) -> Iterator[list[str]]:
    """The texts of every item of an evaluation file: the fields of a JSON line, or a paragraph of plain text.

    A field of fewer than 8 words is looked for only together with the others of an item that has no longer one.
    """
    path = Path(file)
    if places.format_of(path.name) is None or path.suffix == ".parquet":
        raise HearthError(f"{file}: evaluations are read from .jsonl, .txt and .md files (each also .gz or .zst)")
    place = places.Place(path, path.name, path.stat().st_size, named=True)
    suffix, packed = places.format_of(path.name) or ("", "")
    if suffix not in places.LINE_SUFFIXES:
        text = b"".join(readers.chunks(place, packed)).decode(errors="replace")
        yield from ([part] for part in text.split("\n\n") if part.strip())
        return
    for number, (_, line) in enumerate(readers.lines(readers.chunks(place, packed)), 1):
        if line is None or not line.strip():
            continue
        try:
            fields = list(_strings(json.loads(line)))
        except (ValueError, RecursionError):
            raise HearthError(
                f"{file}:{number}: not JSON; an evaluation file must be whole, or what is dirty in it would be missed"
            ) from None
        long = [field for field in fields if len(field.split()) >= SHORT]
        yield long or [" ".join(fields)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def contamination(hits: pyarrow.Table, evaluations: Evaluations) -> list[dict[str, Any]]:
    """For each evaluation: how many of its items are in the corpus, which ones, and in which documents."""
    rows = hits.to_pylist()
    report = []
    for number, name in enumerate(evaluations.sets):
        mine = [row for row in rows if row["set"] == name]
        items: dict[int, list[str]] = {}
        for row in mine:
            items.setdefault(row["item"], []).append(row["doc_id"])
        total = evaluations.first[number + 1] - evaluations.first[number]
        report.append(
            {
                "set": name,
                "items": total,
                "dirty": len(items),
                "share": len(items) / total,
                "by_rule": {rule: len({row["item"] for row in mine if row["rule"] == rule}) for rule in ("13_gram", "8_grams")},
                "too_short": evaluations.too_short[number],
                "documents": len({row["doc_id"] for row in mine}),
                "dirty_items": {str(item): sorted(ids)[:5] for item, ids in sorted(items.items())},
            }
        )
    return report
