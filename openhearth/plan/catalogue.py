"""The catalogue of accelerators: dense peaks, memory, links, power and dated prices of each device, one row of a CSV per device.

The idea: every figure of a device is data with a source and a date, and a user's own file of the same columns adds rows or overrides cells
($OPENHEARTH_ACCELERATORS, else ~/.config/openhearth/accelerators.csv). Peaks are of dense matrices. The number on a data sheet is often
twice that, with half of one matrix zero; training multiplies dense ones, so such a number given as a peak is refused with the dense one.
"""

from __future__ import annotations

import csv
import functools
import io
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small
from openhearth.plan.quantities import count_and_device

TABLE = Path(__file__).with_name("tables") / "accelerators.csv"

GIB = 2**30
"""Bytes of a vendor's 'GB' of memory: an A100 of 80 GB has 81,920 MiB, an H100 81,559."""

PEAKS = {"bf16": "bf16_dense_tflops", "fp16": "fp16_dense_tflops", "fp8": "fp8_dense_tflops", "fp32": "tf32_or_fp32_tflops"}
NUMBERS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(PEAKS.values(), (0.001, 1e5)),
    "memory_GB": (0.1, 1e5),
    "mem_bw_TBps": (0.001, 1000),
    "tdp_W": (0.1, 1e5),
    "intranode_GBps_per_chip_bidir": (0.1, 1e5),
    "internode_Gbps_typical": (0.1, 1e5),
    "devices_per_node": (1, 4096),
    **dict.fromkeys(("usd_h_low", "usd_h_typ", "usd_h_high"), (0.001, 1e4)),
    "year": (1990, 2100),
}
TEXTS = ("id", "aliases", "name", "vendor", "price_date", "price_source", "spec_source", "cells_from_memory", "note")
DEFAULTS = {"mem_bw_TBps": 0.0, "intranode_GBps_per_chip_bidir": 32.0, "internode_Gbps_typical": 100.0, "devices_per_node": 8.0}
"""Where a row says nothing: links of PCIe 4 and of common Ethernet."""

SPARSE = (1.97, 2.03)
"""A given peak over the dense one, between which it is taken for the peak with 2:4 sparsity."""


@dataclass(frozen=True)
class Price:
    """USD per device and hour, seen in the market at `date`: the cheapest, the usual and the dearest offer."""

    low: float
    typical: float
    high: float
    date: str
    source: str


@dataclass(frozen=True)
class Device:
    """One accelerator. Peaks are dense FLOP/s by precision, memory is in bytes, speeds in bytes per second and one direction."""

    id: str
    name: str
    vendor: str
    year: int | None
    peaks: Mapping[str, float]
    memory_bytes: float
    memory_bandwidth: float
    """0 where it is not known."""
    watts: float | None
    """Thermal design power."""
    link: float
    """To the other devices of its node."""
    network: float
    """Of this device's share of the node's network."""
    devices_per_node: int
    price: Price | None = None
    aliases: tuple[str, ...] = ()
    spec_source: str = ""
    unverified: tuple[str, ...] = ()
    """Columns that were filled from memory; 'all' for a whole row."""
    note: str = ""
    questions: tuple[str, ...] = field(default=())
    """What looks wrong in a user's row, one sentence each."""
    origin: str = "catalogue"

    def peak(self, precision: str) -> float:
        """Dense FLOP/s in 'bf16', 'fp16', 'fp8' or 'fp32' ('bf16-mixed' is bf16). Raises HearthError where the device has no such units."""
        kind = precision.split("-")[0]
        if kind not in PEAKS:
            raise HearthError(f"precision '{precision}' is not known{nearest(kind, PEAKS)}; take {', '.join(PEAKS)}")
        if kind in self.peaks:
            return self.peaks[kind]
        others = [name for name in ("bf16", "fp16", "fp32") if name in self.peaks]
        if kind == "bf16":
            remedy = "take fp16, with loss scaling: --precision fp16" if "fp16" in self.peaks else f"take {others[0]}"
            raise HearthError(f"{self.name} has no bf16 units: a run in bf16 would fall back to fp32 speed; {remedy}")
        raise HearthError(f"the catalogue has no {kind} peak of {self.id}; it has {', '.join(self.peaks)}")

    def training_peak(self) -> tuple[str, float]:
        """The precision that training takes on this device, and its dense FLOP/s: bf16, else fp16, else fp32."""
        precision = next(name for name in ("bf16", "fp16", "fp32", "fp8") if name in self.peaks)
        return precision, self.peaks[precision]

    def with_peak(self, tflops: float, precision: str, what: str = "--peak") -> Device:
        """This device with another dense peak, in TFLOP/s. Raises HearthError for the sparse one, and for one out of all bounds."""
        if not 0.001 <= tflops <= 1e5:  # also for NaN
            raise HearthError(f"{what} {tflops}: TFLOP/s must lie between 0.001 and 100,000")
        kind = precision.split("-")[0]
        said = sparse(tflops * 1e12, kind, self)
        if said:
            raise HearthError(f"{what} {tflops:g}: {said}")
        known = self.peaks.get(kind)
        doubt = (
            () if known is None or 0.3 <= tflops * 1e12 / known <= 1.3 else (f"{what} {tflops:g} is far from {known / 1e12:g} in {kind}",)
        )
        return replace(self, peaks={**self.peaks, kind: tflops * 1e12}, questions=self.questions + doubt, origin=what)


