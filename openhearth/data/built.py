"""A corpus that `hearth data build` made, as the corpus stage of a recipe reads it: the documents of its set `mix`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import digest_file, read_json

MANIFEST, DOCUMENTS = "corpus.json", "documents/"
FORMAT = "openhearth-data/1"


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus; raises HearthError where there is none, DamagedError where it is of another version."""
    if not (folder / MANIFEST).is_file():
        raise HearthError(f"{folder}: is not the folder of a corpus (there is no {MANIFEST}); make one with: hearth data build")
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise DamagedError(f"{folder / MANIFEST}: not a manifest of this version ({FORMAT}); build the corpus again")
    return manifest


def check(folder: Path) -> None:
    """Raise DamagedError, before anything is made, for a bucket that is not the one that was written."""
    for name, listed in manifest_of(folder)["files"].items():
        if name.startswith(DOCUMENTS) and (not (folder / name).is_file() or digest_file(folder / name) != listed["sha256"]):
            raise DamagedError(f"{folder / name}: missing or changed; build the corpus again with: hearth data build ... --out {folder}")


def digest(folder: Path) -> str:
    """What stands for a corpus in the key of a stage; empty where there is none (`check` says why)."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def size(folder: Path) -> int:
    """Bytes of text."""
    return int(read_json(folder / "report.json")["bytes"])


def rows(folders: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The documents to train on; with several corpora the uri of each begins with the corpus's number, so that two never clash."""
    import pyarrow.parquet

    for number, folder in enumerate(folders, 1):
        prefix = f"{number}/" if len(folders) > 1 else ""
        for name in sorted(manifest_of(Path(folder))["files"]):
            if name.startswith(DOCUMENTS):
                with pyarrow.parquet.ParquetFile(Path(folder) / name) as file:
                    for batch in file.iter_batches(batch_size=256, columns=["uri", "licence", "evidence", "set", "bytes", "text"]):
                        for row in batch.to_pylist():
                            if row["set"] == "mix":
                                yield {**row, "uri": prefix + row["uri"]}
