"""The work that is done for each unit of input by itself: read, clean, look for evaluations, sign. Each step is kept under its key.

The idea: a unit is a large file or a run of small ones. What a step leaves depends on its settings, its code and the bytes that it reads,
so its key is the digest of those: a killed build, another number of workers or a change in a later step does nothing twice. A step
writes to a temporary folder and renames it. Documents lie in row groups by bucket, so that the corpus is written bucket by bucket.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from openhearth.code_digest import code_digest
from openhearth.data import language, licences, minhash, normalise, personal, quality, raw, toxicity
from openhearth.data.batches import DOCUMENTS, DROPS, Stage, drop_rows, excerpt, run
from openhearth.data.decontaminate import HITS, Evaluations, evaluations
from openhearth.data.places import Place
from openhearth.data.removal import Requests
from openhearth.data.settings import DataRecipe
from openhearth.ledger import Json, digest_bytes, digest_file, digest_json, disk_error

BATCH = 2 << 20
"""Bytes of text that the stages see at once: its arrays stay below 100 MB."""

PART = 32 << 20
"""Bytes of text in a file of a step."""


@dataclass(frozen=True)
class Unit:
    """Files that are read together, and what their bytes are."""

    source: int
    places: tuple[Place, ...]
    digest: str
    bytes: int


@dataclass(frozen=True)
class Job:
    """All that a worker needs to do a unit: plain values, so that it can be sent to another process."""

    recipe: DataRecipe
    requests: Requests
    evaluation_digests: tuple[str, ...]
    work: Path


class Code:
    """Stands for the code of all steps in their keys: the modules that this one imports."""


def bucket_of(doc_id: str, buckets: int) -> int:
    """The bucket of a document: a function of its id alone."""
    return int(doc_id[:8], 16) % buckets


def doc_id_of(uri: str, text: str) -> str:
    """The id of a document: sha256 of its uri, NUL and its text as it was read."""
    return digest_bytes(uri.encode() + b"\0" + text.encode())


# -- what a step leaves -----------------------------------------------------------------------------------------------------


class Output:
    """A folder of Parquet files being written; `done` renames it, so that it is whole or not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.parts: list[list[int]] = []

    def write(self, name: str, table: pyarrow.Table) -> None:
        """One file with one row group."""
        try:
            pyarrow.parquet.write_table(table, self.partial / name, compression="zstd", compression_level=1)
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def part(self, batches: Sequence[pyarrow.RecordBatch], buckets: int) -> None:
        """A file of documents with a row group for each bucket that has some."""
        table = pyarrow.Table.from_batches(batches, schema=DOCUMENTS)
        owners = numpy.array([bucket_of(doc_id, buckets) for doc_id in table.column("doc_id").to_pylist()], numpy.int64)
        present = numpy.unique(owners).tolist()
        path = self.partial / f"documents-{len(self.parts):05d}.parquet"
        try:
            with pyarrow.parquet.ParquetWriter(path, DOCUMENTS, compression="zstd", compression_level=1) as writer:
                for bucket in present:
                    writer.write_table(table.take(pyarrow.array(numpy.flatnonzero(owners == bucket))))
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self.parts.append(present)

    def done(self, **facts: Any) -> Json:
        """Seal the folder; gives its facts with the digest of its files."""
        digest = digest_json({path.name: digest_file(path) for path in sorted(self.partial.glob("*.parquet"))})
        known = {**facts, "parts": self.parts, "digest": digest}
        (self.partial / "done.json").write_text(json.dumps(known))
        shutil.rmtree(self.folder, ignore_errors=True)
        self.partial.replace(self.folder)
        return known


def known(folder: Path) -> Json | None:
    """The facts of a finished step, or None."""
    try:
        facts: Json = json.loads((folder / "done.json").read_bytes())
        return facts
    except (OSError, ValueError):
        return None


