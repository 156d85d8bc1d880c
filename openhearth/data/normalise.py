"""Texts in one form: line ends, Unicode NFC, no control or invisible characters, hard-wrapped lines joined where a profile asks for it.

What a source holds keeps its bytes in the source; a document's `offset` and `raw_bytes` say where. Code changes its line ends only.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

import pyarrow

from openhearth.data.batches import Judged, Why, judged, noted, texts_of, with_column
from openhearth.data.profiles import Profile

Form = Literal["code", "prose", "wrapped"]

_INVISIBLE = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]")
_TRAILING = re.compile(r"[ \t\f]+(?=\n)")
_GAPS = re.compile(r"\n{4,}")

WRAP = range(50, 91)
"""Characters of the longest line of a paragraph that was wrapped by hand."""
WRAPPED_SHARE = 0.6
"""Of the lines that another line follows in their paragraph: how many must be near the width before anything is joined."""


def normalised(text: str, form: Form) -> str:
    """`text` in one form; doing it again changes nothing."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if form == "code":
        return text
    text = _INVISIBLE.sub("", text)  # before NFC: what they parted may belong together
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if any(blank + "\n" in text for blank in " \t\f"):  # the expression alone would stop at every space
        text = _TRAILING.sub("", text)
    text = _GAPS.sub("\n\n\n", text).rstrip(" \t\f\n").lstrip("\n")
    return rewrapped(text) if form == "wrapped" else text


def rewrapped(text: str) -> str:
    """Hard-wrapped paragraphs on one line each; verse, lists, tables and texts that are not wrapped stay as they are."""
    paragraphs = text.split("\n\n")
    inner = [line for paragraph in paragraphs for line in paragraph.split("\n")[:-1] if line]
    if len(inner) < 8:
        return text
    lengths = sorted(map(len, inner))
    width = lengths[int(0.95 * (len(lengths) - 1))]
    near = sum(width - 18 <= length <= width for length in lengths)
    if width not in WRAP or near < WRAPPED_SHARE * len(lengths):
        return text
    return "\n\n".join(_joined(paragraph, width) for paragraph in paragraphs)


def _joined(paragraph: str, width: int) -> str:
    lines = paragraph.split("\n")
    full = all(len(line) + 1 + len(following.split(" ", 1)[0]) > width - 12 for line, following in itertools.pairwise(lines))
    flush = not any(line.startswith((" ", "\t", "-", "*", "|", "#", ">")) for line in lines[1:])
    return " ".join(line.strip() for line in lines) if full and flush and len(lines) > 1 else paragraph


def normalise(batch: pyarrow.RecordBatch, profiles: Mapping[str, Profile]) -> Judged:
    """The stage: texts with nothing to see are left out; `edits` says which texts were re-flowed."""
    texts, names = texts_of(batch), batch.column("profile").to_pylist()
    results = [normalised(text, profiles[name].normalise) for text, name in zip(texts, names, strict=True)]
    joined = [
        {"lines_joined": before.count("\n") - after.count("\n")}
        if profiles[name].normalise == "wrapped" and before.count("\n") > after.count("\n") + 8
        else {}
        for before, after, name in zip(texts, results, names, strict=True)
    ]
    if any(joined):
        batch = with_column(batch, "edits", noted(batch.column("edits").to_pylist(), joined))
    empty = [None if result and not result.isspace() else Why("empty", "no visible character", "at least one") for result in results]
    return judged(with_column(batch, "text", results), "normalise", empty)
