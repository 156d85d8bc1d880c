"""Labels that do not lie on each other: each takes the first free place around its point, the crowded ones last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from openhearth.drawing import FAINT, INK
from openhearth.plan.quantities import say

ANGLES = (0, 35, -35, 180, 145, -145, 90, -90, 65, -65, 115, -115)
DISTANCES = (7, 12, 18, 28, 42, 60)
"""Points (1/72 inch) from the dot."""
MARGIN = 1.5
"""Pixels around a label."""
DOT = 5.0
"""Pixels around a point that belong to it."""
LEADER = 16
"""From this distance on a thin line joins label and point."""

Box = tuple[float, float, float, float]
Pixel = tuple[float, float]


def place(axes: Any, points: Sequence[Pixel], texts: Sequence[str], avoid: Sequence[Pixel] = (), colours: Sequence[str] = ()) -> None:
    """Write each text beside its point, clear of all points, of `avoid` and of each other, inside the axes; far ones get a thin line.

    Points are in data coordinates. The axes must have their final limits.
    """
    from matplotlib.patheffects import withStroke

    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    pixels = [_pixel(axes, point) for point in points]
    others = [_pixel(axes, point) for point in avoid]
    crowd = [sum(math.dist(pixel, other) < 120 for other in pixels) for pixel in pixels]
    halo = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    taken: list[Box] = []
    hues = colours or [INK] * len(points)
    for number in sorted(range(len(points)), key=lambda i: (-crowd[i], pixels[i])):  # the crowded first: they have the fewest choices
        shown = axes.annotate(texts[number], points[number], fontsize=8)
        extent = shown.get_window_extent(renderer)
        shown.remove()
        rest = [pixel for i, pixel in enumerate(pixels) if i != number]
        best: tuple[float, float, Box] | None = None
        for distance in DISTANCES:
            for rank, angle in enumerate(ANGLES):
                box = _beside(pixels[number], angle, distance * figure.dpi / 72, extent.width, extent.height)
                cost = 0.4 * distance + 0.3 * rank + _outside(box, frame)
                cost += sum(_overlap(box, other) for other in taken)
                cost += sum(_overlap(box, (x - DOT, y - DOT, x + DOT, y + DOT)) for x, y in (*rest, *others))
                # a label nearer to another dot than to its own would be read as that dot's
                cost += 12 * sum(_gap(box, pixel) < _gap(box, pixels[number]) + 3 for pixel in rest)
                if best is None or cost < best[0]:
                    best = (cost, distance, box)
        assert best is not None
        taken.append(best[2])
        corner = axes.transData.inverted().transform((best[2][0] + MARGIN, best[2][1] + MARGIN))
        line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3} if best[1] >= LEADER else None
        axes.annotate(
            texts[number], points[number], corner, fontsize=8, color=hues[number], zorder=6, ha="left", va="bottom", arrowprops=line,
            annotation_clip=False, path_effects=halo,
        )  # fmt: skip


def _pixel(axes: Any, point: Pixel) -> Pixel:
    x, y = axes.transData.transform(point)
    return float(x), float(y)


def _beside(pixel: Pixel, angle: float, distance: float, width: float, height: float) -> Box:
    """The box of a text in that direction from a pixel."""
    x = pixel[0] + math.cos(math.radians(angle)) * distance
    y = pixel[1] + math.sin(math.radians(angle)) * distance
    left = x if abs(angle) < 80 else x - width if abs(angle) > 100 else x - width / 2
    bottom = y - height / 2 if angle in (0, 180) else y if angle > 0 else y - height
    return left - MARGIN, bottom - MARGIN, left + width + MARGIN, bottom + height + MARGIN


def _gap(box: Box, pixel: Pixel) -> float:
    """Pixels between a box and a point."""
    dx = max(box[0] - pixel[0], 0.0, pixel[0] - box[2])
    dy = max(box[1] - pixel[1], 0.0, pixel[1] - box[3])
    return math.hypot(dx, dy)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as needed so that neighbours are at least `gap` apart, in the same order."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    places = [values[i] for i in order]
    for _ in range(200):
        moved = False
        for low in range(len(places) - 1):
            short = gap - (places[low + 1] - places[low])
            if short > gap * 1e-3:
                places[low] -= short / 2
                places[low + 1] += short / 2
                moved = True
        if not moved:
            break
    found = [0.0] * len(values)
    for rank, i in enumerate(order):
        found[i] = places[rank]
    return found


def count_axis(axis: Any, form: Callable[[float], str] = say) -> None:
    """Ticks of a logarithmic axis as '100M', '1B' at the decades; at 1, 2 and 5 where its limits, already set, span few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 60 else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axis.set_minor_locator(LogLocator(base=10, subs=tuple(range(2, 10)), numticks=9))
    axis.set_minor_formatter(NullFormatter())


def power(value: float) -> str:
    """'1e21', '2e21'."""
    return f"{value:.0e}".replace("e+", "e")


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _outside(box: Box, frame: Any) -> float:
    """Pixels of the box outside the frame, weighed so that it is worse than lying on something."""
    beyond = (frame.x0 - box[0], box[2] - frame.x1, frame.y0 - box[1], box[3] - frame.y1)
    return 50.0 * sum(max(0.0, float(side)) for side in beyond)
