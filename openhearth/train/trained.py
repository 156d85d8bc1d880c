"""A model that is there already, with all that is needed to go on training it: weights, tokenizer, settings, and the text it has learned.

It is read from the folder of a run or from a release. Nothing is believed because it lies there: every file is followed back to the
artifact that the ledger names, and what the model was trained on must be what the ledger says it was. A run that continued a model holds
what it added; the rest is read from the run that it names, so that no text is ever copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import STAGE_EVENTS, TELEMETRY, Artifact, Json, Ledger, digest_file, digest_json, open_artifact, read_json
from openhearth.run_folder import LEDGER, find_run
from openhearth.train.plan_file import check_plan
from openhearth.train.pretrain import Pretrain
from openhearth.train.settings import Settings

if TYPE_CHECKING:
    import pyarrow

RELEASE_MANIFEST = "MANIFEST.json"
FROM_THE_TEXT = ("corpus", "tokenizer", "plan", "pretrain")
"""The stages that lead from text to a trained model."""


@dataclass(frozen=True)
class Learned:
    """A corpus that the model has seen: its documents (both sides), and the training side as tokens."""

    documents: Path
    shards: Path | None
    """None where only the text is there (a release): it is encoded again, and must give the tokens that were recorded."""
    recorded: Path | None = None
    """The manifest of those tokens."""


@dataclass(frozen=True)
class Trained:
    """A trained model and where everything about it lies."""

    name: str
    weights: Path
    """The folder of `model.safetensors` and `config.json`."""
    tokenizer: Path
    settings: Settings
    """As it was pretrained: peak rates, batch, schedule."""
    learned: tuple[Learned, ...]
    """Every corpus in the order in which it was learned."""
    checkpoints: Path
    """Where permanent checkpoints lie, if any were kept."""
    digest: str
    """Of the artifacts that it is made of."""
    tokens: int
    """That it was trained on in all."""
    tokens_per_second: float | None
    """As the ledger says of its training."""
    chat: bool
    """Whether the weights are those of a fine-tuned model: a release holds no others."""
    sealed: tuple[Artifact, ...]
    listed: Mapping[Path, str]
    """Files of a release and the sha256 that the sealed artifact gives them."""

    def check(self) -> None:
        """Read every file that is used; raises DamagedError naming the first that is not the one that was sealed."""
        for artifact in self.sealed:
            artifact.check()
        for path, sha256 in self.listed.items():
            if not path.is_file():
                raise DamagedError(f"{path}: missing; get the release again")
            if digest_file(path) != sha256:
                raise DamagedError(f"{path}: damaged (its sha256 is not the one that its stage sealed); get the release again")

    def trunk(self) -> Path:
        """The newest permanent checkpoint from before the learning rate fell. Raises HearthError when none was kept."""
        from openhearth.train.checkpoint import permanent_checkpoints, read_manifest

        usable = []
        for path in permanent_checkpoints(self.checkpoints):
            manifest = read_manifest(path)
            settings = manifest["config"]["settings"]
            if manifest["step"] <= (1 - settings["schedule"]["cooldown"]) * settings["steps"]:
                usable.append(path)
        if not usable:
            raise HearthError(
                f"{self.name}: keeps no checkpoint from before its learning rate fell; make it with --set pretrain.permanent_steps=N, "
                'or set continue.start = "model"'
            )
        return usable[-1]


def open_trained(name: str) -> Trained:
    """The model in the folder of a run (or its name below `runs/`) or in a release; raises HearthError, naming what to do, for others.

    Sizes and digests of files are looked at in `Trained.check`, not here.
    """
    if (Path(name) / RELEASE_MANIFEST).is_file():
        return _from_release(Path(name))
    folder = find_run(name)
    latest = _latest(folder)
    if "continue" in latest:
        return _continued(folder, latest)
    artifacts = {kind: _artifact(folder, latest, kind) for kind in FROM_THE_TEXT}
    trained = _described(name, latest, artifacts["plan"].path / "plan.json")
    corpus, tokenizer, pretrain = (artifacts[kind] for kind in ("corpus", "tokenizer", "pretrain"))
    return replace(
        trained,
        weights=pretrain.path,
        tokenizer=tokenizer.path,
        learned=(Learned(corpus.path / "documents.parquet", tokenizer.path / "train"),),
        checkpoints=pretrain.path / TELEMETRY / "checkpoints",
        sealed=tuple(artifacts.values()),
    )


def _from_release(folder: Path) -> Trained:
    """As a release keeps it: the weights are those that were fine-tuned, the tokens are made again from the text."""
    import pyarrow.parquet as pq

    latest = _latest(folder)
    trained = _described(str(folder), latest, folder / "plan.json")
    listed: dict[Path, str] = {}
    for kind, source, target in (
        ("sft", "model.safetensors", "model.safetensors"),
        ("sft", "config.json", "config.json"),
        ("tokenizer", "tokenizer.json", "tokenizer.json"),
        ("plan", "plan.json", "plan.json"),
        ("corpus", "documents.parquet", "data/documents.parquet"),
        ("tokenizer", "train/manifest.json", "data/train.json"),
    ):
        record = read_json(folder / "training" / kind / "artifact.json")
        if kind not in latest or record.get("digest") != latest[kind]["digest"] or source not in record.get("files", {}):
            raise DamagedError(f"{folder}/training/{kind}/artifact.json: not the artifact that {LEDGER} names; get the release again")
        listed[folder / target] = record["files"][source]["sha256"]
    documents = folder / "data" / "documents.parquet"
    try:
        with_text = "text" in pq.read_schema(documents).names
    except (OSError, ValueError) as error:
        raise DamagedError(f"{documents}: not readable as a table of documents ({error}); get the release again") from None
    if not with_text:
        raise HearthError(
            f"{folder}: this release does not hold the text that the model learned, so nothing of it can be replayed and forgetting cannot "
            "be measured; name the folder of the run that made it, or a release made with include_text = true"
        )
    learned = Learned(documents, None, folder / "data" / "train.json")
    checkpoints = folder / TELEMETRY / "checkpoints"  # a release keeps none
    return replace(
        trained, weights=folder, tokenizer=folder, learned=(learned,), checkpoints=checkpoints, chat=True, listed=listed,
        digest=digest_json([trained.digest, latest["sft"]["digest"]]),
    )  # fmt: skip


def _continued(folder: Path, latest: Mapping[str, Json]) -> Trained:
    """A run that continued another model: its weights, and the text of both."""
    entry = latest["continue"]
    before = open_trained(entry["config"]["model"])
    if before.digest != entry["config"]["fingerprint"]:
        raise HearthError(
            f"{entry['config']['model']}: not the model any more that {folder} was continued from, so what it learned is not known; "
            f"put the earlier one back, or make {folder} again: hearth run {folder}/recipe.toml --dir {folder}"
        )
    artifact, corpus = _artifact(folder, latest, "continue"), _artifact(folder, latest, "corpus")
    return replace(
        before,
        name=str(folder),
        weights=artifact.path,
        learned=(*before.learned, Learned(corpus.path / "documents.parquet", artifact.path / "train")),
        checkpoints=artifact.path / TELEMETRY / "checkpoints",
        digest=digest_json([before.digest, artifact.digest]),
        tokens=before.tokens + int(entry["facts"]["tokens"]),
        chat=False,
        sealed=(*before.sealed, artifact, corpus),
    )


def _latest(folder: Path) -> dict[str, Json]:
    """The ledger's last entry on each stage, each made from what the others name."""
    latest = {entry["stage"]: entry for entry in Ledger(folder / LEDGER).run_entries() if entry["event"] in STAGE_EVENTS}
    wanted = ("corpus", "continue") if "continue" in latest else FROM_THE_TEXT
    for kind in wanted:
        if kind not in latest:
            raise HearthError(
                f"{folder}: holds no trained model yet (nothing of the stage [{kind}]); go on with: hearth run, then continue it"
            )
        for need, digest in latest[kind].get("inputs", {}).items():
            if need in latest and latest[need]["digest"] != digest:
                raise HearthError(
                    f"{folder}: its [{kind}] was made with another {need} than the one there now ({digest[:8]}, not "
                    f"{latest[need]['digest'][:8]}); finish that run with: hearth run"
                )
    return latest


