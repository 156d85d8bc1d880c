"""What this machine is, read from the system without torch: processor, threads, memory."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

FLAGS_OF_INTEREST = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def usable_threads() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> tuple[str, list[str]]:
    """Model name and those of its instruction-set flags that change what training computes."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set((named.get("flags") or named.get("Features") or "").split())
    return named.get("model name", platform.machine()), [flag for flag in FLAGS_OF_INTEREST if flag in flags]


def memory_bytes() -> int | None:
    """Physical memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def describe() -> dict[str, Any]:
    """The machine as it is written into a plan and a ledger."""
    name, flags = processor()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": name,
        "flags": flags,
        "threads": usable_threads(),
        "memory_bytes": memory_bytes(),
    }
