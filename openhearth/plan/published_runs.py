"""A table of published training runs: read with tolerance for the names of its columns and none for the values, and searched for traps.

A trap is a row whose figures do not mean what they seem to: FLOPs of an encoder-decoder, recomputation counted in, hours of several models,
cores called chips. Each rule gives the reason in words; the row is then shown and not scored.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small
from openhearth.plan.catalogue import Device, find
from openhearth.plan.quantities import count

TABLE = Path(__file__).with_name("tables") / "published_runs.csv"

COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("model", "name", "run", "system"),
    "parameters": ("params", "parameters", "n", "size", "n_params", "num_parameters", "model_size"),
    "active_parameters": ("active_params", "active_parameters", "active", "activated_params"),
    "tokens": ("tokens", "d", "training_tokens", "train_tokens", "n_tokens", "num_tokens"),
    "flops": ("flops_reported", "flops", "training_flops", "compute", "c"),
    "hardware": ("hardware", "device", "accelerator", "chip", "gpu", "gpu_type", "hw"),
    "chips": ("n_chips", "chips", "n_gpus", "gpus", "num_gpus", "devices", "n_devices", "accelerators"),
    "days": ("days", "training_days", "duration_days"),
    "hours": ("hours", "wall_hours", "duration_hours"),
    "chip_hours": ("chip_hours", "gpu_hours", "device_hours", "tpu_hours", "gpuh", "accelerator_hours"),
    "usd": ("cost_reported_usd", "cost_usd", "usd", "cost", "price_usd", "cost_reported"),
    "mfu": ("mfu_reported", "mfu"),
    "year": ("year",),
    "precision": ("precision", "dtype"),
    "sequence_length": ("sequence_length", "seq_len", "seqlen", "context", "context_length"),
    "batch_tokens": ("batch_tokens", "batch_size_tokens", "tokens_per_batch"),
    "mwh": ("energy_mwh", "mwh"),
    "tco2e": ("tco2e", "carbon_tonnes", "co2_tonnes"),
    "watts": ("watts", "power_w"),
    "pue": ("pue",),
    "kg_per_kwh": ("kg_per_kwh", "carbon_intensity"),
    "compute_optimal": ("compute_optimal",),
    "skip": ("skip", "trap", "skip_reason"),
    "unverified": ("verified", "unverified"),
    "notes": ("notes", "note", "comment", "comments"),
}
"""Of each field the names that a column may have; capitals, spaces and hyphens do not matter. Other columns are left alone."""
BOUNDS: dict[str, tuple[float, float]] = {
    "parameters": (1e5, 1e15), "active_parameters": (1e5, 1e15), "tokens": (1e6, 1e16), "flops": (1e12, 1e30), "chips": (1, 1e7),
    "days": (1e-4, 3660), "hours": (1e-3, 1e5), "chip_hours": (1e-2, 1e10), "usd": (0.01, 1e12), "mfu": (1e-4, 100), "year": (2015, 2100),
    "sequence_length": (1, 1e8), "batch_tokens": (1, 1e10), "mwh": (1e-6, 1e9), "tco2e": (1e-6, 1e9), "watts": (1, 1e5), "pue": (1, 10),
    "kg_per_kwh": (0, 5),
}  # fmt: skip
NEEDED = ("hardware", "parameters", "tokens")

NO_HOURS = "hours not reported"
"""The one reason that leaves a run as predictable as any: it is foretold, and not scored."""
HFU = (1.1, 1.6)
"""Reported FLOPs over 6ND in which recomputation is counted: a forward pass more is 4/3."""
HIGHEST, LOWEST = 0.8, 0.04
"""Utilisations of a whole run beyond which the row's hours and its FLOPs cannot belong together."""