def _artifact(folder: Path, latest: Mapping[str, Json], kind: str) -> Artifact:
    entry = latest[kind]
    artifact = open_artifact(folder / entry["folder"])
    if artifact is None or artifact.digest != entry["digest"]:
        raise DamagedError(
            f"{folder / entry['folder']}: not the artifact that {LEDGER} names; make it again with: hearth run, then continue it"
        )
    return artifact


def _described(name: str, latest: Mapping[str, Json], plan_file: Path) -> Trained:
    """What the plan and the ledger say of the training; places are filled in by the caller."""
    entry = latest["pretrain"]
    plan = check_plan(read_json(plan_file), str(plan_file))
    try:
        settings = Pretrain.model_validate(entry["config"], strict=False).settings(plan)
        tokens = int(entry["facts"]["tokens"])
    except (ValidationError, KeyError, TypeError, ValueError):
        raise DamagedError(f"{name}: {LEDGER} describes pretraining in a way that this version of hearth does not know") from None
    nowhere = Path()
    return Trained(
        name=name, weights=nowhere, tokenizer=nowhere, settings=settings, learned=(), checkpoints=nowhere,
        digest=digest_json([latest[kind]["digest"] for kind in FROM_THE_TEXT]), tokens=tokens,
        tokens_per_second=entry.get("measured", {}).get("tokens_per_second"), chat=False, sealed=(), listed={},
    )  # fmt: skip


def documents(paths: Sequence[Path], split: Literal["train", "heldout"], columns: Sequence[str]) -> pyarrow.Table:
    """The rows of one side of several corpora, one after the other; raises DamagedError naming the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables: list[Any] = []
    for path in paths:
        try:
            tables.append(pq.read_table(path, columns=[*columns], filters=[("split", "==", split)]))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DamagedError(f"{path}: not readable as the documents of a corpus ({str(error).splitlines()[0]})") from None
    return pa.concat_tables(tables)


def digests(paths: Sequence[Path], split: Literal["train", "heldout"]) -> frozenset[str]:
    """The sha256 of every document of one side of several corpora."""
    return frozenset(documents(paths, split, ["sha256"])["sha256"].to_pylist())
