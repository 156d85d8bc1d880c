"""Generation with a KV cache: a batch of prompts gives the same answers as each prompt alone.

Prompts of different lengths are padded on the left, padding is masked out and positions count from each prompt's own start.
Each answer draws from its own generator keyed by (seed, prompt), so that the batch around it does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from openhearth.errors import HearthError
from openhearth.model.sampling import Sampling as Sampling
from openhearth.model.transformer import KVCache, Transformer

Reason = Literal["stop", "length", "context"]


class TextCodec(Protocol):
    """What generation needs of a tokenizer."""

    bos: int
    im_end: int

    def decode_bytes(self, ids: Sequence[int]) -> bytes: ...


@dataclass
class Generation:
    """An answer: its token ids (without the one that ended it), its text, and why it ended."""

    ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: Reason = "length"


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from fp32 logits: temperature, then top-k, then nucleus (Holtzman et al. 2020), then a draw."""
    if sampling.temperature == 0.0:
        return int(logits_V.argmax())
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < logits_V.numel():
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], -torch.inf)
    probabilities, order = logits_V.softmax(-1).sort(descending=True, stable=True)
    if sampling.top_p < 1.0:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    draw = torch.rand((), generator=generator) * probabilities.sum()
    return int(order[(probabilities.cumsum(-1) <= draw).sum().clamp(max=int((probabilities > 0).sum()) - 1)])


def generator_for(seed: int, prompt: Sequence[int]) -> torch.Generator:
    """The draws of an answer: a function of the seed and of the prompt's ids."""
    key = hashlib.sha256(repr((seed, list(prompt))).encode()).digest()[:7]
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


def held_back(text: bytes, stops: Sequence[bytes]) -> int:
    """How many bytes at the end of `text` may still turn out to begin a stop string."""
    longest = 0
    for stop in stops:
        for size in range(1, len(stop)):
            if text.endswith(stop[:size]):
                longest = max(longest, size)
    return longest


def _whole_characters(text: bytes) -> int:
    """How many bytes of `text` end on a whole UTF-8 character; an invalid byte counts as whole."""
    for back in range(1, min(4, len(text)) + 1):
        byte = text[-back]
        if byte & 0b1100_0000 != 0b1000_0000:  # not a continuation byte
            size = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(text) - back if size > back else len(text)
    return len(text)


@torch.inference_mode()
def _generate(model: Transformer, codec: TextCodec, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[list[Generation]]:
    """Yields the answers so far after each token."""
    context = model.config.max_position_embeddings
    for prompt in prompts:
        if not prompt:
            raise HearthError("the prompt is empty; give at least one token")
        if len(prompt) >= context:
            raise HearthError(f"the prompt has {len(prompt):,} tokens; the model's context holds {context:,}, of which one must stay free")
    count, longest = len(prompts), max(map(len, prompts))
    capacity = min(longest + sampling.max_new_tokens, longest + context)
    ids = torch.full((count, longest), codec.bos)
    positions = torch.zeros(count, longest, dtype=torch.long)
    cache = KVCache(model.config, count, capacity)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
        positions[row, longest - len(prompt) :] = torch.arange(len(prompt))
        cache.valid_BS[row, longest - len(prompt) :] = True
    generators = [generator_for(sampling.seed, prompt) for prompt in prompts]
    answers = [Generation() for _ in prompts]
    raw = [b""] * count
    done = [False] * count
    stops = [stop.encode() for stop in sampling.stop if stop]
    end_ids = {codec.bos, codec.im_end}
    logits_BV = model.lm_head(model.hidden(ids, cache, positions)[:, -1]).float()
    for step in range(sampling.max_new_tokens):
        chosen = torch.full((count, 1), codec.bos)
        for row in range(count):
            if done[row]:
                continue
            token = choose(logits_BV[row], sampling, generators[row])
            if token in end_ids:
                done[row], answers[row].reason = True, "stop"
                continue
            answers[row].ids.append(token)
            raw[row] += codec.decode_bytes([token])
            chosen[row] = token
            found = [at for stop in stops if (at := raw[row].find(stop)) >= 0]
            if found:
                raw[row] = raw[row][: min(found)]
                done[row], answers[row].reason = True, "stop"
            elif len(prompts[row]) + len(answers[row].ids) >= context:
                done[row], answers[row].reason = True, "context"
        for row in range(count):
            finished = done[row] or step + 1 == sampling.max_new_tokens
            shown = raw[row] if finished else raw[row][: _whole_characters(raw[row][: len(raw[row]) - held_back(raw[row], stops)])]
            answers[row].text = shown.decode("utf-8", errors="replace")
        yield answers
        if all(done) or step + 1 == sampling.max_new_tokens:
            return
        next_positions = torch.tensor([[min(len(prompt) + step, context - 1)] for prompt in prompts])
        cache.valid_BS[:, cache.length] = True
        logits_BV = model.lm_head(model.hidden(chosen, cache, next_positions)[:, -1]).float()


def generate(model: Transformer, codec: TextCodec, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Generation]:
    """Answers to all prompts, in their order; each ends at <|im_end|>, <|endoftext|>, a stop string, its length or the context."""
    if not prompts:
        return []
    answers: list[Generation] = []
    for answers in _generate(model, codec, prompts, sampling):  # noqa: B007
        pass
    return answers


def stream(model: Transformer, codec: TextCodec, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
    """The pieces of one answer as they come; no piece splits a character or shows part of a stop string."""
    shown = ""
    for answers in _generate(model, codec, [prompt], sampling):
        text = answers[0].text
        if len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
