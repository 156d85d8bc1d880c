"""Reading a constitution from a file: TOML or JSON of ours, or Anthropic's published files unchanged, one of them or their folder.

Ours is a record, so that one declaration is the schema of both forms. Anthropic's are known by their shape: a table of
{prompt, edit_request} (critiques), a list of texts that end in "Options:" (comparisons), lists of transcripts (few-shot examples).
What is wrong is said with the line and the key.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from openhearth.align.constitution import TEMPLATES, Constitution, Example, Principle, Templates, Test
from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small
from openhearth.plain_words import in_plain_words
from openhearth.toml_lines import syntax_error

MAX_BYTES = 4_000_000
SHIPPED = Path(__file__).parent / "constitutions"
"""The constitutions that come with the package; one of them is named by its stem."""

_OPTIONS = " Options:"
_RECORDS: dict[str, type[BaseModel]] = {"principles": Principle, "templates": Templates, "examples": Example, "tests": Test}
Place = Callable[[tuple[int | str, ...]], str]
"""From the path of a key to 'file.toml:12'."""


def load(path: Path | str) -> Constitution:
    """The constitution in a file, in a folder of Anthropic's files, or with a name that is shipped.

    Raises HearthError naming file, line and key. What can be read and yet is not right is for `constitution_check.lint`.
    """
    place = Path(path)
    if not place.exists() and place.parent == Path() and (SHIPPED / f"{place}.toml").is_file():
        place = SHIPPED / f"{place}.toml"
    if place.is_dir():
        return _published_folder(place)
    if not place.exists():
        known = [each.stem for each in sorted(SHIPPED.glob("*.toml"))]
        raise HearthError(f"{path}: no such file{nearest(str(path), known)}; constitutions that come with hearth: {', '.join(known)}")
    text = read_small(place, limit=MAX_BYTES, what="constitution", suffix=place.suffix or ".toml")
    return parse(text, str(path), toml=place.suffix != ".json")


def parse(text: str, where: str, *, toml: bool) -> Constitution:
    """The constitution in a text; `where` is what errors call it."""
    content = _toml(text, where) if toml else _json(text, where)
    if not toml:
        published = _published(content, where)
        if published is not None:
            return _validated(published, lambda path: where)
    if not isinstance(content, dict):
        raise HearthError(f"{where}: not a constitution; write a table with the keys name and principles, or name a published file")
    lines = toml_places(text) if toml else {}

    def place(path: tuple[int | str, ...]) -> str:
        for length in range(len(path), 0, -1):
            if (line := lines.get(tuple(map(str, path[:length])))) is not None:
                return f"{where}:{line}"
        return where

    return _validated(content, place)


def _validated(content: Mapping[str, Any], place: Place) -> Constitution:
    try:
        return Constitution.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])  # a misspelt key is missing too
        path = first["loc"]
        named = [part for part in path if not isinstance(part, int)]
        spot = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        holder = next((_RECORDS[part] for part in reversed(named[:-1]) if part in _RECORDS), Constitution)
        said = in_plain_words({**first, "loc": tuple(named[-1:])}, holder)
        raise HearthError(f"{place(path)}: {spot}: {said}") from None


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HearthError(syntax_error(where, text, error)) from None
    except (RecursionError, ValueError):
        raise HearthError(f"{where}: values are nested too deeply or a number is too long; no constitution is like that") from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_twice)
    except json.JSONDecodeError as error:
        raise HearthError(f"{where}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except (RecursionError, ValueError) as error:
        reason = "values are nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise HearthError(f"{where}: {reason}") from None


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one table; give each principle its own id")
    return table


_HEADER = re.compile(r"^\s*\[\[\s*([A-Za-z0-9_.-]+)\s*\]\]")
_TABLE = re.compile(r"^\s*\[\s*([A-Za-z0-9_.-]+)\s*\]")
_KEY = re.compile(r"^\s*([A-Za-z0-9_-]+)\s*=")


def toml_places(text: str) -> dict[tuple[str, ...], int]:
    """The line of every key of a TOML text, with the numbers of arrays of tables in the path: ('principles', '2', 'revision')."""
    lines: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""
    for number, line in enumerate(text.split("\n"), 1):
        if not inside:
            if found := _HEADER.match(line):
                path: tuple[str, ...] = ()
                for part in found[1].split("."):
                    path = (*path, part)
                    if len(path) - sum(each.isdigit() for each in path) < len(found[1].split(".")):
                        path = (*path, str(counts.get(path, 0)))
                counts[path] = counts.get(path, -1) + 1
                table = (*path, str(counts[path]))
                lines.setdefault(table, number)
            elif found := _TABLE.match(line):
                table = tuple(found[1].split("."))
                lines.setdefault(table, number)
            elif found := _KEY.match(line):
                lines.setdefault((*table, found[1]), number)
        for quotes in re.findall(r'"""|\'\'\'', line):
            inside = quotes if not inside else "" if quotes == inside else inside
    return lines


