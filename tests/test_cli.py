"""`hearth` as a person types it: one line and status 2 for a mistake, nothing left behind, and tables that say what the ledger says."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import openhearth
from openhearth import cli
from openhearth.commands import default_recipe
from tests.fakes import LAPTOP, ROOT, refused


def hearth(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # as users have it
    command = [sys.executable, "-m", "openhearth", *arguments]
    return subprocess.run(command, cwd=cwd, env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, **options)


# -- starting ---------------------------------------------------------------------------------------------------------------


def test_help_is_there_for_every_command_with_examples(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["--help"]) == 0
    overview = capfd.readouterr().out
    for command in cli.COMMANDS:
        assert re.search(rf"\b{command}\b", overview)
        assert cli._status([command, "--help"]) == 0
        assert "Examples:" in (page := capfd.readouterr().out) and f"hearth {command}" in page


def test_help_takes_less_than_three_tenths_of_a_second_of_work_and_imports_no_rooms(tmp_path: Path) -> None:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        before = used()
        assert hearth("--help", cwd=tmp_path).returncode == 0
        seconds.append(used() - before)
    assert min(seconds) < 0.3
    code = "import sys, openhearth.cli; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pyarrow', 'pydantic')))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("arguments", [(), ("plan",), ("bench",)])
def test_without_a_command_the_help_is_shown_and_nothing_complains(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ran = hearth(*arguments, cwd=tmp_path)
    assert ran.returncode == 2 and "Usage: hearth" in ran.stdout and ran.stderr == ""


def test_version_and_module_and_api(tmp_path: Path) -> None:
    assert hearth("--version", cwd=tmp_path).stdout == f"hearth {openhearth.__version__}\n"
    code = "import sys, openhearth as o; assert 'torch' not in sys.modules; print(o.run.__name__, o.load.__name__, o.verify.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout == "run load verify\n"
    with pytest.raises(AttributeError, match="module 'openhearth' has no attribute 'lod'"):
        openhearth.lod  # noqa: B018


def test_completion_knows_commands_and_options(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['hearth']; from openhearth.cli import main; main()"
    for words, found in (("hearth ru", {"run", "runs"}), ("hearth run --un", {"--until"}), ("hearth run --until ev", {"evaluate"})):
        where = {**os.environ, "_HEARTH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, cwd=ROOT)
        assert set(ran.stdout.split()) == found


# -- mistakes on the command line -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], "no such command 'rn'"),
        (["ran"], "Did you mean 'run'"),
        (["zzz"], "the commands are run, continue, plan, sweep, "),
        (["run", "--bugdet", "3 min"], "no such option: --bugdet"),
        (["run", "--budget"], "requires an argument"),
        (["run", "a.toml", "b.toml"], "unexpected extra argument"),
        (["chat"], "missing argument 'DIR'"),
        (["chat", "x", "--top-p", "2"], "invalid value for '--top-p'"),
        (["generate", "x", "y", "--max-new-tokens", "many"], "invalid value for '--max-new-tokens'"),
        (["run", "--budget", "3 parsecs"], "--budget '3 parsecs': budget: '3 parsecs': unknown unit 'parsecs'"),
        (["run", "--budget", "-3 min"], "a budget cannot be negative"),
        (["run", "--budget", "$100 on 8xh100"], "years of training on a machine like this one"),
        (["run", "--set", "sft.epoch=2"], "--set sft.epoch=2: [sft] epoch: unknown key (did you mean 'epochs'?)"),
        (["run", "--set", "sft.epochs=-2"], "[sft] epochs: must be greater than 0, not -2"),
        (["run", "--set", "sft.epochs=1e400"], "[sft] epochs: inf is not a finite number"),
        (["run", "--set", "pretran.seed=2"], "has no stage [pretran] (did you mean 'pretrain'?)"),
        (["run", "--set", "corpus.source=txt"], "[corpus] source: must be 'stdlib', 'text' or 'built', not 'txt' (did you mean 'text'?)"),
        (["run", "--set", "x"], "write --set KEY=VALUE"),
        (["run", "--until", "pretran"], "--until pretran: not a stage of"),
        (["run", "--until", "pretran"], "(did you mean 'pretrain'?)"),
        (["run", "nowhere.toml"], "nowhere.toml: no such file"),
        (["run", "a\nb.toml"], r"a\nb.toml: no such file"),
        (["run", "--plan", "nowhere.json"], "nowhere.json: no such file"),
        (["run", "--text", "nowhere"], "nowhere"),
        (["run", "--dir", "file"], "file: is a file"),
        (["run", "--dir", "full"], "full: exists and is not the folder of a run"),
        (["runs", "--dir", "file"], "file: not a folder"),
        (["show", "nowhere"], "nowhere: no such run"),
        (["show", "full"], "full: not the folder of a run"),
        (["verify", "nowhere"], "nowhere: does not exist"),
        (["chat", "full"], "full: not a release"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_status_2_and_leaves_nothing(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (here / "file").write_text("x")
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("x")
    before = sorted(here.rglob("*"))
    assert said in refused(capfd, *arguments)
    assert sorted(here.rglob("*")) == before


def test_bad_files_are_refused_quickly_by_the_real_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(100_000_000)
    (tmp_path / "words.toml").write_text("these are words")
    before = sorted(tmp_path.rglob("*"))
    for arguments in (
        ["run", "pipe"],
        ["run", "loop"],
        ["run", "huge.toml"],
        ["run", "words.toml"],
        ["run", "--text", "pipe"],
        ["run", "--text", "loop"],
        ["run", "--text", "empty"],
        ["run", "--plan", "pipe"],
    ):
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = hearth(*arguments, cwd=tmp_path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ran.returncode == 2 and ran.stdout == "", arguments
        assert ran.stderr.startswith("hearth: ") and ran.stderr.count("\n") == 1, ran.stderr
        assert arguments[-1] in ran.stderr
        assert after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime < 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bug_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("openhearth.commands.runs_command", bug)
    with pytest.raises(ZeroDivisionError):
        cli._status(["runs"])


def test_a_reader_that_goes_away_is_no_error(fake_run: Path) -> None:
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m openhearth show fake --json | head -c 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=where, cwd=fake_run.parents[1])
    assert (ran.stdout, ran.stderr) == ("{", "")


# -- arguments --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("run r.toml --text a b c --dir d", "run r.toml --text a --text b --text c --dir d"),
        ("run --text a --text b c", "run --text a --text b --text c"),
        ("run --text a --budget x y", "run --text a --budget x y"),
        ("run --text a b", "run --text a --text b"),
        ("run --text", "run --text="),
        ("run --text --json", "run --text= --json"),
        ("run --text a --text --dir d", "run --text a --text= --dir d"),
        ("run --text a -- b", "run --text a -- b"),
        ("rebuild d --text a b", "rebuild d --text a --text b"),
        ("show --text a b", "show --text a b"),
        ("", ""),
    ],
)
def test_text_takes_all_paths_up_to_the_next_option(typed: str, meant: str) -> None:
    assert cli.spread_text(typed.split()) == meant.split()


def test_the_default_recipe_is_the_one_in_the_repository() -> None:
    assert default_recipe().resolve() == Path(LAPTOP)


def test_own_text_goes_through_the_real_stages_and_damage_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.md").write_text("\n\n".join(f"Paragraph {number} of {name}: {number * 7919}." for number in range(1500)))
    arguments = ("run", LAPTOP, "--text", "a.md", "b.md", "--dir", "r", "--until", "tokenizer", "--json")
    ran = hearth(*arguments, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    facts = json.loads(ran.stdout)
    assert facts["made_now"] == ["corpus", "tokenizer"] and facts["state"] == "made up to tokenizer"
    assert "corpus" in ran.stderr and "tokenizer" in ran.stderr
    again = hearth(*arguments[:-1], cwd=tmp_path)
    assert again.returncode == 0 and again.stdout.startswith("nothing to do: every stage is already made in r\n")
    (shard,) = (tmp_path / "r" / "tokenizer").glob("*/train/00000.tok")
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    damaged = hearth(*arguments, cwd=tmp_path)
    assert damaged.returncode == 2 and damaged.stdout == ""
    assert f"{shard.relative_to(tmp_path)}: damaged" in damaged.stderr.splitlines()[-1]


def test_text_without_a_path_and_a_budget_that_is_no_text_are_said_to_be_so(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "--text: no path follows" in refused(capfd, "run", LAPTOP, "--text", "--dir", "out")
    assert refused(capfd, "run", LAPTOP, "--budget", "\udcff 5 min").startswith("--budget '\\udcff 5 min': not text; write ")


def test_text_that_the_recipe_names_is_refused_with_its_line(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "r.toml").write_text('name = "r"\n[corpus]\nsource = "text"\ntext = ["/nonexist"]\n')
    assert refused(capfd, "run", "r.toml") == "r.toml:4: [corpus] text: /nonexist: no such file or folder; check the path"
    assert refused(capfd, "run", "r.toml", "--text", "no") == "no: no such file or folder; check the path"
    said = refused(capfd, "run", "r.toml", "--set", 'corpus.text=["gone"]')
    assert said.startswith("--set corpus.text=") and "gone: no such file" in said
