"""An endpoint on loopback that answers like a real one, or misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class Answer:
    """What is sent back: a status, headers, a body; `cut` sends only the first bytes of it, `hang` waits first."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hang: float = 0.0


def completion(text: str, logprobs: list[Json] | None = None, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 10)) -> Answer:
    """A chat completion as OpenAI's interface gives it."""
    choice: Json = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    content: Json = {"object": "chat.completion", "choices": [choice]}
    if usage:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return Answer(json.dumps(content).encode())


def fault(status: int, message: str, **headers: str) -> Answer:
    """An error as the interface gives it."""
    return Answer(
        json.dumps({"error": {"message": message}}).encode(), status, {name.replace("_", "-"): value for name, value in headers.items()}
    )


@dataclass
class Fake:
    """A running server: what it was asked, and the function that answers request number n (from 0)."""

    address: str
    answer: Callable[[int, Json], Answer]
    requests: list[Json] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[int, Json], Answer]) -> Iterator[Fake]:
    """A server for the length of a test."""
    stopped = threading.Event()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(fake.requests)
                fake.requests.append(request)
                fake.headers.append(dict(self.headers))
            reply = fake.answer(number, request)
            stopped.wait(reply.hang)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut])

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = Fake(f"http://127.0.0.1:{server.server_address[1]}/v1", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
