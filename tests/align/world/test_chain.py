"""The whole chain runs from a recipe, resumes after a kill with the same bytes, and its rows and ledger hold what they promise."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from openhearth import runner
from openhearth.align import judge_checkpoint
from openhearth.align.constitution_files import load
from openhearth.align.supervised import read_rows
from openhearth.errors import HearthError
from openhearth.ledger import Ledger
from openhearth.recipe import Recipe

pytestmark = pytest.mark.soak  # half a minute of one processor

LIMIT = 4
TINY = """
name = "tiny"
seed = 5

[world]
lines = 400
obeyed = 60
critiques = 60
comparisons = 60
vocab_size = 700
align_limit = 4
test_limit = 6

[base]
num_layers = 1
hidden_size = 32
tokens = 20480

[helpful]
[sl_cai]
rounds = 2
epochs = 1.0

[rl_cai]
pairs = 1
epochs = 1.0

[controls]
[verdict]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> runner.Result:
    return runner.run(Recipe.parse(TINY), tmp_path_factory.mktemp("chain") / "run")


def rows(made: runner.Result, kind: str, pattern: str) -> list[dict[str, Any]]:
    return [row for path in sorted(made.made[kind].path.glob(pattern)) for row in read_rows(path)]


def test_every_revision_names_the_principle_that_asked_for_it_and_what_stood_before(made: runner.Result) -> None:
    rounds = [rows(made, "sl_cai", f"round-{number}.jsonl") for number in range(3)]
    known = {principle.id for principle in load("house").critics}
    for before, after in pairwise(rounds):
        for old, new in zip(before, after, strict=True):
            assert new["id"] == old["id"] and new["before"] == old["text"] and new["principle"] in known
    assert len(rounds[0]) == 2 * LIMIT * 3


def test_every_preference_row_says_where_its_label_came_from(made: runner.Result) -> None:
    labels = rows(made, "rl_cai", "labels-*.jsonl")
    assert labels
    for row in labels:
        assert row["split"] == "align" and 0.05 <= row["label"] <= 0.95 and row["clamp"] == [0.05, 0.95] and row["kind"] == "logits+thought"
        assert row["judge"].startswith("checkpoint:") and row["policy"].startswith("checkpoint:") and row["judge"] != row["policy"]
        assert row["constitution"] == load("house").digest and row["seed"] == 5 and row["tokens"] > 0 and row["cost"] == 0
        assert len(row["forward"]) == len(row["backward"]) == 2 and row["first"] != row["second"]


def test_the_ledger_counts_training_sampling_and_judging(made: runner.Result) -> None:
    facts = {entry["stage"]: entry["facts"] for entry in Ledger(made.folder / "ledger.jsonl").entries() if entry["event"] == "stage"}
    for kind in ("sl_cai", "rl_cai"):
        parts = facts[kind]
        counted = sum(parts[f"{what}_flops"] for what in ("training", "sampling", "judging"))
        assert abs(parts["flops"] - counted) <= 2  # each part is rounded
    assert facts["sl_cai"]["judging_tokens"] == 0 < facts["sl_cai"]["sampling_tokens"]
    assert facts["rl_cai"]["judging_tokens"] == sum(row["tokens"] for row in rows(made, "rl_cai", "labels-*.jsonl"))
    results = json.loads((made.made["verdict"].path / "results.json").read_text())
    flops = {kind: facts[kind]["flops"] for kind in ("base", "helpful", "sl_cai", "rl_cai")}
    assert results["alignment_share"] == pytest.approx(1 - flops["base"] / sum(flops.values()))


def test_the_page_shows_every_policy_every_split_and_answers_drawn_at_random(made: runner.Result) -> None:
    folder = made.made["verdict"].path
    page = (folder / "result.md").read_text()
    assert made.made["world"].facts["align_limit"] == LIMIT
    for said in (
        "helpful only",
        "SL-CAI",
        "RL-CAI",
        "shuffled labels",
        "inverted constitution",
        "gold answers",
        "always refuse",
        "keyword",
    ):
        assert f"| {said}" in page or f": {said} |" in page
    assert "a law never shown" in page and page.count("| right |") + page.count("| **wrong** |") >= 25
    for name in ("pareto.svg", "calibration.svg"):
        assert (folder / name).read_text().startswith("<svg")


def test_a_chain_that_is_killed_in_the_middle_of_judging_ends_with_the_same_bytes(
    made: runner.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {kind: made.made[kind].path for kind in ("world", "base", "helpful")}
    calls = 0
    choose = judge_checkpoint.Checkpoint.choose

    def dies(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return choose(self, *arguments, **options)

    monkeypatch.setattr(judge_checkpoint.Checkpoint, "choose", dies)
    with pytest.raises(runner.Stopped):
        runner.run(Recipe.parse(TINY), tmp_path / "run", until="rl_cai", given=given)
    again = runner.run(Recipe.parse(TINY), tmp_path / "run", until="rl_cai", given=given)
    assert again.fresh == ("rl_cai",)
    assert again.made["rl_cai"].digest == made.made["rl_cai"].digest


def test_a_constitution_that_is_wrong_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="did you mean 'house'"):
        runner.run(Recipe.parse(TINY.replace("[sl_cai]", '[sl_cai]\nconstitution = "hous"')), tmp_path / "run")
    assert not (tmp_path / "run").exists()
