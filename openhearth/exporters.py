"""A run as it goes on, sent to the board that a team already looks at: `hearth run --log tensorboard|wandb|trackio`.

The ledger stays the record; a board is a window on it. What a board refuses costs the run nothing: it is said once, and training goes on.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from openhearth.errors import HearthError, nearest
from openhearth.ledger import Artifact, Json
from openhearth.recipe import Recipe
from openhearth.watch import Watcher


class Board(Protocol):
    """Where figures go, by name and step."""

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Scalars of one step."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        library: Any = importlib.import_module("torch.utils.tensorboard")
        self.writer = library.SummaryWriter(str(folder / "tensorboard"))

    def write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Tracker:
    """wandb or trackio, whose calls are the same; where it sends to, and the key, are that library's own settings."""

    def __init__(self, library: str, recipe: Recipe, folder: Path) -> None:
        where = {"dir": str(folder)} if library == "wandb" else {}  # trackio keeps to its own folder
        self.run: Any = importlib.import_module(library).init(
            project="openhearth", name=recipe.name, config={"recipe": recipe.toml(), "folder": str(folder)}, **where
        )

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()


BOARDS = ("tensorboard", "wandb", "trackio")
"""What --log takes: the names of libraries."""


def check(names: Sequence[str]) -> None:
    """Raise HearthError for a board that is unknown or not installed, before anything is made."""
    for name in names:
        if name not in BOARDS:
            raise HearthError(f"--log {name}: no such board{nearest(name, BOARDS)}; there are {', '.join(BOARDS)}")
        try:
            importlib.import_module(name)
        except ImportError:
            raise HearthError(f"--log {name} needs {name}, which is not installed: pip install {name}") from None


class Exporter(Watcher):
    """Sends on what it hears: scalars of progress as STAGE/NAME against the stage's own step, and facts when a stage is made."""

    def __init__(self, name: str, watcher: Watcher) -> None:
        self.name, self.watcher = name, watcher
        self.board: Board | None = None
        self.refused = False
        self.at: dict[str, int] = {}
        self.step = 0

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        self.recipe, self.folder = recipe, folder

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        numbers = {name: float(value) for name, value in figures.items() if not isinstance(value, str) and name != "step"}
        step = int(figures.get("step", done))
        if numbers and step != self.at.get(kind):
            self.at[kind] = step
            self._write(kind, numbers)

    def finished(self, kind: str, entry: Json, artifact: Artifact) -> None:
        figures = {**entry.get("facts", {}), **entry.get("measured", {}), "seconds": entry["seconds"]}
        self._write(kind, {f"made/{name}": float(value) for name, value in figures.items() if isinstance(value, int | float)})

    def _write(self, kind: str, figures: Mapping[str, float]) -> None:
        if self.refused:
            return
        # trackers want one step that rises through the whole run; TensorBoard keeps one for each curve
        self.step += 1
        step = self.at.get(kind, 0) if self.name == "tensorboard" else self.step
        try:
            if self.board is None:
                self.board = (
                    TensorBoard(self.recipe, self.folder) if self.name == "tensorboard" else Tracker(self.name, self.recipe, self.folder)
                )
            self.board.write({f"{kind}/{name}": value for name, value in figures.items()}, step)
        except Exception as error:  # whatever a library raises when a server, a key or a disk fails
            self._failed(kind, error)

    def _failed(self, kind: str, error: Exception) -> None:
        self.refused = True
        self.watcher.note(
            kind, f"--log {self.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}; the run goes on without"
        )

    def close(self) -> None:
        """Write out what is buffered."""
        board, self.board = self.board, None
        if board is not None:
            try:
                board.close()
            except Exception as error:
                self._failed("run", error)


class Several(Watcher):
    """Several watchers that all hear the same."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = watchers

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        for each in self.watchers:
            each.begin(recipe, folder, kinds)

    def reused(self, kind: str, entry: Json) -> None:
        for each in self.watchers:
            each.reused(kind, entry)

    def started(self, kind: str) -> None:
        for each in self.watchers:
            each.started(kind)

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        for each in self.watchers:
            each.progress(kind, done, total, figures)

    def note(self, kind: str, text: str) -> None:
        for each in self.watchers:
            each.note(kind, text)

    def finished(self, kind: str, entry: Json, artifact: Artifact) -> None:
        for each in self.watchers:
            each.finished(kind, entry, artifact)
