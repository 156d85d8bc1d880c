"""Between a stage that works and whoever looks on: what a watcher may hear, and how a stage's words are kept for the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openhearth.ledger import Artifact, Json
from openhearth.recipe import Recipe


class Watcher:
    """Whoever looks on; every method may be overridden, none has to be."""

    def begin(self, recipe: Recipe, folder: Path, kinds: Sequence[str]) -> None:
        """The run is about to walk `kinds`."""

    def reused(self, kind: str, entry: Json) -> None:
        """A stage is already made."""

    def started(self, kind: str) -> None:
        """A stage is being made."""

    def progress(self, kind: str, done: float, total: float, figures: Mapping[str, float | str]) -> None:
        """News of the stage that is being made."""

    def note(self, kind: str, text: str) -> None:
        """A line that a person should read now."""

    def finished(self, kind: str, entry: Json, artifact: Artifact) -> None:
        """A stage is made and written down."""


class Teller:
    """The `Tell` of a stage: progress and notes go to the watcher, facts and measurements are kept for the ledger."""

    def __init__(self, kind: str, watcher: Watcher) -> None:
        self.kind, self.watcher = kind, watcher
        self.facts: Json = {}
        self.measured: Json = {}

    def progress(self, done: float, total: float, **figures: float | str) -> None:
        self.watcher.progress(self.kind, done, total, figures)

    def note(self, text: str) -> None:
        self.watcher.note(self.kind, text)

    def record(self, **facts: Any) -> None:
        self.facts.update(facts)

    def measure(self, **figures: Any) -> None:
        self.measured.update(figures)
