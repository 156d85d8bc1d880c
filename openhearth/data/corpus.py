"""The stage that makes a corpus: documents with source, licence and digest, split by keyed hash, and a row for everything left out.

The idea: two sources (the standard library, or files and folders of the user) give the same stream of documents and drops; what
follows is the same for both. Which side a document is on is a pure function of a written key and its group's name.
"""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from openhearth.data import built, places, readers, stdlib
from openhearth.data.documents import (
    WEIGHTLESS,
    Document,
    Drop,
    counts_by_rule,
    drop_duplicates,
    keyed_unit,
    worst_first,
    write_documents,
    write_drops,
)
from openhearth.errors import HearthError
from openhearth.ledger import digest_json, disk_error, require_space, write_json
from openhearth.stage import Made, Setting, Stage, Tell

PIECE = 64 << 10
"""Bytes: longer texts of the user are cut, so that a single book can be split in training and held-out parts."""

MIN_TEXT = 20_000
"""Bytes of text below which no model is worth training."""

MAX_TEXT = 2 << 30
"""Bytes of text that are held in memory while a corpus is made."""

NAMED, MAX_SHOWN = 3, 200
"""Files that one line names, and characters of each path."""


class Corpus(Stage):
    """Gather documents, leave out by rule what is not worth learning from, and set whole groups aside to test on."""

    kind: ClassVar[str] = "corpus"

    source: Literal["stdlib", "text", "built"] = "stdlib"
    """Where the text comes from: "stdlib" (this machine's Python library), "text" (files and folders of yours), "built" (hearth data)."""

    text: tuple[str, ...] = ()
    """For "text": files and folders of .txt, .md, .rst, .py, .jsonl (each also .gz, .zst) and .parquet. For "built": folders of corpora."""

    held_out: float = Field(default=0.06, gt=0, lt=0.5)
    """The share of the groups (packages of the library; documents of own text) that is never trained on; by number, about by bytes."""

    split_key: str = "hearth-87"
    """The key of the hash that chooses the held-out groups. Another key, another choice; the same key, the same choice anywhere."""

    fingerprint: str = ""
    """What the source looks like now (versions; names, sizes and times of files). Filled in by the run, so that a change is noticed."""

    def resolve(self, setting: Setting) -> Corpus:
        """The same stage with the source's fingerprint: the stage is made again when the source has changed."""
        seen: object = [sys.version, sys.platform]
        if self.source != "stdlib":
            seen = _seen(self.text) if self.source == "text" else [built.digest(Path(folder)) for folder in self.text]
        return self.model_copy(update={"fingerprint": digest_json(seen)[:16]})

    def preflight(self) -> None:
        """Raise HearthError for a source that is not there."""
        if self.source == "stdlib":
            if self.text:
                raise HearthError('corpus: text is given but source is "stdlib"; set source = "text" to use it')
            stdlib.folder()
        elif not self.text:
            raise HearthError(f'corpus: source is "{self.source}" but no file or folder is given; name some with --text or text = ["PATH"]')
        elif self.source == "text":
            places.check(self.text)
        else:
            for folder in self.text:
                built.check(Path(folder))

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Write `documents.parquet`, `drops.parquet` and `report.json`."""
        documents, drops = {"stdlib": self._from_stdlib, "text": self._from_text, "built": self._from_built}[self.source](tell)
        seen = len(documents) + len(drops)
        documents.sort(key=lambda document: document.uri)
        if self.source == "stdlib":
            heldout = self._hold_out_packages(documents)
            documents, copies = drop_duplicates(documents, heldout)
            drops += copies
        else:
            documents, copies = drop_duplicates(documents)
            drops += copies
            heldout = self._hold_out_pieces(documents, drops)
            self._tell_drops(drops, out, tell)
        # The last step of the rule "every drop is a row": whatever was looked at is in one table or the other, once.
        assert seen == len(documents) + len(drops)
        drops.sort(key=lambda drop: (drop.uri, drop.rule))
        report = self._report(documents, drops, heldout)
        require_space(out, sum(document.bytes for document in documents), "the corpus")
        try:
            write_documents(out / "documents.parquet", documents, heldout)
            write_drops(out / "drops.parquet", drops)
        except OSError as error:
            raise disk_error(error, out) from error
        write_json(out / "report.json", report)
        tell.record(documents=report["kept"], bytes=report["bytes"], dropped=report["dropped"], input=report["input"])

    # -- sources ------------------------------------------------------------------------------------------------------------

    def _from_stdlib(self, tell: Tell) -> tuple[list[Document], list[Drop]]:
        root = stdlib.folder()
        found = list(stdlib.collect(root, stdlib.version(), stdlib.compiled_modules(root), tell.progress))
        documents = [item for item in found if isinstance(item, Document)]
        drops = [item for item in found if isinstance(item, Drop)]
        if not any(document.kind == "topic" for document in documents):
            tell.note("corpus: this Python comes without pydoc_data.topics: no topics of the language reference in the corpus")
        return documents, drops

    def _from_text(self, tell: Tell) -> tuple[list[Document], list[Drop]]:
        found = list(places.find(self.text))
        files = [item for item in found if isinstance(item, places.Place)]
        drops = [item for item in found if isinstance(item, Drop)]
        total = sum(place.bytes for place in files)
        _require_room(sum(place.bytes for place in files if place.path.suffix.lower() in places.TEXT_SUFFIXES))
        rows: list[readers.Row] = []
        done = size = 0
        for place in files:
            tell.progress(done, total)
            for row in readers.read(place):
                if isinstance(row, Drop):
                    drops.append(row)
                else:
                    rows.append(row)
                    size += len(row[1])
            _require_room(size)
            done += place.bytes
        tell.progress(total, total)
        length = _piece(len(text.encode()) for _, text in rows)
        documents = [Document(name, name, "text", "unknown", "", piece) for uri, text in rows for name, piece in pieces(uri, text, length)]
        return documents, drops

    def _from_built(self, tell: Tell) -> tuple[list[Document], list[Drop]]:
        """The documents of built corpora that are to be trained on, cut as own text is."""
        _require_room(sum(built.size(Path(folder)) for folder in self.text))
        rows = list(built.rows(self.text))
        length = _piece(row["bytes"] for row in rows)
        documents = []
        for number, row in enumerate(rows):
            tell.progress(number, len(rows))
            cut = pieces(row["uri"], row["text"], length)
            documents += [Document(name, name, "text", row["licence"], row["evidence"], piece) for name, piece in cut]
        tell.progress(len(rows), len(rows))
        return documents, []

    # -- split --------------------------------------------------------------------------------------------------------------

    def _hold_out_packages(self, documents: Sequence[Document]) -> set[str]:
        """Groups whose keyed hash is below the share: a pure function of (key, name), the same for every version of Python."""
        groups = {document.group for document in documents}
        heldout = {group for group in groups if keyed_unit(self.split_key, group) < self.held_out}
        if not heldout or heldout == groups:
            side = "no" if not heldout else "every"
            raise HearthError(
                f"corpus: with this split_key {side} package of {len(groups)} is held out; choose another split_key or held_out"
            )
        return heldout

    def _hold_out_pieces(self, documents: Sequence[Document], drops: Sequence[Drop]) -> set[str]:
        """As for packages; then, in the order of the hash, so many more or fewer that neither side is next to empty."""
        size = sum(document.bytes for document in documents)
        if size < MIN_TEXT or len(documents) < 2:
            raise HearthError(self._too_little(size, len(documents), drops))
        order = sorted(documents, key=lambda document: (keyed_unit(self.split_key, document.group), document.group))
        total = sum(document.bytes for document in order)
        count = sum(keyed_unit(self.split_key, document.group) < self.held_out for document in order)
        size = sum(document.bytes for document in order[:count])
        while count == 0 or (size < self.held_out * total / 2 and count < len(order) - 1):
            size += order[count].bytes
            count += 1
        while count == len(order) or (size > total / 2 and count > 1):
            count -= 1
            size -= order[count].bytes
        return {document.group for document in order[:count]}

    def _too_little(self, size: int, documents: int, drops: Sequence[Drop]) -> str:
        """What to mend: the files that cannot be used where there are some, since more text is no remedy for those."""
        what = f"{size:,} bytes of text in {documents:,} document{'s' * (documents != 1)}"
        least = f"at least {MIN_TEXT:,} bytes in two documents are needed"
        meant = [drop for drop in worst_first(drops) if drop.rule not in WEIGHTLESS]
        if not meant:
            return f"corpus: {what} ({len(drops):,} left out), {least}; give more text"
        named = "; ".join(f"{self._named(drop)} ({drop.rule}: {drop.value}), needed: {drop.threshold}" for drop in meant[:NAMED])
        more = f"; {len(drops) - NAMED:,} more left out ({_by_rule(drops)} in all)" if len(drops) > NAMED else ""
        rest = f"what else was given is {what}, {least}" if documents else "nothing else was given"
        return f"corpus: cannot use {named}{more}; {rest}"

    def _tell_drops(self, drops: Sequence[Drop], out: Path, tell: Tell) -> None:
        """One line on what of the user's own text was left out, and where the whole list will be."""
        if drops:
            named = ", ".join(f"{self._named(drop)} ({drop.rule}: {drop.value})" for drop in worst_first(drops)[:NAMED])
            file = out.with_name(out.name.removesuffix(".partial")) / "drops.parquet"
            command = f"hearth show {shlex.quote(str(out.parents[1]))} --drops"
            tell.note(f"{len(drops):,} left out ({_by_rule(drops)}), such as {named}; all are in {file}, to be read with: {command}")

    def _named(self, drop: Drop) -> str:
        """The path of a drop as the user would type it, of bounded length."""
        path = places.where(self.text, drop.uri)
        return path if len(path) <= MAX_SHOWN else f"{path[: MAX_SHOWN // 2]}...{path[-MAX_SHOWN // 2 :]}"

    # -- report -------------------------------------------------------------------------------------------------------------

    def _report(self, documents: Sequence[Document], drops: Sequence[Drop], heldout: Collection[str]) -> dict[str, Any]:
        sides: dict[str, list[Document]] = {"train": [], "heldout": []}
        for document in documents:
            sides["heldout" if document.group in heldout else "train"].append(document)
        return {
            "format": "openhearth-corpus/1",
            "source": self.source,
            "python": stdlib.version() if self.source == "stdlib" else None,
            "input": len(documents) + len(drops),
            "kept": len(documents),
            "dropped": counts_by_rule(drops),
            "documents": {side: len(rows) for side, rows in sides.items()},
            "bytes": {side: sum(row.bytes for row in rows) for side, rows in sides.items()},
            "kinds": _bytes_by(documents, "kind"),
            "licences": _bytes_by(documents, "licence"),
            "split_key": self.split_key,
            "held_out": self.held_out,
            "held_out_groups": sorted(heldout) if self.source == "stdlib" else len(heldout),
        }


