"""Rules of quality: those of Gopher (Rae et al. 2021), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024), and The Stack's for code.

The idea: everything is measured for a whole batch first, then one table says in which order a document is held against its profile; the
first rule that it breaks becomes its row. Word counts come from arrays (`words.py`), so that no rule has a loop over words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pyarrow

from openhearth.data import repetition
from openhearth.data.batches import Judged, Why, judged, texts_of
from openhearth.data.profiles import Profile
from openhearth.data.words import ALPHA, SYMBOL, Codes, Words, hashes_of

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
SHORT_LINE = 30
TERMINAL = (".", "!", "?", "。", "！", "？", "؟", "।", "．", "‼", "⁇", "⁈", "⁉", "։", "۔", "܀", "።", "។")
"""Ends of a line that FineWeb counts (datatrove's list has more, of scripts that are rare)."""

_SENTENCE = re.compile(r"[.!?。！？।؟][\"'”’)\]]*(?:\s|$)")

QUALITY = (
    "min_words", "max_words", "min_mean_word_length", "max_mean_word_length", "max_hashes_per_word", "max_ellipses_per_word",
    "max_bullet_lines", "max_ellipsis_lines", "min_alpha_words", "min_stop_words", "lorem_ipsum", "curly_brackets", "min_sentences",
    "min_line_punctuation", "max_short_lines", "max_repeated_line_characters", "max_newlines_per_word", "max_line_characters",
    "max_mean_line_characters", "min_alpha_characters",
)  # fmt: skip
REPETITION = (
    "max_duplicate_paragraphs", "max_duplicate_paragraphs_characters", "max_duplicate_lines", "max_duplicate_lines_characters",
    *(f"max_top_{n}_gram" for n in repetition.TOP), *(f"max_repeated_{n}_grams" for n in repetition.REPEATED),
)  # fmt: skip
"""Rules in the order in which they are asked."""

Measures = dict[str, float]


def quality_measures(texts: Sequence[str], codes: Codes, words: Words) -> list[Measures]:
    """What the rules of `QUALITY` ask about each text, by the name of the rule without `min_` or `max_`."""
    counts = words.counts
    symbols = codes.counted(SYMBOL, words)
    lengths = words.end - words.start
    solid = symbols < lengths  # words that are not punctuation alone
    alpha = codes.counted(ALPHA, words) > 0
    of = numpy.repeat(numpy.arange(len(texts)), counts)
    solid_count = numpy.bincount(of, solid, len(texts))
    solid_length = numpy.bincount(of, lengths * solid, len(texts))
    alpha_count = numpy.bincount(of, alpha, len(texts))
    stops = numpy.zeros(len(texts), numpy.int64)
    for stop in hashes_of(STOP_WORDS):
        stops += numpy.bincount(of, words.hashes == stop, len(texts)) > 0
    alpha_sums = numpy.concatenate(([0], numpy.cumsum((codes.flags & ALPHA) != 0)))
    alpha_characters = alpha_sums[codes.bounds[1:]] - alpha_sums[codes.bounds[:-1]]
    found = []
    for place, text in enumerate(texts):
        many = max(1, int(counts[place]))
        lines = text.splitlines() or [""]
        filled = [line for line in text.split("\n") if line.strip()] or [""]
        ellipses = sum(line.rstrip().endswith(("...", "…")) for line in lines) if "..." in text or "…" in text else 0
        bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines) if "-" in text or "•" in text else 0
        line_lengths = list(map(len, filled))
        found.append(
            {
                "words": float(solid_count[place]),
                "mean_word_length": float(solid_length[place]) / max(1.0, float(solid_count[place])),
                "hashes_per_word": text.count("#") / many,
                "ellipses_per_word": (text.count("...") + text.count("…")) / many,
                "bullet_lines": bullets / len(lines),
                "ellipsis_lines": ellipses / len(lines),
                "alpha_words": float(alpha_count[place]) / many,
                "stop_words": float(stops[place]),
                "line_punctuation": sum(line.endswith(TERMINAL) for line in filled) / len(filled),
                "short_lines": sum(length <= SHORT_LINE for length in line_lengths) / len(filled),
                "repeated_line_characters": repetition.copies(filled)[1] / max(1, len(text) - text.count("\n")),
                "newlines_per_word": text.count("\n") / many,
                "line_characters": float(max(line_lengths)),
                "mean_line_characters": sum(line_lengths) / len(filled),
                "alpha_characters": float(alpha_characters[place]) / max(1, len(text)),
            }
        )
    return found


def repetition_measures(texts: Sequence[str], words: Words) -> list[Measures]:
    """What the rules of `REPETITION` ask about each text."""
    lengths = numpy.array([len(text) for text in texts], numpy.int64)
    grams = repetition.gram_measures(words, lengths)
    return [
        {**repetition.line_measures(text), **{name: values[place] for name, values in grams.items()}} for place, text in enumerate(texts)
    ]


def broken(rules: Sequence[str], profile: Profile, measures: Mapping[str, float], text: str) -> Why | None:
    """The first of `rules` that a text breaks."""
    for rule in rules:
        limit: Any = getattr(profile, rule)
        if limit is None:
            continue
        if rule == "lorem_ipsum":
            if not limit and "lorem ipsum" in text.lower():
                return Why(rule, "holds it", "pages without it")
        elif rule == "curly_brackets":
            if not limit and "{" in text:
                return Why(rule, f"{text.count('{')}", "pages without curly brackets")
        elif rule == "min_sentences":
            if (count := len(_SENTENCE.findall(text))) < limit:
                return Why(rule, str(count), f"at least {limit}")
        elif rule.startswith("min_"):
            if (value := measures[rule[4:]]) < limit:
                return Why(rule, f"{value:.4g}", f"at least {limit}")
        elif (value := measures[rule[4:]]) > limit:
            return Why(rule, f"{value:.4g}", f"at most {limit}")
    return None


def judge_quality(batch: pyarrow.RecordBatch, profiles: Mapping[str, Profile]) -> Judged:
    """The stage: documents that break a rule of their profile go, rules of quality before rules of repetition."""
    texts = texts_of(batch)
    names: list[str] = batch.column("profile").to_pylist()
    codes = Codes.of(texts)
    words = Words.spaced(codes)
    quality = quality_measures(texts, codes, words)
    reasons = [broken(QUALITY, profiles[name], measures, text) for name, measures, text in zip(names, quality, texts, strict=True)]
    return judged(batch, "quality", reasons)


def judge_repetition(batch: pyarrow.RecordBatch, profiles: Mapping[str, Profile]) -> Judged:
    """The stage: documents that repeat themselves more than their profile lets them go."""
    texts = texts_of(batch)
    names: list[str] = batch.column("profile").to_pylist()
    words = Words.spaced(Codes.of(texts))
    found = repetition_measures(texts, words)
    reasons = [broken(REPETITION, profiles[name], measures, text) for name, measures, text in zip(names, found, texts, strict=True)]
    return judged(batch, "repetition", reasons)
