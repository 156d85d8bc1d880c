"""The folder of a built corpus: writing it so that only what changed is written, its report, its notice, and checking it.

The idea: `corpus.json` lists every file with its sha256 and, for a bucket, the digest of its rows: rows with the digest that is written
already are left alone, so a removal touches the buckets it must. Equal settings and inputs give equal bytes in every file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from openhearth.data import batches
from openhearth.data.built import DOCUMENTS, FORMAT, MANIFEST, manifest_of
from openhearth.data.documents import WEIGHTLESS
from openhearth.data.licences import class_of, drift, notice, treatment
from openhearth.data.settings import DataRecipe
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json, digest_bytes, digest_file, digest_json, disk_error, write_atomic, write_json

SAMPLES = 5
"""Of each rule, in a report."""

COLUMNS = (*(name for name in batches.DOCUMENTS.names if name != "text"), "cluster", "set", "sha256", "bytes", "text")
_TYPES = {"offset": pyarrow.int64(), "raw_bytes": pyarrow.int64(), "bytes": pyarrow.int64(), "text": pyarrow.large_string()}
SCHEMA = pyarrow.schema([(name, _TYPES.get(name, pyarrow.string())) for name in COLUMNS])
"""A document of a corpus. `set`: mix (trained on), apart (its licence asks for it), aside (its source is)."""


def check_free(out: Path) -> None:
    """Raise HearthError for a folder that holds something other than a corpus."""
    if out.exists() and not out.is_dir():
        raise HearthError(f"{out}: is not a folder; choose another one with --out")
    if out.is_dir() and not (out / MANIFEST).exists() and any(entry.name not in ("work", "removals.jsonl") for entry in out.iterdir()):
        raise HearthError(f"{out}: holds files that are no corpus; choose another folder with --out")


# -- writing ----------------------------------------------------------------------------------------------------------------


def write(
    out: Path,
    recipe: DataRecipe,
    report: Json,
    rows_of: Callable[[int], list[Json]],
    *,
    tables: Mapping[str, pyarrow.Table],
    lists: Mapping[str, Sequence[Json]],
    contamination: Sequence[Json],
) -> int:
    """Write everything that changed, the manifest last; gives the number of buckets that were written."""
    before = manifest_of(out)["files"] if (out / MANIFEST).is_file() else {}
    files: dict[str, Json] = {}
    (out / DOCUMENTS).mkdir(exist_ok=True)
    notices: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    groups = {source.name: source.group for source in recipe.source}
    written = 0
    for bucket in range(recipe.buckets):
        name = f"{DOCUMENTS}{bucket:0{max(2, len(str(recipe.buckets - 1)))}d}.parquet"
        rows = [_finished(row, recipe, groups) for row in rows_of(bucket)]
        for row in rows:
            file = (str(row["uri"]).split(":")[0], str(row["evidence"]))
            count, size = notices.setdefault(row["licence"], {}).get(file, (0, 0))
            notices[row["licence"]][file] = (count + 1, size + row["bytes"])
        if not rows:
            (out / name).unlink(missing_ok=True)
            continue
        digest = digest_json([[row[column] for column in COLUMNS if column != "text"] for row in rows])
        known = before.get(name, {})
        if known.get("rows_sha256") != digest or not (out / name).is_file():
            _write_table(out / name, pyarrow.Table.from_pylist(rows, schema=SCHEMA))
            known = {"sha256": digest_file(out / name), "rows": len(rows), "rows_sha256": digest}
            written += 1
        files[name] = known
    for name, table in tables.items():
        _write_table(out / name, table)
    for name, entries in lists.items():
        write_atomic(out / name, b"".join(json.dumps(entry, ensure_ascii=False).encode() + b"\n" for entry in entries))
    write_json(out / "contamination.json", list(contamination))
    write_json(out / "report.json", report)
    write_atomic(out / "NOTICE", notice(notices).encode())
    for name in (*tables, *lists, "contamination.json", "report.json", "NOTICE"):
        files[name] = {"sha256": digest_file(out / name)}
    root = digest_json({name: listed["sha256"] for name, listed in sorted(files.items())})
    manifest = {
        "format": FORMAT,
        "recipe": settings_json(recipe),
        "digest": root,
        "input": report["input"],
        "kept": report["kept"],
        "files": files,
    }
    write_json(out / MANIFEST, manifest)
    for path in (out / DOCUMENTS).iterdir():
        if f"{DOCUMENTS}{path.name}" not in files:
            path.unlink()
    return written


def _finished(row: Json, recipe: DataRecipe, groups: Mapping[str, str]) -> Json:
    data = row["text"].encode()
    apart = treatment(row["licence"], recipe.licences) == "apart"
    part = "aside" if groups[row["source"]] == "aside" else "apart" if apart else "mix"
    return {**row, "set": part, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _write_table(path: Path, table: pyarrow.Table) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", row_group_size=1_000)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def settings_json(recipe: DataRecipe) -> Json:
    """A recipe as it stands in the manifest: where files lie on this machine is left out."""
    content: Json = json.loads(recipe.model_dump_json())
    for source in content["source"]:
        del source["path"]
    content["duplicates"]["against"] = [Path(folder).name for folder in recipe.duplicates.against]
    content["evaluations"]["files"] = [Path(file).name for file in recipe.evaluations.files]
    content["toxic_words"] = Path(recipe.toxic_words).name
    return content


def quarantine(drops: pyarrow.Table) -> list[Json]:
    """What could not be read of what was meant to be: file, offset (-1: the whole file), reason."""
    return [
        {"file": row["uri"], "offset": row["offset"], "reason": f"{row['rule']}: {row['value']}", "needed": row["threshold"]}
        for row in drops.to_pylist()
        if row["stage"] == "read" and row["rule"] not in (*WEIGHTLESS, "ignored")
    ]


# -- report -----------------------------------------------------------------------------------------------------------------


def report_of(
    recipe: DataRecipe, drops: pyarrow.Table, kept: Iterable[Json], contamination: Sequence[Json], clusters: pyarrow.Table
) -> Json:
    """Counts that add up (`input` = `kept` + all of `dropped`), bytes by what is kept, and samples of every rule."""
    rows = drops.to_pylist()
    dropped = Counter(f"{row['stage']}.{row['rule']}" for row in rows)
    samples: dict[str, list[Json]] = {}
    for row in sorted(rows, key=lambda row: str(row["doc_id"])):
        shown = samples.setdefault(f"{row['stage']}.{row['rule']}", [])
        if len(shown) < SAMPLES:
            shown.append({name: row[name] for name in ("doc_id", "uri", "value", "threshold", "excerpt")})
    counted: dict[str, dict[str, list[int]]] = {name: {} for name in ("source", "profile", "licence", "language")}
    edits: Counter[str] = Counter()
    by_licence: dict[str, dict[str, int]] = {}
    documents = size = 0
    for row in kept:
        documents += 1
        size += row["bytes"]
        for name, sums in counted.items():
            entry = sums.setdefault(row[name] or "-", [0, 0])
            entry[0] += 1
            entry[1] += row["bytes"]
        for edit in row["edits"].split():
            kind, _, count = edit.partition(":")
            edits[kind] += int(count)
        of = by_licence.setdefault(row["source"], {})
        of[row["licence"]] = of.get(row["licence"], 0) + 1
    return {
        "format": FORMAT,
        "name": recipe.name,
        "input": documents + len(rows),
        "kept": documents,
        "bytes": size,
        "dropped": dict(sorted(dropped.items(), key=lambda item: (-item[1], item[0]))),
        **{f"by_{name}": {key: {"documents": n, "bytes": b} for key, (n, b) in sorted(sums.items())} for name, sums in counted.items()},
        "classes": {spdx: class_of(spdx) for spdx in sorted(counted["licence"])},
        "edits": dict(sorted(edits.items())),
        "drift": drift(by_licence),
        "clusters": {"clusters": len(set(clusters.column("cluster").to_pylist())), "documents": clusters.num_rows},
        "contamination": [
            {name: one[name] for name in ("set", "items", "dirty", "share", "too_short", "documents")} for one in contamination
        ],
        "samples": dict(sorted(samples.items())),
    }


# -- reading ----------------------------------------------------------------------------------------------------------------


def documents(folder: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Json]:
    """The documents of a corpus, bucket by bucket, as dictionaries."""
    for name in sorted(manifest_of(folder)["files"]):
        if name.startswith(DOCUMENTS):
            try:
                with pyarrow.parquet.ParquetFile(folder / name, memory_map=True) as file:
                    for batch in file.iter_batches(batch_size=256, columns=list(columns)):
                        yield from batch.to_pylist()
            except (OSError, pyarrow.ArrowException) as error:
                raise DamagedError(f"{folder / name}: damaged ({str(error)[:100]}); build the corpus again") from None


def table(folder: Path, name: str) -> list[Json]:
    """The rows of one of the corpus's tables."""
    try:
        rows: list[Json] = pyarrow.parquet.read_table(folder / name).to_pylist()
        return rows
    except (OSError, pyarrow.ArrowException) as error:
        raise DamagedError(f"{folder / name}: damaged ({str(error)[:100]}); build the corpus again") from None


