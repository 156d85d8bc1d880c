"""`hearth data` as people type it: what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openhearth.cli import main

from .conftest import Write, jsonl
from .test_build import page


def hearth(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_from_a_dry_run_to_a_removal(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": page(n) + (" Call me Ishmael." if n == 3 else ""), "license": "MIT"} for n in range(6)]
    write("a.jsonl", jsonl(*rows, {"text": page(0)}, {"text": "short"}) + b"{\n")
    out = tmp_path / "corpus"
    status, told, _ = hearth(capsys, "build", tmp_path / "text", "--out", out, "--dry-run")
    assert status == 0 and "9 looked at = 6 kept" in told and "quality.min_words" in told and "asks: at least 50" in told
    assert not (out / "corpus.json").exists()
    status, told, _ = hearth(capsys, "build", tmp_path / "text", "--out", out, "--json")
    report: dict[str, Any] = json.loads(told)
    assert report["dropped"] == {"duplicates.exact_duplicate": 1, "quality.min_words": 1, "read.bad_json": 1} and not report["dry_run"]
    assert json.loads(hearth(capsys, "report", out, "--json")[1])["kept"] == 6
    status, told, _ = hearth(capsys, "search", out, "call me ishmael", "--ignore-case", "--json")
    (hit,) = json.loads(told)["shown"]
    assert (hit["uri"], hit["licence"], hit["phrase"]) == ("a.jsonl:4", "MIT", "call me ishmael") or hit["phrase"] == "Call me Ishmael"
    assert hearth(capsys, "search", out, "nowhere at all")[0] == 1
    status, told, _ = hearth(capsys, "show", out, hit["doc_id"][:12])
    assert status == 0 and "field: MIT" in told and "Call me Ishmael." in told
    dropped = next(row for rows in report["samples"].values() for row in rows if row["uri"] == "a.jsonl:8")
    shown = json.loads(hearth(capsys, "show", out, dropped["doc_id"], "--json")[1])
    assert (shown["state"], shown["rule"], shown["value"]) == ("dropped", "min_words", "1")
    status, told, _ = hearth(capsys, "remove", out, "--doc", hit["doc_id"][:12], "--why", "asked by its author", "--json")
    assert status == 0 and json.loads(told)["removed"] == 1 and json.loads(told)["buckets_written"] == 1
    assert hearth(capsys, "search", out, "Ishmael")[0] == 1
    assert hearth(capsys, "verify", out)[0] == 0
    (out / "NOTICE").write_text("nothing")
    status, told, _ = hearth(capsys, "verify", out)
    assert status == 1 and "NOTICE: changed" in told


def test_a_recipe_in_a_file_and_its_mistakes(tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.jsonl", jsonl(*({"text": page(n)} for n in range(3))))
    recipe = tmp_path / "mixed.toml"
    recipe.write_text(f'name = "mixed"\n[[source]]\npath = "{tmp_path / "text"}"\nname = "web"\n[profile.web]\nmin_words = 10\n')
    assert hearth(capsys, "build", recipe, "--out", tmp_path / "out")[0] == 0
    for wrong, said in (
        ("min_words = 10", ""), ("min_wrods = 10", "did you mean 'min_words'"), ('min_words = "ten"', "must be a whole number"),
        ("min_words = = 1", ":6: not TOML"),
        ("[duplicates]\nsimilarty = 0.8", ":7: duplicates.similarty: unknown key (did you mean 'similarity'?)"),
    ):  # fmt: skip
        recipe.write_text(recipe.read_text().replace("min_words = 10", wrong))
        status, _, told = hearth(capsys, "build", recipe, "--out", tmp_path / "again")
        assert status == (2 if said else 0) and said in told and "Traceback" not in told
        recipe.write_text(recipe.read_text().replace(wrong, "min_words = 10"))
    assert "leave out --profile" in hearth(capsys, "build", recipe, "--out", tmp_path / "again", "--profile", "web")[2]


def test_help_loads_no_arrays_and_no_tables(tmp_path: Path) -> None:
    program = """
import sys
from openhearth.cli import main
try:
    main(["data", "build", "--help"])
except SystemExit:
    print(sorted({"numpy", "pyarrow", "torch"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip().endswith("[]")
