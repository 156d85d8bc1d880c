"""The laws of scale: what loss a model of N parameters has after D tokens, and how a budget of FLOPs is best split between the two.

Every law is data (`tables/laws.toml`: coefficients exact and printed, source, the runs behind it). Two ideas keep the code short. All
laws of the form E + A/N^alpha + B/D^beta, also Gadre's under another name, share one closed form for the optimum. And all of them take
repeated data the same way (Muennighoff et al. 2023): N and D are first made *effective*, then the law is used as it is.

Losses are in nats per token of the law's own text and tokenizer: two laws' losses must not be subtracted from each other.
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openhearth.errors import HearthError, nearest

TABLES = Path(__file__).with_name("tables")
DEFAULT = "refit"
PF_DAY = 1e15 * 86400
HINTS = {
    "chinchilla": "hoffmann-1 to -3, or their refit",
    "hoffmann": "hoffmann-1 to -3",
    "epoch": "that is besiroglu",
    "gadre": "gadre-c4, gadre-redpajama, gadre-refinedweb",
    "sardana": "that is --serve-tokens, with any law of loss",
    "llama": "that is llama3",
}
"""What a name that is no law's may mean."""
FORMULAS = {
    "chinchilla": "L = E + A/N^alpha + B/D^beta",
    "gadre": "L = E + (a M^eta + b M^-eta) C^-eta, M = D/N, C = 6ND",
    "kaplan": "L = [(Nc/N)^(alphaN/alphaD) + Dc/D]^alphaD; N_opt = Ne (C in PF-days)^pN",
    "allocation": "N_opt = kN C^a, D_opt = kD C^b; what is not given follows from C = 6ND",
}
PIVOT = 1e21
"""FLOPs at which power laws of the budget are anchored when they are turned round; any value gives the same."""
PERCENTILES = (2.5, 97.5)
REPEAT_TOKENS, REPEAT_PARAMETERS = 15.387756, 5.309743
"""R_D* and R_N* of Muennighoff et al. 2023: how many repetitions are worth having. Used for laws that bring none of their own."""

