"""What a sweep found, read from the ledgers of its runs: a row for each setting, the best one, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openhearth.experiments.compare import SEED
from openhearth.experiments.runs import Trained, read
from openhearth.experiments.statistics import Welch, interval, resampled_bits, welch
from openhearth.experiments.sweep import Done
from openhearth.ledger import Json

BEYOND_NOISE = 0.05
"""A difference is called one when p, corrected for the number of settings, is below this."""
DRAWS = 2000


@dataclass(frozen=True)
class Row:
    """One setting of a sweep, over its seeds; means, None where no seed came to its end."""

    name: str
    values: dict[str, str]
    runs: tuple[Trained, ...]
    failed: tuple[str, ...]
    against: Welch | None
    """Welch's t-test of bits per byte against the baseline; None for the baseline itself and with one seed."""
    corrected: float | None
    """Its p times the number of settings held against the baseline, at most 1 (Bonferroni)."""
    text_difference: tuple[float, float, float] | None
    """Bits per byte less the baseline's, and 95 % of it over documents, the same ones for both."""

    @property
    def bits(self) -> list[float]:
        """Held-out bits per byte of each seed."""
        return [run.bits_per_byte for run in self.runs if run.bits_per_byte is not None]

    @property
    def mean(self) -> float:
        """Of the bits per byte; infinity where there is none."""
        return sum(self.bits) / len(self.bits) if self.bits else math.inf

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return float(np.std(self.bits, ddof=1)) if len(self.bits) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % of the mean, over documents."""
        texts = [run.text for run in self.runs if run.text is not None]
        if not texts or len(texts[0].bytes) < 2:
            return None
        return interval(resampled_bits(texts, DRAWS, SEED).mean(axis=1))

    def average(self, what: str) -> float | None:
        """Of `final_loss`, `final_tokens`, `seconds` or `flops` over the seeds."""
        values = [getattr(run, what) for run in self.runs]
        return None if not values or None in values else float(sum(values) / len(values))


def rows(done: Sequence[Done]) -> list[Row]:
    """A row for each setting, in the order of the sweep; the first is the baseline."""
    by_name: dict[str, list[Done]] = {}
    for one in done:
        by_name.setdefault(one.setting.name, []).append(one)
    trained = {name: tuple(read(one.folder) for one in group if not one.failed) for name, group in by_name.items()}
    baseline = next(iter(trained.values()))
    return [_row(name, group, trained[name], baseline, len(by_name) - 1) for name, group in by_name.items()]


def _row(name: str, group: Sequence[Done], runs: tuple[Trained, ...], baseline: tuple[Trained, ...], others: int) -> Row:
    test, difference = None, None
    if runs is not baseline and runs and baseline:
        one, other = ([run.bits_per_byte for run in side if run.bits_per_byte is not None] for side in (baseline, runs))
        test = welch(one, other)
        texts = [run.text for run in (*baseline, *runs) if run.text is not None]
        if len(texts) == len(baseline) + len(runs) and len(texts[0].bytes) > 1:
            bits = resampled_bits(texts, DRAWS, SEED)
            draws = bits[:, len(baseline) :].mean(axis=1) - bits[:, : len(baseline)].mean(axis=1)
            difference = (sum(other) / len(other) - sum(one) / len(one), *interval(draws))
    failed = tuple(one.failed for one in group if one.failed)
    return Row(name, group[0].setting.values, runs, failed, test, None if test is None else min(1.0, others * test.p), difference)


def best(found: Sequence[Row]) -> Row:
    """The setting with the fewest bits per byte."""
    return min(found, key=lambda row: row.mean)


def verdict(found: Sequence[Row]) -> str:
    """Which setting is best, and whether that is more than noise, as a sentence."""
    base, first = found[0], best(found)
    if len(found) == 1:
        return "one setting: nothing to hold it against; sweep more with --over KEY=A,B"
    if not base.bits:
        return f"best: {first.name}; the baseline, {base.name}, did not come to its end, so nothing is held against it"
    if first is base:
        return f"best: {first.name}, which is the baseline (the first value of each --over)"
    said = f"best: {first.name}, {1 - first.mean / base.mean:.2%} fewer bits per byte than the baseline, {base.name}"
    test, corrected = first.against, first.corrected
    if test is None or corrected is None:
        over = ""
        if first.text_difference is not None:
            units = next(run.text.units for run in first.runs if run.text is not None)
            over = "on these {} the difference is {:+.4f} ({:+.4f} to {:+.4f}, 95 %); ".format(units, *first.text_difference)
        return f"{said}; {over}with one seed nothing is known of the noise between seeds: --seeds 3 would tell"
    tried = f", {_p(corrected)} when corrected for {len(found) - 1} settings (Bonferroni)" if len(found) > 2 else ""
    beyond = "beyond noise" if corrected < BEYOND_NOISE else "not beyond noise"
    return f"{said}: {beyond} (Welch's t-test, {len(base.bits)} and {len(first.bits)} seeds: p {_p(test.p)}{tried})"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "below 0.0001"


def facts(folder: Path, found: Sequence[Row]) -> Json:
    """The table as plain values."""
    first = best(found)
    return {
        "folder": str(folder),
        "baseline": found[0].name,
        "best": first.name,
        "verdict": verdict(found),
        "settings": list(map(_facts, found)),
    }


def _facts(row: Row) -> Json:
    between = row.interval
    return {
        "name": row.name,
        "values": row.values,
        "seeds": [run.seed for run in row.runs],
        "folders": [str(run.folder) for run in row.runs],
        "failed": list(row.failed),
        "bits_per_byte": {
            "mean": row.mean if row.bits else None,
            "standard_deviation": row.deviation,
            "low": between[0] if between else None,
            "high": between[1] if between else None,
            "of_seeds": row.bits,
        },
        "loss": row.average("final_loss"),
        "tokens": row.average("final_tokens"),
        "seconds": row.average("seconds"),
        "flops": row.average("flops"),
        "against_baseline": None
        if row.text_difference is None and row.against is None
        else {
            "difference": row.against.difference if row.against else row.text_difference and row.text_difference[0],
            "text_low": row.text_difference[1] if row.text_difference else None,
            "text_high": row.text_difference[2] if row.text_difference else None,
            "p": row.against.p if row.against else None,
            "p_corrected": row.corrected,
            "beyond_noise": None if row.corrected is None else row.corrected < BEYOND_NOISE,
        },
    }
