"""Which language a text is in, by py3langid (Lui and Baldwin 2012), whose model comes with its wheel: nothing is downloaded.

The idea: a language shows in a few hundred characters, so three windows of a long text are enough, and as fast for a book as for a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow

from openhearth.data.batches import Judged, Why, judged, texts_of, with_column
from openhearth.data.profiles import Profile
from openhearth.errors import HearthError

WINDOW, WINDOWS = 150, 3
"""Characters of a window, and how many of them, from the beginning, the middle and the end."""


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise HearthError(
            "identifying languages needs py3langid; install it with: pip install 'openhearth[web]', or leave out languages"
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> tuple[str, float]:
    """The ISO 639-1 code of a text's language and how certain it is, 0 to 1. Raises HearthError where py3langid is not installed."""
    if len(text) > WINDOW * WINDOWS:
        middle = (len(text) - WINDOW) // 2
        text = " ".join((text[:WINDOW], text[middle : middle + WINDOW], text[-WINDOW:]))
    name, certainty = _identifier().classify(text)
    return str(name), float(certainty)


def identify(batch: pyarrow.RecordBatch, profiles: Mapping[str, Profile]) -> Judged:
    """The stage: names the language of documents whose profile asks for some, and leaves out those in others."""
    names = batch.column("profile").to_pylist()
    languages: list[str] = batch.column("language").to_pylist()
    reasons: list[Why | None] = [None] * len(names)
    for place, (name, text) in enumerate(zip(names, texts_of(batch), strict=True)):
        profile = profiles[name]
        if not profile.languages:
            continue
        languages[place], certainty = language_of(text)
        if languages[place] not in profile.languages:
            reasons[place] = Why("languages", languages[place], ", ".join(profile.languages))
        elif certainty < profile.min_language:
            reasons[place] = Why("min_language", f"{certainty:.3f} {languages[place]}", f"at least {profile.min_language}")
    return judged(with_column(batch, "language", languages), "language", reasons)
