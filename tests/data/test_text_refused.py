"""Own text that cannot be used is refused before the run, in one line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from openhearth.data import places
from openhearth.data.corpus import Corpus
from openhearth.errors import HearthError

from .conftest import BOOK, SETTING, Write, jsonl, made, table, whole


def refused(*paths: Path | str) -> str:
    with pytest.raises(HearthError) as caught:
        Corpus(source="text", text=tuple(map(str, paths))).resolve(SETTING).preflight()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == f"{tmp_path}/nowhere: no such file or folder; check the path"


def test_a_fifo_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert "is a FIFO" in refused(tmp_path / "pipe.txt")


def test_a_device_is_refused() -> None:
    assert "is a device" in refused("/dev/zero")


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "leads back to itself" in refused(tmp_path / "a")


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone")
    assert "no such file" in refused(tmp_path / "a.txt")


def test_a_link_to_a_file_that_was_named_is_followed(tmp_path: Path, write: Write) -> None:
    (tmp_path / "link.txt").symlink_to(write("book.txt", BOOK))
    documents, _, _ = made(tmp_path, tmp_path / "link.txt")
    assert whole(documents, "link.txt") == BOOK


def test_an_empty_file_is_refused(write: Write) -> None:
    assert "is empty" in refused(write("empty.txt", ""))


def test_a_kind_of_file_that_is_not_read_is_refused_with_those_that_are(write: Write) -> None:
    assert ".parquet" in refused(write("book.pdf", "%PDF"))


def test_a_folder_with_nothing_to_read_is_refused_with_what_is_there(write: Write) -> None:
    folder = write("a/b/picture.png", "x").parents[2]
    assert "1 x .png" in refused(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    assert "nothing at all" in refused(tmp_path / "void")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5_000])
def test_an_impossible_name_is_refused(name: str) -> None:
    assert "cannot be looked at" in refused(name)


def test_no_path_and_an_unused_path_are_refused() -> None:
    assert "--text" in refused()
    with pytest.raises(HearthError, match='source = "text"'):
        Corpus(text=("book.txt",)).preflight()


def test_a_named_file_without_the_field_is_refused_with_the_fields_that_it_has(tmp_path: Path, write: Write) -> None:
    path = write("rows.jsonl", jsonl({"body": "a"}, {"body": "b"}))
    with pytest.raises(HearthError, match=r"rows\.jsonl: no field named 'text' \(fields found: 'body'\); rename"):
        made(tmp_path, path)
    table(tmp_path / "rows.parquet", content=["a"])
    with pytest.raises(HearthError, match=r"rows\.parquet: no field named 'text' \(fields found: 'content'\); rename"):
        made(tmp_path / "again", tmp_path / "rows.parquet")


def test_a_large_folder_is_accepted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PREFLIGHT_ENTRIES", 500)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2_000):
        (folder / f"{number}.bin").touch()
    begin = time.process_time()
    places.check([str(folder)])  # not searched to its end: the run itself says if nothing is there
    assert time.process_time() - begin < 0.5
