"""Runs to fit a law to, read from a table: parameters, tokens and loss, and whether they may stand together.

Columns are found by their names, as people write them ("Model Size", "n_params", "N"); what was read as what is kept, to be said.
Losses of different tokenizers or of different held-out text are not one law's data: they are refused, not averaged.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small
from openhearth.plan import quantities

LARGEST_FILE = 16_000_000
MOST_RUNS = 20_000
NATS, BITS = "nats per token", "bits per byte"

SYNONYMS: dict[str, tuple[str, ...]] = {
    "parameters": (
        "parameters", "params", "nparams", "nparameters", "numparams", "numparameters", "parametercount", "modelsize", "modelparameters",
        "n", "size",
    ),
    "tokens": (
        "tokens", "trainingtokens", "traintokens", "ntokens", "numtokens", "tokenstrained", "tokensseen", "tokencount", "d", "datasize",
        "datasetsize",
    ),
    "loss": (
        "loss", "valloss", "validationloss", "evalloss", "testloss", "heldoutloss", "finalloss", "finalvalloss", "crossentropy", "l", "nll",
        "bitsperbyte", "bpb", "natsperbyte", "natspertoken",
    ),
    "flops": ("flops", "flop", "compute", "trainingflops", "trainingflop", "trainflops", "computeflops", "flopcount", "c"),
    "unique_tokens": ("uniquetokens", "unique", "nuniquetokens", "datauniquetokens", "u"),
    "tokenizer": ("tokenizer", "tokeniser", "vocab", "tokenizername"),
    "dataset": (
        "dataset", "corpus", "train", "trainset", "trainingset", "traindata", "trainingdata", "valset", "validationset", "evalset",
        "testset", "heldouttext", "domain",
    ),
    "unit": ("unit", "lossunit", "units"),
    "name": ("name", "run", "runname", "model", "modelname", "id", "label"),
    "held_out": ("heldout", "holdout", "istest"),
}  # fmt: skip
"""Names of columns without case, spaces and signs; earlier ones win."""
REQUIRED = ("parameters", "tokens", "loss")
DIFFERENT_TOKENIZERS = "the runs have different tokenizers: their bits per byte compare, but their tokens are not the same amount of text"
UNITS = {"bitsperbyte": BITS, "bpb": BITS, "natsperbyte": "nats per byte"}


@dataclass(frozen=True)
class RunsTable:
    """Runs of one law: counts above zero, loss in one unit."""

    source: str
    parameters: list[float]
    tokens: list[float]
    loss: list[float]
    flops: list[float] | None = None
    unique_tokens: list[float] | None = None
    held_out: list[bool] | None = None
    """Runs that the table itself keeps out of the fit."""
    names: list[str] | None = None
    unit: str = NATS
    columns: dict[str, str] = field(default_factory=dict)
    """What was read as what."""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)


def plain(name: str) -> str:
    """'Model Size' and 'model_size' are one name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def read_table(path: Path, columns: Mapping[str, str] | None = None, where: Mapping[str, str] | None = None) -> RunsTable:
    """The runs of a CSV file. `columns` names columns that are not found by themselves, `where` takes rows with that value only.

    Raises HearthError, with the line, for what cannot be one law's data.
    """
    header, rows = _rows(path)
    found = _columns(path, header, columns or {})
    rows = _chosen(path, header, rows, where or {})
    if not rows:
        raise HearthError(f"{path}: no runs in it; a line for each run is needed below the header")
    if len(rows) > MOST_RUNS:
        raise HearthError(f"{path}: {len(rows):,} runs; at most {MOST_RUNS:,} are fitted")

    def cells(what: str) -> list[str] | None:
        return [row[found[what]].strip() for _, row in rows] if what in found else None

    def numbers(what: str) -> list[float] | None:
        return [_number(path, line, header[found[what]], row[found[what]]) for line, row in rows] if what in found else None

    for line, row in rows:
        if "," in (text := row[found["loss"]]):
            raise HearthError(f"{path}:{line}: {header[found['loss']]} {text.strip()[:40]}: a decimal comma; write a point")
    parameters, loss, flops, tokens = (numbers(what) for what in ("parameters", "loss", "flops", "tokens"))
    assert parameters is not None and loss is not None
    read = {what: header[place] for what, place in found.items()}
    if tokens is None:
        assert flops is not None
        tokens = [c / (6 * n) for c, n in zip(flops, parameters, strict=True)]
        read["tokens"] = f"{header[found['flops']]} / (6 x {header[found['parameters']]})"
    unique = numbers("unique_tokens")
    unit = _unit(path, header[found["loss"]], cells("unit"))
    notes = _together(path, header, found, rows, unit) + duplicates([f"line {line}" for line, _ in rows], parameters, tokens, loss, unique)
    kept_out = cells("held_out")
    return RunsTable(
        str(path), parameters, tokens, loss, flops, unique, None if kept_out is None else [_yes(cell) for cell in kept_out], cells("name"),
        unit, {what: read[what] for what in SYNONYMS if what in read}, notes,
    )  # fmt: skip


