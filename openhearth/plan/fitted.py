"""What a fit found: coefficients with their uncertainty, what they say about other sizes and budgets, and how they did on runs held out.

A fit is a `Law` with resamples of its own (`Fit.law`), so that everything the room can do with a published law it can do with this one.
What is asked far outside the runs is refused unless it is asked for twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.forms import Form, Runs
from openhearth.plan.newton import Floats
from openhearth.plan.scaling_laws import Domain, Law, Number, above_zero, plain

FAR = 2.0
"""Powers of ten beyond the runs that are answered only when asked for with `extrapolate`."""
COVERAGE = (2.5, 97.5)
"""Percentiles of an interval."""
WEAK = 10.0
"""A coefficient whose interval spans more than this factor is called weakly identified."""
FLAT = 0.01
"""A profile is reported over the range where the objective is within 1 % of its least."""
AT_ONCE = 256
"""Predictions handled together with all resamples."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error and 95 % interval; None without resamples."""

    value: Any
    standard_error: Any = None
    low: Any = None
    high: Any = None


@dataclass(frozen=True)
class Prediction:
    """The loss of runs that were not made. Figures are floats, or arrays where arrays were asked."""

    parameters: Number
    tokens: Number
    loss: Number
    low: Number = None
    high: Number = None
    """95 % interval of the law itself."""
    run_low: Number = None
    run_high: Number = None
    """Where 95 % of single runs should come out: the law's uncertainty and the scatter of runs about it."""
    decades: Number = 0.0
    """Powers of ten beyond the runs of the fit, in FLOPs, parameters or tokens, whichever is farthest."""


@dataclass(frozen=True)
class Optimum:
    """What a budget buys by this fit, repeating nothing."""

    flops: Number
    parameters: Estimate
    tokens: Estimate
    tokens_per_parameter: Estimate
    loss: Estimate
    decades: Number


@dataclass(frozen=True)
class HeldOut:
    """The largest runs, or those marked, predicted by a fit to the others."""

    rows: tuple[int, ...]
    measured: tuple[float, ...]
    predicted: tuple[float, ...]
    decades: float
    """Powers of ten between the largest run fitted and the largest held out."""
    inside: int | None = None
    """Of the runs, those within the interval for single runs; None where no interval was made."""
    marked: bool = False
    """Whether the caller chose them, and `coefficients` are without them."""

    @property
    def errors(self) -> Floats:
        """Predicted over measured, less 1."""
        return np.asarray(np.array(self.predicted) / np.array(self.measured) - 1)

    @property
    def mean(self) -> float:
        """Mean size of the error."""
        return float(np.abs(self.errors).mean())

    @property
    def largest(self) -> float:
        """Largest size of the error."""
        return float(np.abs(self.errors).max())


@dataclass(frozen=True)
class Profile:
    """The least objective with one coefficient held: how well the runs know it."""

    values: tuple[float, ...]
    objective: tuple[float, ...]
    flat: tuple[float, float]
    """Between these values the objective is within 1 % of its least."""
    open_ended: bool
    """Whether that range reaches the end of what was tried."""


