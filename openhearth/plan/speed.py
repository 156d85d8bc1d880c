"""How long a training step takes on named hardware, and the utilisation (MFU) that this is.

A step's time is a sum of parts. Each part is a count from the shape and the layout over a speed from the catalogue (products over the
dense peak, bytes of activations over the memory's bandwidth, bytes sent over the link that carries them) times one coefficient. The
coefficients are fitted to 270 published measurements by benchmarks/mfu_calibration.py and lie in tables/speed.toml; docs/plan/hardware.md
shows how far they are off on models that they have not seen. That is the best case. Whole runs, with restarts, evaluations and
stragglers, reach a share of it that is measured on published runs: the typical case.

Utilisation counts 6 x matmul parameters + 12 x layers x heads x head_dim x sequence FLOPs per token ('full' in shapes.py, as PaLM does).
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openhearth.errors import HearthError
from openhearth.plan.catalogue import Device
from openhearth.plan.communication import traffic
from openhearth.plan.memory import Layout, Numbers, activations_per_token, at, per_name, where
from openhearth.plan.shapes import Shape

TABLE = Path(__file__).with_name("tables") / "speed.toml"

AGAIN = {"none": 0.0, "selective": 0.0, "operations": 0.5, "full": 1.0}
"""The share of a layer's forward pass that is computed again. Attention that never stores its matrix has nothing to do again in
'selective'."""
UPDATE_BYTES = 32.0
"""Moved per parameter by an optimiser step: weights, gradients, master weights and two moments, read and written."""
HOP_KINDS = ("tensor", "context", "expert", "pipeline")


@dataclass(frozen=True)
class Coefficients:
    """What the measurements say. Efficiencies are shares of peak; the others are times of what is counted."""

    products: Mapping[str, float]
    """Of matrix products, by family and kind of number: 'ampere bf16', 'hopper fp8' ..."""
    attention: Mapping[str, float]
    """Of attention counted in full, by family: causal kernels do half of it."""
    moved: float
    """Times that each byte of activations goes through memory, forward and backward."""
    logits: float
    """Bytes moved per logit."""
    again: float
    """Time of computing the forward pass again, over a layer's forward and backward."""
    data: float
    """Exposed time of data-parallel traffic over bytes / link."""
    tensor: float
    """As `data`, of tensor-parallel traffic."""
    hop: float
    """Seconds that one collective over data-parallel ranks waits per further node."""
    software: Mapping[str, float]
    """Time on the device over that of the reference (llm-foundry), by the software of a measured run."""
    best: Mapping[str, float]
    """The least of those factors, by family and kind of number as `products`: what a prediction takes."""

    @classmethod
    def load(cls, path: Path = TABLE) -> Coefficients:
        """Of the table that comes with the package."""
        return cls(**tomllib.loads(path.read_text("utf-8"))["coefficients"])


@functools.lru_cache(maxsize=1)
def coefficients() -> Coefficients:
    """The fitted coefficients."""
    return Coefficients.load()


FAMILIES = {
    "ampere": ("a100-40", "a100-80", "a800-80"),
    "hopper": ("h100-sxm", "h100-pcie", "h800-sxm", "h200", "gh200", "h20"),
    "blackwell": ("b200", "b300", "gb200", "gb300"),
}
"""Devices that share coefficients. bf16 is measured on Ampere and Hopper, fp8 on Hopper and Blackwell; the rest is borrowed (`lender`)."""


def family(device: Device) -> str:
    """'ampere', 'hopper' or 'blackwell'; '' for a device that no measurement covers."""
    return next((name for name, ids in FAMILIES.items() if device.id in ids), "")


def lender(device: Device) -> str:
    """The family whose coefficients a device takes: its own, else Ampere's for what is older than Hopper (2022), else Hopper's."""
    return family(device) or ("ampere" if (device.year or 2025) < 2022 else "hopper")


@dataclass(frozen=True)
class Step:
    """One optimiser step: seconds by part on one device, and what they come to. Arrays where the layout has arrays."""

    seconds: Mapping[str, Numbers]
    tokens: Numbers
    flops: Numbers
    """Per device, by the 'full' convention."""
    peak: float
    devices: Numbers

    def at(self, i: int) -> Step:
        """Of arrays, the step at this place."""
        seconds = {name: at(value, i) for name, value in self.seconds.items()}
        return Step(seconds, at(self.tokens, i), at(self.flops, i), self.peak, at(self.devices, i))

    @property
    def total(self) -> Numbers:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def utilisation(self) -> Numbers:
        """MFU: FLOPs of the model over what the peak would do in this time."""
        return self.flops / (self.peak * self.total)

    @property
    def tokens_per_second_per_device(self) -> Numbers:
        """Throughput."""
        return self.tokens / self.total / self.devices


