"""What `hearth data` does: call the room, and print. Each function gives an exit status."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from openhearth.budget_text import clock
from openhearth.data import buckets, build, built, inspecting, raw, removal, settings
from openhearth.data.settings import DataRecipe
from openhearth.errors import HearthError
from openhearth.ledger import Json, read_json, write_json
from openhearth.serve.terminal import harmless

SOURCES = "sources.json"
"""Beside a corpus: where its sources lie on this machine, so that `remove` can build it again. Not part of the corpus."""
EVERY = 5.0, 0.3
"""Seconds between two signs of progress: lines, and in a terminal."""


class _Lines:
    """Progress on the standard error: one line that is redrawn in a terminal, else a line every few seconds."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()
        self.live = sys.stderr.isatty()

    def progress(self, done: int, total: int, documents: int, dropped: Counter[str]) -> None:
        now = time.monotonic()
        if now - self.last < EVERY[self.live] and done < total:
            return
        self.last = now
        took = now - self.began
        rate = done / 1e6 / max(took, 1e-9)
        gone = ", ".join(f"{count:,} by {step}" for step, count in dropped.items() if count)
        left = f"  about {clock(took * (total - done) / done)} left" if 0 < done < total and took > 1 else ""
        line = f"{done / max(1, total):4.0%}  {documents:,} documents  {rate:.1f} MB/s  dropped: {gone or 'none'}{left}"
        print(f"\r{line}\033[K" if self.live else line, end="" if self.live and done < total else "\n", file=sys.stderr, flush=True)


def build_command(
    inputs: Sequence[str], out: Path, *, shared: dict[str, str], sets: Sequence[str], workers: int | None, dry_run: bool, json: bool
) -> int:
    """Build a corpus from a data recipe or from paths."""
    recipe = _recipe(inputs, shared, sets)
    made = build.build(recipe, out, workers=workers, dry_run=dry_run, watch=_Lines())
    if not dry_run:
        write_json(out / SOURCES, jsonlib.loads(recipe.model_dump_json()))
    if json:
        _print({**made.report, "folder": str(out), "dry_run": dry_run, "buckets_written": made.written})
    else:
        inspecting.print_report(made.report, out)
        print(
            f"\nnothing was written but {out / 'work'}; without --dry-run the corpus is"
            if dry_run
            else f"\nsee also: hearth data show {out} ID"
        )
    return 0


def _recipe(inputs: Sequence[str], shared: dict[str, str], sets: Sequence[str]) -> DataRecipe:
    if len(inputs) == 1 and inputs[0].endswith(".toml") and raw.format_of(inputs[0]) is not None:
        if shared:
            raise HearthError(f"{inputs[0]}: a recipe says {', '.join(shared)} itself, by source; leave out --{next(iter(shared))}")
        return settings.load(Path(inputs[0]), sets)
    return settings.of_paths(inputs, shared, sets)


def report_command(folder: Path, *, json: bool) -> int:
    """Print the report of a corpus."""
    report = inspecting.facts(folder)
    _print(report) if json else inspecting.print_report(report, folder)
    return 0


def show_command(folder: Path, doc_id: str, *, json: bool) -> int:
    """Print one document."""
    row = inspecting.find(folder, doc_id)
    _print(row) if json else inspecting.print_document(row)
    return 0


def search_command(folder: Path, phrase: str, *, ignore_case: bool, limit: int, json: bool) -> int:
    """Print the occurrences of a phrase; exit status 1 when there is none."""
    rows: list[Json] = []
    count = 0
    for row in inspecting.search(folder, phrase, ignore_case):
        count += 1
        if len(rows) < limit:
            rows.append(row)
    if json:
        _print({"phrase": phrase, "occurrences": count, "shown": rows})
        return 0 if count else 1
    for row in rows:
        context = " ".join(f"{row['before']}[{row['phrase']}]{row['after']}".split())
        print(f"{row['doc_id'][:10]}  {harmless(row['uri'])}  {row['licence']}\n    ...{harmless(context)}...")
    print(f"{count:,} occurrences" + (f", {limit:,} shown" if count > limit else "") if count else "the phrase is not in the corpus")
    return 0 if count else 1


def verify_command(folder: Path, *, json: bool) -> int:
    """Check a corpus; exit status 1 on a fault."""
    faults = buckets.verify(folder)
    manifest = built.manifest_of(folder)
    if json:
        _print({"folder": str(folder), "digest": manifest["digest"], "faults": faults})
    else:
        print("\n".join(faults) if faults else f"{folder}: every file and every text is as it was written ({manifest['digest'][:16]})")
    return 1 if faults else 0


def remove_command(
    folder: Path,
    *,
    docs: Sequence[str],
    sources: Sequence[str],
    matching: Path | None,
    copies: bool,
    why: str,
    workers: int | None,
    json: bool,
) -> int:
    """Record requests to remove documents and build the corpus again without them."""
    manifest = built.manifest_of(folder)
    if not (folder / SOURCES).is_file():
        raise HearthError(
            f"{folder / SOURCES}: missing, so the corpus cannot be built again; build it with: hearth data build ... --out {folder}"
        )
    recipe = DataRecipe.model_validate_json(jsonlib.dumps(read_json(folder / SOURCES)), strict=True)
    ids = {str(inspecting.find(folder, doc)["doc_id"]) for doc in docs}
    if matching is not None:
        ids |= build.holding(recipe, folder, matching)
    if copies:
        clusters = buckets.table(folder, "clusters.parquet")
        touched = {
            row["cluster"] for row in clusters if row["doc_id"] in ids or any(removal.covers(source, row["uri"]) for source in sources)
        }
        ids |= {row["doc_id"] for row in clusters if row["cluster"] in touched and not row["corpus"]}
    if matching is not None and not ids and not sources:
        raise HearthError(f"{matching}: no document holds any of its phrases, so there is nothing to remove")
    for source in sources or [""]:
        removal.add_request(folder, sorted(ids), source, why)
        ids = set()
    made = build.build(recipe, folder, workers=workers, watch=_Lines())
    after = built.manifest_of(folder)
    gone = manifest["input"] - after["input"]
    facts = {"removed": gone, "buckets_written": made.written, "buckets": recipe.buckets, "digest": after["digest"], "kept": after["kept"]}
    _print(facts) if json else print(
        f"{gone:,} removed; {made.written} of {recipe.buckets} buckets written again; {after['kept']:,} documents are kept"
    )
    return 0


def _print(value: Json) -> None:
    print(jsonlib.dumps(value, indent=2, ensure_ascii=False))
