"""MinHash signatures, bands and clusters of near-duplicates (Broder 1997; Leskovec, Rajaraman and Ullman 2020, chapter 3).

The idea: the share of equal places in two signatures estimates the Jaccard similarity of the two sets of word n-grams. Bands of places
find the pairs worth comparing without comparing all; the whole signatures then decide, so that a chain of chance hits makes no cluster.
With 14 bands of 8 places a pair of similarity 0.8 is found with probability 0.92, one of 0.5 with 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from openhearth.data.words import HASH, Codes, Indices, Words, mixed

Signatures = NDArray[numpy.uint32]
BLOCK = 1 << 14
"""Shingles worked on at once: they stay in the processor's nearest cache while 112 permutations pass over them."""

SPEC = f"plain words; {HASH}; upper 32 bits x; min over shingles of (x ^ b) * a mod 2^32, a odd; a, b from splitmix64 of 1, 2, ..."
"""What a signature is, for manifests."""


def permutations(count: int) -> tuple[Signatures, Signatures]:
    """The odd factors and the masks of `count` permutations."""
    drawn = mixed(numpy.arange(1, 2 * count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15))
    values = (drawn >> numpy.uint64(32)).astype(numpy.uint32)
    return values[:count] | numpy.uint32(1), values[count:]


def signatures(texts: Sequence[str], count: int = 112, n: int = 5) -> tuple[Signatures, Indices]:
    """(signed texts, count) uint32, and which texts they are of: those with fewer than n words have no n-gram and no signature."""
    words = Words.plain(Codes.of(texts))
    grams, at = words.grams(n)
    edges = numpy.searchsorted(at, words.first)
    signed = numpy.flatnonzero(numpy.diff(edges) > 0)
    edges = numpy.append(edges[signed], len(grams))
    result = numpy.full((len(signed), count), 0xFFFFFFFF, numpy.uint32)
    if not len(signed):
        return result, signed
    shingles = (grams >> numpy.uint64(32)).astype(numpy.uint32)
    factors, masks = permutations(count)
    buffer = numpy.empty(BLOCK, numpy.uint32)
    for begin in range(0, len(shingles), BLOCK):
        block = shingles[begin : begin + BLOCK]
        first = int(numpy.searchsorted(edges, begin, side="right")) - 1
        last = int(numpy.searchsorted(edges, begin + len(block), side="left"))
        inner = numpy.maximum(edges[first:last] - begin, 0)
        work = buffer[: len(block)]
        part = result[first:last]
        for place in range(count):
            numpy.bitwise_xor(block, masks[place], out=work)
            numpy.multiply(work, factors[place], out=work)
            part[:, place] = numpy.minimum(part[:, place], numpy.minimum.reduceat(work, inner))
    return result, signed


def bands(values: Signatures, count: int) -> NDArray[numpy.uint64]:
    """(documents, count) uint64: one hash for each band of a signature."""
    rows = values.shape[1] // count
    hashes = numpy.zeros((len(values), count), numpy.uint64)
    for row in range(rows):
        hashes = mixed(hashes ^ (values[:, row : rows * count : rows].astype(numpy.uint64) + numpy.uint64(row + 1)))
    return hashes


def pairs(values: Signatures, band_count: int, similarity: float) -> NDArray[numpy.int64]:
    """(pairs, 2): places i < j of signatures that share a band and whose equal places are at least a share `similarity` of all.

    Of many that share a band each is held against the first and against the one before it, not against all.
    """
    found = []
    for band in bands(values, band_count).T:
        order = numpy.argsort(band, kind="stable")
        ordered = band[order]
        same = numpy.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        if not len(same):
            continue
        heads = numpy.flatnonzero(numpy.concatenate(([True], ordered[1:] != ordered[:-1])))
        head = heads[numpy.searchsorted(heads, same, side="right") - 1]
        found += [numpy.stack((order[head], order[same]), 1), numpy.stack((order[same - 1], order[same]), 1)]
    if not found:
        return numpy.empty((0, 2), numpy.int64)
    candidates = numpy.unique(numpy.concatenate(found), axis=0)
    chosen = [similarities(values, part) >= similarity for part in numpy.array_split(candidates, len(candidates) // 65_536 + 1)]
    result: NDArray[numpy.int64] = candidates[numpy.concatenate(chosen)]
    return result


def similarities(values: Signatures, of: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
    """The estimated Jaccard similarity of each pair."""
    return numpy.asarray((values[of[:, 0]] == values[of[:, 1]]).mean(axis=1), numpy.float64)


def components(size: int, edges: NDArray[numpy.int64]) -> Indices:
    """For each of `size` places the smallest place that it is connected with."""
    parent = list(range(size))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in edges.tolist():
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return numpy.array([root(place) for place in range(size)], numpy.int64)
