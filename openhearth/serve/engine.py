"""Continuous batching: requests join and leave between two steps, and each gets the text that it would get alone.

One thread owns the model. A step reads at most a few chunks of new prompts, then gives every answer under way its next token in one pass.
What is asked of it waits in a queue of limited length; what nobody waits for any more is dropped before the next step.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from openhearth.model.generate import choose, generator_for
from openhearth.model.sampling import Sampling
from openhearth.serve.decoder import CHUNK, PROMPT_TOKENS, Decoder, Segment
from openhearth.serve.metrics import Metrics
from openhearth.serve.text import Piece, TextStream, Token

Reason = Literal["stop", "length", "context", "time", "cancelled", "fault"]
Result = TypeVar("Result")


class Codec(Protocol):
    """What the engine needs of a tokenizer."""

    bos: int
    im_end: int

    def decode_bytes(self, ids: Sequence[int]) -> bytes: ...


class Busy(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class End:
    """The last thing that a request hears."""

    reason: Reason


@dataclass(eq=False)
class Request:
    """One answer to one prompt. `emit` is called in the engine's thread with each Piece and at last with the End."""

    prompt: Sequence[int]
    sampling: Sampling
    emit: Callable[[Piece | End], None]
    seconds: float = 300.0
    logprobs: int | None = None
    """With a number: log-probabilities of the tokens, and of so many of the likeliest at each place."""
    echo: bool = False
    """Emit the prompt's tokens first, one Piece without text (with `logprobs`: the first token has none)."""
    only_prompt: bool = False
    """Read the prompt and make nothing."""
    cancelled: bool = False
    asked: float = field(default_factory=time.monotonic)
    # -- the engine's own notes --
    slot: int = -1
    read: int = 0
    made: int = 0
    last: int = -1
    generator: torch.Generator = field(default_factory=torch.Generator)
    stream: TextStream = field(default_factory=lambda: TextStream(()))
    prompt_tokens: list[Token] = field(default_factory=list)


