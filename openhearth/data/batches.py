"""What the stages of cleaning pass on: Arrow batches of documents, and a row for every document that a stage leaves out.

The idea: a stage is a pure function of a batch and its settings. It gives back the documents that go on, perhaps with another text,
and the rows of those that do not; together they are as many as came in, which is checked at the one place where stages are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow

STRINGS = ("doc_id", "uri", "source", "profile", "licence", "evidence", "licence_rule", "date", "language", "edits")
DOCUMENTS = pyarrow.schema(
    [(name, pyarrow.string()) for name in STRINGS]
    + [("offset", pyarrow.int64()), ("raw_bytes", pyarrow.int64()), ("text", pyarrow.large_string())]
)
"""A document on its way: `offset` and `raw_bytes` say where it stands in the (unpacked) file, `edits` what stages changed ("email:2")."""

DROPS = pyarrow.schema(
    [(name, pyarrow.string()) for name in ("doc_id", "uri", "source", "stage", "rule", "value", "threshold", "excerpt")]
    + [("offset", pyarrow.int64())]
)
"""Why a document was left out: the rule's name is the key that sets its threshold; `excerpt` is the beginning of the text."""

EXCERPT = 160
"""Characters of an excerpt."""


@dataclass(frozen=True)
class Why:
    """The rule that a document breaks, what was measured, and what the rule asks for."""

    rule: str
    value: str
    threshold: str


@dataclass(frozen=True)
class Judged:
    """What a stage gives back; `kept.num_rows + drops.num_rows` is what came in."""

    kept: pyarrow.RecordBatch
    drops: pyarrow.RecordBatch


Stage = Callable[[pyarrow.RecordBatch], Judged]


def texts_of(batch: pyarrow.RecordBatch) -> list[str]:
    """The texts of a batch."""
    texts: list[str] = batch.column("text").to_pylist()
    return texts


def with_column(batch: pyarrow.RecordBatch, name: str, values: Sequence[Any]) -> pyarrow.RecordBatch:
    """The same batch with other values in one column."""
    place = batch.schema.get_field_index(name)
    return batch.set_column(place, batch.schema.field(place), pyarrow.array(values, batch.schema.field(place).type))


def judged(batch: pyarrow.RecordBatch, stage: str, reasons: Sequence[Why | None]) -> Judged:
    """`batch` parted by `reasons`, one for each document: None lets it go on."""
    if not any(reasons):
        return Judged(batch, drop_rows([]))
    dropped = [place for place, why in enumerate(reasons) if why is not None]
    columns = {name: batch.column(name).take(pyarrow.array(dropped)).to_pylist() for name in ("doc_id", "uri", "source", "offset", "text")}
    rows = []
    for number, place in enumerate(dropped):
        why = reasons[place]
        assert why is not None
        rows.append(
            {name: columns[name][number] for name in ("doc_id", "uri", "source", "offset")}
            | {"stage": stage, "rule": why.rule, "value": why.value, "threshold": why.threshold}
            | {"excerpt": excerpt(columns["text"][number])}
        )
    return Judged(batch.filter(pyarrow.array([why is None for why in reasons])), drop_rows(rows))


def excerpt(text: str) -> str:
    """The beginning of a text on one line, personal data taken out."""
    from openhearth.data.personal import replaced

    return replaced(" ".join(text[: 2 * EXCERPT].split()))[0][:EXCERPT]


def drop_rows(rows: Sequence[dict[str, Any]]) -> pyarrow.RecordBatch:
    """Rows of the table of drops."""
    return pyarrow.RecordBatch.from_pylist(list(rows), schema=DROPS)


def noted(edits: Sequence[str], found: Sequence[dict[str, int]]) -> list[str]:
    """What was changed before and what is changed now, as one text each: "email:2 lines:1"."""
    return [
        " ".join([*([before] if before else []), *(f"{name}:{count}" for name, count in now.items())])
        for before, now in zip(edits, found, strict=True)
    ]


def run(stages: Sequence[Stage], batch: pyarrow.RecordBatch) -> Judged:
    """All stages in order. What one leaves out the next does not see."""
    drops = []
    for stage in stages:
        result = stage(batch)
        assert result.kept.num_rows + result.drops.num_rows == batch.num_rows, "a stage lost a document"
        drops.append(result.drops)
        batch = result.kept
    table = pyarrow.Table.from_batches(drops, schema=DROPS).combine_chunks().to_batches()
    return Judged(batch, table[0] if table else drop_rows([]))
