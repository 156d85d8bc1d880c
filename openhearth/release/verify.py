"""Is this release what it says it is? Every byte, then every meaning, without trusting the folder and without torch.

First the bytes: names that are safe, files that are regular, listed and unchanged. Only when every byte is the listed one are the
files opened: shapes, finite weights, a tokenizer that two programs read alike, a chat template that is ours, texts that have their
digests, and copies that follow from the ledger. Whatever a hostile folder holds, the answer is a finding that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG

from openhearth.errors import DamagedError, HearthError
from openhearth.release import bom, checkpoints, code_archive, gguf, layout, manifest
from openhearth.release.contents import Contents, one_line
from openhearth.release.manifest import MANIFEST, MAX_FILES, WEIGHTS, Manifest
from openhearth.release.openness.assess import FINDINGS
from openhearth.release.sign import PUBLIC_KEY, SIGNATURE, SignatureError, check_folder

REFUSED_SUFFIXES = (
    *(".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"),
    *(".py", ".pyc", ".so", ".dylib", ".dll", ".exe"),
)
"""Files that run code when another program loads them."""


STATUS = {
    "paths": 10,
    "manifest": 11,
    "files": 11,
    "signature": 23,
    "complete": 12,
    "config": 12,
    "weights": 13,
    "tokenizer": 13,
    "chat template": 13,
    "record": 13,
    "data": 13,
    "code": 13,
    "bill": 14,
    "openness": 14,
    "gguf": 14,
    "checkpoints": 14,
    "transformers": 15,
    "llama.cpp": 16,
}
"""The exit status of each check: paths, hashes, schemas, contents, re-derived files, other programs; of a signature by its error."""


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it holds, what was found (a fault begins with the file's name), and the exit status of a fault."""

    name: str
    ok: bool
    detail: str
    status: int = 0


