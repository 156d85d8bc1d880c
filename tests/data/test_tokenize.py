from __future__ import annotations

import json
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest

from openhearth.data import tokenize
from openhearth.data.documents import read_documents
from openhearth.data.shards import Tokens
from openhearth.data.tokenize import Tokenize, ordered, vocabulary_for
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.stage import Setting

from .conftest import BOOK, SETTING, Heard, artifact, files_of, make_corpus


def run(corpus: Path, out: Path, vocab_size: int = 600) -> tuple[Path, Heard]:
    out.mkdir()
    heard = Heard()
    Tokenize(vocab_size=vocab_size).resolve(SETTING).run({"corpus": artifact(corpus)}, out, heard)
    return out, heard


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(BOOK)
    return make_corpus(folder / "corpus", source="text", text=(str(folder / "book.txt"),))[0]


def test_shards_hold_every_document_with_the_marker_before_it(book: Path, tmp_path: Path) -> None:
    out, _ = run(book, tmp_path / "out")
    tokenizer = Tokenizer.load(out)
    for side in ("train", "heldout"):
        tokens = Tokens(out / side)
        tokens.verify()
        rows = pyarrow.parquet.read_table(out / side / "00000.docs.parquet").to_pylist()
        documents = {row["doc_id"]: row for row in read_documents(book, side)}  # type: ignore[arg-type]
        assert {row["doc_id"] for row in rows} == documents.keys()
        assert [row["start"] for row in rows] == [0, *(row["end"] for row in rows[:-1])]
        assert rows[-1]["end"] == len(tokens)
        for row in rows:
            ids = tokens[row["start"] : row["end"]].tolist()
            assert ids[0] == tokenizer.bos and tokenizer.bos not in ids[1:]
            assert tokenizer.decode(ids[1:]) == documents[row["doc_id"]]["text"]
            assert row["source"] == "text" and row["licence"] == "unknown"


def test_the_summary_counts_what_is_there(book: Path, tmp_path: Path) -> None:
    out, heard = run(book, tmp_path / "out")
    summary = json.loads((out / "summary.json").read_text())
    assert summary == heard.facts
    for side in ("train", "heldout"):
        assert summary[f"{side}_tokens"] == len(Tokens(out / side))
        assert summary[f"{side}_bytes"] == sum(row["bytes"] for row in read_documents(book, side))  # type: ignore[arg-type]
    assert summary["vocab_size"] == Tokenizer.load(out).vocab_size <= 600
    assert heard.steps[-1] == (len(BOOK), len(BOOK))
    assert heard.figures[-1] == {"tokens": summary["train_tokens"] + summary["heldout_tokens"]}


def test_equal_input_gives_equal_files(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(book, tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tokenize, "BATCH_BYTES", 5_000)  # how the work is cut shows nowhere
    second, _ = run(book, Path("second"))
    assert files_of(first) == files_of(second)


def test_the_vocabulary_never_sees_held_out_text(tmp_path: Path) -> None:
    """A word that is in held-out documents alone, however often, is no token."""
    rows = [{"text": f"{number} plain words of a plain tale"} for number in range(1_000)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, _ = make_corpus(tmp_path / "one", source="text", text=(str(path),))
    hidden = {row["uri"] for row in read_documents(corpus, "heldout")}
    for number, row in enumerate(rows, 1):
        if f"rows.jsonl:{number}" in hidden:
            row["text"] += " zyxwvutsrq" * 3
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus, _ = make_corpus(tmp_path / "two", source="text", text=(str(path),))
    assert sum("zyxwvutsrq" in row["text"] for row in read_documents(corpus, "heldout")) > 20
    out, _ = run(corpus, tmp_path / "out")
    assert not any(b"zy" in left + right for left, right in Tokenizer.load(out).merges)


def test_taking_a_document_away_leaves_the_order_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"{number} " + BOOK[:200]}) + "\n" for number in range(200)]
    path.write_text("".join(rows))
    full, _ = make_corpus(tmp_path / "full", source="text", text=(str(path),))
    path.write_text("".join(rows[:-1]))
    less, _ = make_corpus(tmp_path / "less", source="text", text=(str(path),))
    gone = "rows.jsonl:200"
    for side in ("train", "heldout"):
        before = [row["uri"] for row in ordered(full, side) if row["uri"] != gone]  # type: ignore[arg-type]
        assert [row["uri"] for row in ordered(less, side)] == before  # type: ignore[arg-type]
    assert before != sorted(before)


def test_four_byte_ids_are_written_for_a_vocabulary_that_needs_them(book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openhearth.data.shards.dtype_for", lambda vocab_size: "uint32")
    out, _ = run(book, tmp_path / "out")
    assert (out / "train/00000.tok").stat().st_size == 4 * len(Tokens(out / "train"))
    assert int(numpy.asarray(Tokens(out / "train")[:]).max()) == Tokenizer.load(out).bos


def test_the_vocabulary_comes_from_the_recipe_else_the_plan_else_the_budget() -> None:
    plan = {"model": {"vocab_size": 5_000}}
    followed = Setting("test", 0, 300.0, followed_plan=plan)
    assert Tokenize(vocab_size=700).resolve(followed).vocab_size == 700
    assert Tokenize().resolve(followed).vocab_size == 5_000
    assert Tokenize().resolve(SETTING).vocab_size == vocabulary_for(300.0) == 4_096
    assert vocabulary_for(3_600.0) == 8_192


@pytest.mark.parametrize("plan", [{}, {"model": {}}, {"model": {"vocab_size": "many"}}, {"model": None}])
def test_a_plan_without_a_vocabulary_is_refused(plan: dict[str, object]) -> None:
    with pytest.raises(HearthError, match="vocab_size"):
        Tokenize().resolve(Setting("test", 0, 300.0, followed_plan=plan))


def test_the_library_makes_about_three_and_a_half_bytes_a_token(library_corpus: tuple[Path, Heard], tmp_path: Path) -> None:
    _, heard = run(library_corpus[0], tmp_path / "out", 4_096)
    assert 3.4 < heard.facts["train_bytes"] / heard.facts["train_tokens"] < 4.0
    assert heard.facts["vocab_size"] == 4_096


def test_the_stages_are_described_without_heavy_imports() -> None:
    import subprocess
    import sys

    code = (
        "import sys, openhearth.data.corpus, openhearth.data.tokenize\n"
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'tokenizers', 'tiktoken') if name in sys.modules])"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": root})
    assert done.stdout.strip() == "[]"
