"""The engine: the same text alone and in a crowd, requests that come and go, limits."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from openhearth.model.generate import Sampling, generate
from openhearth.serve.decoder import CHUNK, Decoder, Segment
from openhearth.serve.engine import Busy, End, Engine, Request
from openhearth.serve.loading import Opened, open_release
from openhearth.serve.text import Piece, TextStream, Token


@pytest.fixture(scope="module")
def opened(made_release: Path) -> Opened:
    return open_release(made_release)


@pytest.fixture(scope="module")
def decoder(opened: Opened) -> Decoder:
    return Decoder(opened.model, slots=6)


@pytest.fixture
def engine(decoder: Decoder, opened: Opened) -> Iterator[Engine]:
    engine = Engine(decoder, opened.tokenizer, waiting=4)
    yield engine
    engine.close()


class Asked:
    """A request and what it heard."""

    def __init__(self, prompt: list[int], sampling: Sampling, **options: object) -> None:
        self.heard: queue.Queue[Piece | End] = queue.Queue()
        self.request = Request(prompt, sampling, self.heard.put, **options)  # type: ignore[arg-type]

    def answer(self) -> tuple[str, list[int], str]:
        text, ids = "", []
        while isinstance(said := self.heard.get(timeout=30), Piece):
            text += said.text
            ids += [token.id for token in said.tokens]
        return text, ids, said.reason


def prompts(opened: Opened) -> list[list[int]]:
    text = "def add(one, other):\n    return one + other\n\n\nfor number in range(10):\n    print(number)\n"
    ids = opened.tokenizer.encode(text)
    return [[opened.tokenizer.bos, *ids[: 3 + 5 * count]] for count in range(6)]


def test_greedy_text_is_that_of_generate(engine: Engine, opened: Opened) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=0.0)
    for prompt in prompts(opened):
        (expected,) = generate(opened.model, opened.tokenizer, [prompt], sampling)
        asked = Asked(prompt, sampling)
        engine.submit(asked.request)
        text, ids, reason = asked.answer()
        assert ids == expected.ids
        assert text.rstrip("\ufffd") == expected.text.rstrip("\ufffd")  # `generate` shows half a character at the end
        assert reason == expected.reason


def test_logits_are_those_of_the_model(decoder: Decoder, opened: Opened) -> None:
    prompt = prompts(opened)[-1]
    expected = opened.model(torch.tensor([prompt]))[0]
    assert torch.allclose(decoder.logits(decoder.forward([Segment(0, prompt, 0)])), expected, atol=1e-4)
    both = decoder.forward([Segment(1, prompt[:-1], 0), Segment(0, [prompt[0]], len(prompt))])
    assert torch.allclose(decoder.logits(both[:-1]), expected[:-1], atol=1e-4)
    assert torch.allclose(decoder.logits(decoder.forward([Segment(1, prompt[-1:], len(prompt) - 1)]))[0], expected[-1], atol=1e-4)


def test_the_same_seed_gives_the_same_tokens_alone_and_in_any_crowd(engine: Engine, opened: Opened) -> None:
    sampling = [Sampling(max_new_tokens=10 + 3 * count, temperature=1.0, seed=count) for count in range(6)]
    alone = []
    for prompt, how in zip(prompts(opened), sampling, strict=True):
        asked = Asked(prompt, how, logprobs=3)
        engine.submit(asked.request)
        alone.append(pieces(asked))
    for start in range(3):  # who joins when, and beside whom, differs each time
        crowd = [Asked(prompt, how, logprobs=3) for prompt, how in zip(prompts(opened), sampling, strict=True)]
        order = [*crowd[start:], *crowd[:start]]
        engine.submit(order[0].request)
        time.sleep(0.005 * start)
        for asked in order[1:]:
            engine.submit(asked.request)
        assert [pieces(asked) for asked in crowd] == alone  # tokens and the bits of their log-probabilities


def pieces(asked: Asked) -> list[Token]:
    tokens: list[Token] = []
    while isinstance(said := asked.heard.get(timeout=30), Piece):
        tokens += said.tokens
    return tokens


def test_segments_read_together_have_the_bits_of_segments_read_alone(decoder: Decoder, opened: Opened) -> None:
    assert decoder.together
    segments = [Segment(slot, prompt, 0) for slot, prompt in enumerate(prompts(opened))]
    alone = torch.cat([decoder.forward([segment]) for segment in segments])
    assert torch.equal(decoder.forward(segments), alone)
    assert torch.equal(decoder.logits(alone[-3:]), decoder.logits(alone)[-3:])


def test_where_a_batch_changes_bits_conversations_take_their_passes_alone(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(opened.model, slots=4)
    decoder.layers[0].down = lambda x: torch.nn.functional.linear(x, torch.zeros(64, 96)) + len(x)  # type: ignore[assignment]
    decoder.layers[0].down.width = 96
    assert not decoder.rows_alike(4)
    decoder.together = False
    segments = [Segment(slot, [7 + slot], 0) for slot in range(4)]
    alone = torch.cat([decoder.forward([segment]) for segment in segments])
    assert torch.equal(decoder.forward(segments), alone)


def test_a_prompt_longer_than_a_chunk_is_read_as_if_at_once(opened: Opened, decoder: Decoder) -> None:
    prompt = [opened.tokenizer.bos, *range(97, 97 + 20)] * 7
    prompt = prompt[: min(CHUNK + 9, opened.model.config.max_position_embeddings - 1)]
    expected = opened.model(torch.tensor([prompt]))[0, -1]
    decoder.forward([Segment(0, prompt[: CHUNK // 2], 0)])
    hidden = decoder.forward([Segment(0, prompt[CHUNK // 2 :], CHUNK // 2)])
    assert torch.allclose(decoder.logits(hidden[-1:])[0], expected, atol=1e-4)


def test_a_prompt_that_begins_as_another_takes_over_its_chunks_and_says_the_same(engine: Engine, opened: Opened) -> None:
    prompt = ([opened.tokenizer.bos, *range(97, 97 + 20)] * 7)[: engine.context - 8]
    if len(prompt) <= CHUNK:
        pytest.skip("the test's model has a shorter context than a chunk")
    answers = []
    for _ in range(2):
        asked = Asked(prompt, Sampling(max_new_tokens=6, temperature=1.0), logprobs=0)
        engine.submit(asked.request)
        answers.append(pieces(asked))
    assert answers[0] == answers[1]


def test_a_cancelled_request_leaves_its_slot_within_a_step(engine: Engine, opened: Opened) -> None:
    endless = Asked(prompts(opened)[0], Sampling(max_new_tokens=10_000, temperature=1.0, seed=3))
    engine.submit(endless.request)
    endless.heard.get(timeout=10)
    engine.cancel(endless.request)
    made = endless.request.made
    while not isinstance(endless.heard.get(timeout=10), End):
        pass
    assert endless.request.made <= made + 1
    assert engine.counts()["running"] == 0


def test_a_full_queue_refuses_at_once_and_takes_all_or_none(engine: Engine, opened: Opened) -> None:
    prompt, sampling = prompts(opened)[0], Sampling(max_new_tokens=20, temperature=0.0)
    with pytest.raises(Busy):
        engine.submit(*[Asked(prompt, sampling).request for _ in range(11)])  # 6 slots and 4 places to wait
    assert engine.counts() == {"running": 0, "waiting": 0, "slots": 6}


def test_a_request_ends_when_its_time_is_over(engine: Engine, opened: Opened) -> None:
    asked = Asked(prompts(opened)[0], Sampling(max_new_tokens=10_000, temperature=1.0), seconds=0.0)
    engine.submit(asked.request)
    assert asked.answer()[2] == "time"


def test_the_context_ends_an_answer_and_a_prompt_that_fills_it_is_refused(engine: Engine, opened: Opened) -> None:
    bos = opened.tokenizer.bos
    with pytest.raises(ValueError, match="context"):
        engine.submit(Asked([bos] * engine.context, Sampling()).request)
    asked = Asked([bos] + [97] * (engine.context - 2), Sampling(max_new_tokens=9, temperature=0.0))
    engine.submit(asked.request)
    assert asked.answer()[2] in ("context", "stop")


def test_echo_scores_the_prompt_as_one_pass_over_it_does(engine: Engine, opened: Opened) -> None:
    prompt = prompts(opened)[3]
    asked = Asked(prompt, Sampling(max_new_tokens=1, temperature=0.0), logprobs=1, echo=True)
    engine.submit(asked.request)
    tokens = pieces(asked)[: len(prompt)]
    expected = opened.model(torch.tensor([prompt]))[0].log_softmax(-1)
    assert [token.id for token in tokens] == prompt
    assert tokens[0].logprob is None
    for place, token in enumerate(tokens[1:]):
        assert token.logprob == pytest.approx(float(expected[place, prompt[place + 1]]), abs=1e-4)


def test_a_job_runs_between_steps(engine: Engine) -> None:
    assert engine.run(lambda decoder: decoder.slots).result(timeout=10) == 6


def stream_of(raws: list[bytes], stops: list[str]) -> tuple[list[str], list[int], bool]:
    stream = TextStream(stops)
    shown, tokens = [], []
    for number, raw in enumerate(raws):
        if piece := stream.push(Token(number, raw)):
            shown.append(piece.text)
            tokens += [token.id for token in piece.tokens]
        if stream.stopped:
            break
    if piece := stream.rest():
        shown.append(piece.text)
        tokens += [token.id for token in piece.tokens]
    return shown, tokens, stream.stopped


@pytest.mark.parametrize("text", ["naïve 🙂 ok", "👩‍👩‍👧", "日本語", "a\r\ndata: b"])
def test_characters_that_are_split_over_tokens_come_whole(text: str) -> None:
    shown, tokens, _ = stream_of([bytes([byte]) for byte in text.encode()], [])
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown)
    assert tokens == list(range(len(text.encode())))


def test_half_a_character_at_the_end_is_dropped() -> None:
    assert stream_of([b"ok", "é".encode()[:1]], [])[0] == ["ok", ""]


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_stop_string_over_token_boundaries_never_shows_a_part(cut: int) -> None:
    text = b"one END two"
    raws = [text[:cut], text[cut : cut + 1], *[bytes([byte]) for byte in text[cut + 1 :]]]
    shown, tokens, stopped = stream_of(raws, ["END", "nothing"])
    assert "".join(shown) == "one "
    assert stopped
    begins = [sum(map(len, raws[:number])) for number in range(len(raws))]
    assert tokens == [number for number, begin in enumerate(begins) if begin < 4]


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    shown, tokens, stopped = stream_of([b"E", b"N", b"E", b"N", b"D?"], ["ENDED"])
    assert "".join(shown) == "ENEND?"
    assert tokens == [0, 1, 2, 3, 4]
    assert not stopped
