"""Pages of the web: the article in an HTML page and its licence (trafilatura), and the pages in a WARC archive (ISO 28500).

The idea: an archive is read as a stream of records; only the body of an HTML answer is held, up to 64 MiB, and what else is in the archive
is counted. A page that yields no text is a drop, like a file of no use.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from openhearth.data import licences, readers
from openhearth.data.documents import Drop
from openhearth.data.licences import Licence
from openhearth.data.raw import Found, Refusal
from openhearth.errors import HearthError

_LINK = re.compile(r"""<(?:a|link)\b[^>]*\brel\s*=\s*["']?license\b[^>]*>""", re.IGNORECASE)
_ADDRESS = re.compile(r"""\bhref\s*=\s*["']([^"'>]+)""", re.IGNORECASE)
MAX_HEADER = 64 << 10


def page(uri: str, data: bytes, offset: int, date: str) -> Found | Refusal:
    """The article of an HTML page, with the licence that the page links to. Raises HearthError where trafilatura is not installed."""
    try:
        import trafilatura
    except ImportError:
        raise HearthError("reading HTML and WARC needs trafilatura; install it with: pip install 'openhearth[web]'") from None
    try:
        text = trafilatura.extract(data, favor_precision=True, include_comments=False, include_tables=True, deduplicate=False)
    except Exception as error:  # a parser of other people's pages meets everything; the page is the one to blame
        return Refusal(Drop(uri, "bad_html", type(error).__name__, "a page that can be parsed"), offset)
    if not text:
        return Refusal(Drop(uri, "no_article", f"{len(data):,} bytes of HTML", "a page with an article in it"), offset)
    row = readers.judge(uri, text.encode(errors="replace"))
    return Refusal(row, offset) if isinstance(row, Drop) else Found(uri, row[1], offset, len(data), stated(data), date)


def stated(data: bytes) -> Licence | None:
    """The licence in a page's `rel=license` link."""
    for tag in _LINK.findall(data.decode("utf-8", "replace")):
        address = _ADDRESS.search(tag)
        if address and (spdx := licences.spdx_of(address[1])):
            return Licence(spdx, f"rel=license {address[1][:200]}", "link")
    return None


class _Stream:
    """Bytes on demand from pieces, with the offset of the next one."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held, self.offset = chunks, bytearray(), 0

    def _fill(self, size: int) -> None:
        while len(self._held) < size and (chunk := next(self._chunks, b"")):
            self._held += chunk

    def take(self, size: int) -> bytes:
        self._fill(size)
        data = bytes(self._held[:size])
        del self._held[:size]
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        """How many of `size` bytes were there to skip."""
        skipped = 0
        while skipped < size and (data := self.take(min(size - skipped, 1 << 20))):
            skipped += len(data)
        return skipped

    def header(self) -> list[str]:
        """The lines of a header up to a blank line; empty at the end of the stream."""
        while self.take_if(b"\r\n") or self.take_if(b"\n"):
            pass
        self._fill(MAX_HEADER)
        ends = [place + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (place := self._held.find(mark, 0, MAX_HEADER)) >= 0]
        if not ends:
            if self._held:
                raise readers.Refused("bad_warc", f"no record at byte {self.offset:,}", "records with a header of at most 64 KiB")
            return []
        return self.take(min(ends)).decode("utf-8", "replace").splitlines()

    def take_if(self, mark: bytes) -> bool:
        self._fill(len(mark))
        found = self._held.startswith(mark)
        if found:
            self.take(len(mark))
        return found


def archive(uri: str, chunks: Iterator[bytes]) -> Iterator[Found | Refusal]:
    """The pages of a WARC stream. Records that are no HTML answers are passed over and counted in one drop each kind of content."""
    stream = _Stream(chunks)
    number = 0
    while True:
        lines = stream.header()
        if not lines:
            return
        offset = stream.offset
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = fields.get("content-length", "")
        if not lines[0].startswith("WARC/") or not length.isascii() or not length.isdigit():
            raise readers.Refused("bad_warc", f"no record before byte {offset:,}", "records that begin with WARC/ and say their length")
        size, number = int(length[:18]), number + 1
        name = f"{uri}:{number}:{fields.get('warc-target-uri', '').strip('<>')}"
        if fields.get("warc-type") != "response":
            whole = stream.skip(size) == size
        elif size > readers.MAX_ROW:
            yield Refusal(Drop(name, "huge", f"{size:,} bytes", f"records of at most {readers.MAX_ROW:,} bytes"), offset)
            whole = stream.skip(size) == size
        else:
            body = stream.take(size)
            whole = len(body) == size
            if whole:
                yield _answer(name, body, offset, fields.get("warc-date", ""))
        if not whole:
            raise readers.Refused("truncated", f"record {number} ends after {stream.offset - offset:,} of {size:,} bytes", "a whole file")


def _answer(name: str, record: bytes, offset: int, date: str) -> Found | Refusal:
    head, _, body = record.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {key.strip().lower(): value.strip().lower() for key, _, value in (line.partition(":") for line in lines[1:])}
    status = lines[0].split(" ")[1:2]
    kind = fields.get("content-type", "text/html").partition(";")[0]
    if status != ["200"]:
        return Refusal(Drop(name, "status", " ".join(status) or "none", "answers with status 200"), offset)
    if kind not in ("text/html", "application/xhtml+xml"):
        return Refusal(Drop(name, "unsupported_suffix", kind[:60], "text/html"), offset)
    encoding = fields.get("content-encoding", "")
    if encoding in ("gzip", "x-gzip", "deflate"):
        try:
            body = zlib.decompressobj(47).decompress(body, readers.MAX_ROW)
        except zlib.error as error:
            return Refusal(Drop(name, "damaged", str(error)[:100], "a body that unpacks"), offset)
    elif encoding not in ("", "identity"):
        return Refusal(Drop(name, "unsupported_suffix", f"content-encoding {encoding[:20]}", "gzip, deflate or none"), offset)
    return page(name, body, offset, date)
