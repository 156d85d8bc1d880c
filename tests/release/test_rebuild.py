"""A rebuild of a small but real run: text, tokenizer, training, fine-tuning, evaluation, release, and all of it again."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from openhearth import runner
from openhearth.errors import HearthError
from openhearth.ledger import canonical_json, digest_bytes, read_json, write_json
from openhearth.recipe import Recipe
from openhearth.release.bom import write_documents
from openhearth.release.commands import rebuild_command
from openhearth.release.compare import compare_documents
from openhearth.release.environment import differences
from openhearth.release.manifest import find_release, write_manifest
from openhearth.release.rebuild import rebuild
from openhearth.release.verify import verify

from .conftest import forge

STEPS = 6
WORDS = ("alpha", "beta", "gamma", "delta", "count", "total", "value", "index", "window", "matrix", "token", "reader", "writer", "folder")

TRAINING = {
    "sequence_length": 256,
    "batch_tokens": 256,
    "micro_batch_tokens": 256,
    "steps": STEPS,
    "learning_rate": {"matrix": 0.02, "embedding": 0.1, "head": 0.004, "gain": 0.005},
    "dtype": "float32",
    "threads": 1,
    "checkpoint_steps": 2,
}
PLAN: dict[str, Any] = {
    "format": "openhearth-plan/1",
    "budget_seconds": 60.0,
    "machine": {},
    "model": {
        "vocab_size": 360,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": 357,
        "eos_token_id": 359,
    },
    "pretrain": {**TRAINING, "tokens": STEPS * 256},
    "sft": {**TRAINING, "steps": 2},
    "evaluate": {"heldout_bytes": 500, "prompts": 1, "max_new_tokens": 4},
    "predicted": {"seconds": {"total": 60.0}, "bits_per_byte": None},
    "why": ["because a test says so"],
}
RECIPE = """
name = "small"
seed = 7
budget = "1 min"
[corpus]
[tokenizer]
vocab_size = 360
[plan]
[pretrain]
[sft]
[evaluate]
[release]
"""


def write_texts(folder: Path) -> None:
    choose = random.Random(3)
    folder.mkdir()
    for number in range(12):
        functions = []
        for part in range(6):
            a, b, c = choose.sample(WORDS, 3)
            about = f'    """Return the {a} of the {b}, or the {c}."""\n'
            functions.append(f"def {a}_{b}_{part}({a}, {c}):\n{about}    {b} = {a} + {c} * {part}\n    return {b} - {number}\n")
        notes = "".join("# " + " ".join(choose.choices(WORDS, k=12)) + "\n" for _ in range(14))
        (folder / f"m{number:02}.py").write_text("\n\n".join(functions) + "\n\n" + notes)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "texts"
    write_texts(folder)
    return folder


def run_of(texts: Path, run: Path, *more: str) -> Path:
    runner.run(Recipe.parse(RECIPE, sets=more), run, text=[str(texts)], plan=PLAN)
    return run


@pytest.fixture(scope="module")
def finished(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; do not change it."""
    return run_of(texts, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of its release, to be changed."""
    return Path(shutil.copytree(find_release(finished), tmp_path / "release"))


def test_a_real_run_verifies(finished: Path) -> None:
    assert verify(finished).fault == ""


def test_a_rebuild_is_bit_identical_and_leaves_nothing_behind(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rebuild_command(copied) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "bit-identical: tokenizer, plan, pretrain, sft"
    assert [line.split()[0] for line in out[:-1]] == ["tokenizer", "plan", "pretrain", "sft"]
    assert all(line.endswith("as recorded") for line in out[:-1])
    assert [path.name for path in copied.parent.iterdir()] == ["release"]
    assert verify(copied).ok


def test_a_rebuild_of_a_run_folder_keeps_into_and_does_nothing_twice(finished: Path, tmp_path: Path) -> None:
    into = tmp_path / "deep" / "again"
    assert rebuild(finished, into).identical
    weights = next(into.glob("run/sft/*/model.safetensors"))
    changed = weights.stat().st_mtime_ns
    assert weights.read_bytes() == (find_release(finished) / "model.safetensors").read_bytes()
    assert rebuild(finished, into).verdict == "bit-identical: tokenizer, plan, pretrain, sft"
    assert weights.stat().st_mtime_ns == changed


def test_a_rebuild_that_is_stopped_goes_on(finished: Path, tmp_path: Path) -> None:
    class Stop(runner.Watcher):
        def progress(self, kind: str, done: float, total: float, figures: Any) -> None:
            if kind == "pretrain" and figures.get("step") == 5:
                raise KeyboardInterrupt

    class Notes(runner.Watcher):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, kind: str, text: str) -> None:
            self.notes.append(text)

    with pytest.raises(runner.Stopped):
        rebuild(finished, tmp_path / "again", watcher=Stop())
    (tmp_path / "again/corpus/report.json").write_text("{}")  # and something was damaged meanwhile
    watcher = Notes()
    assert rebuild(finished, tmp_path / "again", watcher=watcher).identical
    assert any("going on from step 4" in note for note in watcher.notes)


def test_a_stopped_rebuild_without_into_leaves_nothing_and_says_so(copied: Path) -> None:
    class Stop(runner.Watcher):
        def started(self, kind: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(runner.Stopped, match="--into"):
        rebuild(copied, watcher=Stop())
    assert [path.name for path in copied.parent.iterdir()] == ["release"]


def test_another_loss_in_the_record_is_led_back_to_its_step(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[3]["loss"] += 1e-12
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    forge(copied, "pretrain", "steps.jsonl", "training/pretrain/steps.jsonl", change)
    assert verify(copied).fault == ""
    assert rebuild_command(copied) == 0  # the weights are the same bits; the record beside them is not
    assert "bit-identical weights; beside them pretrain: step 4: loss" in capsys.readouterr().out


def test_another_tensor_in_the_record_is_led_back_to_step_and_name(copied: Path) -> None:
    def change(path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[1]["tensors"]["model.layers.0.mlp.up_proj.weight"] = "0" * 64
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    forge(copied, "pretrain", "trace.jsonl", "training/pretrain/trace.jsonl", change)
    assert verify(copied).fault == ""
    (difference,) = rebuild(copied).differences
    assert (difference.stage, difference.tensor) == ("pretrain", "model.layers.0.mlp.up_proj.weight")
    assert difference.step == json.loads((copied / "training/pretrain/trace.jsonl").read_text().splitlines()[1])["step"]


def test_another_recipe_gives_other_weights_and_the_report_says_where_and_by_how_much(
    texts: Path, finished: Path, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of one seed with the recipe of another: consistent to the last digest, and a lie."""
    other = find_release(run_of(texts, tmp_path / "other", "seed=8"))
    shutil.copy(other / "recipe.toml", copied)
    lines = (copied / "ledger.jsonl").read_bytes().splitlines()
    first = json.loads(lines[0])
    first["recipe"] = json.loads((other / "ledger.jsonl").read_bytes().splitlines()[0])["recipe"]
    chained = [canonical_json(first)]
    for line in lines[1:]:
        chained.append(canonical_json({**json.loads(line), "before": digest_bytes(chained[-1])}))
    (copied / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in chained))
    environment = read_json(copied / "environment.json")
    environment["cpu"]["model"] = "a machine that never was"
    write_json(copied / "environment.json", environment)
    write_documents(copied)
    write_manifest(copied)
    assert verify(copied).fault == ""
    assert rebuild_command(copied, json=True) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["differences"][0]["stage"] == "pretrain" and content["differences"][0]["step"] == 1
    assert content["differences"][0]["tensor"] is not None
    assert content["weights"].startswith("14 of 14 tensors differ, the first is lm_head.weight, the largest difference is ")
    assert any(line.startswith("cpu.model: then a machine that never was, now ") for line in content["environment"])
    assert not content["identical"]


