"""`backtest`: what this room would have foretold for published runs, against what was reported.

Each run gets the planner's own way: a shape of its size, the layout of least time on its hardware, the best case of that, and the typical
case by what whole runs reach of it. That share is itself measured on such runs, so for each run it is taken without the runs of its
family (the first word of the name). Nothing of the reported time enters its prediction.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan import catalogue, cost, layout, speed
from openhearth.plan.catalogue import Device
from openhearth.plan.decoders import decoder
from openhearth.plan.published_runs import NO_HOURS, Run, read, remark, trap
from openhearth.plan.recipes import ROUNDED, default_batch, shared_batch
from openhearth.plan.scaling_laws import DEFAULT
from openhearth.plan.scaling_laws import law as law_named

SEQUENCE = 2048
"""Of a run that does not say: until 2023; twice that since."""
DAYS = 45
"""How long a run whose number of chips is not reported is taken to last, at 40 % of peak."""
TENTHS = (0.1, 0.9)


@dataclass(frozen=True)
class Prediction:
    """Of one run; None where a trap or a missing figure stands in the way."""

    run: Run
    skipped: str
    remark: str
    device: Device | None
    chips: int | None
    layout: layout.Choice | None
    best_hours: float | None
    """Chip-hours in the best case."""
    share: float | None
    """Of the best case that whole runs of other families reach: median, and a tenth and nine tenths of them."""
    share_low: float | None
    share_high: float | None

    @property
    def hours(self) -> float | None:
        """Chip-hours in the typical case."""
        return None if self.best_hours is None or self.share is None else self.best_hours / self.share

    @property
    def error(self) -> float | None:
        """Of the typical case: predicted over reported, minus one."""
        reported = self.run.reported_hours
        return None if self.hours is None or reported is None else self.hours / reported - 1

    @property
    def reached(self) -> float | None:
        """The share of the best case that the run itself reached."""
        reported = self.run.reported_hours
        return None if self.best_hours is None or reported is None else self.best_hours / reported

    @property
    def inside(self) -> bool | None:
        """Whether it lies where eight of ten other runs lie."""
        if self.reached is None or self.share_low is None or self.share_high is None:
            return None
        return self.share_low <= self.reached <= self.share_high


def predict(runs: Sequence[Run]) -> list[Prediction]:
    """Predictions for `runs`; the typical share of the best case is that of the package's runs, less those of the run's own family."""
    reference = speed.whole_runs()
    found = []
    for run in runs:
        reason, choice, device, chips, best = trap(run), None, run.device, None, None
        if reason in ("", NO_HOURS):
            try:
                choice, chips, best = best_case(run)
            except HearthError as error:
                reason = str(error)
        others = [value for name, value in reference.items() if family_of(name) != family_of(run.name)]
        low, middle, high = (speed.quantile(others, q) for q in (TENTHS[0], 0.5, TENTHS[1]))
        found.append(Prediction(run, reason, remark(run), device, chips, choice, best, middle, low, high))
    return found


def best_case(run: Run) -> tuple[layout.Choice | None, int, float]:
    """(layout, chips, chip-hours) of the planner's best case for a run. Raises HearthError where it does not fit."""
    device = catalogue.device(run.hardware)
    precision = f"{run.precision or device.training_peak()[0]}-mixed"
    peak = device.peak(precision)
    met = run.met_parameters
    if met is None or run.tokens is None:
        if run.flops is None:
            raise HearthError("neither parameters and tokens nor FLOPs are published")
        return None, _chips(run, run.flops, peak), run.flops / (peak * speed.best_utilisation(device, precision)) / 3600
    shape = decoder(run.parameters or met, run.active_parameters)
    sequence = int(run.sequence_length or (SEQUENCE if (run.year or 2025) <= 2023 else 2 * SEQUENCE))
    chips = _chips(run, 6 * met * run.tokens, peak)
    stated = run.batch_tokens
    batch = shared_batch(stated, chips, sequence, ROUNDED) if stated else default_batch(met, run.tokens, chips, sequence)
    choice = layout.choose(shape, device, chips, sequence_length=sequence, batch_tokens=batch, precision=precision, reasons=False)
    hours = run.tokens / float(choice.step.tokens_per_second_per_device) / 3600
    return choice, chips, hours


def _chips(run: Run, flops: float, peak: float) -> int:
    """As reported, or the power of two that would take some weeks."""
    if run.chips is not None:
        return int(run.chips)
    return int(2 ** min(14, max(3, round(math.log2(flops / (0.4 * peak * DAYS * 86_400))))))


@functools.cache
def family_of(name: str) -> str:
    """'llama' of 'LLaMA-65B' and of 'Llama 3.1 8B'."""
    return next(iter(re.split(r"[\W_\d]+", name.strip().lower())), "")


def shares() -> dict[str, float]:
    """The share of the best case that each run of the package's table reached, those without traps: kept in tables/speed.toml."""
    found = {}
    for run in read():
        reported = run.reported_hours
        if not trap(run) and run.device is not None and reported is not None:
            with contextlib.suppress(HearthError):
                found[run.name] = best_case(run)[2] / reported
    return found


