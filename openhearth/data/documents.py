"""Documents and drops: the two tables of a corpus, and the keyed hash by which documents are ordered and held out.

The idea: everything that was looked at ends in exactly one of two rows, a document that is kept or a drop with its rule, so the
counts always add up. What happens to a document depends on its own name and bytes and on a written key, never on its neighbours:
taking one document away leaves the order and the side of every other as it was.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["module", "reference", "topic", "text"]
Side = Literal["train", "heldout"]

ROW_GROUP = 1_000  # documents per Parquet row group: what a reader holds at once


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its name, source, licence and digests. `sha256` is that of the UTF-8 bytes, `doc_id` that of name and bytes."""

    uri: str
    group: str  # documents of one group are never on two sides
    kind: Kind
    licence: str  # SPDX identifier, or "unknown"
    evidence: str  # what the licence is known from
    text: str
    bytes: int = field(init=False)
    sha256: str = field(init=False)
    doc_id: str = field(init=False)

    def __post_init__(self) -> None:
        data = self.text.encode()
        object.__setattr__(self, "bytes", len(data))
        object.__setattr__(self, "sha256", hashlib.sha256(data).hexdigest())
        object.__setattr__(self, "doc_id", hashlib.sha256(self.uri.encode() + b"\0" + data).hexdigest())


@dataclass(frozen=True, slots=True)
class Drop:
    """Something that was looked at and left out: by which rule, the value that decided, and what the rule asks for."""

    uri: str
    rule: str
    value: str
    threshold: str


def keyed_unit(key: str, name: str) -> float:
    """A number in [0, 1) that depends on `key` and `name` alone: the first 53 bits of sha256(key, NUL, name)."""
    digest = hashlib.sha256(f"{key}\0{name}".encode(errors="surrogateescape")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def counts_by_rule(drops: Iterable[Drop]) -> dict[str, int]:
    """How many drops each rule made, by name."""
    return dict(sorted(Counter(drop.rule for drop in drops).items()))


WHOLE = ("unreadable", "truncated", "damaged", "huge", "not_utf8", "no_text_field")
"""Rules that leave out whole files, as a rule: of drops, the ones to name first."""

WEIGHTLESS = ("hidden", "link", "special", "unsupported_suffix", "duplicate", "duplicate_of_held_out")
"""Rules that leave out what nobody meant to give, or what is there already: of drops, the ones to name last."""


def worst_first(drops: Iterable[Drop]) -> list[Drop]:
    """Files that were meant and could not be read, then rows, then copies and other kinds of files, then what is hidden."""

    def rank(drop: Drop) -> int:
        return 0 if drop.rule in WHOLE else 1 if drop.rule not in WEIGHTLESS else 2 if drop.rule != "hidden" else 3

    return sorted(drops, key=lambda drop: (rank(drop), drop.uri))


def drop_duplicates(documents: Sequence[Document], heldout: Collection[str] = ()) -> tuple[list[Document], list[Drop]]:
    """Keep the first of documents with equal bytes, the held-out ones coming first: a copy on the training side is the one to go.

    `documents` are in the order of their uri; `heldout` holds the groups that are held out.
    """
    first: dict[str, Document] = {}
    for document in sorted(documents, key=lambda document: document.group not in heldout):
        first.setdefault(document.sha256, document)
    kept: list[Document] = []
    drops: list[Drop] = []
    for document in documents:
        original = first[document.sha256]
        if original is document:
            kept.append(document)
            continue
        crosses = original.group in heldout and document.group not in heldout
        rule = "duplicate_of_held_out" if crosses else "duplicate"
        drops.append(Drop(document.uri, rule, original.uri, "bytes seen once"))
    return kept, drops


# -- the tables -------------------------------------------------------------------------------------------------------------

COLUMNS = ("doc_id", "split", "group", "kind", "uri", "licence", "evidence", "sha256", "bytes", "text")


def write_documents(path: Path, documents: Sequence[Document], heldout: Collection[str]) -> None:
    """Write the table of documents; those whose group is in `heldout` get the split "heldout". Equal input gives equal bytes."""
    import pyarrow
    import pyarrow.parquet

    types = {"bytes": pyarrow.int64(), "text": pyarrow.large_string()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in COLUMNS])
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(documents), ROW_GROUP):
            batch = documents[start : start + ROW_GROUP]
            columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in batch] for name in COLUMNS if name != "split"}
            columns["split"] = ["heldout" if row.group in heldout else "train" for row in batch]
            writer.write_table(pyarrow.table({name: columns[name] for name in COLUMNS}, schema=schema))


def write_drops(path: Path, drops: Sequence[Drop]) -> None:
    """Write the table of drops. Equal input gives equal bytes."""
    import pyarrow
    import pyarrow.parquet

    names = ("uri", "rule", "value", "threshold")
    table = pyarrow.table({name: pyarrow.array([getattr(drop, name) for drop in drops], pyarrow.string()) for name in names})
    pyarrow.parquet.write_table(table, path, compression="zstd")


def read_drops(path: Path) -> list[dict[str, Any]]:
    """The rows of a table of drops, as they stand in it."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def read_documents(corpus: Path, split: Side | None = None, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, Any]]:
    """The rows of `documents.parquet` in the folder `corpus`, as dictionaries, in the order of their uri; one side of it if asked."""
    import pyarrow.parquet

    wanted = list(dict.fromkeys([*columns, "split"]))
    with pyarrow.parquet.ParquetFile(corpus / "documents.parquet") as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP, columns=wanted):
            for row in batch.to_pylist():
                if split is None or row["split"] == split:
                    yield {name: row[name] for name in columns}