def test_a_release_that_does_not_verify_is_not_rebuilt(copied: Path, tmp_path: Path) -> None:
    (copied / "README.md").unlink()
    result = rebuild(copied, tmp_path / "again")
    assert result.verdict == "not verified: README.md: missing"
    assert not (tmp_path / "again").exists()
    assert rebuild_command(copied) == 1


def test_a_folder_that_holds_something_else_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(HearthError, match="--into"):
            rebuild(finished, place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_release_without_text_is_rebuilt_from_the_same_text_and_names_documents_that_differ(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(texts, tmp_path / "texts"))
    release = Path(shutil.copytree(find_release(run_of(own, tmp_path / "run", "release.include_text=false")), tmp_path / "release"))
    assert verify(release).fault == ""
    assert rebuild(release, text=[str(own)]).verdict == "bit-identical: tokenizer, plan, pretrain, sft"
    (own / "m03.py").write_text((own / "m03.py").read_text().replace("alpha", "omega"))
    assert rebuild_command(release, text=[str(own)]) == 1
    assert "m03.py: another text" in capsys.readouterr().err
    shutil.rmtree(own)
    with pytest.raises(HearthError, match="--text PATH"):
        rebuild(release)


def test_text_for_a_release_that_holds_its_own_is_refused(finished: Path, texts: Path) -> None:
    with pytest.raises(HearthError, match="holds its own text"):
        rebuild(finished, text=[str(texts)])


def test_documents_are_compared_by_name_side_and_digest(finished: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    release = find_release(finished)
    rows = pq.read_table(release / "data/documents.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "documents.parquet")
    assert compare_documents(release, tmp_path) == []
    gone, moved = rows[0]["uri"], rows[1]
    moved["split"] = "heldout" if moved["split"] == "train" else "train"
    new = {**rows[2], "uri": "zz"}
    pq.write_table(pa.Table.from_pylist([*rows[1:], new]), tmp_path / "documents.parquet")
    found = compare_documents(release, tmp_path)
    assert found[0] == f"{gone}: missing" and found[-1] == "zz: not in the recorded corpus"
    assert found[1].startswith(f"{moved['uri']}: {moved['split']} now") and len(found) == 3


def test_environments_are_compared_value_by_value() -> None:
    then = {"cpu": {"model": "a", "flags": ["avx2", "avx512f"]}, "threads": {"training": 2}, "torch": {"config": "x\n - one\n - two"}}
    now = {"cpu": {"model": "a", "flags": ["avx2"]}, "threads": {"training": None}, "torch": {"config": "x\n - one\n - 2"}}
    assert differences(then, then) == []
    assert differences(then, now) == [
        "cpu.flags: only then: avx512f; only now: none",
        "threads.training: then 2, now unset",
        "torch.config: then - two | now - 2",
    ]
