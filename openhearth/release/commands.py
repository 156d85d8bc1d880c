"""What `hearth verify` and `hearth rebuild` print, and the exit status that they end with.

0: it is what it says it is, or the rebuild is bit-identical. 1: the rebuild is not. 2: the request itself cannot be followed (no such
folder, no release in it), which is raised as a HearthError. 10 and above: a check of `verify` failed, each kind with its number.
"""

from __future__ import annotations

import json as jsonlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from openhearth.release.verify import Report, verify
from openhearth.runner import Watcher

if TYPE_CHECKING:
    from openhearth.release.rebuild import Rebuilt


def verify_command(folder: Path, json: bool = False, trust: str = "", load: bool = False) -> int:
    """Check a release and print a short table (or JSON: a line for each check and one for the whole); returns the exit status."""
    report = verify(folder, trust, load=load)
    if json:
        for finding in report.findings:
            print(jsonlib.dumps(asdict(finding), ensure_ascii=True))
        content = {"ok": report.ok, "folder": str(report.folder), "root": report.root, "fault": report.fault}
        print(jsonlib.dumps({**content, "status": report.exit_status}, ensure_ascii=True))
    elif report.ok:
        print_findings(report)
        print(f"verified: {report.folder}" + (f", root {report.root}" if report.root else ""))
    else:
        print_findings(report)
        print(f"not verified: {report.fault}", file=sys.stderr)
    return report.exit_status


def print_findings(report: Report) -> None:
    """One line for each check that was made."""
    for finding in report.findings:
        print(f"{'ok   ' if finding.ok else 'FAULT'}  {finding.name:<14} {finding.detail}")


class _Lines(Watcher):
    """What a rebuild is doing, on the standard error: a line for each stage, and its progress where a person looks on."""

    def __init__(self) -> None:
        self.person = sys.stderr.isatty()
        self.shown = 0.0

    def started(self, kind: str) -> None:
        print(f"rebuilding: {kind}", file=sys.stderr)

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        if self.person and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            print(f"\r  {done / max(total, 1e-9):6.1%}", end="\r", file=sys.stderr, flush=True)

    def note(self, kind: str, text: str) -> None:
        print(f"  {text}", file=sys.stderr)


def rebuild_command(folder: Path, into: Path | None = None, text: Sequence[str] = (), json: bool = False) -> int:
    """Make a release's weights again, compare, print the result; returns the exit status."""
    from openhearth.release.rebuild import rebuild

    result = rebuild(folder, into, text, _Lines())
    if json:
        content = {
            "identical": result.identical,
            "verdict": result.verdict,
            "root": result.report.root,
            "stages": result.stages,
            "differences": [asdict(difference) for difference in result.differences],
            "documents": result.documents,
            "weights": result.weights,
            "changed_code": result.changed_code,
            "environment": result.environment,
        }
        print(jsonlib.dumps(content, ensure_ascii=True))
    else:
        for line in _told(result):
            print(line)
        print(result.verdict, file=sys.stdout if result.identical else sys.stderr)
    return 0 if result.identical else 1


def _told(result: Rebuilt) -> Iterator[str]:
    """The table of stages, and, when something differs, what else does."""
    differing = {difference.stage: difference for difference in result.differences}
    for kind, digest in result.stages.items():
        yield f"{kind:<10} {digest[:16]}  {differing[kind].detail if kind in differing else 'as recorded'}"
    if result.changed_code:
        yield f"the code of {', '.join(result.changed_code)} is not the recorded one (another version of OpenHearth)"
    for line in result.documents[:20]:
        yield f"document    {line}"
    if result.report.ok and not result.identical:
        yield from (f"environment {line}" for line in result.environment or ["no difference is known"])


def key_command(path: Path, expires: str = "") -> int:
    """Make a key and say what to do with it."""
    from openhearth.release.sign import new_key

    print(f"made: {path} (keep it to yourself) and {path}.pub\nfingerprint {new_key(path, expires)}")
    return 0


def sign_command(folder: Path, key: Path) -> int:
    """Sign the release in `folder`, or any folder of a model."""
    from openhearth.release.manifest import find_release
    from openhearth.release.sign import fingerprint, load_key, sign_folder

    loaded = load_key(key)
    place = find_release(folder) if (folder / "ledger.jsonl").is_file() and (folder / "recipe.toml").is_file() else folder
    sign_folder(place, loaded)
    print(f"signed: {place}\ncheck it with: hearth verify {place} --trust {fingerprint(loaded.private.public_key())}")
    return 0


def release_command(
    folder: Path, *, into: Path | None, gguf: str, checkpoints: int, key: Path | None, licence: str, licence_file: str, json: bool
) -> int:
    """Make a release with additions, and say what to do with it."""
    from openhearth.release.finish import Wishes, finish
    from openhearth.release.gguf import formats
    from openhearth.release.manifest import read_manifest

    wishes = Wishes(tuple(formats(gguf)), checkpoints, key, licence, licence_file)
    made = finish(folder, wishes, into, lambda text: print(text, file=sys.stderr))
    listed = read_manifest(made)
    size = sum(entry.bytes for entry in listed.files.values())
    if json:
        print(jsonlib.dumps({"folder": str(made), "root": listed.root, "files": len(listed.files), "bytes": size}))
    else:
        print(f"released: {made}, {len(listed.files):,} files, {size:,} bytes, root {listed.root}")
    return 0
