"""Many small minimisations at once: exact Newton in a trust region, one tensor program for all starts or all bootstrap resamples.

Each row is a problem of its own, with its own point, damping and end. The Hessian is measured in a metric (here the weighted
Gauss-Newton matrix), its eigenvalues are taken by their size, so that every step goes downhill even where the objective is not
convex, and the damping follows how well the quadratic model foretold the last step. Five coefficients need about ten steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Evaluation = tuple[Floats, Floats, Floats, Floats]
"""Of b rows with q coefficients: value (b,), gradient (b, q), Hessian (b, q, q), metric (b, q, q) symmetric and not negative."""

SMALLEST_DAMPING, LARGEST_DAMPING = 1e-9, 1e9
SMALLEST_CURVATURE = 1e-6
"""In units of the metric; flatter directions are not trusted to foretell how much is left to gain."""


@dataclass(frozen=True)
class Solution:
    """Where each row ended."""

    points: Floats
    """(rows, q)"""
    values: Floats
    """(rows,)"""
    converged: npt.NDArray[np.bool_]
    """Whether nothing more could be gained, to rounding."""
    steps: npt.NDArray[np.intp]
    """Evaluations of each row."""


def minimise(evaluate: Callable[[Floats, Rows], Evaluation], start: Floats, *, tolerance: float = 1e-16, steps: int = 100) -> Solution:
    """The minimum near each row of `start` (rows, q). `evaluate(points, rows)` is given the rows that are still moving.

    A row ends when the quadratic model promises less than `tolerance` of its value. A row whose start has no finite value and derivatives
    stays there, with the value inf.
    """
    points = start.copy()
    count = len(points)
    value, gradient, hessian, metric = evaluate(points, np.arange(count))
    usable = _usable(value, gradient, hessian, metric)
    value[~usable] = np.inf
    damping = np.full(count, 1e-2)
    taken = np.zeros(count, dtype=np.intp)
    moving = np.flatnonzero(usable)
    for _ in range(steps):
        step, foretold, at_stake = _step(gradient[moving], hessian[moving], metric[moving], damping[moving])
        trial = points[moving] + step
        found = evaluate(trial, moving)
        before = value[moving]
        better = (found[0] < before) & _usable(*found)
        moved = moving[better]
        points[moved] = trial[better]
        for all_of, new in zip((value, gradient, hessian, metric), found, strict=True):
            all_of[moved] = new[better]
        with np.errstate(invalid="ignore", over="ignore"):
            trust = np.where(better, (before - found[0]) / np.maximum(foretold, 1e-300), 0.0)
        factor = np.select([trust > 0.75, trust > 0.25, better], [0.1, 1.0, 3.0], 8.0)
        damping[moving] = np.maximum(damping[moving] * factor, SMALLEST_DAMPING)
        taken[moving] += 1
        scale = np.maximum(before, 1e-12)
        ended = (at_stake < tolerance * scale) | (foretold < 1e-15 * before) | (damping[moving] > LARGEST_DAMPING)
        moving = moving[~ended]
        if not len(moving):
            break
    converged = usable.copy()
    converged[moving] = False
    return Solution(points, value, converged, taken)


def _usable(value: Floats, gradient: Floats, hessian: Floats, metric: Floats) -> npt.NDArray[np.bool_]:
    """Rows in which everything is a number."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.isfinite(value + gradient.sum(axis=1) + hessian.sum(axis=(1, 2)) + metric.sum(axis=(1, 2))))


def _step(gradient: Floats, hessian: Floats, metric: Floats, damping: Floats) -> tuple[Floats, Floats, Floats]:
    """The step of each row, the decrease that the quadratic model foretells for it, and for an undamped one."""
    q = gradient.shape[1]
    size = np.trace(metric, axis1=1, axis2=2)
    ridge = np.maximum(1e-12 * size, 1e-290)
    root = np.linalg.inv(np.linalg.cholesky(metric + ridge[:, None, None] * np.eye(q)))
    curvature, axes = np.linalg.eigh(root @ hessian @ root.transpose(0, 2, 1))
    slope = (axes.transpose(0, 2, 1) @ (root @ gradient[:, :, None]))[:, :, 0]
    curvature = np.abs(curvature)
    along = -slope / (curvature + damping[:, None])
    step = (root.transpose(0, 2, 1) @ (axes @ along[:, :, None]))[:, :, 0]
    foretold = -(along * slope + 0.5 * curvature * along * along).sum(axis=1)
    at_stake = (slope * slope / np.maximum(curvature, SMALLEST_CURVATURE)).sum(axis=1)
    return step, foretold, at_stake
