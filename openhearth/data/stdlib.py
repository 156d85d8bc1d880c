"""The Python standard library of the running interpreter as a corpus: real text that is on the user's machine already.

The idea: three kinds of documents (a source file, the reference page of a module, a topic of the language reference), each named
by a path that starts with the version (`python3.11/json/decoder.py`), so that the place where Python is installed leaves no trace.
What is not worth learning from goes by rule, never by a list of files, and every rule's drops are counted.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from openhearth.data import describe
from openhearth.data.documents import Document, Drop
from openhearth.errors import HearthError

LICENCE = "PSF-2.0"

SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "lib-dynload", "_bundled"}
"""Not part of the library's text: caches come and go, packages are the user's, `_bundled` holds the wheels of pip."""

TEST_FOLDERS = {"test", "tests", "idle_test"}
MAX_LINE = 1_000  # characters; hand-written sources stay below 200
MAX_TABLE_SHARE = 0.7  # of a file's characters in lines of nothing but literals
MIN_TABLE = 1_000  # bytes; a short file of constants is no table

TABLE_LINE = re.compile(
    r"""(?:[\[\](){},:;+\- \t]|None|True|False|0[xX][0-9a-fA-F]++|\d[\d_.eE]*+"""
    r"""|[rbuRBU]{0,2}+(?:'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+"))++(?:\\|\#[^\n]*+)?"""
)
"""A line with no name in it: strings, numbers, None, True, False and punctuation, perhaps a comment."""

Found = Document | Drop
Progress = Callable[[int, int], None]


def folder() -> Path:
    """The folder of the library's sources; raises HearthError when this Python has them in a zip file or not at all."""
    path = Path(sysconfig.get_path("stdlib"))
    if not (path / "os.py").is_file():
        raise HearthError(
            f"{path}: this Python has no sources of its standard library there; use another Python 3.11+"
            ' (python.org, your distribution, uv) or your own text (source = "text")'
        )
    return path


def version() -> str:
    """The first part of every uri: `python3.11`."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def group_of(module: str) -> str:
    """The family of a module: its top-level name without the marks of an implementation (`_json`, `_pydecimal`, `_io`).

    The compiled or pure twin of a module documents the same functions in the same words, so both must be on the same side.
    """
    top = module.partition(".")[0]
    bare = top.strip("_")
    if top.startswith("_py") and len(bare) > 2:
        bare = bare[2:].strip("_")
    return bare or top


def collect(root: Path, prefix: str, compiled: list[str], progress: Progress) -> Iterator[Found]:
    """Every document of the library below `root` that the rules keep, and a drop for every one that they do not.

    `prefix` starts every uri; `compiled` are the names of modules without source to describe. Sorted by path within each kind.
    """
    evidence = licence_evidence(root, prefix)
    files = list(source_files(root))
    for number, path in enumerate(files):
        progress(number, len(files))
        yield from _of_source(path, root, prefix, evidence)
    progress(len(files), len(files))
    yield from _of_topics(root, prefix, evidence)
    yield from _of_compiled(compiled, prefix, evidence)


def source_files(root: Path) -> Iterator[Path]:
    """Every `.py` file of the library, sorted by path."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("config-"))
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(place, name)


def licence_evidence(root: Path, prefix: str) -> str:
    """Where the licence is written: the library's LICENSE.txt with its digest, else what the interpreter says of itself."""
    file = root / "LICENSE.txt"
    try:
        return f"{prefix}/LICENSE.txt sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    except OSError:
        return "sys.copyright: " + " ".join(sys.copyright.split())


# -- modules with a source --------------------------------------------------------------------------------------------------


def _of_source(path: Path, root: Path, prefix: str, evidence: str) -> Iterator[Found]:
    """The source file, and the reference page of its module when the source is kept."""
    relative = path.relative_to(root)
    uri = f"{prefix}/{relative.as_posix()}"
    module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
    if TEST_FOLDERS & set(relative.parts[:-1]) or path.name.startswith("test_"):
        yield Drop(uri, "test", path.name, "no test suites")
        return
    if path.is_symlink():
        yield Drop(uri, "link", path.name, "regular files of the library")  # Debian's sitecustomize.py belongs to the machine
        return
    try:
        data = path.read_bytes()
    except OSError as error:
        yield Drop(uri, "unreadable", os.strerror(error.errno or 0), "readable files")
        return
    text, drop = judge(uri, data)
    if text is None or drop is not None:
        if drop is not None:
            yield drop
        return
    yield Document(uri, group_of(module), "module", LICENCE, evidence, text)
    tree = describe.parse(data)
    about = describe.from_source(module, tree) if tree else None
    yield _reference(module, about, prefix, evidence, "no_syntax_tree")


def judge(uri: str, data: bytes) -> tuple[str | None, Drop | None]:
    """The text of a source file, or the drop with the first rule that it breaks."""
    if not data.strip():
        return None, Drop(uri, "empty", f"{len(data)} bytes", "at least one visible character")
    if b"\0" in data:
        return None, Drop(uri, "binary", f"NUL at byte {data.index(0):,}", "no NUL bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, Drop(uri, "not_utf8", f"byte {error.start:,}", "UTF-8")
    longest = max(map(len, text.splitlines()))
    if longest > MAX_LINE:
        return None, Drop(uri, "long_line", f"{longest:,} characters", f"at most {MAX_LINE:,}")
    share = table_share(text)
    if share > MAX_TABLE_SHARE and len(data) >= MIN_TABLE:
        return None, Drop(uri, "table", f"{share:.3f}", f"at most {MAX_TABLE_SHARE} of the characters in lines of nothing but literals")
    return text, None


def table_share(text: str) -> float:
    """The share of a source's characters that are in lines of nothing but literals: near 1 for generated tables, near 0 for code."""
    total = rows = 0
    for line in map(str.strip, text.splitlines()):
        total += len(line)
        if TABLE_LINE.fullmatch(line) and any(mark in line for mark in "'\"0123456789"):
            rows += len(line)
    return rows / total if total else 0.0


def _reference(module: str, about: str | None, prefix: str, evidence: str, missing: str) -> Found:
    """The page of a module; `about` is None when there was nothing to make it from, for the reason `missing`."""
    uri = f"{prefix}/reference/{module}"
    if about is None:
        return Drop(uri, missing, module, "a module that this Python can read")
    if not about:
        return Drop(uri, "no_docstring", module, "at least one docstring")
    return Document(uri, group_of(module), "reference", LICENCE, evidence, about)


# -- topics and compiled modules --------------------------------------------------------------------------------------------


def _of_topics(root: Path, prefix: str, evidence: str) -> Iterator[Found]:
    """The topics of the language reference that `help()` shows. Some distributions leave them out: then there are none."""
    for name, text in sorted(read_topics(root / "pydoc_data" / "topics.py").items()):
        uri = f"{prefix}/topics/{name}"
        if text.strip():
            yield Document(uri, "pydoc_data", "topic", LICENCE, evidence, text)
        else:
            yield Drop(uri, "empty", "0 bytes", "at least one visible character")


def read_topics(path: Path) -> dict[str, str]:
    """The dictionary that `topics.py` assigns to `topics`, by its syntax tree; empty when there is no such file."""
    import ast

    if not path.is_file():
        return {}
    tree = describe.parse(path.read_bytes())
    for node in tree.body if tree else []:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {
                key.value: value.value
                for key, value in pairs
                if isinstance(key, ast.Constant)
                and isinstance(value, ast.Constant)
                and isinstance(key.value, str)
                and isinstance(value.value, str)
            }
    return {}


def compiled_modules(root: Path) -> list[str]:
    """The names of this Python's modules without a Python source: built in, or a shared library in `lib-dynload`."""
    names = set(sys.builtin_module_names)
    places = {root / "lib-dynload", Path(sysconfig.get_path("platstdlib")) / "lib-dynload"}
    for place in places:
        if place.is_dir():
            names.update(path.name.partition(".")[0] for path in place.iterdir() if path.suffix == ".so")
    return sorted(names)


def _of_compiled(modules: list[str], prefix: str, evidence: str) -> Iterator[Found]:
    wanted = [name for name in modules if not is_test_module(name)]
    pages = describe.from_compiled(wanted)
    for name in modules:
        if name in pages:
            yield _reference(name, pages[name], prefix, evidence, "not_importable")
        else:
            yield Drop(f"{prefix}/reference/{name}", "test", name, "no test suites")


def is_test_module(name: str) -> bool:
    """True for the compiled modules that exist to test the interpreter: `_testcapi`, `_ctypes_test`, `xxlimited`."""
    return "test" in name or name.lstrip("_").startswith("xx")
