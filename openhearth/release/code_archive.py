"""The code that made a release, inside it: the sources of this package as one tar whose bytes depend on the sources alone.

Names sorted, no times, no owners, plain files only; not compressed, because compressors differ between versions. Nothing here ever
unpacks such a file: `check` reads its table and refuses what could leave a folder.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from openhearth.errors import DamagedError
from openhearth.release.licences import apache
from openhearth.release.manifest import clash, unsafe

ARCHIVE, LICENCE = "code/openhearth.tar", "code/LICENSE"
_SUFFIXES = (".py", ".tsv", ".csv", ".json", ".toml", ".txt", ".html", ".css", ".js", ".typed")
MAX_MEMBERS, MAX_BYTES = 10_000, 50_000_000


def archive() -> bytes:
    """The sources of the running package, with its licence, as a tar (ustar)."""
    package = Path(__file__).parents[1]
    files = {
        f"openhearth/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.suffix in _SUFFIXES and "__pycache__" not in path.parts
    }
    files["LICENSE"] = apache().encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def check(path: Path, where: str) -> int:
    """The number of files in an archive; raises DamagedError unless all are plain files with names that stay inside, each once."""
    names: list[str] = []
    size = 0
    if path.stat().st_size > MAX_BYTES:  # names too are read from it, and could be as long
        raise DamagedError(f"{where}: more than {MAX_BYTES:,} bytes; no code is so large")
    try:
        with tarfile.open(path, mode="r:") as tar:
            for entry in tar:
                if not entry.isreg() or entry.mode & 0o7000:
                    raise DamagedError(f"{where}: {entry.name[:100]!r} is not a plain file")
                if reason := unsafe(entry.name):
                    raise DamagedError(f"{where}: the name {entry.name[:100]!r} {reason}")
                names.append(entry.name)
                size += entry.size
                if len(names) > MAX_MEMBERS or size > MAX_BYTES:
                    raise DamagedError(f"{where}: more than {MAX_MEMBERS:,} files or {MAX_BYTES:,} bytes; no code is so large")
    except tarfile.TarError as error:
        raise DamagedError(f"{where}: not readable as a tar ({error})") from None
    if len(set(names)) != len(names):
        raise DamagedError(f"{where}: a name stands there twice")
    if pair := clash(names):
        raise DamagedError(f"{where}: {pair[0]!r} and {pair[1]!r} cannot both exist on every system")
    return len(names)
