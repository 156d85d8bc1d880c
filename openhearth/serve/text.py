"""From tokens to text, piece by piece: no piece splits a character or shows a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from openhearth.model.generate import held_back


@dataclass(frozen=True)
class Token:
    """A token of an answer or of a prompt, and with log-probabilities its own and the likeliest at its place, in nats."""

    id: int
    raw: bytes
    logprob: float | None = None
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """Text that can be shown, and the tokens that have come with it."""

    text: str
    tokens: tuple[Token, ...] = ()


class TextStream:
    """Takes tokens, gives pieces. Bytes wait while they may begin a stop string, or are not yet a whole character."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = [stop.encode() for stop in stops]
        self.stopped = False
        self._bytes = b""
        self._tokens: list[Token] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: Token) -> Piece | None:
        """What can be shown now; None when nothing can. After a stop string `stopped` is true and nothing more is taken."""
        self._bytes += token.raw
        self._tokens.append(token)
        found = [at for stop in self.stops if (at := self._bytes.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._show(min(found))
        return self._show(len(self._bytes) - held_back(self._bytes, self.stops))

    def rest(self) -> Piece | None:
        """What waited, when the answer has ended otherwise; half a character is dropped."""
        if self.stopped:
            return None
        piece = self._show(len(self._bytes))
        tokens = (*(piece.tokens if piece else ()), *self._tokens)
        return Piece(piece.text if piece else "", tokens) if tokens else None

    def _show(self, count: int) -> Piece | None:
        """Release `count` bytes, and the tokens that begin in them once there is a character to show."""
        text = self._decoder.decode(self._bytes[:count])
        self._bytes = self._bytes[count:]
        if not text:
            return None
        kept, waiting = len(self._tokens), len(self._bytes)
        while kept and waiting >= len(self._tokens[kept - 1].raw) > 0:
            kept -= 1
            waiting -= len(self._tokens[kept].raw)
        shown, self._tokens = tuple(self._tokens[:kept]), self._tokens[kept:]
        return Piece(text, shown)
