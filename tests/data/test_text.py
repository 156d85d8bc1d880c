from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data import corpus as corpus_module
from openhearth.data import places, readers
from openhearth.data.corpus import Corpus, pieces
from openhearth.data.documents import Document, Drop, keyed_unit, read_documents
from openhearth.errors import HearthError

from .conftest import BOOK, SETTING, Heard, Write, files_of, jsonl, made, make_corpus, table, whole

ROWS = [f"Row {number}: " + "a tale of the sea. " * 20 for number in range(100)]


def test_every_format_is_read(tmp_path: Path, write: Write) -> None:
    for suffix in (".txt", ".md", ".rst", ".py"):
        write("plain" + suffix, suffix + BOOK[:500])
    write("UPPER.TXT", "upper" + BOOK[:500])
    write("a/packed.txt.gz", gzip.compress(b"packed" + BOOK[:500].encode()))
    write("rows.jsonl", jsonl(*({"text": row} for row in ROWS)))
    write("rows.jsonl.gz", gzip.compress(jsonl(*({"text": "gz " + row} for row in ROWS))))
    write("rows.jsonl.zst", zstandard.compress(jsonl(*({"text": "zst " + row} for row in ROWS))))
    table(tmp_path / "text/rows.parquet", text=["pq " + row for row in ROWS], other=list(range(100)))
    documents, drops, _ = made(tmp_path, tmp_path / "text")
    assert drops == {}
    assert whole(documents, "plain.md") == ".md" + BOOK[:500]
    assert whole(documents, "a/packed.txt.gz") == "packed" + BOOK[:500]
    for mark, uri in (("", "rows.jsonl"), ("gz ", "rows.jsonl.gz"), ("zst ", "rows.jsonl.zst"), ("pq ", "rows.parquet")):
        assert [whole(documents, f"{uri}:{number}") for number in range(1, 101)] == [mark + row for row in ROWS]


