"""Loss against tokens, one curve for each size, with what twice the tokens would gain at chosen points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openhearth.drawing import COLOURS, INK, canvas
from openhearth.plan.pictures.labels import count_axis, place, spread


def loss_curves(
    file: Path,
    *,
    title: str,
    curves: Sequence[tuple[Any, ...]],
    doubling_at: Sequence[float] = (),
    unit: str = "nats per token",
    note: str = "",
) -> None:
    """Draw `curves`, each (name, tokens, loss[, low, high]) with arrays; on each the gain of twice the tokens at each `doubling_at`."""
    with canvas(file, 1, 1, title=title, size=(8.4, 5.2), note=note) as (_, panels):
        axes = panels[0][0]
        axes.set(xscale="log", xlabel="tokens", ylabel=f"loss, {unit}")
        marks: list[tuple[float, float]] = []
        gains: list[str] = []
        hues: list[str] = []
        ends: list[tuple[str, float, float, str]] = []
        for number, (name, tokens, loss, *band) in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            tokens, loss = np.asarray(tokens, dtype=np.float64), np.asarray(loss, dtype=np.float64)
            if band:
                axes.fill_between(tokens, band[0], band[1], color=colour, alpha=0.15, linewidth=0)
            axes.plot(tokens, loss, color=colour, linewidth=1.8)
            ends.append((name, float(tokens[-1]), float(loss[-1]), colour))
            for at in doubling_at:
                if not tokens[0] <= at <= tokens[-1] / 2:
                    continue
                before, after = np.interp(np.log([at, 2 * at]), np.log(tokens), loss)
                axes.plot([at, 2 * at, 2 * at], [before, before, after], color=colour, linewidth=1, alpha=0.8)
                axes.plot([at, 2 * at], [before, after], "o", color=colour, markersize=3.5)
                marks.append((2 * at, (before + after) / 2))
                hues.append(colour)
                gains.append(f"\N{MINUS SIGN}{before - after:.3f}")
        low, high = axes.get_ylim()
        left, right = axes.get_xlim()
        axes.set(xlim=(left, right * (right / left) ** 0.16), ylim=(low, high))
        count_axis(axes.xaxis)
        axes.grid(axis="y", color="0.92")
        heights = spread([loss for _, _, loss, _ in ends], 0.045 * (high - low))
        for (name, tokens, _, colour), height in zip(ends, heights, strict=True):
            axes.annotate(
                name, (tokens, height), (6, 0), textcoords="offset points", color=colour, fontsize=9, fontweight="bold", va="center"
            )
        if marks:
            axes.plot([], [], color=INK, linewidth=1, marker="o", markersize=3.5, label="twice the tokens, and what they gain")
            axes.legend(frameon=False, fontsize=8, loc="upper right")
            along = [
                (x, y)
                for _, tokens, loss, *_ in curves
                for x, y in zip(np.geomspace(tokens[0], tokens[-1], 120), np.interp(*_even(tokens), loss), strict=True)
            ]
            place(axes, marks, gains, along, hues)


def _even(tokens: Any) -> tuple[Any, Any]:
    """120 places along a curve, evenly spaced in ln tokens."""
    return np.linspace(np.log(tokens[0]), np.log(tokens[-1]), 120), np.log(tokens)