# -- pieces -----------------------------------------------------------------------------------------------------------------


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows with their line numbers."""
    text = read_small(path, limit=LARGEST_FILE, what="table of runs", suffix=".csv")
    first = text.lstrip().split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = [cell.strip() for cell in row]
                continue
            if len(row) != len(header):
                raise HearthError(f"{path}:{reader.line_num}: {len(row)} cells where the header has {len(header)}")
            rows.append((reader.line_num, row))
    except csv.Error as error:
        raise HearthError(f"{path}:{reader.line_num}: not a table ({error})") from None
    if not header:
        raise HearthError(f"{path}: empty; a header and a line for each run are needed")
    return header, rows


def _columns(path: Path, header: Sequence[str], asked: Mapping[str, str]) -> dict[str, int]:
    """Where each of our columns stands."""
    found: dict[str, int] = {}
    names = [plain(name) for name in header]
    for what, name in asked.items():
        if what not in SYNONYMS:
            raise HearthError(f"--column {what}={name}: unknown{nearest(what, SYNONYMS)}; columns are {', '.join(SYNONYMS)}")
        if name not in header:
            raise HearthError(f"--column {what}={name}: {path} has no such column{nearest(name, header)}; it has {_list(header)}")
        found[what] = header.index(name)
    for what, synonyms in SYNONYMS.items():
        if what not in found:
            known = [synonym for synonym in synonyms if synonym in names]
            if known:
                if names.count(known[0]) > 1:
                    raise HearthError(f"{path}: more than one column is called {header[names.index(known[0])]!r}; name it once")
                found[what] = names.index(known[0])
    if "loss" not in found:
        like = [name for name in header if "loss" in plain(name)]
        if len(like) == 1:
            found["loss"] = header.index(like[0])
        elif like:
            raise HearthError(f"{path}: {len(like)} columns could be the loss ({_list(like)}); say which with --column loss={like[0]}")
    for what in REQUIRED:
        if what not in found and not (what == "tokens" and "flops" in found):
            hint = " (or FLOPs)" if what == "tokens" else ""
            raise HearthError(f"{path}: no column of {what}{hint}; it has {_list(header)}; say which with --column {what}=NAME")
    return found


def _chosen(path: Path, header: Sequence[str], rows: list[tuple[int, list[str]]], where: Mapping[str, str]) -> list[tuple[int, list[str]]]:
    for name, value in where.items():
        if name not in header:
            raise HearthError(f"--where {name}={value}: {path} has no such column{nearest(name, header)}; it has {_list(header)}")
        place = header.index(name)
        values = {row[place].strip() for _, row in rows}
        rows = [(line, row) for line, row in rows if row[place].strip() == value]
        if not rows:
            raise HearthError(f"--where {name}={value}: no such rows in {path}{nearest(value, values)}; {name} is {_list(sorted(values))}")
    return rows


def _number(path: Path, line: int, column: str, text: str) -> float:
    """A finite number above zero, as people write it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and value > 0:
        return value
    if not text.strip():
        raise HearthError(f"{path}:{line}: {column}: empty; every run needs a number")
    try:
        return quantities.count(text, column)
    except HearthError as error:
        raise HearthError(f"{path}:{line}: {error}") from None


def _unit(path: Path, column: str, units: Sequence[str] | None) -> str:
    if units is not None:
        different = list(dict.fromkeys(units))
        if len(different) > 1:
            raise HearthError(f"{path}: losses in different units ({_list(different)}) are not one law's data; take one with --where")
        return different[0] or NATS
    return UNITS.get(plain(column), NATS)


def _together(
    path: Path, header: Sequence[str], found: Mapping[str, int], rows: Sequence[tuple[int, list[str]]], unit: str
) -> tuple[str, ...]:
    """Refuse what cannot be compared; gives notes on what can, with care."""

    def kinds(place: int) -> list[str]:
        return list(dict.fromkeys(row[place].strip() for _, row in rows))

    for place, name in enumerate(header):
        if place == found.get("dataset") or plain(name) in SYNONYMS["dataset"]:
            texts = kinds(place)
            if len(texts) > 1:
                raise HearthError(
                    f"{path}: runs on different text ({name} is {_list(texts)}) are not one law's data; "
                    f"take one with --where {name}={texts[0]}"
                )
    if "tokenizer" not in found or len(tokenizers := kinds(found["tokenizer"])) < 2:
        return ()
    if unit == NATS:
        bits = [column for column in header if UNITS.get(plain(column)) == BITS]
        instead = f"take --column loss={bits[0]}, which compares them" if bits else "give bits per byte"
        name = header[found["tokenizer"]]
        raise HearthError(
            f"{path}: losses per token of different tokenizers ({_list(tokenizers)}) cannot be compared; {instead}, "
            f"or one of them with --where {name}={tokenizers[0]}"
        )
    return (DIFFERENT_TOKENIZERS,)


def duplicates(names: Sequence[str], *columns: Sequence[float] | None) -> tuple[str, ...]:
    """A note on runs that are the same as an earlier one in every column."""
    seen: dict[tuple[float, ...], int] = {}
    again = [
        names[place]
        for place, row in enumerate(zip(*(column for column in columns if column is not None), strict=True))
        if seen.setdefault(row, place) != place
    ]
    if not again:
        return ()
    shown = ", ".join(again[:5]) + (f" and {len(again) - 5} more" if len(again) > 5 else "")
    return (f"{len(again)} run{'s are' if len(again) > 1 else ' is'} the same as an earlier one in every figure ({shown}); each counts",)


def _yes(cell: str) -> bool:
    return cell.lower() not in ("", "0", "0.0", "no", "false", "f", "n")


def _list(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 30 else name[:27] + "..." for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