def test_what_cannot_be_read_is_a_drop_with_its_rule(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("book.txt", BOOK)
    write("empty.txt", "")
    write("blank.txt", " \n\n")
    write("latin.txt", b"caf\xe9")
    write("utf16.txt", "text".encode("utf-16"))
    write("nul.txt", b"text\0text")
    write("control.txt", b"\x01\x02\x03 text")
    write("picture.png", b"\x89PNG")
    write("Makefile", "all:\n")
    write("archive.tar.gz", b"x")
    write(".hidden.txt", BOOK)
    write(".git/config.txt", BOOK)
    write("cut.jsonl.gz", gzip.compress(jsonl(*({"text": row} for row in ROWS)))[:-20])
    write("cut.jsonl.zst", zstandard.compress(jsonl(*({"text": row} for row in ROWS)))[:-20])
    write("fake.jsonl.gz", "no gzip")
    write("fake.jsonl.zst", "no zstd")
    write("fake.parquet", "no parquet")
    write("none.jsonl", "")
    folder = tmp_path / "text"
    os.mkfifo(folder / "pipe.txt")
    (folder / "link.txt").symlink_to(folder / "book.txt")
    (folder / "loop").symlink_to(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(folder)  # a socket's path must be short
        listener.bind("socket.txt")
        _, drops, heard = made(tmp_path, folder)
    assert {uri: rule for uri, (rule, _) in drops.items()} == {
        "empty.txt": "empty",
        "blank.txt": "empty",
        "latin.txt": "not_utf8",
        "utf16.txt": "not_utf8",
        "nul.txt": "binary",
        "control.txt": "binary",
        "picture.png": "unsupported_suffix",
        "Makefile": "unsupported_suffix",
        "archive.tar.gz": "unsupported_suffix",
        ".hidden.txt": "hidden",
        ".git": "hidden",
        "cut.jsonl.gz": "truncated",
        "cut.jsonl.zst": "truncated",
        "fake.jsonl.gz": "damaged",
        "fake.jsonl.zst": "damaged",
        "fake.parquet": "damaged",
        "none.jsonl": "empty",
        "pipe.txt": "special",
        "socket.txt": "special",
        "link.txt": "link",
        "loop": "link",
    }
    assert len(heard.notes) == 1 and "21 left out" in heard.notes[0] and "\n" not in heard.notes[0]


def test_what_is_wrong_with_a_row_costs_that_row_and_names_its_line(tmp_path: Path, write: Write) -> None:
    good = jsonl({"text": BOOK})
    bad = {
        2: (b"{not json\n", "bad_json"),
        3: (b"[1, 2]\n", "bad_json"),
        4: (jsonl({"body": "x", "id": 1}), "no_text_field"),
        5: (jsonl({"text": None}), "not_text"),
        6: (jsonl({"text": 5}), "not_text"),
        7: (jsonl({"text": "\ud800"}), "surrogate"),
        8: (jsonl({"text": " "}), "empty"),
        9: (b'{"text": "caf\xe9"}\n', "not_utf8"),
        10: (jsonl({"text": "a\0b"}), "binary"),
        11: (b"[" * 100_000 + b"\n", "bad_json"),
        12: (b'{"text": ' + b"9" * 5_000 + b"}\n", "bad_json"),
        13: (good, "duplicate"),
    }
    write(
        "rows.jsonl", b"\xef\xbb\xbf" + good + b"".join(line for line, _ in bad.values()) + b"\n  \n" + jsonl({"text": "last row"}).rstrip()
    )
    documents, drops, _ = made(tmp_path, tmp_path / "text")
    plain = {uri.partition("#")[0]: rule for uri, (rule, _) in drops.items()}
    assert plain == {f"rows.jsonl:{number}": rule for number, (_, rule) in bad.items()}
    assert drops["rows.jsonl:4"][1] == "fields found: 'body', 'id'"
    assert whole(documents, "rows.jsonl:1") == BOOK
    assert documents["rows.jsonl:16"] == "last row"


def test_columns_that_are_not_text_are_drops(tmp_path: Path, write: Write) -> None:
    write("book.txt", BOOK)
    table(tmp_path / "text/numbers.parquet", text=[1, 2])
    table(tmp_path / "text/body.parquet", body=["a"], title=["b"])
    table(tmp_path / "text/holes.parquet", text=["first " + BOOK[:300], None, " ", "a\0b"])
    table(tmp_path / "text/norows.parquet", text=pyarrow.array([], pyarrow.string()))
    documents, drops, _ = made(tmp_path, tmp_path / "text")
    assert drops == {
        "numbers.parquet": ("not_text", "a column of int64"),
        "body.parquet": ("no_text_field", "fields found: 'body', 'title'"),
        "holes.parquet:2": ("not_text", "null"),
        "holes.parquet:3": ("empty", "1 bytes"),
        "holes.parquet:4": ("binary", "NUL at byte 1"),
        "norows.parquet": ("empty", "0 rows"),
    }
    assert whole(documents, "holes.parquet:1") == "first " + BOOK[:300]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary<values=string, indices=int32, ordered=0>"])
def test_every_string_type_of_parquet_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "text").mkdir()
    column = pyarrow.array(ROWS)
    column = column.dictionary_encode() if kind.startswith("dictionary") else column.cast(kind)
    table(tmp_path / "text/rows.parquet", text=column)
    documents, _, _ = made(tmp_path, tmp_path / "text")
    assert [whole(documents, f"rows.parquet:{number}") for number in range(1, 101)] == ROWS


def test_a_file_or_a_row_above_its_limit_is_left_out_without_being_held(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_FILE", 200_000)
    monkeypatch.setattr(readers, "MAX_ROW", 40_000)
    monkeypatch.setattr(readers, "CHUNK", 1_000)
    write("book.txt", BOOK)
    write("huge.txt", BOOK * 10)
    write("line.txt", "x" * 50_000)
    write("bomb.jsonl.gz", gzip.compress(b" " * 10_000_000))
    write("bomb.jsonl.zst", zstandard.compress(b"\n" * 10_000_000))
    write("rows.jsonl", jsonl({"text": "x" * 40_000}, {"text": "fine"}, {"text": "y" * 90_000}, {"text": "also fine"}))
    table(tmp_path / "text/repeated.parquet", text=["z" * 30_000] * 10)
    table(tmp_path / "text/wide.parquet", text=["z" * 50_000, "narrow"])
    documents, drops, _ = made(tmp_path, tmp_path / "text")
    assert {uri: rule for uri, (rule, _) in drops.items()} == {
        "huge.txt": "huge",
        "line.txt": "long_line",
        "bomb.jsonl.gz": "huge",
        "bomb.jsonl.zst": "huge",
        "rows.jsonl:1": "long_line",
        "rows.jsonl:3": "long_line",
        "repeated.parquet": "huge",
        "wide.parquet:1": "long_line",
    }
    assert (documents["rows.jsonl:2"], documents["rows.jsonl:4"], documents["wide.parquet:2"]) == ("fine", "also fine", "narrow")


def test_gzip_and_zstd_files_of_several_members_are_read_whole(tmp_path: Path, write: Write) -> None:
    halves = BOOK[:15_000].encode(), BOOK[15_000:].encode()
    write("two.txt.gz", b"".join(map(gzip.compress, halves)))
    write("two.txt.zst", b"".join(zstandard.compress(half.upper()) for half in halves))
    documents, _, _ = made(tmp_path, tmp_path / "text")
    assert whole(documents, "two.txt.gz") == BOOK
    assert whole(documents, "two.txt.zst") == BOOK.upper()


def test_line_ends_are_kept_and_a_byte_order_mark_is_not(tmp_path: Path, write: Write) -> None:
    text = BOOK.replace("\n", "\r\n")
    write("book.txt", b"\xef\xbb\xbf" + text.encode())
    documents, _, _ = made(tmp_path, tmp_path / "text")
    assert whole(documents, "book.txt") == text


def test_an_unreadable_file_is_a_drop(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("book.txt", BOOK)
    locked = write("locked.txt", BOOK)
    real = Path.open

    def opened(path: Path, *arguments: Any, **named: Any) -> Any:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", opened)  # chmod does not stop root, as whom tests may run
    _, drops, _ = made(tmp_path, tmp_path / "text")
    assert drops == {"locked.txt": ("unreadable", "Permission denied")}


# -- names ------------------------------------------------------------------------------------------------------------------


def test_uris_are_relative_to_what_was_named_and_never_clash(tmp_path: Path, write: Write) -> None:
    one = write("one/notes/a.txt", BOOK).parents[1]
    two = write("two/notes/a.txt", BOOK.upper()).parents[1]
    single = write("a.txt", BOOK.lower())
    documents, _, _ = made(tmp_path, one, two, single)
    assert {uri.partition("#")[0] for uri in documents} == {"1/notes/a.txt", "2/notes/a.txt", "3/a.txt"}


def test_the_place_of_a_text_and_the_working_folder_leave_no_trace(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("here/book.txt", BOOK).parent
    first, _ = make_corpus(tmp_path / "first", source="text", text=(str(folder),))
    folder.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    second, _ = make_corpus(tmp_path / "second", source="text", text=(".",))
    assert files_of(first) == files_of(second)


def test_a_file_name_that_is_not_utf8_is_spelled_out(tmp_path: Path, write: Write) -> None:
    write("book.txt", BOOK)
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "text") + b"/caf\xe9.txt")).write_text("coffee")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    documents, _, _ = made(tmp_path, tmp_path / "text")
    assert "caf\\xe9.txt" in documents


def test_own_text_has_an_unknown_licence(tmp_path: Path, write: Write) -> None:
    out, _ = make_corpus(tmp_path / "out", source="text", text=(str(write("book.txt", BOOK)),))
    assert {(row["licence"], row["evidence"], row["kind"]) for row in read_documents(out)} == {("unknown", "", "text")}


# -- pieces and sides -------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab é\n\r🔥", max_size=400), length=st.integers(8, 100))
def test_pieces_are_bounded_and_joined_again_they_are_the_text(text: str, length: int) -> None:
    cut = pieces("a", text, length)
    assert "".join(piece for _, piece in cut) == text
    assert all(0 < len(piece.encode()) <= length for _, piece in cut) or text == ""
    assert [name for name, _ in cut] == (["a"] if len(cut) == 1 else [f"a#{number}" for number in range(1, len(cut) + 1)])


def test_a_text_is_cut_after_a_paragraph_if_there_is_one_else_a_line_else_a_word() -> None:
    assert pieces("a", "one one\ntwo\n\nthree three", 20)[0][1] == "one one\ntwo\n\n"
    assert pieces("a", "one one\r\ntwo\r\n\r\nx\r\nthree", 20)[0][1] == "one one\r\ntwo\r\n\r\n"
    assert pieces("a", "one two three\nfour five six", 20)[0][1] == "one two three\n"
    assert pieces("a", "one two three four five six", 20)[0][1] == "one two three four "
    assert pieces("a", "é" * 20, 21)[0][1] == "é" * 10


def test_a_single_small_book_is_split_in_two_sides(tmp_path: Path, write: Write) -> None:
    path = write("book.txt", BOOK)
    out, _ = make_corpus(tmp_path / "out", source="text", text=(str(path),))
    sides = json.loads((out / "report.json").read_text())["bytes"]
    assert sides["heldout"] > 0.03 * len(BOOK) and sides["train"] > 0.5 * len(BOOK)


@settings(max_examples=300, deadline=None)
@given(sizes=st.lists(st.integers(1, 5_000), min_size=2, max_size=12), key=st.text(max_size=5), share=st.floats(0.01, 0.49))
def test_neither_side_is_next_to_empty_whatever_the_key(sizes: list[int], key: str, share: float) -> None:
    sizes = [20_000, *sizes]
    documents = [Document(f"{number}", f"{number}", "text", "unknown", "", "x" * size) for number, size in enumerate(sizes)]
    chosen = Corpus(source="text", text=("a",), held_out=share, split_key=key)._hold_out_pieces(documents, [])
    heldout = sum(sizes[int(group)] for group in chosen)
    assert 0 < len(chosen) < len(sizes)
    assert heldout <= sum(sizes) / 2 or len(chosen) == 1
    order = sorted(documents, key=lambda document: keyed_unit(key, document.uri))
    assert chosen == {document.group for document in order[: len(chosen)]}
    following = order[len(chosen)].bytes  # too small a side is only left where one document more would make it too large
    assert heldout >= share * sum(sizes) / 2 or heldout + following > sum(sizes) / 2


def test_taking_a_document_away_moves_no_other_to_another_side(tmp_path: Path, write: Write) -> None:
    rows = [{"text": f"{number} " + BOOK[:700]} for number in range(300)]
    write("a.jsonl", jsonl(*rows))
    write("b.jsonl", jsonl({"text": "One more. " + BOOK[:700]}))
    full, _ = make_corpus(tmp_path / "full", source="text", text=(str(tmp_path / "text"),))
    (tmp_path / "text/b.jsonl").unlink()
    less, _ = make_corpus(tmp_path / "less", source="text", text=(str(tmp_path / "text"),))
    sides = {row["uri"]: row["split"] for row in read_documents(full) if row["uri"].startswith("a")}
    assert sides == {row["uri"]: row["split"] for row in read_documents(less)}


def test_copies_are_dropped_before_the_sides_are_chosen(tmp_path: Path, write: Write) -> None:
    write("a.txt", BOOK)
    write("b.txt", BOOK)
    out, _ = make_corpus(tmp_path / "out", source="text", text=(str(tmp_path / "text"),))
    digests = [row["sha256"] for row in read_documents(out)]
    assert len(digests) == len(set(digests))
    assert all(row["uri"].startswith("a.txt#") for row in read_documents(out))


def test_too_little_text_is_refused_with_how_much_there_is(tmp_path: Path, write: Write) -> None:
    path = write("note.txt", BOOK[:1_234])
    with pytest.raises(HearthError, match=r"1,234 bytes of text in 1 document \(0 left out\), at least 20,000"):
        made(tmp_path, path)


def test_many_documents_of_too_little_text_are_refused(tmp_path: Path, write: Write) -> None:
    write("rows.jsonl", jsonl(*({"text": f"row {number}"} for number in range(100))))
    with pytest.raises(HearthError, match="590 bytes of text in 100 documents"):
        made(tmp_path, tmp_path / "text")


def test_copies_of_one_text_alone_are_refused(tmp_path: Path, write: Write) -> None:
    write("rows.jsonl", jsonl(*[{"text": BOOK[:1_500]}] * 20))
    with pytest.raises(HearthError, match=r"1,500 bytes of text in 1 document \(19 left out\)"):
        made(tmp_path, tmp_path / "text")


def refusal(tmp_path: Path, *paths: Path) -> tuple[str, Heard]:
    """The one line that ends a run on text of no use, and what was told before it."""
    stage, heard = Corpus(source="text", text=tuple(map(str, paths))).resolve(SETTING), Heard()
    out = tmp_path / "runs/r/corpus/k.partial"
    out.mkdir(parents=True, exist_ok=True)
    stage.preflight()
    with pytest.raises(HearthError) as caught:
        stage.run({}, out, heard)
    assert "\n" not in str(caught.value)
    return str(caught.value), heard


def test_text_that_cannot_be_used_ends_in_one_line_with_the_file_the_reason_and_the_remedy(tmp_path: Path, write: Write) -> None:
    for name, data, reason, remedy in (
        ("u16.txt", BOOK.encode("utf-16"), "not_utf8: a UTF-16 byte order mark", "iconv -f UTF-16 -t UTF-8"),
        ("latin.txt", ("caf\xe9 " * 9_000).encode("latin-1"), "not_utf8: 0xe9 at byte 3", "iconv -f LATIN1 -t UTF-8"),
        ("cut.txt.gz", gzip.compress(BOOK.encode())[:-50], "truncated: the file ends inside a gzip member", "copy or download it again"),
    ):
        said, heard = refusal(tmp_path, write(name, data))
        assert said.startswith(f"corpus: cannot use {tmp_path}/text/{name} ({reason}") and remedy in said
        assert "give more text" not in said and "drops.parquet" not in said
        assert heard.notes == []


def test_of_several_arguments_each_file_of_no_use_is_named_as_it_was_typed(tmp_path: Path, write: Write) -> None:
    one, other = write("a/one.txt", BOOK.encode("utf-16")), write("b/two.jsonl", b"{}\n{" * 20)
    said, _ = refusal(tmp_path, one, other.parent)
    assert f"{one} (not_utf8" in said and f"{other}:1 (no_text_field" in said and "19 more left out" in said


def test_what_is_left_out_is_told_with_what_matters_first_and_how_to_see_all_of_it(tmp_path: Path, write: Write) -> None:
    write("book.txt", BOOK)
    for number in range(5):
        write(f".hidden{number}", "x")
        write(f"picture{number}.png", "x")
    write("zeta.txt", b"caf\xe9")
    out, heard = tmp_path / "my run/corpus/k.partial", Heard()
    out.mkdir(parents=True)
    Corpus(source="text", text=(str(tmp_path / "text"),)).run({}, out, heard)
    (note,) = heard.notes
    assert note.startswith("11 left out (5 hidden, 1 not_utf8, 5 unsupported_suffix), such as ")
    assert note.index("zeta.txt") < note.index("picture0.png") and ".hidden" not in note
    assert f"{tmp_path}/my run/corpus/k/drops.parquet" in note
    assert note.endswith(f"hearth show '{tmp_path}/my run' --drops")


def test_a_folder_nested_deeper_than_pythons_calls_is_walked_to_its_end(tmp_path: Path, write: Write) -> None:
    write("b.txt", BOOK)
    write("d.txt", BOOK[:500])
    here = os.open(tmp_path / "text", os.O_RDONLY)
    levels = 2_500  # of names of one letter: its lowest folders have paths that are longer than the system opens
    try:
        for _ in range(levels):
            os.mkdir("c", dir_fd=here)
            below = os.open("c", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        found = list(places.walk(tmp_path / "text", ""))
        _, drops, _ = made(tmp_path, tmp_path / "text")
    finally:  # pytest cannot remove it: its own walk is recursive
        top, next_top = tmp_path / "text/c", tmp_path / "next"
        while (top / "c").exists():
            (top / "c").rename(next_top)
            top.rmdir()
            next_top.rename(top)
    assert [item.uri for item in found if isinstance(item, places.Place)] == ["b.txt", "d.txt"]
    (lost,) = [item for item in found if isinstance(item, Drop)]
    assert (lost.rule, lost.value) == ("unreadable", "File name too long") and lost.uri.endswith("c/c/")
    assert found.index(lost) == 1  # in the order of the names
    assert [rule for rule, _ in drops.values()] == ["unreadable"]


def test_more_text_than_fits_is_refused(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "MAX_TEXT", 30_000)
    with pytest.raises(HearthError, match="more than 30,000 bytes"):
        made(tmp_path, write("book.txt", BOOK))
    path = write("rows.jsonl.gz", gzip.compress(jsonl({"text": BOOK}, {"text": BOOK.upper()})))
    with pytest.raises(HearthError, match="more than 30,000 bytes"):
        made(tmp_path / "again", path)


def test_the_key_of_the_stage_changes_with_the_files(write: Write) -> None:
    path = write("book.txt", BOOK)
    stage = Corpus(source="text", text=(str(path),))
    before = stage.resolve(SETTING)
    assert stage.resolve(SETTING) == before
    write("book.txt", BOOK.swapcase())  # of the same size
    os.utime(path, ns=(0, 0))
    assert stage.resolve(SETTING) != before


def test_progress_reaches_its_total(tmp_path: Path, write: Write) -> None:
    write("a.txt", BOOK)
    write("b.txt", BOOK.upper())
    _, _, heard = made(tmp_path, tmp_path / "text")
    assert heard.steps[-1] == (2 * len(BOOK), 2 * len(BOOK))
    assert heard.steps == sorted(heard.steps)
