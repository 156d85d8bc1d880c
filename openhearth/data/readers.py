"""Readers of the user's own text: one file becomes texts, and a drop for everything in it that could not be one.

The idea: a file is a stream of bounded chunks whatever it is packed in, so that nothing larger than the limits is ever held; a fault
of one row costs that row, a fault of the file (damaged, truncated, too large) costs the file, and each is a drop with its place.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any

from openhearth.data.documents import Drop
from openhearth.data.places import LINE_SUFFIXES, TABLE_SUFFIXES, Place, format_of
from openhearth.errors import HearthError

MAX_FILE = 1 << 30
"""Bytes of one file, after unpacking."""

MAX_ROW = 64 << 20
"""Bytes of one line or one row."""

MAX_CONTROL_SHARE = 0.1
"""Of a text's characters that are control characters other than tab, line ends, form feed and escape: above it, it is not text."""

FIELD = "text"
CHUNK = 1 << 20
ZSTD_CHUNK = 4 << 10  # a zstd block expands 4 bytes to 128 KiB at most: 128 MiB from one chunk

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")

Row = tuple[str, str]
"""uri, text"""


class Refused(Exception):
    """The whole file is left out, by this rule."""

    def __init__(self, rule: str, value: str, threshold: str) -> None:
        super().__init__(rule)
        self.rule, self.value, self.threshold = rule, value, threshold


def read(place: Place) -> list[Row | Drop]:
    """The texts of a file with their uris, and its drops.

    Raises HearthError when the user named this very file and no row of it has a field `text`: a whole file must not vanish so.
    """
    suffix, packed = format_of(place.path.name) or ("", "")
    try:
        if suffix in TABLE_SUFFIXES:
            rows = list(read_parquet(place))
        elif suffix in LINE_SUFFIXES:
            rows = list(_read_lines(place, packed))
        else:
            rows = [judge(place.uri, _whole(place, packed))]
    except Refused as refused:
        rows = [Drop(place.uri, refused.rule, refused.value, refused.threshold)]
    except OSError as error:
        rows = [Drop(place.uri, "unreadable", os.strerror(error.errno) if error.errno else str(error), "readable files")]
    if place.named and rows and all(isinstance(row, Drop) and row.rule == "no_text_field" for row in rows):
        found = rows[0].value if isinstance(rows[0], Drop) else ""
        raise HearthError(f"{place.path}: no field named '{FIELD}' ({found}); rename the field that holds the text to '{FIELD}'")
    return rows


def judge(uri: str, data: bytes) -> Row | Drop:
    """The text in `data`, or a drop: what every text must be, from whatever file it comes."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Drop(uri, "not_utf8", "a UTF-16 byte order mark", "UTF-8 (convert with: iconv -f UTF-16 -t UTF-8)")
    if b"\0" in data:
        return Drop(uri, "binary", f"NUL at byte {data.index(0):,}", "no NUL bytes (UTF-16 is converted with: iconv -f UTF-16LE -t UTF-8)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Drop(
            uri,
            "not_utf8",
            f"0x{data[error.start]:02x} at byte {error.start:,}",
            "UTF-8 (Latin-1 is converted with: iconv -f LATIN1 -t UTF-8)",
        )
    if not text or text.isspace():
        return Drop(uri, "empty", f"{len(data)} bytes", "at least one visible character")
    share = len(_CONTROL.findall(text)) / len(text)
    if share > MAX_CONTROL_SHARE:
        return Drop(uri, "binary", f"{share:.3f} control characters", f"at most {MAX_CONTROL_SHARE}")
    if len(data) > MAX_ROW:
        longest = max(map(len, data.split(b"\n")))
        if longest > MAX_ROW:
            return Drop(uri, "long_line", f"{longest:,} bytes", f"lines of at most {MAX_ROW:,} bytes; break it into lines")
    return uri, text


# -- bytes ------------------------------------------------------------------------------------------------------------------


def chunks(place: Place, packed: str, limit: int | None = None) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in bounded pieces; raises Refused above `limit` bytes (`MAX_FILE`)."""
    limit = limit or MAX_FILE
    if not packed and place.bytes > limit:
        raise Refused("huge", f"{place.bytes:,} bytes", f"files of at most {limit:,} bytes; split it")
    unpack = {"": _plain, ".gz": _gunzip, ".zst": _unzstd}[packed]
    total = 0
    for chunk in unpack(place):
        total += len(chunk)
        if total > limit:
            raise Refused("huge", f"more than {limit:,} bytes when unpacked", f"files of at most {limit:,} bytes; split it")
        yield chunk