@dataclass(frozen=True)
class Parabola:
    """Loss against ln N at one budget."""

    flops: float
    runs: int
    parameters: float
    """At the minimum."""
    loss: float
    inside: bool
    """Whether the minimum lies between the smallest and the largest run."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A law fitted to runs. `unit` is what loss is measured in."""

    form: Form
    runs: Runs
    coefficients: Mapping[str, float]
    samples: Mapping[str, Floats] | None
    objective: float
    delta: float
    residuals: str
    tied: bool
    fixed: Mapping[str, float]
    bootstraps: int
    seed: int
    unit: str
    converged: bool = True
    agreed: tuple[int, int] = (1, 1)
    """Of the starts followed, those that ended at this optimum, and all."""
    outliers: tuple[int, ...] = ()
    """Rows, counted from 0, that lie too far from the law of all."""
    dropped: bool = False
    """Whether `coefficients` are those without the outliers."""
    with_outliers: Mapping[str, float] | None = None
    without_outliers: Mapping[str, float] | None = None
    """Both fits, where there are outliers."""
    held_out: HeldOut | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    parabolas: tuple[Parabola, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def law(self) -> Law:
        """This fit as a law of the room."""
        n, d = self.runs.parameters, self.runs.tokens
        low_high = [(float(values.min()), float(values.max())) for values in (n, d, 6 * n * d)]
        return Law(
            name="fit",
            title=self.form.title,
            source=f"fitted to {len(self.runs)} runs",
            form={"gadre": "gadre", "isoflop": "allocation"}.get(self.form.name, "chinchilla"),
            counts="as in the runs",
            domain=Domain(*low_high),
            coefficients={name: np.float64(value) for name, value in self.coefficients.items()},  # which overflow to inf, not to an error
            text=self.unit,
            given_resamples=self.samples,
        )

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Every coefficient with its uncertainty."""
        return {name: _estimate(value, None if self.samples is None else self.samples[name]) for name, value in self.coefficients.items()}

    @cached_property
    def exponent(self) -> Estimate:
        """a in N_opt ~ C^a: beta/(alpha+beta), or the slope through isoFLOP minima."""
        if not self.law.additive:
            return self.estimates["a"]
        with np.errstate(all="ignore"):
            resampled = self.law.resampled_terms
            exponents = None if resampled is None else np.broadcast_to(resampled.exponent, (self.bootstraps, 1))[:, 0]
            return _estimate(float(self.law.terms.exponent), exponents)

    def loss(self, parameters: Number, tokens: Number, unique_tokens: Number = None) -> Number:
        """The law's loss, anywhere; `predict` says how far it may be trusted.

        Without `unique_tokens`, or with more of them than tokens, every token is seen once.
        """
        if self.form.name == "muennighoff":
            unique_tokens = tokens if unique_tokens is None else np.minimum(unique_tokens, tokens)
        with np.errstate(all="ignore"):
            return self.law.loss(parameters, tokens, unique_tokens)

    def relative_residuals(self) -> Floats:
        """ln of measured over fitted loss, (n,)."""
        return np.asarray(np.log(self.runs.loss / self.loss(self.runs.parameters, self.runs.tokens, self.runs.unique)))

    def predict(
        self, parameters: Number, tokens: Number, unique_tokens: Number = None, *, extrapolate: bool = False, intervals: bool = True
    ) -> Prediction:
        """The loss of runs of these sizes. Raises HearthError more than two decades beyond the runs unless `extrapolate`.

        Intervals take a law for each resample; without them ten thousand sizes take a few milliseconds.
        """
        n, d = np.broadcast_arrays(above_zero("parameters", parameters), above_zero("tokens", tokens))
        unique = None if unique_tokens is None else np.broadcast_to(above_zero("unique tokens", unique_tokens), n.shape)
        if self.form.name == "muennighoff":
            unique = d if unique is None else np.minimum(unique, d)
        domain = self.law.domain
        beyond = [_decades(n, domain.parameters), _decades(d, domain.tokens), _decades(6 * n * d, domain.flops)]
        decades = np.max(beyond, axis=0)
        self._refuse_far(decades, "the runs", extrapolate)
        loss = np.asarray(self.loss(n, d, unique))
        if not np.isfinite(loss).all():
            raise HearthError("the law of these runs gives no number there (see alpha and beta)")
        low, high, run_low, run_high = (
            [None] * 4 if self.samples is None or not intervals else [plain(band) for band in self._bands(n, d, unique)]
        )
        return Prediction(plain(n), plain(d), plain(loss), low, high, run_low, run_high, plain(decades))

    def _bands(self, n: Floats, d: Floats, unique: Floats | None) -> list[Floats]:
        """2.5th and 97.5th percentile of the law, and of single runs about it."""
        terms = self.law.resampled_terms
        assert terms is not None
        drawn = np.random.RandomState(self.seed).choice(self._scatter(), self.bootstraps)[:, None]
        shape, n, d = n.shape, n.ravel(), d.ravel()
        unique = None if unique is None else unique.ravel()
        bands = []
        for begin in range(0, len(n), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            with np.errstate(over="ignore", invalid="ignore"):
                sampled = terms.loss(n[part], d[part], None if unique is None else unique[part])
                sampled = np.broadcast_to(sampled, (self.bootstraps, sampled.shape[-1]))
                bands.append(np.concatenate([_percentiles(sampled), _percentiles(sampled * np.exp(drawn))]))
        return [band.reshape(shape) for band in np.concatenate(bands, axis=1)]

    def _scatter(self) -> Floats:
        """Residuals of the runs, widened for the coefficients that were fitted to them."""
        residuals = self.relative_residuals()
        n, free = len(residuals), len(self.coefficients) - len(self.fixed) - (self.tied and "beta" in self.coefficients)
        return residuals * math.sqrt(n / max(1, n - free))

    def optimal(self, flops: Number, *, extrapolate: bool = False, intervals: bool = True) -> Optimum:
        """Parameters and tokens of the least loss at 6ND = flops. Raises HearthError more than two decades beyond the runs' FLOPs."""
        c = above_zero("FLOPs", flops)
        decades = _decades(c, self.law.domain.flops)
        self._refuse_far(decades, "the largest run", extrapolate)
        with np.errstate(all="ignore"):
            n, d = (np.asarray(found) for found in self.law.optimal(c))
        if not (np.isfinite(n).all() and (n > 0).all()):
            raise HearthError("these runs give no optimum: by their law loss does not fall with size and data both (see alpha and beta)")
        loss: Estimate = Estimate(None)
        pairs = losses = None
        with np.errstate(all="ignore"):  # a resample of few runs may have no optimum
            if intervals and (sampled := self.law.optimal_resampled(c)) is not None:
                pairs = [found.reshape(-1, *c.shape) for found in sampled]
                losses = self.law.resampled_terms.loss(*sampled).reshape(-1, *c.shape) if self.law.resampled_terms is not None else None
            if self.law.has_loss:
                loss = _estimate(plain(self.loss(n, d)), losses)
            return Optimum(
                plain(c),
                _estimate(plain(n), None if pairs is None else pairs[0]),
                _estimate(plain(d), None if pairs is None else pairs[1]),
                _estimate(plain(d / n), None if pairs is None else pairs[1] / pairs[0]),
                loss,
                plain(decades),
            )

    def _refuse_far(self, decades: Floats, beyond: str, extrapolate: bool) -> None:
        farthest = float(np.max(decades))
        if farthest > FAR + 1e-9 and not extrapolate:
            raise HearthError(
                f"{farthest:.1f} decades beyond {beyond} of the fit; more than {FAR:.0f} are answered only with --extrapolate "
                "(extrapolate=True)"
            )

    def to_json(self) -> dict[str, Any]:
        """The keys that docs/plan/fit.md names."""
        domain = self.law.domain
        return {
            "form": self.form.name,
            "law": self.form.title,
            "source": self.form.source,
            "runs": len(self.runs),
            "unit": self.unit,
            "domain": {"parameters": domain.parameters, "tokens": domain.tokens, "flops": domain.flops},
            "delta": self.delta if math.isfinite(self.delta) else None,
            "residuals": self.residuals,
            "tied": self.tied,
            "fixed": dict(self.fixed),
            "objective": self.objective,
            "converged": self.converged,
            "starts": {"followed": self.agreed[1], "agreed": self.agreed[0]},
            "bootstraps": 0 if self.samples is None else self.bootstraps,
            "seed": self.seed,
            "coefficients": {name: asdict(estimate) for name, estimate in self.estimates.items()},
            "exponent": asdict(self.exponent),
            "outliers": {
                "rows": list(self.outliers),
                "dropped": self.dropped,
                "with": None if self.with_outliers is None else dict(self.with_outliers),
                "without": None if self.without_outliers is None else dict(self.without_outliers),
            },
            "held_out": None
            if self.held_out is None
            else asdict(self.held_out) | {"mean_error": self.held_out.mean, "largest_error": self.held_out.largest},
            "profiles": {name: asdict(profile) for name, profile in self.profiles.items()},
            "isoflops": [asdict(parabola) for parabola in self.parabolas],
            "notes": list(self.notes),
        }


def _decades(values: Floats, within: tuple[float, float]) -> Floats:
    """Powers of ten outside a range."""
    low, high = within
    return np.asarray(np.maximum(0.0, np.maximum(np.log10(values / high), np.log10(low / values))))


def _percentiles(samples: Floats) -> Floats:
    """2.5th and 97.5th over the first axis, leaving out resamples that give no number."""
    finite = np.isfinite(samples)
    if finite.all():
        return np.asarray(np.percentile(samples, COVERAGE, axis=0))
    return np.asarray(np.nanpercentile(np.where(finite, samples, np.nan), COVERAGE, axis=0))


def _estimate(value: Any, samples: Floats | None) -> Estimate:
    if samples is None:
        return Estimate(value)
    low, high = _percentiles(samples)
    finite = np.where(np.isfinite(samples), samples, np.nan)
    with np.errstate(over="ignore"):
        return Estimate(value, plain(np.nanstd(finite, axis=0, ddof=1)), plain(low), plain(high))
