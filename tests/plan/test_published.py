"""The models of the record: exact to their published parameter counts, and facts that can be read by others."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from openhearth.errors import HearthError
from openhearth.plan.published import Published
from openhearth.plan.quantities import count, count_and_device
from openhearth.plan.shapes import Shape
from openhearth.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
EXACT = {
    "gpt2-124m": 124_439_808,
    "gpt2-355m": 354_823_168,
    "gpt2-774m": 774_030_080,
    "gpt2-1.5b": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,
    "gopher-280b": 279_714_217_984,
    "chinchilla-70b": 70_063_890_432,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "pythia-1b": 1_011_781_632,
    "pythia-12b": 11_846_072_320,
    "olmo2-7b": 7_298_617_344,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "mixtral-8x7b": 46_702_792_704,
}


def load(name: str) -> Published:
    return Published.model_validate(tomllib.loads((RECIPES / f"{name}.toml").read_text())["published"])


def test_every_model_of_the_record_has_a_recipe() -> None:
    assert sorted(EXACT) == sorted(path.stem for path in RECIPES.glob("*.toml") if "published" in tomllib.loads(path.read_text()))


@pytest.mark.parametrize("name", EXACT)
def test_a_recipe_is_exact_to_the_published_parameter_count(name: str) -> None:
    published = load(name)
    shape = published.shape()
    assert published.parameters == shape.parameters == EXACT[name]
    assert published.active_parameters in (None, shape.active_parameters)
    assert not shape.notes
    assert Shape.load(RECIPES / f"{name}.toml") == shape


@pytest.mark.parametrize("name", EXACT)
def test_the_stated_size_is_the_counted_one_to_the_digits_printed(name: str) -> None:
    published = load(name)
    said, shape = published.stated or "", published.shape()
    if "without embeddings" in said:
        assert int(said.split()[0].replace(",", "")) == shape.non_embedding_parameters
        return
    digits = re.fullmatch(r"\d+(?:\.(\d+))?([MB])", said)
    assert digits is not None
    unit = {"M": 1e6, "B": 1e9}[digits[2]] / 10 ** len(digits[1] or "")
    assert abs(count(said, "stated") - shape.parameters) < unit  # some round, some cut off


@pytest.mark.parametrize("name", EXACT)
def test_facts_fit_together(name: str) -> None:
    published = load(name)
    assert published.source.count(",") >= 2
    if published.hardware:
        assert count_and_device(published.hardware)[0] >= 1
    if published.flops and published.tokens:
        assert published.flops == pytest.approx(6 * published.shape().active_parameters * published.tokens, rel=0.26)
    if published.batch_tokens:
        assert published.tokens is None or published.batch_tokens < published.tokens / 1000
        assert published.sequence_length and published.batch_tokens > published.sequence_length


@pytest.mark.parametrize("name", EXACT)
def test_every_fact_has_its_place_beside_it(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text()
    facts = text[text.index("\n[published]\n") : text.index("\n[published.model]\n")].strip().splitlines()[2:]
    assert facts and all(re.search(r"  # \S", line) for line in facts)


@pytest.mark.parametrize("name", EXACT)
def test_the_stages_are_those_of_a_whole_run(name: str) -> None:
    text = (RECIPES / f"{name}.toml").read_text()
    recipe = Recipe.parse(text[: text.index("\n[published]\n")], f"{name}.toml")
    assert recipe.name == name
    assert recipe.kinds == ("corpus", "tokenizer", "plan", "pretrain", "sft", "evaluate", "release")


def test_what_the_planner_says_beside_the_facts_is_what_it_says_today() -> None:
    script = RECIPES.parent / "scripts" / "annotate_recipes.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False, cwd=RECIPES.parent)
    assert (done.returncode, done.stdout) == (0, "out of date: none\n"), f"run {script.name}: {done.stdout}{done.stderr}"
    assert " | plan: " in (RECIPES / "llama-65b.toml").read_text()


TABLE_A9 = """
44 512 2048 64 8 8; 57 576 2304 64 9 9; 74 640 2560 64 10 10; 90 640 2560 64 10 13; 106 640 2560 64 10 16; 117 768 3072 64 12 12;
140 768 3072 64 12 15; 163 768 3072 64 12 18; 175 896 3584 64 14 14; 196 896 3584 64 14 16; 217 896 3584 64 14 18; 251 1024 4096
64 16 16; 278 1024 4096 64 16 18; 306 1024 4096 64 16 20; 425 1280 5120 128 10 18; 489 1280 5120 128 10 21; 509 1408 5632 128 11
18; 552 1280 5120 128 10 24; 587 1408 5632 128 11 21; 632 1536 6144 128 12 19; 664 1408 5632 128 11 24; 724 1536 6144 128 12 22;
816 1536 6144 128 12 25; 893 1792 7168 128 14 20; 1018 1792 7168 128 14 23; 1143 1792 7168 128 14 26; 1266 2048 8192 128 16 22;
1424 2176 8704 128 17 22; 1429 2048 8192 128 16 25; 1593 2048 8192 128 16 28; 1609 2176 8704 128 17 25; 1731 2304 9216 128 18 24;
1794 2176 8704 128 17 28; 2007 2304 9216 128 18 28; 2283 2304 9216 128 18 32; 2298 2560 10240 128 20 26; 2639 2560 10240 128 20
30; 2980 2560 10240 128 20 34; 3530 2688 10752 128 22 36; 3802 2816 11264 128 22 36; 4084 2944 11776 128 22 36; 4516 3072 12288
128 24 36; 6796 3584 14336 128 28 40; 9293 4096 16384 128 32 42; 11452 4352 17408 128 32 47; 12295 4608 18432 128 36 44; 12569
4608 18432 128 32 47; 13735 4864 19456 128 32 47; 14940 4992 19968 128 32 49; 16183 5120 20480 128 40 47
"""
"""Hoffmann et al. 2022: millions of parameters, d_model, ffw_size, kv_size, n_heads, n_layers."""


def test_all_fifty_models_of_chinchillas_table_come_out_to_the_million() -> None:
    rows = [[int(cell) for cell in row.split()] for row in TABLE_A9.split(";")]
    assert len(rows) == 50
    for millions, width, wide, head_dim, heads, layers in rows:
        config = {"model_type": "gopher", "vocab_size": 32000, "hidden_size": width, "intermediate_size": wide, "head_dim": head_dim}
        sizes = {"num_attention_heads": heads, "num_hidden_layers": layers}
        assert abs(Shape.from_hf(config | sizes).parameters / 1e6 - millions) < 1
        assert abs(Shape.from_hf(config | sizes | {"tie_word_embeddings": False}).parameters / 1e6 - millions) > 15


def test_proportions_are_those_of_the_family() -> None:
    big, small = load("llama-65b").proportions(), load("llama-7b").proportions()
    assert (big.width_per_layer, small.width_per_layer) == (102.4, 128.0)
    assert big.intermediate_ratio == 22016 / 8192 and big.gated and not big.tied
    assert (big.head_dim, big.heads_per_kv_head, big.query_ratio) == (128, 1, 1.0)
    assert big.tokens_per_parameter == pytest.approx(21.4, abs=0.1)
    assert load("llama3-70b").proportions().heads_per_kv_head == 8
    assert load("qwen3-0.6b").proportions().query_ratio == 2.0 and load("qwen3-0.6b").proportions().tied
    mixtral = load("mixtral-8x7b").proportions()
    assert (mixtral.experts, mixtral.experts_per_token, mixtral.intermediate_ratio) == (8, 2, 7.0)
    assert mixtral.tokens_per_parameter is None
    assert not load("gpt2-124m").proportions().gated and load("gpt2-124m").proportions().intermediate_ratio == 4.0


@pytest.mark.parametrize("change", [{"sizes": "65B"}, {"tokens": -1.0}, {"source": ""}, {"learning_rate": 0.0}])
def test_a_table_with_an_unknown_or_impossible_fact_is_refused(change: dict[str, object]) -> None:
    facts = {"source": "A, B, C", "model": {"model_type": "llama"}}
    Published.model_validate(facts)
    with pytest.raises(ValidationError):
        Published.model_validate(facts | change)


def test_a_model_that_cannot_be_counted_is_refused_where_it_stands() -> None:
    with pytest.raises(HearthError, match=r"\[published.model\]: hidden_size"):
        Published(source="A, B, C", model={"model_type": "llama", "vocab_size": 32000}).shape()
