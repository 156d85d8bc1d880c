"""A run on a few modules of the standard library, complete up to its release: a model of thirty thousand parameters to be continued."""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import shutil
import string
import tarfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from openhearth.plan.budget import derive
from openhearth.recipe import Recipe
from openhearth.runner import run
from tests.plan.test_budget import IdealMachine, facts
from tests.train.tiny import CONFIG, RATES

VOCABULARY = 420

OLD = (argparse, textwrap, string)
NEW = (tarfile, csv)

RECIPE = f"""
name = "old"
seed = 1
budget = "1 min"
[corpus]
source = "text"
text = ["old-text"]
held_out = 0.2
[tokenizer]
vocab_size = {VOCABULARY}
[plan]
[pretrain]
permanent_steps = 8
samples = 0
[sft]
[evaluate]
prompts = 0
[release]
"""

CONTINUE = """
name = "new"
seed = 5
budget = "1 min"
[corpus]
source = "text"
text = ["new-text"]
held_out = 0.2
[continue]
model = "runs/old"
replay = 0.25
tokens = 4096
[forgetting]
heldout_bytes = 3000
"""


def tiny_plan() -> dict[str, Any]:
    """A plan that nothing was measured for: 40 updates of 256 tokens on a model of thirty thousand parameters."""
    plan = copy.deepcopy(derive(facts(60), IdealMachine(2e10)))
    config = CONFIG.model_copy(update={"vocab_size": VOCABULARY, "bos_token_id": VOCABULARY - 3, "eos_token_id": VOCABULARY - 1})
    settings: dict[str, Any] = {"sequence_length": 32, "batch_tokens": 256, "micro_batch_tokens": 256, "threads": 1, "steps": 40}
    settings |= {"learning_rate": RATES, "checkpoint_steps": 20, "dtype": "float32", "compile": False}
    plan["model"] = config.model_dump(mode="json")
    plan["pretrain"], plan["sft"] = {**settings, "tokens": 40 * 256}, {**settings, "steps": 2, "tokens": 2 * 256}
    plan["evaluate"] = {"heldout_bytes": 3000, "prompts": 0, "max_new_tokens": 8}
    return plan


def write_texts(folder: Path, modules: tuple[ModuleType, ...]) -> None:
    folder.mkdir()
    for module in modules:
        shutil.copy(str(module.__file__), folder)


@pytest.fixture(scope="session")
def old_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `old-text`, `new-text` and the finished run `runs/old`; do not change it."""
    place = tmp_path_factory.mktemp("continual")
    write_texts(place / "old-text", OLD)
    write_texts(place / "new-text", NEW)
    before = Path.cwd()
    os.chdir(place)
    try:
        run(Recipe.parse(RECIPE), plan=tiny_plan())
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def place(old_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, which is the current folder."""
    copied = Path(shutil.copytree(old_place, tmp_path / "place", symlinks=True))
    monkeypatch.chdir(copied)
    yield copied


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table in Parquet."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def content(path: Path) -> Any:
    return json.loads(path.read_bytes())
