"""Profiles: which rules of quality hold for which kind of source, and with which thresholds. The tables are in `profiles.toml`.

A key that is absent is a rule that is off; a data recipe overlays its own keys, or makes a profile of its own from another (`like`).
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from openhearth.errors import RecipeError, nearest

Share = Field(default=None, ge=0, le=1)
Count = Field(default=None, ge=0)


class Profile(BaseModel):
    """Thresholds by rule; None is off. `min_` and `max_` say what a document must have to stay."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    normalise: Literal["code", "prose", "wrapped"] = "prose"
    """Line ends only; Unicode NFC and no control characters; or also hard-wrapped lines joined to paragraphs."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that stay; empty: all, and nothing is identified."""
    min_language: float = Field(default=0.65, ge=0, le=1)
    """Certainty of the language that is named."""
    min_words: int | None = Count
    """Spaced words that are not punctuation alone."""
    max_words: int | None = Count
    min_mean_word_length: float | None = Count
    """Characters."""
    max_mean_word_length: float | None = Count
    max_hashes_per_word: float | None = Count
    max_ellipses_per_word: float | None = Count
    max_bullet_lines: float | None = Share
    max_ellipsis_lines: float | None = Share
    min_alpha_words: float | None = Share
    """Share of the words with a letter."""
    min_stop_words: int | None = Count
    """Of the eight words the, be, to, of, and, that, have, with: how many must occur. For English."""
    max_duplicate_paragraphs: float | None = Share
    max_duplicate_paragraphs_characters: float | None = Share
    max_duplicate_lines: float | None = Share
    max_duplicate_lines_characters: float | None = Share
    max_top_2_gram: float | None = Share
    max_top_3_gram: float | None = Share
    max_top_4_gram: float | None = Share
    max_repeated_5_grams: float | None = Share
    max_repeated_6_grams: float | None = Share
    max_repeated_7_grams: float | None = Share
    max_repeated_8_grams: float | None = Share
    max_repeated_9_grams: float | None = Share
    max_repeated_10_grams: float | None = Share
    lorem_ipsum: bool | None = None
    """False: a text with "lorem ipsum" goes."""
    curly_brackets: bool | None = None
    """False: a text with a curly bracket goes."""
    min_sentences: int | None = Count
    """Ends of sentences."""
    min_line_punctuation: float | None = Share
    """Share of lines that end in punctuation."""
    max_short_lines: float | None = Share
    """Share of lines of at most 30 characters."""
    max_repeated_line_characters: float | None = Share
    max_newlines_per_word: float | None = Count
    max_line_characters: int | None = Count
    max_mean_line_characters: float | None = Count
    min_alpha_characters: float | None = Share

    def wants(self, *beginnings: str) -> bool:
        """Whether any rule whose name begins so is on."""
        return any(getattr(self, name) is not None for name in Profile.model_fields if name.startswith(beginnings))


@functools.cache
def shipped() -> dict[str, dict[str, Any]]:
    """The profiles that come with OpenHearth, as plain tables."""
    return tomllib.loads((files("openhearth.data") / "profiles.toml").read_text())


def profile_of(name: str, overlays: Mapping[str, Mapping[str, Any]]) -> Profile:
    """The shipped profile `name` with the recipe's own keys over it; raises RecipeError for a name that is neither."""
    own = dict(overlays.get(name, {}))
    base = str(own.pop("like", name))
    tables = shipped()
    if base not in tables:
        raise RecipeError(
            f"profile '{base}': unknown{nearest(base, [*tables, *overlays])}; the profiles are {', '.join([*tables, *overlays])}"
        )
    return Profile.model_validate_json(json.dumps({**tables[base], **own}, default=str), strict=True)
