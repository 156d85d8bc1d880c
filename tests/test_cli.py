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
from rich.console import Console

import openhearth
from openhearth import cli, progress, report, tables
from openhearth.commands import default_recipe
from openhearth.ledger import write_json
from openhearth.plot import Curve, picture, running_mean
from openhearth.recipe import Recipe
from openhearth.runner import run
from tests.fakes import RECIPE, TABLE

ROOT = Path(__file__).parents[1]
LAPTOP = str(ROOT / "recipes" / "laptop.toml")


def hearth(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # as users have it
    command = [sys.executable, "-m", "openhearth", *arguments]
    return subprocess.run(command, cwd=cwd, env=where, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, **options)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said when a command is refused, in this process."""
    assert cli._status(cli.spread_text(list(arguments))) == 2
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("hearth: ") and said.err.count("\n") == 1
    return said.err.removeprefix("hearth: ").rstrip("\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_run(here: Path) -> Path:
    return run(Recipe.parse(RECIPE, table=TABLE)).folder


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
        (["zzz"], "the commands are run, plan, sweep, compare, bench, runs, show, verify, rebuild, chat, generate"),
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
        (["run", "--set", "corpus.source=txt"], "[corpus] source: must be 'stdlib' or 'text', not 'txt' (did you mean 'text'?)"),
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


# -- tables and reports -----------------------------------------------------------------------------------------------------


def test_runs_and_show_print_what_the_ledger_says(fake_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["runs"]) == 0
    assert re.search(r"fake +done +1 min", capfd.readouterr().out)
    assert cli._status(["show", "fake"]) == 0
    shown = capfd.readouterr().out
    assert re.search(r"count +words +[0-9a-f]{8} +\d+\.\d +\d+\.\d% +40 +2\.40e\+02", shown)
    assert cli._status(["show", "runs/fake", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert [stage["stage"] for stage in facts["stages"]] == ["words", "count", "publish"]
    assert cli._status(["runs", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)[0]["name"] == "fake"


def test_no_runs_yet_is_said_with_what_to_type(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["runs"]) == 0
    assert capfd.readouterr().out == "no runs in runs/; begin one with: hearth run\n"


def test_show_says_what_a_plot_needs(fake_run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must end in .png, .svg, .pdf" in refused(capfd, "show", "fake", "--plot", "loss.gif")
    assert "its folder does not exist" in refused(capfd, "show", "fake", "--plot", "no/loss.png")
    assert "nothing is trained here yet" in refused(capfd, "show", "fake", "--plot", "loss.png")
    trained(fake_run)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'openhearth[plot]'" in refused(capfd, "show", "fake", "--plot", "loss.png")


def trained(folder: Path) -> None:
    """Make the fake run look like one that trained: the ledger names `pretrain`, and its steps are there."""
    from openhearth.ledger import Ledger

    book = Ledger(folder / "ledger.jsonl")
    begun = book.entries()[0]
    facts = {"tokens": 300, "flops": 10**15, "parameters": 4_130_000}
    stage = {"stage": "pretrain", "config": {}, "inputs": {}, "code": "", "key": "k", "digest": "d" * 64, "folder": "pretrain/k"}
    fields = {name: value for name, value in begun.items() if name not in ("event", "before")}
    book.append("run", **{**fields, "stages": ["words", "pretrain"], "first": "pretrain"})
    book.append("stage", **stage, facts=facts, seconds=12.0, resumed=True, measured={})
    book.append("done", seconds={}, predicted=None)
    steps = folder / "pretrain" / "k"
    (steps / "telemetry").mkdir(parents=True)
    rows = [{"step": number, "tokens": 3 * number, "loss": 8 - 0.05 * number} for number in range(1, 101)]
    (steps / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    times = [{"step": row["step"], "seconds": 2.5} for row in rows]
    (steps / "telemetry" / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in times))


def test_the_plot_is_a_picture(fake_run: Path, here: Path) -> None:
    pytest.importorskip("matplotlib")
    trained(fake_run)
    assert cli._status(["show", "fake", "--plot", "loss.png"]) == 0
    assert (here / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert cli._status(["show", "fake", "--plot", "loss.svg"]) == 0
    text = (here / "loss.svg").read_text()
    assert "<svg" in text
    assert cli._status(["show", "fake", "--plot", "again.svg"]) == 0
    assert (here / "again.svg").read_text() == text


def test_the_ticks_of_time_are_round_minutes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    ticks: list[str] = []
    monkeypatch.setattr(
        "openhearth.drawing.rendered",
        lambda figure, form: ticks.extend(label.get_text() for label in drawn(figure).axes[1].get_xticklabels()) or b"",
    )

    def drawn(figure: Figure) -> Figure:
        figure.canvas.draw()
        return figure

    seconds = [3.0 * step for step in range(1, 101)]
    picture(here / "a.png", {"run": "r", "budget": "5 min"}, [Curve("pretrain", seconds, seconds, [3.0] * 100)])
    assert ticks[:3] == ["0", "1", "2"]


def test_a_running_mean_is_the_mean_of_each_window() -> None:
    assert running_mean([1, 2, 3, 6], 2) == [1.5, 2.5, 4.5]
    assert running_mean([1, 2], 1) == [1, 2]


def test_the_report_shows_every_part_and_nothing_a_model_says_acts_on_the_terminal(fake_run: Path) -> None:
    trained(fake_run)
    from openhearth.record import report_facts

    facts = report_facts(fake_run)
    assert printed(facts).count("Bits per byte") == 0  # a stage that did not run has no part
    figure = {"value": 1.5, "low": 1.4, "high": 1.6}
    facts["evaluation"] = {
        "bits_per_byte": {
            "base": figure,
            "sft": {**figure, "value": 1.45},
            "documents": 12,
            "bytes": 3_000,
            "baselines": {"xz -9": figure},
        },
        "parses": {
            "base": {"share": 0.25, "low": 0.1, "high": 0.4, "n": 64, "named": 0.2},
            "sft": {"share": 0.5, "low": 0.4, "high": 0.6, "n": 64, "named": 0.1},
        },
        "samples": [{"kind": "function", "prompt": "[bold]write[/bold]", "answer": "\x1b]0;title\x07def f():\r\n" + "    pass\n" * 30}],
    }
    facts["total"]["predicted_seconds"] = 10.0
    facts["release"] = "runs/fake/model"
    text = printed(facts)
    for part in (
        "4.13 M parameters · trained on 300 tokens",
        "released in runs/fake/model",
        "+20% against the prediction",
        "7.95 to 3.02",
        "1.450  1.400 to 1.600",
        "12 documents, 3 kB",
        "50%",
        "40% to 60% of 64",
        "[bold]write[/bold]",
        "more lines)",
        "hearth chat runs/fake ",
        "hearth rebuild runs/fake ",
    ):
        assert part in text, part
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text
    assert max(map(len, text.splitlines())) <= 80


def printed(facts: dict[str, Any]) -> str:
    console = Console(width=80, highlight=False, color_system=None, force_terminal=False)
    with console.capture() as captured:
        report.show(facts, console)
    return captured.get()


def test_a_sparkline_goes_from_high_to_low() -> None:
    assert report.sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert report.sparkline([4, 4, 2, 2], 2) == "█▁"
    assert report.sparkline([3, 3, 3], 48) == "▁▁▁"


def test_large_numbers_are_said_shortly() -> None:
    said = [report.quantity(value) for value in (None, 7, 999, 1_000, 4_130_000, 1.5e9, 2e12, 1.234e18)]
    assert said == ["", "7", "999", "1 k", "4.13 M", "1.5 B", "2 T", "1.23e+18"]


def test_lines_without_a_terminal_are_few(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    watcher = progress.PlainDisplay(Console(stderr=True))
    recipe = Recipe.parse(RECIPE, "r", ["count.steps=200"], table=TABLE)
    with watcher:
        run(recipe, here / "run", watcher=watcher)
    said = capfd.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and len(lines) == 4
    assert [line.split()[0] for line in lines] == ["fake", "words", "count", "publish"]
    assert "10 tokens/s" in lines[2]


def test_the_live_table_tells_the_state_of_every_stage(here: Path) -> None:
    console = Console(width=90, color_system=None, force_terminal=True, file=(here / "out").open("w"))
    display = progress.LiveDisplay(console)
    frames: list[str] = []

    class Spy(progress.LiveDisplay):
        def progress(self, kind: str, done: float, total: float, figures: Any) -> None:
            super().progress(kind, done, total, figures)
            with Console(width=90, color_system=None) as plain, plain.capture() as captured:
                plain.print(self.render())
            frames.append(captured.get())

    display = Spy(console)
    with display:
        run(Recipe.parse(RECIPE, table=TABLE), here / "run", watcher=display)
    last = frames[-1]
    assert re.search(r"✓ words +made +0:00", last)
    assert re.search(r"> count +━+ +10 +0\.250", last)
    assert "of a budget of 1 min" in last and "  publish" in last


def test_time_left_follows_the_rate_since_the_first_news() -> None:
    row = progress.Row("x", state="running", began=0.0, done=60, total=100)
    now = progress.time.monotonic()
    row.first, row.last = (now - 10, 40), now
    assert row.left() == pytest.approx(20, abs=0.5)
    row.first = None
    assert row.left() is None
    row.predicted, row.began = 30.0, now - 10
    assert row.left() == pytest.approx(20, abs=0.5)


def test_time_left_just_after_a_start_is_the_plans_for_what_remains() -> None:
    now = progress.time.monotonic()
    row = progress.Row("x", state="running", began=now - 50, predicted=40.0)
    assert row.left() is None  # the preparation takes longer than all of it was to take: nothing is known
    row.done, row.total, row.first, row.last = 70, 100, (now - 1.5, 70), now - 1.5
    assert row.left() == pytest.approx(12)  # resumed, and one piece of news is no rate
    row.done, row.last = 70.2, now - 0.1
    assert row.left() == pytest.approx(12, abs=0.2)  # two in a moment are none either
    row.done, row.last = 79.0, row.first[0] + 9
    assert row.left() == pytest.approx(21)


@pytest.mark.parametrize(("width", "shown"), [(60, "time left loss tokens/s"), (52, "time left loss"), (45, "left loss"), (24, "left")])
def test_a_narrow_terminal_sees_whole_figures_in_fewer_columns(width: int, shown: str) -> None:
    display = progress.LiveDisplay(Console(width=width, color_system=None))
    figures: dict[str, float | str] = {"tokens_per_second": 123_456.0, "loss": 3.456}
    now = progress.time.monotonic()
    running = progress.Row("pretrain", "running", 50, 100, (now - 3_700, 0), now, now - 3_700, figures=figures)
    display.rows = {"tokenizer": progress.Row("tokenizer", "reused", seconds=5), "pretrain": running}
    with display.console.capture() as captured:
        display.console.print(display.render())
    said = captured.get()
    assert "…" not in said and "pretrain" in said and max(map(len, said.splitlines())) <= width
    cells = {"time": "1:01:40 ", "left": "1:01:40\n", "loss": "3.456", "tokens/s": "123,456"}
    lines = "\n".join(line.rstrip() for line in said.splitlines()) + "\n"
    assert {name for name, cell in cells.items() if cell in lines and name in lines} == set(shown.split())


def test_a_narrow_list_of_runs_goes_without_columns_and_a_pipe_without_none(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "a-laptop-with-my-notes", "state": "stopped in tokenizer", "budget": "1 h 30 min", "date": "2026-01-02T03:04:05"}
    found = [row | {"seconds": 4_000.0, "parameters": 4_130_000, "bits_per_byte": 1.234}]

    def said(terminal: bool, width: int) -> str:
        console = Console(width=width, color_system=None, force_terminal=terminal)
        monkeypatch.setattr(tables, "Console", lambda **_: console)
        with console.capture() as captured:
            tables.runs(Path("runs"), found)
        return captured.get()

    narrow, piped = said(True, 80), said(False, 80)
    assert "stopped in tokenizer" in narrow and "1.234" in narrow and "4.13 M" not in narrow and len(narrow.splitlines()) == 2
    assert "4.13 M" in piped and "stopped in tokenizer" in piped and "2026-01-02 03:04" in piped and len(piped.splitlines()) == 2
    assert "4.13 M" in said(True, 120)


def test_show_drops_lists_every_drop(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "text").mkdir()
    (here / "text/book.txt").write_text("".join(f"Day {day} of the journey over the bay.\n\n" for day in range(2_000)))
    (here / "text/u16.txt").write_bytes("day".encode("utf-16"))
    for number in range(20):
        (here / f"text/{'long' * 30}{number}.png").write_text("x")
    assert cli._status(cli.spread_text(["run", LAPTOP, "--text", "text", "--dir", "r", "--until", "corpus", "--json"])) == 0
    note = next(line for line in capfd.readouterr().err.splitlines() if "left out" in line)
    assert note.endswith("hearth show r --drops") and "text/u16.txt (not_utf8" in note
    assert cli._status(["show", "r", "--drops"]) == 0
    shown = capfd.readouterr().out
    assert all(f"{'long' * 30}{number}.png" in shown for number in range(20)) and re.search(r"u16\.txt +not_utf8 +a UTF-16", shown)
    assert cli._status(["show", "r", "--drops", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert len(rows) == 21 and rows[-1]["uri"] == "u16.txt" and "iconv -f UTF-16" in rows[-1]["threshold"]


def test_show_drops_before_there_is_a_corpus_says_so(fake_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "there is no corpus here yet" in refused(capfd, "show", "fake", "--drops")


def test_text_without_a_path_and_a_budget_that_is_no_text_are_said_to_be_so(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "--text: no path follows" in refused(capfd, "run", LAPTOP, "--text", "--dir", "out")
    assert refused(capfd, "run", LAPTOP, "--budget", "\udcff 5 min").startswith("--budget '\\udcff 5 min': not text; write ")


def test_text_that_the_recipe_names_is_refused_with_its_line(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "r.toml").write_text('name = "r"\n[corpus]\nsource = "text"\ntext = ["/nonexist"]\n')
    assert refused(capfd, "run", "r.toml") == "r.toml:4: [corpus] text: /nonexist: no such file or folder; check the path"
    assert refused(capfd, "run", "r.toml", "--text", "no") == "no: no such file or folder; check the path"
    said = refused(capfd, "run", "r.toml", "--set", 'corpus.text=["gone"]')
    assert said.startswith("--set corpus.text=") and "gone: no such file" in said


def test_predictions_of_the_plan_reach_the_table(here: Path) -> None:
    display = progress.PlainDisplay(Console(stderr=True))
    display.rows = {"pretrain": progress.Row("pretrain")}
    write_json(here / "plan.json", {"predicted": {"seconds": {"pretrain": 12.5, "total": 13}}})
    display._predictions(here)
    assert display.left() == 12.5
