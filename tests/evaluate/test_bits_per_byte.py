"""Bits per byte against closed forms and a brute-force computation, one token at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.evaluate import bits_per_byte as module
from openhearth.evaluate.bits_per_byte import bits_per_byte, nats, windows
from openhearth.model.transformer import Transformer

LENGTHS = (1, 2, 15, 16, 17, 23, 24, 25, 40, 100)


def texts(vocab_size: int) -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, vocab_size - 3, length) for length in LENGTHS]


@given(st.integers(0, 300), st.integers(1, 40).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window))))
def test_every_position_is_scored_once_with_the_declared_context(length: int, sizes: tuple[int, int]) -> None:
    window, stride = sizes
    found = windows(0, length, window, stride)
    assert [at for piece in found for at in range(piece.first, piece.end)] == list(range(length))
    for piece in found:
        assert piece.end - piece.start <= window
        assert piece.start == 0 or piece.first - piece.start >= window - stride


def test_a_uniform_model_needs_log2_of_the_vocabulary_for_each_token(model: Transformer, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        model.lm_head.weight.zero_()
    written = ["def f():\n    return 1\n" * 9, "é漢😀", "x"]
    ids = [np.array(tokenizer.encode(text)) for text in written]
    sizes = [len(text.encode()) for text in written]
    estimate = bits_per_byte(nats(model, ids, tokenizer.bos, 16, 8), sizes, [0, 1, 2], seed=0)
    assert estimate.value == pytest.approx(math.log2(tokenizer.vocab_size) * sum(map(len, ids)) / sum(sizes), rel=1e-6)


def test_it_equals_the_sum_over_tokens_one_at_a_time(model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_TOKENS", 64)
    monkeypatch.setattr(module, "LOGIT_ROWS", 7)
    window, stride = 16, 8
    ids = texts(tokenizer.vocab_size)
    expected = []
    for text in ids:
        before, total = [tokenizer.bos, *text.tolist()], 0.0
        for at, id in enumerate(text.tolist()):
            # Positions 0..15 see everything; from then on a window begins at each multiple of the stride and scores its last `stride`.
            start = 0 if at < window else (at - (window - stride)) // stride * stride
            context = torch.tensor([before[start : at + 1]])
            total -= float(torch.log_softmax(model(context).detach()[0, -1].double(), -1)[id])
        expected.append(total)
    assert nats(model, ids, tokenizer.bos, window, stride) == pytest.approx(expected, rel=1e-5)


def test_a_text_counts_the_same_alone_and_among_others(model: Transformer, tokenizer: Tokenizer) -> None:
    ids = texts(tokenizer.vocab_size)
    together = nats(model, ids, tokenizer.bos, 16, 8)
    alone = [float(nats(model, [text], tokenizer.bos, 16, 8)[0]) for text in ids]
    assert together == pytest.approx(alone, rel=1e-5)


def test_the_bos_conditions_but_is_not_scored(model: Transformer) -> None:
    first = float(-torch.log_softmax(model(torch.tensor([[5]])).detach()[0, 0], -1)[7])
    assert nats(model, [np.array([7])], 5, 16, 8)[0] == pytest.approx(first, rel=1e-5)


def test_more_context_is_given_by_a_smaller_stride(model: Transformer, tokenizer: Tokenizer) -> None:
    ids = texts(tokenizer.vocab_size)[-1:]
    read: list[int] = []
    nats(model, ids, tokenizer.bos, 16, 16, lambda done, total: read.append(total))
    nats(model, ids, tokenizer.bos, 16, 4, lambda done, total: read.append(total))
    assert read[0] == 100 and read[-1] == 16 * 22


def test_progress_ends_at_the_total(model: Transformer, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_TOKENS", 32)
    told: list[tuple[int, int]] = []
    nats(model, texts(tokenizer.vocab_size), tokenizer.bos, 16, 8, lambda done, total: told.append((done, total)))
    assert len(told) > 3 and told[-1][0] == told[-1][1] and [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_gives_no_number_is_refused(model: Transformer, tokenizer: Tokenizer, value: float) -> None:
    with torch.no_grad():
        model.lm_head.weight[3] = value
    with pytest.raises(HearthError, match="held-out text 1: the model's loss is"):
        nats(model, texts(tokenizer.vocab_size), tokenizer.bos, 16, 8)


def test_an_empty_text_has_no_nats(model: Transformer, tokenizer: Tokenizer) -> None:
    assert nats(model, [np.array([], dtype=np.int64)], tokenizer.bos, 16, 8).tolist() == [0.0]


def test_bits_are_nats_over_ln_2_and_units_are_summed(model: Transformer) -> None:
    estimate = bits_per_byte(np.array([1.0, 2.0, 3.0]) * math.log(2), [1, 1, 2], [0, 0, 1], seed=0)
    assert estimate.value == pytest.approx(6 / 4)
    assert (estimate.low, estimate.high) == pytest.approx((1.5, 1.5))  # both units have 1.5 bits per byte
