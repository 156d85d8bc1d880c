"""What `hearth verify` and `hearth rebuild` print, and the exit status that they end with.

0: it is what it says it is, or the rebuild is bit-identical. 1: it is not, and one line says where. 2: the request itself cannot
be followed (no such folder, no release in it), which is raised as a HearthError.
"""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path

from openhearth.release.verify import Report, verify


def verify_command(folder: Path, json: bool = False) -> int:
    """Check a release and print a short table (or one JSON object); returns the exit status."""
    report = verify(folder)
    if json:
        content = {"ok": report.ok, "folder": str(report.folder), "root": report.root, "fault": report.fault}
        print(jsonlib.dumps({**content, "findings": [asdict(finding) for finding in report.findings]}, ensure_ascii=True))
    elif report.ok:
        print_findings(report)
        print(f"verified: {report.folder}, root {report.root}")
    else:
        print_findings(report)
        print(f"not verified: {report.fault}", file=sys.stderr)
    return 0 if report.ok else 1


def print_findings(report: Report) -> None:
    """One line for each check that was made."""
    for finding in report.findings:
        print(f"{'ok   ' if finding.ok else 'FAULT'}  {finding.name:<14} {finding.detail}")
