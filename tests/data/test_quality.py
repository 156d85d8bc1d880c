"""Rules of quality and repetition: against datatrove's on the same texts, and against the plain loops that they stand for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data import quality, repetition
from openhearth.data.profiles import Profile, profile_of, shipped
from openhearth.data.words import Codes, Words
from openhearth.errors import RecipeError

from .flawed_texts import flawed

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_datatrove.json").read_text())
COUNT = len(GOLDEN["spaces"]["fineweb"])
"""Texts in the golden file, which scripts/golden_datatrove.py writes with the real datatrove."""

NAMES = {
    "gopher_short_doc": "min_words", "gopher_long_doc": "max_words", "gopher_below_avg_threshold": "min_mean_word_length",
    "gopher_above_avg_threshold": "max_mean_word_length", "gopher_too_many_hashes": "max_hashes_per_word",
    "gopher_too_many_ellipsis": "max_ellipses_per_word", "gopher_too_many_bullets": "max_bullet_lines",
    "gopher_too_many_end_ellipsis": "max_ellipsis_lines", "gopher_below_alpha_threshold": "min_alpha_words",
    "gopher_enough_stop_words": "min_stop_words", "dup_para_frac": "max_duplicate_paragraphs",
    "dup_para_char_frac": "max_duplicate_paragraphs_characters", "dup_line_frac": "max_duplicate_lines",
    "dup_line_char_frac": "max_duplicate_lines_characters", "line_punct_ratio": "min_line_punctuation",
    "short_line_ratio": "max_short_lines", "char_dup_ratio": "max_repeated_line_characters", "list_ratio": "max_newlines_per_word",
    **{f"top_{n}_gram": f"max_top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"max_repeated_{n}_grams" for n in range(5, 11)},
}  # fmt: skip
"""datatrove's names of our rules."""

GOPHER = ("min_words", "max_words", "min_mean", "max_mean", "max_hashes", "max_ellip", "max_bullet", "min_alpha", "min_stop")
FINEWEB = ("min_line_punctuation", "max_short_lines", "max_repeated_line_characters", "max_newlines_per_word")


def verdicts(name: str) -> list[str]:
    """The first rule of a group that each text breaks, as datatrove groups them."""
    texts = [flawed(number) for number in range(COUNT)]
    codes = Codes.of(texts)
    words = Words.spaced(codes)
    web = Profile.model_validate(shipped()["web"])
    measures = quality.repetition_measures(texts, words) if name == "gopher_repetition" else quality.quality_measures(texts, codes, words)
    if name == "gopher_repetition":
        rules = quality.REPETITION
    else:
        rules = tuple(rule for rule in quality.QUALITY if rule.startswith(GOPHER if name == "gopher_quality" else FINEWEB))
    reasons = [quality.broken(rules, web, one, text) for one, text in zip(measures, texts, strict=True)]
    return [why.rule if why else "" for why in reasons]


@pytest.mark.parametrize("name", ["gopher_quality", "gopher_repetition", "fineweb"])
def test_every_verdict_is_datatroves_when_words_are_the_same(name: str) -> None:
    golden = [NAMES.get(reason, reason) for reason in GOLDEN["spaces"][name]]
    assert verdicts(name) == golden
    assert len(set(golden)) >= 3 and golden.count("") > COUNT / 4  # the texts do exercise the rules


@pytest.mark.parametrize(("name", "share"), [("gopher_quality", 0.9), ("gopher_repetition", 0.9), ("fineweb", 0.9)])
def test_most_decisions_are_datatroves_with_its_own_words(name: str, share: float) -> None:
    golden = [bool(reason) for reason in GOLDEN["spacy"][name]]
    same = sum(bool(rule) == dropped for rule, dropped in zip(verdicts(name), golden, strict=True))
    assert same >= share * COUNT


# -- measures against the loops that define them ----------------------------------------------------------------------------


def naive(text: str) -> dict[str, float]:
    words, measures = text.split(), {}
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[at : at + n]) for at in range(len(words) - n + 1))
        top = max(grams.items(), key=lambda item: item[1]) if grams else ("", 0)
        measures[f"top_{n}_gram"] = len(top[0]) * top[1] / max(1, len(text))
    for n in range(5, 11):
        seen: set[tuple[str, ...]] = set()
        at = characters = 0
        while at < len(words) - n + 1:
            gram = tuple(words[at : at + n])
            if gram in seen:
                characters += sum(map(len, gram))
                at += n
            else:
                seen.add(gram)
                at += 1
        measures[f"repeated_{n}_grams"] = characters / max(1, len(text))
    return measures


few_words = st.lists(st.sampled_from(["a", "bb", "c", "é", "世界", "the"]), max_size=60).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(few_words, min_size=1, max_size=5))
def test_ngram_measures_are_those_of_the_loops_for_each_text_of_a_batch(texts: list[str]) -> None:
    found = repetition.gram_measures(Words.spaced(Codes.of(texts)), numpy.array([len(text) for text in texts]))
    for place, text in enumerate(texts):
        assert {name: values[place] for name, values in found.items()} == pytest.approx(naive(text))


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(alphabet="aB é_1.\n\t\u2003世カ\U0001f525\U000e0041'", max_size=40), min_size=1, max_size=4))
def test_spaced_words_are_those_of_split_and_hashes_depend_on_the_word_alone(texts: list[str]) -> None:
    words = Words.spaced(Codes.of(texts))
    split = [text.split() for text in texts]
    assert words.counts.tolist() == list(map(len, split))
    flat = [word for part in split for word in part]
    alone = {word: int(Words.spaced(Codes.of([word])).hashes[0]) for word in flat}
    assert words.hashes.tolist() == [alone[word] for word in flat]
    assert len(set(alone.values())) == len(alone)


def test_plain_words_ignore_case_and_punctuation_and_part_ideographs() -> None:
    words = Words.plain(Codes.of(["“Don’t — STOP!” she_said 3 times.", "don t stop she_said 3 times", "世界a"]))
    first, second = (words.hashes[words.first[place] : words.first[place + 1]].tolist() for place in (0, 1))
    assert first == second
    assert words.counts.tolist() == [6, 6, 3]


def test_ngrams_never_reach_from_one_text_into_the_next() -> None:
    words = Words.plain(Codes.of(["a b c", "", "d", "e f"]))
    assert [len(words.grams(n)[0]) for n in (1, 2, 3, 4)] == [6, 3, 1, 0]


# -- profiles ---------------------------------------------------------------------------------------------------------------


def test_every_shipped_profile_is_valid_and_names_only_rules_that_are_asked() -> None:
    asked = {*quality.QUALITY, *quality.REPETITION, "normalise", "languages", "min_language"}
    assert set(Profile.model_fields) == asked
    for name in shipped():
        assert profile_of(name, {})


def test_a_recipe_lays_its_own_keys_over_a_profile_or_makes_one_like_another() -> None:
    overlays: dict[str, dict[str, Any]] = {"web": {"min_words": 7}, "mine": {"like": "forum", "max_words": 9}}
    assert profile_of("web", overlays).min_words == 7 and profile_of("web", overlays).max_words == 100_000
    assert profile_of("mine", overlays).max_words == 9 and profile_of("mine", overlays).min_words == 10
    with pytest.raises(RecipeError, match="did you mean 'forum'"):
        profile_of("forun", {})
