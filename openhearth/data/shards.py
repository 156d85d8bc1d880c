"""Token shards: raw little-endian ids in files that can be mapped, a table of documents beside each, a manifest over all.

    00000.tok           token ids, uint16 (uint32 above 65,535 ids), nothing else in the file
    00000.docs.parquet  one row per document: start, end (in this shard, in tokens), doc_id, source, uri, licence, evidence, sha256, bytes
    manifest.json       dtype, vocabulary, counts, and the sha256 of every file

The idea: the bytes are those of Megatron's `.bin`, Dolma's `.npy` and nanoGPT's `.bin`, so other loaders need no conversion; what is
known about the text is kept apart from them, and `verify` finds a damaged shard before the first training step does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy
from numpy.typing import NDArray

from openhearth.errors import DamagedError
from openhearth.ledger import digest_file, digest_json, disk_error, read_json, write_json

FORMAT = "openhearth-shards/1"
MANIFEST = "manifest.json"

SHARD_TOKENS = 64 << 20
"""Tokens after which a new shard begins (a document is never cut in two by this)."""

COLUMNS = ("doc_id", "source", "uri", "licence", "evidence", "sha256", "bytes")

Ids = NDArray[Any]


def dtype_for(vocab_size: int) -> str:
    """The smallest type for the ids: "uint16", or "uint32" when there are more than 65,535."""
    return "uint16" if vocab_size <= 65_535 else "uint32"


class Writer:
    """Writes documents one after the other; use it as a context manager, the manifest is written at its end."""

    def __init__(self, folder: Path, vocab_size: int, bos: int, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.vocab_size, self.bos, self.shard_tokens = folder, vocab_size, bos, shard_tokens
        self.dtype = numpy.dtype(dtype_for(vocab_size)).newbyteorder("<")
        self.tokens = self.documents = self.bytes = 0
        self._shards: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._position = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, ids: Ids, document: Mapping[str, Any]) -> None:
        """Append one document: its ids (bos first) and its row of `COLUMNS`."""
        if len(ids) and int(ids.max()) >= self.vocab_size:
            raise ValueError(f"id {int(ids.max())} is outside the vocabulary of {self.vocab_size}")
        try:
            if self._file is None:
                self._file = (self.folder / f"{len(self._shards):05d}.tok").open("wb")
            self._file.write(ids.astype(self.dtype).tobytes())
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._rows.append({"start": self._position, "end": self._position + len(ids), **{name: document[name] for name in COLUMNS}})
        self._position += len(ids)
        self.tokens += len(ids)
        self.documents += 1
        self.bytes += document["bytes"]
        if self._position >= self.shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        import pyarrow
        import pyarrow.parquet

        if self._file is None:
            return
        name = f"{len(self._shards):05d}"
        table = self.folder / f"{name}.docs.parquet"
        numbers = ("start", "end", "bytes")
        columns = {
            column: pyarrow.array([row[column] for row in self._rows], pyarrow.int64() if column in numbers else pyarrow.string())
            for column in ("start", "end", *COLUMNS)
        }
        try:
            self._file.close()
            pyarrow.parquet.write_table(pyarrow.table(columns), table, compression="zstd")
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._shards.append(
            {
                "name": name,
                "tokens": self._position,
                "documents": len(self._rows),
                "sha256": digest_file(self.folder / f"{name}.tok"),
                "docs_sha256": digest_file(table),
            }
        )
        self._file, self._rows, self._position = None, [], 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            if self._file is not None:
                self._file.close()
            return
        self._close_shard()
        manifest = {
            "format": FORMAT,
            "dtype": self.dtype.name,
            "vocab_size": self.vocab_size,
            "bos": self.bos,
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes": self.bytes,
            "shards": self._shards,
        }
        write_json(self.folder / MANIFEST, manifest)


class Tokens:
    """The tokens of a folder of shards as one long sequence, mapped and not read. Raises DamagedError when the files do not fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        manifest = read_json(self.folder / MANIFEST)
        try:
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {manifest['format']!r} is not {FORMAT!r}")
            self.vocab_size, self.bos, self.documents = int(manifest["vocab_size"]), int(manifest["bos"]), int(manifest["documents"])
            self.bytes = int(manifest["bytes"])
            self._shards: Sequence[Mapping[str, Any]] = manifest["shards"]
            self.dtype = numpy.dtype(dtype_for(self.vocab_size)).newbyteorder("<")
            if manifest["dtype"] != self.dtype.name:
                raise ValueError(f"dtype {manifest['dtype']!r} does not fit a vocabulary of {self.vocab_size:,}")
            lengths = [int(shard["tokens"]) for shard in self._shards]
            names = [str(shard["name"]) for shard in self._shards]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{self.folder / MANIFEST}: damaged ({error}); make the tokens again by deleting their folder") from None
        self._maps = [self._map(name, length) for name, length in zip(names, lengths, strict=True)]
        self._starts = numpy.cumsum([0, *lengths], dtype=numpy.int64)

    @property
    def digest(self) -> str:
        """One sha256 that stands for every token: that of the shards' digests and how to read them."""
        return digest_json([self.dtype.name, self.vocab_size, [[shard["tokens"], shard["sha256"]] for shard in self._shards]])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, span: slice) -> Ids:
        """The ids of a span, copied out of the shards that it touches."""
        start, stop, step = span.indices(len(self))
        if step != 1:
            raise ValueError("a span of tokens has no step")
        first = int(numpy.searchsorted(self._starts, start, side="right")) - 1
        parts: list[Ids] = []
        while start < stop:
            end = min(stop, int(self._starts[first + 1]))
            base = int(self._starts[first])
            parts.append(self._maps[first][start - base : end - base])
            start, first = end, first + 1
        return numpy.concatenate(parts) if parts else numpy.empty(0, self.dtype)

    def verify(self) -> None:
        """Read everything once; raises DamagedError naming the first shard whose bytes are not those that were written.

        An id outside the vocabulary is named with its offset, since it would crash training far from its cause.
        """
        for shard, tokens in zip(self._shards, self._maps, strict=True):
            path = self.folder / f"{shard['name']}.tok"
            for start in range(0, len(tokens), 1 << 22):
                wrong = numpy.flatnonzero(tokens[start : start + (1 << 22)] >= self.vocab_size)
                if len(wrong):
                    at = start + int(wrong[0])
                    raise DamagedError(
                        f"{path}: damaged (id {int(tokens[at])} at token {at:,}, the vocabulary has {self.vocab_size:,}); {_REMEDY}"
                    )
            for file, expected in ((path, shard["sha256"]), (self.folder / f"{shard['name']}.docs.parquet", shard["docs_sha256"])):
                if not file.is_file():
                    raise DamagedError(f"{file}: missing; {_REMEDY}")
                if digest_file(file) != expected:
                    raise DamagedError(f"{file}: damaged (its sha256 is not the one in {MANIFEST}); {_REMEDY}")

    def _map(self, name: str, length: int) -> Ids:
        path = self.folder / f"{name}.tok"
        try:
            size = path.stat().st_size
        except OSError:
            raise DamagedError(f"{path}: missing; {_REMEDY}") from None
        expected = length * self.dtype.itemsize
        if size != expected:
            raise DamagedError(f"{path}: damaged ({size:,} bytes, {expected:,} were written); {_REMEDY}")
        if not length:  # an empty file cannot be mapped
            return numpy.empty(0, self.dtype)
        return numpy.memmap(path, dtype=self.dtype, mode="r")


_REMEDY = "delete the folder of this stage to make it again"
