"""Hostile and broken requests: each is answered by a refusal in one line, or by the end of the connection, and the server lives on."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openhearth.errors import HearthError
from openhearth.serve.guard import Limits
from openhearth.serve.loading import Opened
from openhearth.serve.server import find_key, listen, model_name, serve_command

from .conftest import MODEL, Served, serving

CHAT = "/v1/chat/completions"
KEY = "k" * 24
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def strict(opened: Opened) -> Iterator[Served]:
    """With limits that a test can wait for."""
    limits = Limits(body_bytes=20_000, body_seconds=0.4, header_seconds=0.4, write_seconds=1.0, connections=40, requests=30)
    with serving(opened, limits=limits) as running:
        yield running
        assert running.ask(CHAT, HELLO)[0] == 200  # whatever was sent before


@pytest.fixture(scope="module")
def locked(opened: Opened) -> Iterator[Served]:
    with serving(opened, key=KEY, local=False) as running:
        yield running


def raw(port: int, sent: bytes, wait: float = 5.0) -> bytes:
    """What comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        heard = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(65536):
                heard += piece
        except (ConnectionError, TimeoutError):
            pass
        return heard


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found[1]) if found else 0


def check_refused(said: Any, status: int, expected: int) -> None:
    assert status == expected, said
    assert set(said["error"]) == {"message", "type", "param", "code"}
    assert "\n" not in said["error"]["message"]
    assert len(said["error"]["message"]) < 400


# -- bodies and heads --------------------------------------------------------------------------------------------------------

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (HEAD + b"content-length: 30000\r\n\r\n", 413),
        (HEAD + b"content-length: 99999999999999999999999999\r\n\r\n", 400),
        (HEAD + b"content-length: -5\r\n\r\n{}", 400),
        (HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}", 400),
        (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nnothing\r\n\r\n", 400),
        (
            HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 8,
            413,
        ),
        (b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /health HTTP/1.0\r\n\r\n", 421),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 10_000 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 150 + b"\r\n", 431),
        (b"GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n", 400),
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
        (b"GET /health HTTP/9.9\r\nhost: localhost\r\nconnection: close\r\n\r\n", 505),
    ],
)
def test_a_broken_or_oversized_head_or_body_is_refused(strict: Served, head: bytes, expected: int) -> None:
    assert status_of(raw(strict.port, head)) in (
        expected,
        0 if len(head) > 50_000 else expected,
    )  # a flood may be cut off without an answer


def test_a_body_shorter_than_it_says_is_given_up(strict: Served) -> None:
    assert status_of(raw(strict.port, HEAD + b"content-length: 500\r\n\r\n{")) == 408


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", b"GET / HTTP/1.1\r\nhost: loc"])
def test_a_head_that_never_ends_is_given_up(strict: Served, sent: bytes) -> None:
    began = time.monotonic()
    assert raw(strict.port, sent) == b""
    assert time.monotonic() - began < 3


def test_drops_of_a_head_do_not_lengthen_its_time(strict: Served) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection, pytest.raises(ConnectionError):
        for drop in b"GET / HTTP/1.1\r\nx: " + b"y" * 100:
            connection.sendall(bytes([drop]))
            time.sleep(0.05)
    assert time.monotonic() - began < 3


def test_half_closed_and_vanished_clients_leave_nothing_behind(strict: Served) -> None:
    body = json.dumps({**HELLO, "stream": True, "max_tokens": 200, "temperature": 2}).encode()
    for shut in (True, False):
        with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
            connection.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            if shut:
                connection.shutdown(socket.SHUT_WR)
    assert strict.quiet()


def test_a_client_that_never_reads_is_cut_off(strict: Served) -> None:
    sent = b"GET /chat.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", strict.port))
        connection.settimeout(8)
        with pytest.raises(ConnectionError):
            while True:
                connection.sendall(sent)


