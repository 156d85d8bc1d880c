"""Requests to remove documents: kept beside the corpus, honoured whenever it is built.

The idea: a request names ids or a source, never a text, and is applied where sources are read, before anything can depend on the document.
So the corpus is, byte for byte, one whose sources never held it; and what was kept of a unit that held it is written anew.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import digest_json, write_atomic

FILE = "removals.jsonl"


@dataclass(frozen=True)
class Requests:
    """All requests of a corpus, as they were made."""

    rows: tuple[dict[str, Any], ...] = ()

    @property
    def digests(self) -> tuple[str, ...]:
        """The digest of each request."""
        return tuple(digest_json({**row, "ids": sorted(row["ids"])}) for row in self.rows)

    def match(self, doc_id: str, uri: str) -> bool:
        """Whether any request is about the document."""
        return any(doc_id in row["ids"] or (row["source"] and covers(row["source"], uri)) for row in self.rows)


def covers(source: str, uri: str) -> bool:
    """Whether a uri is `source`, a row or a record of it, below it as a folder, or matches it as a pattern with * and ?."""
    return uri == source or uri.startswith((source + ":", source.rstrip("/") + "/")) or fnmatch.fnmatchcase(uri, source)


def read_requests(folder: Path) -> Requests:
    """The requests kept in the folder of a corpus."""
    path = folder / FILE
    if not path.is_file():
        return Requests()
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines() if line]
        return Requests(tuple({"ids": frozenset(row["ids"]), "source": str(row["source"]), "why": str(row["why"])} for row in rows))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: damaged ({error}); put a copy of it in its place, since requests must not be forgotten") from None


def add_request(folder: Path, ids: list[str], source: str, why: str) -> None:
    """Append a request; raises HearthError for one that names nothing."""
    if not ids and not source:
        raise HearthError("hearth data remove: nothing is named; give --doc ID, --source URI or --matching FILE")
    path = folder / FILE
    before = path.read_bytes() if path.is_file() else b""
    row = {"ids": sorted(set(ids)), "source": source, "why": why}
    write_atomic(path, before + json.dumps(row, sort_keys=True).encode() + b"\n")