# -- Anthropic's files ------------------------------------------------------------------------------------------------------


def _published(content: Any, where: str) -> dict[str, Any] | None:
    """A constitution's content from one of the published files; None when it has another shape."""
    name = Path(where).stem[:64] or "published"
    if isinstance(content, dict) and content and all(isinstance(each, dict) and "edit_request" in each for each in content.values()):
        return {"name": name, "principles": [_critic(key, each, where) for key, each in content.items()]}
    if isinstance(content, list) and content and all(isinstance(each, str) for each in content):
        if all(each.endswith(_OPTIONS) for each in content):
            principles = [{"id": f"comparison{number}", "comparison": _comparison(each)} for number, each in enumerate(content)]
            return {"name": name, "principles": principles}
        raise HearthError(f"{where}: a list of transcripts has no principles; name the folder that holds it together with the instructions")
    return None


def _critic(key: str, each: dict[str, Any], where: str) -> dict[str, Any]:
    prompts, revision = each.get("prompt"), each["edit_request"]
    if not isinstance(prompts, list) or len(prompts) != 1 or not isinstance(prompts[0], str) or not isinstance(revision, str):
        raise HearthError(f"{where}: {key}: needs one text in the list 'prompt' and a text 'edit_request'")
    texts = {"critique": prompts[0], "revision": revision}
    return {"id": key, **{kind: _unframed(kind, text, f"{where}: {key}") for kind, text in texts.items()}}


def _unframed(kind: str, text: str, where: str) -> str:
    """What stands at {principle} of the default template."""
    before, after = TEMPLATES[kind].split("{principle}")
    if not (text.startswith(before) and text.endswith(after) and len(text) > len(before) + len(after)):
        raise HearthError(f"{where}: the {kind} request must begin with {before!r} and end with {after!r}, as the published ones do")
    return text[len(before) : len(text) - len(after)]


def _comparison(text: str) -> str:
    return text.removesuffix(_OPTIONS).removeprefix("\n")


def _published_folder(folder: Path) -> Constitution:
    """Every file of a folder of Anthropic's prompts that is there, as one constitution."""
    principles: list[Any] = []
    few_shot: list[str] = []
    for file, kind in (("CritiqueRevisionInstructions.json", dict), ("RLMadisonInstructions.json", list)):
        if (folder / file).is_file():
            content = _json(read_small(folder / file, limit=MAX_BYTES, what="constitution", suffix=".json"), str(folder / file))
            found = _published(content, str(folder / file))
            if found is None or not isinstance(content, kind):
                raise HearthError(f"{folder / file}: not in the form of the published file of that name")
            principles += found["principles"]
    if not principles:
        raise HearthError(
            f"{folder}: holds neither CritiqueRevisionInstructions.json nor RLMadisonInstructions.json; name a constitution's file"
        )
    shots = folder / "CritiqueRevisionFewShotPrompts.json"
    if shots.is_file():
        few_shot = _json(read_small(shots, limit=MAX_BYTES, what="constitution", suffix=".json"), str(shots))
    return _validated(
        {"name": folder.resolve().name[:64] or "published", "principles": principles, "few_shot": few_shot}, lambda _: str(folder)
    )