Number = Any
"""A float, or an array of them: what goes in as floats comes out as floats."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Domain:
    """The least and the largest run behind a law, in parameters, tokens and FLOPs."""

    parameters: tuple[float, float]
    tokens: tuple[float, float]
    flops: tuple[float, float]

    def decades(self, flops: Number) -> Number:
        """Powers of ten between a budget and the nearest run: positive beyond the largest, negative below the least, 0 inside."""
        low, high = self.flops
        values = np.log10(np.asarray(flops, float))
        return plain(np.maximum(values - math.log10(high), 0.0) + np.minimum(values - math.log10(low), 0.0))


@dataclass(frozen=True, eq=False)
class Law:
    """One law. `form` is chinchilla, gadre, kaplan or allocation (the last without a loss): see tables/laws.toml."""

    name: str
    title: str
    source: str
    form: str
    counts: str
    domain: Domain
    coefficients: Mapping[str, float]
    printed: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    note: str = ""
    exponent_interval: tuple[float, float] | None = None
    """10th and 90th percentile of the exponent of N_opt, where the paper prints that and the data say no more."""
    resamples_file: str | None = None
    given_resamples: Mapping[str, Array] | None = None

    @property
    def has_loss(self) -> bool:
        """Whether the law gives a loss, not only an optimum."""
        return self.form != "allocation"

    @property
    def additive(self) -> bool:
        """Whether the law is E + A/N^alpha + B/D^beta: those take repeated data, serving and exact FLOPs."""
        return self.form in ("chinchilla", "gadre")

    @functools.cached_property
    def terms(self) -> Terms:
        """A, B, E, alpha, beta and the two constants of repetition; raises HearthError for a law of another form."""
        if not self.additive:
            raise HearthError(f"the law {self.name} {'has no loss' if not self.has_loss else 'knows no repetition or serving'}; take refit")
        return Terms.of(self.form, self.coefficients)

    @functools.cached_property
    def resamples(self) -> Mapping[str, Array] | None:
        """The law's coefficients refitted to resamples of its runs: {name: (resamples,)}, or None where its data are not open."""
        if self.given_resamples is not None or self.resamples_file is None:
            return self.given_resamples
        return _columns(TABLES / self.resamples_file)

    @functools.cached_property
    def resampled_terms(self) -> Terms | None:
        """`terms` as (resamples, 1) columns, so that an interval is the same program run once on all of them."""
        if not self.additive or self.resamples is None:
            return None
        return Terms.of(self.form, {**self.coefficients, **{name: column[:, None] for name, column in self.resamples.items()}})

    def loss(self, parameters: Number, tokens: Number, unique_tokens: Number = None) -> Number:
        """Nats per token of a model of so many parameters after so many tokens, `unique_tokens` of them different (all, if None).

        Raises HearthError for a law that only allocates, and for `unique_tokens` with Kaplan's law, which knows no repetition.
        """
        n, d = above_zero("parameters", parameters), above_zero("tokens", tokens)
        if self.form == "allocation":
            raise HearthError(f"the law {self.name} says how to split a budget, not what loss it buys; take refit")
        unique = None if unique_tokens is None else above_zero("unique tokens", unique_tokens)
        if self.form == "kaplan":
            if unique is not None:
                raise HearthError("the law kaplan knows no repetition; take muennighoff")
            c = self.coefficients
            return plain(((c["Nc"] / n) ** (c["alphaN"] / c["alphaD"]) + c["Dc"] / d) ** c["alphaD"])
        return plain(self.terms.loss(n, d, unique))

    def optimal(self, flops: Number) -> tuple[Number, Number]:
        """(parameters, tokens) with 6 x parameters x tokens = `flops`, in closed form.

        For laws with a loss: its least value (Hoffmann et al. 2022, eq. 4). For Kaplan's and the others: the paper's own allocation.
        """
        c = above_zero("FLOPs", flops)
        n, d = self._allocate(c, self.coefficients if not self.additive else None)
        return plain(n), plain(d)

    @property
    def exponent(self) -> float:
        """a in N_opt ~ C^a: doubling the parameters takes 2^(1/a) times the FLOPs."""
        if self.additive:
            return float(self.terms.exponent)
        c = self.coefficients
        return c["pN"] if self.form == "kaplan" else c.get("a", 1 - c.get("b", 0.0))

    def budget_for(self, *, parameters: Number = None, tokens: Number = None) -> Number:
        """FLOPs for which so many parameters, or so many tokens, are optimal."""
        what, wanted = ("parameters", parameters) if tokens is None else ("tokens", tokens)
        n, d = self.optimal(PIVOT)
        in_d = self.coefficients.get("b", 1 - self.exponent) if self.form == "allocation" else 1 - self.exponent
        power = self.exponent if tokens is None else in_d
        return plain(PIVOT * (above_zero(what, wanted) / (n if tokens is None else d)) ** (1 / power))

    def interval(self, answer: Callable[[Terms], Any]) -> tuple[Number, Number] | None:
        """95 % interval of anything that follows from the law's terms, by its refits to resamples of its runs; None without those.

        `answer` is given the terms as columns, (resamples, 1), and returns (resamples, answers), or (resamples, 1).
        """
        if self.resampled_terms is None or np.ndim(self.resampled_terms.A) == 0:
            return None
        low, high = interval_of(np.asarray(answer(self.resampled_terms)))
        return (plain(low.squeeze()), plain(high.squeeze()))

    def optimal_resampled(self, flops: Number) -> tuple[Array, Array] | None:
        """(parameters, tokens), each (resamples, budgets), of the law refitted to resamples of its runs; None without."""
        if self.resamples is None:
            return None
        c = np.atleast_1d(above_zero("FLOPs", flops))
        if self.additive:
            assert self.resampled_terms is not None
            n, d = self.resampled_terms.optimal(c)
            return None if n.ndim == 1 else (n, d)  # resamples of the constants of repetition alone
        columns = {**self.coefficients, **{name: column[:, None] for name, column in self.resamples.items()}}
        return self._allocate(c, columns)

    def _allocate(self, c: Array, values: Mapping[str, Any] | None) -> tuple[Array, Array]:
        if values is None:
            return self.terms.optimal(c)
        if self.form == "kaplan":
            n = values["Ne"] * (c / PF_DAY) ** values["pN"]
            return n, c / (6 * n)
        if "kN" not in values:
            d = values["kD"] * c ** values["b"]
            return c / (6 * d), d
        n = values["kN"] * c ** values["a"]
        return n, values["kD"] * c ** values["b"] if "kD" in values else c / (6 * n)