def sparse(flops: float, precision: str, device: Device) -> str:
    """Why this peak looks like the one with sparsity, or ''."""
    dense = device.peaks.get(precision)
    if dense is None or not SPARSE[0] <= flops / dense <= SPARSE[1]:
        return ""
    also = " (and the dense peak of fp8)" if precision == "bf16" and abs(flops / device.peaks.get("fp8", math.inf) - 1) < 0.01 else ""
    return (
        f"twice the dense {precision} peak of {device.id}: that is the peak with 2:4 sparsity{also}, which training does not use; "
        f"write {dense / 1e12:g}"
    )


def device(name: str) -> Device:
    """The device of this id or alias. Raises HearthError with the nearest names."""
    found = find(name)
    if found is None:
        ids, names = _known()
        known = {**ids, **names}
        raise HearthError(f"device '{name}' is not in the catalogue{nearest(_plain(name), known)}; hearth plan hardware lists it")
    return found


def find(name: str) -> Device | None:
    """As `device`, and None for what is not known. Takes names as papers write them: 'A100 80GB', 'NVIDIA H100-SXM5-80GB', 'TPU v4'."""
    plain = _plain(name)
    known, names = _known()
    for candidate in (plain, plain.removesuffix("-gpu"), plain.replace("-", ""), plain.split("-(")[0]):
        if candidate in known:
            return known[candidate]
        if candidate in names:
            return known[names[candidate]]
    return None


def parse(text: str, what: str = "--on") -> tuple[int, Device]:
    """'2048xa100-80' as (2048, its Device). Raises HearthError."""
    count, name = count_and_device(text, what)
    return count, device(name)


def devices() -> Mapping[str, Device]:
    """All devices by id, the user's file included. Raises HearthError naming file and line of a bad row."""
    return _known()[0]


def _known() -> tuple[Mapping[str, Device], Mapping[str, str]]:
    """Devices by id, and ids by other names: read again when the user's file changes."""
    own = _own_file()
    stamp = 0.0
    if own is not None:
        try:
            stamp = own.stat().st_mtime
        except OSError:
            raise HearthError(f"{own}: no such file (named by $OPENHEARTH_ACCELERATORS)") from None
    return _catalogue(own, stamp)


