"""A corpus built from a small tree with known faults: what comes in is accounted for, whatever the workers, kills and settings."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openhearth.data import buckets, build, steps
from openhearth.data.build import Built
from openhearth.data.built import manifest_of
from openhearth.data.corpus import Corpus
from openhearth.data.documents import read_documents
from openhearth.data.settings import DataRecipe, of_paths
from openhearth.errors import HearthError

from .conftest import SETTING, Write, files_of, jsonl, make_corpus
from .flawed_texts import flawed, prose


def page(number: int, sentences: int = 40) -> str:
    """A clean text."""
    return prose(random.Random(10_000 + number), sentences)


def tree(write: Write) -> Path:
    """Clean pages, copies, faults of quality, personal data, bad lines, source code with licences."""
    clean = [{"text": page(number)} for number in range(20)]
    near = page(3).replace("morning", "evening", 1)
    write(
        "web.jsonl",
        jsonl(*clean, {"text": page(0)}, {"text": near}) + b'{bad\n{"text": 5}\n' + jsonl(*({"text": flawed(n)} for n in (0, 14, 6, 20))),
    )
    write("more.jsonl", jsonl({"text": page(1)}, {"text": page(40) + "\n\nWrite to anna@example.org or call +44 20 7946 0958."}))
    write("notes/book.txt", page(50, 200))
    write("notes/latin.txt", b"caf\xe9")
    write("notes/picture.png", b"x")
    write(
        "code/tool.py",
        "# SPDX-License-Identifier: MIT\n" + "\n".join(f"def function_{n}(value):\n    return value + {n}\n" for n in range(30)),
    )
    write("code/.gitignore", "build/\n*.log.py\n")
    write("code/build/made.py", "x = 1\n" * 100)
    write("code/LICENSE", "Apache License\nVersion 2.0, January 2004")
    write("code/other.py", "\n".join(f"class Other{n}:\n    value = {n}\n" for n in range(30)))
    return write("notes/last.md", "Reference. " + page(60)).parents[1]


def built(folder: Path | str, out: Path, *, workers: int = 1, dry_run: bool = False, sets: tuple[str, ...] = (), **shared: str) -> Built:
    return build.build(of_paths([str(folder)], shared, sets), out, workers=workers, dry_run=dry_run)


def corpus_files(out: Path) -> dict[str, bytes]:
    """The files of the corpus itself, without the requests and the steps."""
    return {name: data for name, data in files_of(out).items() if not name.startswith("work/") and name != "removals.jsonl"}


def dropped(out: Path) -> dict[str, tuple[str, str]]:
    return {row["uri"]: (row["stage"], row["rule"]) for row in buckets.table(out, "drops.parquet")}


def test_everything_that_came_in_is_kept_or_a_row_with_its_rule(tmp_path: Path, write: Write) -> None:
    report = built(tree(write), tmp_path / "out").report
    rows = list(buckets.documents(tmp_path / "out"))
    assert report["input"] == report["kept"] + sum(report["dropped"].values()) == len(rows) + len(dropped(tmp_path / "out"))
    assert report["kept"] == len(rows)
    gone = dropped(tmp_path / "out")
    assert gone["web.jsonl:21"] == ("duplicates", "exact_duplicate") and gone["web.jsonl:22"] == ("duplicates", "near_duplicate")
    assert gone["web.jsonl:23"] == ("read", "bad_json") and gone["web.jsonl:24"] == ("read", "not_text")
    assert gone["web.jsonl:2"] == ("duplicates", "exact_duplicate")  # more.jsonl comes first
    assert gone["notes/latin.txt"] == ("read", "not_utf8") and gone["notes/picture.png"] == ("read", "unsupported_suffix")
    assert gone["code/build"] == ("read", "ignored") and gone["web.jsonl:27"][0] in ("quality", "repetition")
    assert buckets.verify(tmp_path / "out") == []


def test_the_report_has_samples_of_every_rule_and_the_quarantine_places(tmp_path: Path, write: Write) -> None:
    report = built(tree(write), tmp_path / "out").report
    assert set(report["samples"]) == set(report["dropped"])
    assert all(len(rows) == min(5, report["dropped"][rule]) for rule, rows in report["samples"].items())
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    bad = next(line for line in lines if line["file"] == "web.jsonl:23")
    data = (tmp_path / "text/web.jsonl").read_bytes()
    assert data[bad["offset"] :].startswith(b"{bad\n") and bad["reason"].startswith("bad_json")


def test_a_document_says_where_it_stands_and_what_is_known_of_it(tmp_path: Path, write: Write) -> None:
    built(tree(write), tmp_path / "out")
    rows = {row["uri"]: row for row in buckets.documents(tmp_path / "out")}
    row = rows["web.jsonl:5"]
    data = (tmp_path / "text/web.jsonl").read_bytes()
    assert json.loads(data[row["offset"] : row["offset"] + row["raw_bytes"]])["text"] == page(4)
    assert (rows["code/tool.py"]["licence"], rows["code/tool.py"]["licence_rule"]) == ("MIT", "header")
    assert (rows["code/other.py"]["licence"], rows["code/other.py"]["evidence"]) == ("Apache-2.0", "code/LICENSE")
    assert rows["code/tool.py"]["profile"] == "code" and rows["notes/book.txt"]["profile"] == "book"
    assert "<email>" in rows["more.jsonl:2"]["text"] and rows["more.jsonl:2"]["edits"] == "email:1 phone:1"


def test_a_dry_run_reports_what_the_build_does_and_writes_no_corpus(tmp_path: Path, write: Write) -> None:
    folder = tree(write)
    report = built(folder, tmp_path / "out", dry_run=True).report
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["work"]
    assert built(folder, tmp_path / "out").report == report


def test_the_place_the_workers_and_the_size_of_units_leave_no_trace(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(write)
    built(folder, tmp_path / "one")
    monkeypatch.setattr(build, "INLINE", 0)
    monkeypatch.setattr(build, "UNIT", 1_000)
    shutil.copytree(folder, tmp_path / "elsewhere", symlinks=True)
    built(tmp_path / "elsewhere", tmp_path / "two", workers=2)
    assert corpus_files(tmp_path / "one") == corpus_files(tmp_path / "two")
    monkeypatch.setattr(steps, "BATCH", 3_000)
    monkeypatch.setattr(steps, "PART", 9_000)
    built(folder, tmp_path / "three")
    assert corpus_files(tmp_path / "one") == corpus_files(tmp_path / "three")


def test_what_is_done_is_not_done_again(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(write)
    built(folder, tmp_path / "out")
    done: list[str] = []
    real = steps.Output

    def output(path: Path) -> Any:
        done.append(path.parent.name)
        return real(path)

    monkeypatch.setattr(steps, "Output", output)
    assert built(folder, tmp_path / "out").written == 0
    assert done == []
    built(folder, tmp_path / "out", sets=("duplicates.similarity=0.9",))
    assert done == []  # decided again, on the same signatures
    built(folder, tmp_path / "out", sets=("profile.web.min_words=60",))
    assert set(done) == {"clean", "sign"}
    done.clear()
    write("new.txt", page(70))
    built(folder, tmp_path / "out", sets=("profile.web.min_words=60",))
    assert set(done) == {"read", "clean", "sign"}


def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path: Path, write: Write) -> None:
    folder = tree(write)
    built(folder, tmp_path / "whole")
    program = """
