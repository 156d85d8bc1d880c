"""`hearth plan RECIPE --on`: the whole answer, what was assumed, what is warned about and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth import cli, cli_plan
from openhearth.errors import HearthError
from openhearth.plan import recipe
from openhearth.plan.commands.on import bar, on_command
from openhearth.plan.decoders import decoder
from openhearth.plan.recipes import affordable_tokens
from openhearth.plan.scaling_laws import law

ROOT = Path(__file__).parents[2]
LLAMA_65B, MIXTRAL = str(ROOT / "recipes/llama-65b.toml"), str(ROOT / "recipes/mixtral-8x7b.toml")
CONFIG = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def nobodys_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENHEARTH_ACCELERATORS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def llama() -> dict[str, Any]:
    return recipe(LLAMA_65B, on="2048xa100-80")


def test_llama_65b_is_foretold_between_best_and_typical(llama: dict[str, Any]) -> None:
    assert llama["best"]["days"] < 20.8 < llama["typical"]["days"]
    assert llama["tokens"] == 1.4e12 and llama["batch_tokens"] == 2048 * 2048 and llama["sequence_length"] == 2048
    assert (
        llama["stated"]["chip_hours"] == 1_022_362
        and 0.7 < llama["stated"]["best_over_stated"] < 1 < llama["stated"]["typical_over_stated"]
    )


@pytest.mark.parametrize("name", ["llama-65b", "llama3-70b", "llama3-405b", "pythia-12b", "pythia-1b", "gopher-280b"])
def test_what_the_record_reports_lies_in_a_factor_of_two_of_the_typical_case(name: str) -> None:
    on = {"llama3-70b": "4096xh100"}.get(name)
    facts = recipe(str(ROOT / f"recipes/{name}.toml"), on=on)
    assert 0.5 < facts["stated"]["typical_over_stated"] < 2


def test_the_figures_of_a_case_belong_together(llama: dict[str, Any]) -> None:
    for case in (llama["best"], llama["typical"]):
        assert case["chip_hours"] == pytest.approx(2048 * 24 * case["days"])
        assert case["usd"] == pytest.approx(case["chip_hours"] * 1.3) and case["usd_low"] < case["usd"] < case["usd_high"]
        assert case["mwh"] == pytest.approx(case["chip_hours"] * 375 * 1.1 / 1e6) and case["tco2e"] == pytest.approx(0.385 * case["mwh"])
        assert case["mfu"] == pytest.approx(llama["training_flops"]["full"] / (case["chip_hours"] * 3600 * 312e12))
        assert case["tokens_per_second_per_device"] == pytest.approx(1.4e12 / case["chip_hours"] / 3600)
    assert llama["best"]["mfu"] / llama["typical"]["mfu"] == pytest.approx(1 / llama["typical_share"]["median"])
    held = llama["memory"]
    assert sum(value for name, value in held.items() if name not in ("total", "limit")) == pytest.approx(held["total"])
    assert held["total"] <= held["limit"] == pytest.approx(0.9 * 80 * 2**30)
    assert sum(llama["step_seconds"].values()) * llama["steps"] / 86_400 == pytest.approx(llama["best"]["days"], rel=0.02)


def test_a_utilisation_of_ones_own_gives_the_hours_by_arithmetic() -> None:
    facts = recipe(LLAMA_65B, on="2048xa100-80", mfu=0.478, convention="6n", usd_per_hour=1.0)
    hours = 6 * 65_285_660_672 * 1.4e12 / (0.478 * 312e12) / 3600
    assert facts["best"] == facts["typical"] and facts["best"]["chip_hours"] == pytest.approx(hours)
    assert facts["best"]["days"] == pytest.approx(20.8, abs=0.05) and facts["best"]["usd"] == pytest.approx(hours)
    assert facts["mfu_source"] == "as given" and any("47.8%" in note for note in facts["notes"])


def test_four_times_the_devices_do_not_take_a_quarter_of_the_time_and_cost_more() -> None:
    few, many = (recipe(LLAMA_65B, on=f"{number}xa100-80")["best"] for number in (512, 2048))
    assert many["days"] < few["days"] < 4 * many["days"] and many["usd"] > few["usd"]


def test_without_tokens_the_compute_optimal_ones_are_taken_and_that_is_said() -> None:
    facts = recipe(CONFIG, on="64xh100")
    parameters = 6_738_415_616
    budget = law("refit").budget_for(parameters=parameters)
    assert facts["parameters"] == parameters and facts["tokens"] == pytest.approx(law("refit").optimal(budget)[1])
    assert any("compute-optimal" in note and "--tokens" in note for note in facts["notes"])
    assert any("StepLaw" in note for note in facts["notes"]) and facts["stated"] is None


def test_hardware_that_the_authors_state_is_taken_where_none_is_named() -> None:
    assert recipe(LLAMA_65B)["devices"] == 2048
    with pytest.raises(HearthError, match="--on is missing: the authors name a100-80, and not how many"):
        recipe(str(ROOT / "recipes/llama-7b.toml"))
    with pytest.raises(HearthError, match="--on is missing: name the hardware"):
        recipe(CONFIG)


def test_loss_data_and_returns_are_those_of_the_laws(llama: dict[str, Any]) -> None:
    found = llama["law"]
    assert (
        found["loss"] == pytest.approx(law("refit").loss(65_285_660_672, 1.4e12))
        and found["interval"][0] < found["loss"] < found["interval"][1]
    )
    assert found["optimal_parameters"] * found["optimal_tokens"] * 6 == pytest.approx(6 * 65_285_660_672 * 1.4e12)
    assert 0 < found["four_times_the_size"]["nats"] < 0.1 and 0 < found["twice_the_tokens"] < 0.05
    passes = {each["name"]: each["passes"] for each in llama["data"]["corpora"]}
    assert passes["FineWeb-Edu"] == pytest.approx(1.4 / 1.3) and passes["FineWeb"] == pytest.approx(1.4 / 15)
    few = recipe(LLAMA_65B, on="2048xa100-80", unique_tokens=350e9)
    assert few["data"]["epochs"] == pytest.approx(4) and few["data"]["worth_tokens"] == pytest.approx(3.73 * 350e9, rel=0.002)
    assert few["law"]["name"] == "muennighoff"


def test_a_mixture_is_priced_by_what_a_token_meets_and_warned_about_by_all() -> None:
    facts = recipe(MIXTRAL, on="1024xh100", tokens=1e12)
    (warning,) = facts["warnings"]
    assert "12.9B of the 46.7B" in warning and "3.6 times" in warning
    assert facts["training_flops"]["6n"] == pytest.approx(6 * 12_879_925_248 * 1e12)
    by_all = recipe(MIXTRAL, on="1024xh100", tokens=1e12, convention="6n-total", mfu=0.4)
    assert "3.6 times too many" in by_all["warnings"][0]
    assert by_all["best"]["chip_hours"] == pytest.approx(6 * 46_702_792_704 * 1e12 / (0.4 * 989.4e12) / 3600)


def test_a_size_that_is_the_total_of_a_known_mixture_is_questioned() -> None:
    (warning,) = recipe("46.7B", on="1024xh100", tokens=1e12)["warnings"]
    assert "Mixtral 8x7B" in warning and "--active 12.9B" in warning
    right = recipe("46.7B", on="1024xh100", tokens=1e12, active_parameters=12.9e9)
    assert right["active_parameters"] == pytest.approx(12.9e9, rel=0.002) and "12.9B of the 46.7B" in right["warnings"][0]
    assert not recipe("30B", on="1024xh100", tokens=1e12)["warnings"]


def test_a_v100_is_planned_in_fp16_and_bf16_on_it_is_refused() -> None:
    facts = recipe(str(ROOT / "recipes/gpt3-175b.toml"))
    assert facts["precision"] == "fp16-mixed" and any("no bf16 units" in note for note in facts["notes"])
    for options in ({"model": CONFIG, "precision": "bf16"}, {"model": {**CONFIG, "torch_dtype": "bfloat16"}}):
        with pytest.raises(HearthError, match=r"no bf16 units.*--precision fp16"):
            recipe(on="64xv100", tokens=1e11, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peak_tflops": 1979.0}, r"2:4 sparsity.* write 989\.4"), ({"mfu": 40.0}, "at most at 1"), ({"mfu": float("nan")}, "at most at 1"),
        ({"law": "chinchila"}, "no law 'chinchila'"), ({"convention": "7n"}, "convention '7n' is not known"),
        ({"precision": "int4"}, "precision 'int4'"),
        ({"optimizer": "adamm"}, "optimizer 'adamm' is not known"), ({"tokens": 0.0}, "must lie between"),
        ({"tokens": float("nan")}, "must lie between"),
        ({"sequence_length": 0}, "whole number"), ({"batch_tokens": 1.0}, "one sequence"), ({"watts": -5.0}, "must lie between"),
        ({"unique_tokens": -1.0}, "above zero"), ({"layout_text": "tp=5"}, "tensor 5 does not divide"),
        ({"on": "8xh10"}, "did you mean 'h100'"),
        ({"on": "0xh100"}, "between 1 and"), ({"on": "lots"}, "not in the catalogue"),
        ({"active_parameters": 1e9}, "--active goes with a size"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(HearthError, match=said) as caught:
        recipe(str(ROOT / "recipes/llama-7b.toml"), **{"on": "64xh100", **options})
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_says_what_would_be_enough() -> None:
    with pytest.raises(HearthError, match=r"^llama-65b does not fit on 4 x a100-80.*16 are enough"):
        recipe(LLAMA_65B, on="4xa100-80")


def test_budgets_buy_tokens() -> None:
    one = recipe(LLAMA_65B, on="256xa100-80", tokens=1e12)
    by_time = affordable_tokens(LLAMA_65B, "256xa100-80", seconds=one["best"]["hours"] * 3600)
    assert by_time["best"] == pytest.approx(1e12, rel=1e-6) and by_time["typical"] == pytest.approx(
        1e12 * one["typical_share"]["median"], rel=1e-6
    )
    by_money = affordable_tokens(LLAMA_65B, "256xa100-80", usd=one["typical"]["usd"])
    assert by_money["typical"] == pytest.approx(1e12, rel=1e-6)
    assert affordable_tokens(LLAMA_65B, "256xa100-80", chip_hours=one["best"]["chip_hours"])["best"] == pytest.approx(1e12, rel=1e-6)
    assert affordable_tokens(LLAMA_65B, "256xa100-80", flops=one["training_flops"]["full"])["best"] == pytest.approx(1e12)
    for wrong in ({}, {"usd": 1.0, "flops": 1e20}, {"seconds": -1.0}, {"usd": math.nan}):
        with pytest.raises(HearthError, match="one budget above zero"):
            affordable_tokens(LLAMA_65B, "256xa100-80", **wrong)


@pytest.mark.parametrize(
    ("parameters", "active"), [(1.25e8, None), (1.3e9, None), (6.7e9, None), (175e9, None), (1e12, None), (671e9, 37e9), (47e9, 13e9)]
)
def test_a_decoder_of_a_size_has_that_size(parameters: float, active: float | None) -> None:
    shape = decoder(parameters, active)
    assert shape.parameters == pytest.approx(parameters, rel=2e-3) and shape.active_parameters == pytest.approx(
        active or parameters, rel=2e-3
    )


def test_the_command_says_both_cases_the_layout_the_memory_and_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert on_command(LLAMA_65B, on="2048xa100-80") == 0
    shown = capsys.readouterr().out
    for word in (
        "best case",
        "typical case",
        "layout: ",
        "memory of a device",
        "what would not fit",
        "loss: ",
        "data: ",
        "four times the size",
        "2026-05",
    ):
        assert word in shown, word
    assert on_command(LLAMA_65B, on="2048xa100-80", price="2.10/h", json=True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["price"]["typical"] == 2.10 and facts["best"]["usd"] == pytest.approx(2.10 * facts["best"]["chip_hours"])
    assert on_command(MIXTRAL, on="64xh100", tokens="1T", json=True) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) and "priced by those" in captured.err


def test_a_word_like_a_command_is_answered_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["optimla"], ["optimla", "--flops", "1e23"]):
        assert cli._status(cli_plan.route(["plan", *arguments])) == 2
        captured = capsys.readouterr()
        assert not captured.out and captured.err.count("\n") == 1 and "no such command 'optimla'" in captured.err.lower()
        assert "'optimal'" in captured.err
    assert cli_plan.route(["plan", "llama"])[1:] == ["recipe", "llama"]  # near no command
    with pytest.raises(HearthError, match="no such file"):
        on_command("nothing.toml", on="8xh100")


def test_every_key_of_the_answer_is_on_the_page(llama: dict[str, Any]) -> None:
    page = (ROOT / "docs/plan/hardware.md").read_text("utf-8")
    known = (
        set(llama)
        | set(llama["best"])
        | set(llama["layout"])
        | set(llama["law"])
        | set(llama["data"])
        | set(llama["stated"])
        | set(llama["memory"])
    )
    assert not [key for key in known if f"`{key}`" not in page]


def test_the_table_of_llama_on_the_page_is_counted() -> None:
    page = (ROOT / "docs/plan/hardware.md").read_text("utf-8")
    for name, hours in (("7B", 82_432), ("13B", 135_168), ("33B", 530_432), ("65B", 1_022_362)):
        mwh = hours * 400 * 1.1 / 1e6
        assert f"| LLaMA {name} | {hours:,} | {mwh:.1f} | {0.385 * mwh:.1f} |" in page


def test_a_bar_is_right_to_a_character() -> None:
    parts = {"weights": 8.0, "gradients": 8.0, "optimizer": 16.0, "activations": 16.0, "logits": 0.0, "buffers": 0.0, "framework": 0.0}
    assert bar(parts, 64.0).plain == "[" + "█" * 8 + "▓" * 8 + "▒" * 16 + "░" * 16 + "·" * 16 + "]"
    assert bar(parts, 24.0).plain.endswith("> too much") and len(bar(parts, 24.0).plain) == 1 + 64 + len("> too much")


def test_the_bars_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "memory.svg"
    assert on_command(LLAMA_65B, on="64xa100-80", plot=file) == 0
    assert "activations" in file.read_text() and np.isfinite(file.stat().st_size)
    with pytest.raises(HearthError):
        on_command(LLAMA_65B, on="64xa100-80", plot=tmp_path / "memory.gif")
