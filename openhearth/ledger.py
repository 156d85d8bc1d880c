"""The ledger and the digests: what a run read, ran and made, in a file that only grows.

Each line of `ledger.jsonl` holds the digest of the line before it, so that no line can be changed, dropped or reordered
without breaking the chain. An artifact is a folder that never changes; its digest covers every file in it except the folder
`telemetry/`, where measurements (seconds, rates) live: measurements differ between runs, what was made does not.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhearth.errors import DamagedError, DiskFullError, HearthError

Json = dict[str, Any]

MANIFEST = "artifact.json"
TELEMETRY = "telemetry"


# -- digests ----------------------------------------------------------------------------------------------------------------


def canonical_json(value: Any) -> bytes:
    """The one byte string that stands for `value`: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes) -> str:
    """sha256, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """sha256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_if_file(path: str) -> str:
    """The same, or "" for what is no file: whoever reads it later says so in its own words."""
    return digest_file(Path(path)) if path and Path(path).is_file() else ""


# -- writing so that a kill loses nothing -----------------------------------------------------------------------------------


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk and rename: `path` is the old file or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from error
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of ours; raises DamagedError, naming it, when it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedError(f"{path}: not readable as JSON ({error})") from None


def disk_error(error: OSError, path: Path) -> Exception:
    """A full or read-only disk is the user's to mend; any other OSError stays what it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFullError(
            f"{path}: no space left on the disk; free some and run the same command again (the stages that are made are kept)"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return HearthError(f"{path}: cannot be written ({os.strerror(error.errno)}); choose another folder with --dir")
    return error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raise DiskFullError unless `needed` bytes are free where `folder` is (or will be)."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFullError(
            f"{folder}: {what} needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; free some or choose another folder with --dir"
        )


# -- artifacts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artifact:
    """What a stage left: a sealed folder. `digest` covers the sha256 of every file outside `telemetry/`."""

    path: Path
    stage: str
    key: str
    digest: str
    files: dict[str, Json]
    facts: Json

    def check(self) -> None:
        """Raise DamagedError, naming the file, unless every listed file is there with the bytes that were sealed."""
        for name, listed in self.files.items():
            file = self.path / name
            if not file.is_file():
                raise DamagedError(f"{file}: missing; delete the folder {self.path} to make this stage again")
            if file.stat().st_size != listed["bytes"] or digest_file(file) != listed["sha256"]:
                raise DamagedError(
                    f"{file}: damaged (sha256 is not the one that was sealed); delete the folder {self.path} to make this stage again"
                )


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != MANIFEST:
            yield path.relative_to(folder).as_posix(), path


def artifact_digest(files: dict[str, Json]) -> str:
    """The digest of an artifact from the table of its files; `telemetry/` does not count."""
    return digest_json({name: listed["sha256"] for name, listed in files.items() if not name.startswith(TELEMETRY + "/")})


def seal(partial: Path, final: Path, *, stage: str, key: str, facts: Json) -> Artifact:
    """Turn a finished working folder into an artifact: digest every file, write the manifest, flush, rename."""
    files: dict[str, Json] = {}
    for name, path in _walk(partial):
        files[name] = {"sha256": digest_file(path), "bytes": path.stat().st_size}
        with path.open("rb") as file:
            os.fsync(file.fileno())
    digest = artifact_digest(files)
    write_json(partial / MANIFEST, {"stage": stage, "key": key, "digest": digest, "files": files, "facts": facts})
    if final.exists():
        shutil.rmtree(final)
    partial.replace(final)
    sync_folder(final.parent)
    return Artifact(final, stage, key, digest, files, facts)


def open_artifact(path: Path) -> Artifact | None:
    """The artifact in `path`, or None when there is no sealed one. The files are not read: call `check` for that."""
    if not (path / MANIFEST).is_file():
        return None
    remedy = f"delete the folder {path} to make this stage again"
    try:
        record = read_json(path / MANIFEST)
    except DamagedError as error:
        raise DamagedError(f"{error}; {remedy}") from None
    wanted = {"stage": str, "key": str, "digest": str, "files": dict, "facts": dict}
    if lacking := _lacking(record, wanted):
        raise DamagedError(f"{path / MANIFEST}: damaged (fields are missing: {lacking}); {remedy}")
    artifact = Artifact(path, *(record[name] for name in wanted))
    for name, listed in artifact.files.items():
        if _lacking(listed, {"sha256": str, "bytes": int}):
            raise DamagedError(f"{path / MANIFEST}: damaged (the entry of {name!r} is not a sha256 and a number of bytes); {remedy}")
    if artifact_digest(artifact.files) != artifact.digest:
        raise DamagedError(f"{path / MANIFEST}: damaged (its digest does not match its list of files); {remedy}")
    return artifact


def _lacking(value: Any, wanted: Mapping[str, type | tuple[type, ...]]) -> str:
    """The names of fields that are not there or of another type, or ''; all of them when `value` is no table."""
    return ", ".join(name for name, kind in wanted.items() if not isinstance(value, dict) or not isinstance(value.get(name), kind))


STAGE_EVENTS = ("stage", "reuse", "given")
"""Of the ledger's entries that name an artifact: made, used again, taken from elsewhere."""

