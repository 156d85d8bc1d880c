"""The table of a release's files: `MANIFEST.json` lists every file with its sha256 and size, and one root digest covers the table.

Whoever holds the root digest holds the release: any other byte, file or name gives another root. Names are kept so plain that
they mean the same file on every system. Reading trusts nothing: sizes are bounded, keys may not repeat, links are not followed.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Ledger, digest_file, digest_json, write_json

FORMAT = "openhearth-release/1"
MANIFEST = "MANIFEST.json"
WEIGHTS = "model.safetensors"
UNLISTED = ("model.sig", "model.pub")
"""The signature and its key cover the manifest, so they are not in it."""
MAX_JSON_BYTES = 64_000_000
MAX_FILES = 100_000
MAX_NAME_BYTES = 240
_DEVICE_NAMES = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(1, 10)), *(f"lpt{n}" for n in range(1, 10))}


@dataclass(frozen=True)
class Listed:
    """What the manifest says of one file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """A read manifest: the files by name, and the root digest that it states."""

    root: str
    files: dict[str, Listed]


def root_digest(files: dict[str, Listed]) -> str:
    """The digest of the sorted table of files; the manifest itself is not in it."""
    return digest_json({name: [listed.sha256, listed.bytes] for name, listed in files.items()})


def unsafe(name: str) -> str | None:
    """Why `name` may not stand in a manifest, or None: relative, NFC, no `..`, no control characters, no backslash, not too long."""
    if not name or name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        return "is not a relative path"
    if any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in name) or "\\" in name:
        return "holds a control character or a backslash"
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode normal form C"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "does not stay inside the release"
    if len(encoded) > 4 * MAX_NAME_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if any(part.endswith((" ", ".")) or part.split(".")[0].casefold() in _DEVICE_NAMES for part in parts):
        return "means another file on some systems"
    return None


def clash(names: list[str]) -> tuple[str, str] | None:
    """Two names that are one file on systems that ignore case, or a file that is also a folder; None when there are none."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            return other, name
    for name in names:
        parts = name.casefold().split("/")
        for size in range(1, len(parts)):
            if (above := "/".join(parts[:size])) in seen:
                return seen[above], name
    return None


def strict_json(data: bytes, where: str) -> Any:
    """JSON with no repeated key, no NaN, no number or nesting beyond reason; raises DamagedError that begins with `where`."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key is given twice")
        return found

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    if len(data) > MAX_JSON_BYTES:
        raise DamagedError(f"{where}: {len(data):,} bytes of JSON; at most {MAX_JSON_BYTES:,} are read")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except RecursionError:
        raise DamagedError(f"{where}: JSON nested too deeply") from None
    except ValueError as error:
        raise DamagedError(f"{where}: not readable as JSON ({str(error).splitlines()[0][:120]})") from None


def read_small(path: Path, where: str) -> bytes:
    """The bytes of a regular file of bounded size; raises DamagedError for anything else (a link, a FIFO, no permission)."""
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise DamagedError(f"{where}: not a regular file")
        if info.st_size > MAX_JSON_BYTES:
            raise DamagedError(f"{where}: {info.st_size:,} bytes; at most {MAX_JSON_BYTES:,} are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{where}: missing") from None
    except OSError as error:
        raise DamagedError(f"{where}: not readable ({error.strerror})") from None


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below `folder` that is not a folder, by relative name, links not followed. Raises OSError for an unreadable folder."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    yield Path(entry.path).relative_to(folder).as_posix(), entry.stat(follow_symlinks=False)


def folders(folder: Path) -> Iterator[str]:
    """Every folder below `folder`, by relative name, links not followed. Raises OSError for an unreadable one."""
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                    yield Path(entry.path).relative_to(folder).as_posix()


