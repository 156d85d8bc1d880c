"""What all pictures share: the files that can be written, the look, and bytes that come out the same every time.

matplotlib is imported when something is drawn, never before.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError
from openhearth.ledger import write_atomic

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#c2410c", "#0f766e", "#1d4ed8", "#a16207", "#7c3aed", "#475569", "#be185d", "#4d7c0f")
"""Of things side by side, told apart by eye and in grey; the first is what a picture is about."""
INK, FAINT = "#1c1917", "#a8a29e"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "openhearth",
}


def check(file: Path) -> None:
    """Whether a picture can be written there. Raises HearthError for an unknown format, a folder that is not there, or no matplotlib."""
    if file.suffix.lower() not in FORMATS:
        raise HearthError(f"--plot {file}: the name must end in {', '.join(FORMATS)}")
    if not file.parent.is_dir() or file.is_dir():
        raise HearthError(f"--plot {file}: {'is a folder' if file.is_dir() else 'its folder does not exist'}; name a file in one that does")
    if importlib.util.find_spec("matplotlib") is None:
        raise HearthError("--plot needs matplotlib, which is not installed: pip install 'openhearth[plot]'")


@contextmanager
def canvas(file: Path, *panels: Any, title: str, size: tuple[float, float], note: str = "", **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure with `panels` (rows, columns) of axes, written to `file` at the end. Gives (figure, axes as an array of rows).

    `title` stands above everything, `note` in small letters below.
    """
    check(file)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(*panels, figsize=size, squeeze=False, layout="constrained", **options)
        try:
            yield figure, axes
            figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
            if note:
                figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color="0.4")
            write_atomic(file, rendered(figure, file.suffix.lower()[1:]))
        finally:
            pyplot.close(figure)


def rendered(figure: Any, form: str) -> bytes:
    """The bytes of a figure as png, svg or pdf: no date in them, so that the same picture is the same file."""
    out = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
    figure.savefig(out, format=form, dpi=150, metadata=metadata)
    return out.getvalue()
