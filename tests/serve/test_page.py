"""The chat page in a real browser: what a person does with it, and what a model's words cannot do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from openhearth.serve.guard import CONTENT_SECURITY
from openhearth.serve.loading import Opened

from .conftest import Served, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser_test = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (.ci/run installs it)")

HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<svg/onload=document.title='owned'>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "<a href=\"javascript:document.title='owned'\">x</a>",
    "[x](javascript:document.title='owned')",
    "![x](http://localhost:1/pixel.png)",
    "```\n</code></pre><script>document.title='owned'</script>\n```",
    "`<img src=x onerror=document.title='owned'>`",
    "<style>*{display:none}</style><link rel=stylesheet href=//localhost:1/x>",
    "<base href=//localhost:1><form action=//localhost:1><button>",
    "<meta http-equiv=refresh content=0;url=//localhost:1>",
    "&lt;script&gt; &#60;b&#62; \u202e \u0000 \ufeff {{7*7}} ${7*7} <!-- --> ]]> \\u003cscript\\u003e",
    "<math><mtext><table><mglyph><style><img src=x onerror=document.title='owned'>",
    "__proto__ constructor toString </li></ol><h1>owned</h1>",
]


def page_file(name: str) -> str:
    return files("openhearth.serve").joinpath("page", name).read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tools:
        running = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in a context of its own. At the end nothing may have been complained of on its console."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(10_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.allowed = []  # what this test expects to be complained of
    yield page
    context.close()
    assert [line for line in said if not any(word in line for word in page.allowed)] == []


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect

    return expect(locator)


def send(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def ended(page: Any) -> None:
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()


class Codec:
    """A tokenizer's place in the engine: every token says the next part of a text, again and again."""

    def __init__(self, engine: Any, parts: list[str]) -> None:
        self.bos, self.im_end, self.parts, self.count = engine.codec.bos, engine.codec.im_end, parts, 0
        engine._ends = set()  # only limits end an answer

    def decode_bytes(self, ids: Any) -> bytes:
        self.count += 1
        return self.parts[(self.count - 1) % len(self.parts)].encode()


@pytest.fixture
def talking(opened: Opened) -> Iterator[Served]:
    """A server whose model says `word `, without end."""
    with serving(opened) as running:
        running.engine.codec = Codec(running.engine, ["word "])
        yield running


def limit(page: Any, tokens: int) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Most tokens").fill(str(tokens))
    page.get_by_role("button", name="Settings").click()


@browser_test
def test_an_answer_streams_in_and_carries_its_settings(page: Any, talking: Served) -> None:
    page.goto(talking.url)
    expect(page.get_by_role("heading", name="small")).to_be_visible()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Most tokens").fill("5")
    send(page, "hello")
    expect(page.locator(".assistant .body")).to_have_text("word " * 5)
    expect(page.locator(".assistant .made")).to_contain_text("temperature 0.5 · seed 7 · at most 5 tokens")
    expect(page.get_by_role("status")).to_contain_text("Ended by the limit")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


@browser_test
def test_stop_keeps_the_text_and_ends_the_work(page: Any, talking: Served) -> None:
    slow_steps(talking)
    page.goto(talking.url)
    for stop in ("Escape", "button"):
        send(page, "go on for ever")
        expect(page.locator(".assistant").last.locator(".body")).to_contain_text("word word word")
        if stop == "Escape":
            page.keyboard.press("Escape")
        else:
            page.get_by_role("button", name="Stop").click()
        expect(page.locator(".assistant").last).to_contain_text("Stopped; what was said is kept.")
        assert "word word" in page.locator(".assistant .body").last.inner_text()
        assert talking.quiet(2)


def slow_steps(served: Served) -> None:
    """A model that a person can interrupt."""
    import time

    forward = served.engine.decoder.forward

    def slowly(*given: Any) -> Any:
        time.sleep(0.03)
        return forward(*given)

    served.engine.decoder.forward = slowly  # type: ignore[method-assign,assignment]


