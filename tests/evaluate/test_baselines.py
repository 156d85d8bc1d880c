"""Compressors: the sizes are those the tools write, the dictionary comes from the training text, and tiny corpora do not fail."""

from __future__ import annotations

import gzip
import lzma
import random
import shutil
import subprocess

import pyarrow as pa
import pytest
import zstandard

from openhearth.evaluate.baselines import GZIP, SAMPLE_BYTES, XZ, ZSTD, baselines, gzip_size, sample_pieces, xz_size, zstd_compressor


def prose(seed: int, size: int) -> bytes:
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghij", k=6)) for _ in range(200)]
    return " ".join(draw.choices(words, k=size // 7)).encode()


TEXTS = [b"", b"a", b"def f():\n    return 1\n" * 50, prose(0, 200_000), bytes(range(256)) * 40]


@pytest.mark.parametrize("data", TEXTS, ids=len)
def test_sizes_are_those_of_the_tools(data: bytes) -> None:
    if shutil.which("gzip") is None or shutil.which("xz") is None:
        pytest.skip("gzip or xz is not installed")
    by_gzip, by_xz = (
        len(subprocess.run([*tool, "-9", "-c"], input=data, capture_output=True, check=True).stdout) for tool in (["gzip", "-n"], ["xz"])
    )
    assert gzip_size(data) == pytest.approx(by_gzip, rel=0.001)  # the program's own deflate and zlib split blocks differently
    assert xz_size(data) == by_xz


def test_sizes_are_those_of_the_libraries_at_their_ninth_level() -> None:
    for data in TEXTS:
        assert gzip_size(data) == len(gzip.compress(data, 9))
    assert xz_size(TEXTS[3]) == len(lzma.compress(TEXTS[3], preset=9))


def test_bits_per_byte_are_compressed_bits_over_bytes_of_all_documents() -> None:
    texts = [prose(1, 5000), prose(2, 9000), prose(3, 1000)]
    found, _ = baselines(texts, [0, 1, 2], [prose(4, 5000)], seed=0)
    assert list(found) == [GZIP, XZ, ZSTD]
    assert found[GZIP].value == pytest.approx(8 * sum(map(gzip_size, texts)) / sum(map(len, texts)))
    assert found[XZ].low < found[XZ].value < found[XZ].high


def test_the_dictionary_carries_over_what_the_training_text_holds() -> None:
    training = [prose(7, 20_000)[start : start + 2000] for start in range(0, 20_000, 2000)]
    heldout = [prose(7, 20_000)[5000:5600]]
    with_dictionary, how = zstd_compressor(training)
    assert "trained (zstd --train)" in how
    assert with_dictionary(heldout[0]) < len(zstandard.ZstdCompressor(level=19).compress(heldout[0]))


@pytest.mark.parametrize("sample", [[], [b"a"], [b"ab" * 500] * 3, [prose(0, 300)]], ids=["none", "a byte", "uniform", "a line"])
def test_a_training_text_too_small_for_a_dictionary_is_used_as_it_is(sample: list[bytes]) -> None:
    size_of, how = zstd_compressor(sample)
    assert "too small" in how
    assert 0 < size_of(b"hello hello") < 40


def test_the_sample_is_of_the_training_split_and_bounded_and_keyed() -> None:
    many = 200
    splits = ["train" if number % 2 else "heldout" for number in range(many)]
    texts = [f"{split} " * 20_000 for split in splits]
    documents = pa.table({"doc_id": [str(number) for number in range(many)], "split": splits, "text": texts})
    sample = sample_pieces(documents, seed=0)
    assert SAMPLE_BYTES * 0.9 < sum(map(len, sample)) <= SAMPLE_BYTES
    assert not any(b"heldout" in piece for piece in sample)
    huge = pa.table({"doc_id": ["a", "b"], "split": ["train"] * 2, "text": ["a" * 5_000_000, "b" * 100]})
    assert sum(map(len, sample_pieces(huge, seed=0))) == 16 * 65_536 + 100
    numbered = pa.table({"doc_id": list("abcdef"), "split": ["train"] * 6, "text": list("abcdef")})
    assert sample_pieces(numbered, 0) == sample_pieces(numbered.take([5, 4, 3, 2, 1, 0]), 0) != sample_pieces(numbered, 1)
