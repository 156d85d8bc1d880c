"""The laws that can be fitted, each a sum of three terms: loss = E + exp(u) + exp(v).

    chinchilla    u = a - alpha ln N               v = b - beta ln D               Hoffmann et al. 2022, eq. 2
    gadre         the same with alpha = beta: E + (a M^eta + b M^-eta) C^-eta with M = D/N and C = 6 N D, so that
                  alpha = 2 eta, A = a 6^-eta, B = b 6^-eta                        Gadre et al. 2024, eq. 4
    muennighoff   N' and D', which repeating wears out, for N and D                Muennighoff et al. 2023, eq. 5 and 6

The objective is the Huber loss of the residuals, on ln loss or on the loss itself, summed over runs with whole-number weights (a
bootstrap resample is a row of weights). What a form knows of itself is u and v with their derivatives; everything else is shared.
Coefficients are handled as vectors theta = (a, b, e = ln E, alpha, beta[, ln R_D*, ln R_N*]) with a and b taken at the mean of
ln N and ln D, which removes the ridge between A and alpha. Tied and fixed coefficients are a linear map from the free ones.

Shapes: R rows (starts or resamples), n runs, p coefficients of the form, q of them free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.plan.newton import Evaluation, Floats, Rows

A, B, E, ALPHA, BETA, R_D, R_N = range(7)
"""Places in theta."""

BY_N, BY_D = (A, B, ALPHA, BETA, R_N), (B, BETA, R_D)
"""What u and v of repeated data depend on."""
WEARING = {"repeat_tokens": R_D, "repeat_parameters": R_N}
"""R_D* and R_N*, by the names that `laws` gives them."""

LN6 = math.log(6.0)

LARGEST_LN_R = 30.0
"""R_D* and R_N* of e^30 mean that nothing wears out; larger ones are the same law."""


@dataclass(frozen=True)
class Form:
    """What can be asked of `fit`."""

    name: str
    title: str
    source: str
    coefficients: tuple[str, ...]
    """As they are printed, in order."""
    size: int = 5
    """Of theta."""
    tied: bool = False
    """Whether alpha = beta unless asked otherwise."""
    bootstraps: int = 4000
    """Resamples unless asked otherwise."""


FORMS = {
    form.name: form
    for form in (
        Form("chinchilla", "loss = E + A/N^alpha + B/D^beta", "Hoffmann et al. 2022, eq. 2", ("E", "A", "B", "alpha", "beta")),
        Form(
            "gadre",
            "loss = E + (a M^eta + b M^-eta) C^-eta, C = 6 N D, M = D/N",
            "Gadre et al. 2024, eq. 4",
            ("E", "a", "b", "eta"),
            tied=True,
        ),
        Form(
            "muennighoff",
            "loss = E + A/N'^alpha + B/D'^beta, D' = U (1 + R_D* (1 - exp(-(D/U - 1)/R_D*))), N' likewise from U_N and R_N*",
            "Muennighoff et al. 2023, eq. 5 and 6",
            ("E", "A", "B", "alpha", "beta", "repeat_tokens", "repeat_parameters"),
            size=7,
            tied=True,
            bootstraps=1000,
        ),
        Form("isoflop", "N_opt = kN C^a from the minimum of a parabola in ln N at each C", "Hoffmann et al. 2022, approach 2", ("kN", "a")),
    )
}


@dataclass(frozen=True)
class Runs:
    """The runs of a fit, as the objective sees them."""

    parameters: Floats
    tokens: Floats
    loss: Floats
    unique: Floats | None = None
    mean_x: float = field(init=False)
    mean_y: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean_x", float(np.log(self.parameters).mean()))
        object.__setattr__(self, "mean_y", float(np.log(self.tokens).mean()))

    def __len__(self) -> int:
        return len(self.loss)

    @cached_property
    def repeats(self) -> Floats:
        """Passes over the unique tokens after the first, (n,)."""
        assert self.unique is not None
        return np.asarray(np.maximum(self.tokens / self.unique - 1, 0.0))

    def take(self, chosen: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Runs:
        """Some of the runs."""
        return Runs(self.parameters[chosen], self.tokens[chosen], self.loss[chosen], None if self.unique is None else self.unique[chosen])


@dataclass(frozen=True)
class Free:
    """theta = matrix phi + offset: what is free, tied or fixed. `offset` is (1, p), or one for each row, (R, p)."""

    matrix: Floats
    offset: Floats
    places: tuple[int, ...]
    """Of the free coefficients in theta."""

    @classmethod
    def of(cls, runs: Runs, size: int, tied: bool = False, fixed: Mapping[int, float | Floats] | None = None) -> Free:
        """alpha = beta when `tied`; `fixed` gives ln A, ln B, ln E, alpha, beta, ln R_D*, ln R_N* by place, one value or one a row."""
        given = dict(fixed or {})
        if tied and ALPHA in given:
            given[BETA] = given[ALPHA]
        places = tuple(place for place in range(size) if place not in given and not (tied and place == BETA))
        rows = max([1, *(len(value) for value in given.values() if isinstance(value, np.ndarray))])
        matrix, offset = np.zeros((size, len(places))), np.zeros((rows, size))
        matrix[places, range(len(places))] = 1.0
        for place, value in given.items():
            offset[:, place] = value
        if tied and BETA not in given:
            matrix[BETA, places.index(ALPHA)] = 1.0
        for place, slope, mean in ((A, ALPHA, runs.mean_x), (B, BETA, runs.mean_y)):
            if place in given:  # a = ln A - alpha x the mean of ln N
                matrix[place] -= mean * matrix[slope]
                offset[:, place] -= mean * offset[:, slope]
        return cls(matrix, offset, places)

    def theta(self, phi: Floats, rows: Rows) -> Floats:
        """(R, q) to (R, p)."""
        return phi @ self.matrix.T + (self.offset[rows] if len(self.offset) > 1 else self.offset)

    def phi(self, theta: Floats) -> Floats:
        """The free coefficients of theta, (R, p) to (R, q)."""
        return theta[:, self.places]


@dataclass(frozen=True)
class Objective:
    """Huber loss of the residuals, with what Newton's method needs of it."""

    runs: Runs
    free: Free
    delta: float
    on_log: bool = True
    """Residuals of ln loss; otherwise of the loss."""
    weights: Floats | None = None
    """(R, n); None weighs all runs by 1."""

    def _residuals(self, total: Floats) -> Floats:
        return np.log(self.runs.loss) - np.log(total) if self.on_log else self.runs.loss - total

    def _parts(self, total: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
        """Of each row: the objective (R,), then (R, n) for each run its pull g, the curvature c and the weight in the metric.

        With shares p of the three terms in the loss, the gradient is -sum g p and the Hessian sum (c p p' - g diag p).
        """
        residual = self._residuals(total)
        psi = np.clip(residual, -self.delta, self.delta)
        loss = psi * (residual - 0.5 * psi)
        inside = (np.abs(residual) <= self.delta).astype(np.float64)
        with np.errstate(divide="ignore"):
            metric = np.minimum(1.0, self.delta / np.abs(residual))
        if self.on_log:
            pull, curvature = psi, psi + inside
        else:
            square = total * total
            pull, curvature, metric = psi * total, inside * square, metric * square
        if weights is not None:
            loss, pull, curvature, metric = weights * loss, weights * pull, weights * curvature, weights * metric
        return loss.sum(axis=1), pull, curvature, metric

    def value(self, theta: Floats) -> Floats:
        """The objective alone, (R, p) to (R,), with every run weighed by 1."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            u, v = terms(theta, self.runs)
            residual = self._residuals(np.exp(u) + np.exp(v) + np.exp(theta[:, E : E + 1]))
            psi = np.clip(residual, -self.delta, self.delta)
            return np.asarray((psi * (residual - 0.5 * psi)).sum(axis=1))

    def __call__(self, phi: Floats, rows: Rows) -> Evaluation:
        """Value, gradient, Hessian and metric of some rows, in the free coefficients."""
        theta = self.free.theta(phi, rows)
        weights = None if self.weights is None else self.weights[rows]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            whole = _by_moments if theta.shape[1] == 5 else _by_jacobian
            value, gradient, hessian, metric = whole(self, theta, weights)
            matrix = self.free.matrix
            return value, gradient @ matrix, matrix.T @ hessian @ matrix, matrix.T @ metric @ matrix


def terms(theta: Floats, runs: Runs) -> tuple[Floats, Floats]:
    """u and v of every row and run, (R, n) each."""
    x, y = np.log(runs.parameters) - runs.mean_x, np.log(runs.tokens) - runs.mean_y
    if theta.shape[1] == 7:
        ln_un = matched(theta, runs)
        x = ln_un - runs.mean_x + wear(np.exp(np.log(runs.parameters) - ln_un) - 1, theta[:, R_N])[0]
        y = np.log(runs.unique) - runs.mean_y + wear(runs.repeats, theta[:, R_D])[0]  # type: ignore[arg-type]
    return theta[:, A : A + 1] - theta[:, ALPHA : ALPHA + 1] * x, theta[:, B : B + 1] - theta[:, BETA : BETA + 1] * y


def matched(theta: Floats, runs: Runs) -> Floats:
    """ln U_N, (R, n): the parameters for which U unique tokens are optimal, or N where that is less (Muennighoff et al. 2023, section 3.1).

    With G of the optimum, ln U_N = (beta/alpha) (ln U + ln G) + ln G, which is (beta ln U + ln(alpha A) - ln(beta B)) / alpha.
    """
    assert runs.unique is not None
    alpha, beta = theta[:, ALPHA, None], theta[:, BETA, None]
    optimal = (beta * (np.log(runs.unique) - runs.mean_y) + np.log(alpha / beta) + theta[:, A, None] - theta[:, B, None]) / alpha
    return np.minimum(np.log(runs.parameters), optimal + runs.mean_x)


def wear(more: Floats, ln_r: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """ln h, h, k and w of what repeating is worth: h = 1 + R (1 - w) times what is new, w = exp(-more/R), dh/d ln R = k.

    `more` (n,) or (R, n) is what there is beyond that, in units of it; `ln_r` (R,).
    """
    r = np.exp(np.clip(ln_r, -LARGEST_LN_R, LARGEST_LN_R))[:, None]
    faded = np.expm1(-more / r)
    h, w = 1 - r * faded, faded + 1
    return np.log(h), h, (h - 1 - more * w) * (np.abs(ln_r) < LARGEST_LN_R)[:, None], w


def _by_moments(objective: Objective, theta: Floats, weights: Floats | None) -> Evaluation:
    """For u and v linear in theta: all second derivatives are moments of x = ln N and y = ln D under a few weights, by matrix products."""
    runs = objective.runs
    x, y = np.log(runs.parameters) - runs.mean_x, np.log(runs.tokens) - runs.mean_y
    up, down = (theta[:, pair] @ np.stack([np.ones_like(z), -z]) for pair, z in (([A, ALPHA], x), ([B, BETA], y)))
    np.exp(up, out=up)
    np.exp(down, out=down)
    total = up + down + np.exp(theta[:, E : E + 1])
    value, pull, curvature, weight = objective._parts(total, weights)
    share_n, share_d = np.divide(up, total, out=up), np.divide(down, total, out=down)
    one = np.ones_like(x)
    powers_x, powers_y = np.stack([one, x, x * x], axis=1), np.stack([one, y, y * y], axis=1)
    cross = np.stack([one, x, y, x * y], axis=1)

    def outer(c: Floats) -> Floats:
        """sum c J J' with J = (p_n, p_d, p_e, -x p_n, -y p_d), (R, 5, 5)."""
        c_n, c_d = c * share_n, c * share_d
        n, d = c_n @ powers_x[:, :2], c_d @ powers_y[:, :2]
        nn, nd, dd = (c_n * share_n) @ powers_x, (c_n * share_d) @ cross, (c_d * share_d) @ powers_y
        ne, de = n - nn[:, :2] - nd[:, :2], d - dd[:, :2] - nd[:, [0, 2]]
        ee = c.sum(axis=1) - n[:, 0] - d[:, 0] - ne[:, 0] - de[:, 0]
        cells = (
            nn[:, 0], nd[:, 0], ne[:, 0], -nn[:, 1], -nd[:, 2],
            nd[:, 0], dd[:, 0], de[:, 0], -nd[:, 1], -dd[:, 1],
            ne[:, 0], de[:, 0], ee, -ne[:, 1], -de[:, 1],
            -nn[:, 1], -nd[:, 1], -ne[:, 1], nn[:, 2], nd[:, 3],
            -nd[:, 2], -dd[:, 1], -de[:, 1], nd[:, 3], dd[:, 2],
        )  # fmt: skip
        return np.stack(cells, axis=1).reshape(-1, 5, 5)

    g_n, g_d = (pull * share_n) @ powers_x, (pull * share_d) @ powers_y
    g_e = pull.sum(axis=1) - g_n[:, 0] - g_d[:, 0]
    gradient = np.stack([-g_n[:, 0], -g_d[:, 0], -g_e, g_n[:, 1], g_d[:, 1]], axis=1)
    hessian = outer(curvature)
    for own, slope, g in ((A, ALPHA, g_n), (B, BETA, g_d)):
        hessian[:, own, own] -= g[:, 0]
        hessian[:, own, slope] += g[:, 1]
        hessian[:, slope, own] += g[:, 1]
        hessian[:, slope, slope] -= g[:, 2]
    hessian[:, E, E] -= g_e
    return value, gradient, hessian, outer(weight)


def _by_jacobian(objective: Objective, theta: Floats, weights: Floats | None) -> Evaluation:
    """For N' and D': the same from first and second derivatives of u and v at every run.

    u = a - alpha X with X = ln N' = s + ln h(q - 1), s = ln U_N and q = N/U_N; v = b - beta Y with Y = ln D' = ln U + ln h.
    """
    runs, count = objective.runs, len(theta)
    alpha, beta = theta[:, ALPHA, None], theta[:, BETA, None]
    ln_n, ln_u = np.log(runs.parameters), np.log(runs.unique)  # type: ignore[arg-type]
    s = matched(theta, runs)
    bound = (s < ln_n).astype(np.float64)  # where U_N = N it depends on nothing
    q = np.exp(ln_n - s)
    ln_h, h, k, w = wear(q - 1, theta[:, R_N])
    ln_hd, hd, kd, wd = wear(runs.repeats, theta[:, R_D])
    x, y = s + ln_h - runs.mean_x, ln_u + ln_hd - runs.mean_y
    r, rd = np.exp(np.clip(theta[:, [R_N]], -LARGEST_LN_R, LARGEST_LN_R)), np.exp(np.clip(theta[:, [R_D]], -LARGEST_LN_R, LARGEST_LN_R))

    # derivatives by (a, b, alpha, beta) of s, by these and ln R_N* of X and u, by (b, beta, ln R_D*) of v
    x_s, x_r, y_r = (1 - w * q / h) * bound, k / h, kd / hd
    s_alpha, s_beta = (1 / alpha - s + runs.mean_x) / alpha, (ln_u - runs.mean_y - 1 / beta) / alpha
    of_s = np.empty((count, len(runs), 4))
    of_s[:, :, 0], of_s[:, :, 1], of_s[:, :, 2], of_s[:, :, 3] = 1 / alpha, -1 / alpha, s_alpha, s_beta
    of_x = np.concatenate([x_s[:, :, None] * of_s, x_r[:, :, None]], axis=2)
    of_n = -alpha[:, :, None] * of_x
    of_n[:, :, 0] += 1
    of_n[:, :, 2] -= x
    of_d = np.stack([np.ones_like(y), -y, -beta * y_r], axis=2)

    up, down = np.exp(theta[:, :1] - alpha * x), np.exp(theta[:, 1:2] - beta * y)
    irreducible = np.exp(theta[:, E : E + 1])
    total = up + down + irreducible
    value, pull, curvature, weight = objective._parts(total, weights)
    up, down, irreducible = up / total, down / total, irreducible / total
    pull_n, pull_d = pull * up, pull * down
    jacobian = np.zeros((count, len(runs), 7))
    jacobian[:, :, BY_N] = up[:, :, None] * of_n
    jacobian[:, :, BY_D] += down[:, :, None] * of_d
    jacobian[:, :, E] = irreducible

    def outer(c: Floats, j: Floats) -> Floats:
        return np.asarray((c[:, :, None] * j).transpose(0, 2, 1) @ j)

    def block(places: tuple[int, ...]) -> Any:
        return np.ix_(range(count), places, places)

    gradient = -(pull[:, None, :] @ jacobian)[:, 0, :]
    hessian = outer(curvature, jacobian)
    hessian[block(BY_N)] -= outer(pull_n, of_n)
    hessian[block(BY_D)] -= outer(pull_d, of_d)
    hessian[:, E, E] -= (pull * irreducible).sum(axis=1)

    # what u and v bend by themselves, weighed by -pull_n and -pull_d
    bend = alpha * pull_n
    x_ss = (w * q * (1 - q / r) / h - (w * q / h) ** 2) * bound
    x_sr = (q * w * k / h - q * w * (q - 1) / r) / h * bound
    hessian[block(BY_N[:4])] += outer(bend * x_ss, of_s)
    bent = np.zeros_like(hessian)  # with its transpose still to be added
    bent[:, ALPHA, BY_N] += (pull_n[:, None, :] @ of_x)[:, 0, :]
    bent[:, R_N, BY_N[:4]] += ((bend * x_sr)[:, None, :] @ of_s)[:, 0, :]
    slow = (bend * x_s).sum(axis=1) / alpha[:, 0]
    bent[:, ALPHA, A] -= slow / alpha[:, 0]
    bent[:, ALPHA, B] += slow / alpha[:, 0]
    bent[:, ALPHA, BETA] -= (bend * x_s * s_beta).sum(axis=1) / alpha[:, 0]
    bent[:, BETA, R_D] += (pull_d * y_r).sum(axis=1)
    hessian += bent + bent.transpose(0, 2, 1)
    hessian[:, ALPHA, ALPHA] += (bend * x_s * (-2 / alpha**2 - s_alpha + (s - runs.mean_x) / alpha) / alpha).sum(axis=1)
    hessian[:, BETA, BETA] += slow / beta[:, 0] ** 2
    hessian[:, R_N, R_N] += (bend * ((k - (q - 1) ** 2 * w / r) / h - x_r**2)).sum(axis=1)
    hessian[:, R_D, R_D] += (beta * pull_d * ((kd - runs.repeats**2 * wd / rd) / hd - y_r**2)).sum(axis=1)
    return value, gradient, hessian, outer(weight, jacobian)


def coefficients(form: str, theta: Floats, runs: Runs) -> dict[str, Floats]:
    """The coefficients as a form (and `laws.Law`) names them, each (R,), from theta (R, p)."""
    ln_a, ln_b = theta[:, A] + theta[:, ALPHA] * runs.mean_x, theta[:, B] + theta[:, BETA] * runs.mean_y
    with np.errstate(over="ignore"):
        if form == "gadre":
            eta = theta[:, ALPHA] / 2
            return {"E": np.exp(theta[:, E]), "a": np.exp(ln_a + eta * LN6), "b": np.exp(ln_b + eta * LN6), "eta": eta}
        found = {"E": np.exp(theta[:, E]), "A": np.exp(ln_a), "B": np.exp(ln_b), "alpha": theta[:, ALPHA], "beta": theta[:, BETA]}
        if form == "muennighoff":
            for name, place in WEARING.items():
                found[name] = np.exp(np.clip(theta[:, place], -LARGEST_LN_R, LARGEST_LN_R))
    return found


def places(form: str, fixed: Mapping[str, float]) -> dict[int, float]:
    """Fixed coefficients by place in theta, as `Free.of` takes them. Their names are the form's; gadre's a and b cannot be fixed."""
    found = {}
    for name, value in fixed.items():
        if name == "eta":
            found[ALPHA] = 2 * value
        elif name in ("alpha", "beta"):
            found[ALPHA if name == "alpha" else BETA] = value
        else:
            found[{"E": E, "A": A, "B": B, **WEARING}[name]] = math.log(value) if value > 0 else -math.inf
    return found
