"""Instruction examples drawn from the corpus itself, with no model and no network: a question, and an answer that people wrote.

`candidates.py` says what a document offers; here it is chosen. Documents are taken in the order of a keyed hash and only as many are
read as needed. Every candidate is either kept or dropped by one named rule, and counted. An example for training is dropped when its
answer, or what it asks for, also stands in a held-out document.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from openhearth.align import chat, code
from openhearth.align.candidates import (
    CHARACTERS_PER_TOKEN,
    Candidate,
    Kind,
    Window,
    from_document,
    is_python,
    keyed,
    paragraphs,
    subject_of,
)
from openhearth.errors import DamagedError

SHORTEST_PARAGRAPH = 64
"""Characters; shorter paragraphs (headings, stock phrases) are not compared with the held-out text."""


@dataclass(frozen=True)
class Example:
    """One question and its answer, and both as the model sees them."""

    kind: Kind
    doc_id: str
    name: str
    """The function, the topic or the module asked for; empty for a continuation."""
    question: str
    answer: str
    opening: str
    """How the answer begins: decorators, header and docstring of a function; the text to continue; else empty."""
    ids: list[int]
    mask: list[bool]
    """True on the ids the loss is taken on."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


@dataclass(frozen=True)
class Limits:
    """When to stop reading documents; None is no limit. The document at which a limit is reached is read to its end."""

    examples: int | None = None
    tokens: int | None = None

    def reached(self, examples: int, tokens: int) -> bool:
        return (self.examples is not None and examples >= self.examples) or (self.tokens is not None and tokens >= self.tokens)


@dataclass
class Examples:
    """What was kept, in keyed order, and what was not: `candidates` = sum of `kept` + sum of `dropped`."""

    kept: list[Example] = field(default_factory=list)
    candidates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    """Documents of the split: read, not valid Python, not read because a limit was reached."""

    @property
    def rendered(self) -> list[tuple[list[int], list[bool]]]:
        """(ids, loss mask) of every example, as `packing.pack` takes them."""
        return [(example.ids, example.mask) for example in self.kept]

    def counts(self) -> dict[str, Any]:
        """The record for `examples.json`."""
        kinds = Counter(example.kind for example in self.kept)
        return {
            "documents": dict(sorted(self.documents.items())),
            "candidates": self.candidates,
            "kept": dict(sorted(kinds.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "tokens": sum(len(example.ids) for example in self.kept),
            "learned_tokens": sum(sum(example.mask) for example in self.kept),
        }


def read_documents(path: Path) -> pa.Table:
    """The columns of a corpus's `documents.parquet` that examples are made of; raises DamagedError naming the file."""
    try:
        return pq.read_table(path, columns=["doc_id", "split", "kind", "uri", "text"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DamagedError(f"{path}: not readable as the documents of a corpus ({str(error).splitlines()[0]})") from None


def make_examples(
    documents: pa.Table,
    split: Literal["train", "heldout"],
    tokenizer: chat.ChatTokenizer,
    sequence_length: int,
    limits: Limits,
    seed: int,
) -> Examples:
    """Examples from the documents of `split`, each of at most `sequence_length` + 1 tokens (packing shifts inputs against targets).

    The same documents, tokenizer, limits and seed give the same examples in the same order.
    """
    made, tokens = Examples(), 0
    seen: set[bytes] = set()
    held_out = _held_out_pieces(documents) if split == "train" else frozenset()
    rows = [row for row, value in enumerate(documents["split"].to_pylist()) if value == split]
    ids = documents["doc_id"].to_pylist()
    rows.sort(key=lambda row: keyed(f"{seed}:document", ids[row]))
    for place, row in enumerate(rows):
        if limits.reached(len(made.kept), tokens):
            made.documents["not read, there are enough examples"] = len(rows) - place
            break
        kind, uri, text = (documents[column][row].as_py() for column in ("kind", "uri", "text"))
        window = Window(tokenizer, sequence_length, f"{seed}:{ids[row]}")
        found, understood = from_document(kind, uri, text, window)
        made.documents["read" if understood else "not valid Python"] += 1
        for candidate in found:
            made.candidates += 1
            kept = _keep(candidate, ids[row], window, seen, held_out)
            if isinstance(kept, str):
                made.dropped[kept] += 1
                continue
            made.kept.append(kept)
            tokens += len(kept.ids)
            if kept.kind == "continue" and limits.reached(len(made.kept), tokens):  # a book has more passages than are wanted
                break
    made.kept.sort(key=lambda example: keyed(f"{seed}:example", example.question + "\0" + example.answer))
    return made


def _keep(candidate: Candidate, doc_id: str, window: Window, seen: set[bytes], held_out: frozenset[bytes]) -> Example | str:
    """The candidate as an example, or the rule by which it is dropped."""
    if candidate.rule:
        return candidate.rule
    if len(candidate.question) + len(candidate.answer) > CHARACTERS_PER_TOKEN * window.sequence_length:
        return "too long for the window"
    if candidate.kind == "function":
        tree = code.parse(candidate.answer)
        if tree is None or len(tree.body) != 1:
            return "not valid Python by itself"
        pieces = [_digest(candidate.subject)]
    else:
        pieces = _paragraph_digests(candidate.opening) + _paragraph_digests(candidate.answer)
    if not held_out.isdisjoint(pieces):
        return "also in a held-out document"
    identity = _digest(candidate.subject + "\0" + candidate.answer)
    if identity in seen:
        return "duplicate"
    messages = [{"role": "user", "content": candidate.question}, {"role": "assistant", "content": candidate.answer}]
    ids, mask = chat.render(messages, window.tokenizer)
    if len(ids) > window.sequence_length + 1:
        return "too long for the window"
    seen.add(identity)
    return Example(candidate.kind, doc_id, candidate.name, candidate.question, candidate.answer, candidate.opening, ids, mask)


# -- what is held out -------------------------------------------------------------------------------------------------------


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode(errors="surrogatepass"), digest_size=16).digest()


def _paragraph_digests(text: str) -> list[bytes]:
    """Digests of the paragraphs that are long enough to tell texts apart, white space made equal."""
    joined = (" ".join(paragraph.split()) for paragraph in paragraphs(text))
    return [_digest(paragraph) for paragraph in joined if len(paragraph) >= SHORTEST_PARAGRAPH]


def _held_out_pieces(documents: pa.Table) -> frozenset[bytes]:
    """Digests of what training may not show: what functions are asked for by (equal code has it equal), paragraphs of other text."""
    pieces: set[bytes] = set()
    for row, split in enumerate(documents["split"].to_pylist()):
        if split != "heldout":
            continue
        kind, uri, text = (documents[column][row].as_py() for column in ("kind", "uri", "text"))
        if kind != "module":
            pieces.update(_paragraph_digests(text))
        found = code.parse_piece(text) if is_python(kind, uri) else None
        for function in code.functions(*found) if found else ():
            if function is not None:
                pieces.add(_digest(subject_of(function)))
    return frozenset(pieces)