def documents(folder: Path, facts: Json, bucket: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pyarrow.RecordBatch]:
    """The documents that a step left, in batches of about `BATCH` bytes; of one bucket if asked."""
    for number, present in enumerate(facts["parts"]):
        with pyarrow.parquet.ParquetFile(folder / f"documents-{number:05d}.parquet", memory_map=True) as file:
            for group, owner in enumerate(present):
                if bucket is None or owner == bucket:
                    yield from file.read_row_group(group, columns=columns).to_batches()


def batched(batches: Iterable[pyarrow.RecordBatch], size: int = BATCH) -> Iterator[pyarrow.RecordBatch]:
    """The same rows in batches of about `size` bytes of text."""
    held: list[pyarrow.RecordBatch] = []
    total = 0
    for batch in batches:
        start = 0
        for place, length in enumerate(pyarrow.compute.binary_length(batch.column("text")).to_pylist()):
            total += length
            if total >= size:
                held.append(batch.slice(start, place + 1 - start))
                yield _one(held)
                held, total, start = [], 0, place + 1
        if start < batch.num_rows:
            held.append(batch.slice(start))
    if held:
        yield _one(held)


def _one(batches: Sequence[pyarrow.RecordBatch]) -> pyarrow.RecordBatch:
    return pyarrow.Table.from_batches(batches).combine_chunks().to_batches()[0]


# -- the steps --------------------------------------------------------------------------------------------------------------


@functools.cache
def code() -> str:
    """The digest of all code that a step can reach."""
    return code_digest(Code)


def do(unit: Unit, job: Job) -> Json:
    """All steps of a unit, those that are not done yet; gives the folders and facts of each."""
    read_folder, read = read_step(unit, job)
    clean_folder = job.work / "clean" / _key("clean", job, read["digest"])
    clean = known(clean_folder) or _clean(clean_folder, read_folder, read, job)
    result = {"read": (str(read_folder), read), "clean": (str(clean_folder), clean)}
    if job.recipe.evaluations.files:
        folder = job.work / "hits" / _key("hits", job, clean["digest"])
        result["hits"] = (str(folder), known(folder) or _hits(folder, clean_folder, clean, job))
    folder = job.work / "sign" / _key("sign", job, clean["digest"])
    result["sign"] = (str(folder), known(folder) or _sign(folder, documents(clean_folder, clean), job.recipe))
    return result


def read_step(unit: Unit, job: Job) -> tuple[Path, Json]:
    """The texts of a unit as they were read, without those that were asked to be removed."""
    folder = job.work / "read" / _key("read", job, unit.digest)
    return folder, _read(folder, unit, job)


def sign_bucket(path: Path, digest: str, job: Job) -> tuple[str, Json]:
    """The signatures of one file of a corpus built earlier."""
    folder = job.work / "sign" / _key("sign", job, digest)
    with pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
        return str(folder), known(folder) or _sign(folder, file.iter_batches(columns=["doc_id", "uri", "text"]), job.recipe)


def _key(step: str, job: Job, digest: str) -> str:
    recipe = job.recipe
    settings: Any = {
        "read": [],
        "clean": [
            {name: profile.model_dump() for name, profile in recipe.profiles().items()},
            recipe.personal,
            [digest_file(Path(recipe.toxic_words)), recipe.max_toxic] if recipe.toxic_words else [],
            recipe.licences.model_dump(),
            recipe.buckets,
        ],
        "hits": list(job.evaluation_digests),
        "sign": recipe.duplicates.model_dump(exclude={"similarity", "bands", "against", "loser", "min_left"}),
    }[step]
    return digest_json([step, settings, code(), digest])[:32]


