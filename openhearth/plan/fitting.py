"""`fit`: the coefficients of a law from runs, to the true optimum, with what is not certain about them.

The parametric forms minimise the Huber loss of the residuals of ln loss (Hoffmann et al. 2022, section 3.3) with `solving`; isoFLOP
parabolas (their approach 2) are in `isoflops`. Around the optimum every fit answers the same questions: how certain is each coefficient
(bootstrap), which runs do not belong (robust z-score), how well would the smaller runs have foretold the largest (hold-out), and
which coefficients the runs hardly know (profiles).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from openhearth.errors import HearthError, nearest
from openhearth.plan import forms, solving
from openhearth.plan.fitted import FLAT, WEAK, Fit, HeldOut, Profile
from openhearth.plan.forms import FORMS, Form, Runs
from openhearth.plan.newton import Floats
from openhearth.plan.scaling_laws import above_zero

SEED = 42
OUTLIER = 5.0
"""Robust standard deviations: a run farther from the law than this does not belong to it. Noise alone puts one run in 1.7 million there."""
RUNS_PER_COEFFICIENT = 2
"""With fewer runs than this there are no standard errors: half of all resamples would have no fit of their own."""
FEWEST_HELD_OUT = 3
BOUNDS = {"loss": (1e-9, 1e9), "counts": (1e-12, 1e30)}
"""Of what is fitted, in any unit."""
PROFILED = {"repeat_tokens": np.geomspace(1.0, 3000.0, 25), "repeat_parameters": np.geomspace(0.1, 3000.0, 25)}
LABELS = {"repeat_tokens": "R_D*", "repeat_parameters": "R_N*"}


def fit(
    parameters: Any,
    tokens: Any,
    loss: Any,
    *,
    form: str = "chinchilla",
    unique_tokens: Any = None,
    flops: Any = None,
    delta: float = 1e-3,
    residuals: str = "log",
    tied: bool | None = None,
    fixed: Mapping[str, float] | None = None,
    bootstraps: int | None = None,
    seed: int = SEED,
    hold_out: int | Sequence[bool] | None = None,
    drop_outliers: bool = False,
    unit: str = "nats per token",
) -> Fit:
    """Fit a law of the named form to runs given as arrays of parameters, tokens and loss.

    `delta` is the width of the Huber loss (math.inf for least squares), `residuals` "log" (of ln loss) or "loss"; `tied` sets alpha = beta
    (by default as the form does); `fixed` holds coefficients at a value, {"E": 1.69}. `hold_out` is how many of the largest runs the others
    must foretell (by default a tenth, at least three), 0 for none; or a mask of runs to keep out of the fit altogether. `flops` (by default
    6ND) group isoFLOP runs and say which are largest. `bootstraps` are 4,000 by default (1,000 for repeated data), 0 for no intervals.

    The same arguments give the same bits. Raises HearthError for runs that cannot be fitted: not finite, not above zero, fewer than
    coefficients, or without variation.
    """
    known = _known_form(form)
    runs = _runs(known, parameters, tokens, loss, unique_tokens)
    cost = above_zero("FLOPs", flops) if flops is not None else 6 * runs.parameters * runs.tokens
    if len(cost) != len(runs):
        raise HearthError(f"FLOPs of {len(cost)} runs, parameters of {len(runs)}")
    if math.isnan(delta) or delta <= 0:
        raise HearthError(f"delta {delta:g}: must be above zero (inf is least squares)")
    if residuals not in ("log", "loss"):
        raise HearthError(f"residuals '{residuals}'{nearest(residuals, ('log', 'loss'))}; they are 'log' (of ln loss) or 'loss'")
    bootstraps = known.bootstraps if bootstraps is None else bootstraps
    if not 0 <= bootstraps <= 1_000_000 or not 0 <= seed < 2**32:
        raise HearthError("bootstraps lie between 0 and 1,000,000, the seed between 0 and 4,294,967,295")
    kept = np.ones(len(runs), dtype=np.bool_)
    if hold_out is not None and not isinstance(hold_out, int):
        kept = ~np.asarray(hold_out, dtype=np.bool_)
        if len(kept) != len(runs):
            raise HearthError(f"a mask of {len(kept)} runs to hold out, parameters of {len(runs)}")
    if known.name == "isoflop":
        from openhearth.plan.isoflops import fit_isoflops

        return fit_isoflops(known, runs.take(kept), cost[kept], bootstraps, seed, unit)
    task = _Task(known, delta, residuals == "log", known.tied if tied is None else tied or known.name == "gadre", dict(fixed or {}))
    rows = np.flatnonzero(kept)
    task.check(runs.take(rows))
    optimum = task.solve(runs.take(rows))
    outliers = rows[_outliers(task, optimum, runs.take(rows))]
    both: dict[str, Any] = {}
    if 0 < len(outliers) < len(rows) - task.free:
        inner = np.setdiff1d(rows, outliers)
        calmer = task.solve(runs.take(inner))
        both = {"with_outliers": task.coefficients(optimum.theta, runs.take(rows))}
        both["without_outliers"] = task.coefficients(calmer.theta, runs.take(inner))
        if drop_outliers:
            rows, optimum = inner, calmer
    fitted = runs.take(rows)
    found = Fit(
        known, fitted, task.coefficients(optimum.theta, fitted), _samples(task, optimum, fitted, bootstraps, seed), optimum.value, delta,
        residuals, task.tied, task.fixed, bootstraps, seed, unit, optimum.converged, (optimum.agreed, optimum.followed),
        tuple(map(int, outliers)), bool(both) and drop_outliers, **both, profiles=_profiles(task, optimum, fitted),
    )  # fmt: skip
    if kept.all():
        held_out = _foretell_largest(task, runs, cost, rows, hold_out if isinstance(hold_out, int) else None)
    else:
        held_out = replace(_foretell(found, runs, np.flatnonzero(~kept)), marked=True)
    return replace(found, held_out=held_out, notes=tuple(_remarks(task, found)))


class _Task:
    """What stays the same however many runs are taken."""

    def __init__(self, form: Form, delta: float, on_log: bool, tied: bool, fixed: dict[str, float]) -> None:
        self.form, self.delta, self.on_log, self.tied, self.fixed = form, delta, on_log, tied, fixed
        for name, value in fixed.items():
            allowed = [name for name in form.coefficients if not (form.name == "gadre" and name in "ab")]
            if name not in allowed:
                raise HearthError(f"cannot fix {name}{nearest(name, allowed)}; coefficients that can be fixed are {', '.join(allowed)}")
            if not math.isfinite(value) or value < 0 or (value == 0 and name != "E"):
                raise HearthError(f"cannot fix {name} at {value:g}; it must be finite and above zero")
        self.places = forms.places(form.name, fixed)

    @property
    def free(self) -> int:
        """How many coefficients are fitted."""
        held = set(self.places) | ({forms.BETA} if self.tied else set())
        return self.form.size - len(held)

    def solve(self, runs: Runs) -> solving.Optimum:
        return solving.solve(runs, self.form, tied=self.tied, fixed=self.places, delta=self.delta, on_log=self.on_log)

    def coefficients(self, theta: Floats, runs: Runs) -> dict[str, float]:
        return {name: float(value[0]) for name, value in forms.coefficients(self.form.name, theta[None], runs).items()}

    def check(self, runs: Runs) -> None:
        """Refuse runs that no optimiser could make sense of."""
        if len(runs) < self.free:
            fewer = "" if self.tied else ", or --tied for alpha = beta"
            raise HearthError(
                f"{len(runs)} run{'s' if len(runs) != 1 else ''} for {self.free} coefficients; give at least {self.free}, "
                f"or hold some of them: --fix E=1.7{fewer}"
            )
        for what, values in self._needed(runs).items():
            if np.ptp(np.log(values)) < 1e-6:
                raise HearthError(f"all runs have the same {what}, {values[0]:.4g}: nothing tells how loss depends on them; vary them")

    def varies(self, runs: Runs) -> bool:
        """Whether the runs differ in all that loss is to depend on."""
        return all(np.ptp(np.log(values)) >= 1e-6 for values in self._needed(runs).values())

    def _needed(self, runs: Runs) -> dict[str, Floats]:
        pairs = (("parameters", runs.parameters, forms.ALPHA), ("tokens", runs.tokens, forms.BETA))
        return {what: values for what, values, place in pairs if place not in self.places}


def _known_form(name: str) -> Form:
    if name not in FORMS:
        raise HearthError(f"no form '{name[:40]}'{nearest(name, FORMS)}; the forms are {', '.join(FORMS)}")
    return FORMS[name]


def _runs(form: Form, parameters: Any, tokens: Any, loss: Any, unique_tokens: Any) -> Runs:
    """The runs as arrays above zero and of one length."""
    columns = {"parameters": parameters, "tokens": tokens, "loss": loss}
    if form.name == "muennighoff":
        if unique_tokens is None:
            raise HearthError("the form muennighoff is about repeated data: give unique_tokens for each run")
        columns["unique tokens"] = unique_tokens
    arrays = {what: np.atleast_1d(above_zero(what, values)) for what, values in columns.items()}
    for what, array in arrays.items():
        if array.ndim != 1 or len(array) != len(arrays["parameters"]):
            raise HearthError(
                f"{what} of shape {array.shape}, parameters of {arrays['parameters'].shape}: one number for each run is needed"
            )
        low, high = BOUNDS["loss" if what == "loss" else "counts"]
        if array.min() < low or array.max() > high:
            raise HearthError(f"{what}: must lie between {low:g} and {high:g}")
    unique = arrays.get("unique tokens")
    seen = None if unique is None else np.minimum(unique, arrays["tokens"])  # of more text than that no run has seen anything
    return Runs(arrays["parameters"], arrays["tokens"], arrays["loss"], seen)


def _residuals(task: _Task, theta: Floats, runs: Runs) -> Floats:
    up, down = forms.terms(theta[None], runs)
    total = (np.exp(up) + np.exp(down))[0] + np.exp(theta[forms.E])
    return np.asarray(np.log(runs.loss / total) if task.on_log else runs.loss - total)


def _outliers(task: _Task, optimum: solving.Optimum, runs: Runs) -> Any:
    """Runs whose residual lies more than OUTLIER robust standard deviations (1.4826 x median absolute deviation) from the median one."""
    residuals = _residuals(task, optimum.theta, runs)
    away = np.abs(residuals - np.median(residuals))
    spread = 1.4826 * np.median(away)
    # residuals at the level of rounding belong to data without noise, of which no run is an outlier
    return away > max(OUTLIER * spread, 1e-9)


def _samples(task: _Task, optimum: solving.Optimum, runs: Runs, count: int, seed: int) -> dict[str, Floats] | None:
    """The coefficients of every resample; None where the runs are too few for that to mean anything."""
    if not count or len(runs) < RUNS_PER_COEFFICIENT * task.free:
        return None
    thetas = solving.resampled(runs, optimum, delta=task.delta, on_log=task.on_log, count=count, seed=seed)
    return forms.coefficients(task.form.name, thetas, runs)


def _foretell_largest(task: _Task, runs: Runs, cost: Floats, rows: Any, asked: int | None) -> HeldOut | None:
    """Refit `rows` without the largest by FLOPs and predict those. None where too few would be left."""
    most = len(rows) - task.free
    count = min(max(FEWEST_HELD_OUT, round(len(rows) / 10)), most - 2) if asked is None else asked
    if count <= 0:
        return None
    if count > most:
        raise HearthError(f"--hold-out {count}: leaves {len(rows) - count} runs for {task.free} coefficients; hold out at most {most}")
    order = rows[np.argsort(cost[rows], kind="stable")]
    smaller, largest = runs.take(np.sort(order[:-count])), np.sort(order[-count:])
    if not task.varies(smaller):
        return None
    found = task.coefficients(task.solve(smaller).theta, smaller)
    return _foretell(Fit(task.form, smaller, found, None, 0.0, task.delta, "", task.tied, task.fixed, 0, 0, ""), runs, largest)


def _foretell(predictor: Fit, runs: Runs, rows: Any) -> HeldOut:
    some = runs.take(rows)
    said = predictor.predict(some.parameters, some.tokens, some.unique, extrapolate=True)
    inside = None
    if predictor.samples is not None:
        inside = int(((said.run_low <= some.loss) & (some.loss <= said.run_high)).sum())
    reach = math.log10((6 * some.parameters * some.tokens).max() / predictor.law.domain.flops[1])
    return HeldOut(tuple(map(int, rows)), tuple(map(float, some.loss)), tuple(map(float, said.loss)), reach, inside)


def _profiles(task: _Task, optimum: solving.Optimum, runs: Runs) -> dict[str, Profile]:
    """Of the coefficients that are known to be hard to know."""
    found = {}
    for name, values in PROFILED.items():
        if name not in task.form.coefficients or name in task.fixed:
            continue
        place = forms.WEARING[name]
        least = solving.profile(
            runs, optimum, place, np.log(values), tied=task.tied, fixed=task.places, delta=task.delta, on_log=task.on_log
        )
        flat = np.flatnonzero(least <= (1 + FLAT) * min(optimum.value, float(least.min())))
        ends = (float(values[flat[0]]), float(values[flat[-1]])) if len(flat) else (math.nan, math.nan)
        at_end = bool(len(flat) and flat[-1] == len(values) - 1)
        found[name] = Profile(tuple(map(float, values)), tuple(map(float, least)), ends, at_end)
    return found


def _remarks(task: _Task, result: Fit) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    runs = result.runs
    if result.samples is None and result.bootstraps:
        said.append(
            f"{len(runs)} runs for {task.free} coefficients: too few for standard errors and intervals, which take "
            f"{RUNS_PER_COEFFICIENT * task.free}"
        )
    if not result.converged:
        said.append("the optimum was not reached to rounding; the last digits may move")
    if len(runs) == task.free:
        said.append("as many coefficients as runs: the law passes through them, and nothing is left to judge it by")
    for name in ("alpha", "beta", "eta"):
        if result.coefficients.get(name, 1.0) <= 0:
            said.append(f"{name} is not above zero: in these runs loss does not fall with {'tokens' if name == 'beta' else 'parameters'}")
    if result.coefficients["E"] < 1e-3 * runs.loss.min() and "E" not in result.fixed:
        said.append("E went to zero: the runs do not show where loss ends; runs with more compute, or --fix E=..., would")
    if np.abs(np.corrcoef(np.log(runs.parameters), np.log(runs.tokens))[0, 1]) > 0.995 and np.ptp(runs.parameters) > 0:
        said.append("tokens grow in step with parameters: what size and what data contribute can hardly be told apart; vary their ratio")
    for name, estimate in result.estimates.items():
        if estimate.low is None or name in result.fixed:
            continue
        label = LABELS.get(name, name)
        profile = result.profiles.get(name)
        if profile is not None and (profile.open_ended or estimate.low <= 0 or estimate.high / estimate.low > WEAK):
            end = "beyond" if profile.open_ended else f"{profile.flat[1]:.3g}"
            said.append(f"{label} is weakly identified: the objective is within 1 % of its least from {profile.flat[0]:.3g} to {end}")
        elif profile is None and (estimate.low <= 0 or estimate.high / max(estimate.low, 1e-300) > WEAK):
            said.append(f"{label} is weakly identified: its 95 % interval spans {estimate.low:.3g} to {estimate.high:.3g}")
    return said
