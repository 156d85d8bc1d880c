"""Trained runs as arrays, read from their ledgers: what was spent, the loss on the way, and held-out bits per byte, text by text.

A name may be the folder of a run, a folder of runs (a setting of a sweep, with a run for each seed) or a pattern with `*`.
"""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth import run_folder
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json, Ledger, read_json
from openhearth.record import file_of, json_lines
from openhearth.runner import latest_stages

Floats = npt.NDArray[np.float64]

DEPTH = 3
"""Folders below the one that is named in which runs are looked for: a sweep, its settings, their seeds."""


@dataclass(frozen=True)
class Text:
    """Held-out text as one model read it: both arrays are (units of the bootstrap,)."""

    nats: Floats
    bytes: Floats
    unit: str
    """'document' or 'piece of a document'."""

    @property
    def units(self) -> str:
        """'documents' or 'pieces of documents'."""
        return self.unit.replace("piece", "pieces").replace("a document", "document") + "s"


@dataclass(frozen=True)
class Trained:
    """One run that is pretrained. Arrays are (steps,)."""

    folder: Path
    seed: int | None
    tokens: Floats
    """Seen after each step."""
    loss: Floats
    """Of each step's batch before the update, nats per token."""
    times: Floats | None
    """Seconds of training after each step; None where a step's time is not known."""
    flops: float
    """Of pretraining, by the planner's convention."""
    bytes_per_token: float | None
    """Of the training text, by which nats per token become bits per byte."""
    bits_per_byte: float | None
    """Of the base model on held-out text."""
    interval: tuple[float, float] | None
    """95 %, over documents."""
    text: Text | None
    heldout: tuple[Any, ...] | None
    """What tells one held-out text from another: corpus, bytes, seed."""
    corpus: str | None
    tokenizer: str | None
    code: str
    """Digest of the code that trained it."""
    machine: str

    @property
    def final_tokens(self) -> float:
        """Tokens of pretraining."""
        return float(self.tokens[-1])

    @property
    def seconds(self) -> float | None:
        """Of pretraining."""
        return None if self.times is None else float(self.times[-1])

    @property
    def final_loss(self) -> float:
        """Mean of the last 20 steps, nats per token."""
        return float(self.loss[-20:].mean())


def find(name: str) -> list[Path]:
    """The folders of runs that a name means, sorted. Raises HearthError when there is none."""
    if glob.has_magic(name) and not Path(name).exists():
        places = [Path(path) for path in sorted(glob.glob(name)) if Path(path).is_dir()]  # noqa: PTH207 (also absolute ones)
        if not places:
            raise HearthError(f"{name}: no folder has such a name")
        found = [run for place in places for run in _below(place)]
    else:
        place = Path(name) if Path(name).is_dir() else run_folder.RUNS / name
        found = _below(place) if place.is_dir() and not (place / run_folder.LEDGER).is_file() else [run_folder.find_run(name)]
    if not found:
        raise HearthError(f"{name}: no run in it is pretrained; make some with: hearth run, or hearth sweep")
    return found


def _below(place: Path, depth: int = DEPTH) -> list[Path]:
    """The folders of runs that have been pretrained, in `place` and in its folders."""
    if (place / run_folder.LEDGER).is_file():
        return [place] if "pretrain" in latest_stages(Ledger(place / run_folder.LEDGER).run_entries()) else []
    folders = sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink()) if depth else []
    return [run for folder in folders for run in _below(folder, depth - 1)]


def read(folder: Path) -> Trained:
    """One run. Raises HearthError when it is not pretrained, DamagedError when its files are not what they were."""
    path = folder / run_folder.LEDGER
    entries = Ledger(path).run_entries()
    latest = latest_stages(entries)
    if "pretrain" not in latest:
        raise HearthError(f"{folder}: nothing is trained here yet; make it with: hearth run")
    try:
        return _read(folder, entries, latest)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(
            f"{path}: an entry or a file of pretraining lacks {error}; it was not written by this version of hearth"
        ) from None


def _read(folder: Path, entries: Sequence[Json], latest: dict[str, Json]) -> Trained:
    entry, tokenizer = latest["pretrain"], latest.get("tokenizer", {})
    steps = json_lines(file_of(folder, entry, "steps.jsonl"))
    kept = [number for number, row in enumerate(steps) if row["loss"] is not None and math.isfinite(row["loss"])]
    if not kept:
        raise HearthError(f"{folder}: the steps of pretraining are not there (steps.jsonl); without them there is no curve")
    rows = json_lines(file_of(folder, entry, "telemetry/steps.jsonl"))
    times = np.cumsum([float(row["seconds"]) for row in rows])[kept] if len(rows) == len(steps) else None
    read = tokenizer.get("facts", {})
    figure, text, heldout = _heldout(folder, latest)
    begun = [one for one in entries if one["event"] == "run"]
    environment = begun[-1]["environment"] if begun else {}
    return Trained(
        folder=folder,
        seed=entry["config"].get("seed"),
        tokens=np.array([float(steps[number]["tokens"]) for number in kept]),
        loss=np.array([float(steps[number]["loss"]) for number in kept]),
        times=times,
        flops=float(entry["facts"]["flops"]),
        bytes_per_token=read["train_bytes"] / read["train_tokens"] if {"train_bytes", "train_tokens"} <= set(read) else None,
        bits_per_byte=figure[0] if figure else None,
        interval=(figure[1], figure[2]) if figure and figure[1] is not None else None,
        text=text,
        heldout=heldout,
        corpus=latest["corpus"]["digest"] if "corpus" in latest else None,
        tokenizer=entry["inputs"].get("tokenizer"),
        code=entry["code"],
        machine=f"{environment.get('cpu', '?')}, {environment.get('cores', '?')} cores",
    )


def _heldout(folder: Path, latest: dict[str, Json]) -> tuple[tuple[float, Any, Any] | None, Text | None, tuple[Any, ...] | None]:
    """Bits per byte with its interval, the figures text by text where they were kept, and which text it was."""
    judged = latest.get("measure") or latest.get("evaluate")
    if judged is None or judged["inputs"].get("pretrain") != latest["pretrain"]["digest"]:
        return None, None, None
    which = (judged["inputs"]["corpus"], judged["facts"]["bytes"], judged["config"]["seed"])
    if judged["stage"] == "evaluate":
        path = file_of(folder, judged, "evaluation.json")
        base = read_json(path)["bits_per_byte"]["base"] if path else {"value": judged["facts"]["bits_per_byte"]["base"]}
        return (base["value"], base.get("low"), base.get("high")), None, which
    figure = judged["facts"]["bits_per_byte"]
    path = file_of(folder, judged, "heldout.json")
    text = None
    if path is not None:
        kept = read_json(path)
        units = [row["unit"] for row in kept["texts"]]
        nats, sizes = (np.bincount(units, [float(row[name]) for row in kept["texts"]]) for name in ("nats", "bytes"))
        text = Text(nats.astype(np.float64), sizes.astype(np.float64), kept["interval_over"])
    return (figure["base"], figure.get("low"), figure.get("high")), text, which


def read_all(names: Sequence[str]) -> list[Trained]:
    """Every run that the names mean, each once."""
    return [read(folder) for folder in dict.fromkeys(itertools.chain.from_iterable(map(find, names)))]
