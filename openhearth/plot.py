"""`hearth show RUN... --plot FILE`: the loss against tokens, time or FLOPs, as it was written down step by step.

Of one run, each step is a faint dot and the line is a running mean; fine-tuning follows pretraining in another colour, since its loss is
taken on other text and does not continue the first curve. Of several runs there is a line for each, of pretraining.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth import drawing, run_folder
from openhearth.errors import HearthError, nearest
from openhearth.ledger import Json, Ledger
from openhearth.record import file_of, json_lines, ledger_facts
from openhearth.report import quantity
from openhearth.runner import latest_stages

if TYPE_CHECKING:
    from openhearth.experiments.runs import Trained

COLOURS = {"pretrain": drawing.COLOURS[0], "sft": drawing.COLOURS[1]}
STYLES = ("-", "--", ":", "-.")
"""Of lines, when there are more runs than colours."""


X = {"tokens": "tokens", "time": "minutes of training", "flops": "FLOPs"}
"""What loss can be drawn against, and what is written below."""


@dataclass(frozen=True)
class Curve:
    """One training stage: tokens and seconds since its beginning, and the loss (nats per token) of each step."""

    kind: str
    tokens: list[float]
    seconds: list[float] | None
    loss: list[float]
    flops_per_token: float | None = None

    @property
    def window(self) -> int:
        """Steps in the running mean."""
        return max(1, len(self.loss) // 40)

    def along(self, x: str) -> list[float] | None:
        """Tokens, minutes or FLOPs after each step; None where they are not known."""
        if x == "tokens":
            return self.tokens
        if x == "time":
            return None if self.seconds is None else [second / 60 for second in self.seconds]  # ticks are round in the unit that is drawn
        return None if self.flops_per_token is None else [self.flops_per_token * tokens for tokens in self.tokens]


def draw(names: Sequence[str], file: Path, x: str | None = None) -> None:
    """Write the picture of one run, or of several (a folder of runs is all of them), against `x`; by default tokens, of one run also time.

    Raises HearthError without matplotlib, for an unknown format or axis, for a run with nothing trained, and for an axis that is not known.
    """
    drawing.check(file)
    if x is not None and x not in X:
        raise HearthError(f"--x {x[:40]}: must be {', '.join(X)}{nearest(x, X)}")
    from openhearth.experiments.runs import find, read

    folders = list(dict.fromkeys(itertools.chain.from_iterable(find(name) for name in names)))
    if len(folders) > 1:
        overlay(file, [read(folder) for folder in folders], x or "tokens")
        return
    folder = folders[0]
    facts = ledger_facts(folder)
    shown = {stage["stage"] for stage in facts["stages"]}
    latest = latest_stages(Ledger(folder / run_folder.LEDGER).run_entries())
    curves = [curve for kind in COLOURS if kind in shown and (curve := read_curve(folder, latest[kind])) is not None]
    if not curves:
        raise HearthError(f"{folder}: nothing is trained here yet, so there is no loss to draw")
    if x is not None and any(curve.along(x) is None for curve in curves):
        raise HearthError(f"--x {x}: {folder} does not say it of every step; draw against tokens")
    picture(file, facts, curves, x)


def read_curve(folder: Path, entry: Json) -> Curve | None:
    """The steps of a training stage; None when it left none."""
    steps = json_lines(file_of(folder, entry, "steps.jsonl"))
    if not steps:
        return None
    times = [row["seconds"] for row in json_lines(file_of(folder, entry, "telemetry/steps.jsonl"))]
    seconds = list(itertools.accumulate(times)) if len(times) == len(steps) else None
    facts = entry["facts"]
    per_token = facts["flops"] / facts["tokens"] if facts.get("flops") and facts.get("tokens") else None
    return Curve(entry["stage"], [row["tokens"] for row in steps], seconds, [row["loss"] for row in steps], per_token)


def picture(file: Path, facts: Json, curves: Sequence[Curve], x: str | None = None) -> None:
    """Draw loss against `x`, or against tokens, and against time where every step's time is known."""
    shown = [x] if x is not None else ["tokens", "time"] if all(curve.seconds is not None for curve in curves) else ["tokens"]
    title = f"{facts['run']}, budget {facts['budget']}"
    with drawing.canvas(file, 1, len(shown), title=title, size=(1.5 + 4.5 * len(shown), 4), sharey=True) as (_, panels):
        for axes, along in zip(panels[0], shown, strict=True):
            _panel(axes, curves, [curve.along(along) or [] for curve in curves])
            _axis(axes, along)
        panels[0][0].set_ylabel("loss, nats per token")
        panels[0][-1].legend(frameon=False, loc="upper right")


def overlay(file: Path, runs: Sequence[Trained], x: str) -> None:
    """Draw the loss of pretraining of several runs, a running mean each; in bits per byte where tokenizers differ.

    Raises HearthError where time is not known, or nats of different tokenizers cannot be put into one unit.
    """
    same = len({run.tokenizer for run in runs}) == 1
    shared = Path(os.path.commonpath([run.folder.absolute() for run in runs]))
    with drawing.canvas(file, 1, 1, title=f"{len(runs)} runs", size=(7.5, 4.5)) as (_, panels):
        axes = panels[0][0]
        for number, run in enumerate(runs):
            if run.bytes_per_token is None and not same:
                raise HearthError(f"{run.folder}: has another tokenizer, and its ledger does not say how many bytes a token has")
            place = {"tokens": run.tokens, "time": run.times, "flops": run.tokens * run.flops / run.final_tokens}[x]
            if place is None:
                raise HearthError(f"--x time: {run.folder} does not say it of every step; draw against tokens or flops")
            place = place / 60 if x == "time" else place
            loss = run.loss if same or run.bytes_per_token is None else run.loss / math.log(2) / run.bytes_per_token
            window = max(1, len(loss) // 40)
            colour, style = drawing.COLOURS[number % len(drawing.COLOURS)], STYLES[number // len(drawing.COLOURS) % len(STYLES)]
            name = os.path.relpath(run.folder.absolute(), shared)
            axes.plot(place[window - 1 :], running_mean(loss.tolist(), window), style, color=colour, linewidth=1.6, label=name)
        axes.set_ylabel("loss, nats per token" if same else "bits per byte of the training text")
        _axis(axes, x)
        axes.legend(frameon=False, loc="upper right", fontsize=8)


def _panel(axes: Any, curves: Sequence[Curve], places: Sequence[list[float]]) -> None:
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


def _axis(axes: Any, x: str) -> None:
    """What is written along x."""
    axes.set_xlabel(X[x])
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.92")
    form = (lambda value: f"{value:.3g}") if x == "time" else quantity
    axes.xaxis.set_major_formatter(lambda value, _: form(value) if value else "0")


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each `window` values in a row; len(values) - window + 1 of them."""
    sums = [0.0, *itertools.accumulate(values)]
    return [(sums[end] - sums[end - window]) / window for end in range(window, len(sums))]
