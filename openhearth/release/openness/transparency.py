"""The indicators of the Foundation Model Transparency Index (December 2025) that a release fills by itself, with the file that does.

Of its hundred, those about use, users and policies of a company have no file in a release and are left out; none is claimed.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from openhearth.release.code_archive import ARCHIVE as CODE_ARCHIVE
from openhearth.release.openness.components import texts_in
from openhearth.release.openness.folder import ModelFolder
from openhearth.release.report import REPORT

_ROWS = (
    ("Data acquisition methods", "data/LICENCES.md", "existing texts; each with origin, licence and evidence"),
    ("Public datasets", "data/documents.parquet", "every document with its address"),
    ("Data processing methods", "data/report.json", "what was dropped, by rule"),
    ("Data processing purpose", REPORT, "the section on data"),
    ("Data processing techniques", CODE_ARCHIVE, "openhearth/data"),
    ("Data size", "data/report.json", "documents and bytes, before and after"),
    ("Data domain composition", "data/LICENCES.md", "documents and bytes by source"),
    ("External data access", "data/documents.parquet", "the texts themselves"),
    ("Data replicability", "data/documents.parquet", "the sha256 of every text"),
    ("Compute usage for final training run", "ledger.jsonl", "FLOPs by stage"),
    ("Development duration for final training run", "ledger.jsonl", "seconds by stage"),
    ("Compute hardware for final training run", "environment.json", "processor, instruction sets, threads"),
    ("Energy usage for final training run", "ledger.jsonl", "joules by stage, measured or estimated"),
    ("Model stages", "recipe.toml", "every stage with its settings"),
    ("Model objectives", REPORT, "the objective of each stage"),
    ("Code access", CODE_ARCHIVE, "training, data, evaluation and inference"),
    ("Basic model properties", "config.json", "size, layout, modality"),
    ("Deeper model properties", "config.json", "every dimension of the architecture"),
    ("Model dependencies", "recipe.toml", "trained from first weights drawn at random; no other model"),
    ("Open weights", "model.safetensors", "fp32"),
    ("Capabilities taxonomy", REPORT, "what fine-tuning teaches"),
    ("Capabilities evaluation", "evaluations/evaluation.json", "with intervals and baselines"),
    ("External reproducibility of capabilities evaluation", CODE_ARCHIVE, "openhearth/evaluate"),
    ("Train-test overlap", "data/documents.parquet", "no text is on both sides of the split (`hearth verify`)"),
    ("Terms of use", "LICENSE", "the licence, and no other terms"),
    ("Quantization", "config.json", "none: fp32; GGUF files name their own"),
    ("System prompt", "chat_template.jinja", "none is put in"),
)


@dataclass(frozen=True)
class Indicator:
    """An indicator, whether a file fills it, which, and how."""

    name: str
    disclosed: bool
    file: str
    note: str


def indicators(folder: ModelFolder) -> list[Indicator]:
    """The indicators for an OpenHearth release; [] for any other folder, whose files say nothing about them by their names."""
    if "ledger.jsonl" not in folder.files or "recipe.toml" not in folder.files:
        return []
    return [Indicator(name, _fills(folder, name, file), file, note) for name, file, note in _ROWS]


def _fills(folder: ModelFolder, name: str, file: str) -> bool:
    if name == "External data access":
        return bool(texts_in(folder))
    if name == "Energy usage for final training run":
        return '"joules"' in folder.text(file)
    return bool(folder.files.get(file))


def table(found: list[Indicator]) -> str:
    """The indicators as CSV in the order of the index: Indicator, Disclosed, Disclosure, Where."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["Indicator", "Disclosed", "Disclosure", "Where"])
    for one in found:
        writer.writerow([one.name, int(one.disclosed), one.note if one.disclosed else "", one.file if one.disclosed else ""])
    return out.getvalue()
