"""Regenerate what the README shows: run the recipe once, put its printed report and its loss curve in place.

make demo, then: .venv/bin/python scripts/readme.py     takes the recipe's budget; changes README.md and docs/loss.png
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- transcript: made by scripts/readme.py -->\n", "<!-- end of transcript -->"


def main() -> None:
    """Run, capture, replace."""
    hearth = [".venv/bin/hearth"]
    folder = "runs/readme"
    environment = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    command = [*hearth, "run", "recipes/laptop.toml", "--dir", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    subprocess.run([*hearth, "show", folder, "--plot", "docs/loss.png"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    shown = done.stdout.replace(folder, "runs/laptop")
    # off a terminal the live table is a line every five seconds; those in the middle of a stage are left out here
    lines = [line.rstrip() for line in shown.splitlines() if not re.match(r"\w+ +\d+%", line)]
    transcript = "\n".join(lines).strip("\n")
    readme = ROOT / "README.md"
    old = readme.read_text()
    shown = f"{BEGIN}```text\n$ make demo\n{transcript}\n```\n{END}"
    new = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: shown, old, flags=re.DOTALL)
    readme.write_text(new)


if __name__ == "__main__":
    main()
