"""Copies are found: near-duplicates against all pairs compared by brute force, and what goes and stays in every combination."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest

from openhearth.data import buckets, minhash
from openhearth.data.words import Codes, Words

from .conftest import Write, jsonl
from .test_build import built, dropped, page


def shingles(text: str, n: int = 5) -> frozenset[tuple[str, ...]]:
    words = text.lower().replace(".", " ").replace("!", " ").replace("?", " ").split()
    return frozenset(tuple(words[at : at + n]) for at in range(len(words) - n + 1))


def jaccard(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    return len(one & other) / max(1, len(one | other))


def family(number: int) -> list[str]:
    """A text and versions of it, of every similarity from equal to unlike."""
    draw = random.Random(number)
    words = page(number, 30).split()
    versions = [" ".join(words)]
    for share in (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12):
        versions.append(" ".join(draw.choice(["red", "green", "blue", "grey"]) if draw.random() < share else word for word in words))
    return versions


@pytest.fixture(scope="module")
def similar() -> tuple[list[str], dict[tuple[int, int], float]]:
    texts = [text for number in range(60) for text in family(number)]
    sets = [shingles(text) for text in texts]
    pairs = {(i, j): jaccard(sets[i], sets[j]) for i in range(len(sets)) for j in range(i + 1, min(len(sets), i - i % 8 + 8))}
    return texts, pairs


def test_recall_and_precision_of_pairs_against_brute_force(similar: tuple[list[str], dict[tuple[int, int], float]]) -> None:
    texts, truth = similar
    values, signed = minhash.signatures(texts)
    assert len(signed) == len(texts)
    found = {tuple(pair) for pair in minhash.pairs(values, 14, 0.7).tolist()}
    roots = minhash.components(len(texts), numpy.array(sorted(found)))
    alike = [pair for pair, similarity in truth.items() if similarity >= 0.8]
    assert len(alike) > 250
    assert sum(bool(roots[i] == roots[j]) for i, j in alike) / len(alike) > 0.95  # 0.92 for a pair by itself; clusters find more
    assert all(truth.get(pair, 0.0) > 0.55 for pair in found)  # 0.7 estimated from 112 places is off by 0.13 in three standard deviations
    assert sum(truth.get(pair, 0.0) >= 0.65 for pair in found) / len(found) > 0.97


def test_the_estimated_similarity_is_unbiased(similar: tuple[list[str], dict[tuple[int, int], float]]) -> None:
    texts, truth = similar
    values, _ = minhash.signatures(texts)
    pairs = numpy.array(list(truth), numpy.int64)
    errors = minhash.similarities(values, pairs) - numpy.array(list(truth.values()))
    assert abs(errors.mean()) < 0.01  # of pairs inside 60 families; one estimate is off by 0.04
    assert errors.std() < 0.06


def test_a_signature_is_the_minimum_over_the_texts_own_shingles() -> None:
    texts = [page(1), "too short", page(2, 400), "one two three four five"]
    values, signed = minhash.signatures(texts)
    assert signed.tolist() == [0, 2, 3]
    factors, masks = minhash.permutations(112)
    for value, place in zip(values, signed.tolist(), strict=True):
        grams, _ = Words.plain(Codes.of([texts[place]])).grams(5)
        upper = (grams >> numpy.uint64(32)).astype(numpy.uint32)
        assert value.tolist() == ((upper[:, None] ^ masks) * factors).min(axis=0).tolist()
    alone, _ = minhash.signatures([texts[2]])
    assert (alone[0] == values[1]).all()  # whatever stands beside it in the batch


# -- in a build -------------------------------------------------------------------------------------------------------------


def test_clusters_keep_all_members_and_say_which_stays(tmp_path: Path, write: Write) -> None:
    original = page(1)
    write("a.jsonl", jsonl({"text": original}, {"text": page(2)}, {"text": original + " Again."}, {"text": original}))
    built(tmp_path / "text", tmp_path / "out")
    rows = buckets.table(tmp_path / "out", "clusters.parquet")
    assert {(row["uri"], row["kind"], row["kept"]) for row in rows} == {
        ("a.jsonl:1", "kept", True), ("a.jsonl:3", "near", False), ("a.jsonl:4", "exact", False),
    }  # fmt: skip
    kept = {row["uri"]: row for row in buckets.documents(tmp_path / "out")}
    assert kept["a.jsonl:1"]["cluster"] == kept["a.jsonl:1"]["doc_id"] and kept["a.jsonl:2"]["cluster"] == ""


@pytest.mark.parametrize("loser", ["new", "earlier"])
def test_against_an_earlier_corpus_the_side_that_loses_is_a_setting(tmp_path: Path, write: Write, loser: str) -> None:
    write("a.jsonl", jsonl({"text": page(1)}, {"text": page(2)}))
    built(tmp_path / "text", tmp_path / "earlier")
    write("a.jsonl", jsonl({"text": page(2) + " More."}, {"text": page(3)}))
    against = f'duplicates.against=["{tmp_path / "earlier"}"]'
    built(tmp_path / "text", tmp_path / "out", sets=(against, f"duplicates.loser={loser}"))
    gone = dropped(tmp_path / "out")
    superseded = [json.loads(line) for line in (tmp_path / "out/superseded.jsonl").read_text().splitlines()]
    if loser == "new":
        assert gone == {"a.jsonl:1": ("duplicates", "near_duplicate_of_earlier")} and superseded == []
    else:
        assert gone == {} and [(row["uri"], row["by"]) for row in superseded] == [("a.jsonl:2", "a.jsonl:1")]


def test_paragraphs_that_stood_before_are_cut_and_a_document_of_little_else_goes(tmp_path: Path, write: Write) -> None:
    shared = "Sold by the shop of the old harbour, where all that is printed here is printed on every page, whatever it may be about."
    whole = page(1, 20)
    write(
        "a.jsonl",
        jsonl(
            {"text": f"{whole}\n\n{shared}"},
            {"text": f"{page(2, 20)}\n\n{shared}\n\n{page(3, 20)}"},
            {"text": f"{shared}\n\n{whole}\n\nEnd."},
        ),
    )
    sets = ("duplicates.passages=paragraph", "duplicates.near=false")
    built(tmp_path / "text", tmp_path / "out", sets=sets)
    texts = {row["uri"]: (row["text"], row["edits"]) for row in buckets.documents(tmp_path / "out")}
    assert texts["a.jsonl:1"] == (f"{whole}\n\n{shared}", "")
    assert texts["a.jsonl:2"] == (f"{page(2, 20)}\n\n{page(3, 20)}", "paragraphs_cut:1")
    assert dropped(tmp_path / "out") == {"a.jsonl:3": ("duplicates", "duplicate_passages")}


def test_with_near_off_only_equal_texts_go(tmp_path: Path, write: Write) -> None:
    write("a.jsonl", jsonl({"text": page(1)}, {"text": page(1) + " More."}, {"text": page(1)}))
    built(tmp_path / "text", tmp_path / "out", sets=("duplicates.near=false",))
    assert dropped(tmp_path / "out") == {"a.jsonl:3": ("duplicates", "exact_duplicate")}