def _read(folder: Path, unit: Unit, job: Job) -> Json:
    """Read the files of a unit; what was asked to be removed is not written. A request that is new takes its documents out again."""
    facts = known(folder)
    if facts is not None and set(facts["requests"]) <= set(job.requests.digests):
        if facts["requests"] == list(job.requests.digests):
            return facts
        if not any(job.requests.match(doc_id, uri) for doc_id, uri in _named(folder, facts)):
            facts["requests"] = list(job.requests.digests)
            (folder / "done.json").write_text(json.dumps(facts))
            return facts
    source = job.recipe.source[unit.source]
    tree = licences.Tree(Path(source.path).expanduser())
    output = Output(folder)
    rows: list[Json] = []
    drops: list[Json] = []
    held: list[pyarrow.RecordBatch] = []
    size = total = count = 0
    for place in unit.places:
        for item in raw.read(place, source, tree):
            if isinstance(item, raw.Refusal):
                drop = item.drop
                doc_id = digest_bytes(drop.uri.encode())
                if not job.requests.match(doc_id, drop.uri):
                    drops.append(read_drop(doc_id, source.name, drop.uri, drop.rule, drop.value, drop.threshold, item.offset))
                continue
            doc_id = doc_id_of(item.uri, item.text)
            if job.requests.match(doc_id, item.uri):
                continue
            rows.append(_document(doc_id, source.name, item))
            size += len(item.text)
            if size >= BATCH:
                held.append(pyarrow.RecordBatch.from_pylist(rows, schema=DOCUMENTS))
                total, count, rows, size = total + size, count + len(rows), [], 0
                if total >= PART:
                    output.part(held, 1)
                    held, total = [], 0
    if rows:
        held.append(pyarrow.RecordBatch.from_pylist(rows, schema=DOCUMENTS))
        count += len(rows)
    if held:
        output.part(held, 1)
    output.write("drops.parquet", pyarrow.Table.from_batches([drop_rows(drops)]))
    return output.done(documents=count, drops=len(drops), requests=list(job.requests.digests))


def _named(folder: Path, facts: Json) -> Iterator[tuple[str, str]]:
    """The ids and uris of all that a unit holds, drops included."""
    batches = list(documents(folder, facts, columns=["doc_id", "uri"]))
    batches += pyarrow.parquet.read_table(folder / "drops.parquet", columns=["doc_id", "uri"]).to_batches()
    for batch in batches:
        yield from zip(batch.column("doc_id").to_pylist(), batch.column("uri").to_pylist(), strict=True)


def read_drop(doc_id: str, source: str, uri: str, rule: str, value: str, threshold: str, offset: int) -> Json:
    """The row of something that could not be read."""
    row = {"doc_id": doc_id, "uri": uri, "source": source, "stage": "read", "rule": rule}
    return {**row, "value": value, "threshold": threshold, "excerpt": "", "offset": offset}


def _document(doc_id: str, source: str, item: raw.Raw) -> Json:
    row = {"doc_id": doc_id, "uri": item.uri, "source": source, "profile": item.profile, "licence": item.licence.spdx}
    row |= {"evidence": item.licence.evidence, "licence_rule": item.licence.rule, "date": item.date, "language": "", "edits": ""}
    return {**row, "offset": item.offset, "raw_bytes": item.size, "text": item.text}


def stages(recipe: DataRecipe) -> list[Stage]:
    """The stages of cleaning in order."""
    profiles = recipe.profiles()
    chosen: list[Stage] = [
        functools.partial(licences.judge_licences, policy=recipe.licences),
        functools.partial(normalise.normalise, profiles=profiles),
    ]
    if any(profile.languages for profile in profiles.values()):
        chosen.append(functools.partial(language.identify, profiles=profiles))
    chosen += [functools.partial(quality.judge_quality, profiles=profiles), functools.partial(quality.judge_repetition, profiles=profiles)]
    if recipe.toxic_words:
        listed = toxicity.word_list(recipe.toxic_words)
        chosen.append(functools.partial(toxicity.judge_toxicity, toxic=listed, most=recipe.max_toxic))
    if recipe.personal:
        chosen.append(personal.replace_personal)
    return chosen


