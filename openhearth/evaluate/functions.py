"""The share of functions a model writes that are Python: asked for functions of held-out documents, judged by the parser alone.

An answer counts when it parses and defines a function with something in it besides a docstring, so that empty or trivial text does
not count; whether the function has the name that was asked for is a second figure. Nothing a model wrote is ever run, and nothing here
says that a function does what was asked.

The chat model is asked in the chat format. A base model has never seen that format, so its own figure is for what it was trained on:
it is given the function's header and docstring as code and goes on from there, and what it writes is cut before the first line that is
not indented. The chat figure of the base model stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openhearth.align import chat, code
from openhearth.align.examples import Example
from openhearth.evaluate.statistics import Estimate, wilson

if TYPE_CHECKING:
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.generate import Generation, Sampling
    from openhearth.model.transformer import Transformer

BATCH = 64
"""Prompts answered at a time."""


@dataclass(frozen=True)
class Task:
    """A held-out function to be written."""

    name: str
    question: str
    opening: str
    """Decorators, header and docstring, with a line end: what the base model goes on from."""
    reference: str
    chat_prompt: list[int]
    code_prompt: list[int]


@dataclass(frozen=True)
class Written:
    """What a model wrote for a task, as it is judged, and how many tokens were read and written for it."""

    source: str
    parses: bool
    named: bool
    tokens: int


Tick = Callable[[int], None]
"""Told after each batch how many prompts were answered in it."""


def tasks(examples: Sequence[Example], tokenizer: Tokenizer, count: int, max_new_tokens: int, context: int) -> list[Task]:
    """The first `count` held-out functions that can be asked in both ways and whose own code fits the length of an answer."""
    found: list[Task] = []
    for example in examples:
        if len(found) == count:
            break
        if example.kind != "function" or not example.opening or len(tokenizer.encode(example.answer)) >= max_new_tokens:
            continue
        opening = example.opening + "\n"
        task = Task(
            name=example.name,
            question=example.question,
            opening=opening,
            reference=example.answer,
            chat_prompt=chat.prompt([{"role": "user", "content": example.question}], tokenizer),
            code_prompt=[tokenizer.bos, *tokenizer.encode(opening)],
        )
        if max(len(task.chat_prompt), len(task.code_prompt)) + max_new_tokens <= context:
            found.append(task)
    return found


def judge(source: str, name: str) -> tuple[bool, bool]:
    """Whether `source` parses and defines a top-level function that says something, and whether one of them is called `name`."""
    saying = [node.name for node in code.defined(source) if code.has_body(node)]
    return bool(saying), name in saying


def until_dedent(text: str) -> str:
    """The lines of `text` before the first that is not blank and not indented."""
    lines = text.split("\n")
    kept = next((number for number, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return "\n".join(lines[:kept])


def answers(model: Transformer, tokenizer: Tokenizer, prompts: Sequence[list[int]], sampling: Sampling, tick: Tick) -> list[Generation]:
    """Answers to `prompts`, in their order."""
    from openhearth.model.generate import Generation, generate

    by_length = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # little padding in a batch
    found = [Generation()] * len(prompts)
    for start in range(0, len(by_length), BATCH):
        numbers = by_length[start : start + BATCH]
        for number, generation in zip(numbers, generate(model, tokenizer, [prompts[n] for n in numbers], sampling), strict=True):
            found[number] = generation
        tick(len(numbers))
    return found


def written_in_chat(model: Transformer, tokenizer: Tokenizer, asked: Sequence[Task], sampling: Sampling, tick: Tick) -> list[Written]:
    """What `model` answers to each question in the chat format; the whole answer is judged."""
    found = answers(model, tokenizer, [task.chat_prompt for task in asked], sampling, tick)
    return [
        Written(answer.text, *judge(answer.text, task.name), len(task.chat_prompt) + len(answer.ids))
        for task, answer in zip(asked, found, strict=True)
    ]


def written_as_code(model: Transformer, tokenizer: Tokenizer, asked: Sequence[Task], sampling: Sampling, tick: Tick) -> list[Written]:
    """How `model` goes on from each header and docstring; both together are judged, up to the first line that is not indented."""
    written = []
    for task, answer in zip(asked, answers(model, tokenizer, [task.code_prompt for task in asked], sampling, tick), strict=True):
        source = task.opening + until_dedent(answer.text)
        written.append(Written(source, *judge(source, task.name), len(task.code_prompt) + len(answer.ids)))
    return written


def share(written: Sequence[Written]) -> dict[str, Any]:
    """{share, low, high, n} with Wilson's 95 % interval, and of the same answers the share `named` as asked."""
    estimate: Estimate = wilson(sum(one.parses for one in written), len(written))
    named = sum(one.named for one in written) / len(written)
    return {"share": estimate.value, "low": estimate.low, "high": estimate.high, "n": len(written), "named": named}


def how(asked: Sequence[Task], sampling: Sampling) -> str:
    """One sentence on what the shares are of."""
    drawn = "greedily" if sampling.temperature == 0 else f"at temperature {sampling.temperature:g}"
    return (
        f"{len(asked)} functions of held-out documents (the first in keyed order whose own code fits into {sampling.max_new_tokens} "
        f"tokens), answered {drawn} in at most {sampling.max_new_tokens} tokens; an answer counts when ast.parse accepts it and it defines "
        "a function with a body besides a docstring, and is named when that function has the name asked for; the fine-tuned model is asked "
        "in the chat format; the base model goes on from the header and the docstring and is cut before the first line that is not "
        "indented; base_chat_prompt is the base model asked in the chat format."
    )
