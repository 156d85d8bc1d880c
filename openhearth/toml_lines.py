"""Where the keys of a TOML text stand. `tomllib` gives values without places; an error message needs the line.

The text is known to be valid TOML when it comes here, so a scan by lines that follows tables and skips multi-line strings is enough.
Keys inside inline tables and arrays have no line of their own; the caller falls back to the key that holds them.
"""

from __future__ import annotations

import re
import tomllib

_TABLE = re.compile(r"^\s*\[{1,2}\s*(?P<key>[^\[\]#=]+?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?P<key>(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line (from 1) of every table and of every key that begins a line; for repeats the first."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the quotes of a multi-line string that is still open
    for number, line in enumerate(text.split("\n"), 1):
        if not inside:
            if found := _TABLE.match(line):
                table = _parts(found["key"])
                _note(lines, table, number)
            elif found := _KEY.match(line):
                _note(lines, table + _parts(found["key"]), number)
        for quotes in re.findall(r'"""|\'\'\'', line):
            inside = quotes if not inside else "" if quotes == inside else inside
    return lines


def syntax_error(where: str, text: str, error: tomllib.TOMLDecodeError) -> str:
    """'recipe.toml:3: not TOML: ... (column 5)' from the parser's own words."""
    message = str(error).replace("Cannot overwrite a value", "a key stands twice")
    place = re.search(r"\s*\(at line (\d+), column (\d+)\)$", message)
    if place:
        return f"{where}:{place[1]}: not TOML: {message[: place.start()]} (column {place[2]})"
    last = text.rstrip().count("\n") + 1
    return f"{where}:{last}: not TOML: {message.replace(' (at end of document)', '')} (at the end of the file)"


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(key))


def _note(lines: dict[tuple[str, ...], int], path: tuple[str, ...], number: int) -> None:
    for length in range(1, len(path) + 1):
        lines.setdefault(path[:length], number)