@dataclass(frozen=True)
class Terms:
    """The coefficients of E + A/N^alpha + B/D^beta as numbers or as columns of resamples, and what follows from them in closed form."""

    A: Any
    B: Any
    E: Any
    alpha: Any
    beta: Any
    repeat_tokens: Any = REPEAT_TOKENS
    repeat_parameters: Any = REPEAT_PARAMETERS

    @classmethod
    def of(cls, form: str, values: Mapping[str, Any]) -> Terms:
        """From a law's coefficients. Gadre's (a M^eta + b M^-eta) C^-eta with M = D/N, C = 6ND is 6^-eta (a N^-2eta + b D^-2eta)."""
        repeats = {key: values[key] for key in ("repeat_tokens", "repeat_parameters") if key in values}
        if form == "gadre":
            eta = values["eta"]
            shrink = 6.0**-eta
            return cls(values["a"] * shrink, values["b"] * shrink, values["E"], 2 * eta, 2 * eta, **repeats)
        return cls(*(values[key] for key in ("A", "B", "E", "alpha", "beta")), **repeats)

    def thinned(self, most: int) -> Terms:
        """Evenly spaced resamples, at most `most`."""
        count = max(np.size(getattr(self, each.name)) for each in fields(self))
        step = -(-count // most)
        return Terms(*(value[::step] if np.size(value := getattr(self, each.name)) > 1 else value for each in fields(self)))

    @property
    def balance(self) -> Any:
        """G = (alpha A / (beta B))^(1/(alpha+beta)): N_opt = G (C/6)^(beta/(alpha+beta))."""
        return (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))

    @property
    def exponent(self) -> Any:
        """a in N_opt ~ C^a."""
        return self.beta / (self.alpha + self.beta)

    def optimal(self, c: Array) -> tuple[Array, Array]:
        """(N, D) of the least loss at 6ND = c."""
        n = self.balance * (c / 6) ** self.exponent
        return n, c / (6 * n)

    def matched_parameters(self, unique: Array) -> Array:
        """U_N: the parameters for which `unique` tokens, seen once, are optimal."""
        return np.asarray(self.balance ** ((self.alpha + self.beta) / self.alpha) * unique ** (self.beta / self.alpha))

    def effective(self, n: Array, d: Array, unique: Array | None, matched: Array | None = None) -> tuple[Array, Array]:
        """(N', D'): what parameters and repeated tokens are worth (Muennighoff et al. 2023, eq. 5 and 6).

        The unique tokens are those that were seen: of more text than a run reads, it has no more than it reads. `matched` are their
        `matched_parameters`, where they are known already.
        """
        if unique is None:
            return n, d
        seen_once = np.minimum(d, unique)
        matched = np.minimum(n, self.matched_parameters(seen_once) if matched is None else matched)
        repeats, excess = d / seen_once - 1, n / matched - 1
        worth_d = seen_once * (1 - self.repeat_tokens * np.expm1(-repeats / self.repeat_tokens))
        return matched * (1 - self.repeat_parameters * np.expm1(-excess / self.repeat_parameters)), worth_d

    def loss(self, n: Array, d: Array, unique: Array | None = None) -> Array:
        """Nats per token."""
        n_worth, d_worth = self.effective(n, d, unique)
        return np.asarray(self.E + self.A / n_worth**self.alpha + self.B / d_worth**self.beta)


class _Laws(Mapping[str, Law]):
    """The table, read when it is first looked into: importing this module reads no file."""

    @functools.cached_property
    def _read(self) -> dict[str, Law]:
        with (TABLES / "laws.toml").open("rb") as file:
            rows = tomllib.load(file)
        return {name: _law(name, row) for name, row in rows.items()}

    def __getitem__(self, name: str) -> Law:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


LAWS: Mapping[str, Law] = _Laws()


def law(name: str | Law) -> Law:
    """The law of that name; a Law, such as a fit's, is given back. Raises HearthError with the nearest name."""
    if isinstance(name, Law):
        return name
    if name not in LAWS:
        meant = next((f" ({hint})" for word, hint in HINTS.items() if word in name.lower()), "")
        raise HearthError(f"no law '{name[:40]}'{nearest(name, LAWS) or meant}; the laws are {', '.join(LAWS)}")
    return LAWS[name]


def laws(name: str | Law | None = None) -> list[dict[str, Any]]:
    """All laws, or one, as plain values: formula, coefficients, source, the runs behind it; keys in docs/plan/laws.md.

    Raises HearthError for an unknown law, with the nearest name.
    """
    return [_facts(each) for each in (LAWS.values() if name is None else [law(name)])]


