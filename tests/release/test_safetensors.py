"""Safetensors files that are not what they say: headers and bodies, each with its own way of being wrong, refused in one line."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from openhearth.errors import DamagedError
from openhearth.release.weights import read_header

GOOD = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}


def packed(header: bytes, body: bytes = b"\0" * 24, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def with_(name: str, **fields: Any) -> bytes:
    """The good header with other fields of one tensor."""
    return packed(json.dumps({**GOOD, name: {**GOOD[name], **fields}}).encode())


def spelled(text: str) -> bytes:
    return packed(text.encode())


PEAK = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0]"
"""Code for the peak of memory in kB; ru_maxrss would be that of the parent where it is larger."""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")

HEADER = json.dumps(GOOD).encode()
MALFORMED: dict[str, bytes] = {
    "an empty file": b"",
    "seven bytes": b"\0" * 7,
    "a length of zero": packed(b"", b""),
    "a length beyond the file": packed(HEADER, length=10**6),
    "a length of 2^64 - 1": packed(HEADER, length=2**64 - 1),
    "a length of 2^63": packed(HEADER, length=2**63),
    "a header that is no JSON": packed(b"{" + b"x" * 40),
    "a header that is a list": packed(b"[1, 2]"),
    "a header that begins with a space": packed(b" " + HEADER),
    "a header that is not UTF-8": packed(b'{"\xff\xfe": 1}'),
    "a header nested ten thousand deep": packed(b'{"a":' * 10_000),
    "a tensor given twice": spelled(f'{{"a": {json.dumps(GOOD["a"])}, "a": {json.dumps(GOOD["a"])}, "b": {json.dumps(GOOD["b"])}}}'),
    "NaN in the header": spelled(json.dumps({**GOOD, "b": {**GOOD["b"], "shape": [float("nan")]}})),
    "a tensor that is a number": spelled(json.dumps({**GOOD, "b": 1})),
    "a field too many": with_("b", extra=1),
    "a field too few": spelled(json.dumps({**GOOD, "b": {"dtype": "F32", "shape": [2]}})),
    "an unknown type": with_("b", dtype="F31"),
    "a type that is a number": with_("b", dtype=4),
    "a negative size": with_("b", shape=[-2]),
    "a size that is a float": with_("b", shape=[2.0]),
    "a size that is true": with_("b", shape=[True, 2]),
    "a shape whose product overflows": with_("b", shape=[2**63, 4]),
    "offsets backwards": with_("b", data_offsets=[24, 16]),
    "a negative offset": with_("b", data_offsets=[-8, 0]),
    "three offsets": with_("b", data_offsets=[16, 20, 24]),
    "overlapping tensors": with_("b", data_offsets=[8, 16]),
    "a gap between tensors": packed(json.dumps({**GOOD, "b": {**GOOD["b"], "data_offsets": [20, 28]}}).encode(), b"\0" * 28),
    "a tensor beyond the end": packed(HEADER, b"\0" * 20),
    "bytes behind the last tensor": packed(HEADER, b"\0" * 25),
    "fewer bytes than the shape needs": with_("b", data_offsets=[16, 20]),
    "metadata that are no texts": spelled(json.dumps({**GOOD, "__metadata__": {"x": 1}})),
    "metadata that are a list": spelled(json.dumps({**GOOD, "__metadata__": []})),
}


def test_the_good_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(packed(HEADER))
    assert {name: entry.shape for name, entry in read_header(tmp_path / "x", "x").items()} == {"a": (2, 2), "b": (2,)}


@pytest.mark.parametrize("why", MALFORMED)
def test_a_malformed_file_is_refused_in_one_line_that_names_it(tmp_path: Path, why: str) -> None:
    (tmp_path / "x").write_bytes(MALFORMED[why])
    began = time.monotonic()
    with pytest.raises(DamagedError) as caught:
        read_header(tmp_path / "x", "model.safetensors")
    assert str(caught.value).startswith("model.safetensors") and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.monotonic() - began < 2


@needs_proc
def test_a_header_that_is_said_to_have_gigabytes_is_refused_within_200_megabytes(release: Path) -> None:
    """Weights that claim a header of 12 GB, in a sparse file."""
    weights = release / "model.safetensors"
    with weights.open("wb") as file:
        file.write(struct.pack("<Q", 12 * 10**9))
        file.truncate(13 * 10**9)
    code = (
        "import sys\nfrom pathlib import Path\nfrom openhearth.release.weights import read_header\n"
        "from openhearth.errors import DamagedError\n"
        f"try:\n    read_header(Path({str(weights)!r}), 'w')\nexcept DamagedError as error:\n    print(error)\n"
        f"print({PEAK})\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "the header is said to have" in said[0] and int(said[1]) < 200_000


@needs_proc
def test_verify_refuses_a_hostile_bundle_within_200_megabytes_and_without_torch(release: Path) -> None:
    (release / "manifest-bomb.json").write_bytes(b"[" * 5_000_000)
    (release / "MANIFEST.json").write_bytes(b'{"format": "openhearth-release/1", "root": "", "files": ' + b'{"a":' * 1_000_000)
    code = (
        "import sys\nfrom pathlib import Path\nfrom openhearth.release.verify import verify\n"
        f"report = verify(Path({str(release)!r}))\nassert not report.ok and 'torch' not in sys.modules\n"
        f"print({PEAK})\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < 200_000
