"""The measurements behind speed.py: read, fitted, and foretold without having been seen.

270 published throughputs of llm-foundry, torchtitan, Megatron-Bridge, MegaScale and Llama 3 are read into one form (shape, layout,
device, tokens per second). The coefficients are those of least Huber loss of ln(predicted / measured), by damped Gauss-Newton from one
start. The test that counts holds out whole models: all rows of a size, on every device, are foretold from the other sizes.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openhearth.plan import speed
from openhearth.plan.catalogue import Device, device
from openhearth.plan.memory import Layout
from openhearth.plan.shapes import Shape

TABLES = Path(__file__).with_name("tables")
Array = NDArray[np.float64]

HUBER = 0.05
"""Relative errors beyond 5 % count linearly: some rows are slow for reasons no model sees (a thrashing allocator, a bad link)."""

MPT = {  # llm-foundry's sizes: hidden size, layers, heads
    "125m": (768, 12, 12), "350m": (1024, 24, 16), "760m": (1536, 24, 12), "1b": (2048, 24, 16), "3b": (2560, 32, 20), "7b": (4096, 32, 32),
    "13b": (5120, 40, 40), "30b": (7168, 48, 56), "70b": (8192, 80, 64),
}  # fmt: skip
DEVICES = {
    "h100_80gb": "h100-sxm", "a100_80gb": "a100-80", "a100_40gb": "a100-40", "H100": "h100-sxm", "H200": "h200", "A100": "a100-80",
    "B200": "b200", "GB200": "gb200", "GB300": "gb300",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measurement."""

    model: str
    software: str
    device: Device
    precision: str
    shape: Shape
    layout: Layout
    sequence_length: int
    micro_batches: int
    tokens_per_second: float
    """Per device."""
    source: str

    @property
    def seconds(self) -> float:
        """Of an optimiser step."""
        tokens = self.sequence_length * self.layout.micro_batch * self.layout.data * self.micro_batches
        return float(tokens / self.layout.devices / self.tokens_per_second)

    def utilisation(self, convention: str = "full", peak: str | None = None) -> float:
        """MFU as measured; over the bf16 peak with peak='bf16'."""
        flops = self.shape.flops_per_token(self.sequence_length, convention)
        return float(flops * self.tokens_per_second / self.device.peak(peak if peak is not None else self.precision))


def rows() -> list[Row]:
    """All measurements of steps. Left out: throughputs of whole runs (GOODPUT), and what stands in two tables, once."""
    return [*_llm_foundry(), *_others()]


def mpt(size: str, positions: int) -> Shape:
    """llm-foundry's MPT: GPT's block with four times the width inside, tied embedding, biases, learned positions."""
    hidden, layers, heads = MPT[size]
    return Shape(
        model_type="mpt", vocab_size=50368, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=hidden // heads, intermediate_size=4 * hidden, gated=False, tie_word_embeddings=True, norm="layer",
        qkv_bias=True, output_bias=True, mlp_bias=True, learned_positions=positions,
    )  # fmt: skip


def _llm_foundry() -> list[Row]:
    found = []
    for row in _table("mfu_benchmarks.csv"):
        precision = "fp8-mixed" if "fp8" in row["precision"] else "bf16-mixed"
        layout = Layout(
            data=int(row["gpus"]),
            sharding="zero3" if row["sharding"] == "FULL_SHARD" else "zero2",
            recompute="full" if row["act_ckpt"] == "True" else "none",
            micro_batch=int(row["microbatch"]),
        )
        found.append(
            Row(
                model=f"mpt-{row['model']}", software="llm-foundry" if precision == "bf16-mixed" else "llm-foundry fp8",
                device=device(DEVICES[row["gpu"]]), precision=precision, shape=mpt(row["model"], int(row["seqlen"])), layout=layout,
                sequence_length=int(row["seqlen"]), micro_batches=int(row["grad_accum"]), tokens_per_second=float(row["tok_per_s_gpu"]),
                source="llm-foundry",
            )
        )  # fmt: skip
    return found


