"""How much compute one recipe needs to be as good as another: the two estimates behind `hearth compare`.

From a ladder (runs of several sizes): both recipes follow one law of compute, the second with another constant,

    L(C) = E + A C^-alpha   and   L(C) = E + B C^-alpha   so that   C_second / C_first at equal loss = (B / A)^(1/alpha)

which is Hoffmann et al.'s (2022) form in one variable. For a fixed alpha it is linear in E, A and B: closed form, relative residuals.

From one size: the better recipe's own curve says how early it stood at the loss at which the other ends. Its learning rate had not come
down by then, so a run of its own with that compute would be better still: what comes out is a bound, on the side of the worse recipe.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from openhearth.experiments.curves import Curve
from openhearth.experiments.runs import Floats

ALPHAS = np.geomspace(0.01, 3.0, 50)
"""Exponents that are tried; between the neighbours of the best one it is then found to rounding."""
GOLDEN = (5**0.5 - 1) / 2


def from_curves(first: Curve, second: Curve, differences: Floats) -> tuple[Floats, Floats]:
    """The parts of the first and of the second run after which they stand at one loss, for each difference of their ends.

    `differences`: (draws,), loss of the second less that of the first where they end. The worse run stands at its end (1), the better
    one where its curve was by so much above its own end.
    """
    first_part = np.where(differences > 0, first.part_at(first.end + np.abs(differences)), 1.0)
    second_part = np.where(differences > 0, 1.0, second.part_at(second.end + np.abs(differences)))
    return first_part, second_part


class Ladder:
    """Runs of two recipes, at several amounts of compute: the law and the ratio that fit best."""

    def __init__(self, compute: Floats, second: npt.NDArray[np.bool_], floor: bool) -> None:
        """`compute` (runs,), `second` (runs,) true for runs of the second recipe, `floor` whether E is fitted or 0."""
        self.unit = float(np.exp(np.log(compute).mean()))
        self.compute, self.second, self.floor = compute / self.unit, second, floor

    def fit(self, losses: Floats) -> tuple[Floats, Floats]:
        """C_second / C_first at equal loss, (draws,), NaN where loss does not fall with compute, and the fitted losses, (draws, runs).

        `losses`: (draws, runs), above zero.
        """
        errors = np.stack([self._linear(np.full(len(losses), alpha), losses)[0] for alpha in ALPHAS])
        best = np.argmin(errors, axis=0)
        low, high = np.log(ALPHAS[np.maximum(best - 1, 0)]), np.log(ALPHAS[np.minimum(best + 1, len(ALPHAS) - 1)])
        for _ in range(35):  # golden section
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            lower = self._linear(np.exp(left), losses)[0] < self._linear(np.exp(right), losses)[0]
            low, high = np.where(lower, low, left), np.where(lower, right, high)
        alpha = np.exp((low + high) / 2)
        error, _, first, second, fitted = self._linear(alpha, losses)
        falls = np.isfinite(error)
        return np.where(falls, (np.where(falls, second, 1.0) / np.where(falls, first, 1.0)) ** (1 / alpha), np.nan), fitted

    def _linear(self, alpha: Floats, losses: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """For each draw's alpha: the sum of squared relative residuals, E, A, B, and the fitted losses.

        Least squares of 1 on three columns, of which those of A and B never overlap: the normal equations in closed form.
        """
        power = self.compute[None] ** -alpha[:, None] / losses
        ones = 1 / losses
        first, second = np.where(self.second, 0.0, power), np.where(self.second, power, 0.0)
        own = [(column**2).sum(axis=1) for column in (first, second)]
        with_ones = [(column * ones).sum(axis=1) for column in (first, second)]
        wanted = [column.sum(axis=1) for column in (first, second)]
        floor = np.zeros(len(losses))
        if self.floor:
            above = ones.sum(axis=1) - sum(a * w / o for a, w, o in zip(with_ones, wanted, own, strict=True))
            below = (ones**2).sum(axis=1) - sum(a * a / o for a, o in zip(with_ones, own, strict=True))
            floor = np.where(below > 1e-12 * (ones**2).sum(axis=1), np.maximum(above, 0) / np.maximum(below, 1e-300), 0.0)
        sizes = [(w - floor * a) / o for w, a, o in zip(wanted, with_ones, own, strict=True)]
        relative = floor[:, None] * ones + sizes[0][:, None] * first + sizes[1][:, None] * second
        falls = (sizes[0] > 0) & (sizes[1] > 0)
        return np.where(falls, ((relative - 1) ** 2).sum(axis=1), np.inf), floor, sizes[0], sizes[1], relative * losses
