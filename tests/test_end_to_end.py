"""The main job on real text with a very small model: made, verified, rebuilt, killed and continued, through the real command line."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "laptop.toml"
TINY = {
    "tokenizer.vocab_size": 512,
    "plan.num_layers": 1,
    "plan.hidden_size": 64,
    "plan.sequence_length": 128,
    "plan.batch_tokens": 1024,
    "plan.tokens": 81920,
    "evaluate.heldout_bytes": 6000,
    "evaluate.prompts": 4,
    "evaluate.max_new_tokens": 16,
}


def hearth(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "openhearth", *map(str, arguments)]


def tiny_run(text: Path, folder: Path, *more: str | Path) -> list[str]:
    settings = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
    return hearth("run", RECIPE, "--budget", "30 s", "--dir", folder, *settings, *more, "--text", text)


def call(command: list[str], status: int = 0) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def digests(folder: Path) -> dict[str, str]:
    """sha256 of the weights of both training stages, from the sealed artifacts."""
    found = {}
    for kind in ("pretrain", "sft"):
        (artifact,) = folder.glob(f"{kind}/*/artifact.json")
        found[kind] = json.loads(artifact.read_text())["files"]["model.safetensors"]["sha256"]
    return found


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few modules of the standard library: real code and prose, the same for all tests here."""
    folder = tmp_path_factory.mktemp("text")
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("argparse", "ast", "textwrap", "shlex", "string", "csv", "calendar", "statistics", "heapq", "bisect", "fractions"):
        shutil.copy(library / f"{name}.py", folder)
    return folder


@pytest.fixture(scope="module")
def made(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    call(tiny_run(text, folder))
    return folder


def test_the_run_ends_with_a_release_that_verifies(made: Path) -> None:
    assert (made / "model" / "model.safetensors").is_file()
    call(hearth("verify", made))


def test_an_unchanged_run_does_nothing_the_second_time(made: Path, text: Path) -> None:
    before = (made / "ledger.jsonl").read_bytes()
    assert "nothing to do" in call(tiny_run(text, made))
    assert (made / "ledger.jsonl").read_bytes() == before


def test_the_rebuild_is_bit_identical(made: Path, tmp_path: Path) -> None:
    assert "bit-identical" in call(hearth("rebuild", made, "--into", tmp_path / "again"))


def test_following_the_recorded_plan_gives_the_same_weights(made: Path, text: Path, tmp_path: Path) -> None:
    (plan,) = made.glob("plan/*/plan.json")
    call(tiny_run(text, tmp_path / "followed", "--until", "sft", "--plan", plan))
    assert digests(tmp_path / "followed") == digests(made)


def test_a_change_to_sft_reruns_sft_and_nothing_before(made: Path, text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(made, folder, symlinks=True)
    call(tiny_run(text, folder, "--set", "sft.learning_rate_scale=0.1"))
    counts = {
        kind: len(list(folder.glob(f"{kind}/*/artifact.json"))) for kind in ("corpus", "tokenizer", "plan", "pretrain", "sft", "release")
    }
    assert counts == {"corpus": 1, "tokenizer": 1, "plan": 1, "pretrain": 1, "sft": 2, "release": 2}


def test_a_flipped_bit_in_a_release_is_named(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made / "model", copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-7] ^= 4
    (copy / "model.safetensors").write_bytes(data)
    assert "model.safetensors" in call(hearth("verify", copy), status=11)
    assert "model.safetensors" in call(hearth("generate", copy, "hello"), status=2)


def test_generate_answers_and_repeats_itself_with_a_seed(made: Path) -> None:
    command = hearth("generate", made, "def add(a, b):", "--seed", "3", "--max-new-tokens", "12")
    assert call(command) == call(command)


def killed_runs(made: Path, text: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill the same run at random moments, then let it end; the weights must be those of the run that was never killed."""
    (plan,) = made.glob("plan/*/plan.json")
    command = tiny_run(text, folder, "--until", "sft", "--plan", plan)
    chance = random.Random(seed)
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 9.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    call(command)
    assert digests(folder) == digests(made)


def test_killed_at_random_moments_it_ends_with_the_same_weights(made: Path, text: Path, tmp_path: Path) -> None:
    killed_runs(made, text, tmp_path / "killed", kills=4, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_fifty_kills(made: Path, text: Path, tmp_path: Path, seed: int) -> None:
    killed_runs(made, text, tmp_path / "killed", kills=10, seed=seed)
