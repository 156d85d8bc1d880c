"""The stage as a whole, on a small corpus and models with random weights: the files it leaves and that they depend on nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.evaluate.stage import Evaluate
from openhearth.ledger import Artifact, write_json
from openhearth.model.hf import save_model
from openhearth.stage import Setting

from .conftest import small_model


class Listener:
    """A Tell that remembers."""

    def __init__(self) -> None:
        self.done: list[tuple[float, float]] = []
        self.facts: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}

    def progress(self, done: float, total: float, **figures: float | str) -> None:
        self.done.append((done, total))

    def note(self, text: str) -> None: ...

    def record(self, **facts: Any) -> None:
        self.facts |= facts

    def measure(self, **figures: Any) -> None:
        self.figures |= figures


def module(name: str) -> str:
    return "".join(f'def {name}{n}(x):\n    """Return {name} {n}."""\n    return x + {n}\n\n\n' for n in range(12))


PYTHON = [(f"m{number}.py", "module", module(f"f{number}_")) for number in range(16)]
PROSE = [(f"t{number}.txt", "text", f"Part {number} begins. " + "It goes on a little longer. " * 40) for number in range(16)]


@pytest.fixture
def made(tokenizer: Tokenizer, tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, Artifact]:
    rows = request.param
    folders = {kind: tmp_path / kind for kind in ("corpus", "tokenizer", "plan", "pretrain", "sft")}
    for folder in folders.values():
        folder.mkdir()
    splits = ["heldout" if number % 2 else "train" for number in range(len(rows))]
    columns = {"uri": [row[0] for row in rows], "kind": [row[1] for row in rows], "text": [row[2] for row in rows], "split": splits}
    pq.write_table(pa.table({"doc_id": [f"id{number}" for number in range(len(rows))], **columns}), folders["corpus"] / "documents.parquet")
    tokenizer.save(folders["tokenizer"])
    plan = {
        "pretrain": {"sequence_length": 256, "threads": 1},
        "sft": {"sequence_length": 256},
        "evaluate": {"heldout_bytes": 4000, "prompts": 6, "max_new_tokens": 48},
    }
    write_json(folders["plan"] / "plan.json", plan)
    for seed, kind in enumerate(("pretrain", "sft")):
        model = small_model(tokenizer.vocab_size, 256, seed)
        save_model(model, model.config, folders[kind])
    return {kind: Artifact(folder, kind, "", "", {}, {}) for kind, folder in folders.items()}


def run(made: dict[str, Artifact], out: Path, **settings: Any) -> tuple[dict[str, Any], Listener]:
    out.mkdir()
    tell = Listener()
    stage = Evaluate(**settings).resolve(Setting("test", 3, 60.0))
    stage.run(made, out, tell)
    return json.loads((out / "evaluation.json").read_text()), tell


@pytest.fixture(autouse=True)
def process_settings() -> Any:
    """The stage sets threads and determinism for the process; put them back."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.mark.parametrize("made", [PYTHON], indirect=True)
def test_a_corpus_with_functions_gets_all_figures(made: dict[str, Artifact], tmp_path: Path) -> None:
    evaluation, tell = run(made, tmp_path / "out")
    figures, parses = evaluation["bits_per_byte"], evaluation["parses"]
    for name in ("base", "sft", "sft_minus_base"):
        assert figures[name]["low"] < figures[name]["value"] < figures[name]["high"]
    assert figures["sft_minus_base"]["value"] == pytest.approx(figures["sft"]["value"] - figures["base"]["value"])
    assert (figures["window"], figures["stride"], figures["interval_over"]) == (256, 128, "document")
    assert 0 < figures["bytes"] <= 4000 and figures["documents"] >= 5
    assert list(figures["baselines"]) == ["gzip -9", "xz -9", "zstd -19 with a trained dictionary"]
    assert all(0 < one["value"] < 8 for one in figures["baselines"].values())
    assert {parses[name]["n"] for name in ("base", "sft", "base_chat_prompt")} == {6}
    assert parses["how"].count(". ") == 0 and parses["how"].endswith(".")
    assert [set(sample) for sample in evaluation["samples"]] == [{"kind", "prompt", "answer"}] * 3
    assert [sample["kind"].split(",")[0] for sample in evaluation["samples"]] == [
        "a held-out function",
        "a held-out function",
        "a held-out text",
    ]
    transcript = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert transcript["samples"] == evaluation["samples"] and len(transcript["functions"]) == 6
    assert all({"sft", "base", "base_chat_prompt"} < set(one) for one in transcript["functions"])
    assert tell.done[-1][0] == tell.done[-1][1] and [done for done, _ in tell.done] == sorted(done for done, _ in tell.done)
    assert tell.facts["bits_per_byte"]["base"] == figures["base"]["value"] and tell.facts["flops"] > 0
    assert set(tell.figures["seconds"]) == {"prepare and compress", "base", "sft"}


