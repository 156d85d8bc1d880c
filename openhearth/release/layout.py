"""What lies where in a release, and which file of which stage it came from: one table, read by whoever makes or checks a release.

A copied file has the bytes that the stage sealed, so its sha256 can be compared with the artifact's own table, and that table's
digest with the ledger. Nothing in a release is believed because a release says so; it is followed back to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from openhearth.ledger import Json

KINDS = ("corpus", "tokenizer", "plan", "pretrain", "sft", "evaluate")
"""The stages before the release, in order."""

LEDGER, RECIPE, PLAN, ENVIRONMENT = "ledger.jsonl", "recipe.toml", "plan.json", "environment.json"
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
CHAT_TEMPLATE, CARD, LICENSE = "chat_template.jinja", "README.md", "LICENSE"
DOCUMENTS, LICENCES = "data/documents.parquet", "data/LICENCES.md"


@dataclass(frozen=True)
class Copied:
    """A file of a stage, and its place in the release."""

    kind: str
    source: str
    target: str
    required: bool = True


COPIED = (
    Copied("sft", "model.safetensors", "model.safetensors"),
    Copied("sft", "config.json", CONFIG),
    Copied("tokenizer", "tokenizer.json", TOKENIZER),
    Copied("plan", "plan.json", PLAN),
    Copied("corpus", "documents.parquet", DOCUMENTS),
    Copied("corpus", "drops.parquet", "data/drops.parquet"),
    Copied("corpus", "report.json", "data/report.json"),
    Copied("tokenizer", "summary.json", "data/summary.json", required=False),
    Copied("tokenizer", "train/manifest.json", "data/train.json", required=False),
    Copied("tokenizer", "heldout/manifest.json", "data/heldout.json", required=False),
    Copied("evaluate", "evaluation.json", "evaluations/evaluation.json"),
    Copied("evaluate", "samples.json", "evaluations/samples.json", required=False),
    Copied("pretrain", "steps.jsonl", "training/pretrain/steps.jsonl"),
    Copied("pretrain", "trace.jsonl", "training/pretrain/trace.jsonl"),
    Copied("sft", "steps.jsonl", "training/sft/steps.jsonl"),
    Copied("sft", "trace.jsonl", "training/sft/trace.jsonl"),
    Copied("sft", "examples.json", "training/sft/examples.json", required=False),
)


def artifact_record(kind: str) -> str:
    """Where a stage's sealed `artifact.json` lies in the release."""
    return f"training/{kind}/artifact.json"


def stages_in(entries: Iterable[Json]) -> dict[str, Json]:
    """The ledger's last entry on each stage's artifact, by kind of stage."""
    return {entry["stage"]: entry for entry in entries if isinstance(entry.get("stage"), str) and isinstance(entry.get("digest"), str)}
