"""What a run of the laptop recipe will reach: the law of loss fitted to a ladder of its own runs (`benchmarks/ladder.py`).

    bits per byte = E + A / N^alpha + B / D'^beta      (Hoffmann et al. 2022, eq. 2)

N are the parameters in matrix products, D' the tokens, those that repeat counted for less (Muennighoff et al. 2023, with the published
R_D*, since the ladder hardly repeats). The table of runs is the source; the coefficients are fitted from it when they are asked for.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openhearth.plan.fitted import Fit

TABLE = Path(__file__).with_name("tables") / "ladder_laptop.csv"
RESAMPLES = 1000

VOCABULARY, CONTEXT = 4096, 256
"""Of the runs in the table."""

COPYING_TOKENS, COPYING_GAIN = 5.3e6, 0.12
"""Beyond so many tokens a small model may learn to copy from its context, which lowers its loss at once by about so much: seen in one run
of 7.4 M tokens, in none of up to 5.3 M (docs/log.md). No smooth law knows when, so the interval reaches down that far."""

HELD_OUT_BYTES, LESS_TEXT = 360_000, 0.04
"""Of the text that the ladder's runs were scored on, and by how much the same weights differ on less of it: 0.5 to 3.9 % in nine
choices of 38 to 297 kB (docs/log.md)."""


@dataclass(frozen=True)
class Predicted:
    """Bits per byte on held-out text, with the 95 % interval of a single run."""

    value: float
    low: float
    high: float


@lru_cache(maxsize=2)
def ladder(table: Path = TABLE) -> Fit:
    """The law of the table's runs; those marked as held out are not fitted to."""
    from openhearth.plan.fitting import fit

    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["held_out"] == "0"]
    columns = {name: [float(row[name]) for row in rows] for name in ("parameters", "tokens", "bits_per_byte")}
    return fit(columns["parameters"], columns["tokens"], columns["bits_per_byte"], bootstraps=RESAMPLES, hold_out=0, unit="bits per byte")


def predict(parameters: float, tokens: float, unique_tokens: float) -> Predicted:
    """What a model of this size reaches on this many tokens, `unique_tokens` of them different. Extrapolates without a warning, but
    with an interval that reaches further down beyond COPYING_TOKENS."""
    found = ladder().predict(parameters, worth(tokens, unique_tokens), extrapolate=True)
    assert found.run_low is not None and found.run_high is not None, "the ladder is fitted with resamples"
    low = float(found.run_low) * (1 - COPYING_GAIN if tokens > COPYING_TOKENS else 1)
    return Predicted(float(found.loss), low, float(found.run_high))


def loss(parameters: float, tokens: float, unique_tokens: float) -> float:
    """The value alone, in microseconds: to choose among shapes."""
    law = ladder().coefficients
    return float(law["E"] + law["A"] / parameters ** law["alpha"] + law["B"] / worth(tokens, unique_tokens) ** law["beta"])


def worth(tokens: float, unique_tokens: float) -> float:
    """Different tokens that would do as well."""
    from openhearth.plan.scaling_laws import effective_tokens

    return min(tokens, unique_tokens * float(effective_tokens(tokens / unique_tokens)))


def facts(parameters: float, tokens: float, unique_tokens: float, heldout_bytes: int) -> dict[str, Any]:
    """As a plan keeps it: on `heldout_bytes` of text. Less than the ladder's text differs from it, so the interval is wider."""
    found = predict(parameters, tokens, unique_tokens)
    spread = LESS_TEXT if heldout_bytes < HELD_OUT_BYTES else 0.0
    return {"value": round(found.value, 4), "low": round(found.low * (1 - spread), 4), "high": round(found.high * (1 + spread), 4)}
