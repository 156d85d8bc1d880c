"""Puts into pages of docs/ what their commands print: a block that begins with `$ hearth ...` is filled with that command's output.

python scripts/transcripts.py docs/plan/laws.md docs/plan/claims.md      tests check that the pages are up to date
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```text\n\$ (hearth [^\n]+)\n.*?```", re.DOTALL)
COLUMNS = "120"


def filled(page: str) -> str:
    """The page with every transcript made again."""
    return BLOCK.sub(lambda found: f"```text\n$ {found[1]}\n{output(found[1])}```", page)


def output(command: str) -> str:
    """What it prints, folded at the width of a page."""
    environment = {**os.environ, "COLUMNS": COLUMNS, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-m", "openhearth", *shlex.split(command)[1:]]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    lines = []
    for line in done.stdout.splitlines():
        text = line.rstrip()
        while len(text) > int(COLUMNS):
            cut = text.rfind(" ", 0, int(COLUMNS))
            lines.append(text[:cut])
            text = "  " + text[cut + 1 :]
        lines.append(text)
    return "\n".join(lines).strip("\n") + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(filled(file.read_text()))
