"""`hearth verify` as it is typed: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from openhearth.errors import HearthError
from openhearth.release.commands import verify_command
from openhearth.release.verify import verify


def test_the_command_prints_a_table_and_ends_with_0(made_release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command(made_release) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 14 and all(line.startswith("ok ") for line in out[:13]) and out[-1].startswith("verified: ")


def test_the_command_names_the_first_fault_on_one_line_and_ends_with_its_status(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (release / "README.md").unlink()
    assert verify_command(release) == 11
    assert capsys.readouterr().err == "not verified: README.md: missing\n"
    assert verify_command(release, json=True) == 11
    *checks, content = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [check["status"] for check in checks] == [0, 0, 11]
    assert content["fault"] == "README.md: missing" and not content["ok"]


def test_a_folder_that_is_no_release_is_an_error_in_the_request(tmp_path: Path, made_run: Path) -> None:
    for place, words in ((tmp_path / "none", "does not exist"), (tmp_path, "not a release"), (Path(__file__), "not a folder")):
        with pytest.raises(HearthError, match=words):
            verify(place)
    shutil.copy(made_run / "ledger.jsonl", tmp_path)
    with pytest.raises(HearthError, match="no release yet"):
        verify(tmp_path)
