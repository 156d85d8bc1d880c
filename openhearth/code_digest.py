"""The digest of the code that a stage runs: its module and every module of this package that it imports, directly or not.

Imports are found in the source (also those inside functions) without running anything. Modules that only say things in words are
left out, so that a better error message does not train a model again.
"""

from __future__ import annotations

import ast
import functools
import sys
from importlib.util import resolve_name
from pathlib import Path

from openhearth.ledger import digest_file, digest_json

PACKAGE = "openhearth"
SILENT = frozenset({PACKAGE, "openhearth.errors", "openhearth.cli", "openhearth.report", "openhearth.progress"})
"""Modules that cannot change what a stage makes."""


def code_digest(stage: type) -> str:
    """sha256 over the sources that running `stage` can reach inside this package, by module name."""
    return _digest(stage.__module__)


@functools.cache
def _digest(module: str) -> str:
    return digest_json({name: digest_file(path) for name, path in sources(module).items()})


def sources(module: str) -> dict[str, Path]:
    """The source files of `module` and of what it imports from this package, by module name."""
    start = _inside(module) or Path(getattr(sys.modules[module], "__file__", None) or "")
    if not start.is_file():
        raise TypeError(f"the stage in {module} has no source file, so its code has no digest")
    found: dict[str, Path] = {}
    waiting = [(module, start)]
    while waiting:
        name, path = waiting.pop()
        if name in found or name in SILENT:
            continue
        found[name] = path
        for imported in _imports(name, path):
            if (inside := _inside(imported)) is not None:
                waiting.append((imported, inside))
    return dict(sorted(found.items()))


@functools.cache
def _inside(module: str) -> Path | None:
    """The file of a module of this package; None for other modules and for names that are no module."""
    if module != PACKAGE and not module.startswith(PACKAGE + "."):
        return None
    base = Path(__file__).parent.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(name: str, path: Path) -> set[str]:
    """Every module that `path` may import, and the packages around them; for `from a import b`, both `a` and `a.b`."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            named |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return {".".join(parts[:length]) for parts in (module.split(".") for module in named) for length in range(1, len(parts) + 1)}
