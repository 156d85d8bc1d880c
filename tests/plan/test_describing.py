"""`hearth plan shape` and `openhearth.plan.shape`: the same facts for people, programs and Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import openhearth.plan
import openhearth.plan.shapes  # the modules must not hide the function
from openhearth.errors import HearthError
from openhearth.plan.commands.shape import shape_command
from openhearth.plan.shapes import CONVENTIONS, Shape
from tests.plan.test_shapes import LLAMA, LLAMA_3, MIXTRAL

ROOT = Path(__file__).parents[2]


def test_the_function_counts_a_path_a_configuration_and_a_shape_alike(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_3))
    facts = openhearth.plan.shape(LLAMA_3)
    assert facts == openhearth.plan.shape(Shape.from_hf(LLAMA_3)) == openhearth.plan.shape(tmp_path / "config.json")
    assert facts["parameters"] == 8_030_261_248 and set(facts["flops_per_token"]) == set(CONVENTIONS)
    assert facts["state_bytes"]["bf16-mixed adamw"] == 16 * facts["parameters"]
    assert facts["kv_bytes"] == 2048 * 131_072


def test_a_recipe_is_counted_at_its_published_length_and_tokens() -> None:
    facts = openhearth.plan.shape(ROOT / "recipes" / "llama-65b.toml")
    assert (facts["sequence_length"], facts["tokens"]) == (2048, 1.4e12)
    assert openhearth.plan.shape(ROOT / "recipes" / "qwen3-8b.toml")["sequence_length"] == 4096  # not its 32,768 positions
    assert facts["training_flops"]["6n"] == 6 * 65_285_660_672 * 1.4e12
    assert openhearth.plan.shape(ROOT / "recipes" / "llama-65b.toml", sequence_length=100)["sequence_length"] == 100


def test_the_command_prints_the_functions_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    assert shape_command(tmp_path, sequence_length="4096", json=True) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(openhearth.plan.shape(MIXTRAL, sequence_length=4096)))
    assert shape_command(tmp_path) == 0
    shown = capsys.readouterr().out
    for said in ("46,702,792,704", "12,879,925,248", "2 of 8 experts of 14,336", "32 heads of 128 sharing 8", "6n-total"):
        assert said in shown


def test_what_was_assumed_is_said_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"model_type": "strange"}))
    shape_command(tmp_path)
    captured = capsys.readouterr()
    assert captured.err.startswith("note: model_type 'strange' is not known") and "strange: 32 layers" in captured.out
    assert "6n-total" not in captured.out  # of a dense model it says nothing more


def test_every_key_is_on_the_page() -> None:
    page = (ROOT / "docs/plan/memory.md").read_text()
    facts = openhearth.plan.shape(MIXTRAL)
    for key in [*facts, *facts["shape"], *CONVENTIONS, *facts["activation_bytes_per_token"]]:
        assert f"`{key}`" in page, key


@pytest.mark.parametrize("length", [0, -5, 1.5, True, 10**9])
def test_a_length_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(HearthError, match="sequence_length"):
        openhearth.plan.shape(LLAMA, sequence_length=length)


def test_from_the_shell(tmp_path: Path) -> None:
    def hearth(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "openhearth", "plan", "shape", *arguments], capture_output=True, text=True, check=False
        )

    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert json.loads(hearth(str(tmp_path), "--json").stdout)["parameters"] == 6_738_415_616
    for arguments, said in (
        ((str(tmp_path / "none.json"),), "no such file"),
        ((str(tmp_path), "--sequence-length", "many"), "--sequence-length many: not a number"),
        ((str(ROOT / "recipes" / "laptop.toml"),), "has no [published.model]"),
    ):
        ended = hearth(*arguments)
        assert ended.returncode == 2 and said in ended.stderr and ended.stderr.strip().count("\n") == 0 and not ended.stdout


def test_counting_needs_neither_torch_nor_numpy() -> None:
    rooms = ", ".join(f"openhearth.plan.{name}" for name in ("shapes", "families", "published"))
    code = f"import sys, {rooms}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]
