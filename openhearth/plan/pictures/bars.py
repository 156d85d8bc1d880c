"""Memory of the fullest device as one stacked bar for each layout, beside what the device has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from openhearth.drawing import COLOURS, INK, canvas

GIB = 2.0**30
TOO_MUCH = "#b91c1c"


def memory_bars(
    file: Path,
    *,
    title: str,
    bars: Sequence[tuple[str, Mapping[str, float]]],
    limit: float | None = None,
    limit_label: str = "",
    note: str = "",
) -> None:
    """Draw `bars`, each (label, {part: bytes}); parts are stacked in the order in which they first appear. `limit` is bytes that fit."""
    parts = list(dict.fromkeys(part for _, sizes in bars for part in sizes))
    widest = max([sum(sizes.values()) for _, sizes in bars] + [limit or 0.0]) / GIB
    # one layout far beyond the limit would press the others into a sliver: its bar is cut, its figure is not
    end = widest if limit is None else min(widest, 1.8 * limit / GIB)
    with canvas(file, 1, 1, title=title, size=(9.4, 2.0 + 0.42 * len(bars)), note=note) as (_, panels):
        axes = panels[0][0]
        for row, (_, sizes) in enumerate(bars):
            left = 0.0
            for number, part in enumerate(parts):
                width = sizes.get(part, 0.0) / GIB
                drawn = min(width, end - left) if left < end else 0.0
                if drawn > 0:
                    colour = COLOURS[number % len(COLOURS)]
                    axes.barh(row, drawn, left=left, height=0.62, color=colour, alpha=0.85, edgecolor="white", linewidth=0.6)
                if drawn > 0.06 * end:
                    axes.text(left + drawn / 2, row, f"{width:.3g}", ha="center", va="center", fontsize=8, color="white", zorder=4)
                left += width
            over = limit is not None and left * GIB > limit
            cut = "\N{RIGHTWARDS ARROW} " if left > end else ""
            axes.annotate(
                f"{cut}{left:.1f} GiB" + (" does not fit" if over else ""), (min(left, end), row), (5, 0), textcoords="offset points",
                va="center", fontsize=9, color=TOO_MUCH if over else INK, fontweight="bold", zorder=5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )  # fmt: skip
        if limit is not None:
            axes.axvline(limit / GIB, color=TOO_MUCH, linewidth=1.2, linestyle=(0, (5, 3)), zorder=3)
            axes.annotate(
                limit_label or f"{limit / GIB:.1f} GiB fit", (limit / GIB, 1.0), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=8, color=TOO_MUCH,
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [label for label, _ in bars])
        axes.set(ylim=(len(bars) - 0.45, -0.55), xlim=(0, end * 1.4), xlabel="GiB on the fullest device")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="0.92")
        from matplotlib.patches import Patch

        handles = [Patch(facecolor=COLOURS[number % len(COLOURS)], alpha=0.85, label=part) for number, part in enumerate(parts)]
        below = -0.5 / (0.42 * len(bars) + 0.6)
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.38, below),
            ncols=min(8, len(parts)),
            frameon=False,
            fontsize=9,
            columnspacing=1.2,
            handlelength=1.4,
        )
