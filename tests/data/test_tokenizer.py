from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data import bpe
from openhearth.data.documents import read_documents
from openhearth.data.tokenizer import LONG_BLANK, MIN_VOCABULARY, SPECIAL_TOKENS, Tokenizer
from openhearth.errors import DamagedError, HearthError

from .conftest import Heard

MEGABYTE = 1_000_000

HOSTILE = {
    "nothing": "",
    "emoji with joiners": "👨‍👩‍👧‍👦 👩🏽‍🚀 🏳️‍🌈 ☝🏿",
    "combining marks": "e\u0301\u0327 Z\u0351\u036b\u0343\u036a\u0302 \u212b \u0041\u030a",
    "line ends": "a\r\nb\rc\n\r\n\r\n d\r\n  \r\n\te\n\n\n",
    "NUL and controls": "\0a\0\0b\x01\x7f\x1b[0m\x1c\x1d\x1e\x1f\x85",
    "special tokens": "<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|endoftext|> <|im_end|",
    "contractions": "it's IT'S it'S 'Tis ſ's they'Ll 'ſ 'ss x'd''ve'",
    "blanks of every kind": "a\u00a0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\u200b b   c\v\f d",
    "numbers": "1234567890 ٣٤٥ ½ Ⅷ ① १२३ 1e-5",
    "scripts": "日本語のテキスト한국어 العربية עברית ไทย हिन्दी русский",
    "last characters": "\U0010ffff\ufffe\uffff\U000e0001 \U0001f1e6\U0001f1e7",
    "bidi": "\u202eabc\u202c \u2066x\u2069",
}

