"""Reference pages of Python modules, in the manner of pydoc: names, signatures and docstrings.

A module with a source is read, never imported: its page comes from the syntax tree. A compiled module has no source, so a child
process imports it and prints what `inspect` finds. The child keeps its crashes, its output and its state to itself, and this
file is also its program, which is why it imports nothing but the standard library.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

IMPORT_SECONDS = 60  # for all compiled modules together; they need less than one


def page(module: str, about: str, entries: Iterable[str]) -> str:
    """One page: the module's name, its docstring, then its classes and functions."""
    return "\n\n".join(["# " + module, *([about] if about else []), *entries]) + "\n"


def indented(text: str) -> str:
    """`text` moved right by one level, blank lines left blank."""
    return "\n".join("    " + line if line.strip() else "" for line in text.split("\n"))


def entry(head: str, about: str) -> str:
    """A heading with its docstring below, one level in."""
    return f"{head}\n{indented(about)}" if about else head


# -- from the syntax tree ---------------------------------------------------------------------------------------------------


def from_source(module: str, tree: ast.Module) -> str:
    """The page of a module from its syntax tree: every public class, method and function; empty when nothing has a docstring."""
    about = ast.get_docstring(tree) or ""
    entries = [text for node in tree.body for text in _described(node)]
    return page(module, about, entries) if about or entries else ""


def _described(node: ast.stmt) -> Iterator[str]:
    """The entry of a class or a function: only if it, or something in it, has a docstring."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        about = ast.get_docstring(node)
        if about and _public(node.name):
            yield entry(_signature(node), about)
    elif isinstance(node, ast.ClassDef) and _public(node.name):
        about = ast.get_docstring(node) or ""
        inner = [text for child in node.body for text in _described(child)]
        if about or inner:
            bases = ", ".join(ast.unparse(base) for base in [*node.bases, *(keyword.value for keyword in node.keywords)])
            head = f"class {node.name}({bases})" if bases else f"class {node.name}"
            yield entry(head, "\n\n".join([*([about] if about else []), *inner]))


def _public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{keyword} {node.name}({ast.unparse(node.args)}){returns}"


def parse(data: bytes) -> ast.Module | None:
    """The syntax tree of a source, or None when this Python cannot parse it (templates, other versions)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old sources are none of the user's business
        try:
            return ast.parse(data)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


# -- from compiled modules, in a child process ------------------------------------------------------------------------------


def from_compiled(modules: list[str]) -> dict[str, str | None]:
    """The page of each compiled module of this Python: empty when it has no docstrings, None when it cannot be imported."""
    pages: dict[str, str | None] = dict.fromkeys(modules)
    left = list(modules)
    while left and sys.executable:
        answers = _ask_child(left)
        pages.update(answers)
        # The child died on the first module that it did not answer for: go on behind it.
        left = left[len(answers) + 1 :]
    return pages


def _ask_child(modules: list[str]) -> dict[str, str | None]:
    # -I -S: no site-packages, no user site, no PYTHON* variables; a bare environment, so that the pages are the same everywhere.
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(__file__).resolve())]
    environment = {"PATH": os.environ.get("PATH", ""), "TERM": "dumb"}
    for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):  # a Python may need it to find its own library
        if name in os.environ:
            environment[name] = os.environ[name]
    try:
        done = subprocess.run(
            command, input=json.dumps(modules).encode(), capture_output=True, timeout=IMPORT_SECONDS, env=environment, check=False
        )
        output = done.stdout
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
    return dict(json.loads(line) for line in output.split(b"\n")[:-1])  # the last is empty, or torn by the child's death


def _child() -> None:
    """Read a list of module names, answer each with a line of JSON: [name, page or null]."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a module prints must not stand between the answers
    for name in json.load(sys.stdin):
        try:
            text = _from_module(name)
        except Exception:
            text = None
        answers.write(json.dumps([name, text]) + "\n")
        answers.flush()


def _from_module(name: str) -> str:
    module = __import__(name, fromlist=["*"])
    entries = []
    for attribute in sorted(vars(module)):
        value = vars(module)[attribute]
        if attribute.startswith("_"):
            continue
        if inspect.isclass(value) and value.__name__ == attribute:
            members = [text for member in sorted(vars(value)) for text in _member(value, member)]
            about = _docstring(value)
            if about or members:
                bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
                entries.append(
                    entry(f"class {attribute}({bases})" if bases else f"class {attribute}", "\n\n".join(filter(None, [about, *members])))
                )
        elif inspect.isbuiltin(value) and (about := _docstring(value)):
            entries.append(entry(f"def {attribute}{_text_signature(value)}", about))
    about = _docstring(module)
    return page(name, about, entries) if about or entries else ""


def _member(owner: type, name: str) -> Iterator[str]:
    """A method that the class defines itself and documents; what every object has is left out."""
    value = vars(owner)[name]
    about = _docstring(value)
    if name.startswith("_") or not about:
        return
    if inspect.isroutine(value) or isinstance(value, classmethod | staticmethod):
        yield entry(f"def {name}{_text_signature(getattr(owner, name))}", about)
    elif inspect.isdatadescriptor(value):
        yield entry(name, about)


def _docstring(value: object) -> str:
    about = getattr(value, "__doc__", None)
    return inspect.cleandoc(about) if isinstance(about, str) else ""


def _text_signature(value: object) -> str:
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except Exception:  # inspect evaluates the defaults it finds in the text, and passes on whatever that raises
        return "(...)"
    return "(...)" if " at 0x" in text else text  # an address would differ from run to run


if __name__ == "__main__":
    _child()