def _plain(place: Place) -> Iterator[bytes]:
    with place.path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _gunzip(place: Place) -> Iterator[bytes]:
    try:
        with gzip.open(place.path) as file:
            while chunk := file.read1(CHUNK):  # what stands before a torn end comes before its error
                yield chunk
    except EOFError:
        raise Refused("truncated", "the file ends inside a gzip member", "a whole file; copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Refused("damaged", str(error), "valid gzip") from None


def _unzstd(place: Place) -> Iterator[bytes]:
    import zstandard

    try:
        with place.path.open("rb") as file:
            frame = None
            while data := file.read(ZSTD_CHUNK):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(data)
                    data = b""
                    if frame.eof:
                        data, frame = frame.unused_data, None
            if frame is not None:
                raise Refused("truncated", "the file ends inside a zstd frame", "a whole file; copy or download it again")
    except zstandard.ZstdError as error:
        raise Refused("damaged", str(error), "valid zstd") from None


def _whole(place: Place, packed: str) -> bytes:
    return b"".join(chunks(place, packed))


# -- rows -------------------------------------------------------------------------------------------------------------------


def lines(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a stream without their ends, and where each begins; None for one longer than `MAX_ROW`, which is not held."""
    parts: list[bytes] = []
    size = offset = 0
    for chunk in chunks:
        pieces = chunk.split(b"\n")
        for number, piece in enumerate(pieces):
            if number:
                yield offset, b"".join(parts) if size <= MAX_ROW else None
                offset += size + 1
                parts, size = [], 0
            size += len(piece)
            if size <= MAX_ROW:
                parts.append(piece)
            else:
                parts.clear()
    if size:
        yield offset, b"".join(parts) if size <= MAX_ROW else None


def _read_lines(place: Place, packed: str) -> Iterator[Row | Drop]:
    """JSON lines: an object with a field `text` on each; blank lines are nothing."""
    number = 0
    for number, (_, line) in enumerate(lines(chunks(place, packed)), 1):
        uri = f"{place.uri}:{number}"
        if line is None:
            yield Drop(uri, "long_line", f"more than {MAX_ROW:,} bytes", f"at most {MAX_ROW:,} bytes")
        elif line.strip():
            yield _row(uri, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    if not number:
        yield Drop(place.uri, "empty", "0 bytes", "at least one line")


def _row(uri: str, line: bytes) -> Row | Drop:
    value = json_object(uri, line)
    return value if isinstance(value, Drop) else text_of(uri, value, FIELD)


def json_object(uri: str, line: bytes, once: bool = False) -> dict[str, Any] | Drop:
    """The JSON object on a line; with `once` a key that stands twice is a fault, since which of the two was meant is not known."""
    try:
        value = json.loads(line.decode(), object_pairs_hook=_once if once else None)
    except UnicodeDecodeError as error:
        return Drop(uri, "not_utf8", f"0x{line[error.start]:02x} at byte {error.start:,} of the line", "UTF-8")
    except (ValueError, RecursionError) as error:
        return Drop(uri, "bad_json", _shown(error), "one JSON object per line")
    if not isinstance(value, dict):
        return Drop(uri, "bad_json", f"a {type(value).__name__}, not an object", "one JSON object per line")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def text_of(uri: str, value: dict[str, Any], field: str) -> Row | Drop:
    """The text in a field of an object."""
    if field not in value:
        return Drop(uri, "no_text_field", _fields(list(value)), f"a field named '{field}'")
    text = value[field]
    if not isinstance(text, str):
        return Drop(uri, "not_text", "null" if text is None else f"a {type(text).__name__}", f"a string in '{field}'")
    try:
        return judge(uri, text.encode())
    except UnicodeEncodeError as error:
        return Drop(uri, "surrogate", f"U+{ord(text[error.start]):04X} at character {error.start:,}", "no unpaired surrogates")


def read_parquet(place: Place, field: str = FIELD, limit: int | None = None) -> Iterator[Row | Drop]:
    """A column of a Parquet table, at most `limit` bytes (`MAX_FILE`).

    Kept as a dictionary in memory: a value that is repeated a million times is held once.
    """
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(place.path)
        if field not in schema.names:
            raise Refused("no_text_field", _fields(schema.names), f"a column named '{field}'")
        kind = schema.field(field).type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if not any(is_text(kind) for is_text in (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)):
            raise Refused("not_text", f"a column of {kind}", f"a column of strings in '{field}'")
        with pyarrow.parquet.ParquetFile(place.path, read_dictionary=[field]) as file:
            total = number = 0
            for batch in file.iter_batches(batch_size=1_000, columns=[field]):
                column = batch.column(0)
                if not pyarrow.types.is_dictionary(column.type):
                    column = column.dictionary_encode()
                values = column.dictionary.cast(pyarrow.large_binary())
                lengths = pyarrow.compute.binary_length(values).to_pylist()
                for index in column.indices.to_pylist():
                    number += 1
                    uri = f"{place.uri}:{number}"
                    if index is None:
                        yield Drop(uri, "not_text", "null", f"a string in '{field}'")
                    elif lengths[index] > MAX_ROW:
                        yield Drop(uri, "long_line", f"{lengths[index]:,} bytes", f"at most {MAX_ROW:,} bytes")
                    else:
                        total += lengths[index]
                        if total > (limit or MAX_FILE):
                            raise Refused("huge", f"more than {MAX_FILE:,} bytes of text", f"files of at most {MAX_FILE:,} bytes; split it")
                        yield judge(uri, values[index].as_py())
            if not number:
                yield Drop(place.uri, "empty", "0 rows", "at least one row")
    except pyarrow.ArrowException as error:
        raise Refused("damaged", _shown(error), "a valid Parquet file") from None


def _fields(names: list[Any]) -> str:
    """The field names that were found, for a message: short, on one line, and encodable."""
    return "fields found: " + (ascii(names)[1:-1][:200] or "none")


def _shown(error: Exception) -> str:
    return " ".join(ascii(str(error))[1:-1].split())[:200] or type(error).__name__