@pytest.mark.parametrize("made", [PROSE], indirect=True)
def test_a_corpus_without_functions_has_no_parses_and_other_samples(made: dict[str, Artifact], tmp_path: Path) -> None:
    evaluation, tell = run(made, tmp_path / "out")
    assert evaluation["parses"] is None and tell.facts["parses"] is None
    kinds = [sample["kind"] for sample in evaluation["samples"]]
    assert len(kinds) == 3 and "continued in chat" in kinds[0] and "base model" in kinds[2]


@pytest.mark.parametrize("made", [PYTHON], indirect=True)
def test_the_same_inputs_give_the_same_bytes(made: dict[str, Artifact], tmp_path: Path) -> None:
    run(made, tmp_path / "once")
    run(made, tmp_path / "again")
    for name in ("evaluation.json", "samples.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize("made", [PYTHON], indirect=True)
def test_equal_models_get_equal_figures_and_no_difference(made: dict[str, Artifact], tmp_path: Path) -> None:
    evaluation, _ = run(made | {"sft": made["pretrain"]}, tmp_path / "out", prompts=0)
    figures = evaluation["bits_per_byte"]
    assert figures["base"] == figures["sft"] and evaluation["parses"] is None
    assert figures["sft_minus_base"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("made", [PYTHON], indirect=True)
def test_a_setting_of_the_recipe_goes_before_the_plan(made: dict[str, Artifact], tmp_path: Path) -> None:
    evaluation, _ = run(made, tmp_path / "out", heldout_bytes=1500, prompts=2, max_new_tokens=40)
    assert evaluation["bits_per_byte"]["bytes"] <= 1500 and evaluation["parses"]["sft"]["n"] == 2


@pytest.mark.parametrize("made", [PYTHON], indirect=True)
def test_the_temperature_is_that_of_the_functions_and_samples_are_drawn_as_in_chat(made: dict[str, Artifact], tmp_path: Path) -> None:
    small = {"heldout_bytes": 1500, "prompts": 2, "max_new_tokens": 40, "seed": 1}

    def answers(name: str, temperature: float) -> tuple[list[str], list[str]]:
        evaluation, _ = run(made, tmp_path / name, **small, temperature=temperature)
        functions = json.loads((tmp_path / name / "samples.json").read_text())["functions"]
        return [one["sft"]["source"] for one in functions], [sample["answer"] for sample in evaluation["samples"]]

    greedy, drawn, again = answers("greedy", 0.0), answers("drawn", 1.0), answers("again", 1.0)
    assert drawn == again
    assert greedy[0] != drawn[0] and greedy[1] == drawn[1]
    assert greedy[0][0] != greedy[1][0], "the first sample asks for the first function, at another temperature"


@pytest.mark.parametrize("made", [[PYTHON[0]]], indirect=True)
def test_a_corpus_with_nothing_held_out_is_refused_in_one_line(made: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="raise held_out"):
        run(made, tmp_path / "out")


def test_the_stage_can_be_listed_without_torch() -> None:
    code = "import sys, openhearth.evaluate.stage; sys.exit('torch' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
