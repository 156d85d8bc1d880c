"""Runs to fit: of a known law with and without noise, and the published ones that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openhearth.plan import scaling_laws
from openhearth.plan.runs_table import read_table

TABLES = Path(scaling_laws.__file__).with_name("tables")
CHINCHILLA = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}


def grid(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Parameters and tokens of runs as people make them: 1M to 10B, 3 to 300 tokens per parameter."""
    generator = np.random.RandomState(seed)
    n = np.exp(generator.uniform(np.log(1e6), np.log(1e10), count))
    return n, n * np.exp(generator.uniform(np.log(3), np.log(300), count))


def law_loss(n: Any, d: Any, noise: float = 0.0, seed: int = 1) -> Any:
    exact = CHINCHILLA["E"] + CHINCHILLA["A"] / n ** CHINCHILLA["alpha"] + CHINCHILLA["B"] / d ** CHINCHILLA["beta"]
    return exact * np.exp(noise * np.random.RandomState(seed).standard_t(3, len(n)))


def noisy(count: int = 40) -> tuple[Any, Any, Any]:
    n, d = grid(count)
    return n, d, law_loss(n, d, 0.004)


def datablations() -> tuple[Any, ...]:
    table = read_table(TABLES / "datablations_runs_182.csv")
    return tuple(np.array(column) for column in (table.parameters, table.tokens, table.loss, table.unique_tokens))
