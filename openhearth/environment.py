"""What is known to change the last bit of a weight or the speed of a run, found without importing any of it. For the ledger."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from contextlib import suppress

from openhearth.ledger import Json
from openhearth.release.environment import processor

PACKAGES = ("openhearth", "torch", "numpy", "tokenizers", "tiktoken", "pyarrow", "safetensors")
FLAGS = frozenset({"avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "asimd", "bf16", "sve", "i8mm"})
"""Instruction sets that decide which kernels are used."""


def environment() -> Json:
    """This machine and these programs; no name of a person or host."""
    cpu = processor()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions: dict[str, str] = {}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu["model"],
        "flags": sorted(FLAGS.intersection(cpu["flags"])),
        "cores": usable,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "packages": versions,
    }


def now() -> str:
    """The time of day, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
