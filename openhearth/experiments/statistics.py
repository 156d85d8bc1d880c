"""Whether a difference between seeds is more than noise: Welch's t-test, with Student's distribution from first principles.

Seeds of two recipes scatter by different amounts, so their variances are not pooled (Welch 1947). Held-out text is drawn again by whole
documents, the same ones for every run, so that what the runs have in common cancels (Efron 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from openhearth.experiments.runs import Text

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Welch:
    """The test of two means: `difference` is that of the second less that of the first."""

    difference: float
    standard_error: float
    freedom: float
    """Degrees of freedom, by Welch and Satterthwaite."""
    p: float
    """Two-sided: how often seeds alone would differ by as much."""


def welch(first: Sequence[float], second: Sequence[float]) -> Welch | None:
    """Welch's t-test of two samples; None where one has fewer than two values."""
    if min(len(first), len(second)) < 2:
        return None
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    parts = [float(values.var(ddof=1)) / len(values) for values in (a, b)]
    difference, variance = float(b.mean() - a.mean()), sum(parts)
    if variance == 0:
        return Welch(difference, 0.0, math.inf, 1.0 if difference == 0 else 0.0)
    freedom = variance**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
    return Welch(difference, math.sqrt(variance), freedom, two_sided(difference / math.sqrt(variance), freedom))


def two_sided(t: float, freedom: float) -> float:
    """How often |T| exceeds |t|, T of Student's distribution: I_x(freedom/2, 1/2) with x = freedom / (freedom + t^2)."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz and Stegun, 26.5.8; Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for term in range(300):
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + numerator * d) or tiny)
        c = (1 + numerator / c) or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * (value - 1)


def resampled_bits(texts: Sequence[Text], draws: int, seed: int) -> Floats:
    """Bits per byte of every run on `draws` resamples of whole documents, the same for all runs: (draws, runs)."""
    sizes = texts[0].bytes
    source = np.random.Generator(np.random.Philox(key=seed))
    counts = source.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws).astype(np.float64)
    nats = np.stack([text.nats for text in texts], axis=1)
    return np.asarray(counts @ nats / math.log(2) / (counts @ sizes)[:, None])


def interval(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
