"""`hearth plan optimal` and `hearth plan laws` as a person types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openhearth import cli
from openhearth.plan import catalogue, optimal, returns, speed
from openhearth.plan.scaling_laws import LAWS, law

ROOT = Path(__file__).parents[2]


def shown(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli._status(["plan", *arguments]) == 0
    return capfd.readouterr().out


def facts(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(shown(capfd, "optimal", *arguments, "--json"))


# -- facts ------------------------------------------------------------------------------------------------------------------


def test_the_answer_and_every_law_beside_it(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--flops", "5.76e23")
    mine = optimal(flops=5.76e23)
    assert found["law"] == "refit" and found["parameters"] == mine.parameters and found["loss"] == mine.loss
    assert found["interval"]["tokens"] == pytest.approx(list(mine.interval["tokens"]))
    assert [row["law"] for row in found["laws"]] == list(LAWS)
    assert found["warning"] == "extrapolates 1.6 decades beyond the law's data"
    assert found["disagreement"]["all"]["laws"] == ["hoffmann-3-printed", "kaplan"]
    assert found["disagreement"]["all"]["factor"] == pytest.approx(804 / 32.2, rel=5e-3)
    assert found["disagreement"]["core"]["factor"] < 2.5
    assert found["bigger"]["nats"] == returns.bigger(mine.parameters, mine.tokens)["nats"]
    assert found["more_budget"]["nats"] == pytest.approx(returns.more_budget(5.76e23)["nats"])
    assert found["rates"]["rules"][0]["rule"] == "steplaw"
    assert facts(capfd, "--flops", "5.76e23", "--law", "all") == found


def test_one_law_alone(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--flops", "1e23", "--law", "deepseek")
    assert [row["law"] for row in found["laws"]] == ["deepseek"] and found["disagreement"] is None
    assert found["loss"] is None and found["bigger"] is None and found["interval"] is None


def test_repeated_data_serving_and_quality(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--flops", "1e22", "--unique-tokens", "25B")
    assert found["law"] == "muennighoff" and found["parameters"] == pytest.approx(7.026159e9, rel=1e-6)
    assert found["binding"] == "data" and found["epochs"] == pytest.approx(9.488, abs=5e-4)
    found = facts(capfd, "--quality-of", "13B", "--serve-tokens", "2T", "--law", "hoffmann-3")
    assert found["parameters"] == pytest.approx(7.12e9, rel=1e-3) and found["binding"] == "serving"
    assert found["saving"]["share"] == pytest.approx(0.163, abs=5e-4) and found["saving"]["parameters"] == pytest.approx(13e9)
    found = facts(capfd, "--flops", "1e23", "--serve-tokens", "1T", "--sequence-length", "8192")
    assert found["total_flops"] == pytest.approx(1e23) and set(found["not_answered"]) == {
        n for n, each in LAWS.items() if not each.additive
    }


def test_as_good_as_a_run_of_so_many_tokens_and_other_factors(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--tokens", "1.3T", "--more", "100", "--bigger", "10")
    assert found["tokens"] == pytest.approx(1.3e12) and found["training_flops"] == pytest.approx(5.66e23, rel=1e-3)
    assert "tokens" not in found["interval"] and found["interval"]["parameters"][0] < found["parameters"]
    for row in found["laws"]:
        if row["law"] != "deepseek":  # whose M x D is C to a ten-thousandth
            assert row["tokens"] == pytest.approx(1.3e12, rel=1e-9)
    assert found["more_budget"]["factor"] == 100 and found["bigger"]["factor"] == 10
    assert found["exponent"] == pytest.approx(0.514, abs=5e-4) and found["exponent_interval"] == pytest.approx([0.480, 0.556], abs=1e-3)


def test_money_named_by_hardware_price_and_utilisation(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--budget", "$1M", "--on", "h100", "--mfu", "0.40", "--price", "2.95/h", "--law", "refit")
    assert found["parameters"] == pytest.approx(66.8e9, rel=5e-3) and found["loss"] == pytest.approx(1.979, abs=6e-4)
    assert found["binding"] == "money" and found["usd"] == pytest.approx(1e6)
    assert found["question"]["peak_flops"] == pytest.approx(989.4e12) and found["question"]["mfu_source"] == "as given"
    for other in (("--usd", "1e6"), ("--usd", "$1M"), ("--budget", "1M usd")):
        again = facts(capfd, *other, "--on", "h100", "--mfu", "0.40", "--price", "2.95/h", "--law", "refit")
        assert again["parameters"] == found["parameters"]
    in_text = facts(capfd, "--budget", "$1M on h100 at 2.95/h", "--mfu", "0.40", "--law", "refit")
    assert in_text["parameters"] == found["parameters"]
    assert facts(capfd, "--budget", "1e23 flop", "--law", "refit")["parameters"] == optimal(flops=1e23).parameters


def test_without_a_utilisation_money_takes_the_typical_one_and_shows_the_best(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--budget", "$1M", "--on", "h100", "--law", "refit")
    device = catalogue.device("h100")
    typical, best = speed.typical_utilisation(device), speed.best_utilisation(device)
    assert found["question"]["mfu"] == typical and found["question"]["usd_per_hour"] == device.price.typical
    assert found["training_flops"] == pytest.approx(1e6 / device.price.typical * 3600 * device.training_peak()[1] * typical)
    assert found["best_case"]["training_flops"] == pytest.approx(found["training_flops"] * best / typical)
    assert found["best_case"]["parameters"] == pytest.approx(optimal(flops=found["best_case"]["training_flops"]).parameters)


def test_json_is_json_also_where_nothing_ties(capfd: pytest.CaptureFixture[str]) -> None:
    found = facts(capfd, "--flops", "1e29", "--law", "refit")
    assert found["bigger"]["tokens_to_tie"] is None or found["bigger"]["tokens_to_tie"] > 0
    out = shown(capfd, "optimal", "--flops", "1e29", "--json")
    assert "Infinity" not in out and "NaN" not in out


# -- what a person reads ----------------------------------------------------------------------------------------------------


def test_the_page_says_answer_interval_binding_warning_and_disagreement(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out = shown(capfd, "optimal", "--flops", "5.76e23")
    assert "73.2B [51.7B, 112B] parameters on 1.31T [854B, 1.86T] tokens" in out and "loss 1.974 [1.951, 2.002] nats a token" in out
    assert "Binding: compute." in out and "this extrapolates 1.6 decades beyond the law's data" in out
    assert re.search(r"The laws disagree 25\.\d-fold: 32\.2B \(hoffmann-3-printed\) to 804B \(kaplan\)", out)
    for name in LAWS:
        assert re.search(rf"^{re.escape(name)} ", out, re.MULTILINE)
    assert "4 times the size on the same tokens" in out and "learning rate by three" in out


def test_the_table_fits_a_terminal_of_eighty_columns(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [line for line in shown(capfd, "optimal", "--flops", "5.76e23").splitlines() if line.split(" ")[0] in LAWS]
    assert len(rows) == len(LAWS) and max(map(len, rows)) <= 80 and not any("…" in row for row in rows)


def test_laws_are_listed_with_sources(capfd: pytest.CaptureFixture[str]) -> None:
    out = shown(capfd, "laws")
    for name, each in LAWS.items():
        assert re.search(rf"^{re.escape(name)}  ", out, re.MULTILINE) and each.source in out
    rows = json.loads(shown(capfd, "laws", "--json"))
    refit = next(row for row in rows if row["law"] == "refit")
    assert refit["coefficients"] == dict(law("refit").coefficients) and refit["resamples"] == 4000
    assert next(row for row in rows if row["law"] == "hoffmann-2")["exponent_interval_80"] == [0.462, 0.534]


def test_a_picture_is_drawn(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "plane.svg"
    shown(capfd, "optimal", "--flops", "1e22", "--unique-tokens", "25B", "--plot", str(file))
    assert "25B unique tokens" in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        (["optimal", "--flops", "1e22", "--unique-tokens", "25B"], 3),
        (["claims"], 3),
        (["recipe", str(ROOT / "recipes/llama-65b.toml"), "--on", "2048xa100-80"], 3),
        (["backtest"], 4),
    ],
)
def test_it_answers_in_little_more_than_its_libraries_take_to_load_and_without_torch(
    tmp_path: Path, arguments: list[str], times: float
) -> None:
    """About half a second on an idle machine. A busy one slows both sides, so the bound is a ratio of processor time, each side's best of
    three taken in turn."""
    floor = "import numpy, pydantic, rich.console, rich.table, typer\n"
    ours = (
        f"from openhearth import cli\nassert cli._status({['plan', *arguments]!r}) == 0\n"
        "assert not {'torch', 'scipy', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
    )
    tell = "used = resource.getrusage(resource.RUSAGE_SELF)\nprint(used.ru_utime + used.ru_stime, file=sys.stderr)\n"
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # as users have it
    seconds: dict[str, list[float]] = {floor: [], ours: []}
    for _ in range(3):
        for code, taken in seconds.items():
            command = [sys.executable, "-c", "import sys, resource\n" + code + tell]
            ran = subprocess.run(command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=60, check=True)
            taken.append(float(ran.stderr.splitlines()[-1]))
    assert min(seconds[ours]) < times * min(seconds[floor])


# -- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--flops", "1e14"], "--flops 1e14: out of bounds; it must lie between 1e+15 and 1e+30 flops"),
        (["--flops", "1e31"], "--flops 1e31: out of bounds"),
        (["--flops", "0"], "--flops 0: must be above zero"),
        (["--flops", "-1e20"], "--flops -1e20: must be above zero"),
        (["--flops", "nan"], "--flops nan: must be a finite number"),
        (["--flops", "many"], "--flops many: not a number"),
        (["--flops", "1e22", "--law", "bessiroglu"], "no law 'bessiroglu' (did you mean 'besiroglu'?)"),
        (["--flops", "1e22", "--unique-tokens", "0"], "--unique-tokens 0: must be above zero"),
        (["--flops", "1e22", "--serve-tokens", "nan"], "--serve-tokens nan"),
        (["--flops", "1e22", "--law", "kaplan", "--serve-tokens", "1B"], "the law kaplan says nothing of serving; take refit"),
        (["--budget", "1M", "--on", "h100"], "--budget 1M: of what? write '$1M'"),
        (["--budget", "$1M"], "a budget in money needs hardware to be spent on; add --on h100"),
        (["--budget", "$1M", "--on", "h1000"], "device 'h1000' is not in the catalogue"),
        (["--budget", "$1M on h100", "--on", "a100"], "names hardware, and so does --on"),
        (["--budget", "5 min"], "time on this machine is planned with a recipe"),
        (["--budget", "$1M", "--usd", "5", "--on", "h100"], "--budget and --usd: give one of them"),
        (["--budget", "1e23 flop", "--flops", "1e23"], "--budget and --flops: give one of them"),
        (["--budget", "$1M", "--on", "h100", "--mfu", "40"], "--mfu 40"),
        (["--budget", "$1M", "--on", "h100", "--mfu", "0.4", "--price", "3"], "--price 3: not a price"),
        (["--loss", "1.8"], "no size reaches this loss by the law refit"),
        (["--quality-of", "13B", "--loss", "2"], "ask for one of"),
        (["--flops", "1e22", "--serve-mfu", "0.1"], "--serve-mfu: only where money is spent"),
        (["--flops", "1e22", "--plot", "plane.gif"], "--plot plane.gif"),
        (["--flops", "1e22", "--law", "deepseek", "--plot", "plane.png"], "--plot: the law deepseek has no loss to draw"),
        (["--flops", "1e22", "--more", "1"], "--more 1: how many times as much; above 1"),
        (["--flops", "1e22", "--bigger", "nan"], "--bigger nan: how many times as much"),
        ([], "nothing is asked; give --flops 5.76e23"),
    ],
)
def test_mistakes_are_one_line_and_status_two(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._status(["plan", "optimal", *arguments]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.startswith("hearth: ") and printed.err.count("\n") == 1
    assert said in printed.err
    assert not list(tmp_path.iterdir())
