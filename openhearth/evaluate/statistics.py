"""How sure a number is: an interval beside every figure, never a bare one.

Shares get Wilson's score interval, which stays inside [0, 1] and never shrinks to a point at 0 or 100 %. Bits per byte is a ratio of
two sums over documents whose bytes hang together, so whole documents are drawn again, not tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the normal distribution: both tails together leave out 5 %."""
CHUNK = 2_000_000
"""Draws held in memory at a time."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; None where one observation says nothing about others."""

    value: float
    low: float | None
    high: float | None


def totals(values: Sequence[float] | Floats, units: Sequence[int]) -> Floats:
    """The sum of `values` for each unit; `units[i]` is the number of the unit that value i belongs to."""
    return np.bincount(units, np.asarray(values, dtype=np.float64)).astype(np.float64)


def wilson(successes: int, trials: int) -> Estimate:
    """The share of successes with Wilson's 95 % score interval (Wilson 1927); `trials` must be positive."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials")
    share = successes / trials
    z2 = NORMAL_975**2 / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def bootstrap_ratio(numerators: Floats, denominators: Floats, seed: int, resamples: int = 10_000) -> Estimate:
    """sum(numerators) / sum(denominators) with the 95 % percentile interval over `resamples` draws of whole documents (Efron 1979).

    Both arrays: (documents,), in the same order. With one document there is no interval.
    Draws come from the raw stream of Philox, which is the same on every machine and in every version of numpy.
    """
    count = len(numerators)
    if count == 0 or len(denominators) != count or not denominators.sum() > 0:
        raise ValueError("a ratio needs equally many numerators and denominators, and a positive sum below")
    value = float(numerators.sum() / denominators.sum())
    if count == 1:
        return Estimate(value, None, None)
    source = np.random.Philox(key=seed)
    rows = max(1, CHUNK // count)
    ratios = []
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), count)
        raw = source.random_raw(shape[0] * count) >> np.uint64(32)
        drawn = (raw * np.uint64(count) >> np.uint64(32)).astype(np.intp).reshape(shape)
        ratios.append(numerators[drawn].sum(axis=1) / denominators[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(ratios), [2.5, 97.5])
    return Estimate(value, float(low), float(high))
