"""MB of text per processor second of the data room's chain and of its parts, beside datatrove's, on the same documents, in one run.

    python3 -m venv /tmp/datatrove && /tmp/datatrove/bin/pip install 'datatrove[io,processing]==0.10.1' spacy
    .venv/bin/python benchmarks/data.py books/ --datatrove /tmp/datatrove/bin/python

The texts are cut into documents of about 6 kB. Every program runs in a process of its own on one core, one after the other; seconds are
those that its process was given (user and system), from after its imports to its last byte. Chain: read, normalise, language, quality,
repetition, personal data, exact and near copies, evaluations, write. datatrove's chain lacks language (it downloads a model) and
evaluations (it needs lighteval); it has FineWeb's filters and its MinHash in four stages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PIECE = 6_000
"""Characters of a document."""


def main() -> None:
    """Prepare the documents, ask every program in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path, help="files and folders of .txt")
    parser.add_argument("--mb", type=float, default=10.0, help="megabytes for ours")
    parser.add_argument("--datatrove", type=Path, help="a Python with datatrove and spaCy; it gets a fifth of the text")
    parser.add_argument("--evaluation", type=Path, help="JSON lines whose items are looked for")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options.texts[0], options.evaluation)))
        return
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large", Path(folder) / "small"
        texts = list(pieces(options.texts))
        write(large, texts, int(options.mb * 1e6))
        write(small, texts, int(options.mb * 2e5))
        runs = [(name, sys.executable, large) for name in WORKERS if name.startswith("ours")]
        if options.datatrove:
            runs += [(name, str(options.datatrove), small) for name in WORKERS if name.startswith("datatrove")]
        print(f"{'':<28}{'MB':>7}{'s':>9}{'MB/s':>9}{'peak MB':>9}")
        for name, python, data in runs:
            command = [python, __file__, str(data), "--worker", name]
            command += ["--evaluation", str(options.evaluation)] if options.evaluation else []
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": "" if python != sys.executable else os.environ.get("PYTHONPATH", ""),
            }
            ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            if ran.returncode:
                print(f"{name:<28}failed: {ran.stderr.strip().splitlines()[-1:]}")
                continue
            found = json.loads(ran.stdout.splitlines()[-1])
            size, seconds, peak = found["bytes"] / 1e6, found["seconds"], found["peak"] / 1e3
            print(f"{name:<28}{size:>7.1f}{seconds:>9.2f}{size / seconds:>9.2f}{peak:>9.0f}  {found['said']}")


def pieces(paths: list[Path]) -> Iterator[str]:
    """Documents of about `PIECE` characters that end with a paragraph."""
    for path in paths:
        for file in sorted(path.rglob("*.txt")) if path.is_dir() else [path]:
            held: list[str] = []
            for part in file.read_text().split("\n\n"):
                held.append(part)
                if sum(map(len, held)) > PIECE:
                    yield "\n\n".join(held)
                    held = []


