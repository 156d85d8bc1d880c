"""What `hearth audit` prints. Exit status 0: everything that was trained again came out the same; 1: something did not."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from pathlib import Path

from openhearth.errors import HearthError
from openhearth.release.sign import load_key


def audit_command(folder: Path, *, segments: int, only: str, key: Path | None, out: Path | None, json: bool) -> int:
    """Audit a release, print the result, write the attestation where a key is given."""
    from openhearth.release.audit import attest, audit
    from openhearth.release.manifest import find_release

    numbers = [_number(part) for part in only.split(",") if part.strip()]
    loaded = load_key(key) if key is not None else None
    target = (out or Path("audit.json")) if loaded is not None else None
    if out is not None and loaded is None:
        raise HearthError("--out: an attestation is signed; name your key with --sign KEY")
    if target is not None and target.exists():
        raise HearthError(f"{target}: exists; choose another file with --out")
    found = audit(folder, segments, numbers, lambda text: print(text, file=sys.stderr))
    if loaded is not None and target is not None:
        attest(found, find_release(folder), loaded, target)
    chances = {} if numbers else found.chances()
    if json:
        content = {"ok": found.ok, "root": found.root, "segments": len(found.segments), "results": found.results, "drawn": found.drawn}
        print(jsonlib.dumps({**content, "details": found.details, "caught": chances, "attestation": str(target) if target else None}))
        return 0 if found.ok else 1
    for segment in found.segments:
        result = found.results.get(segment.number, "not audited")
        why = segment.always or ("drawn" if segment.number in found.drawn else "asked for" if segment.number in found.results else "")
        print(f"{segment.number:>4}  {segment.name:<28} {result:<12} {found.details.get(segment.number) or why}")
    for bad, chance in chances.items():
        print(f"had {bad} of the other segments been bad, this audit would have met one with a probability of {chance:.0%}")
    if target is not None:
        print(f"attestation: {target}")
    if not found.ok:
        number = next(number for number, result in found.results.items() if result != "equal")
        print(f"different: segment {number}: {found.details[number]}", file=sys.stderr)
    return 0 if found.ok else 1


def merge_command(files: Sequence[Path], *, trusted: Sequence[str], json: bool) -> int:
    """Add attestations up to a map of what was covered."""
    from openhearth.release.audit import merge

    found = merge(files, trusted)
    names = sorted({who for group in (*found.equal.values(), *found.different.values()) for who in group})
    if json:
        content = {"root": found.root, "segments": found.segments, "map": found.map, "complete": found.complete}
        print(jsonlib.dumps({**content, "uncovered": found.uncovered, "signers": names}))
    else:
        print(f"release {found.root}\n{found.map}  {found.segments - len(found.uncovered)} of {found.segments} segments covered")
        for who in names:
            print(f"signed by {who}")
        if found.uncovered:
            print(f"to cover: hearth audit DIR --only {','.join(map(str, found.uncovered))}")
    return 1 if any(found.different.values()) else 0


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise HearthError(f"--only {text.strip()[:20]}: not the number of a segment")
    return int(text)
