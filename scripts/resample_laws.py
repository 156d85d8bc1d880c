"""Makes the tables of resampled coefficients behind the intervals of `hearth plan optimal`: openhearth/plan/tables/*_resamples.csv.

    python scripts/resample_laws.py                               the laws whose runs come with the project (Gadre, Muennighoff)
    python scripts/resample_laws.py --points svg_extracted_data.csv    and the 240 points of Hoffmann et al. 2022, where you have fetched
    them

The points were read from the figure by Epoch AI (https://github.com/epoch-research/analyzing-chinchilla, data/svg_extracted_data.csv). They
carry no licence, so only what follows from them is kept here. porian_resamples.csv holds the coefficients of the authors' own 1,000
bootstraps of the fit `('rw', 'tuned', 'short', 'const', 'standard', 'val')`, as their repository publishes them.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.plan import fit
from openhearth.plan.scaling_laws import LAWS, TABLES

SEED = 42
"""With it the rows of the first table are those of the notebook of Besiroglu et al. 2024."""
OUTLIERS = 5
"""Points of highest loss that Besiroglu et al. leave out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, help="svg_extracted_data.csv of epoch-research/analyzing-chinchilla")
    parser.add_argument("--into", type=Path, default=TABLES)
    options = parser.parse_args()
    if options.points is not None:
        write(options.into / "chinchilla_resamples.csv", chinchilla_runs(options.points), bootstraps=4000)
    for law, train in (("gadre-c4", "c4_original"), ("gadre-redpajama", "rpj"), ("gadre-refinedweb", "rw_original")):
        # The paper's objective: least squares of the loss itself.
        how = {"form": "gadre", "delta": math.inf, "residuals": "loss", "bootstraps": 1000}
        write(options.into / f"{law}_resamples.csv", gadre_runs(train), **how)
    base = {name: LAWS["muennighoff"].coefficients[name] for name in ("A", "B", "E", "alpha", "beta")}
    write(options.into / "muennighoff_resamples.csv", muennighoff_runs(), form="muennighoff", tied=False, fixed=base, bootstraps=1000)


def chinchilla_runs(file: Path) -> dict[str, Any]:
    """The 240 points, tokens from FLOPs / 6N."""
    parameters, flops, loss = columns(read(file), "Model Size", "Training FLOP", "loss")
    kept = loss < np.sort(loss)[-OUTLIERS]
    return {"parameters": parameters[kept], "tokens": (flops / (6 * parameters))[kept], "loss": loss[kept]}


def gadre_runs(train: str) -> dict[str, Any]:
    """The runs of one text at 20 tokens per parameter and above: below, the law does not hold, and its authors fit none of them."""
    rows = [row for row in read(TABLES / "gadre_runs_104.csv") if row["train"] == train and float(row["chinchilla_mult"]) >= 1]
    return dict(zip(("parameters", "tokens", "loss"), columns(rows, "params", "tokens", "loss_c4_val"), strict=True))


def muennighoff_runs() -> dict[str, Any]:
    """All 182, repeated or not."""
    names = ("params", "tokens", "val_loss", "unique_tokens")
    return dict(
        zip(("parameters", "tokens", "loss", "unique_tokens"), columns(read(TABLES / "datablations_runs_182.csv"), *names), strict=True)
    )


def write(file: Path, runs: dict[str, Any], **how: Any) -> None:
    """Fit, refit to resamples of the runs, and write the coefficients that were free."""
    fitted = fit(**runs, seed=SEED, hold_out=0, **how).law
    table = {name: column for name, column in (fitted.given_resamples or {}).items() if name not in how.get("fixed", {})}
    with file.open("w") as out:
        out.write(",".join(table) + "\n")
        for row in zip(*table.values(), strict=True):
            out.write(",".join(f"{value:.8g}" for value in row) + "\n")
    print(f"{file.name}: {len(runs['loss'])} runs, best at", {name: f"{fitted.coefficients[name]:.8g}" for name in table})


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def columns(rows: list[dict[str, str]], *names: str) -> list[np.ndarray]:
    return [np.array([float(row[name]) for row in rows]) for name in names]


if __name__ == "__main__":
    main()
