"""What is printed and drawn about runs: the live table, the closing report, `hearth runs`, `hearth show`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from openhearth import cli, progress, report, tables
from openhearth.ledger import write_json
from openhearth.plot import Curve, picture, running_mean
from openhearth.recipe import Recipe
from openhearth.runner import run
from tests.fakes import LAPTOP, RECIPE, TABLE, refused

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
    facts["total"]["predicted_seconds"] = facts["total"]["seconds"] / 1.2
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


def test_predictions_of_the_plan_reach_the_table(here: Path) -> None:
    display = progress.PlainDisplay(Console(stderr=True))
    display.rows = {"pretrain": progress.Row("pretrain")}
    write_json(here / "plan.json", {"predicted": {"seconds": {"pretrain": 12.5, "total": 13}}})
    display._predictions(here)
    assert display.left() == 12.5