def _llama(hidden: int, layers: int, heads: int, inside: int) -> Shape:
    return Shape(
        model_type="llama", vocab_size=128256, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=8, head_dim=128,
        intermediate_size=inside,
    )  # fmt: skip


LARGE = {
    "llama3-8b": _llama(4096, 32, 32, 14336),
    "llama3-70b": _llama(8192, 80, 64, 28672),
    "llama3-405b": _llama(16384, 126, 128, 53248),
    "gpt-175b": Shape(
        model_type="gpt2", vocab_size=51200, hidden_size=12288, num_layers=96, num_heads=96, num_kv_heads=96, head_dim=128,
        intermediate_size=49152, gated=False, norm="layer", tie_word_embeddings=True, learned_positions=2048,
    ),
}  # fmt: skip
CHUNKS = {"MegaScale": 6, "Megatron-LM": 6, "Interleaved": 2, "Megatron-Bridge 70b": 5, "Megatron-Bridge 405b": 8, "Llama 3": 8}
"""Layers of a pipeline stage are interleaved in so many chunks: MegaScale section 6; of Bridge and Llama 3 as far as is told, else one a
layer."""


def _others() -> list[Row]:
    found = []
    for row in _table("throughput.csv"):
        if row["model"].startswith("mpt") or "GOODPUT" in row["notes"]:
            continue
        software = _software(row)
        tensor, pipeline, context, sequence = (int(row[name]) for name in ("tp", "pp", "cp", "seq"))
        data = int(row["gpus"]) // (tensor * pipeline * context)
        batch = int(row["micro_batch_seqs"] or 1)
        if software.startswith("torchtitan"):  # its batch is a rank's; a pipeline cuts it into as many micro-batches as it has stages
            micro_batch, micro_batches = max(1, batch // pipeline), min(batch, pipeline)
        else:
            micro_batch, micro_batches = batch, max(1, round(float(row["global_batch_tokens"]) / (sequence * data * batch)))
        chunks = next((n for name, n in CHUNKS.items() if name in f"{software} {row['model'].split('-')[1]} {row['notes']}"), 1)
        chunks = min(chunks, LARGE[row["model"]].num_layers // pipeline) if pipeline > 1 else 1
        sharding = "zero3" if "fsdp" in row["dp"] else "zero1"
        recompute = {"full": "full", "selective": "operations"}.get(row["act_ckpt"], "none")
        found.append(
            Row(
                model=row["model"], software=software, device=device(DEVICES[row["gpu"]]), precision=f"{row['precision']}-mixed",
                shape=LARGE[row["model"]],
                layout=Layout(
                    data=data, tensor=tensor, pipeline=pipeline, context=context, sharding=sharding, sequence_parallel=tensor > 1,
                    recompute=recompute, micro_batch=micro_batch, chunks=chunks,
                ),
                sequence_length=sequence, micro_batches=micro_batches, tokens_per_second=float(row["tokens_per_s_per_gpu"]),
                source=row["source"].split(",")[0],
            )
        )  # fmt: skip
    return found


def _software(row: dict[str, str]) -> str:
    """The programs and machine of a row, as far as they decide its speed."""
    source = row["source"]
    if "torchtitan" in source or "trainy" in source:
        if row["gpu"] == "H200":
            return "torchtitan H200"
        return "torchtitan eager 500 W" if row["notes"] == "eager" else "torchtitan 500 W"  # its H100s are capped at 500 of 700 W
    if "Megatron-Bridge" in source:
        return "Megatron-Bridge"
    if "MegaScale" in source:
        return row["notes"]
    return "Llama 3"


def _table(name: str) -> list[dict[str, str]]:
    with (TABLES / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- fit ---------------------------------------------------------------------------------------------------------------------------

START: dict[str, float] = {
    "products/ampere bf16": 0.75, "products/hopper bf16": 0.6, "products/hopper fp8": 0.5, "products/blackwell fp8": 0.5,
    "attention/ampere": 0.5, "attention/hopper": 0.3, "moved": 8.0, "logits": 30.0, "again": 0.25, "data": 1.0, "tensor": 1.0, "hop": 2e-5,
}  # fmt: skip
REFERENCE = "llm-foundry"
"""The software whose factor is one."""


def unpack(names: Sequence[str], values: Array) -> speed.Coefficients:
    """Coefficients from logarithms in the order of `names`."""
    found = dict(zip(names, np.exp(values).tolist(), strict=True))

    def under(prefix: str) -> dict[str, float]:
        return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}

    plain = {name: value for name, value in found.items() if "/" not in name}
    return speed.Coefficients(products=under("products/"), attention=under("attention/"), software=under("software/"), best={}, **plain)


@dataclass(frozen=True)
class Prepared:
    """Rows with their counts, which no coefficient changes, in groups that share coefficients: an array for each count of each group."""

    rows: Sequence[Row]
    counts: Sequence[Mapping[str, float]]
    log_seconds: Array

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Prepared:
        """Count once."""
        counts = []
        for row in rows:
            length, many = row.sequence_length, row.micro_batches
            found = speed.count(row.shape, row.device, row.layout, sequence_length=length, micro_batches=many, precision=row.precision)
            counts.append({name: float(value) for name, value in found.items()})
        return cls(rows, counts, np.log([row.seconds for row in rows]))

    @functools.cached_property
    def groups(self) -> list[tuple[Row, list[int], dict[str, Array]]]:
        """(one row, places of all, counts as arrays) of each device family, precision and software."""
        places: dict[tuple[str, str, str], list[int]] = {}
        for i, row in enumerate(self.rows):
            places.setdefault((speed.family(row.device), row.precision, row.software), []).append(i)
        return [
            (self.rows[chosen[0]], chosen, {name: np.array([self.counts[i][name] for i in chosen]) for name in self.counts[0]})
            for chosen in places.values()
        ]

    def seconds(self, fitted: speed.Coefficients) -> Array:
        """Predicted step times."""
        found = np.empty(len(self.rows))
        for row, places, counts in self.groups:
            found[places] = sum(speed.combine(counts, row.device, row.precision, fitted, row.software).values())
        return found

    def only(self, keep: Callable[[Row], bool]) -> Prepared:
        """Of some rows."""
        chosen = [i for i, row in enumerate(self.rows) if keep(row)]
        return Prepared([self.rows[i] for i in chosen], [self.counts[i] for i in chosen], self.log_seconds[chosen])


def fit(data: Prepared, steps: int = 60) -> speed.Coefficients:
    """The coefficients of least Huber loss. A coefficient that no row of `data` needs keeps its start (a software's factor: one)."""
    names = [*START, *sorted({f"software/{row.software}" for row in data.rows} - {f"software/{REFERENCE}"})]
    theta = np.log([START.get(name, 1.0) for name in names])

    def residuals(at: Array) -> Array:
        return np.log(data.seconds(unpack(names, at))) - data.log_seconds

    def loss(r: Array) -> float:
        size = np.abs(r)
        return float(np.sum(np.where(size < HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER))))

    damping, r = 1e-2, residuals(theta)
    for _ in range(steps):
        jacobian = np.stack([(residuals(theta + 1e-6 * unit) - r) / 1e-6 for unit in np.eye(len(names))], axis=1)
        weights = np.minimum(1.0, HUBER / np.maximum(np.abs(r), 1e-12))
        gradient, hessian = jacobian.T @ (weights * r), jacobian.T @ (jacobian * weights[:, None])
        before = loss(r)
        while damping < 1e9:
            move = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian) + 1e-6), -gradient)
            trial = theta + np.clip(move, -1, 1)
            after = residuals(trial)
            if loss(after) < before:
                break
            damping *= 5
        else:
            break
        theta, r, damping = trial, after, max(damping / 5, 1e-9)
        if before - loss(r) < 1e-10 * before:
            break
    fitted = unpack(names, theta)
    return replace(fitted, best=_best(data.rows, fitted.software))


