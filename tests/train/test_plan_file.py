"""A plan from anywhere: whatever stands in it, it is followed within bounds or refused by name before anything is made."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import pytest

from openhearth import runner
from openhearth.budget_text import LONGEST
from openhearth.errors import RecipeError
from openhearth.evaluate.stage import Evaluate
from openhearth.plan import host
from openhearth.plan.budget import derive
from openhearth.recipe import Recipe
from openhearth.train.planning import Planning, check_plan
from openhearth.train.settings import GROUPS, Settings
from tests.plan.test_budget import IdealMachine, facts

PLAN = derive(facts(60), IdealMachine(2e10))
RECIPE = 'name = "small"\nbudget = "1 min"\n[corpus]\n[tokenizer]\n[plan]\n'


def changed(path: str, value: Any) -> dict[str, Any]:
    plan = copy.deepcopy(PLAN)
    *tables, key = path.split(".")
    place = plan
    for table in tables:
        place = place[table]
    place[key] = value
    return plan


def preflight(**settings: Any) -> None:
    Planning(**{"budget_seconds": 60} | settings).preflight()


def test_a_plan_as_it_was_written_is_followed() -> None:
    preflight(followed=json.loads(json.dumps(PLAN)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *[(f"{part}.threads", value) for part in ("pretrain", "sft") for value in (100_000, 4_000, 0, "2")],
        *[(f"{part}.batch_tokens", value) for part in ("pretrain", "sft") for value in (7, 10**12, True)],
        *[("pretrain.sequence_length", value) for value in (10**9, 65_536, 0)],
        *[(f"{part}.steps", value) for part in ("pretrain", "sft") for value in (10**15, 10**8, 0, 1.5)],
        *[("pretrain.micro_batch_tokens", value) for value in (10**12, 0, -1, 2**20)],
        *[("pretrain.learning_rate", value) for value in ({}, {"matrix": 0.1}, dict.fromkeys(GROUPS, 0.0), dict.fromkeys(GROUPS, -1.0), 5)],
        ("sft.learning_rate", dict.fromkeys(GROUPS, 1e9)),
        ("pretrain.learning_rate", dict.fromkeys(GROUPS, float("nan"))),
        *[("model.num_layers", value) for value in (10_000, 0)],
        *[("model.vocab_size", value) for value in (2, 10**12)],
        *[("model.hidden_size", value) for value in (10**6, "64")],
        ("model.intermediate_size", 10_000_000),
        *[("predicted.seconds.total", value) for value in ("nan", float("nan"), float("inf"), -1.0, 10 * LONGEST, None, True)],
        ("predicted.seconds", {}),
        ("predicted.seconds.pretrain", [1]),
        *[("predicted.energy", value) for value in (5, {"joules": "many", "source": "x"})],
        ("predicted.bits_per_byte", {"value": 1.0}),
        *[("evaluate.prompts", value) for value in (999_999_999, -1, True)],
        ("evaluate.heldout_bytes", 10**15),
        ("evaluate.max_new_tokens", 10**9),
        ("why", 5),
        ("machine", "x"),
        ("model", []),
        ("sft", None),
    ],
)
def test_a_followed_plan_with_an_absurd_value_is_refused_at_once_by_name(path: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "memory_bytes", lambda: 16 * 10**9)
    started = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        preflight(followed=changed(path, value))
    assert time.monotonic() - started < 1
    said = str(caught.value)
    assert said.startswith("the recorded plan: ") and "\n" not in said
    assert any(part in said for part in (path.split(".")[0], "not finite"))


def test_an_absurd_plan_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "text.md").write_text("words " * 100)
    for path, value in (("pretrain.threads", 100_000), ("pretrain.batch_tokens", 7), ("model.num_layers", 10_000)):
        (tmp_path / "plan.json").write_text(json.dumps(changed(path, value)))
        with pytest.raises(RecipeError, match=path.replace(".", r"\.")):
            runner.run(Recipe.parse(RECIPE), tmp_path / "run", text=[str(tmp_path / "text.md")], plan=tmp_path / "plan.json")
        assert not (tmp_path / "run").exists()


def test_a_plan_that_needs_more_memory_than_there_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    preflight(followed=PLAN)
    monkeypatch.setattr(host, "memory_bytes", lambda: 1_000_000)
    with pytest.raises(RecipeError, match="GB to train, this machine has 0 GB"):
        preflight(followed=PLAN)
    check_plan(PLAN, "here")  # a plan that is only read need not fit


def test_the_plan_of_a_larger_machine_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_threads", lambda: 2)
    preflight(followed=changed("pretrain.threads", 64))


def test_every_learning_rate_is_declared_with_its_bounds() -> None:
    sizes = {"sequence_length": 8, "batch_tokens": 8, "micro_batch_tokens": 8, "steps": 1}
    Settings(**sizes, learning_rate=dict.fromkeys(GROUPS, 0.1))
    for rates in ({}, {**dict.fromkeys(GROUPS, 0.1), "more": 0.1}, dict.fromkeys(GROUPS, float("inf"))):
        with pytest.raises(ValueError, match="learning_rate"):
            Settings(**sizes, learning_rate=rates)


# -- what a recipe asks for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tokens": 9 * 10**18}, r"plan\.tokens is 9,000,000,000,000,000,000; .* lower it"),
        ({"batch_tokens": 67_108_864}, r"plan\.batch_tokens is 67,108,864: only to measure that takes .* lower it"),
        ({"sequence_length": 65_536}, r"plan\.sequence_length is 65,536: only to measure that takes .* lower it"),
        ({"sequence_length": 65_536, "num_layers": 4}, r"plan\.sequence_length is 65,536, plan\.num_layers is 4: .* lower them"),
    ],
)
def test_what_cannot_be_measured_or_trained_is_refused_before_anything_is_made(
    settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "usable_threads", lambda: 4)
    with pytest.raises(RecipeError, match=said):
        preflight(**settings)


def test_what_takes_its_time_but_can_be_done_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "usable_threads", lambda: 2)
    for settings in ({}, {"tokens": 10**9}, {"sequence_length": 4096}, {"batch_tokens": 2**18}, {"num_layers": 6, "hidden_size": 384}):
        preflight(**settings)
    preflight(budget_seconds=20)
    preflight(budget_seconds=36_000, num_layers=24, hidden_size=1024)


def test_tokens_that_take_longer_here_than_the_longest_run_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"plan\.tokens is 1,000,000,000,000; .*the longest run is 30 days: lower it"):
        derive(facts(tokens=10**12), IdealMachine(1e11))
    assert any("more than the budget" in sentence for sentence in derive(facts(tokens=10**8), IdealMachine(1e11))["why"])


@pytest.mark.parametrize("size", ["prompts", "heldout_bytes", "max_new_tokens"])
def test_an_evaluation_beyond_reason_is_refused(size: str) -> None:
    with pytest.raises(RecipeError, match=f"evaluate. {size}: must be at most"):
        Recipe.parse(f"{RECIPE}[pretrain]\n[sft]\n[evaluate]\n{size} = 9999999999\n".replace("small", "x"))


class Told:
    """A `Tell` that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, done: float, total: float, **figures: float | str) -> None: ...

    def record(self, **facts: Any) -> None: ...

    def measure(self, **figures: Any) -> None: ...


