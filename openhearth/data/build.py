"""Building a corpus from a data recipe: units in a pool of processes, one decision over all, then the corpus bucket by bucket.

    documents/00.parquet ...  what is kept, by bucket (a function of the id), in order of the id
    drops.parquet             a row for each document that is not: stage, rule, value, threshold; with the kept ones they are the input
    clusters.parquet          every member of every group of copies
    contamination.json, quarantine.jsonl, NOTICE, report.json
    corpus.json               settings, counts and the sha256 of every file
    removals.jsonl, work/     requests; the steps that are kept so that nothing is done twice (may be deleted)

The idea: everything that depends on one document alone happens in its unit; what depends on others happens once, on signatures. A bucket
is written only when what belongs in it has changed.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from openhearth.data import buckets, built, duplicates, licences, raw, steps
from openhearth.data.batches import DROPS, Why
from openhearth.data.decontaminate import HITS, contamination, evaluations
from openhearth.data.documents import Drop
from openhearth.data.places import Place
from openhearth.data.removal import Requests, read_requests
from openhearth.data.settings import DataRecipe
from openhearth.data.steps import Job, Unit
from openhearth.errors import HearthError
from openhearth.inputs import read_small
from openhearth.ledger import Json, digest_bytes, digest_file, digest_json, require_space

UNIT = 16 << 20
"""Bytes of files that are read together; a larger file is a unit of its own."""

INLINE = 8 << 20
"""Bytes of input below which starting other processes takes longer than the work."""


class Watch(Protocol):
    """Who is told how far a build is."""

    def progress(self, done: int, total: int, documents: int, dropped: Counter[str]) -> None:
        """`done` of `total` bytes of input; documents so far, and how many each rule dropped."""
        ...


@dataclass(frozen=True)
class Selection:
    """What is in a corpus and what is not: the facts from which it is written."""

    kept: dict[str, Json]  # by doc_id: cluster, passages to cut
    drops: pyarrow.Table
    clusters: pyarrow.Table
    contamination: list[Json]
    superseded: list[Json]


@dataclass(frozen=True)
class Built:
    """A finished build: its folder, its report and how many buckets were written."""

    folder: Path
    report: Json
    written: int


def build(recipe: DataRecipe, out: Path, *, workers: int | None = None, dry_run: bool = False, watch: Watch | None = None) -> Built:
    """Build the corpus of `recipe` in the folder `out`; with `dry_run` only its report, and what was done is kept for the build.

    The result depends on the input, the recipe and the requests to remove alone. Raises HearthError for what a user can mend.
    """
    if problems := licences.unknown_names(recipe.licences):
        raise HearthError(f"licences.allow: {problems[0]}")
    buckets.check_free(out)
    requests = read_requests(out)
    gathered = [_gather(recipe, number, requests) for number in range(len(recipe.source))]
    units = [unit for found, _ in gathered for unit in found]
    refused = [drop for _, found in gathered for drop in found]
    if not units and not refused and not requests.rows:
        raise HearthError(f"{', '.join(source.path for source in recipe.source)}: nothing to read; give files or folders with text")
    require_space(out, sum(unit.bytes for unit in units), "the corpus and its steps")
    (out / "work").mkdir(parents=True, exist_ok=True)
    with _alone(out):
        return _build(recipe, out, requests, units, refused, workers=workers, dry_run=dry_run, watch=watch)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Raise HearthError while another build works in the same folder; a lock of a process that died holds nobody up."""
    with (out / "work" / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HearthError(f"{out}: another build works in this folder; wait for it, or choose another folder with --out") from None
        yield


def _build(
    recipe: DataRecipe, out: Path, requests: Requests, units: Sequence[Unit], refused: Sequence[Json],
    *, workers: int | None, dry_run: bool, watch: Watch | None,
) -> Built:  # fmt: skip
    digests = tuple(_evaluation_digest(file) for file in recipe.evaluations.files)
    if digests:
        evaluations(recipe.evaluations.files, digests)  # a file that cannot be read ends the build before it begins
    job = Job(recipe, requests, digests, out / "work")
    results = _run(units, job, workers, watch)
    earlier = [(folder, *_earlier(Path(folder), job)) for folder in recipe.duplicates.against]
    selection = _select(job, units, results, refused, [(name, table) for name, _, table in earlier])
    used = {Path(folder) for result in results for folder, _ in result.values()} | {
        folder for _, folders, _ in earlier for folder in folders
    }
    report = buckets.report_of(recipe, selection.drops, _kept_rows(results, selection.kept), selection.contamination, selection.clusters)
    written = 0
    if not dry_run:
        if not selection.kept and not requests.rows:  # what was to be removed must go, also when nothing is left
            by_rule = ", ".join(f"{count:,} {rule}" for rule, count in list(report["dropped"].items())[:4])
            raise HearthError(
                f"{out}: every document was left out ({by_rule}); look at them with: hearth data build ... --out {out} --dry-run, "
                "and loosen the rule in the recipe"
            )
        written = buckets.write(
            out, recipe, report, lambda bucket: _bucket(bucket, results, selection.kept, recipe),
            tables={"drops.parquet": selection.drops, "clusters.parquet": selection.clusters},
            lists={"superseded.jsonl": selection.superseded, "quarantine.jsonl": buckets.quarantine(selection.drops)},
            contamination=selection.contamination,
        )  # fmt: skip
    _forget(out / "work", used)
    return Built(out, report, written)


# -- units ------------------------------------------------------------------------------------------------------------------


def _gather(recipe: DataRecipe, number: int, requests: Requests) -> tuple[list[Unit], list[Json]]:
    source = recipe.source[number]
    prefix = f"{source.name}/" if source.name else f"{number + 1}/" if len(recipe.source) > 1 else ""
    held: list[tuple[Place, str]] = []
    units: list[Unit] = []
    drops: list[Json] = []
    size = 0
    for item in raw.gather(source, prefix):
        uri = item.uri
        if requests.match("", uri):
            continue  # a whole file or folder that is to be removed is not even opened
        if isinstance(item, Drop):
            if not item.uri.endswith("/") and item.rule == "hidden" and Path(item.uri).name == ".gitignore":
                continue
            drops.append(steps.read_drop(digest_bytes(uri.encode()), source.name, uri, item.rule, item.value, item.threshold, -1))
            continue
        try:
            digest = digest_file(item.path)
        except OSError as error:
            drops.append(
                steps.read_drop(
                    digest_bytes(uri.encode()), source.name, uri, "unreadable", os.strerror(error.errno or 0), "readable files", -1
                )
            )
            continue
        if held and size + item.bytes > UNIT:
            units.append(_unit(recipe, number, held))
            held, size = [], 0
        held.append((item, digest))
        size += item.bytes
    if held:
        units.append(_unit(recipe, number, held))
    return units, drops


def _unit(recipe: DataRecipe, number: int, held: Sequence[tuple[Place, str]]) -> Unit:
    source = recipe.source[number]
    tree = licences.Tree(Path(source.path).expanduser())
    known = [[place.uri, digest, str(tree.licence_of(place.path))] for place, digest in held]
    settings = source.model_dump(exclude={"path", "group"})
    return Unit(number, tuple(place for place, _ in held), digest_json([settings, known]), sum(place.bytes for place, _ in held))


def _run(units: Sequence[Unit], job: Job, workers: int | None, watch: Watch | None) -> list[dict[str, tuple[str, Json]]]:
    """The steps of all units, in their order; in other processes when there is enough to do."""
    total = sum(unit.bytes for unit in units)
    done = documents = 0
    dropped: Counter[str] = Counter()
    results: dict[int, Any] = {}

    def note(number: int, result: Any) -> None:
        nonlocal done, documents
        results[number] = result
        done += units[number].bytes
        documents += result["read"][1]["documents"]
        dropped["read"] += result["read"][1]["drops"]
        dropped["cleaning"] += result["clean"][1]["drops"]
        if watch is not None:
            watch.progress(done, total, documents, dropped)

    workers = workers or (os.cpu_count() or 1)
    if workers == 1 or len(units) < 2 or total < INLINE:
        for number, unit in enumerate(units):
            note(number, steps.do(unit, job))
    else:
        with ProcessPoolExecutor(min(workers, len(units)), multiprocessing.get_context("spawn")) as pool:
            try:
                waiting = {pool.submit(steps.do, unit, job): number for number, unit in enumerate(units)}
                for future in as_completed(waiting):
                    note(waiting[future], future.result())
            except BrokenProcessPool:
                raise HearthError(
                    f"{job.work.parent}: a worker was killed (out of memory?); run the same command again, with fewer --workers: "
                    "what is done is kept"
                ) from None
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return [results[number] for number in range(len(units))]


def _earlier(folder: Path, job: Job) -> tuple[list[Path], pyarrow.Table]:
    """The folders of steps and the signatures of a corpus built earlier."""
    manifest = built.manifest_of(folder)
    found = [
        Path(steps.sign_bucket(folder / name, listed["sha256"], job)[0])
        for name, listed in sorted(manifest["files"].items())
        if name.startswith(built.DOCUMENTS)
    ]
    return found, duplicates.gathered(found)


def _evaluation_digest(file: str) -> str:
    path = Path(file)
    if not path.is_file():
        raise HearthError(f"{file}: no such evaluation file; check the path")
    return digest_file(path)


# -- the one decision over all ----------------------------------------------------------------------------------------------


def _select(
    job: Job, units: Sequence[Unit], results: Sequence[Any], refused: Sequence[Json], earlier: Sequence[tuple[str, pyarrow.Table]]
) -> Selection:
    tables = [pyarrow.Table.from_pylist(list(refused), schema=DROPS)]
    for result in results:
        tables += [pyarrow.parquet.read_table(Path(result[step][0]) / "drops.parquet", schema=DROPS) for step in ("read", "clean")]
    signed = duplicates.gathered([Path(result["sign"][0]) for result in results])
    numbers = [unit.source for unit, result in zip(units, results, strict=True) for _ in range(result["clean"][1]["documents"])]
    uris = signed.column("uri").to_pylist()
    order = sorted(range(len(uris)), key=lambda place: (numbers[place], _natural(uris[place])))  # of two copies the first one stays
    signed = signed.take(pyarrow.array(order, pyarrow.int64()))
    hits = pyarrow.concat_tables(
        [HITS.empty_table(), *(pyarrow.parquet.read_table(Path(r["hits"][0]) / "hits.parquet") for r in results if "hits" in r)]
    )
    dirty: dict[str, Why] = {}
    for row in hits.to_pylist():
        dirty.setdefault(row["doc_id"], Why(row["rule"], f"{row['set']}:{row['item']} ({row['value']})", "no item of an evaluation"))
    names: list[str] = signed.column("doc_id").to_pylist()
    clean = signed.filter(pyarrow.array([name not in dirty for name in names], pyarrow.bool_()))
    verdicts = duplicates.decide(clean, earlier, job.recipe.duplicates)
    source_of = [job.recipe.source[numbers[place]].name for place in order]
    rows = []
    kept: dict[str, Json] = {}
    for name, uri, source, shown in zip(
        names, signed.column("uri").to_pylist(), source_of, signed.column("excerpt").to_pylist(), strict=True
    ):
        why = dirty.get(name) or verdicts.why.get(name)
        if why is None:
            kept[name] = {"cluster": verdicts.cluster.get(name, ""), "cut": verdicts.cut.get(name, [])}
            continue
        stage = "decontaminate" if name in dirty else "duplicates"
        row = {"doc_id": name, "uri": uri, "source": source, "stage": stage, "rule": why.rule}
        rows.append({**row, "value": why.value, "threshold": why.threshold, "excerpt": shown, "offset": -1})
    tables.append(pyarrow.Table.from_pylist(rows, schema=DROPS))
    drops = pyarrow.concat_tables(tables).sort_by([("uri", "ascending"), ("stage", "ascending"), ("doc_id", "ascending")]).combine_chunks()
    found = contamination(hits, evaluations(job.recipe.evaluations.files, job.evaluation_digests)) if job.evaluation_digests else []
    return Selection(kept, drops, duplicates.cluster_table(verdicts), found, verdicts.superseded)


def _natural(uri: str) -> tuple[str, int]:
    """A uri so that row 10 of a file comes after row 9."""
    file, _, row = uri.rpartition(":")
    return (file, int(row)) if row.isdecimal() and row.isascii() else (uri, 0)


def _kept_rows(results: Sequence[Any], kept: dict[str, Json]) -> Iterator[Json]:
    """What the report and the notice count, of every kept document."""
    columns = ["doc_id", "uri", "source", "profile", "licence", "evidence", "language", "edits", "text"]
    for result in results:
        folder, facts = result["clean"]
        for batch in steps.documents(Path(folder), facts, columns=columns):
            sizes = pyarrow.compute.binary_length(batch.column("text")).to_pylist()
            for row, size in zip(batch.drop_columns(["text"]).to_pylist(), sizes, strict=True):
                if row["doc_id"] in kept:
                    yield {**row, "bytes": size}


def _bucket(bucket: int, results: Sequence[Any], kept: dict[str, Json], recipe: DataRecipe) -> list[Json]:
    """The documents of one bucket as they go into the corpus, in order of their id."""
    rows: list[Json] = []
    kind = recipe.duplicates.passages
    for result in results:
        folder, facts = result["clean"]
        for batch in steps.documents(Path(folder), facts, bucket):
            for row in batch.to_pylist():
                chosen = kept.get(row["doc_id"])
                if chosen is None:
                    continue
                if chosen["cut"]:
                    mark, gone = steps.SEPARATORS[kind], set(chosen["cut"])
                    row["text"] = mark.join(part for number, part in enumerate(row["text"].split(mark)) if number not in gone)
                    row["edits"] = f"{row['edits']} {kind}s_cut:{len(gone)}".strip()
                rows.append({**row, "cluster": chosen["cluster"]})
    return sorted(rows, key=lambda row: str(row["doc_id"]))


def _forget(work: Path, used: set[Path]) -> None:
    """Delete the steps that this build did not need: old settings, and what held a document that was removed."""
    for step in (step for step in work.iterdir() if step.is_dir()):
        for folder in step.iterdir():
            if folder not in used:
                shutil.rmtree(folder, ignore_errors=True)


def holding(recipe: DataRecipe, out: Path, file: Path) -> set[str]:
    """The ids of all documents, as they were read, that hold a phrase of `file` (one a line): also of copies that are not kept."""
    phrases = [line.strip() for line in read_small(file, limit=1_000_000, what="list of phrases", suffix=".txt").splitlines()]
    wanted = [phrase for phrase in phrases if phrase]
    if not wanted:
        raise HearthError(f"{file}: holds no phrase; write one a line")
    requests = read_requests(out)
    job = Job(recipe, requests, (), out / "work")
    found: set[str] = set()
    for number in range(len(recipe.source)):
        for unit in _gather(recipe, number, requests)[0]:
            folder, facts = steps.read_step(unit, job)
            for batch in steps.documents(folder, facts, columns=["doc_id", "text"]):
                for name, text in zip(batch.column("doc_id").to_pylist(), batch.column("text").to_pylist(), strict=True):
                    if any(phrase in text for phrase in wanted):
                        found.add(name)
    return found
