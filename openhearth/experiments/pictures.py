"""The pictures of `hearth sweep --plot` and `hearth compare --plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openhearth import drawing
from openhearth.experiments.compare import Comparison, end_loss, spent
from openhearth.experiments.results import Row
from openhearth.experiments.runs import Trained
from openhearth.report import quantity


def sweep_picture(file: Path, name: str, found: Sequence[Row]) -> None:
    """Bits per byte of every setting: a dot for each seed, the mean, and one standard deviation to each side."""
    height = max(2.2, 0.9 + 0.32 * len(found))
    note = "held-out bits per byte; a dot is a seed, the bar is mean ± standard deviation, the line is the baseline"
    with drawing.canvas(file, 1, 1, title=f"{name}: sweep", size=(8, height), note=note) as (_, panels):
        axes = panels[0][0]
        best = min(row.mean for row in found)
        for place, row in enumerate(found):
            colour = drawing.COLOURS[0] if row.mean == best else drawing.COLOURS[5]
            axes.plot(row.bits, [place] * len(row.bits), "o", color=colour, alpha=0.5, markersize=4)
            if row.bits:
                axes.errorbar(row.mean, place, xerr=row.deviation, fmt="|", color=colour, markersize=14, capsize=3)
        if found[0].bits:
            axes.axvline(found[0].mean, color=drawing.FAINT, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(found)), [row.name + ("" if row.bits else " (failed)") for row in found])
        axes.invert_yaxis()
        axes.set_xlabel("bits per byte")
        axes.grid(axis="x", color="0.92")


def comparison_picture(file: Path, names: tuple[str, str], sides: Sequence[Sequence[Trained]], found: Comparison) -> None:
    """Both recipes against FLOPs: their curves (from one size) or their runs (from several), and the loss at which they are compared."""
    value, low, high = found.multiplier
    title = f"compute multiplier {value:.3g}" + (f" ({low:.3g} to {high:.3g})" if low is not None else "")
    with drawing.canvas(file, 1, 1, title=title, size=(7, 4.2)) as (_, panels):
        axes = panels[0][0]
        for name, runs, curve, colour in zip(names, sides, found.curves, drawing.COLOURS, strict=False):
            flops = spent(runs, "FLOPs")
            assert flops is not None
            losses = [end_loss(run, found.held_out) for run in runs]
            axes.plot(flops, losses, "o", color=colour, markersize=5, label=name)
            if found.method == "curves":
                kept = curve.part > 0.05
                axes.plot(curve.part[kept] * float(np.mean(flops)), curve.loss[kept], color=colour, linewidth=1.5)
        if found.method == "curves":
            axes.axhline(max(found.loss), color=drawing.FAINT, linewidth=0.8, zorder=0)
            axes.set_xlim(left=0)
        else:
            axes.set_xscale("log")
            axes.set_xticks(sorted({float(f"{run.flops:.2g}") for runs in sides for run in runs}))
            axes.minorticks_off()
        axes.set_xlabel("FLOPs of pretraining")
        axes.set_ylabel(f"bits per byte, {'held-out' if found.held_out else 'training'} text")
        axes.xaxis.set_major_formatter(lambda tick, _: quantity(tick))
        axes.grid(color="0.92")
        axes.legend(frameon=False)
