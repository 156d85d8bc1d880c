"""Muon against AdamW: the same recipe, budget and seeds, bits per byte before fine-tuning. Takes 2 x seeds x the budget.

.venv/bin/python benchmarks/optimizer.py --budget "2 min" --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from predicted_time import run


def main() -> None:
    """Alternate the two, seed by seed, so that a drifting machine hurts both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="2 min")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--adamw-scale", type=float, default=1.0, help="factor on AdamW's learning rates")
    options = parser.parse_args()
    found: dict[str, list[float]] = {"muon": [], "adamw": []}
    for seed in range(1, options.seeds + 1):
        for optimizer, values in found.items():
            scale = options.adamw_scale if optimizer == "adamw" else 1.0
            settings = (f"seed={seed}", f"plan.optimizer={optimizer}", f"plan.learning_rate_scale={scale}")
            with tempfile.TemporaryDirectory() as folder:
                facts = run(options.budget, Path(folder) / "run", *settings)
            values.append(facts["evaluation"]["bits_per_byte"]["base"]["value"])
            print(f"seed {seed} {optimizer:>6} {values[-1]:.4f} bits per byte", flush=True)
    for optimizer, values in found.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{optimizer:>6}: mean {statistics.mean(values):.4f}, standard deviation over seeds {spread:.4f}, n = {len(values)}")


if __name__ == "__main__":
    main()
