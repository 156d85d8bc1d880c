"""Items of evaluations are found in a corpus, and the report says both ways what met."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data.decontaminate import Evaluations, read_items
from openhearth.errors import HearthError

from .conftest import Write, jsonl
from .test_build import built, dropped, page

QUESTION = "How many brown barrels of salted herring did the second harbour master count before the morning bell rang twice?"


def corpus_of(write: Write, texts: Iterable[str]) -> Path:
    return write("in/a.jsonl", jsonl(*({"text": text} for text in texts))).parent


def test_documents_with_an_item_go_and_the_report_names_both(tmp_path: Path, write: Write) -> None:
    quoted = page(2) + "\n\n" + QUESTION.upper().replace("?", " - he asked") + "\n\n" + page(3)
    part = page(4) + " " + " ".join(QUESTION.split()[:12]) + " " + page(5)
    folder = corpus_of(write, [page(1), quoted, part, page(6) + " Name one large town in the far north please."])
    items = [
        {"question": QUESTION, "answer": "12"},
        {"question": "Who?", "answer": "Me"},
        {"question": "name one large town in the far north"},
    ]
    file = write("quiz.jsonl", jsonl(*items))
    report = built(folder, tmp_path / "out", sets=(f'evaluations.files=["{file}"]',)).report
    assert dropped(tmp_path / "out") == {"a.jsonl:2": ("decontaminate", "13_gram"), "a.jsonl:4": ("decontaminate", "8_grams")}
    (quiz,) = json.loads((tmp_path / "out/contamination.json").read_text())
    assert (quiz["set"], quiz["items"], quiz["dirty"], quiz["too_short"], quiz["documents"]) == ("quiz.jsonl", 3, 2, 1, 2)
    assert set(quiz["dirty_items"]) == {"1", "3"} and quiz["by_rule"] == {"13_gram": 1, "8_grams": 1}
    assert report["contamination"][0]["dirty"] == 2


def naive(items: list[list[str]], text: str) -> set[tuple[int, str]]:
    words = text.split()
    have = {n: {tuple(words[at : at + n]) for at in range(len(words) - n + 1)} for n in (8, 13)}
    found = set()
    for number, fields in enumerate(items, 1):
        grams = {n: {tuple(f.split()[at : at + n]) for f in fields for at in range(len(f.split()) - n + 1)} for n in (8, 13)}
        if grams[13] & have[13]:
            found.add((number, "13_gram"))
        elif grams[8] and len(grams[8] & have[8]) >= 0.7 * len(grams[8]):
            found.add((number, "8_grams"))
    return found


line = st.lists(st.sampled_from(["a", "b", "c"]), min_size=8, max_size=30).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(items=st.lists(line, min_size=1, max_size=4), texts=st.lists(line, min_size=1, max_size=4))
def test_hits_are_those_of_sets_of_ngrams(items: list[str], texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("e") / "items.jsonl"
    file.write_bytes(jsonl(*({"q": item} for item in items)))
    hits = Evaluations([str(file)]).hits([str(place) for place in range(len(texts))], texts).to_pylist()
    for place, text in enumerate(texts):
        assert {(row["item"], row["rule"]) for row in hits if row["doc_id"] == str(place)} == naive([[item] for item in items], text)


def test_a_damaged_evaluation_file_ends_the_build(tmp_path: Path, write: Write) -> None:
    folder = corpus_of(write, [page(1)])
    file = write("quiz.jsonl", b'{"q": "fine"}\n{bad\n')
    with pytest.raises(HearthError, match=r"quiz\.jsonl:2: not JSON"):
        built(folder, tmp_path / "out", sets=(f'evaluations.files=["{file}"]',))
    empty = write("empty.jsonl", b"\n")
    with pytest.raises(HearthError, match="holds no text to look for"):
        built(folder, tmp_path / "out", sets=(f'evaluations.files=["{empty}"]',))


def test_nested_fields_are_read_and_short_ones_are_put_together(write: Write) -> None:
    file = write(
        "q.jsonl",
        jsonl({"q": "one two three four five six seven eight nine", "choices": ["yes", "no"]}, {"a": "be", "b": {"c": ["or not"]}, "n": 5}),
    )
    assert list(read_items(str(file))) == [["one two three four five six seven eight nine"], ["be or not"]]
