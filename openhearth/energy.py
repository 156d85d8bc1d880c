"""Energy of this process's work: read from the processor's own counter (RAPL) where it may be read, else estimated and marked so.

The counter is that of the whole package, whatever else runs on it. The estimate is the processor time that was used, times a constant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")

WATTS_PER_CORE = 8.0
"""Of a busy core with its share of memory and power supply, for the estimate: a 280 W, 64-core EPYC 7763 has 4.4 W a core at the socket
and about 8 at the plug; a 15 W laptop with two cores has 7.5. A factor of two either way must be expected."""


@dataclass(frozen=True)
class Energy:
    """Joules, and how they are known: 'measured (RAPL)' or 'estimated (8 W a busy core)'."""

    joules: float
    source: str


ESTIMATED = f"estimated ({WATTS_PER_CORE:g} W a busy core)"
MEASURED = "measured (RAPL)"


def total_energy(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """{joules, source} over the ledger's entries of stages that ran here; None when one has no figure (an older ledger)."""
    measured = [entry.get("measured") or {} for entry in stages if entry.get("seconds")]
    if not measured or any("joules" not in one for one in measured):
        return None
    return {"joules": round(sum(one["joules"] for one in measured), 1), "source": measured[-1]["energy"]}


def busy_seconds() -> float:
    """Processor time of this process and of its ended children, all threads."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@dataclass
class Meter:
    """Started when it is made; `read` gives the energy since then."""

    folder: Path = POWERCAP
    counters: dict[Path, int] = field(init=False)
    busy: float = field(init=False)

    def __post_init__(self) -> None:
        self.counters = {path: value for path in packages(self.folder) if (value := _number(path / "energy_uj")) is not None}
        self.busy = busy_seconds()

    def read(self) -> Energy:
        """Energy since the meter was made. A counter that ran over once is corrected by its range."""
        microjoules = 0
        for path, before in self.counters.items():
            now, span = _number(path / "energy_uj"), _number(path / "max_energy_range_uj")
            if now is None or (now < before and span is None):
                return self._estimate()
            microjoules += now - before if now >= before or span is None else now - before + span
        return Energy(round(microjoules / 1e6, 1), MEASURED) if microjoules > 0 else self._estimate()

    def _estimate(self) -> Energy:
        return Energy(round(WATTS_PER_CORE * (busy_seconds() - self.busy), 3), ESTIMATED)


def packages(folder: Path) -> list[Path]:
    """The counters of whole processor packages (`intel-rapl:0`, not its parts `intel-rapl:0:0`)."""
    try:
        return sorted(path for path in folder.glob("intel-rapl:*") if path.name.count(":") == 1)
    except OSError:
        return []


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
