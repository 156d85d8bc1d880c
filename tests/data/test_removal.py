"""What was asked to be removed is gone as if it had never been there: the same bytes, few files written, copies minded."""

from __future__ import annotations

from pathlib import Path

import pytest

from openhearth.data import buckets, build, data_commands
from openhearth.data.removal import covers, read_requests
from openhearth.errors import HearthError

from .conftest import Write, files_of, jsonl
from .test_build import built, corpus_files, dropped, page, tree


@pytest.fixture
def sources(tmp_path: Path, write: Write) -> Path:
    """A tree and, beside it, many single files, so that most buckets hold several documents."""
    for number in range(30):
        write(f"letters/{number:02d}.txt", page(200 + number, 12))
    write("letters/copy.txt", page(205, 12))
    return tree(write)


def make(sources: Path, out: Path) -> None:
    data_commands.build_command([str(sources)], out, shared={}, sets=[], workers=1, dry_run=False, json=True)


def remove(out: Path, *, docs: list[str] = [], sources: list[str] = [], matching: Path | None = None, copies: bool = False) -> None:  # noqa: B006
    data_commands.remove_command(out, docs=docs, sources=sources, matching=matching, copies=copies, why="", workers=1, json=True)


def id_of(out: Path, uri: str) -> str:
    rows = [*buckets.documents(out, ("uri", "doc_id")), *buckets.table(out, "drops.parquet")]
    return str(next(row["doc_id"] for row in rows if row["uri"] == uri))


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (out / "documents").iterdir()}


@pytest.mark.parametrize("uri", ["letters/07.txt", "letters/05.txt", "letters/copy.txt", "notes/latin.txt", "code/tool.py"])
def test_a_corpus_without_a_document_is_the_one_built_without_its_file(tmp_path: Path, sources: Path, uri: str) -> None:
    out = tmp_path / "out"
    make(sources, out)
    before = inodes(out)
    remove(out, docs=[id_of(out, uri)])
    (sources / uri).unlink()
    built(sources, tmp_path / "without")
    assert corpus_files(tmp_path / "without") == {name: data for name, data in corpus_files(out).items() if name != "sources.json"}
    after = inodes(out)
    assert sum(before.get(name) != number for name, number in after.items()) <= 2  # its bucket, and that of a copy that takes its place
    assert buckets.verify(out) == []


def test_a_source_that_is_removed_is_a_folder_that_never_was(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    make(sources, out)
    remove(out, sources=["letters"])
    for path in (sources / "letters").iterdir():
        path.unlink()
    built(sources, tmp_path / "without")
    assert corpus_files(tmp_path / "without") == {name: data for name, data in corpus_files(out).items() if name != "sources.json"}


def test_a_row_of_a_table_goes_and_later_builds_leave_it_out(tmp_path: Path, sources: Path, write: Write) -> None:
    out = tmp_path / "out"
    make(sources, out)
    remove(out, docs=[id_of(out, "web.jsonl:5")])
    first = corpus_files(out)
    assert "web.jsonl:5" not in {row["uri"] for row in buckets.documents(out)} | dropped(out).keys()
    make(sources, out)
    assert corpus_files(out) == first
    assert not any(page(4)[:60].encode() in data for data in files_of(out).values())  # nor in the steps that are kept


def test_the_next_copy_takes_the_place_of_the_one_that_was_kept(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    make(sources, out)
    assert dropped(out)["letters/copy.txt"] == ("duplicates", "exact_duplicate")
    remove(out, docs=[id_of(out, "letters/05.txt")])
    assert "letters/copy.txt" in {row["uri"] for row in buckets.documents(out)}


def test_all_copies_go_when_that_is_asked(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    make(sources, out)
    remove(out, docs=[id_of(out, "letters/05.txt")], copies=True)
    left = {row["uri"] for row in buckets.documents(out)} | dropped(out).keys()
    assert not {"letters/05.txt", "letters/copy.txt"} & left


def test_every_document_that_holds_a_phrase_goes_also_copies_that_were_not_kept(tmp_path: Path, sources: Path, write: Write) -> None:
    out = tmp_path / "out"
    write("a.jsonl", jsonl({"text": page(300) + " Ask anna@example.org."}, {"text": page(300) + " Ask  anna@example.org."}))
    make(sources, out)
    phrases = write("phrases.list", "anna@example.org\n\n")
    phrases = phrases.rename(tmp_path / "phrases.txt")
    remove(out, matching=phrases)
    left = {row["uri"] for row in buckets.documents(out)} | dropped(out).keys()
    assert not {"a.jsonl:1", "a.jsonl:2", "more.jsonl:2"} & left
    assert all("anna" not in str(row) for row in read_requests(out).rows)  # the request itself says nothing of the person


def test_a_request_that_names_nothing_is_refused_and_not_recorded(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    make(sources, out)
    with pytest.raises(HearthError, match="nothing is named"):
        remove(out)
    with pytest.raises(HearthError, match="no document of"):
        remove(out, docs=["ffffffffffff"])
    (tmp_path / "none.txt").write_text("words that stand nowhere\n")
    with pytest.raises(HearthError, match="no document holds any"):
        remove(out, matching=tmp_path / "none.txt")
    assert not (out / "removals.jsonl").exists()


@pytest.mark.parametrize(("source", "uri", "covered"), [
    ("a/b", "a/b", True), ("a/b", "a/b/c.txt", True), ("a/b.jsonl", "a/b.jsonl:7", True), ("a/b", "a/bc", False),
    ("a/*.txt", "a/x.txt", True),
    ("*/x", "a/y", False), ("a/", "a/b", True),
])  # fmt: skip
def test_a_source_covers_itself_its_rows_what_is_below_it_and_what_its_pattern_matches(source: str, uri: str, covered: bool) -> None:
    assert covers(source, uri) is covered


def test_the_last_document_can_be_removed(tmp_path: Path, write: Write) -> None:
    out = tmp_path / "out"
    make(write("only.txt", page(1)).parent, out)
    remove(out, docs=[id_of(out, "only.txt")])
    assert list(buckets.documents(out)) == [] and buckets.verify(out) == []
    assert not any(page(1)[:60].encode() in data for data in files_of(out).values())


def test_a_request_during_a_build_with_another_recipe_is_honoured(tmp_path: Path, sources: Path) -> None:
    out = tmp_path / "out"
    make(sources, out)
    remove(out, sources=["letters/1*"])
    report = build.build(data_commands._recipe([str(sources)], {}, ["personal=false"]), out, workers=1).report
    assert report["kept"] and not any(row["uri"].startswith("letters/1") for row in buckets.documents(out))
