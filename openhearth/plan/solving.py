"""From runs to the coefficients of a law: closed-form starts, Newton to the optimum, and the same for thousands of resamples.

For fixed alpha and beta the law is linear in E, A and B: a grid over the two exponents gives hundreds of starts by least squares on
relative residuals, all from a handful of matrix products. The best few are followed to the bottom at once; where they end in
different places, the lowest is taken and the others are kept, since a resample may prefer one of them.

A bootstrap resample is a row of whole-number weights, so that all resamples are one more batch of rows for the same program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.forms import ALPHA, BETA, R_D, R_N, A, B, E, Form, Free, Objective, Runs
from openhearth.plan.newton import Floats, minimise

EXPONENTS = np.geomspace(0.03, 1.5, 24)
"""Of the grid; published exponents lie between 0.05 and 0.7."""
WEAR = np.array([(r_d, r_n) for r_d in (3.0, 15.0, 60.0, 300.0) for r_n in (1.0, 5.0, 30.0)])
"""Starts of R_D* and R_N*."""
FOLLOWED = 8
"""Starts of the grid that are followed to the bottom."""
KEPT = 4
"""Different minima, at most, that every resample is started from."""
NEAR_BEST = 1.05
"""Only minima within 5 % of the best are kept."""
TOLERANCE = 1e-12
"""Of the objective of a resample: what is left then is a millionth of a standard error."""
BATCH = 32768
"""Rows x runs handled together, a quarter of it where every run has a matrix of its own: the arrays of a batch fit the cache."""


@dataclass(frozen=True)
class Optimum:
    """The best coefficients of one set of runs, and where else the followed starts ended."""

    theta: Floats
    """(p,)"""
    value: float
    free: Free
    others: Floats
    """(k, p): the minima near the best, the best first."""
    converged: bool
    agreed: int
    """Of the followed starts, those that ended at the best."""
    followed: int


def solve(runs: Runs, form: Form, *, tied: bool, fixed: Mapping[int, float], delta: float, on_log: bool) -> Optimum:
    """The optimum over all starts. Raises HearthError when the runs give no start (loss that does not fall with size or data)."""
    free = Free.of(runs, form.size, tied, fixed)
    objective = Objective(runs, free, delta, on_log)
    starts = _starts(objective, form.size, tied, fixed)
    if len(free.places) == 0:
        value = float(objective.value(free.offset)[0])
        return Optimum(free.offset[0], value, free, free.offset, True, 1, 1)
    found = minimise(objective, free.phi(starts))
    order = np.argsort(found.values, kind="stable")
    best = order[0]
    if not np.isfinite(found.values[best]):
        raise HearthError("no law of this form comes near these runs; look at the columns that were read")
    close = 1e-9 * max(float(found.values[best]), 1e-12)
    kept = [best]
    for row in order[1:]:
        if found.values[row] > NEAR_BEST * found.values[best] or len(kept) == KEPT:
            break
        if all(abs(found.values[row] - found.values[other]) > 1e-6 * found.values[other] for other in kept):
            kept.append(row)
    theta = free.theta(found.points, np.zeros(len(starts), dtype=np.intp))
    return Optimum(
        theta[best],
        float(found.values[best]),
        free,
        theta[kept],
        bool(found.converged[best]),
        int((found.values - found.values[best] <= close).sum()),
        len(starts),
    )


def resampled(runs: Runs, optimum: Optimum, *, delta: float, on_log: bool, count: int, seed: int) -> Floats:
    """theta of `count` bootstrap resamples of the runs, (count, p)."""
    weights = resamples(len(runs), len(optimum.free.places), count, seed)
    thetas = np.empty((count, len(optimum.theta)))
    size = max(1, BATCH // (len(runs) * (4 if optimum.theta.size == 7 else 1)))
    for begin in range(0, count, size):
        part = slice(begin, min(begin + size, count))
        thetas[part] = _solve_weighted(runs, optimum, weights[part], delta, on_log)
    return thetas


def _solve_weighted(runs: Runs, optimum: Optimum, weights: Floats, delta: float, on_log: bool) -> Floats:
    """The optimum of each row of weights, started from every minimum that the runs themselves have."""
    free = optimum.free
    starts = free.phi(optimum.others)
    rows, ways = len(weights), len(starts)
    objective = Objective(runs, free, delta, on_log, np.repeat(weights, ways, axis=0) if ways > 1 else weights)
    found = minimise(objective, np.tile(starts, (rows, 1)), tolerance=TOLERANCE)
    best = found.values.reshape(rows, ways).argmin(axis=1) + np.arange(rows) * ways
    return free.theta(found.points[best], np.zeros(rows, dtype=np.intp))


def resamples(runs: int, needed: int, count: int, seed: int) -> Floats:
    """How often each run is drawn in each of `count` resamples with replacement, (count, runs).

    A resample with fewer different runs than coefficients has no fit and is drawn again. numpy promises that this generator's stream
    never changes; with seed 42 the rows are those of Besiroglu et al. 2024, whose notebook draws them the same way.
    """
    generator = np.random.RandomState(seed)
    weights = np.empty((0, runs))
    while len(weights) < count:
        missing = count - len(weights)
        drawn = generator.randint(0, runs, (missing, runs)) + np.arange(missing)[:, None] * runs
        fresh = np.bincount(drawn.ravel(), minlength=missing * runs).reshape(missing, runs).astype(np.float64)
        weights = np.concatenate([weights, fresh[(fresh > 0).sum(axis=1) >= min(needed, runs)]])
    return weights


def profile(
    runs: Runs, optimum: Optimum, place: int, values: Floats, *, tied: bool, fixed: Mapping[int, float], delta: float, on_log: bool
) -> Floats:
    """The least objective with the coefficient at `place` of theta held at each of `values`, (k,): how well the runs know it."""
    starts = np.concatenate([optimum.others, *(_worn(optimum.theta, r_d, r_n) for r_d, r_n in WEAR[::4])])
    rows = np.repeat(values, len(starts))
    free = Free.of(runs, len(optimum.theta), tied, {**fixed, place: rows})
    found = minimise(Objective(runs, free, delta, on_log), free.phi(np.tile(starts, (len(values), 1))), tolerance=TOLERANCE)
    return np.asarray(found.values.reshape(len(values), len(starts)).min(axis=1))


def _worn(theta: Floats, r_d: float, r_n: float) -> Floats:
    moved = theta[None].copy()
    moved[0, [R_D, R_N]] = np.log([r_d, r_n])
    return moved


def _starts(objective: Objective, size: int, tied: bool, fixed: Mapping[int, float]) -> Floats:
    """The best of the grid, (k, p)."""
    runs = objective.runs
    calm = runs if runs.unique is None else _little_repeated(runs)
    grid = _grid(calm, tied, fixed)
    order = np.argsort(replace(objective, runs=calm).value(grid), kind="stable")
    grid = grid[order[: FOLLOWED if size == 5 else 2]]
    grid[:, A] += grid[:, ALPHA] * (calm.mean_x - runs.mean_x)
    grid[:, B] += grid[:, BETA] * (calm.mean_y - runs.mean_y)
    if size == 5:
        return grid
    return np.concatenate([np.column_stack([grid, np.tile(np.log(pair), (len(grid), 1))]) for pair in WEAR])


def _little_repeated(runs: Runs) -> Runs:
    """The runs with at most two passes over their text, where there are enough of them to see a law in; otherwise all."""
    assert runs.unique is not None
    few = runs.tokens <= 2 * runs.unique
    enough = few.sum() >= 8 and np.ptp(runs.parameters[few]) > 0 and np.ptp(runs.tokens[few]) > 0
    return replace(runs.take(few) if enough else runs, unique=None)


def _grid(runs: Runs, tied: bool, fixed: Mapping[int, float]) -> Floats:
    """E, A and B by least squares on relative residuals for each pair of exponents, as theta (k, 5)."""
    alphas = np.array([fixed[ALPHA]]) if ALPHA in fixed else EXPONENTS
    betas = np.array([fixed[BETA]]) if BETA in fixed else EXPONENTS
    x, y = np.log(runs.parameters) - runs.mean_x, np.log(runs.tokens) - runs.mean_y
    weight = 1 / runs.loss
    by_n, by_d = weight * np.exp(-alphas[:, None] * x), weight * np.exp(-betas[:, None] * y)
    shape = (len(alphas), len(betas))
    products, wanted = np.empty((*shape, 3, 3)), np.empty((*shape, 3))  # in the order of theta: A, B, E
    products[..., A, A], products[..., B, B] = (by_n**2).sum(axis=1)[:, None], (by_d**2).sum(axis=1)
    products[..., E, E] = (weight**2).sum()
    products[..., A, B] = products[..., B, A] = by_n @ by_d.T
    products[..., A, E] = products[..., E, A] = (by_n @ weight)[:, None]
    products[..., B, E] = products[..., E, B] = by_d @ weight
    wanted[..., A], wanted[..., B], wanted[..., E] = by_n.sum(axis=1)[:, None], by_d.sum(axis=1), weight.sum()

    found = np.empty((*shape, 3))
    for place, slope, mean in ((A, alphas[:, None], runs.mean_x), (B, betas, runs.mean_y), (E, np.zeros(1), 0.0)):
        if place in fixed:
            found[..., place] = np.exp(fixed[place] - slope * mean)
    free = [place for place in (A, B, E) if place not in fixed]
    known = [place for place in (A, B, E) if place in fixed]
    if free:
        wanted = wanted[..., free] - (products[..., free, :][..., known] @ found[..., known, None])[..., 0]
        products = products[..., free, :][..., free]
        products += 1e-10 * np.trace(products, axis1=-2, axis2=-1)[..., None, None] * np.eye(len(free))
        solved = np.linalg.solve(products, wanted[..., None])[..., 0]
        found[..., free] = np.where(solved > 0, solved, 0.01 * runs.loss.mean())
    pairs = np.eye(*shape, dtype=np.bool_) if tied and shape[0] == shape[1] > 1 else np.ones(shape, dtype=np.bool_)
    with np.errstate(divide="ignore"):  # E fixed at 0
        logs = np.log(found)
    grid = np.concatenate(
        [logs, np.broadcast_to(alphas[:, None, None], (*shape, 1)), np.broadcast_to(betas[:, None], (*shape, 1))], axis=-1
    )
    return np.asarray(grid[pairs])