class Engine:
    """Owns a decoder and answers requests until it is closed."""

    def __init__(self, decoder: Decoder, codec: Codec, *, waiting: int = 64, metrics: Metrics | None = None) -> None:
        """`waiting` requests at most may wait for a slot; one more raises Busy."""
        self.decoder, self.codec, self.limit = decoder, codec, waiting
        self.metrics = metrics or Metrics()
        self.context = decoder.config.max_position_embeddings
        self._ends = {codec.bos, codec.im_end}
        self._waiting: deque[Request] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._active: list[Request] = []
        self._free = list(range(decoder.slots))
        self._held: list[list[int]] = [[] for _ in range(decoder.slots)]  # ids that a slot's positions were read from, by prefill
        self._wake = threading.Condition()
        self._closed = False
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(self, *requests: Request) -> None:
        """Queue all of them or none. Raises Busy when the queue is full, ValueError for a prompt that the context cannot hold."""
        for request in requests:
            if not 0 < len(request.prompt) <= self.context - (not request.only_prompt):
                raise ValueError(f"the prompt has {len(request.prompt)} tokens, the context {self.context}")
        with self._wake:
            if self._closed or self.fault:
                raise RuntimeError("the engine has stopped") from self.fault
            if len(self._waiting) + len(requests) > self.limit + len(self._free):
                raise Busy
            self._waiting.extend(requests)
            self._wake.notify()

    def run(self, job: Callable[[Decoder], Result]) -> Future[Result]:
        """Have `job` done by the engine's thread between two steps. Raises Busy when the queue is full."""
        future: Future[Result] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._closed or self.fault:
                    raise RuntimeError("the engine has stopped") from self.fault
                future.set_result(job(self.decoder))
            except Exception as error:
                future.set_exception(error)

        with self._wake:
            if self._closed or self.fault:
                raise RuntimeError("the engine has stopped") from self.fault
            if len(self._jobs) >= self.limit:
                raise Busy
            self._jobs.append(work)
            self._wake.notify()
        return future

    def cancel(self, *requests: Request) -> None:
        """Stop the work for them before the next step."""
        for request in requests:
            request.cancelled = True

    def counts(self) -> dict[str, int]:
        """How many answers are under way, and how many wait."""
        return {"running": len(self._active), "waiting": len(self._waiting), "slots": self.decoder.slots}

    def close(self) -> None:
        """End everything that is under way and the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    # -- the engine's thread -------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._closed or self._waiting or self._active or self._jobs):
                        self._wake.wait()
                    if self._closed:
                        break
                    job = self._jobs.popleft() if self._jobs else None
                if job:
                    job()
                self._step()
        except BaseException as error:
            self.fault = error
            raise
        finally:
            for request in [*self._active, *self._waiting]:
                request.emit(End("fault" if self.fault else "cancelled"))
            for job in self._jobs:
                job()  # says that the engine has stopped

    def _step(self) -> None:
        began = time.monotonic()
        with self._wake:
            gone = [request for request in (*self._active, *self._waiting) if request.cancelled or began > request.asked + request.seconds]
            for request in gone:
                if request in self._waiting:
                    self._waiting.remove(request)
            while self._free and self._waiting:
                if (request := self._waiting.popleft()) not in gone:
                    self._admit(request)
        for request in gone:
            self._end(request, "cancelled" if request.cancelled else "time")
        self._pass()
        self.metrics.step(time.monotonic() - began, sum(request.made > 1 for request in self._active))

    def _pass(self) -> None:
        """One pass of the model: a token for each answer under way, and some chunks of prompts that are not yet read."""
        budget = PROMPT_TOKENS
        taking: list[tuple[Request, Segment]] = []
        for request in self._active:
            size, prompt = len(request.prompt), request.prompt
            if request.made:
                taking.append((request, Segment(request.slot, [request.last], size + request.made - 1)))
            elif budget >= min(CHUNK, size - request.read):
                chunk = prompt[request.read : request.read + CHUNK]
                taking.append((request, Segment(request.slot, chunk, request.read)))
                budget -= len(chunk)
        if not taking:
            return
        hidden = torch.split(self.decoder.forward([segment for _, segment in taking]), [len(segment.ids) for _, segment in taking])
        for (request, segment), hidden_SD in zip(taking, hidden, strict=True):
            if not request.made:
                self._held[request.slot] += segment.ids
                request.read += len(segment.ids)
                self.metrics.prompt_tokens.add(len(segment.ids))
                if request.echo:
                    self._echo(request, segment, hidden_SD)
        ready = [(request, rows[-1:]) for (request, _), rows in zip(taking, hidden, strict=True) if request.read == len(request.prompt)]
        for request, _ in ready:
            if request.only_prompt:
                self._end(request, "length")
        ready = [(request, row) for request, row in ready if not request.only_prompt]
        if ready:
            logits_NV = self.decoder.logits(torch.cat([row for _, row in ready]))
            for (request, _), logits_V in zip(ready, logits_NV, strict=True):
                self._next(request, logits_V)

    def _admit(self, request: Request) -> None:
        """A slot for it: the free one whose prompt began alike, or a copy of what another slot has read of it.

        Only whole chunks are taken over: they are what reading the prompt anew would give, to the bit.
        """

        def shared(slot: int) -> int:
            both = zip(self._held[slot], request.prompt, strict=False)
            alike = next(
                (place for place, (one, other) in enumerate(both) if one != other), min(len(self._held[slot]), len(request.prompt))
            )
            return min(alike, len(request.prompt) - 1) // CHUNK * CHUNK

        best = max(range(self.decoder.slots), key=shared)
        length = 0 if request.echo else shared(best)
        request.slot = best if length and best in self._free else min(self._free, key=lambda slot: len(self._held[slot]))
        self._free.remove(request.slot)
        if length and request.slot != best:
            self.decoder.copy(best, request.slot, length)
        self._held[request.slot] = list(request.prompt[:length])
        request.read = length
        request.generator = generator_for(request.sampling.seed, request.prompt)
        request.stream = TextStream(request.sampling.stop)
        self._active.append(request)

    def _echo(self, request: Request, segment: Segment, hidden_SD: Tensor) -> None:
        """Note the tokens of a chunk, and when it was the last, say them; the place of each is scored one token before."""
        if segment.start == 0:
            request.prompt_tokens.append(self._token(request, segment.ids[0], None))
        following = request.prompt[segment.start + 1 : segment.start + 1 + len(segment.ids)]
        rows: Sequence[Tensor | None] = [None] * len(following)
        if request.logprobs is not None:
            rows = list(self.decoder.logits(hidden_SD[: len(following)]))
        request.prompt_tokens += [self._token(request, token, row) for token, row in zip(following, rows, strict=True)]
        if request.read == len(request.prompt):
            request.emit(Piece("", tuple(request.prompt_tokens)))

    def _next(self, request: Request, logits_V: Tensor) -> None:
        """Choose the token that follows, and say what can be said."""
        token = choose(logits_V, request.sampling, request.generator)
        request.made, request.last = request.made + 1, token
        if request.made == 1:
            self.metrics.first_token.observe(time.monotonic() - request.asked)
        if token in self._ends:
            self._end(request, "stop")
            return
        self.metrics.answer_tokens.add(1)
        if piece := request.stream.push(self._token(request, token, logits_V)):
            request.emit(piece)
        if request.stream.stopped:
            self._end(request, "stop")
        elif request.made == request.sampling.max_new_tokens:
            self._end(request, "length")
        elif len(request.prompt) + request.made >= self.context:
            self._end(request, "context")

    def _token(self, request: Request, token: int, logits_V: Tensor | None) -> Token:
        raw = self.codec.decode_bytes([token])
        if request.logprobs is None or logits_V is None:
            return Token(token, raw)
        logprobs_V = logits_V.log_softmax(-1)
        values, ids = logprobs_V.topk(min(request.logprobs, len(logprobs_V)))
        top = tuple((self.codec.decode_bytes([one]), value) for one, value in zip(ids.tolist(), values.tolist(), strict=True))
        return Token(token, raw, float(logprobs_V[token]), top)

    def _end(self, request: Request, reason: Reason) -> None:
        if request in self._active:
            self._active.remove(request)
            self._free.append(request.slot)
        if reason != "cancelled" and (piece := request.stream.rest()):
            request.emit(piece)
        request.emit(End(reason))
        self.metrics.ended(reason)