# -- facts -------------------------------------------------------------------------------------------------------------------------


def backtest(runs: Path | str | Sequence[Run] | None = None, *, law: str = DEFAULT) -> dict[str, Any]:
    """Predictions for published runs against what was reported, row by row, with medians. Keys in docs/plan/backtest.md.

    `runs`: a CSV of runs, or `Run`s; the package's table by default. Raises HearthError for a bad file or law.
    """
    law_named(law)
    listed = read(Path(runs)) if isinstance(runs, (str, Path)) else read() if runs is None else list(runs)
    found = [_row(each, law) for each in predict(listed)]
    scored = [row for row in found if row["error"] is not None]
    return {
        "runs": found,
        "scored": len(scored),
        "skipped": len(found) - len(scored),
        "time": _summary(scored, "error"),
        "inside_80_percent": sum(bool(row["inside"]) for row in scored),
        "by_group": {group: _summary([row for row in scored if row["group"] == group], "error") for group in _groups(scored)},
        "share_of_best_case": dict(zip(("median", "low", "high"), speed.whole_run_share(), strict=True)),
        "cost": _summary([row for row in found if row["usd_error"] is not None], "usd_error"),
        "energy": _summary([row for row in found if row["mwh_error"] is not None], "mwh_error"),
        "energy_as_reported": _summary([row for row in found if row["mwh_as_reported_error"] is not None], "mwh_as_reported_error"),
        "optimum": {"law": law, **_summary([row for row in found if row["optimum_error"] is not None], "optimum_error")},
    }


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({row["group"] for row in rows})


def _summary(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    errors = [row[key] for row in rows]
    if not errors:
        return {"runs": 0, "median_error": None, "median_absolute_error": None, "largest_absolute_error": None}
    size = np.abs(errors)
    return {
        "runs": len(errors),
        "median_error": speed.quantile(errors, 0.5),
        "median_absolute_error": speed.quantile(list(size), 0.5),
        "largest_absolute_error": float(size.max()),
    }


def _row(each: Prediction, law: str) -> dict[str, Any]:
    run, device = each.run, each.device
    price = device.price if device is not None else None
    usd = None if each.hours is None or price is None else each.hours * price.typical
    facts = {
        "run": run.name,
        "where": run.where,
        "device": None if device is None else device.id,
        "group": None if device is None else speed.family(device) or device.id,
        "chips": each.chips,
        "reported_chip_hours": run.reported_hours,
        "best_chip_hours": each.best_hours,
        "typical_chip_hours": each.hours,
        "error": None if each.skipped else each.error,
        "inside": None if each.skipped else each.inside,
        "reached": each.reached,
        "share": each.share,
        "days": None if each.hours is None or not each.chips else each.hours / each.chips / 24,
        "layout": None if each.layout is None else layout.describe(each.layout.layout),
        "reported_usd": run.usd,
        "typical_usd": usd,
        "usd_error": None if usd is None or run.usd is None or each.skipped else usd / run.usd - 1,
        "skipped": each.skipped or None,
        "remark": each.remark or None,
    }
    return {**facts, **_energy(run, device), **_optimum(each, law)}


def _energy(run: Run, device: Device | None) -> dict[str, Any]:
    """The energy of the reported hours: by the default power model, and as the source counts, where it says how."""
    model = None if device is None else cost.power(device)
    hours = run.reported_hours
    mwh = None if model is None or hours is None else cost.energy_kwh(hours, model.watts, model.pue) / 1000
    own = None if hours is None or run.watts is None or run.pue is None else cost.energy_kwh(hours, run.watts, run.pue) / 1000
    tonnes = None if own is None or run.kg_per_kwh is None else cost.carbon_tonnes(own * 1000, run.kg_per_kwh)
    return {
        "reported_mwh": run.mwh,
        "mwh": mwh,
        "mwh_error": None if mwh is None or run.mwh is None else mwh / run.mwh - 1,
        "mwh_as_reported": own,
        "mwh_as_reported_error": None if own is None or run.mwh is None else own / run.mwh - 1,
        "reported_tco2e": run.tco2e,
        "tco2e_as_reported": tonnes,
    }


def _optimum(each: Prediction, name: str) -> dict[str, Any]:
    """Where the run lies beside the best split of its FLOPs; an error only where the authors meant to be there."""
    run = each.run
    met, flops = run.met_parameters, run.six_nd if run.six_nd is not None else run.flops
    law = law_named(name)
    empty = dict.fromkeys(("optimal_parameters", "optimal_tokens", "size_over_optimal", "nats_above_optimum", "optimum_error"))
    if met is None or flops is None or not 1e15 <= flops <= 1e30 or run.tokens is None or "encoder" in each.skipped:
        return empty
    parameters, tokens = (float(value) for value in law.optimal(flops))
    above = None if not law.has_loss else float(law.loss(met, run.tokens) - law.loss(parameters, tokens))
    return {
        "optimal_parameters": parameters,
        "optimal_tokens": tokens,
        "size_over_optimal": met / parameters,
        "nats_above_optimum": above,
        "optimum_error": parameters / met - 1 if run.compute_optimal else None,
    }
