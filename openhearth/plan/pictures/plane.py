"""Loss over the plane of parameters and tokens, both logarithmic: lines of equal loss bend, lines of equal cost are straight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.drawing import COLOURS, INK, canvas
from openhearth.plan.pictures.labels import count_axis, place

GRID = 160
LEVELS = 11
"""Lines of equal loss, evenly spaced from the dearest corner to the cheapest."""

Loss = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], Any]


def loss_plane(
    file: Path,
    *,
    title: str,
    loss: Loss,
    optimum: tuple[float, float] | None = None,
    interval: tuple[tuple[float, float], tuple[float, float]] | None = None,
    path: Any = None,
    models: Sequence[tuple[str, float, float]] = (),
    budgets: Sequence[tuple[float, str]] | None = None,
    unit: str = "nats per token",
    note: str = "",
) -> None:
    """Draw it. `loss(parameters, tokens)` takes arrays; `optimum` is (parameters, tokens), `interval` their (low, high) at the same cost.

    `path` (k, 2) are optima over budgets, `models` (name, parameters, tokens), `budgets` (FLOPs, label) the lines of equal cost; by default
    decades of 6ND. Limits follow the points.
    """
    points = [(n, d) for _, n, d in models] + ([optimum] if optimum else [])
    along = np.empty((0, 2)) if path is None else np.asarray(path, dtype=np.float64)
    ends = [[], []] if interval is None else [list(end) for end in interval]
    low_n, high_n = _limits([n for n, _ in points] + ends[0] or list(along[:, 0]))
    low_d, high_d = _limits([d for _, d in points] + ends[1] or list(along[:, 1]))
    n, d = np.geomspace(low_n, high_n, GRID), np.geomspace(low_d, high_d, GRID)
    values = np.asarray(loss(*np.meshgrid(n, d)))
    with canvas(file, 1, 1, title=title, size=(8.4, 6.6), note=note) as (_, panels):
        axes = panels[0][0]
        axes.set(xscale="log", yscale="log", xlim=(low_n, high_n), ylim=(low_d, high_d), xlabel="parameters", ylabel="tokens")
        count_axis(axes.xaxis)
        count_axis(axes.yaxis)
        levels = _levels(values)
        axes.contourf(n, d, values, levels=[values.min() - 1, *levels, values.max() + 1], cmap="YlOrBr", alpha=0.35, zorder=0)
        lines = axes.contour(n, d, values, levels=levels, colors="#92400e", linewidths=0.8, alpha=0.8, zorder=1)
        digits = 2 if all(round(level, 2) == level for level in levels) else 3
        edge = [_near_edge(n, d, values, level) for level in levels]
        named = axes.clabel(
            lines, fontsize=7, fmt=lambda value: f"{value:.{digits}f}", inline_spacing=2, manual=[spot for spot in edge if spot]
        )
        _costs(axes, budgets, (low_n, high_n, low_d, high_d))
        if len(along):
            axes.plot(along[:, 0], along[:, 1], color=COLOURS[0], linewidth=1.6, zorder=3, label="optimum at each budget")
        if interval is not None:
            (n_low, n_high), (d_low, d_high) = interval
            axes.plot(
                [n_low, n_high], [d_high, d_low], color=COLOURS[0], linewidth=6, alpha=0.4, solid_capstyle="round", zorder=3, label="95 %"
            )
        if optimum is not None:
            axes.plot(*optimum, "*", color=COLOURS[0], markersize=15, markeredgecolor="white", zorder=5, label="optimum")
        axes.plot([], [], color="#92400e", linewidth=0.8, label=f"equal loss, {unit}")
        axes.plot([], [], color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), label="equal FLOPs")
        if models:
            axes.plot([n for _, n, _ in models], [d for _, _, d in models], "o", color=INK, markersize=4, zorder=4)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=6)
        avoid = [text.get_position() for text in named] + ([optimum] if optimum else [])
        place(axes, [(n, d) for _, n, d in models], [name for name, _, _ in models], avoid)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Half a decade around the values, two decades at least."""
    if not values:
        return 1e7, 1e12
    low, high = min(values) / 3, max(values) * 3
    wider = max(1.0, math.sqrt(100 * low / high))
    return low / wider, high * wider


def _levels(values: npt.NDArray[np.float64]) -> list[float]:
    """Round losses along the diagonal, from little of both to much of both; different ones, rising."""
    along = np.diagonal(values)[np.linspace(0, len(values) - 1, LEVELS + 2).astype(int)[1:-1]]
    digits = 2 if np.ptp(along) > 0.3 else 3
    return sorted({round(float(value), digits) for value in along if math.isfinite(value)})


def _near_edge(n: Any, d: Any, values: npt.NDArray[np.float64], level: float) -> tuple[float, float] | None:
    """Where a line of equal loss leaves the plane on the right or at the bottom, a little inside."""
    column, row = int(len(n) * 0.95), int(len(d) * 0.05)
    if values[0, column] >= level >= values[-1, column]:  # loss falls upwards
        return float(n[column]), float(d[np.abs(values[:, column] - level).argmin()])
    if values[row, 0] >= level >= values[row, -1]:
        return float(n[np.abs(values[row] - level).argmin()]), float(d[row])
    return None


def _costs(axes: Any, budgets: Sequence[tuple[float, str]] | None, limits: tuple[float, float, float, float]) -> None:
    """6ND = C for each budget, labelled where the line enters the plane on the left or at the top."""
    low_n, high_n, low_d, high_d = limits
    if budgets is None:
        decades = range(math.ceil(math.log10(6 * low_n * low_d)), math.floor(math.log10(6 * high_n * high_d)) + 1)
        budgets = [(10.0**decade, f"1e{decade} FLOPs") for decade in decades]
    axes.figure.draw_without_rendering()
    corner, other = axes.transData.transform([(low_n, high_n), (low_n * 10, high_n / 10)])
    slope = math.degrees(math.atan2(other[1] - corner[1], other[0] - corner[0]))
    for flops, label in budgets:
        ends = max(low_n, flops / 6 / high_d), min(high_n, flops / 6 / low_d)
        if ends[0] >= ends[1]:
            continue
        axes.plot(ends, [flops / 6 / end for end in ends], color="0.45", linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        if ends[1] / ends[0] > 4:
            n = ends[0] * 1.15
            axes.annotate(
                label, (n, flops / 6 / n), (1.5, 2.5), textcoords="offset points", fontsize=7, color="0.35", ha="left", va="bottom",
                rotation=slope, rotation_mode="anchor", zorder=2,
            )  # fmt: skip
