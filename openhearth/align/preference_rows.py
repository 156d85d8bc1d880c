"""Preference rows: which of two answers to the same question is the better one, and how sure that is. One JSON object a line.

    {"prompt": "What is a list?", "chosen": "A mutable sequence.", "rejected": "A kind of tuple."}
    {"prompt": [{"role": "user", "content": "..."}], "chosen": "...", "rejected": "...", "label": 0.8, "margin": 0.5}

`prompt` is a question or a conversation that ends with the user; `label` is the probability that `chosen` is the better one (1 when left
out). `chosen` and `rejected` may also be whole conversations that begin with the prompt, as some published data has them. Further keys
(judge, principle, cost) are kept by whoever wrote them and not read here. Whatever is wrong is said with file and line, before training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from openhearth.align import chat
from openhearth.errors import HearthError
from openhearth.inputs import read_small
from openhearth.ledger import digest_json

MOST_BYTES = 2_000_000_000

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Pair:
    """Two answers to one conversation, and the probability that the first is the better one."""

    prompt: Messages
    chosen: str
    rejected: str
    label: float = 1.0
    margin: float = 0.0


def read_pairs(path: Path) -> list[Pair]:
    """The rows of a JSONL file. Raises HearthError naming the file and the line of the first that cannot be used."""
    pairs = []
    for number, line in enumerate(read_small(path, limit=MOST_BYTES, what="preference file", suffix=".jsonl").split("\n"), 1):
        if line.strip():
            try:
                pairs.append(as_pair(_object(line)))
            except HearthError as error:
                raise HearthError(f"{path}:{number}: {error}") from None
    if not pairs:
        raise HearthError(f"{path}: holds no preference; write one JSON object with prompt, chosen and rejected on each line")
    return pairs


def as_pair(row: dict[str, Any]) -> Pair:
    """One row, checked; raises HearthError saying what is wrong with it."""
    for key in ("prompt", "chosen", "rejected"):
        if key not in row and not (key == "prompt" and isinstance(row.get("chosen"), list)):
            raise HearthError(f"{key} is missing; a row has prompt, chosen and rejected")
    prompt = _conversation(row["prompt"], "prompt") if "prompt" in row else None
    answers = []
    for key in ("chosen", "rejected"):
        before, answer = _answer(row[key], key)
        if before is not None and prompt is not None and before != prompt:
            raise HearthError(f"{key} is an answer to another prompt; both answers of a pair answer the same one")
        prompt = before if prompt is None else prompt
        answers.append(answer)
    if prompt is None:
        raise HearthError("prompt is missing; a row has prompt, chosen and rejected")
    chosen, rejected = answers
    if chosen == rejected:
        raise HearthError("chosen and rejected are equal, so the row prefers nothing; leave it out")
    label, margin = _number(row, "label", 1.0), _number(row, "margin", 0.0)
    if not 0 <= label <= 1:
        raise HearthError(f"label is {label:g}; it is the probability that chosen is the better one, between 0 and 1")
    if margin < 0:
        raise HearthError(f"margin is {margin:g}; it must be 0 or more")
    chat.check(prompt, last="user")
    for answer in answers:
        chat.check([*prompt, {"role": "assistant", "content": answer}], last="assistant")
    return Pair(prompt, chosen, rejected, label, margin)


def as_conversation(value: Any) -> Messages:
    """A prompt, given as text or as messages, as a conversation that ends with the user; raises HearthError."""
    messages = _conversation(value, "prompt")
    chat.check(messages, last="user")
    return messages


def _object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise HearthError("not JSON; write one object a line") from None
    if not isinstance(row, dict):
        raise HearthError("not a JSON object; write prompt, chosen and rejected")
    return row


def _number(row: dict[str, Any], key: str, default: float) -> float:
    value = row.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise HearthError(f"{key} is {json.dumps(value)[:40]}, not a number")
    return float(value)


def _conversation(value: Any, key: str) -> Messages:
    if isinstance(value, str):
        if not value.strip():
            raise HearthError(f"{key} is empty; give it some text")
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
        raise HearthError(f"{key} is neither text nor a list of messages")
    return [dict(message) for message in value]


def _answer(value: Any, key: str) -> tuple[Messages | None, str]:
    """The conversation before an answer, where it is given, and the answer's text."""
    if isinstance(value, str):
        return None, value
    messages = _conversation(value, key)
    chat.check(messages, last="assistant")
    return messages[:-1] or None, messages[-1]["content"]


# -- as the model sees them -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rendered:
    """Pairs as token ids: row 2i is the chosen answer of pair i with its prompt, row 2i + 1 the rejected one.

    `inputs` and `targets` (2 x pairs, sequence) int64, padded on the right; a target is -1 outside the answer (its <|im_end|> is in).
    """

    inputs: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]
    margins: npt.NDArray[np.float32]
    too_long: int
    """Pairs left out because an answer with its prompt does not fit the window; nothing is cut."""

    @property
    def pairs(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """sha256 of what the model sees."""
        return digest_json([array.tobytes().hex() for array in (self.inputs, self.targets, self.labels, self.margins)])

    def take(self, chosen: Sequence[int] | npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], ...]:
        """Inputs, targets, labels and margins of these pairs, as wide as their longest row needs."""
        rows = np.stack((2 * np.asarray(chosen), 2 * np.asarray(chosen) + 1), 1).reshape(-1)
        targets = self.targets[rows]
        width = int((targets >= 0).any(0).nonzero()[0].max()) + 1
        return self.inputs[rows, :width], targets[:, :width], self.labels[chosen], self.margins[chosen]


def render_pairs(pairs: Sequence[Pair], tokenizer: chat.ChatTokenizer, sequence_length: int) -> Rendered:
    """Pairs as token ids; those that do not fit `sequence_length` are counted and left out. Raises HearthError when none fits."""
    kept: list[tuple[list[tuple[list[int], int]], Pair]] = []
    for pair in pairs:
        start = len(chat.prompt(pair.prompt, tokenizer))
        both = []
        for answer in (pair.chosen, pair.rejected):
            ids, mask = chat.render([*pair.prompt, {"role": "assistant", "content": answer}], tokenizer)
            both.append((ids[: len(ids) - mask[::-1].index(True)], start))
        if max(len(ids) for ids, _ in both) <= sequence_length + 1:
            kept.append((both, pair))
    if not kept:
        raise HearthError(f"none of the {len(pairs):,} pairs fits the model's window of {sequence_length:,} tokens; give shorter ones")
    inputs = np.full((2 * len(kept), sequence_length), tokenizer.bos, dtype=np.int64)
    targets = np.full_like(inputs, -1)
    for number, (both, _) in enumerate(kept):
        for row, (ids, start) in zip((2 * number, 2 * number + 1), both, strict=True):
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, start - 1 : len(ids) - 1] = ids[start:]
    return Rendered(
        inputs,
        targets,
        np.array([pair.label for _, pair in kept], dtype=np.float32),
        np.array([pair.margin for _, pair in kept], dtype=np.float32),
        len(pairs) - len(kept),
    )
