"""Reading a small file that a user named: never more bytes than allowed, never blocking, and a reason in one line when it fails."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from openhearth.errors import HearthError, nearest


def read_small(path: Path, *, limit: int, what: str, suffix: str) -> str:
    """The text of `path`, at most `limit` bytes of UTF-8.

    Raises HearthError for a missing file (the nearest `*.suffix` beside it is offered), a folder, a FIFO or a device (opened
    without blocking, never read), a loop of links, a file that is too large, not UTF-8 or not readable.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HearthError(f"{path}: no such file{_beside(path, suffix)}") from None
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise HearthError(f"{path}: cannot be opened as a {what} ({reason})") from None
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise HearthError(f"{path}: is a folder, not a {what}{_beside(path / 'x', suffix)}")
        if not stat.S_ISREG(mode):
            raise HearthError(f"{path}: is not a regular file; give the {what} as a file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise HearthError(f"{path}: cannot be read ({os.strerror(error.errno or 0)})") from None
    finally:
        os.close(handle)
    if len(data) > limit:
        raise HearthError(f"{path}: is larger than {limit:,} bytes, which no {what} is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise HearthError(f"{path}:{line}: not UTF-8 text (byte {error.start:,}); a {what} is a UTF-8 text file") from None


def _beside(path: Path, suffix: str) -> str:
    """The nearest file with the right ending, in the same folder or in `recipes/`, as a question; '' when there is none."""
    found: dict[str, Path] = {}
    for folder in (Path("recipes"), path.parent):  # of two with one name the one beside it
        with suppress(OSError):
            found |= {file.name: file for file in sorted(folder.iterdir()) if file.suffix == suffix and file.name != "pyproject.toml"}
    near = nearest(path.name, found) or nearest(path.stem, found)
    if near:
        return f" (did you mean '{found[near.split(chr(39))[1]]}'?)"
    return f" (there is '{next(iter(found.values()))}')" if len(found) == 1 else ""
