"""Dialogues to weights: what every supervised step of the constitutional chain does, by the one training loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from openhearth.align.chat import prompt, render
from openhearth.align.constitution import Message
from openhearth.align.packing import pack
from openhearth.data.order import keys_of, permute
from openhearth.data.tokenizer import Tokenizer
from openhearth.ledger import digest_bytes, digest_json, write_atomic
from openhearth.model.config import ModelConfig
from openhearth.stage import Tell
from openhearth.train.loop import Batch, train
from openhearth.train.schedule import Schedule
from openhearth.train.settings import Settings

FINE_TUNING = Schedule(warmup=0.05, cooldown=0.95, final=0.0, momentum_start=0.95)


@dataclass(frozen=True)
class Dialogue:
    """Messages that end with the assistant, and the number of the message from which on the assistant's turns are learned."""

    messages: tuple[Message, ...]
    learn_from: int = 1


def rendered(dialogue: Dialogue, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids and loss mask of a dialogue."""
    ids, mask = render(dialogue.messages, tokenizer)
    start = len(prompt(dialogue.messages[: dialogue.learn_from], tokenizer))
    return ids, [learned and place >= start for place, learned in enumerate(mask)]


def fine_tune(
    config: ModelConfig,
    initial: Callable[[], Mapping[str, Tensor]],
    dialogues: Sequence[Dialogue],
    tokenizer: Tokenizer,
    settings: Settings,
    out: Path,
    tell: Tell,
    *,
    epochs: float,
    seed: int,
) -> int:
    """Train on whole dialogues for a number of epochs; leaves weights in `out` and gives the FLOPs. Killed, it goes on by itself."""
    packed = pack([rendered(each, tokenizer) for each in dialogues], settings.sequence_length, tokenizer.bos, seed)
    windows, rows = len(packed.inputs), settings.batch_tokens // settings.sequence_length
    settings = settings.model_copy(update={"steps": max(1, round(epochs * windows / rows)), "schedule": FINE_TUNING})

    def batches(step: int) -> Batch:
        epoch, within = np.divmod(np.arange(step * rows, (step + 1) * rows), windows)
        chosen = np.array([permute(within[i], windows, keys_of("sft", seed, int(epoch[i]))) for i in range(rows)])
        return packed.inputs[chosen], packed.targets[chosen]

    data = digest_json([digest_bytes(ids.tobytes()) for ids in (packed.inputs, packed.targets)])
    train(config, settings, initial, batches, out, tell, data=data)
    return settings.tokens * config.flops_per_token(settings.sequence_length)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, all or nothing."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows).encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def read_dialogues(path: Path) -> list[Dialogue]:
    """Dialogues that were written as rows."""
    return [Dialogue(tuple(row["messages"]), row["learn_from"]) for row in read_rows(path)]
