"""Which held-out text is measured: whole documents in keyed order, no document more than an eighth, nothing of the training split."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.evaluate.heldout import choose, pieces


def corpus(sizes: dict[str, int], split: str = "heldout") -> pa.Table:
    texts = [(f"{name} line\n" * (size // (len(name) + 6) + 1))[:size] for name, size in sizes.items()]
    return pa.table({"doc_id": list(sizes), "split": [split] * len(sizes), "uri": [f"{name}.txt" for name in sizes], "text": texts})


@given(st.text(max_size=200), st.integers(4, 50))
def test_pieces_together_are_the_text_and_none_is_larger_than_the_cap(text: str, cap: int) -> None:
    found = pieces(text, cap)
    assert "".join(found) == text
    assert all(0 < len(piece.encode()) <= cap for piece in found)


def test_pieces_end_at_line_ends_where_there_are_any() -> None:
    assert pieces("ab\ncd\nef\n", 7) == ["ab\ncd\n", "ef\n"]
    assert pieces("abcdefgh\nij", 4) == ["abcd", "efgh", "\nij"]
    assert pieces("ééé", 5) == ["éé", "é"]


def test_documents_are_whole_and_up_to_the_limit(tokenizer: Tokenizer) -> None:
    documents = corpus({f"d{number}": 100 for number in range(50)})
    found = choose(documents, 1000, tokenizer, seed=0)
    assert found.documents == 10 and found.bytes == 1000 and found.unit == "document" and found.units == list(range(10))
    assert (found.available_documents, found.available_bytes) == (50, 5000)
    assert all(len(text) == 100 for text in found.texts)


def test_the_choice_follows_the_seed_and_not_the_order_of_the_rows(tokenizer: Tokenizer) -> None:
    documents = corpus({f"d{number}": 100 for number in range(50)})
    once = choose(documents, 1000, tokenizer, seed=0)
    assert once.uris == choose(documents.take(list(range(49, -1, -1))), 1000, tokenizer, seed=0).uris
    assert once.uris != choose(documents, 1000, tokenizer, seed=1).uris


def test_one_huge_document_is_an_eighth_at_most_while_there_are_others(tokenizer: Tokenizer) -> None:
    documents = corpus({"huge": 1_000_000} | {f"d{number}": 100 for number in range(100)})
    for seed in range(5):
        found = choose(documents, 8000, tokenizer, seed)
        share = sum(len(text) for uri, text in zip(found.uris, found.texts, strict=True) if uri == "huge.txt")
        assert share <= 1000 and found.documents >= 8


def test_a_single_document_is_read_in_pieces_and_the_interval_is_over_them(tokenizer: Tokenizer) -> None:
    found = choose(corpus({"only": 100_000}), 8000, tokenizer, seed=0)
    assert found.documents == 1 and len(found.texts) == 8 and found.units == list(range(8)) and found.unit == "piece of a document"
    assert b"".join(found.texts).decode() == ("only line\n" * 10_001)[: found.bytes] and found.bytes > 7000


def test_all_of_it_is_measured_whole_where_it_fits(tokenizer: Tokenizer) -> None:
    documents = corpus({"long": 7000} | {f"d{number}": 100 for number in range(10)})
    found = choose(documents, 8000, tokenizer, seed=0)
    assert found.bytes == found.available_bytes == 8000 and len(found.texts) == found.documents == 11
    assert max(map(len, found.texts)) == 7000 and found.unit == "document"


def test_a_small_limit_does_not_cut_documents_into_crumbs(tokenizer: Tokenizer) -> None:
    found = choose(corpus({"only": 3000}), 3000, tokenizer, seed=0)
    assert found.bytes == 3000 and [len(text) for text in found.texts[:-1]] == [510] * 5  # the last line end within 512 bytes
    assert choose(corpus({"only": 3000}), 100, tokenizer, seed=0).bytes == 100


def test_the_ids_give_the_bytes_back(tokenizer: Tokenizer) -> None:
    found = choose(corpus({"é": 300, "b": 50}), 10_000, tokenizer, seed=0)
    assert [tokenizer.decode_bytes(ids.tolist()) for ids in found.ids] == found.texts
    assert found.tokens == sum(len(ids) for ids in found.ids) and found.bytes == sum(len(text) for text in found.texts)


def test_a_tokenizer_that_changes_the_text_is_refused(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: list(text.lower().encode()))
    with pytest.raises(HearthError, match=r"Upper.txt: .* byte for byte"):
        choose(corpus({"Upper": 100}), 1000, tokenizer, seed=0)


@pytest.mark.parametrize("documents", [corpus({"a": 100}, split="train"), corpus({"a": 0})])
def test_nothing_held_out_is_one_line_with_the_remedy(tokenizer: Tokenizer, documents: pa.Table) -> None:
    with pytest.raises(HearthError, match="raise held_out"):
        choose(documents, 1000, tokenizer, seed=0)
