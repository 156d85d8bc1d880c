"""A data recipe: which sources a corpus is built from and what every stage asks, in TOML or from paths on the command line.

    name = "mixed"
    [[source]]
    path = "books/"
    profile = "book"
    licence = "CC0-1.0"
    [duplicates]
    similarity = 0.75

One record is the schema of the file and of `--set`; a mistake is one line with the place, the key and what may have been meant.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openhearth.data.profiles import Profile, profile_of, shipped
from openhearth.errors import RecipeError
from openhearth.inputs import read_small
from openhearth.plain_words import in_plain_words
from openhearth.toml_lines import key_lines, syntax_error

MAX_BYTES = 1_000_000


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Source(_Record):
    """Files of one origin."""

    path: str = Field(min_length=1)
    """A file or a folder."""
    name: str = ""
    """How documents of it are named: the first part of their uri. Without, nothing, or the source's number where there are several."""
    profile: str = ""
    """The profile of all its documents; without, by the kind of file (docs/data.md)."""
    licence: str = ""
    """SPDX identifier of what states no other licence itself."""
    evidence: str = ""
    """Where that licence is written, for the record."""
    date: str = ""
    """When it was fetched or read, for the record."""
    text_field: str = "text"
    """The field, or column, of a table that holds the text."""
    group: Literal["mix", "aside"] = "mix"
    """"aside": kept and shown, but not trained on."""


class Duplicates(_Record):
    """What counts as a copy."""

    exact: bool = True
    """Documents with equal text, after cleaning."""
    near: bool = True
    """Documents whose word n-grams have an estimated Jaccard similarity of at least `similarity`."""
    similarity: float = Field(default=0.7, gt=0, le=1)
    permutations: int = Field(default=112, ge=8, le=1024)
    bands: int = Field(default=14, ge=1, le=128)
    ngram: int = Field(default=5, ge=1, le=32)
    """Words of an n-gram."""
    passages: Literal["none", "paragraph", "line"] = "none"
    """Paragraphs or lines that stood in an earlier document are taken out of later ones."""
    min_passage: int = Field(default=100, ge=1)
    """Characters: shorter passages may repeat."""
    min_left: float = Field(default=0.5, ge=0, le=1)
    """Share of a document's characters that must be left, or all of it goes."""
    against: tuple[str, ...] = ()
    """Folders of corpora built earlier."""
    loser: Literal["new", "earlier"] = "new"
    """Which side's copy goes; for "earlier" the list superseded.jsonl says what to remove there."""


class Evaluations(_Record):
    """Whose questions must not be trained on."""

    files: tuple[str, ...] = ()


class Licences(_Record):
    """What may enter the mix."""

    allow: tuple[str, ...] = ()
    """SPDX identifiers; empty: whatever the rules below let in."""
    share_alike: Literal["mix", "apart", "refuse"] = "mix"
    copyleft: Literal["mix", "apart", "refuse"] = "mix"
    non_commercial: Literal["mix", "apart", "refuse"] = "refuse"
    no_derivatives: Literal["mix", "apart", "refuse"] = "refuse"
    unknown: Literal["mix", "apart", "refuse"] = "mix"
    """No licence was found, or one that the table does not know."""


class DataRecipe(_Record):
    """A whole data recipe."""

    name: str = Field(default="corpus", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    source: tuple[Source, ...] = Field(min_length=1)
    profile: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """[profile.NAME]: keys laid over a shipped profile, or a new one with `like = "web"`."""
    personal: bool = True
    """Personal data and keys become placeholders."""
    toxic_words: str = ""
    """A file of words, one a line: documents with more than `max_toxic` of their words on it go. Off by default."""
    max_toxic: float = Field(default=0.01, ge=0, le=1)
    duplicates: Duplicates = Duplicates()
    evaluations: Evaluations = Evaluations()
    licences: Licences = Licences()
    buckets: int = Field(default=16, ge=1, le=4096)
    """Files of the corpus; which one a document is in depends on its id alone, so that a removal rewrites few."""

    def profiles(self) -> dict[str, Profile]:
        """Every profile by name; raises RecipeError for one that cannot be."""
        return {name: profile_of(name, self.profile) for name in dict.fromkeys([*shipped(), *self.profile])}


def load(path: Path, sets: Sequence[str] = ()) -> DataRecipe:
    """Read a data recipe. Raises RecipeError: one line with the place, the key and what is wrong."""
    text = read_small(path, limit=MAX_BYTES, what="data recipe", suffix=".toml")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(syntax_error(str(path), text, error)) from None
    except RecursionError:
        raise RecipeError(f"{path}: values are nested too deeply") from None
    return _built(content, sets, str(path), key_lines(text))


def of_paths(paths: Sequence[str], shared: Mapping[str, str], sets: Sequence[str] = ()) -> DataRecipe:
    """A recipe of one source for each path; `shared` are keys that hold for all of them."""
    return _built({"source": [{"path": path, **shared} for path in paths]}, sets, "hearth data build", {})


def _built(content: dict[str, Any], sets: Sequence[str], where: str, lines: Mapping[tuple[str, ...], int]) -> DataRecipe:
    given = {_set(content, option): f"--set {option}" for option in sets}

    def mistake(error: ValidationError, model: type[BaseModel], inside: tuple[str, ...] = ()) -> RecipeError:
        first = error.errors(include_url=False)[0]
        keys = (*inside, *(str(part) for part in first["loc"]))
        named = tuple(key for key in keys if not key.isdigit())
        option = next((given[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in given), None)
        line = next((lines[named[:end]] for end in range(len(named), 0, -1) if named[:end] in lines), None)
        if first["loc"][:1] == ("source",) and len(first["loc"]) > 2:
            model, first = Source, {**first, "loc": first["loc"][2:]}
        return RecipeError(
            f"{option or (f'{where}:{line}' if line else where)}: {'.'.join(named) or 'recipe'}: {in_plain_words(first, model)}"
        )

    try:
        recipe = DataRecipe.model_validate_json(json.dumps(content, default=str), strict=True)
    except ValidationError as error:
        raise mistake(error, DataRecipe) from None
    for name in recipe.profile:
        try:
            profile_of(name, recipe.profile)
        except ValidationError as error:
            raise mistake(error, Profile, ("profile", name)) from None
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from None
    return recipe


def _set(content: dict[str, Any], option: str) -> tuple[str, ...]:
    name, equals, value = option.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if not equals or not all(path):
        raise RecipeError(f"--set {option[:60]}: write --set KEY=VALUE, such as --set duplicates.similarity=0.8")
    here: Any = content
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise RecipeError(f"--set {option[:60]}: '{part}' holds no keys")
    try:
        here[path[-1]] = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        here[path[-1]] = value.strip()
    return path
