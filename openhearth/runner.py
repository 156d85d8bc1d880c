"""Walks the stages of a recipe: finds what is already made, makes the rest, and writes down what was done.

The idea: a stage's key is the digest of its settings, of its inputs and of its code, and its artifact lies under that key. What is
there and unchanged is never made again; what a kill interrupted is made or gone on with by the same command. A stage sees only the
artifacts that it says it needs, so the key covers all it reads.
"""

from __future__ import annotations

import errno
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from openhearth import run_folder
from openhearth.code_digest import code_digest
from openhearth.environment import environment, now
from openhearth.errors import DiskFullError, HearthError
from openhearth.inputs import read_small
from openhearth.ledger import (
    TELEMETRY,
    Artifact,
    Json,
    Ledger,
    digest_json,
    disk_error,
    open_artifact,
    read_json,
    require_space,
    seal,
    write_atomic,
    write_json,
)
from openhearth.recipe import Recipe
from openhearth.stage import Stage, Tell

PLAN_FORMAT = "openhearth-plan/1"
MAX_PLAN_BYTES = 1_000_000
MIN_FREE_BYTES = 300_000_000
"""Free disk without which no run is begun; stages that need more say so themselves."""
KEY_LENGTH = 12
"""Hex digits of a key in the name of its folder."""
NOTES = "stage.json"
"""Seconds and measurements of a stage, in its `telemetry/`: the ledger's line can be written from it after a kill."""


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


@dataclass(frozen=True)
class Result:
    """What a run left."""

    folder: Path
    recipe: Recipe
    made: dict[str, Artifact]
    """Every stage walked, by kind."""
    fresh: tuple[str, ...]
    """The stages that this call made; empty when there was nothing to do."""


