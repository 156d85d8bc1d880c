"""The dial: what a budget comes to, each step said; and what is no budget, refused with the remedy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhearth import cli
from openhearth.errors import RecipeError
from openhearth.plan import catalogue, speed
from openhearth.plan.budgets import read_budget
from openhearth.recipe import Recipe


@pytest.mark.parametrize(
    ("text", "flops"),
    [
        ("1e19 flop", 1e19),
        ("1e15flops", 1e15),
        ("3 exaflop", 3e18),
        ("10 PFLOP", 1e16),
        ("2 pf-days", 2 * 8.64e19),
        ("1 PFLOP/s-days".replace("PFLOP/s", "petaflop/s"), 8.64e19),
    ],
)
def test_flops_are_read_in_every_unit(text: str, flops: float) -> None:
    budget = read_budget(text)
    assert budget.flops == pytest.approx(flops) and budget.seconds is None


def test_time_stays_time() -> None:
    budget = read_budget("1 h 30 min")
    assert (budget.seconds, budget.flops, budget.nominal_seconds) == (5400, None, 5400)


@pytest.mark.parametrize(
    ("text", "hours"), [("1000 chip-hours on a100-80", 1000), ("1,000 GPU hours on a100-80", 1000), ("125 h on 8xa100-80", 1000)]
)
def test_chip_hours_become_flops_through_the_dense_peak_and_what_whole_runs_reach(text: str, hours: float) -> None:
    budget, device = read_budget(text), catalogue.device("a100-80")
    assert budget.chip_hours == pytest.approx(hours)
    assert budget.flops == pytest.approx(hours * 3600 * 312e12 * speed.typical_utilisation(device))
    assert "312 TFLOP/s" in budget.why[-1]


def test_money_is_chip_hours_at_a_price_given_or_of_the_catalogue() -> None:
    given = read_budget("$100 on 8xh100 at 2.50/h")
    assert given.chip_hours == pytest.approx(40) and given.usd == 100 and given.chips == 8
    known = catalogue.device("h100").price
    assert known is not None
    assert read_budget("100 usd on h100").chip_hours == pytest.approx(100 / known.typical)
    assert known.date in read_budget("$1.5k on h100").why[0]
    assert read_budget("$1.5k on h100").flops == pytest.approx(15 * (read_budget("$100 on h100").flops or 0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$100", "money needs hardware"),
        ("200 gpu hours", "needs hardware"),
        ("100 EUR on h100", "prices are in USD"),
        ("$100 on 8xh10", "did you mean 'h100'?"),
        ("$100 on 8xh100 at 2", "not a price"),
        ("$1,5 on h100", "decimals with a point"),
        ("1,5e19 flop", "decimals with a point"),
        ("0 flop", "above zero"),
        ("-1e18 flop", "above zero"),
        ("nan flop", "above zero"),
        ("1e40 flop", "lies between"),
        ("1e19 flop on h100", "leave out 'on h100'"),
        ("1 megaflops-day", "unknown unit"),
        ("$ on h100", "not a time"),
        ("8xh100 for 2 h", "not a time"),
        ("5 parsecs", "unknown unit"),
        ("5", "of which unit"),
        ("1 " + "x" * 1_000_000, "not a budget"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_budget(text)
    assert said in str(caught.value) and len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@given(st.text(alphabet="0123456789.e+-$xflophcig urs on at/h100", max_size=30))
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    try:
        budget = read_budget(text)
        assert (budget.seconds is None) != (budget.flops is None)
    except RecipeError as error:
        assert str(error)


def test_a_recipe_takes_flops_and_refuses_at_once_what_would_take_years_here() -> None:
    recipe = Recipe.parse('name = "n"\nbudget = "1e13 flop"\n[corpus]\n[tokenizer]\n[plan]\n').resolved()
    assert recipe.stages["plan"].model_dump()["budget_flops"] == 1e13
    assert Recipe.parse(recipe.toml()).digest == recipe.digest
    with pytest.raises(RecipeError, match=r"years of training on a machine like this one; see what it buys with: hearth plan optimal"):
        Recipe.parse('name = "n"\nbudget = "$100 on 8xh100"\n[corpus]\n')


def test_the_plan_of_money_says_every_step_and_takes_the_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "recipe", "recipes/laptop.toml", "--budget", "$100 on 8xh100 at 2.50/h"]
    assert cli._status([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["chip_hours"] == pytest.approx(40) and facts["on"]["devices"] == 8
    assert facts["optimum"]["parameters"] * facts["optimum"]["tokens"] * 6 == pytest.approx(facts["flops"], rel=1e-6)
    assert cli._status(command) == 0
    said = capsys.readouterr().out
    assert all(sentence in said for sentence in facts["why"]) and "memory of a device" in said


def test_a_budget_below_all_laws_asks_none_and_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["plan", "recipe", "recipes/llama-7b.toml", "--budget", "1e12 flop"]) == 0
    said = capsys.readouterr().out
    assert "none is asked" in said and "hearth run recipes/llama-7b.toml --budget '1e12 flop'" in said