def _best(rows: Sequence[Row], factors: Mapping[str, float]) -> dict[str, float]:
    """The fastest software measured on each family with each kind of number."""
    found: dict[str, float] = {}
    for row in rows:
        key = f"{speed.family(row.device)} {row.precision.split('-')[0]}"
        found[key] = min(found.get(key, 1.0), factors.get(row.software, 1.0))
    return found


# -- held out ----------------------------------------------------------------------------------------------------------------------

LARGER = ("mpt-13b", "mpt-30b", "mpt-70b", "llama3-70b", "llama3-405b", "gpt-175b")

SPLITS: dict[str, Callable[[Row], str]] = {
    "model": lambda row: row.model,
    "size": lambda row: "larger" if row.model in LARGER else "",
    "software": lambda row: "" if row.source == "llm-foundry" else row.source,
}
"""What is held out whole: a model on every device; all models of 13B and more at once; all that one project measured (its software's factor
is then taken as one). Rows whose group is '' are never held out."""


@dataclass(frozen=True)
class HeldOut:
    """Relative errors of throughput, foretold over measured minus one, of rows that the fit did not see; NaN of rows that were not held
    out."""

    rows: Sequence[Row]
    errors: Array
    baseline: Array
    """Of one utilisation for each device and precision, the median of the same training rows, attention counted causally. NaN: no such
    rows."""
    baseline_full: Array
    """The same with attention counted in full, which is kinder to long sequences."""