def _clean(folder: Path, read_folder: Path, read: Json, job: Job) -> Json:
    output = Output(folder)
    chosen = stages(job.recipe)
    held: list[pyarrow.RecordBatch] = []
    drops: list[pyarrow.RecordBatch] = []
    total = count = 0
    for batch in batched(documents(read_folder, read)):
        result = run(chosen, batch)
        drops.append(result.drops)
        count += result.kept.num_rows
        held.append(result.kept)
        total += result.kept.nbytes
        if total >= PART:
            output.part(held, job.recipe.buckets)
            held, total = [], 0
    if any(batch.num_rows for batch in held):
        output.part(held, job.recipe.buckets)
    table = pyarrow.Table.from_batches(drops, schema=DROPS)
    output.write("drops.parquet", table)
    return output.done(documents=count, drops=table.num_rows)


def _hits(folder: Path, clean_folder: Path, clean: Json, job: Job) -> Json:
    wanted: Evaluations = evaluations(job.recipe.evaluations.files, job.evaluation_digests)
    found = [
        wanted.hits(batch.column("doc_id").to_pylist(), batch.column("text").to_pylist())
        for batch in batched(documents(clean_folder, clean))
    ]
    output = Output(folder)
    output.write("hits.parquet", pyarrow.Table.from_batches(found, schema=HITS))
    return output.done()


SIGNED = pyarrow.schema(
    {
        "doc_id": pyarrow.string(),
        "uri": pyarrow.string(),
        "sha256": pyarrow.binary(32),
        "characters": pyarrow.int64(),
        "signature": pyarrow.binary(),
        "excerpt": pyarrow.string(),
        "passages": pyarrow.list_(pyarrow.uint64()),
        "lengths": pyarrow.list_(pyarrow.int32()),
    }
)
"""What copies are found by: the digest of the text, its signature (empty where it is too short or not asked), its passages."""


def _sign(folder: Path, batches: Iterable[pyarrow.RecordBatch], recipe: DataRecipe) -> Json:
    asked = recipe.duplicates
    output = Output(folder)
    found = []
    for batch in batched(batches):
        texts = batch.column("text").to_pylist()
        signed: list[bytes] = [b""] * len(texts)
        if asked.near:
            values, of = minhash.signatures(texts, asked.permutations, asked.ngram)
            for place, value in zip(of.tolist(), values, strict=True):
                signed[place] = value.tobytes()
        parts = [passages(text, asked.passages, asked.min_passage) for text in texts]
        columns = [
            batch.column("doc_id").cast(pyarrow.string()),
            batch.column("uri").cast(pyarrow.string()),
            pyarrow.array([hashlib.sha256(text.encode()).digest() for text in texts], pyarrow.binary(32)),
            pyarrow.array(list(map(len, texts)), pyarrow.int64()),
            pyarrow.array(signed, pyarrow.binary()),
            pyarrow.array([excerpt(text) for text in texts], pyarrow.string()),
            pyarrow.array([hashes for hashes, _ in parts], pyarrow.list_(pyarrow.uint64())),
            pyarrow.array([lengths for _, lengths in parts], pyarrow.list_(pyarrow.int32())),
        ]
        found.append(pyarrow.RecordBatch.from_arrays(columns, schema=SIGNED))
    output.write("signed.parquet", pyarrow.Table.from_batches(found, schema=SIGNED))
    return output.done()


SEPARATORS = {"paragraph": "\n\n", "line": "\n"}


def passages(text: str, kind: str, shortest: int) -> tuple[list[int], list[int]]:
    """A hash of each paragraph or line, 0 for those too short to count, and their characters; nothing for "none"."""
    if kind == "none":
        return [], []
    parts = text.split(SEPARATORS[kind])
    hashes = [
        int.from_bytes(hashlib.blake2b(" ".join(part.split()).encode(), digest_size=8).digest(), "little") | 1
        if len(part) >= shortest
        else 0
        for part in parts
    ]
    return hashes, list(map(len, parts))
