"""The technical report of a release, `REPORT.md`: how the model was made, in full, written from the record and from nothing else.

The card says what a user needs; this says what someone needs who wants to do the same: every setting of every stage, the objective of
each, the machine, the course of the loss, and what was measured how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openhearth.ledger import Json, Ledger, read_json
from openhearth.release import layout
from openhearth.release.card import data_licences

REPORT = "REPORT.md"
_OBJECTIVES = {
    "corpus": "read documents, keep those that every rule lets pass, and hold out a share of them by group",
    "tokenizer": "learn byte-level BPE merges on the training side, and encode every document",
    "plan": "derive shape, tokens, batch and learning rates from the budget",
    "pretrain": "next-token prediction: the mean cross-entropy over all tokens of the training side",
    "sft": "supervised fine-tuning: the cross-entropy of the assistant's tokens in conversations made from the training side",
    "evaluate": "bits per byte of the documents held out, and whether generated functions parse",
}


def report(folder: Path, *, title: str) -> str:
    """The report on the release in `folder`, whose record must already be there."""
    stages = layout.stages_in(Ledger(folder / layout.LEDGER).entries())
    plan = read_json(folder / layout.PLAN)
    parts = [
        f"# {_plain(title)}: technical report",
        "Written from `recipe.toml`, `plan.json`, `ledger.jsonl`, `environment.json` and the files of `data/`, `training/` and "
        "`evaluations/` beside it. A figure that is missing here was not measured.",
        "## Architecture\n\n" + _table(read_json(folder / layout.CONFIG)),
        "## Data\n\n" + _data(folder),
        "## Stages\n\n" + "\n\n".join(_stage(kind, stages[kind]) for kind in layout.KINDS if kind in stages),
        "## Training settings, as planned\n\n" + "\n\n".join(
            f"### {kind}\n\n{_table(plan[kind])}" for kind in ("pretrain", "sft", "evaluate") if isinstance(plan.get(kind), dict)
        ),
        "## The course of the loss\n\n" + "\n\n".join(_losses(folder, kind) for kind in ("pretrain", "sft")),
        "## Machine and packages\n\n" + _machine(read_json(folder / layout.ENVIRONMENT)),
        "## Evaluation\n\nThe figures with their intervals and baselines are in the card, and all of them, with every prompt and answer, "
        "in `evaluations/`. No benchmark was used to choose anything; the held-out text was not trained on.",
        "## Making it again\n\n`hearth rebuild .` runs every stage again from the recorded text and compares the weights bit for bit; "
        "the code is in `code/openhearth.tar`.",
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(f"\\{c}" if c in "|<>[]*_`\\" else c if c.isprintable() else " " for c in text[:300])


def _table(values: Json) -> str:
    return "| setting | value |\n|---|---|\n" + "\n".join(f"| {_plain(name)} | {_plain(value)} |" for name, value in sorted(values.items()))


def _data(folder: Path) -> str:
    counts = read_json(folder / "data/report.json")
    numbers = {name: value for name, value in counts.items() if isinstance(value, int | float | dict)} if isinstance(counts, dict) else {}
    return (
        f"{data_licences(folder / layout.DOCUMENTS).table()}\n\nWhat was read, dropped and kept (`data/report.json`):\n\n{_table(numbers)}"
    )


def _stage(kind: str, entry: Json) -> str:
    seconds = entry.get("seconds")
    took = f" It took {seconds:,.1f} s." if isinstance(seconds, int | float) else ""
    return f"### {kind}\n\nObjective: {_OBJECTIVES[kind]}.{took}\n\n{_table({**(entry.get('config') or {}), **(entry.get('facts') or {})})}"


def _losses(folder: Path, kind: str) -> str:
    lines = (folder / f"training/{kind}/steps.jsonl").read_bytes().splitlines()
    chosen = sorted({round(place * (len(lines) - 1) / 12) for place in range(13)}) if lines else []
    rows = [json.loads(lines[number]) for number in chosen]
    cells = [f"| {row.get('step')} | {row.get('tokens')} | {row.get('loss')} |" for row in rows]
    return f"### {kind}\n\n" + "\n".join(["| step | tokens | loss, nats per token |", "|---:|---:|---:|", *cells])


def _machine(environment: Json) -> str:
    cpu, packages = environment.get("cpu") or {}, environment.get("packages") or {}
    shown = {"processor": cpu.get("model"), **(environment.get("platform") or {}), "threads": environment.get("threads"), **packages}
    return _table({name: value for name, value in shown.items() if value is not None})