import os, sys, signal
from pathlib import Path
from openhearth.data import build, steps
from openhearth.data.settings import of_paths
build.UNIT = 1000
real, left = steps.Output.done, [int(sys.argv[3])]
def done(self, **facts):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, **facts)
steps.Output.done = done
build.build(of_paths([sys.argv[1]], {}), Path(sys.argv[2]), workers=1)
"""
    for after in (1, 2):
        killed = subprocess.run([sys.executable, "-c", program, str(folder), str(tmp_path / "out"), str(after)], check=False)
        assert killed.returncode == -signal.SIGKILL
    built(folder, tmp_path / "out")
    assert corpus_files(tmp_path / "out") == corpus_files(tmp_path / "whole")
    assert not list((tmp_path / "out/work").rglob("*.partial"))


# -- refusals ---------------------------------------------------------------------------------------------------------------


def refused(paths: list[str], out: Path, *sets: str, **shared: str) -> str:
    with pytest.raises(HearthError) as caught:
        build.build(of_paths(paths, shared, sets), out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_built_is_refused_in_one_line(tmp_path: Path, write: Write) -> None:
    out = tmp_path / "out"
    text = str(write("a.txt", page(1)))
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "no such file" in refused([str(tmp_path / "nowhere")], out)
    assert "is a FIFO" in refused([str(tmp_path / "pipe.txt")], out)
    assert "is a device" in refused(["/dev/zero"], out)
    assert "leads back to itself" in refused([str(tmp_path / "loop")], out)
    assert "duplicates.similarity: must be at most 1" in refused([text], out, "duplicates.similarity=2")
    assert "did you mean 'min_words'" in refused([text], out, "profile.web.min_word=2")
    assert "did you mean 'forum'" in refused([text], out, "profile.web.like=forun")
    assert "no such evaluation file" in refused([text], out, 'evaluations.files=["nowhere.jsonl"]')
    assert "is not the folder of a corpus" in refused([text], out, f'duplicates.against=["{tmp_path}"]')
    assert "did you mean 'MIT'" in refused([text], out, 'licences.allow=["MITT"]')
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert "holds files that are no corpus" in refused([text], tmp_path / "full")


def test_two_builds_never_work_in_one_folder(tmp_path: Path, write: Write) -> None:
    path = write("a.txt", page(1))
    with build._alone(built(path, tmp_path / "out").folder):
        assert "another build works in this folder" in refused([str(path)], tmp_path / "out")
    built(path, tmp_path / "out")


def test_a_corpus_from_which_everything_was_left_out_is_refused_with_the_rules(tmp_path: Path, write: Write) -> None:
    said = refused([str(write("a.txt", page(1)))], tmp_path / "out", "profile.book.min_words=1000000")
    assert "every document was left out (1 quality.min_words)" in said and "--dry-run" in said
    assert not (tmp_path / "out/corpus.json").exists()


def test_a_changed_file_of_a_corpus_is_found(tmp_path: Path, write: Write) -> None:
    built(tree(write), tmp_path / "out")
    name = next(name for name in manifest_of(tmp_path / "out")["files"] if name.startswith("documents/"))
    path = tmp_path / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert buckets.verify(tmp_path / "out") == [f"{name}: changed (its sha256 is not the one in corpus.json)"]
    path.unlink()
    assert buckets.verify(tmp_path / "out") == [f"{name}: missing"]


def test_a_recipe_is_the_same_as_a_record() -> None:
    recipe = of_paths(["a", "b"], {"licence": "MIT"}, ["duplicates.passages=line", "personal=false"])
    assert DataRecipe.model_validate_json(recipe.model_dump_json(), strict=True) == recipe
    assert [source.licence for source in recipe.source] == ["MIT", "MIT"]


# -- in a recipe ------------------------------------------------------------------------------------------------------------


def test_the_corpus_stage_reads_a_built_corpus_with_its_licences_and_without_what_stands_apart(tmp_path: Path, write: Write) -> None:
    write("LICENSE", "Attribution-ShareAlike 4.0 International")
    write("apart/LICENSE", "GNU GENERAL PUBLIC LICENSE Version 3")
    for number in range(12):
        write(f"{number:02d}.md", page(number))
    write("apart/gpl.md", page(99))
    built(tmp_path / "text", tmp_path / "corpus", sets=("licences.copyleft=apart",))
    out, _ = make_corpus(tmp_path / "out", source="built", text=(str(tmp_path / "corpus"),))
    rows = list(read_documents(out))
    assert {row["uri"].partition("#")[0] for row in rows} == {f"{number:02d}.md" for number in range(12)}
    assert {(row["licence"], row["evidence"]) for row in rows} == {("CC-BY-SA-4.0", "LICENSE")}
    assert "".join(row["text"] for row in sorted(rows, key=lambda row: row["uri"]) if row["uri"].startswith("03.md")) == page(3)
    stage = Corpus(source="built", text=(str(tmp_path / "corpus"),))
    key = stage.resolve(SETTING)
    write("12.md", page(12))
    built(tmp_path / "text", tmp_path / "corpus")
    assert stage.resolve(SETTING) != key
    next((tmp_path / "corpus/documents").iterdir()).write_bytes(b"")
    with pytest.raises(HearthError, match="missing or changed"):
        stage.preflight()
    with pytest.raises(HearthError, match="is not the folder of a corpus"):
        Corpus(source="built", text=(str(tmp_path),)).preflight()