# -- JSON and its values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"3", b'"text"', b"null", b"\xff\xfe", b'{"model": "\xff"}', b'{"model": "a", "model": "b"}',
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}', b"[" * 10_000, b'{"a":' * 3000, b'{"model": "\\ud800"}', b"{} {}", b"\xef\xbb\xbf{}", b"{'model': 1}",
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(strict: Served, body: bytes) -> None:
    status, said, _ = strict.ask(CHAT, body)
    check_refused(said, status, 400)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1e308}, {"temperature": -1}, {"temperature": "hot"}, {"temperature": True}, {"temperature": []},
        {"top_p": 0}, {"top_p": 2}, {"top_p": -0.1}, {"top_k": -1},
        {"n": 10**9}, {"n": 0}, {"n": 1.5}, {"max_tokens": -1}, {"max_tokens": 10**9}, {"max_tokens": 0}, {"max_completion_tokens": "9"},
        {"stop": ["x"] * 5}, {"stop": ""}, {"stop": ["a", ""]}, {"stop": "x" * 300}, {"stop": 3}, {"stop": ["x"] * 1000},
        {"seed": 2**70}, {"seed": "1"}, {"logprobs": 3}, {"top_logprobs": 100}, {"stream": "yes"}, {"stream_options": 1},
        {"messages": []}, {"messages": None}, {"messages": "hello"}, {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [{"role": "user"}]}, {"messages": [{"role": "user", "content": None}]}, {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://localhost/x"}}]}]},
        {"messages": [{"role": "assistant", "content": "x"}]}, {"messages": [{"role": "user", "content": "x " * 5000}]},
        {"tools": [{}]}, {"functions": [{}]}, {"response_format": {"type": "json_object"}}, {"model": None}, {"model": 3},
        {"model": "x" * 300},
    ],
)  # fmt: skip
def test_a_value_outside_its_range_or_type_is_refused_by_name(strict: Served, change: dict[str, Any]) -> None:
    status, said, _ = strict.ask(CHAT, {**HELLO, **change})
    check_refused(said, status, 400)
    assert next(iter(change)) in said["error"]["message"] + str(said["error"]["param"])


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": []}, {"prompt": [[]]}, {"prompt": None}, {"prompt": {}}, {"prompt": [1, "a"]}, {"prompt": [-1]}, {"prompt": [10**9]},
        {"prompt": [1.5]}, {"prompt": ["x"] * 100}, {"prompt": "x " * 5000}, {"max_tokens": 0}, {"best_of": 5}, {"suffix": "end"},
        {"logprobs": 50},
    ],
)  # fmt: skip
def test_bad_prompts_of_completions_are_refused(strict: Served, change: dict[str, Any]) -> None:
    status, said, _ = strict.ask("/v1/completions", {"model": MODEL, "prompt": "x", "max_tokens": 1, **change})
    check_refused(said, status, 400)


@pytest.mark.parametrize(
    "change", [{"input": ""}, {"input": []}, {"input": [""]}, {"input": "x " * 5000}, {"dimensions": 3}, {"encoding_format": "x"}]
)
def test_bad_inputs_of_embeddings_are_refused(strict: Served, change: dict[str, Any]) -> None:
    status, said, _ = strict.ask("/v1/embeddings", {"model": MODEL, "input": "x", **change})
    check_refused(said, status, 400)


def test_a_prompt_of_a_million_tokens_is_refused_at_once(served: Served) -> None:
    began = time.monotonic()
    status, said, _ = served.ask("/v1/completions", {"model": MODEL, "prompt": "x " * 480_000})
    check_refused(said, status, 400)
    assert time.monotonic() - began < 5


def test_unknown_fields_are_ignored_and_null_is_the_default(strict: Served) -> None:
    nulls = dict.fromkeys(("temperature", "top_p", "top_k", "n", "seed", "stop", "stream", "tools", "logprobs", "top_logprobs"))
    assert strict.ask(CHAT, {**HELLO, **nulls, "user": "x", "presence_penalty": 0})[0] == 200


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "x\x00y", "%2e%2e", "\u202ereversed"])
def test_a_model_name_is_never_a_path_and_is_not_said_back(strict: Served, name: str) -> None:
    status, said, _ = strict.ask(CHAT, {**HELLO, "model": name})
    check_refused(said, status, 404)
    assert name not in said["error"]["message"]
    assert strict.ask("/v1/models/..%2f..%2fetc%2fpasswd")[0] == 404
    assert strict.ask("/../../etc/passwd")[0] == 404


def test_errors_name_no_file_of_the_server(opened: Opened, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(opened) as failing:
        monkeypatch.setattr(failing.engine, "counts", lambda: (_ for _ in ()).throw(RuntimeError("/secret/path")))
        status, said, _ = failing.ask("/metrics")
        assert status == 500
        assert said["error"]["message"] == "the server failed; its own log says why"
    assert "/secret/path" in capfd.readouterr().err


# -- who may ask -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil", "", "[::2]", "127.0.0.1@evil"]
)
def test_other_hosts_are_not_answered_as_after_dns_rebinding(served: Served, host: str) -> None:
    for path in ("/", "/health", "/v1/models"):
        assert served.ask(path, headers={"host": host})[0] == 421
    assert served.ask(CHAT, HELLO, headers={"host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:99", "[::1]", "[::1]:8000"])
