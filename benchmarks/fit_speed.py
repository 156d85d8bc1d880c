"""How long a fit takes, on one core, beside the way in which the law was fitted and refitted in print.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/fit_speed.py
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/fit_speed.py --points svg_extracted_data.csv   # Besiroglu et al.'s 240 points

Without --points, runs are made from a law with heavy-tailed noise. With scipy installed, a sample of the published way is timed in the same
process: L-BFGS-B with finite differences from a grid of 4,500 starts for the point, BFGS-like refits from the published coefficients for
the resamples (Hoffmann et al. 2022, appendix D.3; Besiroglu et al. 2024). Half a minute in all.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.plan.fitting import fit
from openhearth.plan.runs_table import read_table
from openhearth.plan.solving import resamples


def made(count: int) -> tuple[Any, Any, Any]:
    """Runs of Hoffmann's law with Student's t noise (3 degrees of freedom, 0.5 %)."""
    generator = np.random.RandomState(0)
    n = np.exp(generator.uniform(np.log(5e7), np.log(1.6e10), count))
    d = n * np.exp(generator.uniform(np.log(3), np.log(200), count))
    return n, d, (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * np.exp(0.005 * generator.standard_t(3, count))


def points(path: Path) -> tuple[Any, Any, Any]:
    """The points of the replication, without the five of the highest loss, as its authors take them."""
    table = read_table(path)
    n, d, loss = (np.array(column) for column in (table.parameters, table.tokens, table.loss))
    kept = loss < np.sort(loss)[-5]
    return n[kept], d[kept], loss[kept]


def seconds(what: Callable[[], Any], times: int) -> list[float]:
    """Wall-clock seconds of each repetition."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        what()
        found.append(time.perf_counter() - begun)
    return found


def published_way(n: Any, d: Any, loss: Any, starts: int, refits: int) -> tuple[float, float, float]:
    """Seconds of one start and of one refit, and the least objective that the sampled starts found."""
    from scipy.optimize import minimize

    log_n, log_d, log_loss = np.log(n), np.log(d), np.log(loss)

    def objective(theta: Any, weights: Any = 1.0) -> float:
        a, b, e, alpha, beta = theta
        r = log_loss - np.log(np.exp(a - alpha * log_n) + np.exp(b - beta * log_d) + np.exp(e))
        return float((weights * np.where(np.abs(r) <= 1e-3, 0.5 * r * r, 1e-3 * (np.abs(r) - 0.5e-3))).sum())

    grid = list(
        itertools.product(range(0, 30, 5), range(0, 30, 5), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5))
    )
    chosen = grid[:: max(1, len(grid) // starts)]
    begun = time.perf_counter()
    with np.errstate(all="ignore"):
        best = min(minimize(objective, start, method="L-BFGS-B").fun for start in chosen)
    per_start = (time.perf_counter() - begun) / len(chosen)
    weights = resamples(len(n), 5, refits, 42)
    begun = time.perf_counter()
    with np.errstate(all="ignore"):
        for row in weights:
            minimize(objective, [6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083], args=(row,), method="BFGS")
    return per_start, (time.perf_counter() - begun) / refits, float(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, help="data/svg_extracted_data.csv of epoch-research/analyzing-chinchilla")
    parser.add_argument("--starts", type=int, default=100, help="starts of the published way that are timed")
    parser.add_argument("--refits", type=int, default=20, help="resamples of the published way that are timed")
    options = parser.parse_args()
    n, d, loss = points(options.points) if options.points else made(240)
    fit(n, d, loss, bootstraps=10)  # imports and allocations
    one = statistics.median(seconds(lambda: fit(n, d, loss, bootstraps=0, hold_out=0), 9))
    whole = statistics.median(seconds(lambda: fit(n, d, loss), 3))
    found = fit(n, d, loss, bootstraps=0, hold_out=0)
    print(f"{len(n)} runs, objective {found.objective:.10g}, {found.agreed[0]} of {found.agreed[1]} starts at the optimum")
    print(f"point fit, with outliers judged    {one:8.4f} s")
    print(f"4,000 resamples, hold-out and all  {whole:8.4f} s")
    for count in (12, 60, 2000):
        each = made(count)
        taken = statistics.median(seconds(lambda each=each: fit(*each, bootstraps=0, hold_out=0), 3))  # type: ignore[misc]
        print(f"point fit of {count:5,} runs           {taken:8.4f} s")
    try:
        per_start, per_refit, best = published_way(n, d, loss, options.starts, options.refits)
    except ImportError:
        print("scipy is not installed: the published way is not timed")
        return
    print(f"published way: {per_start:.4f} s a start, {4500 * per_start:.0f} s for 4,500 (best of {options.starts}: {best:.10g})")
    print(f"published way: {per_refit:.4f} s a resample, {4000 * per_refit:.0f} s for 4,000")
    print(f"ratios: point {4500 * per_start / one:,.0f}, with 4,000 resamples {(4500 * per_start + 4000 * per_refit) / whole:,.0f}")


if __name__ == "__main__":
    main()
