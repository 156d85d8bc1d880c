"""`hearth judge agree`: how far two judges agree, how far one may be believed when it is sure, and whether it likes a place.

One judge is held against another, or against rows with a known answer. Intervals: Wilson's for shares, whole rows drawn again for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.errors import HearthError
from openhearth.evaluate.statistics import Estimate, wilson

Floats = npt.NDArray[np.float64]
BINS = 10
RESAMPLES = 2000


def expected_calibration_error(probabilities: Floats, outcomes: Floats) -> float:
    """Mean distance between how sure and how right, over ten equal intervals of how sure; weighted by rows.

    `probabilities`: of the first answer; `outcomes`: 1 where the first is better. How sure is the probability of the answer that was
    chosen. Naeini et al. 2015 (ECE).
    """
    sure = np.maximum(probabilities, 1 - probabilities)
    right = ((probabilities > 0.5) == (outcomes > 0.5)).astype(np.float64)
    right[probabilities == 0.5] = 0.5
    place = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    return float(sum(abs((sure - right)[place == each].sum()) for each in range(BINS)) / len(sure))


def brier(probabilities: Floats, outcomes: Floats) -> float:
    """Mean squared distance between probability and outcome: 0 is perfect, 0.25 is what always saying 0.5 gets. Brier 1950."""
    return float(((probabilities - outcomes) ** 2).mean())


def kappa(one: Floats, other: Floats) -> float:
    """Agreement of two judges' choices beyond chance. Cohen 1960; nan where both always say the same."""
    a, b = one > 0.5, other > 0.5
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def calibration_rows(probabilities: Floats, outcomes: Floats) -> list[dict[str, float]]:
    """For each interval of how sure: rows, how sure on average, how often right. What a calibration plot shows."""
    sure = np.maximum(probabilities, 1 - probabilities)
    right = (probabilities > 0.5) == (outcomes > 0.5)
    place = np.minimum(((sure - 0.5) * 2 * BINS).astype(int), BINS - 1)
    rows = []
    for each in range(BINS):
        inside = place == each
        if inside.any():
            rows.append({"rows": int(inside.sum()), "sure": float(sure[inside].mean()), "right": float(right[inside].mean())})
    return rows


def resampled(statistic: Callable[..., float], *columns: Floats, seed: int = 0) -> Estimate:
    """The statistic of the columns with its 95 % percentile interval over rows drawn again (Efron 1979)."""
    draws = np.random.Generator(np.random.Philox(key=seed))
    count = len(columns[0])
    values = []
    for _ in range(RESAMPLES):
        rows = draws.integers(0, count, count)
        values.append(statistic(*(column[rows] for column in columns)))
    low, high = np.nanpercentile(values, [2.5, 97.5]) if np.isfinite(values).any() else (float("nan"), float("nan"))
    return Estimate(statistic(*columns), float(low), float(high))


def agreement(first: Sequence[float | None], second: Sequence[float | None]) -> dict[str, Any]:
    """Two judges' labels of the same rows: how often they choose alike, and Cohen's kappa. Rows that one of them left open are counted."""
    if len(first) != len(second):
        raise HearthError(f"one judge has {len(first):,} labels and the other {len(second):,}; both must judge the same rows")
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not both:
        raise HearthError("the two judges have no row that both decided; there is nothing to compare")
    one, other = np.array([a for a, _ in both]), np.array([b for _, b in both])
    return {
        "rows": len(both),
        "undecided": len(first) - len(both),
        "agree": wilson(int(((one > 0.5) == (other > 0.5)).sum()), len(both)),
        "kappa": resampled(kappa, one, other),
    }


def reliability(labels: Sequence[float | None], outcomes: Sequence[float]) -> dict[str, Any]:
    """One judge's labels against known answers (1: the first is better): accuracy, calibration error, Brier score."""
    known = [(label, outcome) for label, outcome in zip(labels, outcomes, strict=True) if label is not None]
    if not known:
        raise HearthError("the judge decided no row; there is nothing to hold against the known answers")
    p, y = np.array([label for label, _ in known]), np.array([float(outcome) for _, outcome in known])
    return {
        "accuracy": wilson(int(((p > 0.5) == (y > 0.5)).sum()), len(known)),
        "calibration_error": resampled(expected_calibration_error, p, y),
        "brier": resampled(brier, p, y),
        "calibration": calibration_rows(p, y),
    }


def order_bias(gaps: Sequence[float | None]) -> dict[str, Any]:
    """From the gap between the two orders of each row: the mean (positive: the first place is liked), and how often the choice flips
    by more than half."""
    known = np.array([each for each in gaps if each is not None])
    if not len(known):
        raise HearthError("no row was decided in both orders; the order's effect cannot be seen")
    return {"gap": resampled(lambda values: float(values.mean()), known), "absolute": resampled(lambda v: float(np.abs(v).mean()), known)}