@browser_test
def test_edit_and_regenerate(page: Any, talking: Served) -> None:
    page.goto(talking.url)
    limit(page, 3)
    send(page, "one")
    ended(page)
    send(page, "two")
    ended(page)
    expect(page.locator(".message")).to_have_count(4)
    page.get_by_role("button", name="Regenerate").click()
    ended(page)
    expect(page.locator(".assistant").last).to_contain_text("2 of 2")
    page.get_by_role("button", name="‹ Earlier").click()
    expect(page.locator(".assistant").last).to_contain_text("1 of 2")
    page.get_by_label("Message", exact=True).press("ArrowUp")
    field = page.get_by_label("The message, to be changed")
    expect(field).to_be_focused()
    field.fill("two, changed")
    field.press("Enter")
    ended(page)
    expect(page.locator(".user .body").last).to_have_text("two, changed")
    page.get_by_role("button", name="Edit").first.click()
    page.get_by_role("button", name="Send again").click()
    ended(page)
    expect(page.locator(".message")).to_have_count(2)


@browser_test
def test_a_conversation_outlives_a_reload_and_goes_through_a_file(page: Any, talking: Served, tmp_path: Path) -> None:
    page.goto(talking.url)
    limit(page, 3)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System message").fill("Be brief.")
    send(page, "hello")
    ended(page)
    page.reload()
    expect(page.locator(".message")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "conversation.json"
    download.value.save_as(file)
    content = json.loads(file.read_text())
    assert content["format"] == "openhearth-chat/1"
    assert [message["role"] for message in content["messages"]] == ["system", "user", "assistant"]
    page.get_by_role("button", name="New").click()
    expect(page.locator(".message")).to_have_count(0)
    page.get_by_label("A conversation to import").set_input_files(file)
    expect(page.locator(".assistant .body")).to_have_text("word word word ")
    expect(page.get_by_label("System message")).to_have_value("Be brief.")


@browser_test
@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": "openhearth-chat/1", "messages": [{"role": "wizard", "content": "x"}]}', "null"]
)
def test_a_file_that_is_no_conversation_is_refused_and_nothing_is_lost(page: Any, talking: Served, tmp_path: Path, content: str) -> None:
    page.goto(talking.url)
    limit(page, 2)
    send(page, "hello")
    ended(page)
    (tmp_path / "bad.json").write_text(content)
    page.get_by_label("A conversation to import").set_input_files(tmp_path / "bad.json")
    expect(page.get_by_role("status")).to_contain_text("cannot be imported")
    expect(page.locator(".message")).to_have_count(2)


@browser_test
def test_what_a_model_or_a_person_says_is_only_ever_text(page: Any, opened: Opened) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serving(opened) as running:
        page.goto(running.url)
        limit(page, 1)
        for hostile in HOSTILE:
            running.engine.codec = Codec(running.engine, [hostile])
            page.get_by_role("button", name="New").click()
            send(page, hostile)
            ended(page)
            shown = re.sub(r"```\n?|`", "", hostile).replace("\x00", "\ufffd").strip()
            assert shown[:20] in page.locator(".assistant .body").inner_text().replace("\x00", "\ufffd")
            assert page.locator(".message :is(script, img, svg, iframe, a, style, link, base, form, meta, math, h1)").count() == 0
        assert page.title() == "small"
        assert all(url.startswith(running.url) for url in asked)
        page.reload()  # and out of the browser's store again
        expect(page.locator(".message")).to_have_count(2)
        expect(page).to_have_title("small")  # once the page has asked what it talks to


@browser_test
def test_code_is_shown_as_code(page: Any, opened: Opened) -> None:
    with serving(opened) as running:
        running.engine.codec = Codec(running.engine, ["Use `add`:\n```python\ndef add(a, b):\n    return a + b\n```\nDone."])
        page.goto(running.url)
        limit(page, 1)
        send(page, "hello")
        ended(page)
        expect(page.locator(".assistant pre code")).to_have_text("def add(a, b):\n    return a + b")
        expect(page.locator(".assistant .body span code")).to_have_text("add")
        page.get_by_role("button", name="Copy").last.click()
        expect(page.get_by_role("status")).to_have_text("Copied.")


