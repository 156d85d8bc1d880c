"""Predicted against measured seconds of whole runs, for several budgets. Quiet machine; takes the sum of the budgets.

.venv/bin/python benchmarks/predicted_time.py --budgets "1 min" "3 min" "10 min"
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(budget: str, folder: Path, *settings: str) -> dict[str, Any]:
    """One run of the laptop recipe in a fresh folder; the facts that `hearth run --json` prints, and the wall clock around it."""
    command = [sys.executable, "-m", "openhearth", "run", "recipes/laptop.toml", "--budget", budget, "--dir", str(folder), "--json"]
    command += [part for setting in settings for part in ("--set", setting)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout)
    facts["wall_seconds"] = time.monotonic() - began
    return facts


def main() -> None:
    """Run each budget and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budgets", nargs="+", default=["1 min", "3 min", "10 min"])
    options = parser.parse_args()
    print(
        f"{'budget':>8} {'predicted s':>12} {'measured s':>11} {'off':>6} {'wall s':>7} {'parameters':>11} {'tokens':>12} {'bits/byte':>10}"
    )
    for budget in options.budgets:
        with tempfile.TemporaryDirectory() as folder:
            facts = run(budget, Path(folder) / "run")
        measured, predicted = facts["total"]["seconds"], facts["total"]["predicted_seconds"]
        bits = facts["evaluation"]["bits_per_byte"]["sft"]["value"]
        tokens = next(stage["tokens"] for stage in facts["stages"] if stage["stage"] == "pretrain")
        print(
            f"{budget:>8} {predicted:12.1f} {measured:11.1f} {measured / predicted - 1:+6.1%} {facts['wall_seconds']:7.1f} "
            f"{facts['parameters']:11,} {tokens:12,} {bits:10.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
