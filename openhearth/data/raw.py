"""Reading the sources of a data recipe: every text with the place where it stands, what is known of its licence, and a drop for the rest.

The idea: as for a recipe's own text (`readers.py`), but nothing is held that can be passed on: tables are read row by row with their
byte offsets, of any size; what one row or one record has wrong costs that row, and a damaged end costs only what follows.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openhearth.data import licences, places, readers
from openhearth.data.documents import Drop
from openhearth.data.gitignore import Rule, ignored, rules_of
from openhearth.data.licences import Licence
from openhearth.data.places import Place
from openhearth.data.settings import Source
from openhearth.errors import HearthError

MAX_WHOLE = 64 << 20
"""Bytes of a file that is one document: it is held, so that a gigabyte of lines must be a table."""

MAX_RATIO = 100
"""Unpacked bytes for one packed byte, above 1 GiB: text packs to a tenth or so, a bomb to a thousandth."""

CODE = (
    ".py", ".pyi", ".c", ".h", ".cc", ".cpp", ".hpp", ".cs", ".java", ".js", ".mjs", ".jsx", ".ts", ".tsx",
    ".go", ".rs", ".rb", ".php", ".swift", ".kt", ".scala", ".sh", ".bash", ".sql", ".r", ".jl", ".lua", ".pl",
    ".hs", ".ml", ".ex", ".exs", ".erl", ".clj", ".lisp", ".el", ".f90", ".m", ".vue", ".css", ".scss", ".toml",
    ".yaml", ".yml", ".ini", ".cfg", ".cmake", ".proto", ".tex", ".zig", ".nim", ".dart", ".v", ".vhd", ".asm",
)  # fmt: skip
PROFILES = {".txt": "book", ".md": "reference", ".rst": "reference", **dict.fromkeys(CODE, "code")}
WEB = (".html", ".htm", ".xhtml", ".warc")
TABLES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
"""Formats, by suffix, and the profile of what is not told another: tables and pages are `web`."""

LICENCE_FIELDS = ("license", "licence", "license_type")


@dataclass(frozen=True, slots=True)
class Raw:
    """A text as it was read. `offset` and `size` are bytes of the unpacked file; for Parquet the row's number and 0."""

    uri: str
    text: str
    offset: int
    size: int
    profile: str
    licence: Licence
    date: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that could not become a text, and where in its file."""

    drop: Drop
    offset: int


def format_of(name: str) -> tuple[str, str] | None:
    """The suffix that says how to read a file and the one that says how it is packed; None when neither is known."""
    bare = Path(name.lower())
    packed = bare.suffix if bare.suffix in places.PACKED_SUFFIXES else ""
    inner = Path(bare.stem).suffix if packed else bare.suffix
    known = inner in PROFILES or inner in WEB or (inner in TABLES and not (packed and inner == ".parquet"))
    return (inner, packed) if known else None


def gather(source: Source, prefix: str) -> Iterator[Place | Drop]:
    """The files of a source, sorted by path. Raises HearthError for a path that cannot be read at all."""
    path = Path(source.path).expanduser()
    kind = places.mode_of(source.path, path)
    if places.is_special(kind):
        raise HearthError(f"{source.path}: is a {places.special(kind)}, which cannot be read twice; give a file or a folder")
    if path.is_dir():
        yield from places.walk(path, prefix, format_of, _Ignored(path))
    elif format_of(path.name) is None:
        raise HearthError(f"{source.path}: files of this kind are not read; give text, source code, {', '.join((*TABLES, *WEB))}")
    else:
        yield Place(path, prefix + places.printable(path.name), path.stat().st_size, named=True)


class _Ignored:
    """What the `.gitignore` files of a tree leave out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rules: dict[Path, tuple[Rule, ...]] = {}

    def __call__(self, path: Path, folder: bool) -> bool:
        for parent in path.parents:  # the nearest file that says something decides
            verdict = ignored(path.relative_to(parent).as_posix(), folder, self._of(parent))
            if verdict is not None:
                return verdict
            if parent == self.root:
                return False
        return False

    def _of(self, folder: Path) -> tuple[Rule, ...]:
        if folder not in self._rules:
            file = folder / ".gitignore"
            try:
                text = file.read_bytes()[: 1 << 20].decode(errors="replace") if file.is_file() and not file.is_symlink() else ""
            except OSError:
                text = ""
            self._rules[folder] = rules_of(text)
        return self._rules[folder]


