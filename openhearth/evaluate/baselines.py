"""What compressors make of the same held-out documents, in the same unit, so that a model's bits per byte mean something.

Every document is compressed by itself, as the model reads it. gzip -9 and xz -9 know nothing beforehand; zstd gets a dictionary
trained on the training text, which is what a compressor can carry over from it. Sizes are those of the whole compressed file,
header and checksum included, as the tool writes it.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
from collections.abc import Callable, Sequence

import pyarrow as pa
import zstandard

from openhearth.evaluate.statistics import Estimate, bootstrap_ratio, totals

DICTIONARY_BYTES = 112_640
"""The size that `zstd --train` makes unless told otherwise."""
SAMPLE_BYTES = 8_000_000
"""Training text that the dictionary is made from; zstd advises about 100 times the size of the dictionary, time sets the bound."""
PIECE = 65_536
"""Bytes; longer training documents are given to the dictionary builder in pieces of this size."""
PIECES = 16
"""So many at most, so that one document cannot be everything."""

XZ_WINDOW = 64 << 20
"""Bytes; the window of `xz -9`."""
SMALLEST_WINDOW = 1 << 16
"""Bytes."""

GZIP, XZ, ZSTD = "gzip -9", "xz -9", "zstd -19 with a trained dictionary"


def gzip_size(data: bytes) -> int:
    """Bytes of a gzip file by zlib at level 9, as `gzip -9 -n` writes it to within a thousandth."""
    return len(gzip.compress(data, 9, mtime=0))


def xz_size(data: bytes) -> int:
    """Bytes of the file that `xz -9` writes. The window is no larger than the data: it does not change the size, only the time."""
    window = min(max(SMALLEST_WINDOW, 1 << len(data).bit_length()), XZ_WINDOW)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": window}]
    return len(lzma.compress(data, format=lzma.FORMAT_XZ, filters=filters))


def sample_pieces(documents: pa.Table, seed: int) -> list[bytes]:
    """Pieces of training documents in the order of a keyed hash, up to SAMPLE_BYTES in all; of a long document the first PIECES."""
    rows = [row for row, split in enumerate(documents["split"].to_pylist()) if split == "train"]
    ids = documents["doc_id"].to_pylist()
    rows.sort(key=lambda row: hashlib.blake2b(f"{seed}:{ids[row]}".encode(), digest_size=8).digest())
    sample: list[bytes] = []
    size = 0
    for row in rows:
        data = documents["text"][row].as_py().encode()
        for start in range(0, min(len(data), PIECES * PIECE), PIECE):
            piece = data[start : start + PIECE]
            if size + len(piece) > SAMPLE_BYTES:
                return sample
            sample.append(piece)
            size += len(piece)
    return sample


def zstd_compressor(sample: Sequence[bytes]) -> tuple[Callable[[bytes], int], str]:
    """(size of a document compressed at level 19 with a dictionary from `sample`, a sentence on what the dictionary is)."""
    total = sum(map(len, sample))
    size = max(256, min(DICTIONARY_BYTES, total // 10))
    try:
        dictionary = zstandard.train_dictionary(size, list(sample))
        how = f"a dictionary of {len(dictionary.as_bytes()):,} bytes trained (zstd --train) on {total:,} bytes of the training text"
    except zstandard.ZstdError:  # too few or too uniform samples
        tail = b"".join(sample)[-DICTIONARY_BYTES:]
        dictionary = zstandard.ZstdCompressionDict(tail, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        how = f"{len(tail):,} bytes of the training text as the dictionary, since it is too small to train one"
    compressor = zstandard.ZstdCompressor(level=19, dict_data=dictionary)
    return lambda data: len(compressor.compress(data)), how


def baselines(heldout: Sequence[bytes], units: Sequence[int], sample: Sequence[bytes], seed: int) -> tuple[dict[str, Estimate], str]:
    """Bits per byte of each compressor over `heldout`, and one sentence on how they were run.

    `units[i]` is the number of the bootstrap unit that text i belongs to (a document); `sample` is from `sample_pieces`.
    """
    zstd_size, how = zstd_compressor(sample)
    sizes = totals([len(data) for data in heldout], units)
    found = {}
    for name, size_of in ((GZIP, gzip_size), (XZ, xz_size), (ZSTD, zstd_size)):
        found[name] = bootstrap_ratio(totals([8 * size_of(data) for data in heldout], units), sizes, seed)
    return found, f"each held-out text compressed by itself, headers included; zstd at level 19 with {how}"
