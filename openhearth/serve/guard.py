"""Who may speak to the server, and how much: checked before anything of a request is read as JSON.

A page of a stranger that is open in a browser on this computer can send requests to 127.0.0.1. It cannot set the Host that its own name
gives (DNS rebinding), hide its Origin, or send JSON without asking first; so these three are required, and nothing is ever answered to
that question (no CORS). A key is compared in constant time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, NoReturn

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PUBLIC = frozenset({"/", "/chat.js", "/chat.css", "/favicon.svg", "/health"})
"""What is answered without a key: the page, which holds nothing of anybody, and whether the server lives."""

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
MAX_HEADERS = 100


@dataclass(frozen=True)
class Limits:
    """How much one client, and all together, may ask."""

    body_bytes: int = 1_000_000
    body_seconds: float = 10.0
    header_seconds: float = 10.0
    header_bytes: int = 16_384
    write_seconds: float = 30.0
    """How long a client may not read what it is sent."""
    requests: int = 128
    """Requests at once; one more gets 503."""
    connections: int = 256
    """Connections at once; one more gets 503."""
    seconds: float = 300.0
    """Time of one request, the waiting included."""
    waiting: int = 64
    """Answers that may wait for a slot; one more gets 429."""


class Refused(Exception):
    """Why a request is not answered, as a status and OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def headers(self) -> dict[str, str]:
        """What goes with the body."""
        found = {"retry-after": str(self.retry_after)} if self.retry_after is not None else {}
        return {**found, "www-authenticate": "Bearer"} if self.status == 401 else found


class Guard:
    """Wraps an application: what it lets through comes from an allowed host and origin, has the key, and is JSON of limited size."""

    def __init__(
        self, app: App, *, key: str | None, local: bool, names: frozenset[str] = frozenset(), limits: Limits | None = None
    ) -> None:
        """`local`: only names of this computer are hosts. Otherwise every literal address and `names` are."""
        self.app, self.local, self.names = app, local, names
        self.limits = limits or Limits()
        self._key = None if key is None else hashlib.sha256(key.encode()).digest()
        self._open = 0
        self.count: Callable[[int], None] = lambda status: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sent(event: Event) -> None:
            if event["type"] == "http.response.start":
                event["headers"] = [*event.get("headers", []), *HEADERS]
                self.count(event["status"])
            await send(event)

        self._open += 1
        try:
            self._admit(scope)
            await self.app(scope, await self._body(scope, receive), sent)
        except Refused as refused:
            await self._drain(scope, receive)
            await answer(sent, refused)
        finally:
            self._open -= 1

    def _admit(self, scope: Scope) -> None:
        """Raises Refused unless host, origin, key and load allow it."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if scope["http_version"] not in ("1.0", "1.1"):
            raise Refused(505, "HTTP 1.1 is spoken here", "unknown_version")
        if len(headers) > MAX_HEADERS:
            raise Refused(431, f"more than {MAX_HEADERS} headers", "too_many_headers")
        host, origin = _only(headers, b"host"), _only(headers, b"origin")
        if not host or not self._known(host):
            raise Refused(421, "this server does not answer to that Host", "unknown_host")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            raise Refused(403, "requests from other origins are not answered", "foreign_origin")
        if any(name == b"transfer-encoding" for name, _ in headers) and any(name == b"content-length" for name, _ in headers):
            raise Refused(400, "Content-Length and Transfer-Encoding together", "ambiguous_length")
        if self._key is not None and scope["path"] not in PUBLIC:
            scheme, _, key = (_only(headers, b"authorization") or "").partition(" ")
            given = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
            if not hmac.compare_digest(given, self._key) or scheme.lower() != "bearer":
                raise Refused(401, "a valid key is needed: Authorization: Bearer KEY", "invalid_api_key")
        if self._open > self.limits.requests:
            raise Refused(503, "too many requests at once", "overloaded", retry_after=1)

    async def _drain(self, scope: Scope, receive: Receive) -> None:
        """Read on for a moment what a refused client still sends: it must be able to hear the answer before the connection ends."""
        left = 4 * self.limits.body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(1.0, self.limits.body_seconds)):
                while left > 0 and scope["method"] not in ("GET", "HEAD"):
                    event = await receive()
                    left -= len(event.get("body", b""))
                    if event["type"] == "http.disconnect" or not event.get("more_body"):
                        break

    def _known(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
        name = name.lower()
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name == "localhost" or name in self.names
        return address.is_loopback or not self.local

    async def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The whole body, checked, as a `receive` that gives it again and then what comes after (that the client has gone)."""
        if scope["method"] in ("GET", "HEAD"):
            return receive
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if (_only(headers, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "the body must be JSON: Content-Type: application/json", "not_json")
        if any(name == b"content-encoding" for name, _ in headers):
            raise Refused(415, "compressed bodies are not read", "compressed")
        length = _only(headers, b"content-length") or "0"
        if not length.isdecimal() or int(length[:20]) > self.limits.body_bytes:
            raise Refused(413, f"the body may have {self.limits.body_bytes:,} bytes", "body_too_large")
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise Refused(400, "the client has gone", "disconnected")
                    body += event.get("body", b"")
                    if len(body) > self.limits.body_bytes:
                        raise Refused(413, f"the body may have {self.limits.body_bytes:,} bytes", "body_too_large")
                    if not event.get("more_body"):
                        break
        except TimeoutError:
            raise Refused(408, f"the body did not come within {self.limits.body_seconds:g} s", "slow_body") from None
        _check_json(bytes(body))
        given = False

        async def again() -> Event:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again


async def answer(send: Send, refused: Refused) -> None:
    """Send a refusal."""
    body = json.dumps(refused.body).encode()
    headers = [(name.encode(), value.encode()) for name, value in refused.headers().items()]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _only(headers: list[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a header that may come once. Raises Refused when it comes twice: two readers may then see two requests."""
    found = [value for key, value in headers if key == name]
    if len(found) > 1:
        raise Refused(400, f"more than one {name.decode()} header", "repeated_header")
    return found[0].decode("utf-8", "surrogateescape") if found else None


def _check_json(body: bytes) -> None:
    """Raises Refused unless `body` is one JSON object, with each key once and numbers that are numbers."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(keys := dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")
        return keys

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=once, parse_constant=constant)
        json.dumps(value, ensure_ascii=False).encode()  # an unpaired surrogate is no character
    except (ValueError, RecursionError) as error:
        known = {UnicodeDecodeError: "not UTF-8", UnicodeEncodeError: "an unpaired surrogate", RecursionError: "nested too deep"}
        said = known.get(type(error), str(error)[:200])
        raise Refused(400, f"the body is not valid JSON: {said}", "invalid_json") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is not valid JSON: not an object", "invalid_json")