@dataclass(frozen=True)
class Run:
    """One published run. None is 'not reported'. Counts are plain numbers, `usd` is money, `mwh` and `tco2e` as reported."""

    name: str
    where: str
    hardware: str = ""
    parameters: float | None = None
    active_parameters: float | None = None
    tokens: float | None = None
    flops: float | None = None
    chips: float | None = None
    days: float | None = None
    hours: float | None = None
    chip_hours: float | None = None
    usd: float | None = None
    mfu: float | None = None
    year: float | None = None
    precision: str = ""
    sequence_length: float | None = None
    batch_tokens: float | None = None
    mwh: float | None = None
    tco2e: float | None = None
    watts: float | None = None
    pue: float | None = None
    kg_per_kwh: float | None = None
    compute_optimal: bool = False
    skip: str = ""
    unverified: str = ""
    notes: str = ""

    @property
    def device(self) -> Device | None:
        """Of the catalogue, or None."""
        return find(self.hardware) if self.hardware else None

    @property
    def reported_hours(self) -> float | None:
        """Chip-hours as reported, or chips times duration."""
        if self.chip_hours is not None or self.chips is None:
            return self.chip_hours
        duration = self.hours if self.hours is not None else None if self.days is None else 24 * self.days
        return None if duration is None else self.chips * duration

    @property
    def met_parameters(self) -> float | None:
        """Parameters that a token meets."""
        return self.active_parameters if self.active_parameters is not None else self.parameters

    @property
    def six_nd(self) -> float | None:
        """6 x active parameters x tokens."""
        return None if self.met_parameters is None or self.tokens is None else 6 * self.met_parameters * self.tokens


def read(path: Path | None = None) -> list[Run]:
    """The runs of a CSV, or of the table that comes with the package. Raises HearthError naming the line and the column."""
    if path is None:
        return _parse(TABLE.read_text("utf-8"), TABLE)
    return _parse(read_small(path, limit=4_000_000, what="table of runs", suffix=".csv"), path)


def _parse(text: str, path: Path) -> list[Run]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names: dict[int, str] = {}
    runs: list[Run] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
                continue
            if not names:
                names = _columns(cells, where)
                continue
            row = {names[i]: cell.strip() for i, cell in enumerate(cells) if i in names and cell.strip()}
            runs.append(_run(row, where, len(runs) + 1))
    except csv.Error as error:
        raise HearthError(f"{path}:{reader.line_num}: not CSV ({error})") from None
    if not runs:
        raise HearthError(f"{path}: no runs in it; it needs a line of column names and one line a run")
    return runs


def _columns(cells: list[str], where: str) -> dict[int, str]:
    """Which field each column is."""
    found: dict[int, str] = {}
    for i, cell in enumerate(cells):
        plain = re.sub(r"[\s\-/]+", "_", cell.strip().lower()).strip("_")
        field = next((field for field, names in COLUMNS.items() if plain in names), None)
        if field is not None and field in found.values():
            raise HearthError(f"{where}: two columns are the {field} of a run; leave one out")
        if field is not None:
            found[i] = field
    missing = [field for field in NEEDED if field not in found.values()]
    if missing:
        spare = [cell.strip().lower() for i, cell in enumerate(cells) if i not in found]
        near = next((nearest(word, COLUMNS[missing[0]]) for word in spare if nearest(word, COLUMNS[missing[0]])), "")
        raise HearthError(f"{where}: no column of {missing[0]}{near}; name it {' or '.join(COLUMNS[missing[0]][:2])}")
    return found


def _run(row: dict[str, str], where: str, number: int) -> Run:
    values: dict[str, object] = {"name": row.get("name", f"run {number}"), "where": where}
    for field, text in row.items():
        if field in BOUNDS:
            low, high = BOUNDS[field]
            what = f"{where}: {COLUMNS[field][0]}"
            value = count(text.lstrip("$~ ").rstrip("% ") if field in ("usd", "mfu") else text, what, low=low, high=high)
            values[field] = value / 100 if field == "mfu" and value > 1 else value
        elif field == "compute_optimal":
            values[field] = text.lower() in ("yes", "true", "1")
        elif field != "name":
            values[field] = text
    run = Run(**values)  # type: ignore[arg-type]
    if run.active_parameters is not None and run.parameters is not None and run.active_parameters > run.parameters:
        raise HearthError(f"{where}: active parameters ({run.active_parameters:.4g}) are more than all ({run.parameters:.4g})")
    return run