def verify(folder: Path) -> list[str]:
    """What is wrong with a corpus, a sentence each: files that are missing, changed or too many, rows that do not add up."""
    manifest = manifest_of(folder)
    faults = []
    for name, listed in manifest["files"].items():
        if not (folder / name).is_file():
            faults.append(f"{name}: missing")
        elif digest_file(folder / name) != listed["sha256"]:
            faults.append(f"{name}: changed (its sha256 is not the one in {MANIFEST})")
    expected = {name: listed["sha256"] for name, listed in sorted(manifest["files"].items())}
    if digest_json(expected) != manifest["digest"]:
        faults.append(f"{MANIFEST}: its digest does not match its list of files")
    if faults:
        return faults
    extra = sorted(path.name for path in (folder / DOCUMENTS).iterdir() if f"{DOCUMENTS}{path.name}" not in manifest["files"])
    faults += [f"{DOCUMENTS}{name}: is not listed in {MANIFEST}" for name in extra]
    kept = 0
    for row in documents(folder, ("doc_id", "sha256", "text")):
        kept += 1
        if digest_bytes(row["text"].encode()) != row["sha256"]:
            faults.append(f"document {row['doc_id']}: its text is not the one its sha256 stands for")
    dropped = len(table(folder, "drops.parquet"))
    if kept + dropped != manifest["input"]:
        faults.append(f"{kept:,} documents and {dropped:,} drops are not the {manifest['input']:,} that came in")
    return faults