class Stopped(HearthError):
    """Ended by Ctrl-C (130) or by SIGTERM (143)."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class _Terminated(KeyboardInterrupt):
    """SIGTERM: unwinds like Ctrl-C, so that no stage mistakes it for an error of its own."""


def run(
    recipe: Recipe | Path | str,
    folder: Path | str | None = None,
    *,
    until: str | None = None,
    text: Sequence[str] | None = None,
    plan: Path | str | Mapping[str, Any] | None = None,
    given: Mapping[str, Path] | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Make every stage of `recipe` (up to and with `until`) in `folder`, by default `runs/NAME`.

    `text` puts files and folders in the place of the recipe's corpus; `plan` is followed instead of measuring this machine; `given`
    names sealed artifacts from elsewhere that stand in for stages, by kind.
    Raises HearthError for whatever the user can mend, before anything is made where that is possible; raises Stopped on Ctrl-C and SIGTERM.
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if text is not None:
        recipe = recipe.with_text(text)
    kinds = recipe.up_to(until)
    followed = plan if plan is None or isinstance(plan, Mapping) else read_plan(Path(plan))
    resolved = recipe.resolved(followed)
    given = given or {}
    for kind in kinds:
        if kind not in given:
            resolved.stages[kind].preflight()
    place = Path(folder) if folder is not None else run_folder.RUNS / recipe.name
    walk = _Walk(recipe, resolved.stages, place, kinds, until, given, watcher or Watcher())
    try:
        with _sigterm_unwinds(), run_folder.opened(place):
            return walk.run()
    except KeyboardInterrupt as stop:
        status = 143 if isinstance(stop, _Terminated) else 130
        raise Stopped(f"stopped{walk.where()}; to go on, type the same command again", status) from None


def read_plan(path: Path) -> Mapping[str, Any]:
    """The content of a plan.json; raises HearthError for a file that is none."""
    import json

    try:
        content = json.loads(read_small(path, limit=MAX_PLAN_BYTES, what="plan", suffix=".json"))
    except (ValueError, RecursionError):
        raise HearthError(f"{path}: not JSON; --plan takes the plan.json of a run or of a release") from None
    if not isinstance(content, dict) or content.get("format") != PLAN_FORMAT:
        raise HearthError(f"{path}: not a plan (its format is not '{PLAN_FORMAT}'); --plan takes the plan.json of a run or of a release")
    return content


# -- the walk ---------------------------------------------------------------------------------------------------------------


@dataclass
class _Walk:
    recipe: Recipe
    """As it was written, options of the command line included: what it takes from the run stands with each stage's entry."""
    stages: Mapping[str, Stage]
    folder: Path
    kinds: tuple[str, ...]
    until: str | None
    given: Mapping[str, Path]
    watcher: Watcher
    made: dict[str, Artifact] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    now: str = ""
    begun: bool = False

    def run(self) -> Result:
        self.ledger = Ledger(self.folder / run_folder.LEDGER)
        self.entries = self.ledger.entries()
        self.watcher.begin(self.recipe, self.folder, self.kinds)
        for kind in self.kinds:
            if kind in self.given:
                self._take(kind, self.given[kind])
            else:
                self._stage(kind, self.stages[kind])
        if self.until is None and (not self.entries or self.entries[-1]["event"] != "done"):
            self._append("done", **done_facts(self.entries, self.made))
        if "release" in self.made and (release := self.made["release"].path / "release").is_dir():
            run_folder.link_model(self.folder, release)
        return Result(self.folder, self.recipe, self.made, tuple(self.fresh))

    def where(self) -> str:
        """' in [pretrain]' once the first stage is reached."""
        return f" in [{self.now}]" if self.now else ""

    def _take(self, kind: str, path: Path) -> None:
        """Use an artifact from elsewhere."""
        self.now = kind
        artifact = open_artifact(path)
        if artifact is None or artifact.stage != kind:
            raise HearthError(f"{path}: not the sealed artifact of a stage [{kind}]")
        artifact.check()
        self.made[kind] = artifact
        entry = latest_stages(self.entries).get(kind)
        if entry is None or entry["digest"] != artifact.digest:
            stands: Json = {"stage": kind, "config": {}, "inputs": {}, "code": "", "key": artifact.key, "digest": artifact.digest}
            notes: Json = {"facts": artifact.facts, "seconds": 0.0, "resumed": False, "measured": {}}
            entry = self._append("given", **stands, folder=str(path.resolve()), **notes)
        self.watcher.reused(kind, entry)

    def _stage(self, kind: str, stage: Stage) -> None:
        self.now = kind
        described: Json = {
            "stage": kind,
            "config": stage.model_dump(mode="json"),
            "inputs": {need: self.made[need].digest for need in stage.needs},
            "code": code_digest(type(stage)),
        }
        key = digest_json(described)
        final = self.folder / kind / key[:KEY_LENGTH]
        artifact = open_artifact(final)
        if artifact is None:
            self.made[kind] = self._make(stage, described, key, final)
            self.fresh.append(kind)
            return
        artifact.check()
        self.made[kind] = artifact
        self.watcher.reused(kind, self._reuse(described, artifact))

    def _reuse(self, described: Json, artifact: Artifact) -> Json:
        """The ledger's entry of an artifact that is there; written again when another one of its kind was used since."""
        ours = [entry for entry in self.entries if entry.get("key") == artifact.key]
        latest = latest_stages(self.entries).get(artifact.stage)
        if latest is not None and latest["key"] == artifact.key:
            return latest
        if ours:
            again = {name: value for name, value in ours[-1].items() if name not in ("event", "before")}
            return self._append("reuse", **again)
        notes = read_json(artifact.path / TELEMETRY / NOTES)  # sealed, and killed before the ledger's line was written
        return self._append("stage", **self._entry(described, artifact, notes))

    def _make(self, stage: Stage, described: Json, key: str, final: Path) -> Artifact:
        kind = stage.kind
        self._begin()
        self.watcher.started(kind)
        began = time.monotonic()
        needed = {need: self.made[need] for need in stage.needs}
        for artifact in needed.values():
            artifact.check()
        partial = final.with_name(final.name + ".partial")
        tell = _Tell(kind, self.watcher)
        try:
            if partial.exists() and not stage.resumes:
                shutil.rmtree(partial)
            partial.mkdir(parents=True, exist_ok=True)
            resumed = any(partial.iterdir())
            stage.run(needed, partial, tell)
            notes: Json = {"seconds": tell.seconds_since(began), "resumed": resumed, "measured": tell.measured}
            (partial / TELEMETRY).mkdir(exist_ok=True)
            write_json(partial / TELEMETRY / NOTES, notes)
            made = seal(partial, final, stage=kind, key=key, facts=tell.facts)
        except Exception as error:
            if isinstance(error, HearthError) and not stage.resumes:
                _discard(partial)
            if not isinstance(error, HearthError) and _is_disk_full(error):
                raise DiskFullError(str(disk_error(OSError(errno.ENOSPC, ""), partial))) from error
            raise
        notes["seconds"] = tell.seconds_since(began)
        entry = self._append("stage", **self._entry(described, made, notes))
        self.watcher.finished(kind, entry, made)
        return made

    def _entry(self, described: Json, artifact: Artifact, notes: Json) -> Json:
        folder = artifact.path.relative_to(self.folder).as_posix()
        return {**described, "key": artifact.key, "digest": artifact.digest, "folder": folder, "facts": artifact.facts, **notes}

    def _begin(self) -> None:
        """Before the first thing that is written: is there room, and what is this run?"""
        if self.begun:
            return
        require_space(self.folder, MIN_FREE_BYTES, "a run")
        self.begun = True
        write_atomic(self.folder / run_folder.RECIPE, self.recipe.toml().encode())
        recipe = {"recipe_digest": self.recipe.digest, "recipe": self.recipe.content(), "stages": list(self.recipe.kinds)}
        self._append("run", **recipe, until=self.until, first=self.now, environment=environment(), date=now())

    def _append(self, event: str, **fields: Any) -> Json:
        if event != "run":
            self._begin()
        entry = self.ledger.append(event, **fields)
        self.entries.append(entry)
        return entry


