"""The folder of a run: who may write in it, where things lie in it, and which folder a name means.

    DIR/ledger.jsonl, DIR/recipe.toml      what was done, and the recipe as it was resolved
    DIR/<stage>/<key>/                     a sealed artifact; <key>.partial/ is one in the making
    DIR/model                              a link to the newest release

One process at a time writes in it. The lock is a record lock of the operating system: it ends with the process that holds it,
however that ends, and is not inherited by the processes that it starts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from openhearth.errors import HearthError, nearest
from openhearth.ledger import disk_error

LEDGER, RECIPE, LOCK, MODEL = "ledger.jsonl", "recipe.toml", ".lock", "model"
RUNS = Path("runs")
_held: set[Path] = set()  # a process does not exclude itself with a record lock


def is_run(folder: Path) -> bool:
    """Whether the folder was made by a run (a release holds a ledger too, and a manifest)."""
    return ((folder / LOCK).is_file() or (folder / LEDGER).is_file()) and not (folder / "MANIFEST.json").exists()


def find_run(name: str) -> Path:
    """The folder that a person means: a path, or a name under `runs/`. Raises HearthError, offering the nearest run."""
    given = Path(name)
    try:
        for folder in (given, RUNS / name):
            if is_run(folder) or (folder / LEDGER).is_file():
                return folder
        if given.is_dir():
            raise HearthError(f"{given}: not the folder of a run (it has no {LEDGER})")
        known = [path.name for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
    except (OSError, ValueError) as error:
        raise HearthError(f"{name!a}: not readable ({error})") from None
    near = nearest(given.name, known) or (f"; runs here: {', '.join(sorted(known)[:8])}" if known else "; `hearth runs` lists the runs")
    raise HearthError(f"{ascii(name)[1:-1]}: no such run{near}")


@contextmanager
def opened(folder: Path) -> Iterator[bool]:
    """Make the folder if need be and hold its lock. Gives whether it is new: an error before anything is made removes it again."""
    made = _make(folder)
    try:
        with _lock(folder):
            try:
                yield bool(made)
            except HearthError:
                if made and not _holds_work(folder):
                    shutil.rmtree(folder, ignore_errors=True)  # someone may have deleted it meanwhile
                raise
    finally:
        for path in made:  # the folder and the parents made for it, innermost first; those that hold something stay
            with suppress(OSError):
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make `folder` and its parents; gives those that were made, innermost first. Refuses what is no run folder."""
    try:
        if folder.is_dir():
            inside = {entry.name for entry in os.scandir(folder)}
            if inside and not is_run(folder):
                raise HearthError(f"{folder}: exists and is not the folder of a run; choose another folder with --dir, or empty it")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise HearthError(f"{folder}: cannot be written; choose another folder with --dir")
            return []
        missing = [folder, *folder.parents]
        made: list[Path] = []
        for path in reversed([path for path in missing if not path.is_dir()]):
            path.mkdir()
            made.insert(0, path)
        return made
    except (FileExistsError, NotADirectoryError):
        raise HearthError(f"{folder}: is a file, or a file stands in its way; choose another folder with --dir") from None
    except OSError as error:
        known = disk_error(error, folder)
        if isinstance(known, HearthError):
            raise known from None
        raise HearthError(f"{folder}: cannot be made ({os.strerror(error.errno or 0)}); choose another folder with --dir") from None
    except ValueError:
        raise HearthError(f"{str(folder)!a}: not a name for a folder; choose another with --dir") from None


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock; raises HearthError naming the process that has it."""
    path = folder / LOCK
    place = path.resolve()
    if place in _held:  # never open it twice: closing any handle would end this process's lock
        raise HearthError(f"{folder}: in use by this process; wait until it ends, or choose another folder")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise HearthError(f"{path}: cannot be opened ({os.strerror(error.errno or 0)}); choose another folder with --dir") from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
        os.close(handle)
        raise HearthError(
            f"{folder}: in use by {holder or 'another process'}; wait until it ends, or choose another folder with --dir"
        ) from None
    _held.add(place)
    try:
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        _held.discard(place)
        os.close(handle)


def in_use(folder: Path) -> bool:
    """Whether a process is at work in the folder."""
    if (folder / LOCK).resolve() in _held:
        return True
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _holds_work(folder: Path) -> bool:
    """Whether anything was made or is in the making below the folder."""
    return any(path.name.endswith(".partial") or (path / "artifact.json").exists() for path in folder.glob("*/*"))


def link_model(folder: Path, release: Path) -> None:
    """Point `folder/model` at the release, in one step; a file system without links goes without."""
    temporary = folder / f".{MODEL}.{os.getpid()}.tmp"
    target = os.path.relpath(release, folder)
    link = folder / MODEL
    if (link.exists() and not link.is_symlink()) or (link.is_symlink() and str(link.readlink()) == target):
        return
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
