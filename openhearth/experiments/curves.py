"""The loss of a run as a smooth curve that only falls, and where it passes a level.

Steps are noisy. A local straight line with tricube weights over a tenth of the run (loess, Cleveland 1979) smooths them without dragging
the ends towards the middle, as a running mean would; what is left of the noise never makes the curve rise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openhearth.experiments.runs import Floats, Trained

SPAN = 0.1
"""Part of a run over which a line is fitted."""
POINTS = 400
"""Of a curve, evenly spaced."""
BLOCKS = 2000
"""Steps are averaged into at most so many before they are smoothed."""


@dataclass(frozen=True)
class Curve:
    """Loss against the part of the run that is done; `part` rises to 1, `loss` never rises. Both (points,)."""

    part: Floats
    loss: Floats

    @property
    def end(self) -> float:
        """The loss at the end of the run."""
        return float(self.loss[-1])

    def part_at(self, loss: Floats) -> Floats:
        """The part of the run after which the curve first stands at each `loss`; the first point's for what lies above it."""
        return np.interp(-loss, -self.loss, self.part)


def smooth(x: Floats, y: Floats, at: Floats, width: float) -> Floats:
    """A line fitted around each point of `at` to the values within `width` of it, tricube weights; (at,)."""
    weights = np.clip(1 - (np.abs(at[:, None] - x[None]) / width) ** 3, 0, None) ** 3
    away = x[None] - at[:, None]
    w, wx, wxx = weights.sum(1), (weights * away).sum(1), (weights * away**2).sum(1)
    wy, wxy = weights @ y, (weights * away) @ y
    determinant = w * wxx - wx**2
    line = (wxx * wy - wx * wxy) / np.where(determinant > 1e-12 * w * wxx, determinant, np.inf)
    return np.asarray(np.where(determinant > 1e-12 * w * wxx, line, wy / np.maximum(w, 1e-300)))


def curve(run: Trained, scale: float = 1.0) -> Curve:
    """The curve of a run's steps; `scale` turns nats per token into the unit that is wanted."""
    part, loss = run.tokens / run.tokens[-1], run.loss * scale
    size = math.ceil(len(loss) / BLOCKS)
    if size > 1:
        starts = np.arange(0, len(loss), size)
        counts = np.diff([*starts, len(loss)])
        part, loss = np.add.reduceat(part, starts) / counts, np.add.reduceat(loss, starts) / counts
    width = max(SPAN / 2, 3 * float(part[1] - part[0]) if len(part) > 1 else 1.0)
    at = np.linspace(0, 1, POINTS + 1)[1:]
    at = at[at >= part[0]] if part[0] < 1 else at[-1:]
    return Curve(at, np.minimum.accumulate(smooth(part, loss, at, width)))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean of several runs of one recipe, over what all of them have."""
    first = max(curve.part[0] for curve in curves)
    part = curves[0].part[curves[0].part >= first]
    return Curve(part, np.mean([np.interp(part, one.part, one.loss) for one in curves], axis=0))
