"""A conversation with a model: what was said, what of it still fits the context, the next answer, and a file of it all.

It knows nothing of terminals. The whole conversation is kept; only what is sent to the model loses its oldest turns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openhearth.errors import HearthError
from openhearth.ledger import Json, write_atomic

if TYPE_CHECKING:
    from openhearth.model.generate import Sampling
    from openhearth.serve.loading import Opened

FORMAT = "openhearth-chat/1"


@dataclass
class Conversation:
    """Turns of a user and an assistant, under an optional system message."""

    opened: Opened
    sampling: Sampling
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    tries: int = 0
    """How often the last answer was asked for again; another try draws with another seed."""
    left_out: int = 0
    """How many of the oldest turns did not fit the context when the model was last asked."""

    def prompt(self) -> list[int]:
        """The ids to continue: as many of the latest turns as leave room for an answer. Raises HearthError when the last alone does not."""
        from openhearth.align import chat

        context = self.opened.model.config.max_position_embeddings
        room = min(self.sampling.max_new_tokens, context // 4)
        head = [{"role": "system", "content": self.system}] if self.system else []
        for start in range(self.left_out, len(self.turns), 2):  # turns come in pairs; the last is the user's
            ids = chat.prompt([*head, *self.turns[start:][-chat.MAX_MESSAGES + 1 :]], self.opened.tokenizer)
            if len(ids) + room <= context:
                self.left_out = start
                return ids
        raise HearthError(
            f"the message has {len(ids):,} tokens with all that goes around it; the model reads {context:,}, and {room:,} are kept "
            "for the answer: say it in fewer words"
        )

    def answer(self, message: str) -> Iterator[str]:
        """The pieces of the answer to `message`, as they come. What came is kept as the answer, also when the caller stops early.

        A message that cannot be answered (too long) raises HearthError and is not kept, and neither is one whose answer is empty.
        """
        from openhearth.model.generate import stream

        self.turns.append({"role": "user", "content": message})
        said: list[str] = []
        try:
            sampling = replace(self.sampling, seed=self.sampling.seed + self.tries)
            for piece in stream(self.opened.model, self.opened.tokenizer, self.prompt(), sampling):
                said.append(piece)
                yield piece
        finally:
            text = "".join(said)
            if text.strip():
                self.turns.append({"role": "assistant", "content": text})
            else:
                self.turns.pop()

    def again(self) -> str:
        """Take back the last answer; returns the message to answer once more. Raises HearthError when there is none."""
        if not self.turns:
            raise HearthError("there is no answer to try again")
        self.turns.pop()
        self.tries += 1
        return self.turns.pop()["content"]

    def instruct(self, system: str) -> None:
        """Set the system message of the whole conversation; '' removes it."""
        self.system, self.left_out = system, 0

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self.turns.clear()
        self.tries = self.left_out = 0

    def record(self) -> Json:
        """The conversation with what is needed to have it again: the model's root digest and the sampling."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        return {
            "format": FORMAT,
            "model": {"release": self.opened.folder.name, "root": self.opened.root},
            "sampling": asdict(self.sampling),
            "messages": [*messages, *self.turns],
        }

    def save(self, path: Path, *, replace_file: bool = False) -> None:
        """Write the record as JSON (on one line when the name ends in .jsonl); raises HearthError rather than replace a file unasked."""
        if path.exists() or path.is_symlink():
            if not path.is_file() or path.is_symlink():
                raise HearthError(f"{path}: not a plain file; choose another name")
            if not replace_file:
                raise HearthError(f"{path}: exists; give the same command again to replace it, or another name")
        text = json.dumps(self.record(), ensure_ascii=False, indent=None if path.suffix == ".jsonl" else 2)
        try:
            write_atomic(path, f"{text}\n".encode())
        except OSError as error:
            raise HearthError(f"{path}: cannot be written ({error.strerror}); choose another name") from None
