"""The proof of a release: make its weights again from its own record, and compare them bit for bit.

The recorded corpus is laid into a fresh folder as the sealed artifact that it was; the same stages run over it, following the
recorded plan; what each of them makes is compared with what the ledger says. A difference is led back to the first stage, step and
tensor, and shown beside what differs between the machine that made the release and this one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from openhearth import runner
from openhearth.code_digest import code_digest
from openhearth.errors import HearthError
from openhearth.ledger import Json, Ledger, open_artifact, read_json, require_space, write_json
from openhearth.recipe import Recipe
from openhearth.release import layout
from openhearth.release.compare import Difference, compare_documents, compare_stage, compare_weights, recorded_artifact
from openhearth.release.environment import differences, environment, planned_threads
from openhearth.release.manifest import read_manifest
from openhearth.release.verify import Report, verify

REMADE = ("tokenizer", "plan", "pretrain", "sft")
"""The stages that lead from the text to the weights."""
NOTE = "rebuild.json"


@dataclass
class Rebuilt:
    """What a rebuild found. `report` is the check of the release; when that fails nothing is rebuilt."""

    report: Report
    stages: dict[str, str] = field(default_factory=dict)
    """The digest of what each stage made now."""
    documents: list[str] = field(default_factory=list)
    """Documents that are not the recorded ones; then the rebuild ends there."""
    differences: list[Difference] = field(default_factory=list)
    weights: str | None = None
    """How the weights differ; None when every bit is equal."""
    changed_code: list[str] = field(default_factory=list)
    """Stages whose code is not the recorded one."""
    environment: list[str] = field(default_factory=list)
    """What differs between the recorded machine and this one."""

    @property
    def identical(self) -> bool:
        """Whether the weights were made again, bit for bit."""
        return self.report.ok and "sft" in self.stages and self.weights is None

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if not self.report.ok:
            return f"not verified: {self.report.fault}"
        if self.documents:
            more = f" (and {len(self.documents) - 1:,} more)" if len(self.documents) > 1 else ""
            return f"different text: {self.documents[0]}{more}"
        if self.identical and not self.differences:
            return f"bit-identical: {', '.join(REMADE)}"
        if self.identical:
            return f"bit-identical weights; beside them {self.differences[0]}"
        return f"different: {self.differences[0]}" + (f"; {self.weights}" if self.weights else "")


def rebuild(folder: Path, into: Path | None = None, text: Sequence[str] = (), watcher: runner.Watcher | None = None) -> Rebuilt:
    """Verify the release in `folder` and make its weights again, in `into` (kept, and gone on with after a kill) or in a passing folder.

    `text` stands in for the recorded text when the release holds none. Raises HearthError when the request cannot be followed.
    """
    result = Rebuilt(verify(folder))
    if not result.report.ok:
        return result
    release = result.report.folder
    recipe = Recipe.load(release / layout.RECIPE)
    if missing := [kind for kind in ("corpus", *REMADE) if kind not in recipe.stages]:
        raise HearthError(f"{release / layout.RECIPE}: has no stage [{missing[0]}]; this release cannot be made again")
    if text and has_text(release):
        raise HearthError(f"--text: {release} holds its own text; leave the option out")
    size = sum(entry.bytes for entry in read_manifest(release).files.values())
    with _workplace(folder, into, result.report.root) as place:
        require_space(place, 4 * size, "a rebuild")
        _make(release, recipe, place, text, watcher, result)
    result.environment = differences(read_json(release / layout.ENVIRONMENT), environment(planned_threads(release)))
    return result


def _make(release: Path, recipe: Recipe, place: Path, text: Sequence[str], watcher: runner.Watcher | None, result: Rebuilt) -> None:
    run = place / "run"
    plan = read_json(release / layout.PLAN)
    if has_text(release):
        given = {"corpus": lay_corpus(release, place / "corpus")}
    else:
        corpus = _corpus_again(recipe, run, text, watcher)
        result.documents = compare_documents(release, corpus)
        if result.documents:
            return
        given = {"corpus": corpus}
    made = runner.run(recipe, run, until="sft", plan=plan, given=given, watcher=watcher).made
    recorded = {entry["stage"]: entry for entry in Ledger(release / layout.LEDGER).entries() if "stage" in entry and "code" in entry}
    for kind in REMADE:
        result.stages[kind] = made[kind].digest
        if (difference := compare_stage(release, made[kind])) is not None:
            result.differences.append(difference)
        if kind in recorded and recorded[kind]["code"] != code_digest(type(recipe.stages[kind])):
            result.changed_code.append(kind)
    result.weights = compare_weights(release, made["sft"].path)


def lay_corpus(release: Path, place: Path) -> Path:
    """The recorded corpus as the sealed artifact that it was; returns its folder. What a killed rebuild left is used when it is whole."""
    record: Json = recorded_artifact(release, "corpus")
    copies = {copied.source: release / copied.target for copied in layout.COPIED if copied.kind == "corpus"}
    record["files"] = {name: entry for name, entry in record["files"].items() if name in copies}  # without telemetry
    try:
        if (there := open_artifact(place)) is not None and there.digest == record["digest"]:
            there.check()
            return place
    except HearthError:
        pass
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, source in copies.items():
        shutil.copyfile(source, place / name)
    write_json(place / "artifact.json", record)
    return place


def _corpus_again(recipe: Recipe, run: Path, text: Sequence[str], watcher: runner.Watcher | None) -> Path:
    """Make the corpus from the text on this machine."""
    try:
        return runner.run(recipe, run, until="corpus", text=list(text) or None, watcher=watcher).made["corpus"].path
    except runner.Stopped:
        raise
    except HearthError as error:
        raise HearthError(f"{error}; this release does not hold its text: give the same files with --text PATH") from None


def has_text(release: Path) -> bool:
    """Whether the release holds the texts of its documents."""
    import pyarrow.parquet as pq

    return "text" in pq.read_schema(release / layout.DOCUMENTS).names


@contextmanager
def _workplace(folder: Path, into: Path | None, root: str) -> Iterator[Path]:
    """The folder to work in: `into`, marked as a rebuild of this release, or one beside the release that passes."""
    if into is None:
        parent = folder.resolve().parent
        try:
            place = Path(tempfile.mkdtemp(prefix=".hearth-rebuild-", dir=parent))
        except OSError:
            place = Path(tempfile.mkdtemp(prefix="hearth-rebuild-"))
        try:
            yield place
        except runner.Stopped as stopped:
            raise runner.Stopped("stopped; nothing is kept: with --into DIR a rebuild can go on", stopped.exit_status) from None
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return
    try:
        into.mkdir(parents=True, exist_ok=True)
        inside = list(into.iterdir())
    except OSError as error:
        raise HearthError(f"--into {into}: cannot be used ({error.strerror}); choose another folder") from None
    if inside:
        note = read_json(into / NOTE) if (into / NOTE).is_file() else {}
        if not isinstance(note, dict) or note.get("root") != root:
            raise HearthError(f"--into {into}: is not empty and not a rebuild of this release; choose another folder")
    else:
        write_json(into / NOTE, {"root": root})
    yield into
