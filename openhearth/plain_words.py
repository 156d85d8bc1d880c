"""What pydantic found wrong, in the words of someone who wrote a recipe: what the key must be, what it is, what may have been meant."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from openhearth.errors import nearest


def in_plain_words(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """One of `ValidationError.errors()` as the end of a sentence that begins with the key."""
    kind, value, limits = error["type"], shown(error["input"]), error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys(model, error["loc"][:-1])
        return f"unknown key{nearest(str(error['loc'][-1]), known)}; the keys are {', '.join(known) or 'none'}"
    if kind == "literal_error":
        allowed = re.findall("'([^']*)'", limits["expected"])
        return f"must be {limits['expected']}, not {value}{nearest(str(error['input']), allowed)}"
    if kind == "string_pattern_mismatch":
        return f"{value} has characters that are not allowed here"
    if kind in ("value_error", "assertion_error"):
        return str(limits.get("error", error["msg"]))
    if kind in _WANTED:
        return _WANTED[kind].format(**limits) + ("" if kind in _WITHOUT_VALUE else f", not {value}")
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {value}"


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the record at `path` inside `model`."""
    for name in path:
        inner = model.model_fields[str(name)].annotation if str(name) in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


_WITHOUT_VALUE = ("missing", "string_too_short", "string_too_long")
_WANTED = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "tuple_type": 'must be a list, such as ["a", "b"]',
    "list_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a table",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "string_too_short": "is too short (characters at least: {min_length})",
    "string_too_long": "is too long (characters at most: {max_length})",
}


def shown(value: Any) -> str:
    """A value as it stands in a TOML file, cut when it is long."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict | list) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