def test_names_of_this_computer_are_answered(served: Served, host: str) -> None:
    assert served.ask("/health", headers={"host": host})[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil", "http://127.0.0.1:1", "file://", "*", ""])
def test_other_origins_are_not_answered(served: Served, origin: str) -> None:
    status, said, headers = served.ask(CHAT, HELLO, headers={"origin": origin})
    check_refused(said, status, 403)
    assert not any(name.startswith("access-control") for name in headers)


def test_no_answer_allows_another_origin_to_read_it(served: Served) -> None:
    for method, path in (("OPTIONS", CHAT), ("GET", "/v1/models"), ("GET", "/")):
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"} if method == "OPTIONS" else {}
        _, _, headers = served.ask(path, headers=asked, method=method)
        assert not any(name.startswith("access-control") for name in headers)
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert served.ask(CHAT, HELLO, headers={"origin": served.url})[0] == 200  # its own page


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp"]
)
def test_only_json_is_read_so_that_no_form_of_a_page_can_ask(served: Served, kind: str) -> None:
    status, said, _ = served.ask(CHAT, json.dumps(HELLO), headers={"content-type": kind})
    check_refused(said, status, 415)


def test_with_a_key_everything_but_the_page_and_health_needs_it(locked: Served) -> None:
    for path in ("/", "/chat.js", "/chat.css", "/favicon.svg", "/health"):
        assert locked.ask(path)[0] == 200
    for given in (None, "", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer \xff"):
        headers = {} if given is None else {"authorization": given}
        for path, body in ((CHAT, HELLO), ("/v1/models", None), ("/metrics", None), ("/openapi.json", None), ("/anything", None)):
            status, said, answered = locked.ask(path, body, headers)
            check_refused(said, status, 401)
            assert answered["www-authenticate"] == "Bearer"
            assert KEY[:-1] not in json.dumps(said)
    assert locked.ask(CHAT, HELLO, {"authorization": f"Bearer {KEY}"})[0] == 200
    assert locked.ask("/v1/models", headers={"authorization": f"bearer {KEY}"})[0] == 200


def test_a_server_for_others_answers_to_addresses_but_not_to_names_it_was_not_given(locked: Served) -> None:
    assert locked.ask("/health", headers={"host": "192.168.1.5:8000"})[0] == 200
    assert locked.ask("/health", headers={"host": "rebound.example"})[0] == 421


def test_another_address_needs_a_key(made_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTH_KEY", raising=False)
    for host in ("0.0.0.0", "::", "192.168.1.5"):
        with pytest.raises(HearthError, match="has no key"):
            serve_command(made_release, host, 0)
    with pytest.raises(HearthError, match="give an address"):
        monkeypatch.setenv("HEARTH_KEY", KEY)
        serve_command(made_release, "example.org", 0)


def test_a_key_is_read_from_a_file_that_only_its_owner_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    with pytest.raises(HearthError, match="chmod 600"):
        find_key(file)
    file.chmod(0o600)
    assert find_key(file) == KEY
    for bad in ("short", "with a blank in it, long", "ü" * 20, ""):
        file.write_text(bad)
        with pytest.raises(HearthError, match="at least 16"):
            find_key(file)
    with pytest.raises(HearthError, match="not readable"):
        find_key(tmp_path / "none")
    monkeypatch.setenv("HEARTH_KEY", KEY)
    assert find_key(None) == KEY


# -- too many ----------------------------------------------------------------------------------------------------------------


def test_a_thousand_connections_get_503_with_a_time_to_come_back_and_the_server_lives(strict: Served) -> None:
    open_ones, refused = [], 0
    try:
        for _ in range(1000):
            connection = socket.create_connection(("127.0.0.1", strict.port), timeout=5)
            open_ones.append(connection)
        for connection in open_ones[-20:]:
            heard = connection.recv(1000)
            refused += heard.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in heard
        assert refused == 20
    finally:
        for connection in open_ones:
            connection.close()
    deadline = time.monotonic() + 10
    while strict.ask("/health")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert strict.ask("/health")[0] == 200


def test_many_requests_at_once_are_answered_or_told_to_come_back(strict: Served) -> None:
    def ask(number: int) -> tuple[int, str | None]:
        try:
            status, _, headers = strict.ask(CHAT, {**HELLO, "seed": number})
        except OSError:  # a connection above the limit may be closed before its request is written
            return 503, "1"
        return status, headers.get("retry-after")

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {status for status, _ in answers} <= {200, 429, 503}
    assert sum(status == 200 for status, _ in answers) >= 20
    assert all(after for status, after in answers if status != 200)
    assert strict.quiet()


# -- what is said ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\r\nb\n\ndata: [DONE]\n\nevent: x\rc\u2028d", "<script>alert(1)</script>"])
def test_whatever_a_model_says_stays_inside_one_event(opened: Opened, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with serving(opened) as talking:
        monkeypatch.setattr(talking.engine.codec, "decode_bytes", lambda ids: text.encode())
        _, said, headers = talking.ask(CHAT, {**HELLO, "stream": True, "temperature": 1, "seed": 1})
        events = said.decode().split("\n\n")
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-content-type-options"] == "nosniff"
        assert events[-2:] == ["data: [DONE]", ""]
        assert all(event.startswith("data: ") and "\n" not in event for event in events[:-1])
        deltas = [json.loads(event[6:])["choices"][0]["delta"].get("content", "") for event in events[:-2]]
        assert "".join(deltas) == text * 2
        assert "\r" not in said.decode()


# -- the command -------------------------------------------------------------------------------------------------------------


def test_the_server_cannot_fetch_anything_and_reads_no_template() -> None:
    import openhearth.serve

    sources = "".join(path.read_text() for path in Path(openhearth.serve.__path__[0]).glob("*.py"))
    assert not re.search(
        r"import (requests|httpx|urllib|aiohttp|http\.client|jinja2|pickle|subprocess)|from (requests|httpx|urllib|aiohttp|jinja2|pickle)",
        sources,
    )


def test_names_of_models_are_plain_words() -> None:
    names = {"runs/laptop": "laptop", "runs/laptop/model": "laptop", "x/a release (2)": "a-release-2", "/": "model", "x/Ünï": "n"}
    assert {given: model_name(Path(given)) for given in names} == names


def test_the_command_says_where_it_listens_and_ends_on_a_signal(made_release: Path) -> None:
    command = [sys.executable, "-m", "openhearth", "serve", str(made_release), "--port", "0"]
    where = {**{name: value for name, value in os.environ.items() if name != "HEARTH_KEY"}, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=where) as running:
        try:
            assert running.stdout is not None
            lines = [running.stdout.readline() for _ in range(4)]
            port = re.search(r"served at http://127\.0\.0\.1:(\d+)$", lines[0])
            assert port, lines
            curl = re.search(r"-d '(.*)'$", lines[2])
            assert curl
            body = {**json.loads(curl[1]), "max_tokens": 2}
            assert Served(int(port[1]), None).ask(CHAT, body)[0] == 200  # type: ignore[arg-type]
            with pytest.raises(HearthError, match=r"127\.0\.0\.1 port \d+: cannot listen \(.*\); try another"):
                listen("127.0.0.1", int(port[1]))
        finally:
            running.send_signal(signal.SIGINT)
        assert running.wait(20) in (0, 130)


@pytest.mark.parametrize("make", ["missing", "file", "empty", "damaged"])
def test_a_folder_that_is_no_release_is_refused_in_a_line(tmp_path: Path, made_release: Path, make: str) -> None:
    import shutil

    folder = tmp_path / "folder"
    if make == "file":
        folder.write_text("x")
    elif make == "empty":
        folder.mkdir()
    elif make == "damaged":
        shutil.copytree(made_release, folder)
        with (folder / "model.safetensors").open("r+b") as weights:
            weights.seek(-1, 2)
            weights.write(b"\xff")
    with pytest.raises(HearthError) as refused:
        serve_command(folder, port=0)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_the_extra_one_line_says_how_to_get_it(made_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(HearthError, match=r"pip install 'openhearth\[serve\]'"):
        serve_command(made_release, port=0)


@pytest.mark.soak
def test_requests_made_up_from_the_schema_find_no_fault_of_the_server(opened: Opened) -> None:
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    with serving(opened, slots=8) as running:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{running.url}/openapi.json", "--no-color"]
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        options = ["--checks", checks, "--phases", "coverage,fuzzing", "--max-examples", "100", "--request-timeout", "30"]
        found = subprocess.run([*command, *options], capture_output=True, text=True, timeout=600)
        assert found.returncode == 0, re.sub(r".{300,}", "(a long line)", found.stdout)[-4000:]
        assert running.ask(CHAT, HELLO)[0] == 200
