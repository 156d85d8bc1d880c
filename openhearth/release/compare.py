"""Where two makings of one model first differ: stage, then step, then tensor.

Equal digests say it all. Where they differ, the record of training leads to the place: `steps.jsonl` has the exact loss of every
step, `trace.jsonl` the digest of every tensor at some steps. An equal loss proves nothing; only equal digests of tensors do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.errors import DamagedError
from openhearth.ledger import TELEMETRY, Artifact, Json, read_json
from openhearth.release import layout
from openhearth.release.manifest import WEIGHTS
from openhearth.release.weights import read_tensors

TRAINED = ("pretrain", "sft")


@dataclass(frozen=True)
class Difference:
    """The first place of a stage at which the rebuild differs from the record."""

    stage: str
    file: str
    detail: str
    step: int | None = None
    tensor: str | None = None

    def __str__(self) -> str:
        return f"{self.stage}: {self.detail}"


def recorded_artifact(release: Path, kind: str) -> Json:
    """The sealed `artifact.json` of a stage as the release keeps it."""
    record: Json = read_json(release / layout.artifact_record(kind))
    return record


def compare_stage(release: Path, made: Artifact) -> Difference | None:
    """The first difference between what a stage made now and what the release records of it; None when the digests are equal."""
    recorded = recorded_artifact(release, made.stage)
    if recorded["digest"] == made.digest:
        return None
    kind = made.stage
    if kind in TRAINED and (found := _in_training(release / "training" / kind, made)) is not None:
        return found
    if kind == "plan" and (found := _in_plan(read_json(release / layout.PLAN), read_json(made.path / "plan.json"))) is not None:
        return found
    then, now = ({name: entry["sha256"] for name, entry in files.items()} for files in (recorded["files"], made.files))
    differing = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name) and not name.startswith(TELEMETRY + "/")]
    name = differing[0]
    state = "is not made any more" if name not in now else "was not made then" if name not in then else "has other bytes"
    return Difference(kind, name, f"{name} {state} ({len(differing)} of {len({*then, *now})} files differ)")


def _in_training(then: Path, made: Artifact) -> Difference | None:
    """The first step whose loss differs, and the first noted tensor."""
    kind, now = made.stage, made.path
    step, how = _first_step(_rows(then / "steps.jsonl"), _rows(now / "steps.jsonl"))
    traced = _first_tensor(_rows(then / "trace.jsonl"), _rows(now / "trace.jsonl"))
    if step is not None:
        where = f"; at the noted step {traced[0]} the first tensor that differs is {traced[1]}" if traced else ""
        return Difference(kind, "steps.jsonl", f"step {step}: {how}{where}", step, traced[1] if traced else None)
    if traced:
        return Difference(kind, "trace.jsonl", f"step {traced[0]}: tensor {traced[1]} differs, though all losses are equal", *traced)
    return None


def _first_step(then: list[Json], now: list[Json]) -> tuple[int | None, str]:
    for a, b in zip(then, now, strict=False):
        if a != b:
            return int(a["step"]), f"loss {a.get('loss')} then, {b.get('loss')} now"
    if len(then) != len(now):
        return min(len(then), len(now)) + 1, f"{len(then)} steps then, {len(now)} now"
    return None, ""


def _first_tensor(then: list[Json], now: list[Json]) -> tuple[int, str] | None:
    for a, b in zip(then, now, strict=False):
        if a["step"] != b["step"]:
            return None  # another number of steps: nothing to compare
        for name, digest in a["tensors"].items():
            if b["tensors"].get(name) != digest:
                return int(a["step"]), name
    return None


def _in_plan(then: Any, now: Any, path: str = "") -> Difference | None:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            if (found := _in_plan(then.get(key), now.get(key), f"{path}.{key}" if path else key)) is not None:
                return found
        return None
    return None if then == now else Difference("plan", "plan.json", f"plan.json: {path} was {then!r}, is {now!r}")


def compare_weights(release: Path, rebuilt: Path) -> str | None:
    """How the released tensors differ from the rebuilt ones: the first that does, how many, and by how much; None when none does."""
    now = dict(read_tensors(rebuilt / WEIGHTS, WEIGHTS))
    first, count, total, largest = "", 0, 0, 0.0
    for name, tensor in read_tensors(release / WEIGHTS, WEIGHTS):
        total += 1
        if name in now and tensor.shape == now[name].shape and tensor.tobytes() == now[name].tobytes():
            continue
        count += 1
        first = first or name
        if name in now and tensor.shape == now[name].shape:
            largest = max(largest, float(np.abs(tensor - now[name]).max()))
    if not count:
        return None
    return f"{count} of {total} tensors differ, the first is {first}, the largest difference is {largest:.3g}"


def compare_documents(release: Path, corpus: Path) -> list[str]:
    """A line for each document that is not the recorded one, by uri; empty when order, split and every digest are equal."""
    import pyarrow.parquet as pq

    columns = ["uri", "split", "sha256"]
    then, now = (pq.read_table(path, columns=columns).to_pylist() for path in (release / layout.DOCUMENTS, corpus / "documents.parquet"))
    if then == now:
        return []
    by_uri_then, by_uri_now = ({row["uri"]: row for row in rows} for rows in (then, now))
    lines = []
    for uri in sorted({*by_uri_then, *by_uri_now}):
        before, after = by_uri_then.get(uri), by_uri_now.get(uri)
        if before is None:
            lines.append(f"{uri}: not in the recorded corpus")
        elif after is None:
            lines.append(f"{uri}: missing")
        elif before["sha256"] != after["sha256"]:
            lines.append(f"{uri}: another text")
        elif before != after:
            lines.append(f"{uri}: {after['split']} now, {before['split']} then")
    return lines or ["the same documents in another order"]


def _rows(path: Path) -> list[Json]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path}: not readable ({error})") from None
