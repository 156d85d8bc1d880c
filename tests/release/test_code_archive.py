"""The sources in a release: the same bytes whenever they are packed, and an archive that could leave its folder is refused unread."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from openhearth.errors import DamagedError
from openhearth.release.code_archive import ARCHIVE, archive, check
from openhearth.release.manifest import write_manifest
from openhearth.release.verify import verify


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, link, mode
    return entry


def packed(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in members:
            tar.addfile(entry)
    return out.getvalue()


HOSTILE: dict[str, bytes] = {
    "a traversal": packed(member("../x")),
    "an absolute name": packed(member("/etc/passwd")),
    "a link that is symbolic": packed(member("x", tarfile.SYMTYPE, link="/etc/passwd")),
    "a hard link": packed(member("x", tarfile.LNKTYPE, link="y")),
    "a device": packed(member("x", tarfile.CHRTYPE)),
    "a pipe": packed(member("x", tarfile.FIFOTYPE)),
    "a folder": packed(member("x", tarfile.DIRTYPE)),
    "setuid": packed(member("x", mode=0o4755)),
    "a name twice": packed(member("x"), member("x")),
    "a clash of cases": packed(member("x/README"), member("x/readme")),
    "a name of a device": packed(member("a/CON")),
    "a backslash": packed(member("a\\b")),
    "a control character": packed(member("a\nb")),
    "no tar": b"PK\x03\x04" + b"\0" * 600,
    "a compressed tar": gzip.compress(packed(member("x"))),
    "a tar cut short": archive()[:5000],
}


def test_the_archive_is_the_same_bytes_twice_and_holds_this_package(tmp_path: Path) -> None:
    data = archive()
    assert data == archive()
    (tmp_path / "code.tar").write_bytes(data)
    assert check(tmp_path / "code.tar", "code.tar") > 100
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {"LICENSE", "openhearth/cli.py", "openhearth/release/openness/licences.tsv"} <= set(tar.getnames())
        assert {(entry.mtime, entry.uid, entry.uname) for entry in tar} == {(0, 0, "")}


@pytest.mark.parametrize("why", HOSTILE)
def test_an_archive_that_is_not_plain_files_inside_is_refused_in_one_line(tmp_path: Path, why: str) -> None:
    (tmp_path / "code.tar").write_bytes(HOSTILE[why])
    with pytest.raises(DamagedError, match=r"^code\.tar: ") as caught:
        check(tmp_path / "code.tar", "code.tar")
    assert "\n" not in str(caught.value)


def test_an_archive_of_too_many_bytes_is_not_opened(tmp_path: Path) -> None:
    with (tmp_path / "code.tar").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(DamagedError, match="no code is so large"):
        check(tmp_path / "code.tar", "code.tar")


def test_verify_names_the_archive_and_unpacks_nothing(release: Path, tmp_path: Path) -> None:
    (release / ARCHIVE).write_bytes(HOSTILE["a traversal"])
    write_manifest(release)
    report = verify(release)
    assert report.fault.startswith(f"{ARCHIVE}: the name '../x'") and report.exit_status == 13
    assert not (release / "x").exists() and not (tmp_path / "x").exists()