def hardware(name: str | None = None) -> list[dict[str, Any]]:
    """The catalogue, or the one device of that name, as plain values, one dict a device; keys in docs/plan/hardware.md.

    Raises HearthError for an unknown device, with the nearest name.
    """
    return [
        {
            "id": each.id,
            "name": each.name,
            "aliases": list(each.aliases),
            "vendor": each.vendor,
            "year": each.year,
            "peak_tflops": {kind: peak / 1e12 for kind, peak in each.peaks.items()},
            "memory_bytes": each.memory_bytes,
            "memory_bandwidth": each.memory_bandwidth or None,
            "watts": each.watts,
            "link_bytes_per_second": each.link,
            "network_bytes_per_second": each.network,
            "devices_per_node": each.devices_per_node,
            "usd_per_hour": None if each.price is None else {"low": each.price.low, "typical": each.price.typical, "high": each.price.high},
            "price_date": None if each.price is None else each.price.date,
            "price_source": None if each.price is None else each.price.source,
            "spec_source": each.spec_source,
            "unverified": list(each.unverified),
            "note": each.note,
            "questions": list(each.questions),
            "origin": each.origin,
        }
        for each in (devices().values() if name is None else [device(name)])
    ]


accelerators = hardware
"""The other name of the command."""


def _own_file() -> Path | None:
    named = os.environ.get("OPENHEARTH_ACCELERATORS")
    if named:
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME")
    usual = (Path(folder) if folder else Path.home() / ".config") / "openhearth" / "accelerators.csv"
    return usual if usual.is_file() else None


@functools.lru_cache(maxsize=4)
def _catalogue(own: Path | None, stamp: float) -> tuple[dict[str, Device], dict[str, str]]:
    found = _devices(own)
    return found, _aliases(found.values())


def _devices(own: Path | None) -> dict[str, Device]:
    rows: dict[str, dict[str, str]] = {}
    for _, row in _read(TABLE.read_text("utf-8"), TABLE):
        rows[row["id"]] = row
    found = {id_: _device(row, "catalogue") for id_, row in rows.items()}
    if own is None:
        return found
    names = _aliases(found.values())
    built_in = dict(found)
    text = read_small(own, limit=1_000_000, what="catalogue of accelerators", suffix=".csv")
    for line, row in _read(text, own):
        id_ = names.get(row["id"], row["id"])
        where = f"{own}:{line}"
        if id_ in built_in:
            for kind, column in PEAKS.items():
                said = sparse(float(row[column]) * 1e12, kind, built_in[id_]) if row.get(column) else ""
                if said:
                    raise HearthError(f"{where}: {column} {row[column]}: {said}")
        merged = {**rows.get(id_, {}), **{key: value for key, value in row.items() if value}, "id": id_}
        if any(row.get(column) for column in ("usd_h_low", "usd_h_typ", "usd_h_high")):  # a price is one fact with its date
            merged |= {column: row.get(column, "") for column in ("usd_h_low", "usd_h_typ", "usd_h_high", "price_date")}
            merged["price_source"] = row.get("price_source") or str(own)
        questions = () if id_ in built_in else _questions(row, built_in.values())
        found[id_] = replace(_device(merged, where), questions=questions)
    return found


def _aliases(all_: Iterable[Device]) -> dict[str, str]:
    return {alias: each.id for each in all_ for alias in (*each.aliases, _plain(each.name))}


def _plain(name: str) -> str:
    """A name as an id: lower case, '-' for spaces, without the vendor and 'GB'."""
    words = re.sub(r"[\s_/]+", "-", name.strip().lower())
    words = re.sub(r"^(nvidia|amd|google|apple|intel|geforce|instinct|tesla|cloud)-", "", words)
    return re.sub(r"(\d)-?gi?b\b", r"\1", words)


def _read(text: str, path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells) of each row, checked: known columns, an id, numbers in bounds."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[int, dict[str, str]]] = []
    header: list[str] = []
    seen: dict[str, int] = {}
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                _check_header(header, f"{path}:{line}")
                continue
            if len(cells) > len(header):
                raise HearthError(f"{path}:{line}: {len(cells)} cells under {len(header)} columns; quote a cell that holds a comma")
            row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            _check_row(row, f"{path}:{line}")
            if row["id"] in seen:
                raise HearthError(f"{path}:{line}: '{row['id']}' stands in line {seen[row['id']]} already")
            seen[row["id"]] = line
            found.append((line, row))
    except csv.Error as error:
        raise HearthError(f"{path}:{reader.line_num}: not CSV ({error})") from None
    if not header:
        raise HearthError(f"{path}: is empty; it needs a line of column names with 'id' first")
    return found


