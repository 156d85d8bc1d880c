"""How a run looks while it goes on: a live table in a terminal, an occasional line anywhere else. Both on the standard error.

Nothing here is recorded; a run that nobody watches is the same run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openhearth.budget_text import clock, say_seconds
from openhearth.ledger import Artifact, Json, read_json
from openhearth.recipe import Recipe
from openhearth.runner import Watcher
from openhearth.serve.terminal import harmless

PLAIN_SECONDS = 5.0
"""Between two lines of one stage where there is no terminal."""
RATE_SECONDS, RATE_SHARE = 2.0, 0.01
"""A rate is one when news of this long, and of this share of what remained, have come in."""
REFRESHES = 3.0
"""Of the live table, per second: smooth for the eye, unnoticeable for the training beside it."""


def watcher() -> Display:
    """A live table when the standard error is a terminal, else plain lines."""
    console = Console(stderr=True, highlight=False)
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


@dataclass
class Row:
    """What is known of one stage."""

    kind: str
    state: str = "waiting"
    """waiting, running, made, reused."""
    done: float = 0.0
    total: float = 0.0
    first: tuple[float, float] | None = None
    """When the first news came, and `done` then: a resumed stage does not begin at 0, and the rate leaves the preparation out."""
    last: float = 0.0
    """When the latest news came."""
    began: float = 0.0
    seconds: float = 0.0
    predicted: float | None = None
    figures: dict[str, float | str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the stage's work, 0 to 1."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    def elapsed(self) -> float:
        """Seconds so far, or in all."""
        return time.monotonic() - self.began if self.state == "running" else self.seconds

    def left(self) -> float | None:
        """Seconds that remain at the rate since the first news, once that is one; until then, what the plan says of the work that remains.

        None when neither says anything: a preparation that takes longer than all of the stage was to take is not about to end.
        """
        if self.state != "running":
            return self.predicted if self.state == "waiting" else 0.0
        if self.first is not None:
            began, at_first = self.first
            gained, took = self.done - at_first, self.last - began
            if took >= RATE_SECONDS and gained >= RATE_SHARE * (self.total - at_first) > 0:
                return max(0.0, self.total - self.done) * took / gained
            return None if self.predicted is None else self.predicted * (1 - self.share)
        return None if self.predicted is None or self.predicted <= self.elapsed() else self.predicted - self.elapsed()


class Display(Watcher):
    """Keeps the rows; what shows them is a subclass. A context manager, so that the terminal is left as it was found."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.rows: dict[str, Row] = {}
        self.folder = Path()
        self.title = ""
        self.budget = 0.0
        self.began = time.monotonic()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        self.rows = {kind: Row(kind) for kind in kinds}
        self.folder, self.title, self.budget = folder, f"{recipe.name} in {folder}", recipe.budget_seconds

    def reused(self, kind: str, entry: Json) -> None:
        row = self.rows[kind]
        row.state, row.seconds, row.figures = "reused", entry["seconds"], figures_of(entry)
        self._predictions(self.folder / entry["folder"])

    def started(self, kind: str) -> None:
        row = self.rows[kind]
        row.state, row.began = "running", time.monotonic()

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        row = self.rows[kind]
        row.done, row.total = float(done), float(total)
        row.figures.update(figures)
        if row.first is None:
            row.first = (time.monotonic(), row.done)
        row.last = time.monotonic()

    def finished(self, kind: str, entry: Json, artifact: Artifact) -> None:
        row = self.rows[kind]
        row.state, row.seconds, row.figures = "made", entry["seconds"], figures_of(entry)
        self._predictions(artifact.path)

    def _predictions(self, folder: Path) -> None:
        if (folder / "plan.json").is_file():
            predicted = read_json(folder / "plan.json").get("predicted", {}).get("seconds", {})
            for kind, seconds in predicted.items():
                if kind in self.rows:
                    self.rows[kind].predicted = float(seconds)

    def left(self) -> float | None:
        """Seconds until the end; None until the plan is made."""
        parts = [row.left() for row in self.rows.values()]
        return None if any(part is None for part in parts) else sum(part for part in parts if part is not None)


def figures_of(entry: Json) -> dict[str, float | str]:
    """What the table shows of a finished stage."""
    facts, measured = entry.get("facts", {}), entry.get("measured", {})
    shown: dict[str, float | str] = {}
    if isinstance(rate := measured.get("tokens_per_second"), int | float):
        shown["tokens_per_second"] = float(rate)
    if isinstance(loss := facts.get("final_loss"), int | float):
        shown["loss"] = float(loss)
    return shown


def _number(figures: Mapping[str, Any], name: str, form: str) -> str:
    value = figures.get(name)
    return format(value, form) if isinstance(value, int | float) else ""


