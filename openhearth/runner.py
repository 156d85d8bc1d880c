"""Walks the stages of a recipe: finds what is already made, makes the rest, and writes down what was done.

The idea: a stage's key is the digest of its settings, of its inputs and of its code, and its artifact lies under that key. What is
there and unchanged is never made again; what a kill interrupted is made or gone on with by the same command. A stage sees only the
artifacts that it says it needs, so the key covers all it reads.
"""

from __future__ import annotations

import errno
import os
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
from openhearth.energy import Meter, total_energy
from openhearth.environment import environment, now
from openhearth.errors import DiskFullError, HearthError, RecipeError
from openhearth.inputs import read_small
from openhearth.ledger import (
    STAGE_EVENTS,
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
from openhearth.stage import Stage
from openhearth.watch import Teller
from openhearth.watch import Watcher as Watcher

PLAN_FORMAT = "openhearth-plan/1"
MAX_PLAN_BYTES = 1_000_000
MIN_FREE_BYTES = 300_000_000
"""Free disk without which no run is begun; stages that need more say so themselves."""
KEY_LENGTH = 12
"""Hex digits of a key in the name of its folder."""
NOTES = "stage.json"
"""Facts, seconds and measurements of a stage, in its `telemetry/`; the last file to be written before the stage is sealed, so that
after a kill the seal and the ledger's line can follow from it."""


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
    """Ended by Ctrl-C (130), by SIGTERM (143) or by SIGHUP (129)."""

    def __init__(self, text: str, exit_status: int) -> None:
        super().__init__(text)
        self.exit_status = exit_status


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: unwinds like Ctrl-C, so that no stage mistakes it for an error of its own."""

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number


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
    Raises HearthError for whatever the user can mend, before anything is made where that is possible; raises Stopped on Ctrl-C, SIGTERM
    and SIGHUP.
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
            try:
                resolved.stages[kind].preflight()
            except HearthError as error:
                if kind != "corpus" or not recipe.text_where:
                    raise
                raise RecipeError(f"{recipe.text_where}: [corpus] text: {error}") from None
    place = Path(folder) if folder is not None else run_folder.RUNS / recipe.name
    walk = _Walk(recipe, resolved.stages, place, kinds, until, given, watcher or Watcher())
    try:
        with _signals_unwind(), run_folder.opened(place):
            return walk.run()
    except KeyboardInterrupt as stop:
        status = stop.exit_status if isinstance(stop, _Terminated) else 130
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
        self.entries = self.ledger.run_entries()
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
            "inputs": {need: self.made[need].digest for need in stage.required()},
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
        needed = {need: self.made[need] for need in stage.required()}
        for artifact in needed.values():
            artifact.check()
        partial = final.with_name(final.name + ".partial")
        try:
            for unfinished in partial.rglob(".*.tmp"):  # what a kill inside `write_atomic` left would be sealed as a file
                unfinished.unlink()
            notes = _read_notes(partial)  # a kill while it was being sealed: it only has to be sealed
            if notes is None:
                notes = self._work(stage, needed, partial, began)
            sealing = time.monotonic()
            made = seal(partial, final, stage=kind, key=key, facts=notes["facts"])
            notes = {**notes, "seconds": round(notes["seconds"] + time.monotonic() - sealing, 3)}
        except Exception as error:
            if isinstance(error, HearthError) and not stage.resumes:
                _discard(partial)
            if not isinstance(error, HearthError) and _is_disk_full(error):
                raise DiskFullError(str(disk_error(OSError(errno.ENOSPC, ""), partial))) from error
            raise
        entry = self._append("stage", **self._entry(described, made, notes))
        self.watcher.finished(kind, entry, made)
        return made

    def _work(self, stage: Stage, needed: Mapping[str, Artifact], partial: Path, began: float) -> Json:
        """Let the stage fill `partial`; gives its facts and measurements, which are written down last, when all else is on the disk."""
        if partial.exists() and not stage.resumes:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        resumed = any(partial.iterdir())
        tell = Teller(stage.kind, self.watcher)
        meter = Meter()
        stage.run(needed, partial, tell)
        energy = meter.read()
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        here = time.monotonic() - began
        seconds = round(here + float(tell.measured.get("seconds_before", 0.0)), 3)
        joules = round(energy.joules * seconds / max(here, 1e-9), 1)  # of a stage that was killed, as if the first part took as much power
        measured = {**tell.measured, "joules": joules, "energy": energy.source}
        notes = {"facts": tell.facts, "seconds": seconds, "resumed": resumed, "measured": measured}
        (partial / TELEMETRY).mkdir(exist_ok=True)
        write_json(partial / TELEMETRY / NOTES, notes)
        return notes

    def _entry(self, described: Json, artifact: Artifact, notes: Json) -> Json:
        folder = artifact.path.relative_to(self.folder).as_posix()
        return {**described, "key": artifact.key, "digest": artifact.digest, "folder": folder, **notes}

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


# -- what the ledger says ---------------------------------------------------------------------------------------------------


def latest_stages(entries: Sequence[Json]) -> dict[str, Json]:
    """The entry of the artifact that was last made or used, by kind of stage."""
    return {entry["stage"]: entry for entry in entries if entry["event"] in STAGE_EVENTS}


def done_facts(entries: Sequence[Json], made: Mapping[str, Artifact]) -> Json:
    """Seconds by stage, loss and energy, as predicted by the plan (None without one) and as measured, side by side."""
    latest = {kind: entry for kind, entry in latest_stages(entries).items() if kind in made}
    seconds: dict[str, float] = {kind: latest[kind]["seconds"] for kind in made}
    seconds["total"] = round(sum(seconds.values()), 3)
    predicted: Json = {}
    if "plan" in made and (made["plan"].path / "plan.json").is_file():
        predicted = read_json(made["plan"].path / "plan.json").get("predicted", {})
    evaluated = (latest.get("evaluate") or {}).get("facts", {}).get("bits_per_byte") or {}
    return {
        "seconds": seconds,
        "predicted": predicted.get("seconds"),
        "bits_per_byte": {"predicted": predicted.get("bits_per_byte"), "measured": evaluated.get("base")},
        "energy": {"predicted": predicted.get("energy"), "measured": total_energy(list(latest.values()))},
    }


# -- faults from outside ----------------------------------------------------------------------------------------------------


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP unwind the stack as Ctrl-C does (only the main thread can ask for that)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def unwind(number: int, frame: FrameType | None) -> None:
        raise _Terminated(number)

    # `nohup` has SIGHUP ignored: then it stays so
    wanted = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, unwind) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_disk_full(error: BaseException) -> bool:
    """Also for libraries that hide the error number in their text."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (isinstance(error, OSError) and error.errno in full) or "No space left on device" in str(error)


def _read_notes(partial: Path) -> Json | None:
    """What a stage left written down when its work was complete; None when it is not."""
    path = partial / TELEMETRY / NOTES
    notes = read_json(path) if path.is_file() else None
    return notes if isinstance(notes, dict) and {"facts", "seconds"} <= set(notes) else None


def _discard(partial: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        partial.parent.rmdir()