def read(place: Place, source: Source, tree: licences.Tree) -> Iterator[Raw | Refusal]:
    """Every text of a file and every refusal, in the order of the file."""
    suffix, packed = format_of(place.path.name) or ("", "")
    given = Licence(source.licence, source.evidence or "the data recipe", "manual") if source.licence else None
    default = tree.licence_of(place.path) or given or Licence(licences.UNKNOWN, "", "none")
    reader = _READERS.get(suffix, _whole)
    profile = source.profile or PROFILES.get(suffix, "web")
    found = False
    lacking: Drop | None = None
    try:
        for item in reader(place, packed, source):
            if isinstance(item, Refusal):
                lacking = item.drop if item.drop.rule == "no_text_field" and (lacking or not found) else None
                found = True
                yield item
                continue
            found, lacking = True, None
            stated = item.licence or (licences.of_header(item.text) if profile == "code" else None)
            yield Raw(item.uri, item.text, item.offset, item.size, profile, stated or default, item.date or source.date)
    except readers.Refused as refused:
        lacking = Drop(place.uri, refused.rule, refused.value, refused.threshold)
        yield Refusal(lacking, -1)
    except OSError as error:
        yield Refusal(Drop(place.uri, "unreadable", os.strerror(error.errno) if error.errno else str(error), "readable files"), -1)
    else:
        if not found:
            yield Refusal(Drop(place.uri, "empty", "no rows", "at least one row"), 0)
    if place.named and lacking is not None and lacking.rule == "no_text_field":  # a whole file that was named must not vanish so
        raise HearthError(f"{place.path}: no field named '{source.text_field}' ({lacking.value}); name the right one with --text-field")


# -- formats ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader of one format gives: a text, where it stands, and the licence that it states itself."""

    uri: str
    text: str
    offset: int
    size: int
    licence: Licence | None = None
    date: str = ""


def _limit(place: Place, packed: str) -> int:
    return max(readers.MAX_FILE, MAX_RATIO * place.bytes) if packed else place.bytes + 1


def _kept(row: readers.Row | Drop, offset: int, size: int, licence: Licence | None = None) -> Found | Refusal:
    return Refusal(row, offset) if isinstance(row, Drop) else Found(row[0], row[1], offset, size, licence)


def _whole(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    data = b"".join(readers.chunks(place, packed, MAX_WHOLE))
    yield _kept(readers.judge(place.uri, data), 0, len(data))


def _json_lines(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    for number, (offset, line) in enumerate(readers.lines(readers.chunks(place, packed, _limit(place, packed))), 1):
        uri = f"{place.uri}:{number}"
        if line is None:
            yield Refusal(Drop(uri, "long_line", f"more than {readers.MAX_ROW:,} bytes", f"at most {readers.MAX_ROW:,} bytes"), offset)
        elif line.strip():
            value = readers.json_object(uri, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, once=True)
            if isinstance(value, Drop):
                yield Refusal(value, offset)
                continue
            stated = next((str(value[name]) for name in LICENCE_FIELDS if isinstance(value.get(name), str)), "")
            spdx = licences.spdx_of(stated) if stated else None
            licence = Licence(spdx or licences.UNKNOWN, f"field: {stated[:100]}", "field") if stated else None
            yield _kept(readers.text_of(uri, value, source.text_field), offset, len(line), licence)


def _csv(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    csv.field_size_limit(readers.MAX_ROW)
    at = [0, 0]  # where the next line begins, and the line that was read last ends

    def decoded() -> Iterator[str]:
        for offset, line in readers.lines(readers.chunks(place, packed, _limit(place, packed))):
            if line is None:
                raise readers.Refused("long_line", f"more than {readers.MAX_ROW:,} bytes", f"lines of at most {readers.MAX_ROW:,} bytes")
            at[1] = offset + len(line) + 1
            yield line.decode("utf-8-sig" if offset == 0 else "utf-8", "surrogateescape") + "\n"

    suffix = (format_of(place.path.name) or ("", ""))[0]
    rows = csv.reader(decoded(), delimiter="\t" if suffix == ".tsv" else ",")
    try:
        header = next(rows, [])
        if source.text_field not in header:
            shown = ", ".join(ascii(name) for name in header)[:200] or "none"
            raise readers.Refused("no_text_field", f"fields found: {shown}", f"a column named '{source.text_field}'")
        column = header.index(source.text_field)
        at[0] = at[1]
        for number, row in enumerate(rows, 2):
            uri, offset = f"{place.uri}:{number}", at[0]
            at[0] = at[1]
            if len(row) != len(header):
                yield Refusal(Drop(uri, "bad_csv", f"{len(row)} fields", f"{len(header)} fields, as in the header"), offset)
            else:
                yield _kept(readers.judge(uri, row[column].encode("utf-8", "surrogateescape")), offset, at[1] - offset)
    except csv.Error as error:
        raise readers.Refused("bad_csv", str(error)[:200], "fields that end; check the quotes") from None


def _parquet(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    limit = max(readers.MAX_FILE, MAX_RATIO * place.bytes)
    for number, row in enumerate(readers.read_parquet(place, source.text_field, limit)):
        yield _kept(row, number, 0)


def _html(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    from openhearth.data import web

    data = b"".join(readers.chunks(place, packed, MAX_WHOLE))
    yield web.page(place.uri, data, 0, "")


def _warc(place: Place, packed: str, source: Source) -> Iterator[Found | Refusal]:
    from openhearth.data import web

    yield from web.archive(place.uri, readers.chunks(place, packed, _limit(place, packed)))


_READERS = {
    **dict.fromkeys((".jsonl", ".ndjson"), _json_lines),
    **dict.fromkeys((".csv", ".tsv"), _csv),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _html),
    ".parquet": _parquet,
    ".warc": _warc,
}
