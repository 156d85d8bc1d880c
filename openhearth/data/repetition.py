"""How much of a text repeats itself: the measures of Gopher (Rae et al. 2021, table A1), for many texts at once.

The idea: what is repeated at n words is repeated at n - 1 words, so each step looks only at what the step before left. The results
are those of the loops in Gopher's description (and in datatrove), including which of overlapping repeats is counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy

from openhearth.data.words import Hashes, Indices, Words, mixed

TOP, REPEATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
"""Lengths in words: of the n-gram that is the most frequent, and of n-grams that occurred before."""

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")


def line_measures(text: str) -> dict[str, float]:
    """Shares of lines and paragraphs that stood in the text before: of their number, and of the text's characters."""
    measures = {}
    for name, parts in (("lines", _LINES.split(text)), ("paragraphs", _PARAGRAPHS.split(text.strip()))):
        repeats, characters = copies(parts)
        measures[f"duplicate_{name}"] = repeats / len(parts)
        measures[f"duplicate_{name}_characters"] = characters / len(text) if text else 0.0
    return measures


def copies(parts: Sequence[str]) -> tuple[int, int]:
    """How many of `parts` stood before, and their characters."""
    if len(set(parts)) == len(parts):
        return 0, 0
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        else:
            seen.add(part)
    return count, characters


def gram_measures(words: Words, lengths: Indices) -> dict[str, list[float]]:
    """For each text: characters of the most frequent n-gram and of repeated n-grams, as shares of `lengths` (characters of the texts).

    The characters of an n-gram that is the most frequent count the single spaces between its words, those of a repeated one do not.
    """
    measures = {f"top_{n}_gram": [0.0] * len(lengths) for n in TOP} | {f"repeated_{n}_grams": [0.0] * len(lengths) for n in REPEATED}
    letters = numpy.zeros(len(words.start) + 1, numpy.int64)
    numpy.cumsum(words.end - words.start, out=letters[1:])
    salt = mixed(numpy.arange(len(lengths), dtype=numpy.uint64) + numpy.uint64(1))
    text_of = numpy.repeat(numpy.arange(len(lengths)), words.counts)
    left: Indices | None = None  # words at which a repeated (n - 1)-gram begins
    for n in TOP:  # where nothing is repeated the first n-gram is the most frequent one
        for text in numpy.flatnonzero((words.counts >= n) & (lengths > 0)).tolist():
            start = int(words.first[text])
            measures[f"top_{n}_gram"][text] = float(letters[start + n] - letters[start] + n - 1) / int(lengths[text])
    for n in (*TOP, *REPEATED):
        hashes, at = words.grams(n)
        if left is not None:
            chosen = numpy.searchsorted(at, left)
            chosen = chosen[(chosen < len(at)) & (at[numpy.minimum(chosen, len(at) - 1)] == left)]
            hashes, at = hashes[chosen], at[chosen]
        hashes = hashes ^ salt[text_of[at]]  # equal only inside one text
        repeated = _repeated(hashes)
        hashes, left = hashes[repeated], at[repeated]
        if not len(left):
            break
        of = text_of[left]
        name = f"top_{n}_gram" if n in TOP else f"repeated_{n}_grams"
        characters = _top(hashes, left, of, letters, n) if n in TOP else _all(hashes, left, of, letters, n)
        for text, size in characters.items():
            measures[name][text] = size / int(lengths[text])
    return measures


def _repeated(hashes: Hashes) -> Indices:
    """Places of the values that occur more than once."""
    order = numpy.sort(hashes)
    twice = order[1:][order[1:] == order[:-1]]
    if not len(twice):
        return numpy.empty(0, numpy.int64)
    place = numpy.minimum(numpy.searchsorted(twice, hashes), len(twice) - 1)
    return numpy.flatnonzero(twice[place] == hashes)


def _top(hashes: Hashes, at: Indices, of: Indices, letters: Indices, n: int) -> dict[int, int]:
    """Characters of the most frequent n-gram of each text, times how often it occurs; of equals the first."""
    _, first, counts = numpy.unique(hashes, return_index=True, return_counts=True)
    order = numpy.lexsort((first, -counts, of[first]))
    owners = of[first][order]
    best = order[numpy.flatnonzero(numpy.concatenate(([True], owners[1:] != owners[:-1])))]
    return {
        int(of[first[one]]): int(counts[one]) * int(letters[at[first[one]] + n] - letters[at[first[one]]] + n - 1) for one in best.tolist()
    }


def _all(hashes: Hashes, at: Indices, of: Indices, letters: Indices, n: int) -> dict[int, int]:
    """Characters of n-grams that occurred before in each text; after a repeat the count goes on behind it, and what it hid is not seen."""
    sums: dict[int, int] = {}
    seen: set[int] = set()
    free = 0
    sizes = letters[at + n] - letters[at]
    for value, word, text, size in zip(hashes.tolist(), at.tolist(), of.tolist(), sizes.tolist(), strict=True):
        if word < free:
            continue
        if value in seen:
            sums[text] = sums.get(text, 0) + size
            free = word + n
        else:
            seen.add(value)
    return sums
