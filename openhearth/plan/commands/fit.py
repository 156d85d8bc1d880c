"""`hearth plan fit`: read the runs, fit the law, say what it is, how certain, and what it foretells."""

from __future__ import annotations

import json as jsonlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.errors import HearthError, nearest
from openhearth.plan import quantities
from openhearth.plan.quantities import say

if TYPE_CHECKING:
    from openhearth.plan.fitted import Estimate, Fit, HeldOut, Optimum, Prediction
    from openhearth.plan.runs_table import RunsTable

MANY, ENOUGH_WORK = 2000, 8_000_000
"""With more runs than this the number of resamples falls so that runs x resamples stays there, unless a number is asked for."""

NO_LIMIT = 1e9
"""An R_D* or R_N* above this means that nothing wears out."""


def fit_command(
    paths: Sequence[Path],
    *,
    form: str = "chinchilla",
    columns: Sequence[str] = (),
    where: Sequence[str] = (),
    fix: Sequence[str] = (),
    tied: bool = False,
    delta: str = "0.001",
    residuals: str = "log",
    bootstraps: int | None = None,
    seed: int | None = None,
    hold_out: int | None = None,
    drop_outliers: bool = False,
    flops: Sequence[str] = (),
    predict: Sequence[str] = (),
    extrapolate: bool = False,
    plot: Path | None = None,
    json: bool = False,
) -> int:
    """Fit and print. Raises HearthError for whatever the user must mend."""
    if plot is not None:
        from openhearth.plan import pictures

        pictures.check(plot)
    asked = [quantities.flops(text) for text in flops]
    questions = [_question(text) for text in predict]
    fixed = {name: _above(value, f"--fix {name}") for name, value in _pairs(fix, "--fix", "E=1.69").items()}
    width = math.inf if delta.strip().lower() in ("inf", "infinity") else _above(delta, "--delta")
    table = read(paths, _pairs(columns, "--column", "loss=val_loss"), _pairs(where, "--where", "tokenizer=gpt2"))

    from openhearth.plan.fitting import SEED, fit

    held = hold_out if hold_out is not None else table.held_out if table.held_out is not None and any(table.held_out) else None
    count = max(100, ENOUGH_WORK // len(table)) if bootstraps is None and len(table) > MANY else bootstraps
    try:
        found = fit(
            table.parameters, table.tokens, table.loss, form=form, unique_tokens=table.unique_tokens, flops=table.flops, delta=width,
            residuals=residuals, tied=tied or None, fixed=fixed, bootstraps=count, seed=SEED if seed is None else seed, hold_out=held,
            drop_outliers=drop_outliers, unit=table.unit,
        )  # fmt: skip
    except HearthError as error:
        raise HearthError(f"{table.source}: {error}") from None
    optima = [found.optimal(budget, extrapolate=extrapolate) for budget in asked]
    predictions = [found.predict(*question, extrapolate=extrapolate) for question in questions]
    if plot is not None:
        pictures.fit_picture(plot, found)
        print(f"drawn: {plot}", file=sys.stderr)
    if json:
        facts = _facts(table, found, optima, predictions)
        print(jsonlib.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _show(table, found, optima or _default_optima(found), predictions)
    return 0


def read(paths: Sequence[Path], columns: dict[str, str], where: dict[str, str]) -> RunsTable:
    """One table, or the ledgers of any number of run folders."""
    from openhearth.plan import runs_table

    if len(paths) == 1 and not paths[0].is_dir():
        return runs_table.read_table(paths[0], columns, where)
    tables = [path for path in paths if not path.is_dir()]
    if tables:
        raise HearthError(f"{tables[0]}: give one table, or folders of runs; tables and folders do not mix")
    if columns or where:
        raise HearthError("--column and --where are about tables; the ledgers of runs name their figures themselves")
    from openhearth.plan.commands.ledgers import read_ledgers

    return read_ledgers(paths)


# -- what is asked ----------------------------------------------------------------------------------------------------------


def _pairs(texts: Sequence[str], option: str, example: str) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise HearthError(f"{option} {text[:40]}: write it as {option} {example}")
        found[name.strip()] = value.strip()
    return found


def _above(text: str, what: str) -> float:
    try:
        return 0.0 if float(text) == 0 and what == "--fix E" else quantities.count(text, what)
    except ValueError:
        return quantities.count(text, what)


def _question(text: str) -> tuple[float, float, float | None]:
    """'N=70B,D=1.4T[,U=300B]' as parameters, tokens, unique tokens."""
    pairs = _pairs(text.split(","), "--predict", "N=70B,D=1.4T")
    names = {"n": "N", "parameters": "N", "params": "N", "d": "D", "tokens": "D", "u": "U", "unique_tokens": "U"}
    found = {}
    for name, value in pairs.items():
        if name.lower() not in names:
            raise HearthError(
                f"--predict {text[:40]}: unknown {name}{nearest(name, names)}; write it as N=70B,D=1.4T or N=70B,D=1.4T,U=300B"
            )
        found[names[name.lower()]] = quantities.count(value, f"--predict {name}")
    if "N" not in found or "D" not in found:
        raise HearthError(f"--predict {text[:40]}: needs both N and D; write it as N=70B,D=1.4T")
    return found["N"], found["D"], found.get("U")


def _default_optima(found: Fit) -> list[Optimum]:
    """At the largest run and ten times beyond, where these runs give an optimum at all."""
    largest = found.law.domain.flops[1]
    try:
        return [found.optimal(budget) for budget in (largest, 10 * largest)]
    except HearthError:
        return []


# -- what is said -----------------------------------------------------------------------------------------------------------


def _facts(table: RunsTable, found: Fit, optima: Sequence[Optimum], predictions: Sequence[Prediction]) -> dict[str, Any]:
    facts: dict[str, Any] = {"table": table.source, "columns": table.columns, **found.to_json()}
    facts["notes"] = [*table.notes, *found.notes]
    facts["optimal"] = [asdict(optimum) for optimum in optima]
    facts["predictions"] = [asdict(prediction) for prediction in predictions]
    clean: dict[str, Any] = _finite(facts)
    return clean


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is not finite is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _show(table: RunsTable, found: Fit, optima: Sequence[Optimum], predictions: Sequence[Prediction]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(found.form.title, style="bold"))
    console.print(Text(_about(table, found), style="dim"))
    if table.columns:
        console.print(Text("read: " + ", ".join(f"{what} = {name}" for what, name in table.columns.items()), style="dim"))
    console.print()
    console.print(_coefficients(found))
    if found.parabolas:
        console.print()
        console.print(_parabolas(found))
    for optimum in optima:
        console.print()
        console.print(Text(f"optimum at {optimum.flops:.3g} FLOPs{_far(optimum.decades)}"))
        console.print(_optimum(optimum))
    for prediction in predictions:
        console.print()
        console.print(Text(f"{say(prediction.parameters)} parameters, {say(prediction.tokens)} tokens{_far(prediction.decades)}"))
        console.print(_prediction(prediction))
    console.print()
    held_out = [] if found.form.name == "isoflop" else [_held_out(found.held_out)]
    for line in (*_outliers(table, found), *held_out, *(f"note: {note}" for note in (*table.notes, *found.notes))):
        console.print(Text(line))


def _about(table: RunsTable, found: Fit) -> str:
    domain = found.law.domain
    if found.form.name == "isoflop":
        how = "least squares"
    elif math.isfinite(found.delta):
        how = f"Huber loss of {'ln loss' if found.residuals == 'log' else 'the loss'}, delta {found.delta:g}, sum {found.objective:.7g}"
    else:
        how = f"least squares of {'ln loss' if found.residuals == 'log' else 'the loss'}, half sum {found.objective:.7g}"
    sampled = f"; {found.bootstraps:,} resamples, seed {found.seed}" if found.samples is not None else ""
    return (
        f"{found.form.source}. {len(found.runs)} runs in {table.source}: {' to '.join(map(say, domain.parameters))} parameters, "
        f"{' to '.join(map(say, domain.tokens))} tokens, {domain.flops[0]:.2g} to {domain.flops[1]:.2g} FLOPs; loss in {found.unit}. "
        f"{how}{sampled}."
    )


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _interval(estimate: Estimate, form: Any) -> str:
    return "" if estimate.low is None else f"{form(estimate.low)} to {form(estimate.high)}"


def _coefficients(found: Fit) -> Any:
    from openhearth.plan.fitting import LABELS

    sampled = found.samples is not None
    table = _table("coefficient", "value", *(("std. error", "95 % interval") if sampled else ()))
    for name, estimate in found.estimates.items():
        held = name in found.fixed or (name == "beta" and found.tied and "alpha" in found.fixed)
        limitless = sampled and name in LABELS and estimate.high > NO_LIMIT
        error = "fixed" if held else "" if limitless or not sampled else f"{estimate.standard_error:.3g}"
        interval = "" if held else _interval(estimate, _limited if name in LABELS else _four)
        table.add_row(LABELS.get(name, name), f"{estimate.value:.6g}", *((error, interval) if sampled else ()))
    if found.form.name != "isoflop":
        one = found.exponent
        cells = ("tied", "") if found.tied else (f"{one.standard_error:.3g}", _interval(one, _four)) if sampled else ("", "")
        table.add_row("exponent of N_opt", f"{one.value:.6g}", *(cells if sampled else ()))
    return table


def _four(value: float) -> str:
    return f"{value:.4g}"


def _limited(value: float) -> str:
    return _four(value) if value < NO_LIMIT else "no limit"


def _parabolas(found: Fit) -> Any:
    table = _table("FLOPs", "runs", "parameters at the least loss", "least loss", "")
    for one in found.parabolas:
        table.add_row(
            f"{one.flops:.3g}", str(one.runs), say(one.parameters), f"{one.loss:.4f}", "" if one.inside else "not among the sizes"
        )
    return table


def _optimum(one: Optimum) -> Any:
    table = _table("", "value", "95 % interval")
    for name, estimate, form in (
        ("parameters", one.parameters, say),
        ("tokens", one.tokens, say),
        ("tokens per parameter", one.tokens_per_parameter, lambda value: f"{value:.3g}"),
        ("loss", one.loss, lambda value: f"{value:.4f}"),
    ):
        if estimate.value is not None:
            table.add_row(name, form(estimate.value), _interval(estimate, form))
    return table


def _prediction(one: Prediction) -> Any:
    table = _table("", "value", "95 % of the law", "95 % of single runs")
    bands = ("", "") if one.low is None else (f"{one.low:.4f} to {one.high:.4f}", f"{one.run_low:.4f} to {one.run_high:.4f}")
    table.add_row("loss", f"{one.loss:.4f}", *bands)
    return table


def _far(decades: float) -> str:
    return f", {decades:.1f} decades beyond the runs" if decades > 0.05 else ""


def _outliers(table: RunsTable, found: Fit) -> list[str]:
    from openhearth.plan.fitting import OUTLIER

    if found.form.name == "isoflop":
        return []
    rule = f"more than {OUTLIER:g} robust standard deviations (1.4826 x median absolute deviation) from the median residual"
    if not found.outliers:
        return [f"outliers: none ({rule})"]
    rows = [f"{table.names[row]}" if table.names else f"run {row + 1}" for row in found.outliers]
    named = ", ".join(f"{name} (loss {table.loss[row]:.4g})" for name, row in zip(rows[:8], found.outliers, strict=False))
    lines = [f"outliers: {len(rows)}, {rule}: {named}{f' and {len(rows) - 8} more' if len(rows) > 8 else ''}"]
    for what, values in (("with them", found.with_outliers), ("without them", found.without_outliers)):
        if values is not None:
            used = " (used)" if (what == "without them") == found.dropped else ""
            lines.append(f"  {what}{used}: " + " ".join(f"{name}={value:.5g}" for name, value in values.items()))
    return lines


def _held_out(held: HeldOut | None) -> str:
    if held is None:
        return "held out: nothing"
    inside = "" if held.inside is None else f"; {held.inside} of {len(held.rows)} inside the interval of single runs"
    which = f"the {len(held.rows)} {'marked' if held.marked else 'largest'}, {held.decades:.1f} decades beyond the rest,"
    return (
        f"held out: {which} are foretold by the rest with a mean error of {held.mean:.2%}, at most {held.largest:.2%} "
        f"(on average {held.errors.mean():+.2%}){inside}"
    )