def step(
    shape: Shape,
    device: Device,
    layout: Layout,
    *,
    sequence_length: Numbers,
    micro_batches: Numbers = 1,
    precision: str = "bf16-mixed",
    software: str | None = None,
    fitted: Coefficients | None = None,
) -> Step:
    """The best case of an optimiser step of `micro_batches` micro-batches per pipeline, as the fastest software measured on this family
    does it, or as `software` does. Raises HearthError for a precision the device lacks.
    """
    known = fitted if fitted is not None else coefficients()
    counts = count(shape, device, layout, sequence_length=sequence_length, micro_batches=micro_batches, precision=precision)
    peak = device.peak(precision)
    tokens = sequence_length * layout.micro_batch * layout.data * micro_batches
    flops = shape.flops_per_token(sequence_length) * tokens / layout.devices
    return Step(combine(counts, device, precision, known, software), tokens, flops, peak, layout.devices)


def count(
    shape: Shape, device: Device, layout: Layout, *, sequence_length: Numbers, micro_batches: Numbers = 1, precision: str = "bf16-mixed"
) -> dict[str, Numbers]:
    """Seconds of each part of a step if every coefficient were one, and two plain numbers ('again', 'bubble')."""
    peak, exact = device.peak(precision), device.peaks.get("bf16", device.peaks.get("fp16", device.peak(precision)))
    ways = layout.tensor * layout.pipeline
    tokens = micro_batches * sequence_length * layout.micro_batch / layout.context
    head = 6 * shape.head_matrix * tokens / ways
    attention = shape.attention_flops_per_token(sequence_length) * tokens / ways
    # A device whose bandwidth is not known is taken to have a byte per 200 FLOPs, between an A100 and an H100.
    bandwidth = device.memory_bandwidth or exact / 200
    kept = activations_per_token(
        shape, sequence_length=sequence_length, tensor=layout.tensor, sequence_parallel=layout.sequence_parallel, flash=True
    )
    sent = traffic(shape, layout, sequence_length=sequence_length, micro_batches=micro_batches, precision=precision)
    speeds = links(device, layout)
    level = layout.level
    nodes = np.maximum(layout.tensor * layout.context * layout.data / device.devices_per_node, 1)
    often = np.where(np.asarray(layout.pipeline) > 1, 1, micro_batches)
    collectives = shape.num_layers / layout.pipeline * where(level >= 3, 3 * often, 2)
    return {
        "products": (6 * (shape.matmul_parameters - shape.head_matrix) * tokens / ways) / peak,
        "head": head / exact,
        "attention": attention / exact,
        "elements": kept * shape.num_layers / layout.pipeline * tokens / bandwidth,
        "logits": shape.vocab_size * tokens / ways / bandwidth,
        **{kind: amount / speeds[kind] for kind, amount in sent.parts().items()},
        "waiting": np.where(np.asarray(layout.shards) > 1, collectives * np.log2(nodes), 0.0),
        "update": UPDATE_BYTES * shape.parameters / ways / where(level >= 1, layout.shards, 1) / bandwidth,
        "again": per_name(AGAIN, layout.recompute, "recompute"),
        "bubble": (1 + sent.pipeline_bubble) * imbalance(shape, layout.pipeline) - 1,
    }


def imbalance(shape: Shape, pipeline: Numbers) -> Numbers:
    """The work of the slowest pipeline stage over the mean, whole layers being spread so that the last stage, with the head, has fewer."""
    head = shape.head_matrix * shape.num_layers / (shape.matmul_parameters - shape.head_matrix)  # in layers
    mean = (shape.num_layers + head) / pipeline
    low = np.floor(mean)
    return np.minimum(np.ceil(mean), np.maximum(low, shape.num_layers - (pipeline - 1) * low + head)) / mean


def combine(
    counts: Mapping[str, Numbers], device: Device, precision: str, fitted: Coefficients, software: str | None
) -> dict[str, Numbers]:
    """Seconds by part: the counts times the coefficients; with software None those of the fastest."""
    kind = "fp8" if precision.startswith("fp8") else "bf16"
    name = lender(device)
    fastest = 1.0 if not family(device) else fitted.best.get(f"{name} {kind}", fitted.best.get(f"hopper {kind}", 1.0))
    efficiency = fitted.products.get(f"{name} {kind}", fitted.products[f"hopper {kind}"])
    plain = fitted.products.get(f"{name} bf16", fitted.products["hopper bf16"])
    attention = fitted.attention.get(name, fitted.attention["hopper"])
    factor = fastest if software is None else fitted.software.get(software, 1.0)
    layers = {
        "products": factor * counts["products"] / efficiency,
        "attention": factor * counts["attention"] / attention,
        "activations": factor * fitted.moved * counts["elements"],
    }
    again = fitted.again * counts["again"] * sum(layers.values())
    head = factor * (counts["head"] / plain + fitted.logits * counts["logits"])
    sent = fitted.tensor * (counts["tensor"] + counts["expert"]) + fitted.data * (counts["pipeline"] + counts["context"])
    busy = sum(layers.values()) + again + head + sent
    return {
        **layers,
        "head": head,
        "recompute": again,
        "communication": sent + fitted.data * counts["data"] + fitted.hop * counts["waiting"],
        "bubble": counts["bubble"] * busy,
        "update": counts["update"],
    }


