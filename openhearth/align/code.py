"""Python source read as data: its functions and methods, each as a piece of code that stands by itself. Nothing is ever run.

The parser says where a function begins and ends; the code is then taken from the source lines as they are, and only the
indentation of a method is removed, so that what the model learns to write is what people wrote.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

MAX_SOURCE = 4_000_000
"""Characters; longer sources are not parsed (the tree takes some 50 times the memory of the text)."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A top-level function or a method with a docstring."""

    name: str
    signature: str
    """As after `def`, on one line: `name(a, b=None) -> int`."""
    docstring: str
    """With the indentation of its lines removed."""
    decorators: tuple[str, ...]
    owner: str
    """The class of a method; empty for a function."""
    code: str
    """Decorators, header, docstring and body; not indented, without a line end at its end."""
    opening: str
    """The first lines of `code`, up to the end of the docstring; empty when the body shares a line with it or there is none."""


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None when `source` is not valid Python for this interpreter or is too large or too deep for its parser."""
    if len(source) > MAX_SOURCE:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old code are warnings, not errors
        try:
            return ast.parse(source.removeprefix("\ufeff"))
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: NUL bytes, unpaired surrogates
            return None


def parse_piece(source: str) -> tuple[ast.Module, str] | None:
    """The syntax tree of `source` and the source it is of, or None.

    A piece cut out of a longer file may begin and end inside a function: then it is read from its first to its last top-level
    definition.
    """
    tops = [found.start() for found in re.finditer(r"(?m)^(?:def |class |async def |@)", source)]
    pieces = [source, *([source[tops[0] :], source[: tops[-1]], source[tops[0] : tops[-1]]] if tops else [])]
    for piece in pieces:
        tree = parse(piece)
        if tree is not None and (tree.body or piece is source):
            return tree, piece
    return None


def defined(source: str) -> list[Definition]:
    """The top-level functions that `source` defines; none when it does not parse."""
    tree = parse(source)
    return [] if tree is None else [node for node in tree.body if isinstance(node, Definition)]


def has_body(node: Definition) -> bool:
    """True when the function says something besides its docstring."""
    return len(node.body) > 1 or ast.get_docstring(node, clean=False) is None


def functions(tree: ast.Module, source: str) -> Iterator[Function | None]:
    """Each top-level function and each method of a class, in the order of the source; None stands for one without a docstring.

    Functions inside functions belong to their parent's code. `tree` is `parse(source)`.
    """
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # the parser's lines; str.splitlines knows others
    return _walk(tree.body, "", lines)


def _walk(body: list[ast.stmt], owner: str, lines: list[str]) -> Iterator[Function | None]:
    for node in body:
        if isinstance(node, Definition):
            docstring = ast.get_docstring(node)
            yield _function(node, docstring, owner, lines) if docstring else None
        elif isinstance(node, ast.ClassDef):
            yield from _walk(node.body, node.name, lines)


def _function(node: Definition, docstring: str, owner: str, lines: list[str]) -> Function:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    assert node.end_lineno is not None and node.body[0].end_lineno is not None
    code = _dedent(lines[first - 1 : node.end_lineno])
    opening = ""
    if len(node.body) > 1 and node.body[1].lineno > node.body[0].end_lineno:
        opening = "\n".join(code[: node.body[0].end_lineno - first + 1])
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return Function(
        name=node.name,
        signature=f"{node.name}({ast.unparse(node.args)}){returns}",
        docstring=docstring,
        decorators=tuple(ast.unparse(decorator) for decorator in node.decorator_list),
        owner=owner,
        code="\n".join(code),
        opening=opening,
    )


def _dedent(lines: list[str]) -> list[str]:
    """Remove the first line's indentation where a line has it; lines of a string further to the left stay as they are."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    if not indent:
        return lines
    return [line[len(indent) :] if line.startswith(indent) else line if line.strip() else "" for line in lines]