def write_manifest(folder: Path) -> Manifest:
    """Digest every file below `folder` and write its `MANIFEST.json`."""
    files = {name: Listed(digest_file(folder / name), info.st_size) for name, info in walk(folder) if name not in (MANIFEST, *UNLISTED)}
    files = dict(sorted(files.items()))
    root = root_digest(files)
    table = {name: {"sha256": listed.sha256, "bytes": listed.bytes} for name, listed in files.items()}
    write_json(folder / MANIFEST, {"format": FORMAT, "root": root, "files": table})
    return Manifest(root, files)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release, its names safe and its root digest right; raises DamagedError that begins with the file's name."""
    content = strict_json(read_small(folder / MANIFEST, MANIFEST), MANIFEST)
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("files"), dict):
        raise DamagedError(f"{MANIFEST}: not a manifest of the format {FORMAT}")
    table = content["files"]
    if set(content) != {"format", "root", "files"} or len(table) > MAX_FILES:
        raise DamagedError(f"{MANIFEST}: holds fields or files beyond the format {FORMAT}")
    files: dict[str, Listed] = {}
    for name, entry in table.items():
        if reason := unsafe(name):
            raise DamagedError(f"{MANIFEST}: the file name {name!r} {reason}")
        if name == MANIFEST or not isinstance(entry, dict) or set(entry) != {"sha256", "bytes"}:
            raise DamagedError(f"{MANIFEST}: the entry of {name!r} is not a sha256 and a number of bytes")
        digest, size = entry["sha256"], entry["bytes"]
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise DamagedError(f"{MANIFEST}: the sha256 of {name!r} is not 64 hex digits")
        if type(size) is not int or size < 0:
            raise DamagedError(f"{MANIFEST}: the size of {name!r} is not a number of bytes")
        files[name] = Listed(digest, size)
    if pair := clash(list(files)):
        raise DamagedError(f"{MANIFEST}: {pair[0]!r} and {pair[1]!r} cannot both exist on every system")
    if content["root"] != root_digest(files):
        raise DamagedError(f"{MANIFEST}: the root digest is not the digest of the list of files")
    return Manifest(content["root"], files)


def check_listed(folder: Path, manifest: Manifest, name: str) -> str | None:
    """None when the file `name` is a regular file with the listed bytes, else what is wrong with it, without its name."""
    listed = manifest.files.get(name)
    if listed is None:
        return "not listed in MANIFEST.json"
    path = folder / name
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            return "not a regular file"
        if info.st_size != listed.bytes:
            return f"{info.st_size:,} bytes, MANIFEST.json lists {listed.bytes:,}"
        if (found := digest_file(path)) != listed.sha256:
            return f"sha256 is {found[:16]}..., MANIFEST.json lists {listed.sha256[:16]}..."
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"not readable ({error.strerror})"
    return None


def find_release(folder: Path) -> Path:
    """The release in `folder`: the folder itself, or the last one that the run in `folder` made. Raises HearthError, saying what to do."""
    try:
        if not folder.exists():
            raise HearthError(f"{folder}: does not exist; give a release folder, or the folder of a run that reached its release")
        if not folder.is_dir():
            raise HearthError(f"{folder}: not a folder; give a release folder, or the folder of a run that reached its release")
        if any(os.path.lexists(folder / name) for name in (MANIFEST, WEIGHTS, UNLISTED[0])):
            return folder
        releases = [path for path in folder.glob("release/*/release") if (path.parent / "artifact.json").is_file()]
        if releases:
            return _last_made(folder, releases)
        if (folder / "release" / MANIFEST).is_file():
            return folder / "release"  # the artifact of the release stage itself
        if (folder / "ledger.jsonl").is_file():
            raise HearthError(f"{folder}: this run has no release yet; let it run to its end: hearth run RECIPE --dir {folder}")
    except OSError as error:
        raise HearthError(f"{folder}: not readable ({error.strerror})") from None
    raise HearthError(f"{folder}: not a release (no {MANIFEST}) and not the folder of a run")


def _last_made(run: Path, releases: list[Path]) -> Path:
    """The release that the run's ledger names last; without a readable ledger the newest."""
    by_key = {path.parent.name: path for path in releases}
    try:
        for entry in reversed(Ledger(run / "ledger.jsonl").entries()):
            key = entry.get("key")
            if entry.get("stage") == "release" and isinstance(key, str) and key[:12] in by_key:
                return by_key[key[:12]]
    except HearthError:
        pass
    return max(releases, key=lambda path: path.stat().st_mtime)
