"""Setting up this process for training: threads, determinism, the allocator. Called once, before the first large tensor."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys

import torch


def tune_allocator() -> bool:
    """Keep freed memory instead of handing it back to the system after every step; True where glibc took the settings.

    Training allocates and frees the same large tensors in every step; by default glibc maps and unmaps each, and the kernel
    clears every page again: a tenth of a step.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2
    return bool(mallopt(mmap_threshold, 1 << 30) and mallopt(trim_threshold, 2**31 - 1) and mallopt(top_pad, 64 << 20))


def prepare(threads: int) -> None:
    """Fix the number of threads and ask for deterministic algorithms: the same plan gives the same bits."""
    tune_allocator()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Deterministic mode also fills fresh memory with NaN, to expose reads of it; that costs a tenth of a step and no result depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def compiler_available() -> bool:
    """Whether torch.compile would find a C++ compiler."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))
