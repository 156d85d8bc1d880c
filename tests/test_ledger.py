"""The ledger and the artifacts: nothing can be changed, dropped or torn without being noticed, and a kill loses nothing."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth import ledger
from openhearth.errors import DamagedError, DiskFullError, HearthError
from openhearth.ledger import Ledger, canonical_json, digest_json, open_artifact, read_json, require_space, seal, write_atomic, write_json


def make_partial(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# -- digests ----------------------------------------------------------------------------------------------------------------


def test_the_digest_of_a_value_does_not_depend_on_the_order_of_its_keys() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1}) == hashlib.sha256(b'{"a":1,"b":2}').hexdigest()


def test_a_value_that_is_not_a_number_has_no_digest() -> None:
    with pytest.raises(ValueError):
        digest_json({"a": float("nan")})


# -- files ------------------------------------------------------------------------------------------------------------------


def test_an_atomic_write_replaces_the_whole_file_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"a\.json: no space left on the disk; free some and run the same command again"):
        write_atomic(path, b"half")
    assert read_json(path) == {"x": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_a_file_of_ours_that_is_not_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(DamagedError, match=r"a\.json: not readable as JSON"):
        read_json(tmp_path / "a.json")


def test_too_little_room_is_said_with_the_bytes_that_are_needed(tmp_path: Path) -> None:
    with pytest.raises(
        DiskFullError, match=r"a run needs 1,000,000,000,000 MB, [\d,]+ MB are free; free some or choose another folder with --dir"
    ):
        require_space(tmp_path / "not" / "yet", 10**18, "a run")
    require_space(tmp_path / "not" / "yet", 1, "a run")


# -- artifacts --------------------------------------------------------------------------------------------------------------


def test_an_artifact_is_known_by_its_files_and_not_by_its_telemetry(tmp_path: Path) -> None:
    digests = set()
    for name, clock in (("a", "1"), ("b", "2")):
        partial = make_partial(tmp_path / f"{name}.partial", x="one", deep__y="two", telemetry__clock=clock)
        made = seal(partial, tmp_path / name, stage="s", key=name, facts={"n": 1})
        again = open_artifact(tmp_path / name)
        assert again == made
        again.check()
        digests.add(made.digest)
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    assert digests == {digest_json({"deep/y": two, "x": one})}


@pytest.mark.parametrize("change", ["flip", "cut", "remove", "grow"])
def test_a_damaged_file_of_an_artifact_is_named(tmp_path: Path, change: str) -> None:
    made = seal(make_partial(tmp_path / "p", x="one", deep__y="two"), tmp_path / "a", stage="s", key="k", facts={})
    path = tmp_path / "a" / "deep" / "y"
    data = path.read_bytes()
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x"}[change])
    with pytest.raises(DamagedError) as caught:
        made.check()
    assert str(caught.value).startswith(f"{path}: {'missing' if change == 'remove' else 'damaged'}")
    assert f"delete the folder {tmp_path / 'a'} to make this stage again" in str(caught.value)


def test_an_artifact_whose_table_was_edited_is_refused(tmp_path: Path) -> None:
    seal(make_partial(tmp_path / "p", x="one"), tmp_path / "a", stage="s", key="k", facts={})
    manifest = tmp_path / "a" / "artifact.json"
    record = json.loads(manifest.read_text())
    (tmp_path / "a" / "x").write_text("two")
    record["files"]["x"]["sha256"] = hashlib.sha256(b"two").hexdigest()
    manifest.write_text(json.dumps(record))
    with pytest.raises(DamagedError, match="its digest does not match its list of files"):
        open_artifact(tmp_path / "a")
    manifest.write_text("{}")
    with pytest.raises(DamagedError, match="fields are missing"):
        open_artifact(tmp_path / "a")


@pytest.mark.parametrize(
    "content", ["[1", "[]", "5", '{"files": []}', '{"files": {"a": 5}}', '{"files": {"a": {"sha256": 1, "bytes": 2}}}', '{"facts": [1]}']
)
def test_a_damaged_table_of_an_artifact_is_one_line_with_file_and_remedy(tmp_path: Path, content: str) -> None:
    seal(make_partial(tmp_path / "p", x="one"), tmp_path / "a", stage="s", key="k", facts={})
    manifest = tmp_path / "a" / "artifact.json"
    changed = json.loads(content) if content.startswith("{") else None
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changed) if changed is not None else content)
    with pytest.raises(DamagedError) as caught:
        open_artifact(tmp_path / "a")
    assert str(caught.value).startswith(f"{manifest}: ") and "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"; delete the folder {tmp_path / 'a'} to make this stage again")


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    make_partial(tmp_path / "a", x="one")
    assert open_artifact(tmp_path / "a") is None


def test_sealing_takes_the_place_of_what_an_interrupted_seal_left(tmp_path: Path) -> None:
    make_partial(tmp_path / "a", old="old")
    seal(make_partial(tmp_path / "p", x="one"), tmp_path / "a", stage="s", key="k", facts={})
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["artifact.json", "x"]


# -- the ledger -------------------------------------------------------------------------------------------------------------


def filled(path: Path, lines: int = 3) -> Ledger:
    book = Ledger(path)
    for number in range(lines):
        book.append("stage", stage=f"s{number}", text="é\n")
    return book


@functools.cache
def three_lines() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return filled(Path(folder) / "l").path.read_bytes()


def test_entries_come_back_as_they_were_appended(tmp_path: Path) -> None:
    entries = filled(tmp_path / "l").entries()
    assert [entry["stage"] for entry in entries] == ["s0", "s1", "s2"]
    lines = (tmp_path / "l").read_bytes().splitlines()
    assert [entry["before"] for entry in entries] == ["", *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "l").entries() == []


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 200))
def test_a_line_torn_by_a_kill_is_left_out_and_the_next_entry_takes_its_place(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l"
        book = Ledger(path)
        data = three_lines()
        last = len(data) - (data[:-1].rfind(b"\n") + 1)
        path.write_bytes(data[: -min(cut, last)])
        assert [entry["stage"] for entry in book.entries()] == ["s0", "s1"]
        book.append("stage", stage="again")
        assert [entry["stage"] for entry in book.entries()] == ["s0", "s1", "again"]


def test_a_long_torn_line_is_cut_off_whole(tmp_path: Path) -> None:
    path = tmp_path / "l"
    path.write_bytes(three_lines() + b'{"event": "stage", "torn": "' + b"x" * 5_000)
    Ledger(path).append("done")
    assert path.read_bytes().count(b"\n") == 4 and path.read_bytes().endswith(b"}\n")


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 0.999), bit=st.integers(0, 7))
def test_any_flipped_bit_before_the_last_line_is_noticed(place: float, bit: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l"
        book = Ledger(path)
        data = bytearray(three_lines())
        end = bytes(data[:-1]).rfind(b"\n")
        data[int(place * end)] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=r"l: line [123] "):
            book.entries()
        with pytest.raises(DamagedError):
            book.append("stage")
        assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("order", [(1, 2), (0, 2), (1, 0, 2), (0, 1, 1, 2)])
def test_a_dropped_moved_or_repeated_line_breaks_the_chain(tmp_path: Path, order: tuple[int, ...]) -> None:
    book = filled(tmp_path / "l")
    lines = (tmp_path / "l").read_bytes().splitlines(keepends=True)
    (tmp_path / "l").write_bytes(b"".join(lines[number] for number in order))
    with pytest.raises(DamagedError, match="the chain of digests is broken"):
        book.entries()


def test_a_ledger_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = filled(tmp_path / "l")
    before = (tmp_path / "l").read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ledger.os, "fsync", full)
    with pytest.raises(HearthError, match="no space left"):
        book.append("stage", stage="more")
    assert (tmp_path / "l").read_bytes().startswith(before)


@pytest.mark.parametrize("line", ["[1", "5", "{}", '{"before":""}', '{"event":5,"before":""}'])
def test_a_line_that_is_no_entry_is_named_with_the_remedy(tmp_path: Path, line: str) -> None:
    (tmp_path / "l").write_text(line + "\n")
    with pytest.raises(DamagedError, match=r"l: line 1 is not a ledger entry.*; put a copy of it in its place, or choose another folder"):
        Ledger(tmp_path / "l").entries()


def test_an_entry_of_a_stage_without_what_is_read_from_it_is_named_with_the_remedy(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "l")
    book.append("run")
    book.append("stage")
    for read in (book.run_entries, lambda: book.stage_seconds(("s",))):
        with pytest.raises(DamagedError, match=r"l: line 2 lacks stage, key, digest, folder, seconds, facts; put a copy of the file"):
            read()


def test_a_ledger_that_is_a_folder_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    with pytest.raises(DamagedError, match=r"l: not readable as a ledger \(Is a directory\); put a copy of it in its place"):
        Ledger(tmp_path / "l").entries()
