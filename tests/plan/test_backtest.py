"""Published runs: what is read, what is a trap, and how far predictions are off that never saw the reported hours."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.plan import backtest, speed
from openhearth.plan.backtesting import family_of, predict
from openhearth.plan.commands.backtest import backtest_command
from openhearth.plan.published_runs import Run, read, remark, trap
from openhearth.plan.scaling_laws import law

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nobodys_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENHEARTH_ACCELERATORS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return backtest()


def row(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in facts["runs"] if each["run"] == name)


def run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "name": "A 7B", "where": "here:2", "hardware": "A100 80GB", "parameters": 7e9, "tokens": 1e12, "chips": 256, "chip_hours": 90_000,
    }  # fmt: skip
    return Run(**values | changes)


# -- the table of the record ---------------------------------------------------------------------------------------------------------


def test_every_run_is_scored_or_skipped_with_a_reason(facts: dict[str, Any]) -> None:
    assert facts["scored"] + facts["skipped"] == len(facts["runs"]) == len(read()) == 63
    for each in facts["runs"]:
        assert (each["error"] is None) == bool(each["skipped"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("T5-11B", "encoder-decoder"), ("AlexaTM 20B", "encoder-decoder"), ("LaMDA 137B", "other tokens"), ("GPT-J-6B", "cores"),
        ("MPT-30B", "mixed hardware"), ("GPT-2 XL 1.5B", "tokens not published"), ("XGen-7B", "all variants"),
        ("Falcon Mamba 7B", "state-space"),
        ("Llama 3.2 1B", "distilled"), ("Megatron-LM 1T (Narayanan, projected)", "HFU"), ("GLaM 1.2T", "derived from its energy"),
        ("Snowflake Arctic 480B", "upper bound"),
    ],
)  # fmt: skip
def test_traps_of_the_record_are_skipped(facts: dict[str, Any], name: str, said: str) -> None:
    assert said in row(facts, name)["skipped"]


def test_a_run_without_hours_is_foretold_and_not_scored(facts: dict[str, Any]) -> None:
    found = row(facts, "Falcon-180B")
    assert found["skipped"] == "hours not reported" and found["error"] is None and found["usd_error"] is None
    assert found["best_chip_hours"] < 7e6 < 1.5 * found["typical_chip_hours"]  # its card says about 7M


def test_flops_with_recomputation_are_remarked_on_and_6nd_is_used(facts: dict[str, Any]) -> None:
    for name in ("OPT-175B", "BloombergGPT 50B"):
        assert "1.37 x 6ND" in row(facts, name)["remark"] and row(facts, name)["skipped"] is None


def test_hours_are_foretold_within_a_quarter_in_the_median(facts: dict[str, Any]) -> None:
    time = facts["time"]
    assert time["runs"] >= 35
    assert time["median_absolute_error"] < 0.25 and abs(time["median_error"]) < 0.1 and time["largest_absolute_error"] < 1
    assert 0.6 < facts["inside_80_percent"] / time["runs"] < 0.95
    assert all(group["median_absolute_error"] < 0.55 for group in facts["by_group"].values())
    errors = [each["error"] for each in facts["runs"] if each["error"] is not None]
    assert time["median_absolute_error"] == pytest.approx(float(np.median(np.abs(errors))))


def test_a_runs_hours_and_its_family_do_not_enter_its_prediction() -> None:
    runs = read()
    target = next(one for one in runs if one.name == "LLaMA-65B")
    (honest,), (told,) = predict([target]), predict([replace(target, chip_hours=2 * 1_022_362)])
    assert honest.hours == told.hours
    others = [value for name, value in speed.whole_runs().items() if not name.lower().startswith("llama")]
    assert honest.share == pytest.approx(float(np.median(others)))
    assert family_of("LLaMA-65B") == family_of("Llama 3.1 8B") == "llama" and family_of("GPT-3 175B") == "gpt"


def test_energy_as_the_sources_count_comes_out(facts: dict[str, Any]) -> None:
    for name, mwh, tonnes in (
        ("LLaMA-7B", 36, 14),
        ("LLaMA-13B", 59, 23),
        ("LLaMA-33B", 233, 90),
        ("LLaMA-65B", 449, 173),
        ("OPT-175B", 356, 137),
    ):
        found = row(facts, name)
        assert int(found["mwh_as_reported"]) == mwh and round(found["tco2e_as_reported"]) == tonnes
    assert facts["energy_as_reported"]["largest_absolute_error"] < 0.01
    assert facts["energy"]["median_absolute_error"] < 0.1


def test_the_optimum_is_the_laws_and_scored_where_it_was_meant(facts: dict[str, Any]) -> None:
    chinchilla = row(facts, "Chinchilla 70B")
    parameters, tokens = law("refit").optimal(6 * 70e9 * 1.4e12)
    assert (chinchilla["optimal_parameters"], chinchilla["optimal_tokens"]) == pytest.approx((parameters, tokens))
    assert chinchilla["optimum_error"] == pytest.approx(parameters / 70e9 - 1)
    assert row(facts, "LLaMA-7B")["optimum_error"] is None and row(facts, "LLaMA-7B")["size_over_optimal"] < 0.5
    assert facts["optimum"]["runs"] == 3
    assert row(backtest(law="deepseek"), "Chinchilla 70B")["nats_above_optimum"] is None


def test_cost_is_hours_at_the_catalogues_price(facts: dict[str, Any]) -> None:
    found = row(facts, "DeepSeek-V3 671B (pretraining)")
    assert found["typical_usd"] == pytest.approx(2.0 * found["typical_chip_hours"])
    assert found["usd_error"] == pytest.approx(found["typical_usd"] / 5_328_000 - 1)


# -- rules -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "UL2 20B"}, "encoder-decoder"), ({"notes": "an encoder-decoder"}, "encoder-decoder"),
        ({"notes": "continued pretraining of X"}, "trained model"),
        ({"name": "X-Mamba"}, "not a transformer"), ({"hardware": "TPU v3-256"}, "counts cores"), ({"hardware": "A100 / H100"}, "mixed"),
        ({"hardware": "CS-2"}, "'CS-2' is not in the catalogue"), ({"hardware": ""}, "'nothing' is not in the catalogue"),
        ({"chip_hours": None}, "hours not reported"), ({"tokens": None}, "tokens not published"),
        ({"parameters": None}, "parameters not published"),
        ({"name": "Mixtral 8x7B"}, "mixture of experts"), ({"name": "Qwen3-30B-A3B"}, "mixture of experts"),
        ({"flops": 4.2e23}, "6ND is 0.1 times"),
        ({"chip_hours": 30_000}, "of peak for a whole run"), ({"chip_hours": 2e6}, "more than this run"),
        ({"chips": 256, "days": 100.0}, "times chips x days"), ({"skip": "because"}, "because"),
    ],
)  # fmt: skip
def test_a_trap_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in trap(run(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "Mixtral 8x7B", "active_parameters": 5e9},
        {"chip_hours": None, "days": 14.6},
        {"flops": 5.7e22},
        {"hardware": "NVIDIA A100-SXM4-80GB"},
    ],
)
def test_a_plain_run_is_no_trap(changes: dict[str, Any]) -> None:
    assert trap(run(**changes)) == ""


def test_counted_recomputation_is_remarked_on() -> None:
    assert "HFU" in remark(run(flops=4.2e22 * 4 / 3)) and remark(run(flops=4.2e22)) == ""


# -- a table of one's own ------------------------------------------------------------------------------------------------------------


def test_usual_names_of_columns_and_ways_to_write_numbers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(
        "# mine\nRun,Size,Training tokens,Accelerator,GPUs,GPU-hours,Cost USD,MFU,What\n"
        'First,6.7B,1T,A100 40GB,440,,"$200,000",41%,x\nSecond,65B,1.4T,A100 80GB,2048,"1,022,362",,,\n'
    )
    first, second = read(file)
    assert (first.parameters, first.tokens, first.chips, first.usd, first.mfu) == (6.7e9, 1e12, 440, 200_000, 0.41)
    assert second.chip_hours == 1_022_362 and first.reported_hours is None
    found = backtest(file)
    assert found["scored"] == 1 and found["runs"][0]["skipped"] == "hours not reported" and found["runs"][1]["best_chip_hours"] > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,params,tokens,hardware\nA,many,1T,h100\n", r":2: params many: not a number"),
        ("model,params,tokens,hardware\nA,7B,-1T,h100\n", r":2: tokens -1T: must be above zero"),
        ("model,params,tokens,hardware\nA,7B,nan,h100\n", r":2: tokens nan: must be a finite"),
        ("model,params,tokens,hardware,n_chips\nA,7B,1T,h100,1e9\n", r":2: n_chips 1e9: out of bounds"),
        ("model,params,hardware\nA,7B,h100\n", r":1: no column of tokens"),
        ("model,parms,tokens,hardware\nA,7B,1T,h100\n", r":1: no column of parameters \(did you mean 'params'\?\)"),
        ("model,params,size,tokens,hardware\nA,7B,7B,1T,h100\n", r":1: two columns are the parameters"),
        ("model,params,active_params,tokens,hardware\nA,7B,8B,1T,h100\n", r":2: active parameters \(8e\+09\) are more than all"),
        ("model,params,tokens,hardware\n", r"no runs in it"), ("", r"no runs in it"),
        ('model,params,tokens,hardware\n"A,7B,1T,h100\n', r"not CSV"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_refused_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(text)
    with pytest.raises(HearthError, match=said) as caught:
        backtest(file)
    assert "\n" not in str(caught.value)


def test_a_missing_table_or_law_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="no such file"):
        backtest(tmp_path / "gone.csv")
    with pytest.raises(HearthError, match="no law 'nolaw'"):
        backtest(law="nolaw")


# -- the command and the page --------------------------------------------------------------------------------------------------------


def test_the_command_prints_errors_medians_and_reasons(capsys: pytest.CaptureFixture[str], facts: dict[str, Any]) -> None:
    assert backtest_command() == 0
    shown = capsys.readouterr().out
    assert (
        f"{facts['time']['runs']} runs, median error" in shown and "encoder-decoder" in shown and "LLaMA-65B" in shown and "…" not in shown
    )
    assert backtest_command(json=True) == 0
    assert json.loads(capsys.readouterr().out)["time"]["runs"] == facts["time"]["runs"]


def test_the_page_shows_what_the_backtest_gives(facts: dict[str, Any]) -> None:
    spec = importlib.util.spec_from_file_location("mfu_calibration", ROOT / "benchmarks/mfu_calibration.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs/plan/backtest.md").read_text("utf-8")
    assert page.split("<!-- table: backtest -->\n")[1].split("<!-- end -->")[0] == script.runs_table(facts)
    known = set(facts) | set(facts["runs"][0]) | set(facts["time"])
    assert not [key for key in known if f"`{key}`" not in page]
