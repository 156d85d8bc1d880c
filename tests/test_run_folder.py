"""The folder of a run: one process at a time, nothing written over, found by name, read from its ledger."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from openhearth import runner
from openhearth.errors import HearthError
from openhearth.ledger import open_artifact
from openhearth.record import find_runs, ledger_facts
from openhearth.run_folder import find_run, in_use
from openhearth.runner import Watcher, run
from tests.fakes import digests, fake, in_another_process, tree, wait_for

# -- the folder and its lock ------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_by_name_and_the_first_is_unhurt(tmp_path: Path) -> None:
    slow = ("count.steps=30", "count.seconds=0.05")
    first = in_another_process(tmp_path / "run", *slow)
    wait_for(tmp_path / "run" / "words", first)
    assert in_use(tmp_path / "run")
    with pytest.raises(
        HearthError, match=rf"run: in use by process {first.pid} on .*; wait until it ends, or choose another folder with --dir"
    ):
        run(fake(*slow), tmp_path / "run")
    assert in_use(tmp_path / "run") and find_runs(tmp_path)[0]["state"] == "running"
    _, said = first.communicate()
    assert (first.returncode, said) == (0, "")
    assert not in_use(tmp_path / "run")
    assert digests(run(fake(*slow), tmp_path / "run")) == digests(run(fake(*slow), tmp_path / "whole"))


def test_a_lock_whose_process_is_gone_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere\n")
    assert run(fake(), tmp_path / "run").fresh == ("words", "count", "publish")


def test_a_process_does_not_run_twice_in_one_folder(tmp_path: Path) -> None:
    class Again(Watcher):
        def started(self, kind: str) -> None:
            run(fake(), tmp_path / "run")

    with pytest.raises(HearthError, match="in use by this process"):
        run(fake(), tmp_path / "run", watcher=Again())


def test_only_an_empty_folder_or_a_run_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    (tmp_path / "release").mkdir()
    for name in ("ledger.jsonl", "MANIFEST.json"):
        (tmp_path / "release" / name).touch()
    before = tree(tmp_path)
    for name, said in {
        "file": "is a file",
        "file/run": "is a file, or a file stands in its way",
        "full": "exists and is not the folder of a run",
        "release": "exists and is not the folder of a run",
        "x" * 300: "cannot be made",
        "a\0b": "not a name for a folder",
    }.items():
        with pytest.raises(HearthError, match=said) as caught:
            run(fake(), tmp_path / name)
        assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before
    (tmp_path / "empty").mkdir()
    assert run(fake(), tmp_path / "empty").fresh


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(HearthError, match="cannot be written"):
        run(fake(), tmp_path / "closed" / "run")


def test_a_folder_that_the_disk_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HearthError, match=r"cannot be written \(Read-only file system\); choose another folder with --dir"):
        run(fake(), tmp_path / "run")


# -- plans ------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_read_and_handed_to_every_stage(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"format": "openhearth-plan/1", "x": 1}')
    assert runner.read_plan(tmp_path / "plan.json") == {"format": "openhearth-plan/1", "x": 1}


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ("[]", "not a plan"), ('{"format": "x"}', "not a plan"), ("[" * 100_000, "not JSON"), ("9" * 5_000, "not JSON")],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(HearthError, match=rf"plan\.json: {said}.*--plan takes the plan\.json of a run or of a release"):
        run(fake(), tmp_path / "run", plan=tmp_path / "plan.json")
    assert not (tmp_path / "run").exists()


# -- reading a run ----------------------------------------------------------------------------------------------------------


def test_the_record_of_a_run_is_its_ledger(tmp_path: Path) -> None:
    result = run(fake(), tmp_path / "run")
    facts = ledger_facts(tmp_path / "run")
    assert [stage["stage"] for stage in facts["stages"]] == ["words", "count", "publish"]
    assert facts["total"]["tokens"] == 40 and facts["total"]["flops"] == 240
    assert sum(stage["share"] for stage in facts["stages"]) == pytest.approx(1)
    assert {stage["stage"]: stage["digest"] for stage in facts["stages"]} == digests(result)
    (row,) = find_runs(tmp_path)
    assert (row["name"], row["state"], row["budget"]) == ("run", "done", "1 min")


def test_a_run_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    run(fake(), tmp_path / "good")
    run(fake(), tmp_path / "bad")
    (tmp_path / "bad" / "ledger.jsonl").write_text("x\n")
    (tmp_path / "no run").mkdir()
    found = {row["name"]: row for row in find_runs(tmp_path)}
    assert found["good"]["state"] == "done"
    assert found["bad"]["state"] == "not readable" and "line 1 is not a ledger entry" in found["bad"]["reason"]
    assert set(found) == {"good", "bad"}


def test_a_run_is_found_by_folder_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(fake())
    assert find_run("fake") == Path("runs/fake") and find_run("runs/fake") == Path("runs/fake")
    with pytest.raises(HearthError, match=r"fkae: no such run \(did you mean 'fake'\?\)"):
        find_run("fkae")
    assert open_artifact(next(Path("runs/fake/count").iterdir())) is not None