LONG = {
    "letters": "a" * MEGABYTE,
    "blanks": " " * MEGABYTE,
    "blanks before a word": " " * MEGABYTE + "x",
    "blanks after a word": "x" + " " * MEGABYTE,
    "tabs before a line end": "\t" * MEGABYTE + "\n" + " " * MEGABYTE,
    "line ends": "\n" * MEGABYTE,
    "blanks between line ends": "\n " * (MEGABYTE // 2),
    "wide blanks among words": ("\u3000" * (LONG_BLANK + 1) + "é") * 30 + "\r\n",
    "joiners": "\u200d" * (MEGABYTE // 3),
    "marks": "e\u0301" * (MEGABYTE // 3),
    "apostrophes": "'" * MEGABYTE,
    "digits": "7" * MEGABYTE,
    "NUL": "\0" * MEGABYTE,
}


@pytest.fixture(scope="module")
def exported(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The exported `tokenizer.json`, read by the `tokenizers` library; marker text is plain text there too."""
    import tokenizers

    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    other = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    other.encode_special_tokens = True
    return other


def test_both_encoders_agree_on_every_document_of_the_corpus(
    library_corpus: tuple[Path, Heard], tokenizer: Tokenizer, exported: Any
) -> None:
    texts = [row["text"] for row in read_documents(library_corpus[0], columns=("text",))]
    assert sum(map(len, texts)) > 8_000_000
    ours = tokenizer.encode_batch(texts)
    theirs = exported.encode_batch_fast(texts)
    assert all(mine.tolist() == other.ids for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", HOSTILE)
def test_both_encoders_agree_on_hostile_text_and_it_comes_back(tokenizer: Tokenizer, exported: Any, name: str) -> None:
    text = HOSTILE[name]
    ids = tokenizer.encode(text)
    assert ids == exported.encode(text).ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", LONG)
def test_a_megabyte_of_one_thing_is_encoded_alike_and_in_a_second_or_two(tokenizer: Tokenizer, exported: Any, name: str) -> None:
    text = LONG[name]
    begin = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - begin < 5  # a quadratic encoder needs minutes
    assert ids == exported.encode(text).ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("after", ["", "x", "\n", "\r\n", "\nx", "1", "!"])
def test_blank_runs_of_any_length_around_the_limit_are_encoded_alike(tokenizer: Tokenizer, exported: Any, after: str) -> None:
    for length in [*range(LONG_BLANK - 2, LONG_BLANK + 3), *range(LONG_BLANK + 100, LONG_BLANK + 117)]:
        for before in ("", "x", "\n"):
            text = before + " " * length + after
            assert tokenizer.encode(text) == exported.encode(text).ids


@pytest.mark.parametrize("part", [r"\p{L}", r"\p{N}", r"\s", r"(?i:s|t|m|d)"])
def test_both_regex_engines_agree_on_the_class_of_every_code_point(part: str) -> None:
    """Each engine has Unicode tables of its own: a character that is a letter in one and not in the other would part them."""
    import tiktoken
    from tokenizers import Regex, pre_tokenizers

    assert part in bpe.PATTERN or "(?i:'s|'t|" in bpe.PATTERN
    theirs = pre_tokenizers.Split(Regex(part), "removed")
    ours = tiktoken.Encoding("class", pat_str=part, mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={})
    for start in range(0, 0x110000, 0x1000):
        points = "".join(chr(point) for point in range(start, start + 0x1000) if not 0xD800 <= point < 0xE000)
        outside = set("".join(piece for piece, _ in theirs.pre_tokenize_str(points)))
        assert set(ours.decode(ours.encode_ordinary(points))) == set(points) - outside


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_comes_back_and_both_encoders_agree(tokenizer: Tokenizer, exported: Any, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids == exported.encode(text).ids


@settings(max_examples=100, deadline=None)
@given(
    words=st.lists(st.text(alphabet="abAB \n'", min_size=1, max_size=12), min_size=1, max_size=60),
    probe=st.text(alphabet="abAB \n'", max_size=60),
)
def test_vocabularies_of_repetitive_text_are_proper_and_their_encoders_agree(words: list[str], probe: str) -> None:
    """Few letters make many ways to spell a token: where the two ways to run BPE could part."""
    import tokenizers

    tokenizer = Tokenizer.train([" ".join(words * 3)], 400)
    other = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_json()))
    for text in (probe, " ".join(words), "".join(words)):
        assert tokenizer.encode(text) == other.encode(text).ids


def test_a_merge_that_spells_a_known_token_or_is_never_reached_is_left_out() -> None:
    merges = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc"), (b"x", b"yz")]
    # "abc" is split as ab + c by the merges before; a + bc spells it again and is never reached; "yz" is no token.
    assert bpe.proper(merges) == [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")]
    # Without ab + c, the bytes "abc" come out as ab and c, so a + bc is never reached.
    assert bpe.proper([(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]) == [(b"a", b"b"), (b"b", b"c")]


def test_the_fast_encoder_does_what_plain_bpe_does(tokenizer: Tokenizer) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in tokenizer.merges]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    draw = random.Random(0)
    for _ in range(300):
        word = "".join(draw.choice("etaoinsrhldcumfpgwybvkxjqz") for _ in range(draw.randint(1, 40)))
        assert tokenizer.encode(word) == [ranks[part] for part in bpe.split(word.encode(), ranks)]


def test_no_piece_crosses_the_split_of_qwen2(tokenizer: Tokenizer) -> None:
    """Digits stand alone, a word takes at most one character before it, line ends close a piece."""
    pieces = [tokenizer.decode([index]) for index in tokenizer.encode("in 2024, self.value\n\n    return self.value")]
    assert "".join(pieces) == "in 2024, self.value\n\n    return self.value"
    assert all(len(piece) == 1 for piece in pieces if any(character.isdigit() for character in piece))
    assert not any("\n" in piece and piece.strip("\n ") for piece in pieces)


def test_marker_text_is_plain_text(tokenizer: Tokenizer) -> None:
    for marker in SPECIAL_TOKENS:
        ids = tokenizer.encode(marker)
        assert len(ids) > 1 and max(ids) < tokenizer.bos
        assert tokenizer.decode(ids) == marker


def test_special_ids_follow_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos, tokenizer.im_start, tokenizer.im_end) == (4_093, 4_094, 4_095)
    assert tokenizer.vocab_size == 4_096
    assert tokenizer.decode([tokenizer.bos, 104, 105, tokenizer.im_end]) == "<|endoftext|>hi<|im_end|>"


def test_bytes_that_are_not_utf8_are_decoded_with_replacement(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode_bytes([0xF0, 0x9F]) == b"\xf0\x9f"
    assert tokenizer.decode([104, 0xF0, 0x9F]) == "h\ufffd"


@pytest.mark.parametrize("index", [-1, 4_096, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer, index: int) -> None:
    with pytest.raises(ValueError):
        tokenizer.decode([index])


@pytest.mark.parametrize("text", ["\ud800", "abc\udfffdef", "\udc00\ud800"])
def test_an_unpaired_surrogate_is_refused_with_its_place(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(HearthError, match="unpaired surrogate") as caught:
        tokenizer.encode(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(HearthError):
        tokenizer.encode_batch(["fine", text])


def test_a_batch_is_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    texts = list(HOSTILE.values())
    for threads in (1, 2, 4):
        batch = tokenizer.encode_batch(texts, threads)
        assert [ids.tolist() for ids in batch] == [tokenizer.encode(text) for text in texts]
        assert all(isinstance(ids, numpy.ndarray) for ids in batch)


# -- training ---------------------------------------------------------------------------------------------------------------

TRAIN = """
import hashlib, json, sys
from openhearth.data.tokenizer import Tokenizer
texts = [open(path, encoding="utf-8", newline="").read() for path in json.loads(sys.argv[1])]
print(hashlib.sha256(json.dumps(Tokenizer.train(texts, 2_000).to_json()).encode()).hexdigest())
"""


def test_training_gives_the_same_vocabulary_in_any_process_and_with_any_number_of_threads() -> None:
    import argparse
    import subprocess as module

    paths = json.dumps([argparse.__file__, module.__file__, json.decoder.__file__])
    root = str(Path(__file__).resolve().parents[2])
    digests = set()
    for threads, seed in (("1", "1"), ("2", "2"), ("7", "3")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        done = subprocess.run([sys.executable, "-c", TRAIN, paths], env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("texts", [[], [""], ["a"], ["ab"] * 3, ["日本"] * 2])
def test_tiny_texts_give_a_small_vocabulary_that_works(texts: list[str]) -> None:
    tokenizer = Tokenizer.train(texts, 4_096)
    assert MIN_VOCABULARY <= tokenizer.vocab_size < MIN_VOCABULARY + 10
    assert tokenizer.decode(tokenizer.encode("any ✓")) == "any ✓"


def test_a_text_that_repeats_a_long_line_does_not_become_one_token() -> None:
    tokenizer = Tokenizer.train(["x" * 5_000 + "\n"] * 20, 1_000)
    assert max(len(left + right) for left, right in tokenizer.merges) <= bpe.MAX_TOKEN_BYTES


def test_training_reads_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "SAMPLE_BYTES", 1_000)
    texts = ["alpha " * 100, "é" * 400, "omega " * 100]
    assert [len(text.encode()) for text in bpe._sample(texts)] == [600, 400]
    assert not any(b"omega" in left + right for left, right in bpe.train(texts, 500))


# -- files ------------------------------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_is_loaded_from_its_folder_or_its_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.merges == tokenizer.merges and loaded.vocab_size == tokenizer.vocab_size
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|endoftext|>", "<|im_end|>")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedError, match=r"tokenizer\.json: missing"):
        Tokenizer.load(tmp_path)


def _swap_merges(content: Any) -> None:
    content["model"]["merges"].reverse()


def _rename_token(content: Any) -> None:
    content["model"]["vocab"]["zzzz"] = content["model"]["vocab"].pop("Ġ")


def _add_normaliser(content: Any) -> None:
    content["normalizer"] = {"type": "NFC"}


def _move_marker(content: Any) -> None:
    content["added_tokens"][0]["id"] += 5


def _no_merges(content: Any) -> None:
    del content["model"]["merges"]


def _odd_letters(content: Any) -> None:
    content["model"]["merges"][0] = ["日", "本"]


def _odd_shape(content: Any) -> None:
    content["model"]["merges"][0] = 5


CHANGES = (_swap_merges, _rename_token, _add_normaliser, _move_marker, _no_merges, _odd_letters, _odd_shape)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tokenizer_file_is_refused_by_name(tokenizer: Tokenizer, tmp_path: Path, change: Any) -> None:
    tokenizer.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    change(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"tokenizer\.json") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_whose_merges_are_not_proper_is_refused(tmp_path: Path) -> None:
    """It is in itself consistent, but tools that merge by pair and tools that merge by result would read it differently."""
    Tokenizer([(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]).save(tmp_path)
    with pytest.raises(DamagedError, match="merges"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", "not json", '{"model": {"merges": [["a"]]}}'])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DamagedError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