def links(device: Device, layout: Layout) -> dict[str, Numbers]:
    """Bytes per second of one device for each kind of traffic.

    Ranks are numbered tensor, context, data, pipeline. A ring that leaves a node uses the network of all its members there, since
    collectives run as many rings as there are members, each through another adapter; an exchange of all with all has its own share only.
    """
    node, link, network = device.devices_per_node, device.link, device.network

    def ring(inner: Numbers, ranks: Numbers) -> Numbers:
        members = np.clip(node // np.minimum(inner, node), 1, ranks)
        return np.where(np.asarray(inner * ranks) <= node, link, np.minimum(link, members * network))

    local = layout.tensor * layout.context
    exchange = np.where(np.asarray(layout.tensor * np.maximum(layout.expert, layout.context)) <= node, link, min(link, network))
    return {
        "tensor": ring(1, layout.tensor),
        "context": ring(layout.tensor, layout.context),
        "data": ring(local, layout.data),
        "expert": exchange,
        "pipeline": np.where(np.asarray(layout.devices) <= node, link, min(link, network)),
    }


def mfu(
    shape: Shape, device: Device, tokens_per_second_per_device: Numbers, *, sequence_length: Numbers, precision: str = "bf16"
) -> Numbers:
    """The utilisation that a measured throughput is, by the 'full' convention: PaLM's 46.2 %, LLaMA-65B's 380 tokens/s."""
    return shape.flops_per_token(sequence_length) * tokens_per_second_per_device / device.peak(precision)


def seconds(executed_flops: Numbers, devices: Numbers, flops_per_second: Numbers) -> Numbers:
    """Of work on devices that each do so many FLOP/s: with 8 x tokens x parameters (full recomputation) the rule of Narayanan et al. 2021,
    section 5.1, with `Shape.executed_flops_per_token` their equation 3.
    """
    return executed_flops / (devices * flops_per_second)


@functools.lru_cache(maxsize=1)
def whole_runs() -> Mapping[str, float]:
    """The share of the best case that published whole runs reached, by name (tables/speed.toml, made by the calibration)."""
    return dict(tomllib.loads(TABLE.read_text("utf-8"))["whole_runs"])


def whole_run_share() -> tuple[float, float, float]:
    """Utilisation of whole runs over the best case: median, lower and upper quartile over published runs."""
    low, middle, high = (quantile(list(whole_runs().values()), share) for share in (0.25, 0.5, 0.75))
    return middle, low, high


def quantile(values: Sequence[float], share: float) -> float:
    """As numpy's, between the two nearest of the sorted values, without the 40 ms that numpy's first call takes."""
    ordered = np.sort(np.asarray(values, float))
    return float(np.interp(share * (len(ordered) - 1), np.arange(len(ordered)), ordered))


def checked(value: float, what: str = "--mfu") -> float:
    """A utilisation that a user gives, as a share. Raises HearthError outside (0, 1]."""
    if not 0 < value <= 1:  # also for NaN
        raise HearthError(f"{what} {value}: a utilisation lies above 0 and at most at 1 (40 % is 0.4)")
    return value


def best_utilisation(device: Device, precision: str | None = None) -> float:
    """Without a shape: the best case of a 7B decoder on one node, micro-batches of 4 x 2048 tokens."""
    from openhearth.plan.decoders import decoder

    kind = precision if precision is not None else device.training_peak()[0]
    layout = Layout(data=min(8, device.devices_per_node), sharding="zero3", micro_batch=4)
    return float(step(decoder(6.7e9), device, layout, sequence_length=2048, micro_batches=4, precision=_mixed(kind)).utilisation)


def typical_utilisation(device: Device, precision: str | None = None) -> float:
    """Without a shape: `best_utilisation` times what whole runs reach of it."""
    return whole_run_share()[0] * best_utilisation(device, precision)


def _mixed(precision: str) -> str:
    return precision if precision == "fp32" or "-" in precision else f"{precision}-mixed"
