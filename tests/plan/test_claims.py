"""`claims`: every statement of the list, its figure checked against figures computed by other means, and made again by its own command."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from openhearth import cli, cli_plan
from openhearth.plan import claims
from openhearth.plan.scaling_laws import LAWS
from openhearth.plan.statements import CLAIMS, Claim

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> dict[str, Claim]:
    return {claim.name: claim for claim in claims()}


def test_every_statement_of_the_list_is_there(found: dict[str, Claim]) -> None:
    assert list(found) == list(CLAIMS)
    for words in (
        "table stakes", "Chinchilla 70B", "2,048 A100s", "million dollars", "billion tomorrow", "10 to 100 times larger", "balance",
        "running out of data", "Returns diminish", "asymptote", "95 %", "Alignment",
    ):  # fmt: skip
        assert sum(words in claim.statement for claim in found.values()) >= 1, words


@pytest.mark.parametrize(
    ("name", "value", "interval", "verdict"),
    [  # computed once for this project from the points and the papers, by another program
        ("table-stakes", 29.8e9, (22e9, 43e9), "partly true"),
        ("chinchilla", 1.994 / 1.973, None, "true"),
        ("million-billion", 0.115, None, "true"),
        ("larger", 0.088, None, "partly true"),
        ("balance", 0.514, (0.48, 0.56), "true"),
        ("data", 4.1e28, None, "partly true"),
        ("diminishing", 45e9, None, "partly true"),
        ("asymptote", 0.131, None, "false"),
        ("thirty-billion", 0.9794, (0.976, 0.982), "partly true"),
        ("alignment", 0.018, None, "partly true"),
        ("gpus", 1.884, None, "false"),
    ],
)
def test_figures(found: dict[str, Claim], name: str, value: float, interval: tuple[float, float] | None, verdict: str) -> None:
    claim = found[name]
    assert claim.value == pytest.approx(value, rel=1.1e-2) and claim.verdict == verdict
    if interval is not None:
        assert claim.interval == pytest.approx(interval, rel=1.3e-2)
    assert claim.interval is None or claim.interval[0] <= claim.value <= claim.interval[1]


def test_llama_took_the_days_and_the_money_that_are_told(found: dict[str, Claim]) -> None:
    days, usd = found["llama-days"], found["llama-million"]
    assert days.by_law["by its GPU-hours"] == pytest.approx(20.8, abs=0.01) and days.by_law["by its tokens a second"] == pytest.approx(
        20.8, abs=0.05
    )
    assert days.verdict == "true" and days.by_law["best case"] < 20.8 < days.by_law["typical case"] * 1.1
    assert usd.by_law["A100 40 GB, cheapest list price"] == pytest.approx(1.12e6, rel=5e-3)
    assert usd.by_law["A100 80 GB, dearest list price"] == pytest.approx(5.23e6, rel=5e-3) and usd.verdict == "partly true"
    assert "0.978 USD" in usd.sentence


def test_sentences_hold_the_figures(found: dict[str, Claim]) -> None:
    said = {name: claim.sentence for name, claim in found.items()}
    for name, words in {
        "table-stakes": ("1.2e22", "1.67T", "167 a parameter"),
        "million-billion": ("7.9 years (6.5 to 10.0)", "11% of perplexity", "71% of the loss"),
        "larger": ("12.4T", "0.126", "117T"),
        "data": ("8.66e25", "93% to 97%"),
        "diminishing": ("34.2B", "131B", "0.103 nats at 10B", "0.044 at 100B"),
        "asymptote": ("3.1 times the 0.042", "0.074 are left at 1.4T"),
        "thirty-billion": ("4.1%", "81% is left", "1.6T tokens, 0.89", "13.4T, 2.4 times"),
        "alignment": ("0.19% to 1.8%",),
        "gpus": ("845B on 13.3T", "0.089 nats", "8.5%"),
    }.items():
        for word in words:
            assert word in said[name], (name, word)


def test_laws_disagree_in_sight(found: dict[str, Claim]) -> None:
    assert set(found["table-stakes"].by_law) == set(LAWS)
    assert found["thirty-billion"].by_law["kaplan"] == pytest.approx(0.919, abs=6e-4)
    assert found["balance"].by_law["kaplan"] == 0.73
    for claim in found.values():
        assert claim.by_law and claim.sentence.endswith(".") and "\n" not in claim.sentence


@pytest.mark.parametrize("name", CLAIMS)
def test_the_command_beside_it_prints_the_figure(
    found: dict[str, Claim], name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(found[name].command)
    assert words[:2] == ["hearth", "plan"]
    assert cli._status(cli_plan.route([*words[1:], "--json"])) == 0
    facts: Any = json.loads(capfd.readouterr().out)
    for key in found[name].key.split("."):
        facts = facts[int(key)] if isinstance(facts, list) else facts[key]
    assert facts == pytest.approx(found[name].value, rel=1e-6)
    assert cli._status(cli_plan.route(words[1:])) == 0 and capfd.readouterr().out  # as it is printed


def test_the_page_and_one_claim_alone(found: dict[str, Claim], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli._status(["plan", "claims"]) == 0
    out = capfd.readouterr().out
    for claim in found.values():
        assert claim.statement in " ".join(out.split()) and f"$ {claim.command}" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 100
    assert cli._status(["plan", "claims", "alignment"]) == 0
    assert "source: Ouyang et al. 2022" in capfd.readouterr().out


def test_an_unknown_claim_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["plan", "claims", "aligment"]) == 2
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "no claim 'aligment' (did you mean 'alignment'?); the claims are " in said.err


def test_its_page_is_what_the_command_prints() -> None:
    page = (ROOT / "docs/plan/claims.md").read_text()
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "scripts/transcripts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert "$ hearth plan claims\n" in page
    assert module.filled(page) == page, "run: python scripts/transcripts.py docs/plan/claims.md"
