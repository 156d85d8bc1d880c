"""The runner: nothing is made twice, nothing stale is used, and whatever interrupts a run, the same command goes on."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openhearth import code_digest, runner
from openhearth.errors import DamagedError, DiskFullError, HearthError
from openhearth.ledger import Ledger
from openhearth.recipe import Recipe
from openhearth.record import ledger_facts
from openhearth.runner import Stopped, Watcher, run
from tests.fakes import RECIPE, TABLE, Count, Words, digests, fake, in_another_process, tree


def events(folder: Path) -> list[tuple[str, str]]:
    return [(entry["event"], entry.get("stage", "")) for entry in Ledger(folder / "ledger.jsonl").entries()]


# -- what is made, and what is not made again -------------------------------------------------------------------------------


def test_a_run_makes_every_stage_and_writes_it_down(tmp_path: Path) -> None:
    result = run(fake(), tmp_path / "deep" / "run")
    assert result.fresh == ("words", "count", "publish")
    assert events(result.folder) == [("run", ""), ("stage", "words"), ("stage", "count"), ("stage", "publish"), ("done", "")]
    entries = Ledger(result.folder / "ledger.jsonl").entries()
    begun, count, done = entries[0], entries[2], entries[4]
    assert begun["recipe"] == fake().content() and begun["recipe_digest"] == fake().digest and begun["stages"] == list(fake().kinds)
    assert {"python", "platform", "cpu", "flags", "cores", "packages"} <= set(begun["environment"])
    assert begun["environment"]["packages"]["numpy"]
    assert count["inputs"] == {"words": result.made["words"].digest}
    assert count["config"] == Count(steps=4, seed=3).model_dump(mode="json")
    assert (count["digest"], count["key"]) == (result.made["count"].digest, result.made["count"].key)
    assert result.folder / count["folder"] == result.made["count"].path == result.folder / "count" / count["key"][:12]
    assert count["facts"] == {"tokens": 40, "flops": 240}
    assert count["measured"]["tokens_per_second"] == 10.0
    assert done["seconds"]["total"] == pytest.approx(sum(entry["seconds"] for entry in entries[1:4]))


def test_a_second_run_does_nothing_at_all(tmp_path: Path) -> None:
    first = run(fake(), tmp_path / "run")
    before = tree(tmp_path)
    second = run(fake(), tmp_path / "run")
    assert second.fresh == ()
    assert digests(second) == digests(first)
    assert tree(tmp_path) == before


def test_a_changed_stage_is_made_again_with_what_follows_and_nothing_before(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    assert run(fake("publish.title=x"), tmp_path / "run").fresh == ("publish",)
    assert run(fake("count.steps=5"), tmp_path / "run").fresh == ("count", "publish")
    assert run(fake('words.words=["c"]'), tmp_path / "run").fresh == ("words", "count", "publish")


def test_a_stage_whose_output_is_the_same_again_stops_the_change(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    assert run(fake("words.source=elsewhere"), tmp_path / "run").fresh == ("words",)


def test_what_was_made_for_an_earlier_recipe_is_found_again_and_named_last_in_the_ledger(tmp_path: Path) -> None:
    first = run(fake(), tmp_path / "run")
    other = run(fake("count.steps=5"), tmp_path / "run")
    back = run(fake(), tmp_path / "run")
    assert back.fresh == () and digests(back) == digests(first) != digests(other)
    latest = runner.latest_stages(Ledger(tmp_path / "run" / "ledger.jsonl").entries())
    assert {kind: entry["digest"] for kind, entry in latest.items()} == digests(first)
    assert Recipe.load(tmp_path / "run" / "recipe.toml", table=TABLE) == fake()
    before = tree(tmp_path)
    run(fake(), tmp_path / "run")
    assert tree(tmp_path) == before


def test_the_seed_reaches_only_the_stages_that_take_it(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    assert run(fake("seed=4"), tmp_path / "run").fresh == ("count", "publish")


def test_until_stops_after_a_stage_and_the_rest_follows_later(tmp_path: Path) -> None:
    assert run(fake(), tmp_path / "run", until="count").fresh == ("words", "count")
    assert ledger_facts(tmp_path / "run")["state"] == "made up to count"
    assert run(fake(), tmp_path / "run").fresh == ("publish",)
    assert ledger_facts(tmp_path / "run")["state"] == "done"


def test_what_depends_on_the_clock_is_no_part_of_a_digest(tmp_path: Path) -> None:
    assert digests(run(fake(), tmp_path / "a")) == digests(run(fake(), tmp_path / "b"))


def test_a_stage_sees_only_what_it_says_it_needs(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    class Nosy(Words):
        kind = "nosy"
        needs = ("count",)

        def run(self, made: Mapping[str, Any], out: Path, tell: Any) -> None:
            seen["nosy"] = set(made)

    run(Recipe.parse(RECIPE.replace("[publish]", "[nosy]"), table={"words": Words, "count": Count, "nosy": Nosy}), tmp_path / "run")
    assert seen == {"nosy": {"count"}}


def test_an_artifact_from_elsewhere_stands_in_for_a_stage(tmp_path: Path) -> None:
    other = run(fake('words.words=["z"]'), tmp_path / "other")
    given = {"words": other.made["words"].path}
    result = run(fake(), tmp_path / "run", given=given)
    assert result.fresh == ("count", "publish") and digests(result) == digests(other)
    assert events(tmp_path / "run")[1] == ("given", "words")
    assert run(fake(), tmp_path / "run", given=given).fresh == ()
    with pytest.raises(HearthError, match=r"not the sealed artifact of a stage \[words\]"):
        run(fake(), tmp_path / "run", given={"words": other.made["count"].path})


def test_the_watcher_hears_of_everything(tmp_path: Path) -> None:
    heard: list[tuple[str, ...]] = []

    class Ear(Watcher):
        def begin(self, recipe: Recipe, folder: Path, kinds: Any) -> None:
            heard.append(("begin", *kinds))

        def reused(self, kind: str, entry: Any) -> None:
            heard.append(("reused", kind))

        def started(self, kind: str) -> None:
            heard.append(("started", kind))

        def progress(self, kind: str, done: float, total: float, figures: Any) -> None:
            heard.append(("progress", kind, f"{done:g}/{total:g}"))

        def finished(self, kind: str, entry: Any, artifact: Any) -> None:
            heard.append(("finished", kind))

    run(fake(), tmp_path / "run", until="words")
    run(fake("count.steps=1"), tmp_path / "run", until="count", watcher=Ear())
    assert heard == [
        ("begin", "words", "count"),
        ("reused", "words"),
        ("started", "count"),
        ("progress", "count", "1/1"),
        ("finished", "count"),
    ]


# -- the digest of the code -------------------------------------------------------------------------------------------------


def test_the_code_of_a_stage_is_its_module_and_all_it_imports_here() -> None:
    names = set(code_digest.sources("openhearth.train.pretrain"))
    assert {
        "openhearth.train.pretrain",
        "openhearth.train.loop",
        "openhearth.model.transformer",
        "openhearth.ledger",
        "openhearth.stage",
    } <= names
    assert not {name for name in names if name.split(".")[1] in ("cli", "runner", "report", "progress", "errors", "release", "serve")}


def test_a_change_in_the_code_of_a_stage_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(fake(), tmp_path / "run")
    real = runner.code_digest
    monkeypatch.setattr(runner, "code_digest", lambda stage: "changed" if stage is Count else real(stage))
    assert run(fake(), tmp_path / "run").fresh == ("count",)


def test_imports_inside_functions_and_relative_ones_are_found(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("from . import ledger\nfrom .model import config\ndef f():\n    import openhearth.data.order\n    import os\n")
    found = code_digest._imports("openhearth.a", source)
    assert {"openhearth.ledger", "openhearth.model", "openhearth.model.config", "openhearth.data", "openhearth.data.order"} <= found


# -- killed, stopped, failed ------------------------------------------------------------------------------------------------


def test_a_stage_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = run(fake("count.steps=6"), tmp_path / "whole")
    process = in_another_process(tmp_path / "run", "count.steps=6", "count.signal_at=4")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert ledger_facts(tmp_path / "run")["state"] == "stopped in count"
    again = run(fake("count.steps=6", "count.signal_at=4"), tmp_path / "run")
    assert again.fresh == ("count", "publish")
    assert digests(again) == digests(whole)
    entry = runner.latest_stages(Ledger(tmp_path / "run" / "ledger.jsonl").entries())["count"]
    assert entry["resumed"] and 100 < entry["seconds"] < 110


def test_a_stage_that_cannot_resume_begins_again_in_an_empty_folder(tmp_path: Path) -> None:
    process = in_another_process(tmp_path / "run", 'words.words=["kill"]')
    process.communicate()
    (partial,) = (tmp_path / "run" / "words").glob("*.partial")
    assert (partial / "half.txt").exists()
    process = in_another_process(tmp_path / "run", 'words.words=["kill"]')
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # and not the stage's complaint that its folder is not empty


def test_killed_at_any_moment_the_same_command_ends_with_the_same_digests(tmp_path: Path) -> None:
    slow = ("count.steps=12", "count.seconds=0.02")
    whole = run(fake(*slow), tmp_path / "whole")
    for number in range(6):
        process = in_another_process(tmp_path / "run", *slow)
        time.sleep(0.35 + 0.06 * number)
        process.kill()
        process.communicate()
    assert digests(run(fake(*slow), tmp_path / "run")) == digests(whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path: Path, number: int, status: int) -> None:
    sets = ("count.signal_at=3", f"count.signal_number={int(number)}")
    process = in_another_process(tmp_path / "run", *sets)
    _, said = process.communicate()
    assert (process.returncode, said) == (status, "stopped in [count]; to go on, type the same command again\n")
    assert digests(run(fake(*sets), tmp_path / "run")) == digests(run(fake(), tmp_path / "whole"))


def test_stopping_a_run_of_the_library_raises_and_gives_the_signal_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        run(fake("count.signal_at=1", f"count.signal_number={int(signal.SIGTERM)}"), tmp_path / "run")
    assert stopped.value.exit_status == 143 and signal.getsignal(signal.SIGTERM) is before


def test_a_stage_that_was_complete_when_it_was_killed_is_only_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = runner.seal
    monkeypatch.setattr(runner, "seal", killed)
    with pytest.raises(Stopped):
        run(fake(), tmp_path / "run")
    (partial,) = (tmp_path / "run" / "words").glob("*.partial")
    (partial / "artifact.json").write_text("half")
    monkeypatch.setattr(runner, "seal", real)
    monkeypatch.setattr(Words, "run", killed)
    result = run(fake(), tmp_path / "run")
    assert result.made["words"].facts == {"words": 2}
    assert digests(result) == digests(run(fake(), tmp_path / "run"))


def test_half_a_file_that_a_kill_left_is_not_sealed(tmp_path: Path) -> None:
    process = in_another_process(tmp_path / "run", "count.signal_at=3")
    process.communicate()
    (partial,) = (tmp_path / "run" / "count").glob("*.partial")
    (partial / f".0003.step.{process.pid}.tmp").write_text("ha")
    made = run(fake("count.signal_at=3"), tmp_path / "run").made["count"]
    assert sorted(made.files) == ["0001.step", "0002.step", "0003.step", "0004.step", "telemetry/clock.txt", "telemetry/stage.json"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x"), RuntimeError("write failed: No space left on device")]
)
def test_a_full_disk_is_known_by_whatever_a_library_raises(error: Exception) -> None:
    assert runner._is_disk_full(error)
    assert not runner._is_disk_full(OSError(errno.ENOENT, "x"))


def test_an_artifact_that_was_sealed_before_a_kill_gets_its_line_in_the_ledger(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:3]))  # as if killed between the seal of publish and its line
    assert run(fake(), tmp_path / "run").fresh == ()
    written = Ledger(ledger).entries()
    assert [(entry["event"], entry.get("stage")) for entry in written[3:]] == [("run", None), ("stage", "publish"), ("done", None)]
    lost, again = json.loads(lines[3]), written[4]
    assert {**again, "before": 0, "seconds": 0} == {**lost, "before": 0, "seconds": 0}


def test_an_error_of_a_stage_leaves_nothing_of_it_behind(tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="words: a word that cannot be read"):
        run(fake('words.words=["fail"]'), tmp_path / "runs" / "run")
    assert list(tmp_path.iterdir()) == []
    run(fake(), tmp_path / "run", until="words")
    with pytest.raises(HearthError, match="words: a word that cannot be read"):
        run(fake('words.words=["fail"]'), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "words").iterdir()] == [
        next(iter(run(fake(), tmp_path / "run", until="words").made.values())).path.name
    ]


def test_a_fault_that_the_preflight_finds_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="words: the text is not there"):
        run(fake("words.missing=true"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_not_taken_for_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a bug"):
        run(fake('words.words=["bug"]'), tmp_path / "run")


def test_a_disk_that_fills_up_is_one_line_and_what_was_made_stays(tmp_path: Path) -> None:
    first = run(fake(), tmp_path / "run", until="count")
    with pytest.raises(DiskFullError, match="no space left on the disk; free some and run the same command again"):
        run(fake('words.words=["full"]'), tmp_path / "run")
    assert digests(run(fake(), tmp_path / "run", until="count")) == digests(first)


def test_too_little_room_is_found_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MIN_FREE_BYTES", 10**18)
    with pytest.raises(DiskFullError, match="a run needs"):
        run(fake(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# -- damage -----------------------------------------------------------------------------------------------------------------


def test_a_damaged_artifact_is_named_before_anything_is_made(tmp_path: Path) -> None:
    made = run(fake(), tmp_path / "run", until="count").made
    path = made["words"].path / "words.txt"
    path.write_text("a c")
    before = tree(tmp_path)
    with pytest.raises(DamagedError) as caught:
        run(fake("publish.title=x"), tmp_path / "run")
    assert str(caught.value).startswith(f"{path}: damaged") and f"delete the folder {made['words'].path}" in str(caught.value)
    assert tree(tmp_path) == before
    shutil.rmtree(made["words"].path)
    assert run(fake(), tmp_path / "run").fresh == ("words", "publish")


def test_damage_that_comes_while_a_run_goes_on_is_found_before_the_next_stage(tmp_path: Path) -> None:
    class Vandal(Watcher):
        def started(self, kind: str) -> None:
            if kind == "publish":
                (next((tmp_path / "run" / "count").glob("*/0002.step"))).write_text("?")

    with pytest.raises(DamagedError, match=r"0002\.step: damaged"):
        run(fake(), tmp_path / "run", watcher=Vandal())


def test_a_broken_chain_stops_the_run_and_names_the_line(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join([lines[0], lines[1].replace('"words"', '"wards"'), *lines[2:]]))
    with pytest.raises(DamagedError, match=r"ledger\.jsonl: line 3 does not follow line 2"):
        run(fake("count.steps=9"), tmp_path / "run")


def test_a_damaged_ledger_is_one_line_for_a_run_and_for_its_record(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    path = tmp_path / "run" / "ledger.jsonl"
    path.write_text('{"event":"stage","before":""}\n')
    for read in (lambda: run(fake(), tmp_path / "run"), lambda: ledger_facts(tmp_path / "run")):
        with pytest.raises(DamagedError, match=r"ledger\.jsonl: line 1 lacks stage, .*; put a copy of the file in its place"):
            read()
    path.unlink()
    path.mkdir()
    for read in (lambda: run(fake(), tmp_path / "run"), lambda: ledger_facts(tmp_path / "run")):
        with pytest.raises(DamagedError, match=r"ledger\.jsonl: not readable as a ledger"):
            read()


@pytest.mark.parametrize("content", ["[1", '{"files": []}'])
def test_a_damaged_table_of_an_artifact_is_one_line_for_a_run(tmp_path: Path, content: str) -> None:
    made = run(fake(), tmp_path / "run").made["words"].path
    (made / "artifact.json").write_text(content)
    with pytest.raises(DamagedError, match=r"artifact\.json: .*; delete the folder .* to make this stage again"):
        run(fake(), tmp_path / "run")


def test_a_torn_last_line_is_healed(tmp_path: Path) -> None:
    run(fake(), tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    assert run(fake(), tmp_path / "run").fresh == ()
    assert events(tmp_path / "run")[-1] == ("done", "")