STAGE_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stage", "key", "digest", "folder"), str),
    "seconds": (int, float),
    "facts": dict,
}
"""What every such entry has."""

# -- the ledger -------------------------------------------------------------------------------------------------------------


class Ledger:
    """An append-only, hash-chained JSON-lines file. Every entry is an object with an `event` and the digest of the line before."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Json]:
        """All entries, the chain checked; a last line torn by a kill is left out. Raises DamagedError naming the line."""
        remedy = "put a copy of it in its place, or choose another folder with --dir"
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DamagedError(f"{self.path}: not readable as a ledger ({error.strerror}); {remedy}") from None
        torn = lines.pop()  # what follows the last newline: empty, or a line torn by a kill
        del torn
        entries: list[Json] = []
        before = ""
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                chained = entry["before"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise DamagedError(f"{self.path}: line {number} is not a ledger entry; {remedy}") from None
            if lacking := _lacking(entry, {"event": str}):
                raise DamagedError(f"{self.path}: line {number} is not a ledger entry (it lacks {lacking}); {remedy}")
            if chained != before:
                raise DamagedError(
                    f"{self.path}: line {number} does not follow line {number - 1}: the chain of digests is broken; {remedy}"
                )
            before = digest_bytes(line)
            entries.append(entry)
        return entries

    def run_entries(self) -> list[Json]:
        """All entries, also those of stages checked for what is read from them. Raises DamagedError naming the line."""
        entries = self.entries()
        for number, entry in enumerate(entries, 1):
            if entry["event"] in STAGE_EVENTS and (lacking := _lacking(entry, STAGE_FIELDS)):
                raise DamagedError(
                    f"{self.path}: line {number} lacks {lacking}; put a copy of the file in its place, or choose another folder with --dir"
                )
        return entries

    def stage_seconds(self, kinds: Iterable[str]) -> dict[str, float]:
        """Seconds that the newest making of each stage took, as far as the ledger has one."""
        newest = {entry["stage"]: entry["seconds"] for entry in self.run_entries() if entry["event"] == "stage"}
        return {kind: newest[kind] for kind in kinds if kind in newest}

    def append(self, event: str, **fields: Any) -> Json:
        """Add one entry and flush it to the disk; a torn last line is cut off first."""
        self.entries()  # never extend a broken chain
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        last = whole.rstrip(b"\n").split(b"\n")[-1]
        entry = {"event": event, "before": digest_bytes(last) if last else "", **fields}
        try:
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.truncate(len(whole))
                file.seek(len(whole))
                file.write(canonical_json(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error
        return entry
