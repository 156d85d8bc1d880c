"""Pictures are files of the asked kind, the same every time; labels lie beside their dots and not on each other."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth import drawing
from openhearth.errors import HearthError
from openhearth.plan import pictures
from openhearth.plan.fitting import fit
from openhearth.plan.scaling_laws import law

pytest.importorskip("matplotlib")

SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
MODELS = [
    ("GPT-3 175B", 175e9, 300e9), ("Gopher 280B", 280e9, 300e9), ("Jurassic-1 178B", 178e9, 300e9), ("MT-NLG 530B", 530e9, 270e9),
    ("Chinchilla 70B", 70e9, 1.4e12), ("LLaMA 65B", 65e9, 1.4e12), ("LLaMA 33B", 32.5e9, 1.4e12), ("LLaMA 13B", 13e9, 1e12),
    ("LLaMA 7B", 6.7e9, 1e12), ("OPT 175B", 175e9, 180e9), ("BLOOM 176B", 176e9, 366e9), ("PaLM 540B", 540e9, 780e9),
    ("Llama 3 8B", 8e9, 15e12), ("Llama 3 405B", 405e9, 15.6e12), ("Galactica 120B", 120e9, 450e9), ("Pythia 12B", 12e9, 300e9),
]  # fmt: skip


def plane(file: Path) -> None:
    refit = law("refit")
    best = refit.optimal(5.76e23)
    path = np.column_stack(refit.optimal(np.geomspace(1e20, 1e26, 20)))
    interval = ((52e9, 112e9), (8.6e11, 1.85e12))
    pictures.loss_plane(file, title="plane", loss=refit.loss, optimum=best, interval=interval, path=path, models=MODELS, note="a note")


def curves(file: Path) -> None:
    tokens = np.geomspace(1e9, 1e12, 50)
    lines = [(f"{n:g}", tokens, law("refit").loss(np.full(50, n), tokens)) for n in (7e9, 30e9, 120e9)]
    pictures.loss_curves(
        file, title="curves", curves=[*lines[:2], (*lines[2], lines[2][2] - 0.02, lines[2][2] + 0.02)], doubling_at=(1e10, 1e11)
    )


def bars(file: Path) -> None:
    parts = {"weights": 16e9, "gradients": 16e9, "activations": 30e9}
    pictures.memory_bars(file, title="bars", bars=[("one", parts), ("other", {"weights": 300e9})], limit=72e9)


def ladder(file: Path) -> None:
    rungs = []
    for usd in (1e2, 1e4, 1e6):
        n, d = law("refit").optimal(5e17 * usd)
        rungs.append({"usd": usd, "flops": 5e17 * usd, "parameters": n, "tokens": d, "loss": law("refit").loss(n, d)})
        rungs[-1] |= {"loss_low": rungs[-1]["loss"] - 0.1, "loss_high": rungs[-1]["loss"] + 0.1}
    pictures.budget_ladder(file, title="ladder", rungs=rungs)


def fitted(form: str) -> Callable[[Path], None]:
    def draw(file: Path) -> None:
        generator = np.random.RandomState(0)
        budgets = np.repeat([1e18, 1e19, 1e20], 8)
        n = 0.3 * budgets**0.45 * np.tile(np.geomspace(0.2, 5, 8), 3)
        d = budgets / 6 / n
        loss = (1.69 + 406.4 / n**0.34 + 410.7 / d**0.28) * np.exp(0.003 * generator.normal(size=24))
        loss[3] *= 1.4
        found = fit(n, d, loss, form=form, unique_tokens=np.minimum(d, 1e10), flops=budgets, bootstraps=20)
        pictures.fit_picture(file, found)

    return draw


ALL = {
    "plane": plane, "curves": curves, "bars": bars, "ladder": ladder,
    **{form: fitted(form) for form in ("chinchilla", "gadre", "muennighoff", "isoflop")},
}  # fmt: skip


@pytest.mark.parametrize("name", list(ALL))
def test_every_picture_is_a_file_of_the_asked_kind(tmp_path: Path, name: str) -> None:
    suffix = dict(zip(ALL, itertools.cycle(SIGNATURES), strict=False))[name]
    file = tmp_path / f"picture{suffix}"
    ALL[name](file)
    assert file.read_bytes().startswith(SIGNATURES[suffix]) and file.stat().st_size > 5000
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    for suffix in SIGNATURES:
        one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
        bars(one)
        bars(other)
        assert one.read_bytes() == other.read_bytes()


def test_labels_of_a_crowd_lie_beside_their_dots_and_not_on_each_other(tmp_path: Path) -> None:
    from openhearth.plan.pictures.labels import place

    with drawing.canvas(tmp_path / "crowd.png", 1, 1, title="crowd", size=(8.4, 6.6)) as (figure, panels):
        axes = panels[0][0]
        axes.set(xscale="log", yscale="log", xlim=(1e9, 2e12), ylim=(5e10, 4e13))
        points = [(n, d) for _, n, d in MODELS]
        place(axes, points, [name for name, _, _ in MODELS])
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        boxes = {text.get_text(): _text_box(text, renderer) for text in axes.texts}
        assert len(boxes) == len(MODELS)
        for (one, a), (other, b) in itertools.combinations(boxes.items(), 2):
            assert not a.overlaps(b), f"{one} lies on {other}"
        frame = axes.get_window_extent(renderer)
        for (name, n, d), point in zip(MODELS, axes.transData.transform(points), strict=True):
            box = boxes[name]
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            gap = np.hypot(max(box.x0 - point[0], 0, point[0] - box.x1), max(box.y0 - point[1], 0, point[1] - box.y1))
            assert gap < 90, f"{name} is far from ({n:g}, {d:g})"


def _text_box(text: Any, renderer: Any) -> Any:
    """Of the letters alone, without the line to the dot."""
    from matplotlib.text import Text

    return Text.get_window_extent(text, renderer)


def test_labels_at_the_ends_of_curves_are_spread() -> None:
    from openhearth.plan.pictures.labels import spread

    places = spread([1.0, 1.01, 1.02, 3.0], 0.5)
    assert np.diff(places).min() > 0.49 and places[3] == 3.0
    assert spread([2.0, 1.0], 0.5) == [2.0, 1.0]


def test_what_cannot_be_drawn_is_refused_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, said in (("a.gif", "must end in"), ("no/a.png", "its folder does not exist"), ("dir.png", "is a folder")):
        (tmp_path / "dir.png").mkdir(exist_ok=True)
        with pytest.raises(HearthError, match=said):
            pictures.check(tmp_path / name)
        with pytest.raises(HearthError, match=said):
            bars(tmp_path / name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(HearthError, match="openhearth\\[plot\\]"):
        pictures.check(tmp_path / "a.png")