@dataclass
class Report:
    """All findings in order; after a fault in the bytes nothing is opened."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    root: str = ""

    @property
    def ok(self) -> bool:
        """True when every check was made and holds."""
        return all(finding.ok for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """0, or the status of the first fault."""
        return next((finding.status for finding in self.findings if not finding.ok), 0)

    @property
    def fault(self) -> str:
        """The first fault in one line, or ''."""
        return next((finding.detail for finding in self.findings if not finding.ok), "")


def verify(folder: Path, trust: str = "", *, load: bool = False) -> Report:
    """Check the release in `folder` (a release, or a run that made one), signed by `trust` (a fingerprint or a public key's file) if given.

    With `load` it is also loaded in transformers and, where it holds GGUF files, in llama.cpp, once everything else holds.
    A folder that is signed and no release of ours is checked by its names and its signature. Raises HearthError only when there is
    nothing to check.
    """
    place = manifest.find_release(folder)
    report = Report(place)
    signed = (place / SIGNATURE).is_file()
    if signed and not os.path.lexists(place / MANIFEST):
        report.findings.append(
            _try("paths", MANIFEST, lambda: f"{len(_safe_names(place)):,} files; no {MANIFEST}: only names and signature")
        )
        if report.ok:
            report.findings.append(_try("signature", SIGNATURE, lambda: check_folder(place, trust)))
        return report
    listed = _bytes(place, report)
    if listed is None:
        return report
    if signed or trust:
        report.findings.append(_try("signature", SIGNATURE, lambda: check_folder(place, trust)))
        if not report.ok:
            return report
    report.root = listed.root
    contents = Contents(place, listed)
    later = [
        (name, file, check)
        for name, file, check in (
            ("code", code_archive.ARCHIVE, contents.check_code),
            ("checkpoints", checkpoints.INDEX, contents.check_checkpoints),
            ("gguf", gguf.INDEX, contents.check_gguf),
            ("bill", bom.BOM, contents.check_bill),
            ("openness", FINDINGS, contents.check_openness),
        )
        if file in listed.files  # older releases hold neither
    ]
    for name, file, check in (
        ("complete", MANIFEST, contents.complete),
        ("config", layout.CONFIG, contents.check_config),
        ("weights", WEIGHTS, contents.check_weights),
        ("tokenizer", layout.TOKENIZER, contents.check_tokenizer),
        ("chat template", layout.CHAT_TEMPLATE, contents.check_companions),
        ("record", layout.LEDGER, contents.check_record),
        ("data", layout.DOCUMENTS, contents.check_documents),
        *later,
    ):
        report.findings.append(_try(name, file, check))
    if load and report.ok:
        from openhearth.release import load as programs

        report.findings.append(_try("transformers", WEIGHTS, lambda: programs.in_transformers(place)))
        if gguf.INDEX in listed.files:
            report.findings.append(_try("llama.cpp", gguf.INDEX, lambda: programs.in_llama(place)))
    return report


def _try(name: str, file: str, check: Callable[[], str]) -> Finding:
    """Run a check; whatever it raises on hostile bytes becomes a fault of `file` (panics of Rust libraries are no Exception)."""
    try:
        return Finding(name, True, check())
    except (KeyboardInterrupt, SystemExit):
        raise
    except HearthError as error:
        return Finding(name, False, one_line(str(error)), error.exit_status if isinstance(error, SignatureError) else STATUS[name])
    except OSError as error:
        return Finding(name, False, f"{file}: not readable ({error.strerror or one_line(str(error))})", STATUS[name])
    except BaseException as error:
        return Finding(name, False, f"{file}: not what a release holds ({type(error).__name__}: {one_line(str(error))})", STATUS[name])


# -- bytes ------------------------------------------------------------------------------------------------------------------


def _bytes(folder: Path, report: Report) -> Manifest | None:
    """Names, manifest and digests; None as soon as one of them has a fault."""
    found: list[str] = []
    listed: list[Manifest] = []

    def names() -> str:
        found.extend(_safe_names(folder))
        return f"{len(found):,} files, all inside the release"

    def table() -> str:
        listed.append(manifest.read_manifest(folder))
        return f"root {listed[0].root}"

    def files() -> str:
        files = listed[0].files
        beside = {MANIFEST, *((SIGNATURE, PUBLIC_KEY) if SIGNATURE in found else ())}
        if unlisted := sorted(set(found) - set(files) - beside):
            raise DamagedError(f"{unlisted[0]}: not listed in {MANIFEST}; a release holds nothing that is not listed")
        needed = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
        for name in manifest.folders(folder):
            if name not in needed:
                raise DamagedError(f"{name}/: a folder not listed in {MANIFEST}; a release holds nothing that is not listed")
        for name in files:
            if fault := manifest.check_listed(folder, listed[0], name):
                raise DamagedError(f"{name}: {fault}")
        refused = [name for name in files if name.casefold().endswith(REFUSED_SUFFIXES)]
        if refused:
            raise DamagedError(f"{refused[0]}: files of this kind run code when they are loaded; a release holds none")
        return f"{len(files):,} files, {sum(entry.bytes for entry in files.values()):,} bytes, all as listed"

    for name, check in (("paths", names), ("manifest", table), ("files", files)):
        report.findings.append(_try(name, MANIFEST, check))
        if not report.findings[-1].ok:
            return None
    return listed[0]


def _safe_names(folder: Path) -> list[str]:
    found: list[str] = []
    inodes: dict[tuple[int, int], str] = {}
    for name, info in manifest.walk(folder):
        if len(found) == MAX_FILES:
            raise DamagedError(f"{name}: more than {MAX_FILES:,} files; no release holds so many")
        if reason := manifest.unsafe(name):
            raise DamagedError(f"{name!r}: the name {reason}")
        if S_ISLNK(info.st_mode):
            raise DamagedError(f"{name}: a link; a release holds the files themselves")
        if not S_ISREG(info.st_mode):
            raise DamagedError(f"{name}: not a regular file")
        if (other := inodes.setdefault((info.st_dev, info.st_ino), name)) != name:
            raise DamagedError(f"{name}: the same file as {other} (a hard link); a release holds every file once")
        found.append(name)
    if pair := manifest.clash(found):
        raise DamagedError(f"{pair[1]}: cannot exist beside {pair[0]} on every system")
    return found
