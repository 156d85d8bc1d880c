"""Words of many texts at once, as arrays: where they stand and a 64-bit hash of each. Every filter that counts words begins here.

The idea: a batch of texts is one array of code points. Words are runs in it, found with a table over Unicode, and the hash of a run is
a difference of prefix sums of code[i] * B^i, moved to position 0 by B's inverse modulo 2^64: no loop over words, the same value for the
same word anywhere. A hash of n words is the same sum one floor up. Two words share a hash with probability 2^-64.

There are two kinds of words. *Spaced* words are what `str.split()` gives, which the rules of Gopher and FineWeb count. *Plain* words are
lower-cased runs of letters, digits and `_`, an ideograph or kana being a word of its own: what is compared between texts.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

Hashes = NDArray[numpy.uint64]
Indices = NDArray[numpy.int64]
Array = NDArray[Any]

SPACE, WORD, ALPHA, SYMBOL, ALONE = 1, 2, 4, 8, 16
TABLED = 0x30000
"""Code points with an entry of their own; the planes above hold ideographs and tags, which count as the last one."""

_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)
_STEP = 0xD6E8FEB86659FD93
_GROWTH = 1 << 16

HASH = f"sum of code[i] * {_BASE:#x}^i mod 2^64, mixed by splitmix64; n-grams with {_STEP:#x}; Unicode {unicodedata.unidata_version}"
"""What a hash is, for manifests: signatures of another definition must never be compared."""


class _Unicode:
    """Kinds and lower case by code point, filled page by page as texts need them: all of Unicode would take half a second."""

    def __init__(self) -> None:
        self.flags = numpy.zeros(TABLED, numpy.uint8)
        self.lower = numpy.arange(TABLED, dtype=numpy.uint32)
        self._known = numpy.zeros(TABLED >> 8, bool)

    def of(self, codes: NDArray[numpy.uint32]) -> NDArray[numpy.uint8]:
        """The kinds of code points below `TABLED`."""
        pages = numpy.zeros(TABLED >> 8, bool)
        pages[codes >> numpy.uint32(8)] = True
        for page in numpy.flatnonzero(pages & ~self._known).tolist():
            self._fill(page)
        return self.flags[codes]

    def _fill(self, page: int) -> None:
        for code in range(page << 8, page + 1 << 8):
            character = chr(code)
            category = unicodedata.category(character)
            flag = SPACE if character.isspace() else 0
            flag |= WORD if character.isalnum() or character == "_" or category[0] == "M" else 0
            flag |= ALPHA if category[0] == "L" else 0
            flag |= SYMBOL if category[0] in "PSZC" and category != "Co" else 0
            flag |= ALONE if 0x3041 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000 else 0
            self.flags[code] = flag
            small = character.lower()
            self.lower[code] = ord(small) if len(small) == 1 else code
        self._known[page] = True


_UNICODE = _Unicode()


@functools.lru_cache(maxsize=2)
def _powers_to(length: int) -> tuple[Hashes, Hashes]:
    """B^i and B^-i modulo 2^64 for i < length."""
    both = []
    for base in (_BASE, _INVERSE):
        powers = numpy.full(length, base, numpy.uint64)
        powers[0] = 1
        both.append(numpy.cumprod(powers, dtype=numpy.uint64))
    return both[0], both[1]


def mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))


@dataclass(frozen=True)
class Codes:
    """The code points of texts, a line feed after each, and what kind each is. `bounds`: (texts + 1,), where each text begins."""

    codes: NDArray[numpy.uint32]
    flags: NDArray[numpy.uint8]
    bounds: Indices

    @classmethod
    def of(cls, texts: Sequence[str]) -> Codes:
        """All of `texts`, one after the other."""
        joined = "\n".join(texts) + "\n" if texts else ""
        codes = numpy.frombuffer(joined.encode("utf-32-le"), "<u4").astype(numpy.uint32, copy=False)
        bounds = numpy.zeros(len(texts) + 1, numpy.int64)
        numpy.cumsum([len(text) + 1 for text in texts], out=bounds[1:])
        tabled = codes if not len(codes) or int(codes.max()) < TABLED else numpy.minimum(codes, TABLED - 1)
        return cls(codes, _UNICODE.of(tabled), bounds)

    def counted(self, flag: int, words: Words) -> Indices:
        """How many characters of a kind each word has."""
        sums = numpy.zeros(len(self.codes) + 1, numpy.int64)
        numpy.cumsum((self.flags & flag) != 0, out=sums[1:])
        counts: Indices = sums[words.end] - sums[words.start]
        return counts


@dataclass(frozen=True)
class Words:
    """Words in order. `start` and `end` are positions in the code points; text t has the words first[t] to first[t + 1]."""

    hashes: Hashes
    start: Indices
    end: Indices
    first: Indices

    @classmethod
    def spaced(cls, codes: Codes) -> Words:
        """What `str.split()` gives, as it is written."""
        return cls._of(codes.codes, (codes.flags & SPACE) == 0, None, codes.bounds)

    @classmethod
    def plain(cls, codes: Codes) -> Words:
        """Lower-cased runs of letters, digits and marks; ideographs and kana each alone."""
        lower = _UNICODE.lower  # filled where the codes' kinds were found
        small = lower[codes.codes] if not len(codes.codes) or int(codes.codes.max()) < TABLED else _lowered(codes.codes, lower)
        alone = (codes.flags & ALONE) != 0
        return cls._of(small, (codes.flags & WORD) != 0, alone if alone.any() else None, codes.bounds)

    @classmethod
    def _of(cls, codes: NDArray[numpy.uint32], inside: NDArray[numpy.bool_], alone: Array | None, bounds: Indices) -> Words:
        before = numpy.concatenate(([False], inside[:-1])) if len(inside) else inside
        starts, ends = inside & ~before, before & ~inside
        if alone is not None:
            after = numpy.concatenate(([False], alone[:-1]))
            starts |= inside & (alone | after)
            ends |= before & (alone | after)
        start, end = numpy.flatnonzero(starts), numpy.flatnonzero(ends)
        powers, inverse = _powers_to(max(_GROWTH, 1 << len(codes).bit_length()))
        sums = numpy.zeros(len(codes) + 1, numpy.uint64)
        numpy.cumsum((codes + numpy.uint32(1)).astype(numpy.uint64) * powers[: len(codes)], out=sums[1:])
        hashes = mixed((sums[end] - sums[start]) * inverse[start])
        return cls(hashes, start, end, numpy.searchsorted(start, bounds).astype(numpy.int64))

    @property
    def counts(self) -> Indices:
        """Words of each text."""
        return numpy.diff(self.first)

    def grams(self, n: int) -> tuple[Hashes, Indices]:
        """Hashes of every n words in a row inside a text, and the index of the first word of each."""
        if len(self.hashes) < n:
            return numpy.empty(0, numpy.uint64), numpy.empty(0, numpy.int64)
        size = len(self.hashes) - n + 1
        sums = self.hashes[:size].copy()
        for place in range(1, n):
            sums *= numpy.uint64(_STEP)
            sums += self.hashes[place : place + size]
        whole = numpy.ones(size, bool)
        for edge in self.first[1:-1]:  # a gram that begins less than n words before the next text would reach into it
            whole[max(0, edge - n + 1) : edge] = False
        at = numpy.flatnonzero(whole)
        return mixed(sums if len(at) == size else sums[at]), at

    def ranges(self, at: Indices) -> Iterator[tuple[int, int]]:
        """For indices of words in order: which of them belong to each text, as ranges of positions in `at`."""
        edges = numpy.searchsorted(at, self.first)
        return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


def _lowered(codes: NDArray[numpy.uint32], lower: NDArray[numpy.uint32]) -> NDArray[numpy.uint32]:
    small = codes.copy()
    tabled = codes < TABLED
    small[tabled] = lower[codes[tabled]]
    return small


def hashes_of(words: Sequence[str]) -> Hashes:
    """The hash of each of `words` as a spaced word."""
    return Words.spaced(Codes.of(list(words))).hashes
