"""Which files of a source tree its `.gitignore` files leave out: the rules of gitignore(5), without git.

The idea: each pattern becomes one regular expression over the path below the folder that holds the file; the last that matches decides.
A folder that is ignored is not looked into, so nothing below it can be taken back, as in git.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A line of a `.gitignore`: what it matches below its folder, whether it takes back, and whether it is for folders only."""

    matches: re.Pattern[str]
    negated: bool
    folders: bool


def rules_of(text: str) -> tuple[Rule, ...]:
    """The rules of a `.gitignore`; lines that cannot match anything are left out."""
    found = []
    for line in text.splitlines():
        pattern = re.sub(r"(?<!\\)\s+$", "", line)
        if not pattern or pattern.startswith("#"):
            continue
        negated = pattern.startswith("!")
        pattern = pattern[1:] if negated else pattern
        pattern = pattern[1:] if pattern.startswith(("\\#", "\\!")) else pattern
        folders = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        anchored = "/" in pattern
        if expression := _expression(pattern.lstrip("/")):
            found.append(Rule(re.compile(expression if anchored else f"(?:.*/)?{expression}"), negated, folders))
    return tuple(found)


def ignored(path: str, folder: bool, rules: tuple[Rule, ...]) -> bool | None:
    """Whether `path`, below the folder of the rules, is left out; None when no rule is about it."""
    for rule in reversed(rules):
        if (folder or not rule.folders) and rule.matches.fullmatch(path):
            return not rule.negated
    return None


def _expression(pattern: str) -> str:
    """A glob as a regular expression: * and ? stop at "/", ** does not, [...] is a class."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("/**", at) and at + 3 == len(pattern):
            parts.append("/.+")
            at += 3
        elif pattern[at] == "*":
            while at < len(pattern) and pattern[at] == "*":
                at += 1
            parts.append("[^/]*")
        elif pattern[at] == "?":
            parts.append("[^/]")
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            parts.append("(?!/)[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]")
            at = end + 1
        else:
            at += pattern[at] == "\\" and at + 1 < len(pattern)
            parts.append(re.escape(pattern[at]))
            at += 1
    return "".join(parts)
