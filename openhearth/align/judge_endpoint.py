"""Any endpoint that speaks OpenAI's chat completions, as generator and judge, without a client library.

Log-probabilities are asked for; where an endpoint has none, votes are counted instead, and labels say which it was. The budget is a cap:
no request is sent whose worst case would pass it. The key comes from the environment, goes into one header of requests to one address,
and is in no file, no message and no digest.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from openhearth.align.judge import Choice, Conversation, Reply, bare_choice, named, normalised
from openhearth.align.judge_cache import Cache
from openhearth.errors import HearthError
from openhearth.ledger import Json

MAX_BYTES = 8_000_000
"""Of one answer."""
TOP = 20
"""Log-probabilities asked for at each place; the most that the interface allows."""
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
MOST_SECONDS = 60.0
"""Between two attempts, whatever the server asks for."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class OutOfBudget(HearthError):
    """The next request could cost more than is left. What was answered is kept."""


class _Again(Exception):
    """A fault that may pass; `wait` is what the server asked for."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


class _NoLogprobs(Exception):
    """The endpoint refuses or leaves out log-probabilities."""


@dataclass(frozen=True)
class Price:
    """USD per million tokens."""

    read: float = 0.0
    written: float = 0.0

    def of(self, read: int, written: int) -> float:
        """USD."""
        return (read * self.read + written * self.written) / 1e6


@dataclass
class Endpoint:
    """An address, a model and a budget. `address` ends before /chat/completions, such as https://api.example.com/v1."""

    address: str
    model: str
    cache_folder: Path
    price: Price = Price()
    budget: float | None = None
    """USD over the whole life of the cache folder; None: no cap."""
    votes: int = 5
    """Answers sampled in each order where there are no log-probabilities."""
    timeout: float = 60.0
    attempts: int = 6
    workers: int = 4
    key_variable: str = "OPENAI_API_KEY"
    sleep: Callable[[float], object] = time.sleep
    answer_tokens: int = 16
    """Tokens that a judge may write before it must have named its choice."""
    flops_per_token: float = 0.0
    logprobs: bool | None = field(default=None, init=False)
    """Whether the endpoint gives log-probabilities; None until it was asked."""

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise HearthError(f"{self.address!a}: not the address of an endpoint; write it like https://api.example.com/v1")
        self._key = os.environ.get(self.key_variable, "")
        if self._key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise HearthError(f"{self.address}: {self.key_variable} would travel unencrypted; use https, or unset the variable")
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise HearthError(f"{self.key_variable}: holds characters that no key has; set it again without line ends")
        self.address = self.address.rstrip("/")
        self.cache = Cache(self.cache_folder)
        self._reserved = 0.0
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(_NoRedirect)

    @property
    def identity(self) -> str:
        """Address and model: all that is known of a model that runs elsewhere."""
        return f"endpoint:{self.address} {self.model}"

    # -- the protocol -------------------------------------------------------------------------------------------------------

    def reply(self, conversations: Sequence[Conversation], *, seed: int, max_new_tokens: int, temperature: float = 1.0) -> list[Reply]:
        """One sampled answer each. Raises HearthError once an endpoint stays unusable; what was answered is kept."""

        def one(conversation: Conversation) -> Reply:
            content, cost, tokens = self._ask(conversation, max_tokens=max_new_tokens, temperature=temperature, seed=seed)
            first = content["choices"][0]
            return Reply(first["message"]["content"].strip(), tokens, cost, truncated=first.get("finish_reason") == "length")

        return self._all(one, conversations)

    def choose(self, conversations: Sequence[Conversation], choices: tuple[str, str], *, seed: int) -> list[Choice]:
        """By log-probabilities of the token that names a choice, else by votes."""

        def one(conversation: Conversation) -> Choice:
            if self.logprobs is not False:
                try:
                    return self._by_logprobs(conversation, choices, seed)
                except _NoLogprobs:
                    self.logprobs = False
            return self._by_votes(conversation, choices, seed)

        if self.logprobs is None and conversations:
            return [one(conversations[0]), *self._all(one, conversations[1:])]  # the first finds out; else several would at once
        return self._all(one, conversations)

    def estimate(self, conversations: Sequence[Conversation], max_tokens: int, times: int = 1) -> float:
        """USD for `times` answers to each: a token for three bytes that are read, and every answer as long as allowed."""
        return times * sum(self.price.of(_tokens(each), max_tokens) for each in conversations)

    def _all(self, one: Callable[[Conversation], Any], conversations: Sequence[Conversation]) -> list[Any]:
        """In the order of the conversations; after a fault no further request is begun."""
        failed = threading.Event()

        def guarded(conversation: Conversation) -> Any:
            if failed.is_set():
                return None
            try:
                return one(conversation)
            except BaseException:
                failed.set()
                raise

        with ThreadPoolExecutor(self.workers) as pool:
            waiting = [pool.submit(guarded, each) for each in conversations]
        for each in waiting:
            if (error := each.exception()) is not None:
                raise error
        return [each.result() for each in waiting]

    # -- choices ------------------------------------------------------------------------------------------------------------

    def _by_logprobs(self, conversation: Conversation, choices: tuple[str, str], seed: int) -> Choice:
        asked = {"logprobs": True, "top_logprobs": TOP}
        content, cost, tokens = self._ask(conversation, max_tokens=self.answer_tokens, temperature=0.0, seed=seed, **asked)
        places = (content["choices"][0].get("logprobs") or {}).get("content")
        if not places:
            raise _NoLogprobs
        bare = [bare_choice(each) for each in choices]
        for place in places:
            top = place.get("top_logprobs") or [place]
            if bare_choice(place["token"]) in bare:
                found = [_log_sum([each["logprob"] for each in top if bare_choice(each["token"]) == name]) for name in bare]
                least = min(each["logprob"] for each in top)  # a choice that is not among the likeliest is at most this likely
                first, second = (least if value is None else value for value in found)
                return Choice(normalised(first, second), "logits", (first, second), tokens, cost)
        return Choice(None, "logits", (), tokens, cost)

    def _by_votes(self, conversation: Conversation, choices: tuple[str, str], seed: int) -> Choice:
        counts, tokens, cost = [0, 0, 0], 0, 0.0
        for number in range(self.votes):
            content, paid, took = self._ask(conversation, max_tokens=self.answer_tokens, temperature=1.0, seed=seed + number)
            vote = named(content["choices"][0]["message"]["content"], choices)
            counts[2 if vote is None else vote] += 1
            tokens, cost = tokens + took, cost + paid
        decided = counts[0] + counts[1]
        return Choice(counts[0] / decided if decided else None, "votes", tuple(map(float, counts)), tokens, cost)

    # -- one request --------------------------------------------------------------------------------------------------------

    def _ask(self, conversation: Conversation, **options: Any) -> tuple[Json, float, int]:
        """The answer to one request, what it cost, and its tokens; from the cache where it is there. A cached answer costs nothing."""
        request = {"model": self.model, "messages": [dict(each) for each in conversation], **options}
        key = Cache.key(self.address, request)
        if (kept := self.cache.get(key)) is not None:
            return kept["response"], kept["cost"], _usage(kept["response"], conversation)[2]
        worst = self.price.of(_tokens(conversation, bytes_each=1), options["max_tokens"])
        self._reserve(worst)
        try:
            content = self._with_retries(request)
            read, written, tokens = _usage(content, conversation)
            cost = self.price.of(read, written)
            with self._lock:
                self.cache.put(key, request, content, cost)
            return content, cost, tokens
        finally:
            with self._lock:
                self._reserved -= worst

    def _reserve(self, worst: float) -> None:
        with self._lock:
            if self.budget is not None and self.cache.spent + self._reserved + worst > self.budget:
                raise OutOfBudget(
                    f"{self.identity}: ${self.cache.spent:.4f} of ${self.budget:.4f} are spent and the next request may cost ${worst:.4f}; "
                    f"raise the budget and run the same command again: the answers in {self.cache.folder} are not paid for twice"
                )
            self._reserved += worst

    def _with_retries(self, request: Json) -> Json:
        for attempt in range(1, self.attempts + 1):
            try:
                return self._send(request)
            except _Again as fault:
                if attempt == self.attempts:
                    raise HearthError(
                        f"{self.identity}: {fault}, {attempt} times in a row; run the same command again later: what was answered is kept"
                    ) from None
                self.sleep(min(MOST_SECONDS, fault.wait if fault.wait is not None else 0.5 * 2 ** (attempt - 1)))
        raise AssertionError("unreachable")

    def _send(self, request: Json) -> Json:
        headers = {"Content-Type": "application/json", "User-Agent": "openhearth"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        call = urllib.request.Request(f"{self.address}/chat/completions", json.dumps(request).encode(), headers, method="POST")
        try:
            with self._opener.open(call, timeout=self.timeout) as answer:
                data = answer.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            self._refused(error, request)
        except (http.client.HTTPException, OSError) as error:  # down, slow, reset, truncated
            reason = getattr(error, "reason", None) or error
            raise _Again(f"no whole answer ({type(reason).__name__}: {str(reason)[:80]})") from None
        if len(data) > MAX_BYTES:
            raise HearthError(f"{self.identity}: an answer is larger than {MAX_BYTES:,} bytes; this is no endpoint for chat completions")
        try:
            content = json.loads(data)
            if isinstance(content["choices"][0]["message"]["content"], str):
                return dict(content)
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            pass
        raise _Again("an answer that is no chat completion")

    def _refused(self, error: urllib.error.HTTPError, request: Json) -> NoReturn:
        """What an error status means: to be tried again, a lack of log-probabilities, or the end."""
        said = self._words(error)
        if error.code in RETRIED:
            raise _Again(f"status {error.code}{said}", _retry_after(error.headers.get("Retry-After"))) from None
        if error.code in (400, 404, 422) and "logprobs" in request and "logprob" in said.lower():
            raise _NoLogprobs from None
        hint = f"; set {self.key_variable}" if error.code in (401, 403) else "; check address and model"
        raise HearthError(f"{self.identity}: status {error.code}{said}{hint}") from None

    def _words(self, error: urllib.error.HTTPError) -> str:
        """What the server said, in one short line, never with the key in it."""
        try:
            text = error.read(4096).decode("utf-8", "replace")
            message = json.loads(text)["error"]
            text = message["message"] if isinstance(message, dict) else str(message)
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            text = ""
        text = " ".join(text.split())[:120]
        return f" ({text.replace(self._key, '***') if self._key else text})" if text else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another address."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _tokens(conversation: Conversation, bytes_each: int = 3) -> int:
    """Tokens of a prompt before anything is sent: at most one for a byte, about one for three; and a few for each turn's frame."""
    return sum(len(each["content"].encode()) // bytes_each + 8 for each in conversation) + 24


def _usage(content: Json, conversation: Conversation) -> tuple[int, int, int]:
    """Tokens read, written, and both, as the endpoint counts them; by our guess where it does not."""
    usage = content.get("usage") or {}
    try:
        read, written = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
    except (KeyError, TypeError, ValueError):
        read, written = _tokens(conversation), len(content["choices"][0]["message"]["content"].encode()) // 3 + 1
    return read, written, read + written


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _log_sum(values: Sequence[float]) -> float | None:
    """ln of the sum of probabilities; None of nothing."""
    if not values:
        return None
    top = max(values)
    return top + math.log(sum(math.exp(each - top) for each in values))
