"""IsoFLOP parabolas (Hoffmann et al. 2022, approach 2): at each budget the minimum of loss over size, then a power law through the minima.

Runs whose FLOPs lie within a fifth of one another are one budget. In each a parabola of loss in ln N is fitted by least squares; its
vertex is N_opt at that budget. A vertex outside the sizes that were trained is not used. Intervals come from resampled residuals: every
resample is the same parabolas with other noise, so that all of them are a few matrix products.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from openhearth.errors import HearthError
from openhearth.plan.fitted import Fit, Parabola
from openhearth.plan.forms import Form, Runs
from openhearth.plan.newton import Floats

SAME_BUDGET = math.log(1.2)
"""In ln FLOPs, between the least and the largest run of a budget."""
FEWEST_SIZES = 3
"""Different sizes at a budget; a parabola needs no fewer."""


def fit_isoflops(form: Form, runs: Runs, flops: Floats, bootstraps: int, seed: int, unit: str) -> Fit:
    """kN and a of N_opt = kN C^a. Raises HearthError unless at least two budgets have a minimum among their sizes."""
    groups = [group for group in _budgets(flops) if len(np.unique(runs.parameters[group])) >= FEWEST_SIZES]
    if len(groups) < 2:
        raise HearthError(
            f"{len(groups)} budget{'s' if len(groups) != 1 else ''} with at least {FEWEST_SIZES} sizes; isoFLOP parabolas need two such "
            "budgets: train several sizes with the same FLOPs"
        )
    size = np.log(runs.parameters)
    vertices, lowest, hats, fitted, opens = [], [], [], [], []
    for group in groups:
        z = size[group] - size[group].mean()
        powers = np.stack([np.ones_like(z), z, z * z], axis=1)
        hat = np.linalg.pinv(powers)
        c = hat @ runs.loss[group]
        vertex, low = _vertex(c[None])
        hats.append(hat)
        fitted.append(powers @ c)
        vertices.append(float(vertex[0] + size[group].mean()))
        lowest.append(float(low[0]))
        opens.append(bool(c[2] > 0))
    inside = np.array(
        [up and size[g].min() <= v <= size[g].max() for up, v, g in zip(opens, vertices, groups, strict=True)], dtype=np.bool_
    )
    if inside.sum() < 2:
        raise HearthError(
            f"{inside.sum()} of {len(groups)} budgets have their least loss among the sizes trained; train smaller and larger ones"
        )
    budgets = np.array([float(np.log(flops[group]).mean()) for group in groups])
    ln_k, a = _line(budgets[inside], np.array(vertices)[None, inside])
    samples = _resampled(runs, groups, hats, fitted, size, budgets, inside, bootstraps, seed)
    parabolas = tuple(
        Parabola(math.exp(c), len(g), math.exp(v), low, bool(within))
        for c, g, v, low, within in zip(budgets, groups, vertices, lowest, inside, strict=True)
    )
    used = np.concatenate(groups)
    residuals = np.concatenate([runs.loss[g] - f for g, f in zip(groups, fitted, strict=True)])
    notes = []
    if len(used) < len(runs):
        notes.append(f"{len(runs) - len(used)} runs belong to no budget with {FEWEST_SIZES} sizes and are left out")
    if not inside.all():
        notes.append(f"{int((~inside).sum())} of {len(groups)} budgets have no minimum among their sizes and are left out of the power law")
    if samples is None and bootstraps:
        notes.append("three runs at every budget: nothing is left to judge the scatter by, so there are no intervals")
    return Fit(
        form, runs.take(np.sort(used)), {"kN": math.exp(ln_k[0]), "a": float(a[0])}, samples, float(residuals @ residuals), math.inf,
        "loss", False, {}, bootstraps, seed, unit, parabolas=parabolas, notes=tuple(notes),
    )  # fmt: skip


def _budgets(flops: Floats) -> list[npt.NDArray[np.intp]]:
    """Rows of each budget, the smallest first."""
    order = np.argsort(flops, kind="stable")
    cost = np.log(flops[order])
    breaks, first = [], cost[0]
    for place, value in enumerate(cost):
        if value - first > SAME_BUDGET:
            breaks.append(place)
            first = value
    return np.split(order, breaks)


def _vertex(c: Floats) -> tuple[Floats, Floats]:
    """Place and value of the minimum of c0 + c1 z + c2 z^2, (R, 3) to (R,) each; NaN where it has none."""
    bend = np.where(c[:, 2] > 0, c[:, 2], np.nan)
    z = -c[:, 1] / (2 * bend)
    return z, c[:, 0] + 0.5 * c[:, 1] * z


def _line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Intercept and slope by least squares of each row of y, (R, n), without the NaN in it; NaN for a row with fewer than two."""
    there = np.isfinite(y)
    count = there.sum(axis=1)
    y = np.where(there, y, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (there * x).sum(axis=1) / count
        centred = there * (x - mean[:, None])
        slope = (centred * y).sum(axis=1) / np.where(count > 1, (centred**2).sum(axis=1), np.nan)
        return y.sum(axis=1) / count - slope * mean, slope


def _resampled(
    runs: Runs, groups: list[npt.NDArray[np.intp]], hats: list[Floats], fitted: list[Floats], size: Floats, budgets: Floats,
    inside: npt.NDArray[np.bool_], count: int, seed: int,
) -> dict[str, Floats] | None:  # fmt: skip
    """kN and a with residuals (relative, of all budgets together, widened for the coefficients fitted) drawn anew."""
    total = sum(map(len, groups))
    spare = total - 3 * len(groups)
    if not count or spare < 1:
        return None
    relative = np.concatenate([runs.loss[g] / f - 1 for g, f in zip(groups, fitted, strict=True)]) * math.sqrt(total / spare)
    generator = np.random.RandomState(seed)
    columns = []
    for group, hat, line, use in zip(groups, hats, fitted, inside, strict=True):
        noise = generator.choice(relative, (count, len(group)))
        if use:
            vertex = _vertex((line * (1 + noise)) @ hat.T)[0] + size[group].mean()
            columns.append(np.where((vertex >= size[group].min()) & (vertex <= size[group].max()), vertex, np.nan))
    ln_k, a = _line(budgets[inside], np.stack(columns, axis=1))
    with np.errstate(over="ignore"):
        return {"kN": np.exp(ln_k), "a": a}