@browser_test
def test_a_server_with_a_key_asks_for_it(page: Any, opened: Opened) -> None:
    page.allowed.append("401")
    with serving(opened, key="k" * 24, local=False) as locked:
        page.goto(locked.url)
        expect(page.get_by_label("Key")).to_be_focused()
        page.get_by_label("Key").fill("k" * 24)
        page.get_by_label("Key").press("Tab")
        expect(page.get_by_role("heading", name="small")).to_be_visible()
        limit_open = page.get_by_label("Most tokens")
        limit_open.fill("2")
        send(page, "hello")
        ended(page)
        expect(page.locator(".assistant")).to_have_count(1)


@browser_test
def test_a_conversation_longer_than_the_context_leaves_out_its_oldest_turns(page: Any, talking: Served) -> None:
    page.allowed.append("400")  # the server's word that it is too long
    page.goto(talking.url)
    limit(page, 2)
    for number in range(3):
        send(page, f"message {number} " + "def add(a, b): " * 12)
        ended(page)
    expect(page.locator(".assistant").last).to_contain_text("no longer fit the model's context")
    send(page, "x " * 400)
    expect(page.get_by_role("status")).to_contain_text("must stay free")
    expect(page.get_by_label("Message", exact=True)).to_have_value("x " * 400)  # what was typed is not lost


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_reached_by_keyboard_and_named_and_read(browser: Any, talking: Served, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 400, "height": 700})
    page = context.new_page()
    page.goto(talking.url)
    limit(page, 2)
    send(page, "hello")
    ended(page)
    page.get_by_role("button", name="Settings").click()
    for control in page.locator("button:visible, input:visible, textarea:visible, select:visible").all():
        assert control.evaluate("it => (it.ariaLabel ?? '') + it.textContent + [...it.labels ?? []].map(one => one.textContent)").strip()
        assert control.evaluate("it => it.tabIndex >= 0")
    for place in ("body", "#about", ".user .body", ".assistant .who", ".tools button", "#send", "#keys", "#settings label"):
        shown = page.locator(place).first
        assert contrast(shown) >= 4.5, (place, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    context.close()


def contrast(locator: Any) -> float:
    """The contrast of text to what is behind it (WCAG 2.2, 1.4.3 wants 4.5)."""
    colours = locator.evaluate(
        """it => { const ink = getComputedStyle(it).color; let ground = 'rgba(0, 0, 0, 0)';
        for (let at = it; at && ground === 'rgba(0, 0, 0, 0)'; at = at.parentElement) ground = getComputedStyle(at).backgroundColor;
        return [ink, ground] }"""
    )
    first, second = (luminance([int(part) for part in re.findall(r"\d+", colour)[:3]]) for colour in colours)
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def luminance(rgb: list[int]) -> float:
    parts = [value / 255 for value in rgb]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# -- without a browser -------------------------------------------------------------------------------------------------------


def test_the_page_has_no_script_or_style_in_itself_and_fetches_only_its_own() -> None:
    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names = dict(attrs)
            assert tag not in ("style", "iframe", "object", "embed", "base")
            assert not any(name.startswith("on") or name == "style" for name in names)
            assert tag != "script" or "src" in names
            assert "//" not in (names.get("src") or names.get("href") or "")

    Reader().feed(page_file("index.html"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://", page_file("chat.js"))
    assert "//" not in re.sub(r"/\*.*?\*/", "", page_file("chat.css")).replace("@media", "")


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline(served: Served) -> None:
    for path in ("/", "/chat.js", "/v1/models", "/nothing"):
        assert served.ask(path)[2]["content-security-policy"] == CONTENT_SECURITY
    assert "default-src 'none'" in CONTENT_SECURITY
    assert "unsafe" not in CONTENT_SECURITY
    assert "*" not in CONTENT_SECURITY


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_the_script_parses(tmp_path: Path) -> None:
    (tmp_path / "chat.mjs").write_text(page_file("chat.js"))
    assert subprocess.run(["node", "--check", str(tmp_path / "chat.mjs")], capture_output=True, timeout=30).returncode == 0