def write(folder: Path, texts: list[str], size: int) -> None:
    """JSON lines of `size` bytes of text, spread evenly over all of `texts`."""
    folder.mkdir()
    step = max(1, sum(len(text) for text in texts) // size)
    total = 0
    with (folder / "documents.jsonl").open("w") as file:
        for number, text in enumerate(texts[::step]):
            total += len(text.encode())
            file.write(json.dumps({"text": text, "id": str(number)}) + "\n")
            if total >= size:
                return


def timed(work: Callable[[], Any], size: int) -> dict[str, Any]:
    """Processor seconds and peak memory (kB) of `work` in this process."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.process_time()
    said = work()
    return {"seconds": time.process_time() - began, "bytes": size, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "said": said}


def read(folder: Path) -> list[str]:
    """The texts of the documents."""
    return [json.loads(line)["text"] for line in (folder / "documents.jsonl").open()]


def size_of(folder: Path) -> int:
    """Bytes of text."""
    return sum(len(json.loads(line)["text"].encode()) for line in (folder / "documents.jsonl").open())


# -- ours -------------------------------------------------------------------------------------------------------------------


def ours_chain(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """`hearth data build` with everything on."""
    from openhearth.data import build
    from openhearth.data.settings import of_paths

    sets = ['profile.book.languages=["en"]', *([f'evaluations.files=["{evaluation}"]'] if evaluation else [])]

    def work() -> str:
        report = build.build(of_paths([str(folder)], {"profile": "book"}, sets), folder.with_name("out"), workers=1).report
        return f"{report['kept']:,} of {report['input']:,} kept"

    return timed(work, size_of(folder))


def ours_minhash(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """Words, hashes and signatures, 4 MB at a time."""
    from openhearth.data.minhash import signatures

    texts = read(folder)
    signatures(texts[:600])  # tables over Unicode and powers are made once in a process

    def work() -> str:
        for start in range(0, len(texts), 600):
            signatures(texts[start : start + 600])
        return "112 permutations of 5 words"

    return timed(work, size_of(folder))


def ours_filters(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """The rules of quality and repetition."""
    from openhearth.data.profiles import profile_of
    from openhearth.data.quality import QUALITY, REPETITION, broken, quality_measures, repetition_measures
    from openhearth.data.words import Codes, Words

    texts, web = read(folder), profile_of("web", {})

    def work() -> str:
        dropped = 0
        for start in range(0, len(texts), 300):
            batch = texts[start : start + 300]
            codes = Codes.of(batch)
            words = Words.spaced(codes)
            measures = zip(batch, quality_measures(batch, codes, words), repetition_measures(batch, words), strict=True)
            dropped += sum(
                bool(broken(QUALITY, web, quality, text) or broken(REPETITION, web, repeated, text)) for text, quality, repeated in measures
            )
        return f"{dropped:,} of {len(texts):,} dropped"

    Words.spaced(Codes.of(texts[:300]))
    return timed(work, size_of(folder))


# -- datatrove's ------------------------------------------------------------------------------------------------------------


def _filters() -> list[Any]:
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    return [GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter()]


def datatrove_chain(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """Its readers, filters, MinHash in four stages and writers, one task."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    out = folder.with_name("datatrove")
    places = {name: str(out / name) for name in ("clean", "signatures", "buckets", "remove", "kept", "logs")}
    chain = [
        [JsonlReader(str(folder)), *_filters(), JsonlWriter(places["clean"])],
        [JsonlReader(places["clean"]), MinhashDedupSignature(places["signatures"])],
        *([MinhashDedupBuckets(places["signatures"], places["buckets"])] for _ in range(1)),
        [MinhashDedupCluster(places["buckets"], places["remove"])],
        [JsonlReader(places["clean"]), MinhashDedupFilter(places["remove"]), PIIFormatter(), JsonlWriter(places["kept"])],
    ]

    def work() -> str:
        for number, pipeline in enumerate(chain):
            tasks = 14 if number == 2 else 1
            for rank in range(tasks):  # in this process, so that its seconds are counted
                executor = LocalPipelineExecutor(pipeline, tasks=tasks, logging_dir=f"{places['logs']}/{number}")
                executor.run_for_rank(rank) if hasattr(executor, "run_for_rank") else executor._run_for_rank(rank)
        return "one task"

    return timed(work, size_of(folder))


def datatrove_minhash(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """Signatures, its own words included."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature

    texts = read(folder)
    step = MinhashDedupSignature(str(folder.with_name("signatures")))
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    next(iter(step.run(documents[:1], 0, 1) or []), None)  # loads its tokenizer
    return timed(lambda: f"112 permutations of 5 words{len(list(step.run(documents, 0, 1) or [])) or ''}", size_of(folder))


def datatrove_filters(folder: Path, evaluation: Path | None) -> dict[str, Any]:
    """The same rules."""
    from datatrove.data import Document

    filters = _filters()
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(read(folder))]
    for one in filters:
        one.filter(documents[0])

    def work() -> str:
        dropped = sum(any(one.filter(document) is not True for one in filters) for document in documents)
        return f"{dropped:,} of {len(documents):,} dropped"

    return timed(work, size_of(folder))


WORKERS = {
    "ours: chain": ours_chain,
    "ours: minhash": ours_minhash,
    "ours: filters": ours_filters,
    "datatrove: chain": datatrove_chain,
    "datatrove: minhash": datatrove_minhash,
    "datatrove: filters": datatrove_filters,
}

if __name__ == "__main__":
    main()
