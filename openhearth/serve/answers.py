"""From what the engine says to OpenAI's objects: choices, chunks, log-probabilities, usage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openhearth.ledger import Json
from openhearth.model.sampling import Sampling
from openhearth.serve.engine import End, Engine, Request
from openhearth.serve.guard import Refused
from openhearth.serve.text import Piece, Token

FINISH = {"stop": "stop", "length": "length", "context": "length", "time": "length"}


@dataclass
class Asked:
    """The answers that a client waits for: one queue for what they say, by number."""

    engine: Engine
    seconds: float
    requests: list[Request] = field(default_factory=list)
    heard: asyncio.Queue[tuple[int, Piece | End]] = field(default_factory=asyncio.Queue)

    def add(
        self, prompt: Sequence[int], sampling: Sampling, logprobs: int | None, *, echo: bool = False, only_prompt: bool = False
    ) -> None:
        """One more answer, which `submit` will ask for."""
        number, loop = len(self.requests), asyncio.get_running_loop()

        def emit(said: Piece | End) -> None:
            loop.call_soon_threadsafe(self.heard.put_nowait, (number, said))

        self.requests.append(Request(prompt, sampling, emit, seconds=self.seconds, logprobs=logprobs, echo=echo, only_prompt=only_prompt))

    async def listen(self) -> AsyncIterator[tuple[int, Piece | End]]:
        """What is said until all have ended. When the listener goes, so does the work. Raises Refused when the engine fails."""
        left = len(self.requests)
        try:
            while left:
                number, said = await self.heard.get()
                if isinstance(said, End):
                    left -= 1
                    if said.reason not in FINISH:
                        raise Refused(503, "the engine stopped before the answer was whole", "engine_stopped", retry_after=5)
                yield number, said
        finally:
            self.engine.cancel(*self.requests)

    def usage(self) -> Json:
        """Tokens read (a prompt once, however many answers it has) and made; the marker that ends an answer is made too."""
        prompts = {id(request.prompt): len(request.prompt) for request in self.requests}
        read, made = sum(prompts.values()), sum(request.made for request in self.requests)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


@dataclass(frozen=True)
class Form:
    """How a kind of answer is written: `chat.completion` or `text_completion`."""

    id: str
    model: str
    root: str
    chat: bool
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, *, chunk: bool) -> Json:
        """What all objects of one answer have in common. `system_fingerprint` is the root digest of the release."""
        kind = "chat.completion" if self.chat else "text_completion"
        kind += ".chunk" if chunk and self.chat else ""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "system_fingerprint": self.root}

    def whole(self, index: int, text: str, tokens: Sequence[Token], reason: str) -> Json:
        """A choice of an answer that is not streamed."""
        said: Json = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": self.scored(tokens), "finish_reason": reason}

    def delta(self, index: int, text: str | None, tokens: Sequence[Token] = (), reason: str | None = None, *, start: int = 0) -> Json:
        """A choice of a chunk; `start` is where its text begins in the answer."""
        said: Json = {"delta": {} if text is None else {"content": text}} if self.chat else {"text": text or ""}
        return {"index": index, **said, "logprobs": self.scored(tokens, start) if text is not None else None, "finish_reason": reason}

    def scored(self, tokens: Sequence[Token], start: int = 0) -> Json | None:
        """Log-probabilities in the form of the endpoint; None when they were not asked for."""
        if not self.logprobs:
            return None
        if self.chat:
            return {
                "content": [{**_entry(one.raw, one.logprob), "top_logprobs": [_entry(*top) for top in one.top]} for one in tokens],
                "refusal": None,
            }
        offsets = []
        for token in tokens:
            offsets.append(start)
            start += len(token.raw.decode("utf-8", "replace"))
        return {
            "tokens": [_spelled(token.raw) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{_spelled(raw): value for raw, value in token.top} if token.top else None for token in tokens],
            "text_offset": offsets,
        }


def _entry(raw: bytes, logprob: float | None) -> dict[str, Any]:
    return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}


def _spelled(raw: bytes) -> str:
    """A token as text; a part of a character as OpenAI spells it, so that different tokens have different names."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
