"""From a release to a listening server: the address, the key, the connections, and what is said when it is ready."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.errors import HearthError
from openhearth.serve.guard import Guard, Limits
from openhearth.serve.loading import check_release

if TYPE_CHECKING:
    import asyncio

    import uvicorn

    from openhearth.serve.engine import Engine
    from openhearth.serve.loading import Opened

KEY_VARIABLE = "HEARTH_KEY"
MIN_KEY = 16
KEEP_ALIVE = 5


def require_extra() -> None:
    """Raises HearthError when the server's libraries are not installed."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise HearthError("the server needs FastAPI and uvicorn; install them: pip install 'openhearth[serve]'") from None


def find_key(file: Path | None) -> str | None:
    """The key that clients must show, from `file` or the environment; None when there is none. Never from the command line."""
    if file is not None:
        try:
            if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise HearthError(f"{file}: others on this machine can read it; say: chmod 600 {file}")
            key = file.read_bytes()[:4096].decode("ascii", "replace").strip()
        except OSError as error:
            raise HearthError(f"{file}: not readable ({error.strerror})") from None
        where = str(file)
    else:
        key, where = os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE
        if not key:
            return None
    if len(key) < MIN_KEY or not all("!" <= character <= "~" for character in key):
        raise HearthError(f"{where}: a key has at least {MIN_KEY} characters, letters, digits and signs; make one: openssl rand -hex 24")
    return key


def model_name(folder: Path) -> str:
    """How clients call the model: by its folder, or by its run's where it is a run's `model`."""
    place = Path(os.path.abspath(folder))  # noqa: PTH100  (a link is called by its own name)
    name = place.parent.name if place.name in ("model", "release") else place.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-.") or "model"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises HearthError when it cannot."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise HearthError(f"--host {host}: give an address of this machine, such as 127.0.0.1") from None
    sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((str(address), port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise HearthError(f"{host} port {port}: cannot listen ({error.strerror}); try another: --port 0 takes a free one") from None
    return sock


def protocol(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, for clients that are slow on purpose or too many: each wait has an end."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    busy = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

    class Patient(H11Protocol):
        late: asyncio.TimerHandle | None = None
        stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(busy)
                transport.close()
            else:
                self.watch()

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)
                self.watch()

        def watch(self) -> None:
            """A request's head must be whole some time after it, or the connection, began."""
            heading = self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)
            if heading and self.late is None:
                self.late = self.loop.call_later(limits.header_seconds, self.transport.abort)
            elif not heading and self.late is not None:
                self.late.cancel()
                self.late = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stuck = self.stuck or self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.stuck:
                self.stuck.cancel()
                self.stuck = None

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self.late, self.stuck):
                if timer:
                    timer.cancel()
            super().connection_lost(exc)

    return Patient


def make_server(
    opened: Opened, name: str, *, key: str | None, local: bool, slots: int, limits: Limits, names: tuple[str, ...] = ()
) -> tuple[uvicorn.Server, Engine]:
    """A server that waits for `run`, and its engine, which has begun and must be closed."""
    import uvicorn

    from openhearth.serve.api import application
    from openhearth.serve.decoder import Decoder
    from openhearth.serve.engine import Engine

    engine = Engine(Decoder(opened.model, slots), opened.tokenizer, waiting=limits.waiting)
    app = application(opened, engine, limits, name)
    guard = Guard(app, key=key, local=local, names=frozenset(one.lower() for one in names), limits=limits)
    guard.count = lambda status: engine.metrics.requests.add(1, str(status))
    config = uvicorn.Config(
        guard, http=protocol(limits), ws="none", lifespan="off", access_log=False, log_level="error",
        server_header=False, date_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=2,
        h11_max_incomplete_event_size=limits.header_bytes,
    )  # fmt: skip
    return uvicorn.Server(config), engine


def serve_command(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    key_file: Path | None = None,
    names: tuple[str, ...] = (),
    slots: int = 16,
    browser: bool = False,
    limits: Limits | None = None,
) -> int:
    """Serve the model in `folder` until a signal; returns the exit status. Raises HearthError when it cannot be served as asked."""
    require_extra()
    limits = limits or Limits()
    key = find_key(key_file)
    local = host == "localhost" or _is_loopback(host)
    if not local and key is None:
        raise HearthError(
            f"--host {host}: others could reach this server, and it has no key; set {KEY_VARIABLE} or give --key-file FILE "
            "(make one: openssl rand -hex 24), or stay on 127.0.0.1"
        )
    checked = check_release(folder)
    with listen(host, port) as sock:
        opened = checked.load()
        server, engine = make_server(opened, model_name(folder), key=key, local=local, names=names, slots=slots, limits=limits)
        url = _url(sock)
        _say_ready(url, model_name(folder), opened.model.config, key is not None, engine.decoder.together)
        if browser:
            webbrowser.open(url)
        try:
            server.run(sockets=[sock])
        finally:
            engine.close()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(sock: socket.socket) -> str:
    name, port = sock.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _say_ready(url: str, name: str, config: Any, key: bool, together: bool) -> None:
    """What a person or a program needs to begin."""
    header = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if key else ""
    said = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "Write a function that adds two numbers."}}]}}'
    print(f"{name} ({config.parameters:,} parameters, context {config.max_position_embeddings:,}) is served at {url}")
    print(f"  chat in a browser: {url}/{'   (it asks for the key)' if key else ''}")
    print(f"  or: curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} -d '{said}'")
    print("Ctrl-C ends it.", flush=True)
    if not together:
        print("(on this machine a batch would change the rounding: answers are made one row at a time)", file=sys.stderr)
