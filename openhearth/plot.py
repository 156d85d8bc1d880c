"""`hearth show RUN --plot FILE`: the loss against tokens and against time, as it was written down step by step.

Each step is a faint dot and the line is a running mean; fine-tuning follows pretraining in another colour, since its loss is taken on
other text and does not continue the first curve.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openhearth import drawing, run_folder
from openhearth.errors import HearthError
from openhearth.ledger import Json, Ledger
from openhearth.record import file_of, json_lines, ledger_facts
from openhearth.report import quantity
from openhearth.runner import latest_stages

COLOURS = {"pretrain": drawing.COLOURS[0], "sft": drawing.COLOURS[1]}


@dataclass(frozen=True)
class Curve:
    """One training stage: tokens and seconds since its beginning, and the loss (nats per token) of each step."""

    kind: str
    tokens: list[float]
    seconds: list[float] | None
    loss: list[float]

    @property
    def window(self) -> int:
        """Steps in the running mean."""
        return max(1, len(self.loss) // 40)


def draw(folder: Path, file: Path) -> None:
    """Write the picture. Raises HearthError without matplotlib, for an unknown format, and for a run with nothing trained."""
    drawing.check(file)
    facts = ledger_facts(folder)
    shown = {stage["stage"] for stage in facts["stages"]}
    latest = latest_stages(Ledger(folder / run_folder.LEDGER).run_entries())
    curves = [curve for kind in COLOURS if kind in shown and (curve := read_curve(folder, latest[kind])) is not None]
    if not curves:
        raise HearthError(f"{folder}: nothing is trained here yet, so there is no loss to draw")
    picture(file, facts, curves)


def read_curve(folder: Path, entry: Json) -> Curve | None:
    """The steps of a training stage; None when it left none."""
    steps = json_lines(file_of(folder, entry, "steps.jsonl"))
    if not steps:
        return None
    times = [row["seconds"] for row in json_lines(file_of(folder, entry, "telemetry/steps.jsonl"))]
    seconds = list(itertools.accumulate(times)) if len(times) == len(steps) else None
    shown = [at for at, row in enumerate(steps) if row["loss"] is not None]  # a step whose loss was not finite was skipped
    tokens, losses = ([steps[at][name] for at in shown] for name in ("tokens", "loss"))
    return Curve(entry["stage"], tokens, seconds and [seconds[at] for at in shown], losses)


def picture(file: Path, facts: Json, curves: Sequence[Curve]) -> None:
    """Draw loss against tokens, and against time where every step's time is known."""
    timed = all(curve.seconds is not None for curve in curves)
    title = f"{facts['run']}, budget {facts['budget']}"
    columns = 2 if timed else 1
    with drawing.canvas(file, 1, columns, title=title, size=(10.5 if timed else 6, 4), sharey=True) as (_, panels):
        _panel(panels[0][0], curves, [curve.tokens for curve in curves], "tokens", quantity)
        panels[0][0].set_ylabel("loss, nats per token")
        if timed:
            minutes = [[second / 60 for second in curve.seconds or []] for curve in curves]  # the ticks are round in the unit that is drawn
            _panel(panels[0][1], curves, minutes, "minutes of training", lambda value: f"{value:.3g}")
        panels[0][-1].legend(frameon=False, loc="upper right")


def _panel(axes: Any, curves: Sequence[Curve], places: Sequence[list[float]], name: str, form: Any) -> None:
    """One curve after the other along x; a thin line where the next stage begins."""
    start = 0.0
    for curve, place in zip(curves, places, strict=True):
        x = [start + value for value in place]
        colour, window = COLOURS[curve.kind], curve.window
        axes.plot(x, curve.loss, ".", color=colour, alpha=0.18, markersize=3, markeredgewidth=0, rasterized=True)
        axes.plot(x[window - 1 :], running_mean(curve.loss, window), color=colour, linewidth=1.8, label=curve.kind)
        if start:
            axes.axvline(start, color="0.75", linewidth=0.8, zorder=0)
        start = x[-1]
    axes.set_xlabel(name)
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.92")
    axes.xaxis.set_major_formatter(lambda value, _: form(value) if value else "0")


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each `window` values in a row; len(values) - window + 1 of them."""
    sums = [0.0, *itertools.accumulate(values)]
    return [(sums[end] - sums[end - window]) / window for end in range(window, len(sums))]