def _require_room(size: int) -> None:
    if size > MAX_TEXT:
        raise HearthError(f"corpus: more than {MAX_TEXT:,} bytes of text, which this version cannot hold; give fewer or smaller files")


def _piece(sizes: Iterable[int]) -> int:
    """Bytes above which a text is cut: a sixteenth of everything where there is little."""
    return min(PIECE, max(2_048, sum(sizes) // 16))


def _by_rule(drops: Sequence[Drop]) -> str:
    return ", ".join(f"{count:,} {rule}" for rule, count in counts_by_rule(drops).items())


def _bytes_by(documents: Iterable[Document], field: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for document in documents:
        name = getattr(document, field)
        sums[name] = sums.get(name, 0) + document.bytes
    return dict(sorted(sums.items()))


def _seen(arguments: Sequence[str]) -> list[list[Any]]:
    """Name, size and time of every file below `arguments`; nothing for a path that cannot be looked at (`preflight` says why)."""
    try:
        found = [item for item in places.find(arguments) if isinstance(item, places.Place)]
        return [[place.uri, place.bytes, place.path.stat().st_mtime_ns] for place in found]
    except (OSError, ValueError):
        return []


def pieces(uri: str, text: str, length: int) -> list[tuple[str, str]]:
    """`text` whole, or cut in pieces of at most `length` bytes (`uri#1`, `uri#2`, ...) after a paragraph, a line, a word or a character.

    Joined again, the pieces are the text.
    """
    data = text.encode()
    if len(data) <= length:
        return [(uri, text)]
    cuts = [0]
    while len(data) - cuts[-1] > length:
        cuts.append(_cut(data, cuts[-1], cuts[-1] + length))
    cuts.append(len(data))
    return [(f"{uri}#{number}", data[start:end].decode()) for number, (start, end) in enumerate(itertools.pairwise(cuts), 1)]


def _cut(data: bytes, start: int, end: int) -> int:
    """The best place to cut `data` in the second half of [start, end)."""
    half = (start + end) // 2
    for mark in (b"\n\n", b"\n\r\n", b"\n", b" "):
        at = data.rfind(mark, half, end)
        if at >= 0:
            return at + len(mark)
    while data[end] & 0xC0 == 0x80:  # inside a character
        end -= 1
    return end