# -- traps -------------------------------------------------------------------------------------------------------------------------


def _said(*words: str) -> Callable[[Run], bool]:
    pattern = re.compile("|".join(words), re.IGNORECASE)
    return lambda run: bool(pattern.search(f"{run.name} {run.notes}"))


WORDS: tuple[tuple[Callable[[Run], bool], str], ...] = (
    (_said(r"encoder[- ]decoder", r"\bT5\b", r"\bUL2\b"), "encoder-decoder: 6ND overstates its FLOPs"),
    (_said(r"\bprojected\b", r"\bprojection\b"), "a projection, not a run"),
    (_said(r"throughput only"), "throughput only"),
    (_said(r"\bdistill", r"\bpruned\b"), "pruned or distilled: FLOPs of a teacher, and tokens that it saw before"),
    (_said(r"\bmamba\b", r"\bSSM\b", r"state[- ]space", r"\bRWKV\b"), "not a transformer: its steps are not what is modelled"),
    (_said(r"all variants", r"all sizes together", r"whole family"), "its hours cover several models"),
    (_said(r"upper bound"), "its hours are an upper bound"),
    (_said(r"fine-?tun", r"continued pre-?training", r"\bupcycl"), "starts from a trained model"),
)


def trap(run: Run) -> str:
    """Why a run is not scored by time, or ''."""
    if run.skip:
        return run.skip
    for test, reason in WORDS:
        if test(run):
            return reason
    if re.search(r"\bv\d[a-z]?-\d+", run.hardware.lower()):
        return "'v3-256' counts cores: it is not clear how many chips there were"
    if "/" in run.hardware or "+" in run.hardware or "mixed" in run.hardware.lower():
        return "mixed hardware"
    if run.tokens is None and run.flops is None:
        return "tokens not published"
    if run.parameters is None and run.flops is None:
        return "parameters not published"
    if run.active_parameters is None and re.search(r"\bmoe\b|mixture|\d+x\d+b|[-\d]a\d+b\b", f"{run.name} {run.notes}", re.IGNORECASE):
        return "a mixture of experts whose active parameters are not given: total ones would overstate its FLOPs"
    if run.device is None:
        known = run.hardware or "nothing"
        return f"hardware '{known}' is not in the catalogue"
    if run.reported_hours is None:
        return NO_HOURS
    if re.search(r"chip_hours|\bhours\b", run.unverified):
        return "its hours are not from the source"
    return _inconsistent(run, run.device)


def _inconsistent(run: Run, device: Device) -> str:
    """Figures that cannot belong to one run."""
    estimate, hours = run.six_nd, run.reported_hours
    if estimate is not None and run.flops is not None and not 0.5 < estimate / run.flops < 2:
        return f"FLOPs on other tokens: 6ND is {estimate / run.flops:.2g} times what is reported"
    flops = estimate if estimate is not None else run.flops
    if flops is None or hours is None:
        return ""
    share = flops / (hours * 3600 * device.training_peak()[1])
    if share > HIGHEST:
        return f"its hours would be {share:.0%} of peak for a whole run: they are not all its hours"
    if share < LOWEST:
        return f"its hours would be {share:.1%} of peak: they hold more than this run"
    if run.chips is not None and run.days is not None and run.chip_hours is not None:
        ratio = run.chip_hours / (run.chips * run.days * 24)
        if math.isfinite(ratio) and not 0.5 < ratio < 2:
            return f"its chip-hours are {ratio:.2g} times chips x days"
    return ""


def remark(run: Run) -> str:
    """What is odd about a run that is scored nevertheless, or ''."""
    if run.flops is not None and run.six_nd is not None and HFU[0] < run.flops / run.six_nd < HFU[1]:
        return f"reported FLOPs are {run.flops / run.six_nd:.2f} x 6ND (attention or recomputation counted in, as in HFU): 6ND is taken"
    return ""


def scored(runs: Iterable[Run]) -> list[Run]:
    """Those without a trap."""
    return [run for run in runs if not trap(run)]