def kaplan_alone(*, parameters: Number = None, tokens: Number = None, flops: Number = None) -> Number:
    """Kaplan et al. 2020, eq. 1.1 to 1.3: the loss where one thing alone is scarce, of which exactly one must be given.

    Non-embedding parameters with endless data and compute, (8.8e13/N)^0.076; tokens, stopped early, (5.4e13/D)^0.095; FLOPs, best split,
    (3.1e8 PF-days/C)^0.050. These fits are by themselves and do not meet the joint law that `LAWS["kaplan"]` is. Raises HearthError.
    """
    given = [(what, value) for what, value in (("parameters", parameters), ("tokens", tokens), ("flops", flops)) if value is not None]
    if len(given) != 1:
        raise HearthError("Kaplan's single laws take one of parameters, tokens, flops")
    scale, exponent = {"parameters": (8.8e13, 0.076), "tokens": (5.4e13, 0.095), "flops": (3.1e8 * PF_DAY, 0.050)}[given[0][0]]
    return plain((scale / above_zero(*given[0])) ** exponent)


def kaplan_least_tokens(parameters: Number) -> Number:
    """Tokens below which a model of so many non-embedding parameters overfits: 5e3 N^0.74 (Kaplan et al. 2020, eq. 4.4)."""
    return plain(5e3 * above_zero("parameters", parameters) ** 0.74)


def effective_tokens(epochs: Number, repeat_tokens: float = REPEAT_TOKENS) -> Number:
    """What passes over data are worth in passes over fresh data: 4 are worth 3.73, no number more than 16.39."""
    values = above_zero("epochs", epochs)
    return plain(np.where(values <= 1, values, 1 - repeat_tokens * np.expm1(-np.maximum(values - 1, 0) / repeat_tokens)))


def interval_of(values: Array) -> tuple[Array, Array]:
    """`PERCENTILES` along the first axis, as numpy's, whose own functions for this load another 40 ms of numpy."""
    ordered = np.sort(values, axis=0)
    places = [share / 100 * (len(ordered) - 1) for share in PERCENTILES]
    ends = [ordered[math.floor(at)] + (at - math.floor(at)) * (ordered[math.ceil(at)] - ordered[math.floor(at)]) for at in places]
    return np.asarray(ends[0]), np.asarray(ends[1])


def plain(values: Any) -> Number:
    """A float where the array has no dimension."""
    array = np.asarray(values, float)
    return float(array) if array.ndim == 0 else array


def above_zero(what: str, values: Number) -> Array:
    """As an array of floats; raises HearthError naming `what` unless all are finite and above zero."""
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise HearthError(f"{what}: not numbers") from None
    if not (np.isfinite(array) & (array > 0)).all():
        raise HearthError(f"{what}: must be finite and above zero")
    return array


def _facts(law: Law) -> dict[str, Any]:
    resamples = law.resamples
    return {
        "law": law.name,
        "title": law.title,
        "source": law.source,
        "formula": FORMULAS[law.form],
        "counts": law.counts,
        "loss_of": law.text,
        "coefficients": dict(law.coefficients),
        "printed": dict(law.printed),
        "parameters": list(law.domain.parameters),
        "tokens": list(law.domain.tokens),
        "flops": list(law.domain.flops),
        "exponent": law.exponent,
        "exponent_interval": law.interval(lambda terms: terms.exponent),
        "resamples": None if resamples is None else len(next(iter(resamples.values()))),
        "exponent_interval_80": None if law.exponent_interval is None else list(law.exponent_interval),
        "note": law.note or None,
    }


def _law(name: str, row: dict[str, Any]) -> Law:
    return Law(
        name=name,
        title=row["title"],
        source=row["source"],
        form=row["form"],
        counts=row["counts"],
        domain=Domain(*((float(row[key][0]), float(row[key][1])) for key in ("parameters", "tokens", "flops"))),
        coefficients=row["exact"],
        printed=row["printed"],
        text=row.get("text", ""),
        note=row.get("note", ""),
        exponent_interval=tuple(row["exponent"]) if "exponent" in row else None,
        resamples_file=row.get("resamples"),
    )


@functools.cache
def _columns(file: Path) -> Mapping[str, Array]:
    head, _, body = file.read_text().partition("\n")
    names = head.split(",")
    values = np.fromstring(body.replace("\n", ","), sep=",").reshape(-1, len(names))  # ten times as fast as the csv module
    return dict(zip(names, values.T, strict=True))
