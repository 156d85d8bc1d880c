"""Recipes and budgets: what is accepted, and one line with the place, the key and the remedy for what is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from openhearth.budget_text import LONGEST, SHORTEST, budget_seconds, clock, say_seconds
from openhearth.errors import HearthError, RecipeError
from openhearth.recipe import MAX_BYTES, STAGES, Recipe, stage_class
from openhearth.stage import Setting, Stage
from openhearth.toml_lines import key_lines
from tests.fakes import RECIPE, TABLE

LAPTOP = Path(__file__).parents[1] / "recipes" / "laptop.toml"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    warmup: float = Field(default=0.1, ge=0, le=1)


class Bake(Stage):
    """A stage with a field of every kind."""

    kind: ClassVar[str] = "bake"
    flour: Literal["rye", "wheat"] = "rye"
    grams: float = Field(default=500.0, gt=0)
    loaves: int | None = Field(default=None, ge=1, le=100)
    steam: bool = False
    seeds: tuple[str, ...] = ()
    title: str = ""
    heat: Inner = Inner()


class Eat(Stage):
    kind: ClassVar[str] = "eat"
    needs: ClassVar[tuple[str, ...]] = ("bake",)


KITCHEN = {"bake": Bake, "eat": Eat}
HEAD = 'name = "bread"\n\n[bake]\n'


def parse(text: str, *sets: str, budget: str | None = None) -> Recipe:
    return Recipe.parse(text, "r.toml", sets, budget, KITCHEN)


def message(text: str, *sets: str, budget: str | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        parse(text, *sets, budget=budget)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is accepted -------------------------------------------------------------------------------------------------------


def test_stages_run_in_the_order_of_the_table_whatever_the_order_in_the_file() -> None:
    assert parse('name = "x"\n[eat]\n[bake]\n').kinds == ("bake", "eat")


def test_every_setting_has_a_default_and_keeps_what_the_file_says() -> None:
    recipe = parse(HEAD + 'loaves = 3\nseeds = ["a", "b"]\ngrams = 2\nheat = {warmup = 0.5}\n')
    assert recipe.stages["bake"] == Bake(loaves=3, seeds=("a", "b"), grams=2.0, heat=Inner(warmup=0.5))
    assert (recipe.name, recipe.seed, recipe.budget_seconds) == ("bread", 0, 300.0)


def test_a_set_takes_the_place_of_the_file_and_values_are_toml_or_plain_text() -> None:
    recipe = parse(HEAD + "loaves = 3\n", "bake.loaves=7", "bake.flour=wheat", 'bake.seeds=["x"]', "bake.heat.warmup=0.25", "budget=90 s")
    assert recipe.stages["bake"] == Bake(loaves=7, flour="wheat", seeds=("x",), heat=Inner(warmup=0.25))
    assert recipe.budget_seconds == 90


def test_a_number_set_for_a_text_is_that_text() -> None:
    recipe = parse(HEAD, "bake.title=2024", "name=7")
    assert recipe.stages["bake"] == Bake(title="2024")
    assert recipe.name == "7"


def test_the_toml_of_a_recipe_is_the_same_recipe() -> None:
    recipe = parse(HEAD + 'seeds = ["é", "\\n"]\nloaves = 2\n[eat]\n').resolved()
    assert Recipe.parse(recipe.toml(), table=KITCHEN) == recipe
    assert tomllib.loads(recipe.toml()) == recipe.content()


def test_equal_recipes_have_equal_digests_and_others_have_others() -> None:
    base = parse(HEAD)
    assert parse("[bake]\ngrams = 500\n[eat]\n".replace("[eat]\n", ""), "name=bread").digest == base.digest
    assert len({base.digest, *(parse(HEAD, one).digest for one in ("bake.grams=501", "seed=1", "budget=6 min", "name=b"))}) == 5


def test_resolving_fills_in_what_comes_from_the_whole_run() -> None:
    recipe = Recipe.parse(RECIPE, table=TABLE).resolved()
    assert recipe.stages["count"].model_dump()["seed"] == 3
    assert recipe.resolved() == recipe


def test_own_text_replaces_the_source_of_the_corpus() -> None:
    recipe = Recipe.load(LAPTOP).with_text(["notes", "b.md"])
    fields = recipe.stages["corpus"].model_dump()
    assert (fields["source"], fields["text"]) == ("text", ("notes", "b.md"))
    with pytest.raises(RecipeError, match=r"--text: r\.toml has no stage \[corpus\]"):
        parse(HEAD).with_text(["a"])


def test_the_laptop_recipe_names_every_stage_of_a_model_and_every_line_of_it_is_commented() -> None:
    recipe = Recipe.load(LAPTOP)
    elsewhere = {"measure", "continue", "forgetting"}  # of experiments, and of continued models
    elsewhere |= {"reward", "prefer", "rl", "outcome"}  # of models that learn from preferences and rewards
    elsewhere |= {"world", "base", "helpful", "sl_cai", "rl_cai", "controls", "verdict"}  # of the constitution's
    kinds = tuple(kind for kind in STAGES if kind not in elsewhere)
    assert recipe.kinds == kinds
    assert recipe.budget_seconds == 300
    lines = [line for line in LAPTOP.read_text().splitlines() if line.strip()]
    assert all("#" in line for line in lines)
    everything = re.sub(r"(?m)^# (?=[a-z_]+ = )", "", LAPTOP.read_text())  # also what is only shown must be a setting
    assert Recipe.parse(everything).kinds == kinds


def test_reading_a_recipe_and_its_stages_needs_no_torch() -> None:
    code = f"import sys; from openhearth.recipe import Recipe; import openhearth.runner; Recipe.load({str(LAPTOP)!r}).resolved(); "
    subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], check=True)


def test_every_setting_of_every_stage_is_documented() -> None:
    for kind in STAGES:
        for name, field in stage_class(kind).model_fields.items():
            assert field.description, f"[{kind}] {name} has no line of documentation"


# -- what is refused --------------------------------------------------------------------------------------------------------

REFUSED = {
    HEAD + "gram = 1": "r.toml:4: [bake] gram: unknown key (did you mean 'grams'?); the keys are flour, grams, loaves, steam, seeds",
    HEAD + "grams = '5'": "r.toml:4: [bake] grams: must be a number, not '5'",
    HEAD + "grams = -1": "r.toml:4: [bake] grams: must be greater than 0, not -1",
    HEAD + "grams = inf": "r.toml:4: [bake] grams: inf is not a finite number",
    HEAD + "grams = nan": "r.toml:4: [bake] grams: nan is not a finite number",
    HEAD + "loaves = 2.5": "r.toml:4: [bake] loaves: must be a whole number, not 2.5",
    HEAD + "loaves = true": "r.toml:4: [bake] loaves: must be a whole number, not true",
    HEAD + "loaves = 1000": "r.toml:4: [bake] loaves: must be at most 100, not 1000",
    HEAD + "loaves = 99999999999999999999": "r.toml:4: [bake] loaves: the number is too large",
    HEAD + "loaves = 1979-05-27": "r.toml:4: [bake] loaves: 1979-05-27 is a date or a time; no key takes one",
    HEAD + "steam = 1": "r.toml:4: [bake] steam: must be true or false, not 1",
    HEAD + "title = 5": "r.toml:4: [bake] title: must be text in quotes, not 5",
    HEAD + "seeds = 'a'": """r.toml:4: [bake] seeds: must be a list, such as ["a", "b"], not 'a'""",
    HEAD + "flour = 'ry'": "r.toml:4: [bake] flour: must be 'rye' or 'wheat', not 'ry' (did you mean 'rye'?)",
    HEAD + "\n\n[bake.heat]\nwarmp = 1": "r.toml:7: [bake] heat.warmp: unknown key (did you mean 'warmup'?); the keys are warmup",
    HEAD + "title = '''\ngram = 1\n'''\ngram = 2": "r.toml:7: [bake] gram: unknown key (did you mean 'grams'?)",
    'name = "x"\n[bak]\n': "r.toml:2: [bak]: unknown stage (did you mean 'bake'?); the stages are bake, eat",
    'name = "x"\nseeed = 1\n[bake]\n': "r.toml:2: seeed: unknown key (did you mean 'seed'?)",
    'name = "x"\nbake = 3\n': "r.toml:2: bake: is a stage: write [bake] on a line of its own and its keys below",
    'name = "x"\n[eat]\n': "r.toml:2: [eat] needs the stage [bake]; add a line [bake]",
    'name = "x"\n': "r.toml: names no stage; write at least one table, such as [bake]",
    "[bake]\n": "r.toml: name: is missing",
    'name = "a/b"\n[bake]\n': "r.toml:1: name: 'a/b' has characters that are not allowed here",
    'name = "x"\nseed = -1\n[bake]': "r.toml:2: seed: must be at least 0, not -1",
    'name = "x"\nbudget = 5\n[bake]': "r.toml:2: budget: must be text in quotes, not 5",
    'name = "x"\nbudget = "5 mn"\n[bake]': "r.toml:2: budget: '5 mn': unknown unit 'mn' (did you mean 'min'?)",
    "name = \n[bake]": "r.toml:1: not TOML: Invalid value (column 8)",
    "so it goes": "r.toml:1: not TOML: Expected '=' after a key in a key/value pair (column 4)",
    HEAD + "a = 1\na = 2": "r.toml:5: not TOML: a key stands twice (at the end of the file)",
    HEAD + "a = '": 'r.toml:4: not TOML: Expected "\'" (at the end of the file)',
    "x = " + "[" * 100_000: "r.toml: values are nested too deeply",
    "x = " + "{a = " * 100_000: "r.toml: values are nested too deeply",
    ".".join("a" * 400_000) + " = 1": "r.toml: values are nested too deeply",
    "[" + ".".join("a" * 400_000) + "]": "r.toml: values are nested too deeply",
    '"a"."b".' * 100_000 + "a = 1": "r.toml: values are nested too deeply",
    "x = " + "9" * 5_000: "r.toml: a number has too many digits",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[-24:].replace("\n", "|"))
def test_a_mistake_is_one_line_with_place_key_and_remedy(text: str) -> None:
    began = time.process_time()
    assert message(text).startswith(REFUSED[text])
    assert time.process_time() - began < 1


SETS = {
    "bake.gram=1": "--set bake.gram=1: [bake] gram: unknown key (did you mean 'grams'?)",
    "bake.loaves=two": "--set bake.loaves=two: [bake] loaves: must be a whole number, not 'two'",
    "bake.loaves=-1": "--set bake.loaves=-1: [bake] loaves: must be at least 1, not -1",
    "bakee.grams=1": "--set bakee.grams=1: r.toml has no stage [bakee] (did you mean 'bake'?)",
    "eat.x=1": "--set eat.x=1: r.toml has no stage [eat]",
    "sed=1": "--set sed=1: sed: unknown key (did you mean 'seed'?)",
    "bake=1": "--set bake=1: bake is a stage; name one of its keys: --set bake.KEY=VALUE",
    "bake.grams.x=1": "--set bake.grams.x=1: [bake] grams: must be a number",
    "name.x=1": "--set name.x=1: 'name' holds a value, not keys",
    "grams": "--set grams: write --set KEY=VALUE, such as --set sft.epochs=2",
    "=1": "--set =1: write --set KEY=VALUE, such as --set sft.epochs=2",
    ".=1": "--set .=1: write --set KEY=VALUE, such as --set sft.epochs=2",
    "\udcff=1": "--set \\udcff=1: write --set KEY=VALUE, such as --set sft.epochs=2",
    "budget=3 parsecs": "--set budget=3 parsecs: budget: '3 parsecs': unknown unit 'parsecs'",
    ".".join("a" * 1_000) + "=1": "--set a.a.a",
}


@pytest.mark.parametrize("option", SETS, ids=lambda option: ascii(option[:20]))
def test_a_mistaken_set_is_named_as_it_was_typed(option: str) -> None:
    assert message(HEAD, option).startswith(SETS[option])


def test_a_mistaken_budget_option_is_named_as_it_was_typed() -> None:
    assert message(HEAD, budget="3 parsecs").startswith("--budget '3 parsecs': budget: '3 parsecs': unknown unit 'parsecs'")


def test_an_unknown_stage_for_until_offers_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"--until bke: not a stage of r\.toml \(did you mean 'bake'\?\); its stages are bake"):
        parse(HEAD).up_to("bke")


# -- files ------------------------------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    began = time.monotonic()
    with pytest.raises(HearthError) as caught:
        Recipe.load(path)
    assert time.monotonic() - began < 1.5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_no_recipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    assert refused(tmp_path / "pipe.toml") == f"{tmp_path}/pipe.toml: is not a regular file; give the recipe as a file"
    assert "is a folder, not a recipe" in refused(tmp_path)
    assert "is not a regular file" in refused(Path("/dev/zero"))
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    assert "cannot be opened as a recipe" in refused(tmp_path / "loop.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "x"\n# caf\xe9\n')
    assert refused(tmp_path / "latin.toml").startswith(f"{tmp_path}/latin.toml:2: not UTF-8 text")
    (tmp_path / "nul.toml").write_bytes(b"\0" * 100)
    assert "nul.toml:1: not TOML" in refused(tmp_path / "nul.toml")


def test_a_recipe_of_a_hundred_megabytes_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "big.toml").open("wb") as file:
        file.truncate(100_000_000)
    assert refused(tmp_path / "big.toml") == f"{tmp_path}/big.toml: is larger than {MAX_BYTES:,} bytes, which no recipe is"


def test_no_more_of_a_file_is_read_than_is_allowed(tmp_path: Path) -> None:
    with (tmp_path / "huge.toml").open("wb") as file:
        file.truncate(50_000_000_000)  # more than the memory, in no space on the disk
    assert "is larger than" in refused(tmp_path / "huge.toml")


def test_a_missing_recipe_offers_the_nearest_beside_it(tmp_path: Path) -> None:
    (tmp_path / "laptop.toml").touch()
    (tmp_path / "workstation.toml").touch()
    assert refused(tmp_path / "lptop.toml") == f"{tmp_path}/lptop.toml: no such file (did you mean '{tmp_path}/laptop.toml'?)"
    assert refused(tmp_path / "laptop") == f"{tmp_path}/laptop: no such file (did you mean '{tmp_path}/laptop.toml'?)"
    assert refused(tmp_path / "gone" / "x.toml").startswith(f"{tmp_path}/gone/x.toml: no such file")


def test_a_recipe_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + HEAD.encode())
    assert Recipe.load(tmp_path / "bom.toml", table=KITCHEN).name == "bread"


# -- lines ------------------------------------------------------------------------------------------------------------------


def test_the_line_of_every_key_is_known() -> None:
    text = 'a = 1\n# b = 2\n["x y"]\nk = """\nl = 1\n"""\nm.n = 1\n[x.z] # c\n[[q]]\nr = [\n  1,\n]\n'
    assert key_lines(text) == {
        ("a",): 1,
        ("x y",): 3,
        ("x y", "k"): 4,
        ("x y", "m"): 7,
        ("x y", "m", "n"): 7,
        ("x",): 8,
        ("x", "z"): 8,
        ("q",): 9,
        ("q", "r"): 10,
    }


# -- budgets ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3 min", 180),
        ("90 s", 90),
        ("90s", 90),
        ("1h", 3_600),
        ("1 h 30 min", 5_400),
        ("1h30m", 5_400),
        ("1.5 hours", 5_400),
        ("0.5 hours", 1_800),
        ("  2 Hours and 5 Minutes ", 7_500),
        ("1 day, 2 h", 93_600),
        ("1e3 s", 1_000),
        ("5 mins.", 300),
        ("20 s", SHORTEST),
        ("30 days", LONGEST),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("3 parsecs", "unknown unit 'parsecs'"),
        ("-3 min", "cannot be negative"),
        ("0 s", "the smallest budget is 20 s"),
        ("19 s", "the smallest budget is 20 s"),
        ("31 days", "the largest budget is 30 days"),
        ("1e300 days", "the largest budget is 30 days"),
        ("1e999 days", "must be a finite number"),
        ("nan min", "must be a finite number"),
        ("inf h", "must be a finite number"),
        ("5", "5 of which unit? write 5 s, min, h or days"),
        ("5 min and", "not a time"),
        ("5 min,", "not a time"),
        ("\u0661\u0662 min", "not a time"),  # the digits of another script
        ("", "a budget is missing"),
        ("soon", "not a time"),
        ("5 min x", "not a time"),
        ("5 min 5 min", "the unit 'min' stands twice"),
        ("$100 on 8xh100", "not a time"),
        ("100 EUR", "not a time"),
        ("1e19 flop", "not a time"),
        ("200 gpu hours", "not a time"),
        ("1 " + "x" * 1_000_000, "not a time"),
    ],
)
def test_what_is_no_time_is_refused_with_the_remedy(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        budget_seconds(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=40))
def test_no_text_makes_the_reader_of_budgets_fail_otherwise(text: str) -> None:
    try:
        assert SHORTEST <= budget_seconds(text) <= LONGEST
    except RecipeError as error:
        assert str(error)


@given(st.integers(20, 30 * 86_400))
def test_a_budget_that_is_written_is_read_as_the_same_time(seconds: int) -> None:
    assert abs(budget_seconds(say_seconds(seconds)) - seconds) < (1 if seconds < 3_600 else 60 if seconds < 86_400 else 3_600)


def test_seconds_are_said_as_people_say_them() -> None:
    said = [say_seconds(value) for value in (0.04, 8.25, 42.4, 60, 119, 120, 292, 3_600, 5_400, 86_400, 183_600)]
    assert said == ["0.0 s", "8.2 s", "42 s", "1 min", "119 s", "2 min", "4 min 52 s", "1 h", "1 h 30 min", "1 day", "2 days 3 h"]
    assert [clock(value) for value in (-1, 65, 3_725)] == ["0:00", "1:05", "1:02:05"]


def test_settings_reach_the_stage_with_the_run_they_belong_to() -> None:
    seen: list[Setting] = []

    class Look(Stage):
        kind: ClassVar[str] = "look"

        def resolve(self, setting: Setting) -> Stage:
            seen.append(setting)
            return self

    Recipe.parse('name = "n"\nseed = 5\nbudget = "2 min"\n[look]\n', table={"look": Look}).resolved({"format": "x"})
    assert seen == [Setting("n", 5, 120.0, followed_plan={"format": "x"})]