COLUMNS = ("stage", "", "tokens/s", "loss", "time", "left")
BAR_WIDTH, MADE_WIDTH, FULL_WIDTH = 24, 11, 60
"""Characters of the bar, of "made before" in its place, and of the table with the shortest bar."""
NARROWEST = {"stage": 0, "left": 0, "": 33, "loss": 41, "time": 50, "tokens/s": FULL_WIDTH}
"""Of a terminal, for each column: on a narrower one what matters least goes first."""


class LiveDisplay(Display):
    """One table that is redrawn in place: stage, bar, tokens per second, loss, time, time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=REFRESHES, transient=True)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        if self.live.is_started:
            self.live.stop()
            if error[0] is not None:  # how far it came; at a good end the report says more
                self.console.print(self.render())

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        super().begin(recipe, folder, kinds)
        self.live.start()

    def note(self, kind: str, text: str) -> None:
        self.console.print(Text(f"  {kind}: {harmless(text)}", style="yellow"))

    def render(self) -> RenderableType:
        """The table as it is now."""
        width = self.console.width
        shown = COLUMNS if width >= FULL_WIDTH else tuple(name for name in COLUMNS if width >= NARROWEST[name])
        bar = max(MADE_WIDTH, min(BAR_WIDTH, width - FULL_WIDTH + MADE_WIDTH))
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
        for name in shown:
            table.add_column(name, justify="left" if name in ("stage", "") else "right", no_wrap=True)
        for row in self.rows.values():
            cells = dict(zip(COLUMNS, self._cells(row, bar), strict=True))
            table.add_row(*(cells[name] for name in shown), style="dim" if row.state in ("waiting", "reused") else "")
        left = self.left()
        foot = Text(f"{clock(time.monotonic() - self.began)} of a budget of {say_seconds(self.budget)}", style="dim")
        if left is not None and left >= 1:
            foot.append(f" · about {clock(left)} left")
        return Group(Text(self.title, style="bold"), table, foot)

    def _cells(self, row: Row, width: int) -> list[RenderableType]:
        rate, loss = _number(row.figures, "tokens_per_second", ",.0f"), _number(row.figures, "loss", ".3f")
        if row.state == "running":
            left = row.left()
            bar = ProgressBar(total=1.0, completed=row.share, width=width, pulse=row.total <= 0)
            return [Text(f"> {row.kind}", style="bold"), bar, rate, loss, clock(row.elapsed()), "" if left is None else clock(left)]
        if row.state == "waiting":
            predicted = "" if row.predicted is None else clock(row.predicted)
            return [f"  {row.kind}", "", "", "", "", predicted]
        mark = Text.assemble(("✓ ", "green"), row.kind) if row.state == "made" else Text(f"✓ {row.kind}")
        return [mark, "made" if row.state == "made" else "made before", rate, loss, clock(row.seconds), ""]


class PlainDisplay(Display):
    """Lines for a file or a pipe: one when a stage ends, and one every few seconds while it goes on."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.last = 0.0

    def _say(self, text: str) -> None:
        print(harmless(text), file=sys.stderr, flush=True)

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        super().begin(recipe, folder, kinds)
        self._say(f"{self.title}, budget {say_seconds(self.budget)}: {', '.join(kinds)}")

    def reused(self, kind: str, entry: Json) -> None:
        super().reused(kind, entry)
        self._say(f"{kind:<10} made before ({say_seconds(entry['seconds'])})")

    def started(self, kind: str) -> None:
        super().started(kind)
        self.last = time.monotonic()

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        super().progress(kind, done, total, figures)
        if time.monotonic() - self.last < PLAIN_SECONDS:
            return
        self.last = time.monotonic()
        row = self.rows[kind]
        parts = [f"{row.share:4.0%}", *self._figures(row)]
        if (left := row.left()) is not None:
            parts.append(f"{clock(left)} left")
        self._say(f"{kind:<10} {'  '.join(parts)}")

    def note(self, kind: str, text: str) -> None:
        self._say(f"{kind:<10} {text}")

    def finished(self, kind: str, entry: Json, artifact: Artifact) -> None:
        super().finished(kind, entry, artifact)
        self._say(f"{kind:<10} {'  '.join([f'made in {say_seconds(self.rows[kind].seconds)}', *self._figures(self.rows[kind])])}")

    @staticmethod
    def _figures(row: Row) -> list[str]:
        rate, loss = _number(row.figures, "tokens_per_second", ",.0f"), _number(row.figures, "loss", ".3f")
        return [*([f"{rate} tokens/s"] if rate else []), *([f"loss {loss}"] if loss else [])]