@pytest.mark.parametrize(("total", "count"), [(59.0, 0), (119.0, 1)])
def test_a_run_that_will_take_longer_than_its_budget_says_so_while_it_runs(tmp_path: Path, total: float, count: int) -> None:
    from openhearth.ledger import seal, write_json

    (tmp_path / "p").mkdir()
    write_json(tmp_path / "p" / "summary.json", {"vocab_size": PLAN["model"]["vocab_size"]})
    made = seal(tmp_path / "p", tmp_path / "a", stage="tokenizer", key="k", facts={})
    tell = Told()
    Planning(followed=changed("predicted.seconds.total", total)).run({"tokenizer": made}, tmp_path, tell)
    assert len([note for note in tell.notes if "more than the budget of 1 min" in note]) == count


def test_evaluating_far_more_than_was_planned_is_said_with_the_remedy() -> None:
    from types import SimpleNamespace

    from openhearth.evaluate.stage import _beyond_budget

    plan = {
        "budget_seconds": 60.0,
        "evaluate": {"heldout_bytes": 40_000, "prompts": 32, "max_new_tokens": 96},
        "predicted": {"seconds": {"evaluate": 6.0, "total": 60.0}},
    }

    def said(prompts: int, heldout_bytes: int) -> str:
        job: Any = SimpleNamespace(
            tasks=[0] * prompts, sampling=SimpleNamespace(max_new_tokens=96), heldout=SimpleNamespace(bytes=heldout_bytes)
        )
        return _beyond_budget(job, plan)

    assert said(32, 40_000) == said(5, 30_000) == ""
    assert "evaluating 3,200 functions" in said(3200, 40_000) and "take about 10 min" in said(3200, 40_000)
    assert "lower evaluate.prompts" in said(3200, 40_000) and said(32, 400_000)
    assert Evaluate.model_fields["prompts"].metadata
