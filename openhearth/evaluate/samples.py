"""Three samples of what the models write, chosen by rule and not by hand: two held-out questions for the chat model, one opening for
the base model. The first example of each kind in keyed order is asked, functions before topics before the rest. They are drawn at the
temperature at which `hearth chat` draws, so that the report shows what a person will get.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from openhearth.align import chat
from openhearth.align.examples import Example

if TYPE_CHECKING:
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.generate import Sampling
    from openhearth.model.transformer import Transformer

COUNT = 3
OPENING = 200
"""Characters of a held-out text that the base model goes on from."""
TEMPERATURE = 0.8
"""That of `hearth chat`; greedy text of a small model soon repeats itself."""

KINDS = {
    "function": "a held-out function, asked in chat",
    "topic": "a held-out topic, asked in chat",
    "reference": "a held-out module, asked in chat",
    "continue": "a held-out text, to be continued in chat",
}

Sample = dict[str, str]


def questions(examples: Sequence[Example], tokenizer: Tokenizer, room: int) -> list[Example]:
    """The examples to ask, two at most: the first of each kind whose prompt fits into `room` tokens, then further ones."""
    fitting = [one for one in examples if len(chat.prompt([{"role": "user", "content": one.question}], tokenizer)) <= room]
    firsts = [next((one for one in fitting if one.kind == kind), None) for kind in KINDS]
    chosen = [one for one in firsts if one is not None]
    return [*chosen, *(one for one in fitting if one not in chosen)][: COUNT - 1]


def openings(texts: Sequence[bytes], tokenizer: Tokenizer, count: int, room: int) -> list[str]:
    """The beginnings of the first `count` held-out texts, cut between words."""
    found = []
    for text in texts[:count]:
        opening = text.decode()[:OPENING]
        words = opening.rsplit(None, 1)
        opening = words[0] if len(text) > OPENING and len(words) > 1 else opening.rstrip()
        found.append(tokenizer.decode(tokenizer.encode(opening)[:room]))
    return [opening for opening in found if opening]


def ask(model: Transformer, tokenizer: Tokenizer, asked: Sequence[Example], sampling: Sampling) -> list[Sample]:
    """The chat model's answers at TEMPERATURE."""
    from openhearth.model.generate import generate

    prompts = [chat.prompt([{"role": "user", "content": one.question}], tokenizer) for one in asked]
    answers = generate(model, tokenizer, prompts, replace(sampling, temperature=TEMPERATURE))
    return [{"kind": KINDS[one.kind], "prompt": one.question, "answer": answer.text} for one, answer in zip(asked, answers, strict=True)]


def go_on(model: Transformer, tokenizer: Tokenizer, begun: Sequence[str], sampling: Sampling) -> list[Sample]:
    """How the base model goes on at TEMPERATURE."""
    from openhearth.model.generate import generate

    prompts = [[tokenizer.bos, *tokenizer.encode(opening)] for opening in begun]
    answers = generate(model, tokenizer, prompts, replace(sampling, temperature=TEMPERATURE))
    kind = f"a held-out text, continued by the base model at temperature {TEMPERATURE}"
    return [{"kind": kind, "prompt": opening, "answer": answer.text} for opening, answer in zip(begun, answers, strict=True)]
