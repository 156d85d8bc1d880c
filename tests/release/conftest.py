"""A small run, complete up to its evaluation, made by hand: real weights, tokenizer and ledger, no training."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from openhearth.data.tokenizer import Tokenizer
from openhearth.ledger import Artifact, Ledger, artifact_digest, canonical_json, digest_bytes, digest_file, read_json, seal, write_json
from openhearth.model.config import ModelConfig
from openhearth.model.hf import save_model, tensor_shapes
from openhearth.release.bom import write_documents
from openhearth.release.manifest import write_manifest
from openhearth.release.stage import Release

TEXTS = [
    *(f"def add_{n}(a, b):\n    '''Return a plus b plus {n}.'''\n    return a + b + {n}\n\n" * 4 for n in range(12)),
    "A generator is a function that yields its values one after another.\n" * 5,
]


class Quiet:
    """A Tell that keeps what it is told."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def progress(self, done: float, total: float, **figures: float | str) -> None: ...

    def note(self, text: str) -> None: ...

    def record(self, **facts: Any) -> None:
        self.facts.update(facts)

    def measure(self, **figures: Any) -> None: ...


def small_config(tokenizer: Tokenizer, *, tied: bool = False) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        intermediate_size=96,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos,
        eos_token_id=tokenizer.im_end,
    )


def random_weights(config: ModelConfig, seed: int) -> dict[str, torch.Tensor]:
    """Weights that matter everywhere: matrices of a size that changes the logits, gains around 1 but never 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in tensor_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        weights[name] = 1.0 + 0.2 * noise if len(shape) == 1 else noise * (1.0 / shape[-1]) ** 0.5
    return weights


def _documents(folder: Path) -> None:
    rows = []
    for number, text in enumerate(TEXTS):
        data = text.encode()
        rows.append(
            {
                "doc_id": f"m{number}",
                "split": "heldout" if number % 5 == 4 else "train",
                "group": f"package{number}",
                "kind": "module",
                "uri": f"stdlib:package{number}.py",
                "licence": "PSF-2.0",
                "evidence": "part of the Python standard library",
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "text": text,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet", compression="zstd")
    pq.write_table(pa.table({"uri": ["x"], "rule": ["test"], "value": ["1"], "threshold": ["0"]}), folder / "drops.parquet")
    write_json(folder / "report.json", {"documents": len(rows)})


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _training(folder: Path, config: ModelConfig, seed: int) -> None:
    weights = random_weights(config, seed)
    save_model(weights, config, folder)
    _lines(folder / "steps.jsonl", [{"step": step, "tokens": step * 64, "loss": 5.0 / step} for step in range(1, 5)])
    digests = {name: digest_bytes(tensor.numpy().tobytes()) for name, tensor in sorted(weights.items())}
    _lines(folder / "trace.jsonl", [{"step": 4, "tensors": digests}])


def make_run(run: Path, *, tied: bool = False, **settings: Any) -> Path:
    """A run folder with every stage sealed; returns the release in it."""
    run.mkdir(parents=True)
    ledger, made = Ledger(run / "ledger.jsonl"), {}
    (run / "recipe.toml").write_text('name = "small"\nseed = 1\n')
    ledger.append("run", recipe={"name": "small", "seed": 1})

    def stage(kind: str, fill: Callable[[Path], None]) -> Artifact:
        key = digest_bytes(kind.encode())
        partial = run / kind / f"{key[:12]}.partial"
        partial.mkdir(parents=True)
        fill(partial)
        facts = {"tokens": 256, "flops": 1.0e9}
        made[kind] = artifact = seal(partial, run / kind / key[:12], stage=kind, key=key, facts=facts)
        ledger.append("stage", stage=kind, key=key, digest=artifact.digest, seconds=1.5, facts=facts)
        return artifact

    def tokenize(folder: Path) -> None:
        Tokenizer.train(TEXTS, 320).save(folder)
        for split in ("train", "heldout"):
            (folder / split).mkdir()
            write_json(folder / split / "manifest.json", {"shards": []})

    def evaluate(folder: Path) -> None:
        figure = {"value": 1.5, "low": 1.4, "high": 1.6}
        measured = {"base": figure, "sft": figure, "documents": 2, "bytes": 100, "tokens": 40, "baselines": {"gzip -9": figure}}
        samples = [{"kind": "function", "prompt": "Write `f`.\n```", "answer": "\x1b[31mdef f(): ...\n````"}]
        share = {"share": 0.5, "low": 0.3, "high": 0.7, "n": 10}
        write_json(
            folder / "evaluation.json", {"bits_per_byte": measured, "parses": {"base": share, "sft": share, "how": "x"}, "samples": samples}
        )
        write_json(folder / "samples.json", samples)

    stage("corpus", _documents)
    tokenizer = Tokenizer.load(stage("tokenizer", tokenize).path)
    config = small_config(tokenizer, tied=tied)
    stage("plan", lambda folder: write_json(folder / "plan.json", {"budget_seconds": 60.0, "why": ["because | of <this>"]}))
    stage("pretrain", lambda folder: _training(folder, config, 1))
    stage("sft", lambda folder: _training(folder, config, 2))
    stage("evaluate", evaluate)
    release = stage("release", lambda folder: Release(title="Small", **settings).run(made, folder, Quiet()))
    return release.path / "release"


def forge(release: Path, kind: str, name: str, target: str, change: Callable[[Path], None]) -> None:
    """Change the released copy of a stage's file, and the artifact's table, the ledger and the manifest with it: what a liar would do."""
    change(release / target)
    record = read_json(release / f"training/{kind}/artifact.json")
    record["files"][name] = {"sha256": digest_file(release / target), "bytes": (release / target).stat().st_size}
    record["digest"] = artifact_digest(record["files"])
    write_json(release / f"training/{kind}/artifact.json", record)
    before, lines = "", []
    for line in (release / "ledger.jsonl").read_bytes().splitlines():
        entry = json.loads(line)
        entry["before"] = before
        if entry.get("stage") == kind:
            entry["digest"] = record["digest"]
        lines.append(canonical_json(entry))
        before = digest_bytes(lines[-1])
    (release / "ledger.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    write_documents(release)  # a forger makes these again too
    write_manifest(release)


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; do not change it."""
    run = tmp_path_factory.mktemp("made") / "run"
    make_run(run)
    return run


@pytest.fixture(scope="session")
def made_release(made_run: Path) -> Path:
    """A release; do not change it."""
    (release,) = made_run.glob("release/*/release")
    return release


@pytest.fixture
def release(made_release: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be broken."""
    return Path(shutil.copytree(made_release, tmp_path / "copy"))
