from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pyarrow.parquet
import pytest

from openhearth.data.shards import Tokens, Writer, dtype_for
from openhearth.errors import DamagedError, HearthError

ROW = {"source": "text", "uri": "a.txt", "licence": "unknown", "evidence": "", "sha256": "00", "bytes": 7}


def write_shards(folder: Path, lengths: list[int], vocab_size: int = 1_000, shard_tokens: int = 50) -> list[int]:
    """Documents of these lengths, of random ids; returns the whole stream."""
    draw = numpy.random.default_rng(0)
    stream: list[int] = []
    with Writer(folder, vocab_size, bos=0, shard_tokens=shard_tokens) as writer:
        for number, length in enumerate(lengths):
            ids = draw.integers(0, vocab_size, length)
            writer.add(ids, {**ROW, "doc_id": str(number)})
            stream += ids.tolist()
    return stream


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_535, "uint16"), (65_536, "uint32"), (300, "uint16")])
def test_ids_are_two_bytes_up_to_65535_ids_and_four_above(vocab_size: int, dtype: str) -> None:
    assert dtype_for(vocab_size) == dtype


@pytest.mark.parametrize("vocab_size", [1_000, 200_000])
def test_what_is_written_is_read_across_shards(tmp_path: Path, vocab_size: int) -> None:
    stream = write_shards(tmp_path, [30, 30, 1, 200, 5], vocab_size)
    tokens = Tokens(tmp_path)
    tokens.verify()
    assert len(tokens) == len(stream) == 266
    assert len(list(tmp_path.glob("*.tok"))) == 3
    for start in range(0, 266, 7):
        for stop in (start, start + 1, start + 64, 266):
            assert tokens[start:stop].tolist() == stream[start:stop]
    assert tokens[-5:].tolist() == stream[-5:]


def test_a_shard_is_raw_little_endian_ids(tmp_path: Path) -> None:
    with Writer(tmp_path, 1_000, bos=0) as writer:
        writer.add(numpy.array([1, 258]), {**ROW, "doc_id": "a"})
    assert (tmp_path / "00000.tok").read_bytes() == b"\x01\x00\x02\x01"


def test_the_table_says_where_each_document_lies(tmp_path: Path) -> None:
    stream = write_shards(tmp_path, [30, 30, 10])
    rows = [row for path in sorted(tmp_path.glob("*.parquet")) for row in pyarrow.parquet.read_table(path).to_pylist()]
    assert [(row["start"], row["end"], row["doc_id"]) for row in rows] == [(0, 30, "0"), (30, 60, "1"), (0, 10, "2")]
    assert {name for row in rows for name in row} == {"start", "end", "doc_id", "source", "uri", "licence", "evidence", "sha256", "bytes"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["tokens"], manifest["documents"], manifest["bytes"]) == (len(stream), 3, 21)


def test_no_documents_make_no_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, [])
    tokens = Tokens(tmp_path)
    tokens.verify()
    assert len(tokens) == 0 and tokens[:].tolist() == []


def test_an_id_outside_the_vocabulary_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside"), Writer(tmp_path, 10, bos=0) as writer:
        writer.add(numpy.array([10]), {**ROW, "doc_id": "a"})
    assert not (tmp_path / "manifest.json").exists()


def test_equal_tokens_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", [30, 30])
    write_shards(tmp_path / "b", [30, 30])
    write_shards(tmp_path / "c", [30, 31])
    digests = [Tokens(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped bit in 00001.tok": lambda folder: flip(folder / "00001.tok"),
    "a flipped bit in 00001.docs.parquet": lambda folder: flip(folder / "00001.docs.parquet"),
    "a missing 00001.tok": lambda folder: (folder / "00001.tok").unlink(),
    "a missing 00001.docs.parquet": lambda folder: (folder / "00001.docs.parquet").unlink(),
    "a short 00001.tok": lambda folder: (folder / "00001.tok").write_bytes((folder / "00001.tok").read_bytes()[:-2]),
    "an odd length of 00001.tok": lambda folder: (folder / "00001.tok").write_bytes((folder / "00001.tok").read_bytes() + b"\0"),
    "an empty 00001.tok": lambda folder: (folder / "00001.tok").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: str) -> None:
    write_shards(tmp_path, [30, 30, 60])
    DAMAGE[damage](tmp_path)
    with pytest.raises(DamagedError, match=damage.split()[-1].replace(".", r"\.")) as caught:
        Tokens(tmp_path).verify()
    assert "\n" not in str(caught.value) and isinstance(caught.value, HearthError)


def test_an_id_that_the_vocabulary_lacks_is_named_with_its_place(tmp_path: Path) -> None:
    write_shards(tmp_path, [60, 40])
    ids = numpy.fromfile(tmp_path / "00001.tok", "<u2")
    ids[17] = 1_000
    ids.tofile(tmp_path / "00001.tok")
    with pytest.raises(DamagedError, match=r"00001\.tok.*id 1000 at token 17"):
        Tokens(tmp_path).verify()


@pytest.mark.parametrize("manifest", ["", "{}", "[]", "nonsense", '{"format": "openhearth-shards/2"}', '{"format": 1, "shards": null}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, manifest: str) -> None:
    write_shards(tmp_path, [60])
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DamagedError, match=r"manifest\.json"):
        Tokens(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"manifest\.json: missing"):
        Tokens(tmp_path)
