"""What each budget buys: parameters, tokens and loss over money, one rung after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from openhearth.drawing import COLOURS, canvas
from openhearth.plan.pictures.labels import count_axis
from openhearth.plan.quantities import say, say_usd


def budget_ladder(file: Path, *, title: str, rungs: Sequence[Mapping[str, float]], unit: str = "nats per token", note: str = "") -> None:
    """Draw `rungs`: each has usd, parameters, tokens and loss, and may have flops and <name>_low and <name>_high of the three."""
    money = np.array([rung["usd"] for rung in rungs])
    with canvas(file, 3, 1, title=title, size=(8.4, 8.0), note=note, sharex=True) as (_, panels):
        for (axes,), name, colour in zip(panels, ("parameters", "tokens", "loss"), COLOURS, strict=False):
            values = np.array([rung[name] for rung in rungs])
            if all(f"{name}_low" in rung and f"{name}_high" in rung for rung in rungs):
                low, high = (np.array([rung[f"{name}_{end}"] for rung in rungs]) for end in ("low", "high"))
                axes.fill_between(money, low, high, color=colour, alpha=0.15, linewidth=0, label="95 %")
            axes.plot(money, values, color=colour, linewidth=1.6, marker="o", markersize=5)
            axes.set(xscale="log", ylabel=name if name != "loss" else f"loss, {unit}")
            if name != "loss":
                axes.set_yscale("log")
                count_axis(axes.yaxis)
            axes.margins(x=0.06, y=0.22)
            axes.grid(color="0.92")
            for x, value in zip(money, values, strict=True):
                shown = say(value) if name != "loss" else f"{value:.3f}"
                axes.annotate(
                    shown, (x, value), (0, 8), textcoords="offset points", ha="center", va="bottom", fontsize=9, color=colour,
                    fontweight="bold", bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5},
                )  # fmt: skip
        bottom = panels[-1][0]
        count_axis(bottom.xaxis, say_usd)
        bottom.set_xlabel("budget")
        if all("flops" in rung for rung in rungs):
            top = panels[0][0].secondary_xaxis("top")
            top.set_xticks(money, [f"{rung['flops']:.1e}".replace("e+", "e") for rung in rungs], fontsize=8)
            top.minorticks_off()
            top.set_xlabel("FLOPs", fontsize=9)
            top.spines["top"].set_visible(False)
            top.tick_params(length=0)
