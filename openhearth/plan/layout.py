"""The layout of a run over devices: every way to cut it is counted, those that fit in memory are timed, the fastest is taken.

Memory, traffic and time take arrays, so that the search is brute force: some thousand layouts in a few hundredths of a second. What is said
about the choice comes from the same table: each choice (tensor ranks, pipeline stages, recomputation, sharding) is undone on its own, and
the best layout without it either does not fit, by so much, or is slower, by so much.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openhearth.errors import HearthError, nearest
from openhearth.plan import speed
from openhearth.plan.catalogue import GIB, Device
from openhearth.plan.memory import FIT_LIMIT, RECOMPUTE, SHARDINGS, Layout, Memory, check, memory
from openhearth.plan.quantities import say
from openhearth.plan.shapes import Shape

Array = NDArray[Any]

SHARDINGS_TRIED = ("none", "zero1", "zero3")
"""ZeRO-2 sends what ZeRO-1 sends and is left out: with a pipeline it saves nothing."""
RECOMPUTE_TRIED = ("none", "operations", "full")
NUMBERS = ("tensor", "pipeline", "context", "expert", "micro_batch", "chunks")
CLOSE = 1.08
"""Layouts within 8 % of the fastest are as good: one prediction in seven is further off. The simplest of them is taken."""
COMPLEXITY = {"zero3": 0.5, "operations": 1.0, "full": 1.5, "tensor": 2.0, "expert": 2.0, "context": 3.0, "pipeline": 3.5, "chunks": 0.5}
"""What each choice costs whoever has to run it, in the order in which the field makes them (torchtitan, the Llama 3 paper, Narayanan et al.
2021): sharded data parallelism, recomputation, tensor ranks within a node, then pipelines, which also want many micro-batches."""
LONG_SEQUENCE = 16384
"""Tokens of a sequence up to which it stays in one piece: nobody publishes a run that cuts shorter ones."""
SHORTEST_CONTEXT = 8192
"""Tokens of a longer sequence per rank, below which cutting it further is not tried (Llama 3: 131,072 over 16)."""
NAMES = {
    "dp": "data", "tp": "tensor", "pp": "pipeline", "cp": "context", "ep": "expert", "mb": "micro_batch", "mbs": "micro_batch",
    "vp": "chunks", "zero": "sharding", "ac": "recompute", "sp": "sequence_parallel",
}  # fmt: skip


@dataclass(frozen=True)
class Rejected:
    """A layout that does not fit, or is slower."""

    layout: Layout
    why: str
    bytes: float
    """On the fullest device."""
    seconds: float
    """Of a step, if it fitted."""


@dataclass(frozen=True)
class Choice:
    """The layout of a run, with what it takes and why it was taken."""

    layout: Layout
    micro_batches: int
    memory: Memory
    limit: float
    """Bytes of a device that a plan may fill."""
    step: speed.Step
    reasons: tuple[str, ...]
    rejected: tuple[Rejected, ...]
    """The best layouts without each choice that was made."""
    too_large: tuple[Rejected, ...]
    """Layouts that do not fit: the plainest, the nearest, the fastest."""
    tried: int
    fitting: int

    @property
    def fits(self) -> bool:
        """Whether it does: only a layout that the user gave may not."""
        return bool(self.memory.total <= self.limit)


@dataclass(frozen=True)
class _Table:
    """Layouts as arrays, one entry each."""

    sharding: Array
    recompute: Array
    numbers: Mapping[str, Array]
    data: Array
    micro_batches: Array
    held: Memory
    step: speed.Step
    bytes: Array
    """Of the fullest device."""
    seconds: Array

    def layout(self, i: int) -> Layout:
        """One of them."""
        numbers = {name: int(values[i]) for name, values in self.numbers.items()}
        return Layout(
            data=int(self.data[i]),
            sharding=str(self.sharding[i]),
            recompute=str(self.recompute[i]),
            sequence_parallel=numbers["tensor"] > 1,
            **numbers,
        )


def choose(
    shape: Shape,
    device: Device,
    devices: int,
    *,
    sequence_length: int,
    batch_tokens: float,
    precision: str = "bf16-mixed",
    optimizer: str = "adamw",
    loss: str = "chunked",
    fixed: Mapping[str, Any] | None = None,
    reasons: bool = True,
) -> Choice:
    """The fastest layout of `devices` that fits 0.9 of their memory, for batches of `batch_tokens`.

    `fixed`: choices that the user made (`parse`); if they are all made, the layout is taken whether it fits or not. Raises HearthError
    where nothing fits, saying how much is missing and how many devices would do.
    """
    fixed = fixed or {}
    if not device.memory_bytes:
        raise HearthError(
            f"the catalogue has no memory of {device.id}; give memory_GB in a row of your own (hearth plan hardware says where)"
        )
    sequences = max(1, round(batch_tokens / sequence_length))
    limit = FIT_LIMIT * device.memory_bytes
    table = _table(shape, device, devices, sequence_length, sequences, precision, optimizer, loss, fixed)
    if table is None:
        raise HearthError(_impossible(shape, devices, sequences, fixed))
    fits = table.bytes <= limit
    complete = {"tensor", "pipeline", "sharding", "recompute", "micro_batch"} <= set(fixed)
    if not fits.any() and not complete:
        least = int(np.argmin(table.bytes))
        raise HearthError(
            f"does not fit on {devices:,} x {device.id}: the leanest layout ({describe(table.layout(least))}) needs "
            f"{_gib(table.bytes[least])} a device, of which {_gib(limit)} may be filled"
            + _enough(shape, device, devices, sequence_length, sequences, precision, optimizer, loss, fixed)
        )
    best = _best(table, fits if fits.any() else np.ones_like(fits))
    layout, micro_batches = table.layout(best), int(table.micro_batches[best])
    step = _of_batch(table.step.at(best), shape, sequences * sequence_length, sequence_length)
    held = table.held.at(best)
    undone = _undone(table, best, fits, limit) if reasons else []
    large = _too_large(table, best, fits) if reasons else []
    return Choice(
        layout=layout,
        micro_batches=micro_batches,
        memory=held,
        limit=limit,
        step=step,
        reasons=tuple(_reasons(table, best, fits, undone, float(held.total), limit, step)) if reasons else (),
        rejected=tuple(undone),
        too_large=tuple(large),
        tried=int(table.data.size),
        fitting=int(fits.sum()),
    )


def parse(text: str) -> dict[str, Any]:
    """'dp=256,tp=8,sharding=zero1,recompute=full' as fields of a `Layout`. Raises HearthError naming the part that is wrong."""
    known = ("data", *NUMBERS, "sharding", "recompute")
    found: dict[str, Any] = {}
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        name, sign, value = (piece.strip().lower() for piece in part.partition("="))
        name = NAMES.get(name, name)
        if name not in known or not sign:
            raise HearthError(
                f"--layout {part}: not a choice{nearest(name, known)}; write dp=, tp=, pp=, cp=, ep=, mb=, sharding=, recompute="
            )
        if name in found:
            raise HearthError(f"--layout: {name} is given twice")
        if name in ("sharding", "recompute"):
            value = f"zero{value}" if name == "sharding" and value in "0123" and value else value
            value = {"zero0": "none", "fsdp": "zero3"}.get(value, value)
            allowed: Sequence[str] = tuple(SHARDINGS) if name == "sharding" else RECOMPUTE
            if value not in allowed:
                raise HearthError(f"--layout {part}: must be one of {', '.join(allowed)}")
            found[name] = value
        elif not re.fullmatch(r"[1-9]\d{0,6}", value):
            raise HearthError(f"--layout {part}: must be a whole number of at least 1")
        else:
            found[name] = int(value)
    if not found:
        raise HearthError("--layout: is empty; write it as dp=256,tp=8")
    return found


def describe(layout: Layout) -> str:
    """'data 256 x tensor 8, ZeRO-1, full recomputation, micro-batch 2'."""
    ways = [f"{name} {value}" for name in ("data", "tensor", "pipeline", "context") if (value := getattr(layout, name)) > 1]
    parts = [" x ".join(ways) or "one device"]
    if layout.expert > 1:
        parts.append(f"expert {layout.expert}")
    if layout.sharding != "none":
        parts.append({"zero1": "ZeRO-1", "zero2": "ZeRO-2"}.get(layout.sharding, "ZeRO-3 (FSDP)"))
    if layout.chunks > 1:
        parts.append(f"{layout.chunks} chunks a stage")
    parts.append(
        {"none": "no recomputation", "operations": "selective recomputation"}.get(layout.recompute, f"{layout.recompute} recomputation")
    )
    parts.append(f"micro-batch {layout.micro_batch}")
    return ", ".join(parts)


def short(layout: Layout) -> str:
    """'dp 8 tp 2 pp 4, ZeRO-1, recompute full, mb 1'."""
    values = {"dp": layout.data, "tp": layout.tensor, "pp": layout.pipeline, "cp": layout.context}
    ways = [f"{name} {value}" for name, value in values.items() if value > 1]
    parts = [" ".join(ways) or "one device"]
    if layout.expert > 1:
        parts.append(f"ep {layout.expert}")
    if layout.sharding != "none":
        parts.append(layout.sharding.replace("zero", "ZeRO-"))
    if layout.recompute != "none":
        parts.append(f"recompute {'selective' if layout.recompute == 'operations' else layout.recompute}")
    return ", ".join([*parts, f"mb {layout.micro_batch}"])


# -- the table ---------------------------------------------------------------------------------------------------------------------


def _table(
    shape: Shape,
    device: Device,
    devices: int,
    sequence_length: int,
    sequences: int,
    precision: str,
    optimizer: str,
    loss: str,
    fixed: Mapping[str, Any],
) -> _Table | None:
    """All layouts that can be laid, with bytes of the fullest device and seconds of a step; None where there are none."""
    numbers = _numbers(shape, device, devices, sequence_length, sequences, fixed)
    tried = {"sharding": SHARDINGS_TRIED, "recompute": RECOMPUTE_TRIED}
    ways = list(itertools.product(*((fixed[name],) if name in fixed else names for name, names in tried.items())))
    data = np.tile(devices // (numbers["tensor"] * numbers["pipeline"] * numbers["context"]), len(ways))
    numbers = {name: np.tile(values, len(ways)) for name, values in numbers.items()}
    sharding, recompute = (np.repeat(names, len(data) // len(ways)) for names in zip(*ways, strict=True))
    if "sharding" not in fixed:
        keep = (data * numbers["context"] > 1) != (sharding == "none")
        numbers = {name: values[keep] for name, values in numbers.items()}
        data, sharding, recompute = data[keep], sharding[keep], recompute[keep]
    if not data.size:
        return None
    layout = Layout(data=data, sharding=sharding, recompute=recompute, sequence_parallel=True, **numbers)
    many = -(-sequences // (data * numbers["micro_batch"]))
    held = memory(shape, layout, sequence_length=sequence_length, precision=precision, optimizer=optimizer, loss=loss, micro_batches=many)
    took = speed.step(shape, device, layout, sequence_length=sequence_length, micro_batches=many, precision=precision)
    return _Table(sharding, recompute, numbers, data, many, held, took, held.total, took.total)


def _numbers(
    shape: Shape, device: Device, devices: int, sequence_length: int, sequences: int, fixed: Mapping[str, Any]
) -> dict[str, Array]:
    """Every combination that divides the devices, the heads, the experts and the batch."""
    powers = [2**i for i in range(11)]
    experts = shape.experts.count if shape.experts else 1
    longest = sequence_length // SHORTEST_CONTEXT if sequence_length > LONG_SEQUENCE else 1
    options = {
        "tensor": [n for n in range(1, device.devices_per_node + 1) if shape.num_heads % n == 0 and (n in powers or n % 8 == 0)],
        "pipeline": [n for n in range(1, min(shape.num_layers, 128) + 1) if devices % n == 0],
        "context": [n for n in powers if n <= longest],
        "expert": [n for n in powers if experts % n == 0 and n <= 64],
        "micro_batch": [n for n in powers if n <= 64],
        "chunks": [1, 2, 4, 8],
    }
    options |= {name: [fixed[name]] for name in NUMBERS if name in fixed}
    grid = np.meshgrid(*(np.array(options[name]) for name in NUMBERS), indexing="ij")
    found = {name: each.ravel() for name, each in zip(NUMBERS, grid, strict=True)}
    ways = found["tensor"] * found["pipeline"] * found["context"]
    data = devices // ways
    keep = (
        (ways * data == devices)
        & (data >= 1)
        & (data * found["micro_batch"] <= sequences)
        & (shape.num_heads % found["tensor"] == 0)
        & (sequence_length % found["context"] == 0)
        & (experts % found["expert"] == 0)
        & (np.maximum(data, 1) * found["context"] % found["expert"] == 0)
        & (found["pipeline"] * found["chunks"] <= shape.num_layers)
        & ((found["pipeline"] > 1) | (found["chunks"] == 1))
    )
    if "data" in fixed:
        keep &= data == fixed["data"]
    return {name: values[keep] for name, values in found.items()}


def _of_batch(step: speed.Step, shape: Shape, tokens: int, sequence_length: int) -> speed.Step:
    """The step as one of the batch that was asked for: where ranks and micro-batches do not divide it, some wait for others."""
    return replace(step, tokens=tokens, flops=shape.flops_per_token(sequence_length) * tokens / step.devices)


def _best(table: _Table, among: Array) -> int:
    """The simplest of those within 8 % of the fastest; of as simple ones that with the largest micro-batch within 1 % of its best."""
    seconds = np.where(among, table.seconds, np.inf)
    choices = {name: table.numbers[name] > 1 for name in ("tensor", "expert", "context", "pipeline", "chunks")}
    choices |= {"zero3": table.sharding == "zero3"} | {way: table.recompute == way for way in ("operations", "full")}
    complexity = sum(COMPLEXITY[name] * made for name, made in choices.items())
    simplest = np.where(seconds <= CLOSE * seconds.min(), complexity, np.inf)
    seconds = np.where(simplest == simplest.min(), seconds, np.inf)
    largest = np.where(seconds <= 1.01 * seconds.min(), table.numbers["micro_batch"], 0)
    return int(np.argmin(np.where(largest == largest.max(), seconds, np.inf)))


# -- why ---------------------------------------------------------------------------------------------------------------------------


def _undone(table: _Table, best: int, fits: Array, limit: float) -> list[Rejected]:
    """For each choice that was made, the best layout without it: the fastest that fits, or the one that exceeds memory least."""
    own = table.layout(best)
    without: list[tuple[str, Array]] = []
    for name, said in (
        ("tensor", "without tensor parallelism"),
        ("pipeline", "without a pipeline"),
        ("context", "with sequences in one piece"),
    ):
        if getattr(own, name) > 1:
            without.append((said, table.numbers[name] == 1))
    if own.recompute != "none":
        without.append(("without recomputation", table.recompute == "none"))
    if own.sharding == "zero3":
        without.append(("with whole weights on each rank (ZeRO-1)", table.sharding == "zero1"))
    if own.expert > 1:
        without.append(("with all experts on each rank", table.numbers["expert"] == 1))
    same = (table.recompute == own.recompute) & (table.sharding == own.sharding) & (table.numbers["micro_batch"] > own.micro_batch)
    for name in ("tensor", "pipeline", "context"):
        same &= table.numbers[name] == getattr(own, name)
    without.append(("with a larger micro-batch", same))
    if own.tensor == 1:
        without.append(("with tensor parallelism", table.numbers["tensor"] > 1))
    if own.sharding == "zero1":
        without.append(("with weights in pieces (ZeRO-3)", table.sharding == "zero3"))
    found = []
    for said, rows in without:
        if (rows & fits).any():
            i = int(np.argmin(np.where(rows & fits, table.seconds, np.inf)))
        elif rows.any():
            i = int(np.argmin(np.where(rows, table.bytes, np.inf)))
        else:
            continue
        found.append(Rejected(table.layout(i), said, float(table.bytes[i]), float(table.seconds[i])))
    return found


def _too_large(table: _Table, best: int, fits: Array) -> list[Rejected]:
    """Of the layouts that do not fit: the plainest (data parallelism alone), the one nearest to fitting, the fastest."""
    if fits.all():
        return []
    numbers = table.numbers
    plain = (numbers["tensor"] * numbers["pipeline"] * numbers["context"] * numbers["expert"] == 1) & (table.recompute == "none")
    asked = [
        ("data parallelism alone, ZeRO-1", plain & (table.sharding == "zero1")),
        ("data parallelism alone, ZeRO-3", plain & (table.sharding == "zero3")),
    ]
    found = []
    for said, rows in asked:
        if rows.any() and not (rows & fits).any():
            i = int(np.argmin(np.where(rows, table.bytes, np.inf)))
            found.append(Rejected(table.layout(i), said, float(table.bytes[i]), float(table.seconds[i])))
    for said, i in (
        ("the nearest to fitting", int(np.argmin(np.where(fits, np.inf, table.bytes)))),
        ("the fastest, if it fitted", int(np.argmin(np.where(fits, np.inf, table.seconds)))),
    ):
        if i != best and table.layout(i) not in [each.layout for each in found]:
            found.append(Rejected(table.layout(i), said, float(table.bytes[i]), float(table.seconds[i])))
    return found


def _reasons(table: _Table, best: int, fits: Array, rejected: Sequence[Rejected], held: float, limit: float, step: speed.Step) -> list[str]:
    own = float(table.seconds[best])
    lines = [f"{int(fits.sum()):,} of {table.data.size:,} layouts fit; this is the simplest within {CLOSE - 1:.0%} of the fastest"]
    if not fits[best]:
        lines = [f"the layout that was asked for; it exceeds what may be filled by {_gib(held - limit)}"]
    for each in rejected:
        if each.bytes > limit:
            lines.append(f"{each.why}: does not fit, {_gib(each.bytes)} a device at the least")
        elif each.seconds > own * 1.005:
            lines.append(f"{each.why}: {each.seconds / own - 1:.0%} slower ({describe(each.layout)})")
        elif each.seconds < own * 0.995:
            lines.append(f"{each.why}: {1 - each.seconds / own:.0%} faster, less than such predictions are off ({describe(each.layout)})")
        else:
            lines.append(f"{each.why}: no faster ({describe(each.layout)})")
    return lines


def _impossible(shape: Shape, devices: int, sequences: int, fixed: Mapping[str, Any]) -> str:
    if fixed:
        given = ", ".join(f"{name}={value}" for name, value in fixed.items())
        layout = Layout(**{name: value for name, value in fixed.items() if name not in ("sharding", "recompute")})
        check(shape, layout)
        return f"--layout {given}: cannot be laid over {devices:,} devices, {shape.num_heads} heads and batches of {sequences:,} sequences"
    return (
        f"{devices:,} devices cannot share batches of {sequences:,} sequences: too few sequences for so many ranks; "
        f"take fewer devices or a larger --batch-tokens"
    )


def _enough(shape: Shape, device: Device, devices: int, sequence_length: int, sequences: int, *rest: Any) -> str:
    """'; 16 devices are enough' for the next powers of two times the devices."""
    for times in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        table = _table(shape, device, devices * times, sequence_length, max(sequences, devices * times), *rest)
        if table is not None and (table.bytes <= FIT_LIMIT * device.memory_bytes).any():
            return f"; {devices * times:,} are enough"
    return f"; {say(shape.parameters)} parameters want more devices, or ones with more memory"


def _gib(value: float) -> str:
    return f"{value / GIB:,.1f} GiB"
