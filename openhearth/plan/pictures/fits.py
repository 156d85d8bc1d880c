"""A fit and its residuals: what the law says beside what was measured, and how far each run lies from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openhearth.drawing import COLOURS, FAINT, INK, canvas
from openhearth.plan.fitted import Fit
from openhearth.plan.pictures.labels import count_axis, power
from openhearth.plan.quantities import say

SIZES = 6
"""Curves of equal size that are drawn through the runs."""
RED = "#b91c1c"
MATH = {
    "chinchilla": r"$L = E + A/N^{\alpha} + B/D^{\beta}$",
    "gadre": r"$L = E + (a\,M^{\eta} + b\,M^{-\eta})\,C^{-\eta}$",
    "muennighoff": r"$L = E + A/N'^{\alpha} + B/D'^{\beta}$, repeated data",
}


def fit_picture(file: Path, fit: Fit) -> None:
    """Draw a fit: loss against FLOPs with the law through it, residuals, and profiles of what is weakly identified."""
    if fit.form.name == "isoflop":
        _isoflops(file, fit)
        return
    panels = 2 + bool(fit.profiles)
    figures = ", ".join(f"{name} {value:.4g}" for name, value in fit.coefficients.items() if name not in fit.profiles)
    about = f"{fit.form.source}; {len(fit.runs)} runs; {figures}"
    with canvas(file, 1, panels, title=MATH[fit.form.name], size=(5.4 * panels, 5.0), note=about) as (figure, axes):
        _law(figure, axes[0][0], fit)
        _residuals(axes[0][1], fit)
        if fit.profiles:
            _profiles(axes[0][2], fit)


def _law(figure: Any, axes: Any, fit: Fit) -> None:
    from matplotlib.colors import LogNorm

    runs = fit.runs
    flops = 6 * runs.parameters * runs.tokens
    norm = LogNorm(runs.parameters.min(), max(runs.parameters.max(), runs.parameters.min() * 1.01))
    shown = axes.scatter(flops, runs.loss, c=runs.parameters, norm=norm, cmap="viridis", s=16, linewidths=0.3, edgecolors="white", zorder=3)
    colours = shown.get_cmap()
    for n in np.unique(np.quantile(runs.parameters, np.linspace(0, 1, SIZES), method="nearest")):
        tokens = runs.tokens[np.abs(np.log(runs.parameters / n)) < 0.35]
        if len(tokens) < 2 or np.ptp(tokens) == 0:
            continue
        d = np.geomspace(tokens.min(), tokens.max(), 60)
        axes.plot(6 * n * d, fit.loss(np.full_like(d, n), d), color=colours(norm(n)), linewidth=1, alpha=0.8, zorder=2)
    c = np.geomspace(flops.min(), flops.max(), 80)
    if min(fit.law.terms.alpha, fit.law.terms.beta) > 0:
        axes.plot(c, fit.loss(*fit.law.optimal(c)), color=COLOURS[0], linewidth=1.8, zorder=4, label="least loss at each budget")
        axes.legend(frameon=False, fontsize=8, loc="upper right")
    axes.set(xscale="log", yscale="log", xlabel="FLOPs (6ND)", ylabel=f"loss, {fit.unit}")
    _plain_log(axes.yaxis, runs.loss)
    count_axis(axes.xaxis, power)
    axes.grid(color="0.93")
    bar = figure.colorbar(shown, ax=axes, pad=0.01, aspect=35)
    bar.ax.set_title("parameters", fontsize=8, color="0.3")
    count_axis(bar.ax.yaxis)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)


def _residuals(axes: Any, fit: Fit) -> None:
    flops = 6 * fit.runs.parameters * fit.runs.tokens
    percent = 100 * np.expm1(fit.relative_residuals())
    middle = float(np.median(percent))
    spread = 1.4826 * float(np.median(np.abs(percent - middle)))
    # an outlier far away would press the others into a line: it is drawn at the edge with its figure
    reach = 1.15 * max(6.5 * spread, float(np.quantile(np.abs(percent), 0.97)), 1e-9)
    far = np.abs(percent) > reach
    outside = np.abs(percent - middle) > 5 * spread
    axes.axhspan(middle - spread, middle + spread, color="0.95", zorder=0)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    for side in (-5, 5):
        axes.axhline(middle + side * spread, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    axes.scatter(flops[~outside], percent[~outside], s=14, color=COLOURS[1], alpha=0.75, linewidths=0, zorder=3)
    near = outside & ~far
    axes.scatter(flops[near], percent[near], s=20, color=RED, linewidths=0, zorder=3, label="outlier")
    for side, marker in ((1, "^"), (-1, "v")):
        beyond = far & (np.sign(percent) == side)
        if not beyond.any():
            continue
        axes.scatter(flops[beyond], np.full(beyond.sum(), side * reach * 0.96), s=26, marker=marker, color=RED, linewidths=0, zorder=4)
        low, high = percent[beyond].min(), percent[beyond].max()
        said = f"{low:+.0f} %" if beyond.sum() == 1 else f"{beyond.sum()} runs, {low:+.0f} to {high:+.0f} %"
        right = np.log(flops[beyond]).mean() > np.log(flops).mean()
        spot = flops[beyond].min() if right else flops[beyond].max()
        axes.annotate(
            said, (spot, side * reach * 0.96), (-7 if right else 7, 0), textcoords="offset points", fontsize=8, color=RED, va="center",
            ha="right" if right else "left",
        )  # fmt: skip
    axes.set(xscale="log", xlabel="FLOPs (6ND)", ylabel="measured over fitted loss, %", ylim=(-reach, reach))
    count_axis(axes.xaxis, power)
    axes.annotate(
        "5 robust sd",
        (1, middle + 5 * spread),
        (-2, 2),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        fontsize=7,
        color="0.45",
        ha="right",
    )
    if outside.any():
        axes.scatter([], [], s=20, color=RED, linewidths=0, label="outlier") if not near.any() else None
        axes.legend(frameon=False, fontsize=8, loc="lower right")


def _profiles(axes: Any, fit: Fit) -> None:
    """How much worse the objective becomes when a coefficient is held elsewhere."""
    from openhearth.plan.fitting import LABELS

    for (name, profile), colour in zip(fit.profiles.items(), COLOURS, strict=False):
        rise = 100 * (np.array(profile.objective) / fit.objective - 1)
        axes.plot(profile.values, rise, color=colour, linewidth=1.6, label=f"{LABELS[name]} = {_limited(fit.coefficients[name])}")
        if fit.coefficients[name] <= profile.values[-1]:
            axes.plot([fit.coefficients[name]], [0], "o", color=colour, markersize=5)
    axes.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "1 %", (1, 1), (-2, 2), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=7, color="0.45", ha="right"
    )
    axes.set(xscale="log", xlabel="held at", ylabel="objective above its least, %", ylim=(-0.5, 15))
    count_axis(axes.xaxis)
    axes.grid(color="0.93")
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def _limited(value: float) -> str:
    return say(value) if value < 1e6 else "no limit"


def _isoflops(file: Path, fit: Fit) -> None:
    runs = fit.runs
    note = f"{fit.form.source}; {len(runs)} runs; kN {fit.coefficients['kN']:.4g}, a {fit.coefficients['a']:.4g}"
    with canvas(file, 1, 2, title="IsoFLOP parabolas", size=(11.0, 5.0), note=note) as (_, panels):
        left, right = panels[0]
        flops = 6 * runs.parameters * runs.tokens
        from matplotlib import colormaps

        scale = colormaps["viridis"]
        for number, one in enumerate(fit.parabolas):
            colour = scale(number / max(1, len(fit.parabolas) - 1) * 0.9)
            group = np.abs(np.log(flops / one.flops)) < 0.15
            order = np.argsort(runs.parameters[group])
            x, y = np.log(runs.parameters[group])[order], runs.loss[group][order]
            if len(x) >= 3 and len(np.unique(x)) >= 3:
                curve = np.polynomial.Polynomial.fit(x, y, 2)
                z = np.linspace(x[0], x[-1], 60)
                left.plot(np.exp(z), curve(z), color=colour, linewidth=1.2)
            left.plot(np.exp(x), y, "o", color=colour, markersize=3.5)
            if one.inside:
                left.plot([one.parameters], [one.loss], "*", color=COLOURS[0], markersize=10, markeredgecolor="white", zorder=5)
        left.set(xscale="log", yscale="log", xlabel="parameters", ylabel=f"loss, {fit.unit}")
        _plain_log(left.yaxis, runs.loss)
        count_axis(left.xaxis)
        left.grid(color="0.93")
        used = [one for one in fit.parabolas if one.inside]
        c = np.geomspace(used[0].flops / 2, used[-1].flops * 10, 60)
        n = fit.law.optimal(c)[0]
        if fit.samples is not None:
            sampled = fit.law.optimal_resampled(c)
            assert sampled is not None
            low, high = np.nanpercentile(sampled[0], (2.5, 97.5), axis=0)
            right.fill_between(c, low, high, color=COLOURS[0], alpha=0.15, linewidth=0, label="95 %")
        right.plot(c, n, color=COLOURS[0], linewidth=1.6, label=f"N_opt = {fit.coefficients['kN']:.3g} C^{fit.coefficients['a']:.3f}")
        right.plot(
            [one.flops for one in used], [one.parameters for one in used], "*", color=COLOURS[0], markersize=10, markeredgecolor="white"
        )
        right.set(xscale="log", yscale="log", xlabel="FLOPs", ylabel="parameters at the least loss")
        count_axis(right.xaxis, power)
        count_axis(right.yaxis)
        right.grid(color="0.93")
        right.legend(frameon=False, fontsize=9, loc="upper left")


def _plain_log(axis: Any, values: Any) -> None:
    """Round losses as ticks of a logarithmic axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = float(values.min()), float(values.max())
    step = next(size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / size <= 9 or size == 5.0)
    ticks = np.arange(np.ceil(low / step) * step, high + step / 2, step)
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.{max(0, -int(np.floor(np.log10(step))))}f}"))
    axis.set_minor_locator(NullLocator())