class _Tell:
    """What a stage says: progress and notes go to the watcher, facts and measurements are kept for the ledger."""

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

    def seconds_since(self, began: float) -> float:
        """Seconds of this process, and of killed ones before it as far as their work was kept."""
        return round(time.monotonic() - began + float(self.measured.get("seconds_before", 0.0)), 3)


_: type[Tell] = _Tell


# -- what the ledger says ---------------------------------------------------------------------------------------------------


def latest_stages(entries: Sequence[Json]) -> dict[str, Json]:
    """The entry of the artifact that was last made or used, by kind of stage."""
    return {entry["stage"]: entry for entry in entries if entry["event"] in ("stage", "reuse", "given")}


def done_facts(entries: Sequence[Json], made: Mapping[str, Artifact]) -> Json:
    """Seconds by stage, as predicted by the plan (None without one) and as measured, each with its total."""
    latest = latest_stages(entries)
    seconds: dict[str, float] = {kind: latest[kind]["seconds"] for kind in made}
    seconds["total"] = round(sum(seconds.values()), 3)
    predicted = None
    if "plan" in made and (made["plan"].path / "plan.json").is_file():
        predicted = read_json(made["plan"].path / "plan.json").get("predicted", {}).get("seconds")
    return {"seconds": seconds, "predicted": predicted}


# -- faults from outside ----------------------------------------------------------------------------------------------------


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """While inside, SIGTERM unwinds the stack as Ctrl-C does (only the main thread can ask for that)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_disk_full(error: BaseException) -> bool:
    """Also for libraries that hide the error number in their text."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (isinstance(error, OSError) and error.errno in full) or "No space left on device" in str(error)


def _discard(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        partial.parent.rmdir()
