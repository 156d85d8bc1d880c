"""`hearth bench train`: parts that make up a step, memory foretold, and one line for what cannot be measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from openhearth.cli import main
from openhearth.train.bench_command import SHAPES, shape
from openhearth.train.plan_file import training_bytes

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "context", "vocab", "heads", "kv_heads", "tokens", "measured"),
    [  # peaks of two steps, VmHWM, fp32, one thread (docs/benchmarks.md)
        ("4x256", 256, 4096, 4, 4, 4096, 1008),
        ("4x256", 256, 4096, 4, 4, 1024, 632),
        ("6x512", 512, 8192, 8, 8, 4096, 2214),
        ("4x128", 256, 512, 2, 2, 4096, 588),
        ("3x192", 128, 1000, 3, 1, 2048, 489),
        ("2x384", 384, 16000, 6, 2, 1536, 984),
        ("1x64", 32, 512, 1, 1, 256, 325),
    ],
)
def test_memory_is_foretold_within_15_percent(
    name: str, context: int, vocab: int, heads: int, kv_heads: int, tokens: int, measured: int
) -> None:
    config = shape(name, context, vocab)
    config = config.model_copy(update={"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": config.hidden_size // heads})
    assert training_bytes(config, tokens, "float32", saves=False) == pytest.approx(measured * MIB, rel=0.15)


def test_shapes_s_and_m_are_those_of_the_comparison() -> None:
    assert {name: (shape(name).num_layers, shape(name).hidden_size) for name in SHAPES} == {"S": (4, 256), "M": (6, 512)}
    assert (shape("M").max_position_embeddings, shape("M").vocab_size) == (512, 8192)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shape", "XL"], "give S, M or LAYERSxWIDTH"),
        (["--shape", "2x100"], "a multiple of 32"),
        (["--shape", "0x64"], "1 to 200 layers"),
        (["--shape", "S", "--batch-tokens", "1000"], "must be a multiple of the context of S, 256"),
        (["--shape", "200x16384"], "lower it, or --batch-tokens"),
        (["--shape", "S", "--context", "100000"], "--context is at most 65,536"),
    ],
)
def test_what_cannot_be_measured_ends_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "train", *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_step_is_measured_with_its_parts() -> None:
    """In a process of its own, as the command does: it sets threads and determinism, and counts the memory of its process."""
    command = [sys.executable, "-m", "openhearth", "bench", "train", "--shape", "1x32", "--context", "32", "--vocab", "64"]
    done = subprocess.run(
        [*command, "--batch-tokens", "64", "--rounds", "3", "--threads", "1", "--json"], capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout)
    (row,) = facts["shapes"]
    assert "measuring 1x32" in done.stderr
    assert row["step_seconds"] == pytest.approx(sum(row["parts_seconds"].values()))
    assert row["tokens_per_second"] == pytest.approx(64 / row["step_seconds"])
    per_token = 6 * (4 * 32 * 32 + 3 * 32 * 64 + 64 * 32) + 12 * 32 * 32
    assert row["flops_per_step"] == 64 * per_token
    assert 0 < row["share_of_product_rate"] < 1
    assert all(row["parts_seconds"][part] > 0 for part in ("products", "attention", "head_and_loss", "optimiser", "data"))
    assert row["predicted_peak_bytes"] == pytest.approx(row["peak_bytes"], rel=0.25)  # nearly all of it is PyTorch itself
    assert set(facts["machine"]["product_flops"]) == {"float32", "bfloat16"} and facts["machine"]["memory_bytes_per_second"] > 1e8
