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

import numpy as np
import numpy.typing as npt

from openhearth.plan.newton import Evaluation, Floats, Rows

A, B, E, ALPHA, BETA, R_D, R_N = range(7)
"""Places in theta."""

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
        x, y = (found[0] for found in worn(theta, runs))
    return theta[:, A : A + 1] - theta[:, ALPHA : ALPHA + 1] * x, theta[:, B : B + 1] - theta[:, BETA : BETA + 1] * y


def worn(theta: Floats, runs: Runs) -> tuple[tuple[Floats, Floats, Floats], tuple[Floats, Floats]]:
    """ln N' and ln D' less the means of ln N and ln D, (R, n), with derivatives: of ln N' by ln U_N and ln R_N*, of ln D' by ln R_D*.

    U_N = min(N, the parameters for which U unique tokens are optimal) (Muennighoff et al. 2023, section 3.1).
    """
    assert runs.unique is not None
    ln_n, ln_u = np.log(runs.parameters), np.log(runs.unique)
    ln_g = _ln_g(theta, runs)[:, None]
    ratio = (theta[:, BETA] / theta[:, ALPHA])[:, None]
    ln_un = np.minimum(ln_n, ratio * (ln_u + ln_g) + ln_g)
    held_n, held_d = (np.clip(theta[:, place : place + 1], -LARGEST_LN_R, LARGEST_LN_R) for place in (R_N, R_D))
    r_n, r_d = np.exp(held_n), np.exp(held_d)
    excess, repeats = np.exp(ln_n - ln_un) - 1, np.maximum(runs.tokens / runs.unique - 1, 0.0)
    fade_n, fade_d = np.exp(-excess / r_n), np.exp(-repeats / r_d)
    grown_n, grown_d = 1 - r_n * np.expm1(-excess / r_n), 1 - r_d * np.expm1(-repeats / r_d)
    by_un = (1 - fade_n * (excess + 1) / grown_n) * (ln_un < ln_n)
    by_rn = (grown_n - 1 - excess * fade_n) / grown_n * (held_n == theta[:, R_N : R_N + 1])
    by_rd = (grown_d - 1 - repeats * fade_d) / grown_d * (held_d == theta[:, R_D : R_D + 1])
    return (ln_un + np.log(grown_n) - runs.mean_x, by_un, by_rn), (ln_u + np.log(grown_d) - runs.mean_y, by_rd)


def _ln_g(theta: Floats, runs: Runs) -> Floats:
    """ln G with G = (alpha A / (beta B))^(1/(alpha + beta)), (R,)."""
    a, b = theta[:, A] + theta[:, ALPHA] * runs.mean_x, theta[:, B] + theta[:, BETA] * runs.mean_y
    return np.asarray((np.log(theta[:, ALPHA] / theta[:, BETA]) + a - b) / (theta[:, ALPHA] + theta[:, BETA]))


def _by_moments(objective: Objective, theta: Floats, weights: Floats | None) -> Evaluation:
    """For u and v linear in theta: all second derivatives are moments of x = ln N and y = ln D under a few weights, by matrix products."""
    runs = objective.runs
    x, y = np.log(runs.parameters) - runs.mean_x, np.log(runs.tokens) - runs.mean_y
    up, down = theta[:, :1] - theta[:, ALPHA : ALPHA + 1] * x, theta[:, 1:2] - theta[:, BETA : BETA + 1] * y
    up, down = np.exp(up), np.exp(down)
    total = up + down + np.exp(theta[:, E : E + 1])
    value, pull, curvature, weight = objective._parts(total, weights)
    share_n, share_d = up / total, down / total
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
        rows = (
            (nn[:, 0], nd[:, 0], ne[:, 0], -nn[:, 1], -nd[:, 2]),
            (nd[:, 0], dd[:, 0], de[:, 0], -nd[:, 1], -dd[:, 1]),
            (ne[:, 0], de[:, 0], ee, -ne[:, 1], -de[:, 1]),
            (-nn[:, 1], -nd[:, 1], -ne[:, 1], nn[:, 2], nd[:, 3]),
            (-nd[:, 2], -dd[:, 1], -de[:, 1], nd[:, 3], dd[:, 2]),
        )
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)

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
    """For u and v that bend: the same from (R, n, p) derivatives, without the second derivatives of u and v themselves.

    Near the optimum the pulls cancel and with them those terms; the steps are then as good as Newton's, and the optimum is the same.
    """
    runs, count = objective.runs, len(theta)
    (x, by_un, by_rn), (y, by_rd) = worn(theta, runs)
    alpha, beta = theta[:, ALPHA, None], theta[:, BETA, None]
    ln_g, both = _ln_g(theta, runs)[:, None], alpha + beta
    ratio, reach = beta / alpha, np.log(runs.unique) + ln_g  # type: ignore[arg-type]
    g_alpha, g_beta = (1 / alpha + runs.mean_x - ln_g) / both, -(1 / beta + runs.mean_y + ln_g) / both
    of_n, of_d = np.zeros((count, len(runs), 7)), np.zeros((count, len(runs), 7))
    through = -alpha * by_un
    of_n[:, :, A] = 1 + through * (ratio + 1) / both
    of_n[:, :, B] = -through * (ratio + 1) / both
    of_n[:, :, ALPHA] = -x + through * (-ratio / alpha * reach + (ratio + 1) * g_alpha)
    of_n[:, :, BETA] = through * (reach / alpha + (ratio + 1) * g_beta)
    of_n[:, :, R_N] = -alpha * by_rn
    of_d[:, :, B] = 1
    of_d[:, :, BETA] = -y
    of_d[:, :, R_D] = -beta * by_rd
    up, down = np.exp(theta[:, :1] - alpha * x), np.exp(theta[:, 1:2] - beta * y)
    irreducible = np.exp(theta[:, E : E + 1])
    total = up + down + irreducible
    value, pull, curvature, weight = objective._parts(total, weights)
    share_n, share_d = up / total, down / total
    jacobian = share_n[:, :, None] * of_n + share_d[:, :, None] * of_d
    jacobian[:, :, E] = irreducible / total

    def outer(c: Floats, j: Floats) -> Floats:
        return np.asarray((c[:, :, None] * j).transpose(0, 2, 1) @ j)

    gradient = -(pull[:, None, :] @ jacobian)[:, 0, :]
    hessian = outer(curvature, jacobian) - outer(pull * share_n, of_n) - outer(pull * share_d, of_d)
    hessian[:, E, E] -= (pull * irreducible / total).sum(axis=1)
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
