"""Where the user's own text lies: from the files and folders named on the command line to a sorted list of files to read.

The idea: names given by the user must work, so anything wrong with them is an error before the run starts; what is found inside
a folder is none of their business one by one, so it is read or becomes a drop with a rule. Links inside folders are not followed
(a loop, or a way out of the folder), and nothing is opened that is not a regular file (reading a FIFO would wait for ever).
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openhearth.data.documents import Drop
from openhearth.errors import HearthError

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py")
LINE_SUFFIXES = (".jsonl",)
TABLE_SUFFIXES = (".parquet",)
PACKED_SUFFIXES = (".gz", ".zst")

READABLE = ".txt, .md, .rst, .py, .jsonl (each also as .gz or .zst) and .parquet"

Known = Callable[[str], tuple[str, str] | None]
"""The format of a file by its name, or None."""
Ignored = Callable[[Path, bool], bool]
"""Whether a file or a folder (True) is left out."""

PREFLIGHT_ENTRIES = 20_000  # a folder is searched so far for something to read before the run starts


@dataclass(frozen=True, slots=True)
class Place:
    """A file to read. `uri` names it relative to what the user named; `named` is True when the user named the file itself."""

    path: Path
    uri: str
    bytes: int
    named: bool


def format_of(name: str) -> tuple[str, str] | None:
    """The suffix that says how to read a file and the one that says how it is packed: (".jsonl", ".gz"); None when unknown."""
    parts = name.lower().rsplit(".", 2)
    last = "." + parts[-1] if len(parts) > 1 else ""
    if last in (*TEXT_SUFFIXES, *LINE_SUFFIXES, *TABLE_SUFFIXES):
        return last, ""
    inner = "." + parts[-2] if len(parts) > 2 else ""
    if last in PACKED_SUFFIXES and inner in (*TEXT_SUFFIXES, *LINE_SUFFIXES):
        return inner, last
    return None


def check(arguments: Sequence[str]) -> None:
    """Raise HearthError, in one line, for a name that cannot be read; a folder is looked into until something readable is found."""
    for argument in arguments:
        path = Path(argument).expanduser()
        mode = mode_of(argument, path)
        if stat.S_ISREG(mode):
            _check_file(argument, path)
        elif stat.S_ISDIR(mode):
            _check_folder(argument, path)
        else:
            raise HearthError(f"{argument}: is a {special(mode)}, which cannot be read twice; give a file or a folder")


def mode_of(argument: str, path: Path) -> int:
    """The mode of what the user named; raises HearthError, in one line, when it cannot be looked at."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise HearthError(f"{argument}: no such file or folder; check the path") from None
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code == errno.ELOOP:
            raise HearthError(f"{argument}: the symbolic link leads back to itself; give the path of the file or folder itself") from None
        reason = os.strerror(code) if code else str(error)
        raise HearthError(f"{argument!r}: cannot be looked at ({reason}); check the path") from None


def _check_file(argument: str, path: Path) -> None:
    if format_of(path.name) is None:
        raise HearthError(f"{argument}: files of this kind are not read; give {READABLE}")
    if path.stat().st_size == 0:
        raise HearthError(f"{argument}: the file is empty; give a file with text in it")
    if not os.access(path, os.R_OK):
        raise HearthError(f"{argument}: cannot be read (permission denied); allow it with chmod u+r or leave it out")


def _check_folder(argument: str, path: Path) -> None:
    if not os.access(path, os.R_OK | os.X_OK):
        raise HearthError(f"{argument}: cannot be read (permission denied); allow it with chmod u+rx or leave it out")
    kinds: Counter[str] = Counter()
    for number, found in enumerate(walk(path, "")):
        if isinstance(found, Place) or number > PREFLIGHT_ENTRIES:
            return
        kinds[found.value if found.rule == "unsupported_suffix" else found.rule] += 1
    seen = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3)) or "nothing at all"
    raise HearthError(f"{argument}: nothing in this folder can be read (found: {seen}); give a folder with {READABLE}")


def find(arguments: Sequence[str]) -> Iterator[Place | Drop]:
    """Every file below `arguments`, sorted by path, to read or with the rule that leaves it out.

    The uri of a file is its path below the folder that was named, or its own name; with several arguments it starts with their
    number, so that two never clash and no document is named by its place on this machine. (The arguments themselves are settings:
    `recipe.toml` and the ledger hold them as they were typed.)
    """
    for number, argument in enumerate(arguments, 1):
        path = Path(argument).expanduser()
        prefix = f"{number}/" if len(arguments) > 1 else ""
        if path.is_dir():
            yield from walk(path, prefix)
        else:
            yield Place(path, prefix + printable(path.name), path.stat().st_size, named=True)


def where(arguments: Sequence[str], uri: str) -> str:
    """The path under which the user finds what `uri` names: the argument as it was typed, and what follows below it."""
    number, _, below = uri.partition("/") if len(arguments) > 1 else ("1", "", uri)
    argument = arguments[int(number) - 1]
    path = Path(argument).expanduser()
    return str(Path(argument) / below) if path.is_dir() else argument + below.removeprefix(printable(path.name))


def walk(folder: Path, prefix: str, known: Known = format_of, ignored: Ignored | None = None) -> Iterator[Place | Drop]:
    """The files below `folder` whose format is known; hidden ones, hidden folders (`.git`) and what is `ignored` are left out whole.

    The folders that are still to be looked into stand in a list: they may be nested deeper than Python's calls.
    """
    ahead: list[tuple[Path | os.DirEntry[str], str]] = [(folder, prefix)]  # in reverse; a uri that ends in "/" is a folder's
    while ahead:
        entry, uri = ahead.pop()
        if isinstance(entry, Path) or uri.endswith("/"):
            try:
                inside = sorted(os.scandir(entry), key=lambda entry: entry.name, reverse=True)
            except OSError as error:
                yield Drop(uri or ".", "unreadable", os.strerror(error.errno or 0), "readable folders")
                continue
            ahead += [(found, uri + printable(found.name)) for found in inside]
        elif entry.name.startswith("."):
            yield Drop(uri, "hidden", "name starts with a dot", "visible files and folders")
        elif ignored is not None and ignored(Path(entry.path), entry.is_dir(follow_symlinks=False)):
            yield Drop(uri, "ignored", "named in a .gitignore", "files that are not ignored")
        elif entry.is_symlink():
            yield Drop(uri, "link", "symbolic link", "links inside folders are not followed")
        elif entry.is_dir(follow_symlinks=False):
            ahead.append((entry, uri + "/"))
        else:
            yield _file(entry, uri, known)


def _file(entry: os.DirEntry[str], uri: str, known: Known) -> Place | Drop:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Drop(uri, "unreadable", os.strerror(error.errno or 0), "readable files")
    if not stat.S_ISREG(status.st_mode):
        return Drop(uri, "special", special(status.st_mode), "regular files")
    if known(entry.name) is None:
        return Drop(uri, "unsupported_suffix", Path(entry.name).suffix.lower() or "no suffix", READABLE)
    return Place(Path(entry.path), uri, status.st_size, named=False)


def is_special(mode: int) -> bool:
    """True for what is neither a file nor a folder."""
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def special(mode: int) -> str:
    """What such a thing is called."""
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")


def printable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are spelled out."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")