def _check_header(header: list[str], where: str) -> None:
    known = (*TEXTS, *NUMBERS)
    for name in header:
        if name not in known:
            raise HearthError(f"{where}: column '{name}' is not known{nearest(name, known)}; the columns are {', '.join(known)}")
    if "id" not in header or len(set(header)) != len(header):
        raise HearthError(f"{where}: {'a column stands twice' if 'id' in header else 'there must be a column id'}")


def _check_row(row: dict[str, str], where: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", row.get("id", "")):
        raise HearthError(f"{where}: id '{row.get('id', '')}' must be lower-case letters, digits, '-' and '.', as in h100-sxm")
    for column, (low, high) in NUMBERS.items():
        text = row.get(column)
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            raise HearthError(f"{where}: {column} '{text}' is not a number") from None
        if not low <= value <= high:  # also for NaN
            raise HearthError(f"{where}: {column} {text} must lie between {low:g} and {high:g}")


def _device(row: Mapping[str, str], where: str) -> Device:
    def number(column: str) -> float | None:
        return float(row[column]) if row.get(column) else DEFAULTS.get(column)

    peaks = {kind: float(row[column]) * 1e12 for kind, column in PEAKS.items() if row.get(column)}
    memory = number("memory_GB")
    if not peaks:
        raise HearthError(f"{where}: {row['id']} is new and has no peak; give bf16_dense_tflops (or fp16, fp8, tf32_or_fp32)")
    if memory is None and where != "catalogue":
        raise HearthError(f"{where}: {row['id']} is new and has no memory_GB")
    typical = number("usd_h_typ") or number("usd_h_low") or number("usd_h_high")
    price = None
    if typical is not None:
        low, high = number("usd_h_low") or typical, number("usd_h_high") or typical
        if not low <= typical <= high:
            raise HearthError(f"{where}: prices of {row['id']} must rise: low {low:g}, typical {typical:g}, high {high:g}")
        price = Price(low, typical, high, row.get("price_date", "") or "undated", row.get("price_source", ""))
    year, link, network = number("year"), number("intranode_GBps_per_chip_bidir"), number("internode_Gbps_typical")
    assert link is not None and network is not None
    return Device(
        id=row["id"],
        name=row.get("name") or row["id"],
        vendor=row.get("vendor", ""),
        year=None if year is None else int(year),
        peaks=peaks,
        memory_bytes=(memory or 0.0) * GIB,
        memory_bandwidth=(number("mem_bw_TBps") or 0.0) * 1e12,
        watts=number("tdp_W"),
        link=link * 1e9 / 2,
        network=network * 1e9 / 8,
        devices_per_node=int(number("devices_per_node") or 8),
        price=price,
        aliases=tuple(row.get("aliases", "").split()),
        spec_source=row.get("spec_source", ""),
        unverified=tuple(row.get("cells_from_memory", "").split()),
        note=row.get("note", ""),
        origin=where,
    )


def _questions(row: Mapping[str, str], known: Collection[Device]) -> tuple[str, ...]:
    """A new device whose peak is twice a known one's is probably that device with sparsity, under another name."""
    text = row.get(PEAKS["bf16"]) or row.get(PEAKS["fp16"])
    if not text:
        return ()
    flops = float(text) * 1e12
    if any(abs(flops / peak - 1) < 0.01 for each in known for kind, peak in each.peaks.items() if kind in ("bf16", "fp16")):
        return ()
    near = [each for each in known if abs(flops / (2 * each.peaks.get("bf16", math.inf)) - 1) < 0.003]
    if not near:
        return ()
    return (f"{text} TFLOP/s is twice the dense peak of {near[0].id}: is it the peak with 2:4 sparsity? Dense is what training uses",)
