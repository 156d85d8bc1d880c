"""The small release of the release room's tests, to talk to, and a server of it on a free port of this computer."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openhearth.serve.engine import Engine
from openhearth.serve.guard import Limits
from openhearth.serve.loading import Opened, open_release

from ..release.conftest import made_release, made_run, release

__all__ = ["made_release", "made_run", "opened", "release", "served"]

MODEL = "small"


@pytest.fixture(scope="session")
def opened(made_release: Path) -> Opened:
    return open_release(made_release)


@dataclass
class Served:
    """Where a server listens, and what is inside it."""

    port: int
    engine: Engine

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (from JSON where it is) and headers of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            all_headers = {**({} if body is None else {"content-type": "application/json"}), **(headers or {})}
            connection.request(method or ("GET" if body is None else "POST"), path, sent, all_headers)
            response = connection.getresponse()
            content = response.read()
            kind = response.getheader("content-type", "")
            return response.status, json.loads(content) if kind.startswith("application/json") else content, dict(response.getheaders())
        finally:
            connection.close()

    def quiet(self, seconds: float = 10) -> bool:
        """Whether nothing is under way any more, after a while at most."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.engine.counts()["running"] == self.engine.counts()["waiting"] == 0:
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def serving(
    opened: Opened, *, key: str | None = None, local: bool = True, slots: int = 4, limits: Limits | None = None
) -> Iterator[Served]:
    """A server in a thread of this process."""
    pytest.importorskip("uvicorn")
    from openhearth.serve.server import listen, make_server

    with listen("127.0.0.1", 0) as sock:
        server, engine = make_server(opened, MODEL, key=key, local=local, slots=slots, limits=limits or Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            yield Served(sock.getsockname()[1], engine)
        finally:
            server.should_exit = True
            thread.join(20)
            engine.close()


@pytest.fixture(scope="session")
def served(opened: Opened) -> Iterator[Served]:
    with serving(opened) as running:
        yield running