def held_out(data: Prepared, by: str = "model") -> HeldOut:
    """Foretell each group of `SPLITS[by]` from all others."""
    key = SPLITS[by]
    errors = np.full(len(data.rows), np.nan)
    baselines = {convention: np.full(len(data.rows), np.nan) for convention in ("causal", "full")}
    measured = np.exp(data.log_seconds)
    for group in filter(None, dict.fromkeys(map(key, data.rows))):
        train, test = data.only(lambda row, group=group: key(row) != group), data.only(lambda row, group=group: key(row) == group)  # type: ignore[misc]
        places = [i for i, row in enumerate(data.rows) if key(row) == group]
        errors[places] = measured[places] / test.seconds(fit(train)) - 1
        for convention, found in baselines.items():
            for i in places:
                like = [
                    row.utilisation(convention, "bf16")
                    for row in train.rows
                    if (row.device.id, row.precision) == (data.rows[i].device.id, data.rows[i].precision)
                ]
                if like:
                    found[i] = float(np.median(like)) / data.rows[i].utilisation(convention, "bf16") - 1
    return HeldOut(data.rows, errors, baselines["causal"], baselines["full"])


def borrowed(data: Prepared, lender: str, borrower: str) -> Array:
    """Errors on a family's bf16 rows when it was never measured and takes another's coefficients: what to expect of an unmeasured
    device."""
    mine, theirs = (data.only(lambda row, name=name: speed.family(row.device) == name) for name in (lender, borrower))  # type: ignore[misc]
    fitted = fit(mine)
    products = {**fitted.products, f"{borrower} bf16": fitted.products[f"{lender} bf16"]}
    lent = replace(fitted, products=products, attention={**fitted.attention, borrower: fitted.attention[lender]})
    plain = theirs.only(lambda row: row.precision == "bf16-mixed" and row.software == REFERENCE)
    return np.asarray(np.exp(plain.log_seconds) / plain.seconds(lent) - 1)


def issue_rows(rows: Sequence[Row]) -> list[int]:
    """The places of throughput.csv's steps in bf16 on H100, by which the baseline of one constant was first judged."""
    listed = {
        (float(row["tokens_per_s_per_gpu"]), int(row["seq"]))
        for row in _table("throughput.csv")
        if (row["gpu"], row["precision"]) == ("H100", "bf16") and "GOODPUT" not in row["notes"]
    }
    return [
        i
        for i, row in enumerate(rows)
        if (row.device.id, row.precision) == ("h100-sxm", "bf16-mixed") and (row.tokens_per_second, row.sequence_length) in listed
    ]


def summary(errors: Array) -> tuple[float, float, float]:
    """Median, 90th percentile and largest of the absolute errors."""
    size = np.abs(errors[np.isfinite(errors)])
    return (float(np.median(size)), float(np.quantile(size, 0.9)), float(size.max())) if size.size else (np.nan, np.nan, np.nan)
