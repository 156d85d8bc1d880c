"""OpenHearth: the open foundry for language models. A budget goes in; a model that anyone can use, check and rebuild comes out.

    run(recipe, folder)   make what a recipe says, in the folder of a run
    load(folder)          a released model and its tokenizer, its files checked first
    verify(folder)        check a release file by file

The three are imported when they are first asked for, so that the command line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openhearth.api import load, verify
    from openhearth.runner import run

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run", "verify"]

_HOMES = {"run": "openhearth.runner", "load": "openhearth.api", "verify": "openhearth.api"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openhearth' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
