"""The machine and the programs that made a release: everything that is known to change the last bit of a weight.

Floating point sums depend on the order in which a processor adds, and that on its vector width, the number of threads and the
version of the libraries. A rebuild prints what differs here beside the first difference that it finds. No names of people or
hosts are recorded, and of the environment only the variables that steer arithmetic.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from openhearth.ledger import Json, read_json
from openhearth.release.layout import PLAN

PACKAGES = ("openhearth", "torch", "numpy", "tokenizers", "tiktoken", "pyarrow", "pydantic", "safetensors", "zstandard")
VARIABLES = ("OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "VECLIB_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH", "PYTORCH_", "CUDA_VISIBLE")


def environment(threads: int | None) -> Json:
    """This machine and these programs, as plain values; `threads` is the number that training uses. Imports torch."""
    import torch

    return {
        "python": {"version": platform.python_version(), "implementation": platform.python_implementation()},
        "platform": {"system": platform.system(), "machine": platform.machine(), "release": platform.release(), "libc": _libc()},
        "cpu": processor(),
        "threads": {"training": threads, "cores": os.cpu_count(), "usable": _usable_cores()},
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "torch": {
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "config": torch.__config__.show(),
        },
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def planned_threads(release: Path) -> int | None:
    """The number of threads in the release's plan."""
    plan = read_json(release / PLAN)
    training = plan.get("pretrain") if isinstance(plan, dict) else None
    return training.get("threads") if isinstance(training, dict) else None


def processor() -> Json:
    """Model and instruction sets of the processor, as the system names them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {
            "model": _sysctl("machdep.cpu.brand_string") or platform.processor(),
            "flags": _sysctl("machdep.cpu.features").lower().split(),
        }
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return {"model": fields.get("model name") or platform.processor(), "flags": sorted(flags.split())}


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """One line for each value that differs between two environments; long texts and lists are compared, not printed."""
    if isinstance(then, dict) and isinstance(now, dict):
        lines = []
        for key in sorted({*then, *now}):
            lines += differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
        return lines
    if then == now:
        return []
    if isinstance(then, list) and isinstance(now, list):
        gone, new = sorted(set(map(str, then)) - set(map(str, now))), sorted(set(map(str, now)) - set(map(str, then)))
        return [f"{name}: only then: {' '.join(gone) or 'none'}; only now: {' '.join(new) or 'none'}"]
    if isinstance(then, str) and isinstance(now, str) and "\n" in then + now:
        before, after = set(then.splitlines()), set(now.splitlines())
        changed = (
            [line.strip() for line in then.splitlines() if line not in after],
            [line.strip() for line in now.splitlines() if line not in before],
        )
        return [f"{name}: then {'; '.join(changed[0]) or '-'} | now {'; '.join(changed[1]) or '-'}"]
    return [f"{name}: then {_shown(then)}, now {_shown(now)}"]


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "openhearth":
            return None
        from openhearth import __version__

        return __version__


def _libc() -> str:
    return " ".join(platform.libc_ver()).strip() if sys.platform.startswith("linux") else platform.mac_ver()[0]


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
