"""The plan's arithmetic on machines of our choice: no torch, no clock."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from openhearth.errors import RecipeError
from openhearth.model.config import ModelConfig
from openhearth.plan.budget import LADDER, MAX_EPOCHS, TOKENS_PER_PARAMETER, Facts, derive, shape
from openhearth.train.planning import Planning, check_plan


class IdealMachine:
    """A machine whose step costs its FLOPs at a fixed rate, and a little for each update."""

    def __init__(self, flops_per_second: float) -> None:
        self.rate = flops_per_second

    def step_seconds(self, config: ModelConfig, settings: dict[str, Any]) -> float:
        return settings["batch_tokens"] * config.flops_per_token(settings["sequence_length"]) / self.rate + 0.005

    def reading_rate(self, config: ModelConfig) -> float:
        return 3 * self.rate / config.flops_per_token(512)

    def decode_seconds(self, config: ModelConfig, prompts: int) -> float:
        return 0.01

    def elapsed(self) -> float:
        return 2.0

    def watts(self) -> float | None:
        return None


def facts(budget_seconds: float = 300.0, **changes: Any) -> Facts:
    values: dict[str, Any] = {
        "budget_seconds": budget_seconds,
        "spent": {"corpus": 3.0, "tokenizer": 4.0},
        "train_tokens": 3_000_000,
        "train_bytes": 11_000_000,
        "heldout_bytes": 700_000,
        "vocab_size": 4096,
        "bos_token_id": 4093,
        "eos_token_id": 4095,
        "machine": {"processor": "ideal"},
        "threads": 2,
        "dtype": "float32",
        "sequence_length": 512,
    }
    return Facts(**values | changes)


@pytest.mark.parametrize("budget", [60, 180, 600, 1800])
@pytest.mark.parametrize("rate", [2e10, 1e11, 1e12])
def test_the_predicted_time_meets_the_budget(budget: float, rate: float) -> None:
    plan = check_plan(derive(facts(budget), IdealMachine(rate)), "test")
    total = plan["predicted"]["seconds"]["total"]
    ended_early = any("only memorise" in sentence for sentence in plan["why"])
    assert total <= 1.02 * budget or any("smallest sensible run" in sentence for sentence in plan["why"])
    assert ended_early or total >= 0.9 * budget


def test_predicted_seconds_are_the_sum_of_the_stages() -> None:
    seconds = derive(facts(), IdealMachine(1e11))["predicted"]["seconds"]
    assert seconds["total"] == pytest.approx(sum(value for stage, value in seconds.items() if stage != "total"), abs=0.1)


def test_a_faster_machine_and_a_longer_budget_never_get_a_smaller_model() -> None:
    def parameters(budget: float, rate: float) -> int:
        return ModelConfig(**derive(facts(budget), IdealMachine(rate))["model"]).parameters

    by_rate = [parameters(300, rate) for rate in (1e10, 1e11, 1e12)]
    by_budget = [parameters(budget, 1e11) for budget in (60, 600, 6000)]
    assert by_rate == sorted(by_rate) and by_rate[0] < by_rate[-1]
    assert by_budget == sorted(by_budget) and by_budget[0] < by_budget[-1]


def test_the_shape_taken_sees_enough_tokens_unless_it_is_the_smallest() -> None:
    plan = derive(facts(600), IdealMachine(1e11))
    config = ModelConfig(**plan["model"])
    assert (config.num_layers, config.hidden_size) != LADDER[0]
    assert plan["pretrain"]["tokens"] / config.matmul_parameters > 0.8 * TOKENS_PER_PARAMETER


def test_little_text_ends_the_run_before_the_budget_and_says_so() -> None:
    plan = derive(facts(600, train_tokens=20_000, train_bytes=70_000), IdealMachine(1e11))
    assert plan["pretrain"]["tokens"] <= max(MAX_EPOCHS * 20_000, 10 * plan["pretrain"]["batch_tokens"])
    assert any("More text would use the rest" in sentence for sentence in plan["why"])


def test_overrides_are_followed() -> None:
    plan = derive(facts(num_layers=3, hidden_size=160, batch_tokens=16384, tokens=163840, optimizer="adamw"), IdealMachine(1e11))
    assert (plan["model"]["num_layers"], plan["model"]["hidden_size"]) == (3, 160)
    assert (plan["pretrain"]["steps"], plan["pretrain"]["batch_tokens"], plan["pretrain"]["tokens"]) == (10, 16384, 163840)
    assert plan["pretrain"]["learning_rate"]["matrix"] < 0.01


def test_overrides_that_cannot_work_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"plan\.hidden_size"):
        shape(2, 100, facts())
    with pytest.raises(RecipeError, match=r"plan\.batch_tokens"):
        derive(facts(batch_tokens=256), IdealMachine(1e11))


@pytest.mark.parametrize(
    "damage", [{"format": "other/1"}, {"model": {}}, {"pretrain": {"steps": -1}}, {"evaluate": {"prompts": "many"}}, {"predicted": None}]
)
def test_a_plan_with_a_broken_part_is_refused(damage: dict[str, Any]) -> None:
    plan = derive(facts(), IdealMachine(1e11))
    with pytest.raises(RecipeError, match="test: "):
        check_plan(plan | damage, "test")


def test_planning_needs_no_torch() -> None:
    code = "import sys, openhearth.plan.budget, openhearth.plan.host, openhearth.train.planning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "settings",
    [{"batch_tokens": 1000, "sequence_length": 256}, {"threads": 4000}, {"num_layers": 200, "hidden_size": 16384}],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"plan\."):
        Planning(budget_seconds=60, **settings).preflight()
    Planning(budget_seconds=60, batch_tokens=1024, sequence_length=256, threads=1, num_layers=2, hidden_size=128).preflight()


GPT2 = {
    "width_per_layer": 64.0,
    "intermediate_ratio": 4.0,
    "gated": False,
    "head_dim": 64,
    "query_ratio": 1.0,
    "heads_per_kv_head": 1,
    "tied": True,
    "experts": 0,
    "experts_per_token": 0,
    "tokens_per_parameter": None,
}


def test_a_miniature_keeps_the_proportions_of_its_family() -> None:
    llama3 = GPT2 | {"width_per_layer": 102.4, "intermediate_ratio": 3.5, "gated": True, "heads_per_kv_head": 8, "tied": False}
    for family in (GPT2, llama3):
        plan = derive(facts(6000, family=family), IdealMachine(1e12))
        config = ModelConfig(**plan["model"])
        assert config.num_layers == round(config.hidden_size / family["width_per_layer"]) > 2
        met = config.intermediate_size * (1 if family["gated"] else 1.5)  # as many FLOPs as two matrices of the published width
        assert met / config.hidden_size == pytest.approx(family["intermediate_ratio"], rel=0.1)
        assert config.num_heads // config.num_kv_heads == min(config.num_heads, family["heads_per_kv_head"])
        assert config.tie_word_embeddings == family["tied"]
        assert any("A miniature" in sentence for sentence in plan["why"])
        assert any("gated" in sentence for sentence in plan["why"]) == (not family["gated"])


@pytest.mark.parametrize("flops", [1e12, 1e14, 1e16])
def test_a_budget_of_flops_is_spent_to_a_step_whatever_the_machine(flops: float) -> None:
    shapes = set()
    for rate in (1e10, 1e12):
        plan = derive(facts(train_tokens=10**9, budget_flops=flops), IdealMachine(rate))
        config = ModelConfig(**plan["model"])
        step = plan["pretrain"]["batch_tokens"] * config.flops_per_token(512)
        spent = (plan["pretrain"]["steps"] + plan["sft"]["steps"]) * step
        assert flops - 2 * step < spent <= max(flops, 2 * step)
        shapes.add((config.num_layers, config.hidden_size))
    assert len(shapes) == 1


def test_a_budget_of_flops_that_takes_months_here_is_refused() -> None:
    with pytest.raises(RecipeError, match="the longest run is 30 days"):
        derive(facts(train_tokens=10**9, budget_flops=1e17), IdealMachine(1e10))


@pytest.mark.parametrize(("budget", "gflops", "used"), [(300, 1e3, False), (7200, 1e3, True), (7200, 100, False)])
def test_compilation_is_used_when_it_saves_twice_what_it_takes(budget: float, gflops: float, used: bool) -> None:
    """At 1e11 FLOP/s in all and 1e12 in products, nine tenths of a step is something else; at 1e11 in products, nothing is."""
    machine = {"processor": "ideal", "product_gflops": {"float32": gflops}}
    given = facts(budget, compile=None, machine=machine, train_tokens=10**9)
    plan = derive(given, IdealMachine(1e11))
    assert plan["pretrain"]["compile"] is used and plan["sft"]["compile"] is used
    assert any("torch.compile" in sentence for sentence in plan["why"])
    without = derive(facts(budget, machine=machine, train_tokens=10**9), IdealMachine(1e11))
    assert (plan["pretrain"]["tokens"] > without["pretrain"]["tokens"]) is used
    assert plan["predicted"]["seconds"]["total"] <= 1.02 * budget
