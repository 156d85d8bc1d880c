"""What the tests of the data room share: a listener, a small library, the real corpus (made once), a tokenizer trained on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from openhearth.data.corpus import Corpus
from openhearth.data.documents import read_documents
from openhearth.data.tokenizer import Tokenizer
from openhearth.ledger import Artifact
from openhearth.stage import Setting

Write = Callable[[str, str | bytes], Path]

SETTING = Setting(name="test", seed=0, budget_seconds=300.0)


class Heard:
    """A listener that keeps what a stage tells."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self.figures: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.facts: dict[str, Any] = {}

    def progress(self, done: float, total: float, **figures: float | str) -> None:
        self.steps.append((done, total))
        self.figures.append(figures)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def record(self, **facts: Any) -> None:
        self.facts.update(facts)

    def measure(self, **figures: Any) -> None:
        raise AssertionError("the data room measures nothing that depends on the clock")


def artifact(path: Path, stage: str = "corpus") -> Artifact:
    return Artifact(path, stage, "", "", {}, {})


def make_corpus(out: Path, **fields: Any) -> tuple[Path, Heard]:
    """Run the corpus stage into the new folder `out`."""
    out.mkdir(parents=True)
    heard = Heard()
    stage = Corpus(**fields).resolve(SETTING)
    stage.preflight()
    stage.run({}, out, heard)
    return out, heard


def made(tmp_path: Path, *paths: Path | str, **fields: Any) -> tuple[dict[str, str], dict[str, tuple[str, str]], Heard]:
    """Documents by uri, drops (rule, value) by uri, and what was told."""
    out, heard = make_corpus(tmp_path / "out", source="text", text=tuple(map(str, paths)), **fields)
    drops = {row["uri"]: (row["rule"], row["value"]) for row in pyarrow.parquet.read_table(out / "drops.parquet").to_pylist()}
    documents = {row["uri"]: row["text"] for row in read_documents(out)}
    report = json.loads((out / "report.json").read_text())
    assert report["input"] == len(documents) + len(drops) == report["kept"] + sum(report["dropped"].values())
    return documents, drops, heard


def whole(documents: dict[str, str], uri: str) -> str:
    """A document put together from its pieces."""
    if uri in documents:
        return documents[uri]
    parts = {int(name.rpartition("#")[2]): text for name, text in documents.items() if name.startswith(uri + "#")}
    return "".join(parts[number] for number in sorted(parts))


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(path: Path, **columns: Any) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="session")
def library_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Heard]:
    """The corpus of the running Python's standard library."""
    return make_corpus(tmp_path_factory.mktemp("library") / "corpus")


@pytest.fixture(scope="session")
def tokenizer(library_corpus: tuple[Path, Heard]) -> Tokenizer:
    return Tokenizer.train((row["text"] for row in read_documents(library_corpus[0], "train", ("text",))), 4_096)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file below a fresh folder `text`, making its folders."""

    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / "text" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return written


BOOK = "".join(
    f"Chapter {number}\n\nIt was day {number} of the journey, and the {number * 37} gulls cried over the bay.\n\n" for number in range(400)
)
"""About 33 kB of paragraphs."""
