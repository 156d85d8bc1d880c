"""Licences as code: which one each document is under, what that is known from, whether it may enter the mix, and who must be named.

The idea: what a document says of itself (an SPDX header, a field, `rel=license`) outweighs the nearest LICENSE file above it, which
outweighs what the recipe says of the whole source. Each answer carries its evidence and the rule that gave it. Only an identifier or a
phrase of the licence's own text counts as evidence; anything else is `unknown`.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import pyarrow

from openhearth.data.batches import Judged, Why, judged
from openhearth.data.settings import Licences
from openhearth.errors import nearest

UNKNOWN = "unknown"
NAMES = re.compile(r"(?i)(?:un)?licen[cs]e|copying|copyright")
"""Files that may hold a licence, by the beginning of their name."""
MAX_LICENCE = 200_000
"""Bytes of a LICENSE file that are read."""

Class = Literal["public", "attribution", "share-alike", "copyleft", "non-commercial", "no-derivatives", "unknown"]

_HEADER = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+-]+(?: (?:WITH|OR|AND) [A-Za-z0-9.+-]+)*)")
_CC = re.compile(
    r"creativecommons\.org/(?:licenses/(by(?:-nc)?(?:-nd|-sa)?)/(\d\.\d)|(publicdomain/zero)/1\.0|(publicdomain/mark)/1\.0)", re.IGNORECASE
)
_CC_TEXT = re.compile(r"^CC[ -](BY(?:-NC)?(?:-ND|-SA)?)[ -](\d\.\d)$", re.IGNORECASE)
HEADER_CHARACTERS = 4_000
"""Of the beginning of a text in which a header stands."""


@dataclass(frozen=True)
class Licence:
    """An SPDX identifier (or `unknown`), what it is known from, and the rule that decided: header, field, link, file, manual, none."""

    spdx: str
    evidence: str
    rule: str


@functools.cache
def table() -> dict[str, dict[str, Any]]:
    """The licences that are known, by SPDX identifier."""
    return tomllib.loads((files("openhearth.data") / "licences.toml").read_text())


def class_of(spdx: str) -> Class:
    """What a licence asks. Of "A OR B" the freer side counts, of "A AND B" the stricter; "-only", "-or-later" and "+" change nothing."""
    order: tuple[Class, ...] = ("public", "attribution", "share-alike", "copyleft", "no-derivatives", "non-commercial", "unknown")
    if " OR " in spdx:
        return min(map(class_of, spdx.split(" OR ")), key=order.index)
    if " AND " in spdx:
        return max(map(class_of, spdx.split(" AND ")), key=order.index)
    bare = re.sub(r"(?:-only|-or-later|\+)$", "", spdx.partition(" WITH ")[0])
    if cc := re.fullmatch(r"CC-BY(-NC)?(-ND|-SA)?-\d\.\d", bare):
        return "non-commercial" if cc[1] else "no-derivatives" if cc[2] == "-ND" else "share-alike" if cc[2] else "attribution"
    found: Class = table().get(bare, {}).get("class", UNKNOWN)
    return found


def spdx_of(statement: str) -> str | None:
    """The identifier that a statement names: one of SPDX's, a Creative Commons address, or "CC BY 4.0"; None for anything else."""
    said = statement.strip()
    if cc := _CC.search(said):
        return "CC0-1.0" if cc[3] else "LicenseRef-public-domain" if cc[4] else f"CC-{cc[1].upper()}-{cc[2]}"
    if cc := _CC_TEXT.match(said):
        return f"CC-{cc[1].upper()}-{cc[2]}"
    by_fold = {name.casefold(): name for name in table()}
    known = by_fold.get(said.casefold())
    return known or (said if class_of(said) != UNKNOWN else None)


def of_text(text: str) -> str | None:
    """The licence whose own words are in the text of a LICENSE file."""
    words = " ".join(text.split()).casefold()
    fits = [
        (words.index(row["text"][0].casefold()), place, spdx)
        for place, (spdx, row) in enumerate(table().items())
        if all(phrase.casefold() in words for phrase in row["text"])
    ]
    if fits:  # the one that is named first: the GPL mentions the AGPL, and is not it
        return min(fits)[2]
    return spdx_of(text[:300]) if _CC.search(text[:300]) else None


def of_header(text: str) -> Licence | None:
    """The SPDX header at the beginning of a source file."""
    found = _HEADER.search(text, 0, HEADER_CHARACTERS)
    return Licence(found[1], found[0], "header") if found and class_of(found[1]) != UNKNOWN else None


class Tree:
    """The LICENSE files of a folder: for each document the nearest one above it, the folder itself included."""

    def __init__(self, root: Path) -> None:
        self.root = root if root.is_dir() else root.parent
        self._cache: dict[Path, Licence | None] = {}

    def licence_of(self, path: Path) -> Licence | None:
        """The nearest licence file that says one, from the document's folder up to the root."""
        folder = path.parent
        found = self._in(folder)
        while found is None and folder != self.root and self.root in folder.parents:
            folder = folder.parent
            found = self._in(folder)
        return found

    def _in(self, folder: Path) -> Licence | None:
        if folder not in self._cache:
            self._cache[folder] = None
            try:
                names = sorted(entry for entry in folder.iterdir() if NAMES.match(entry.name))
            except OSError:
                names = []
            for file in names:
                if not file.is_file() or file.is_symlink():
                    continue
                with file.open("rb") as opened:
                    spdx = of_text(opened.read(MAX_LICENCE).decode(errors="replace"))
                if spdx is not None:
                    self._cache[folder] = Licence(spdx, file.relative_to(self.root).as_posix(), "file")
                    break
        return self._cache[folder]


def treatment(spdx: str, policy: Licences) -> str:
    """mix, apart or refuse: what a policy does with a licence."""
    bare = re.sub(r"(?:-only|-or-later|\+)$", "", spdx)
    if policy.allow and spdx != UNKNOWN:
        return "mix" if spdx in policy.allow or bare in policy.allow else "refuse"
    match class_of(spdx):
        case "share-alike":
            return policy.share_alike
        case "copyleft":
            return policy.copyleft
        case "non-commercial":
            return policy.non_commercial
        case "no-derivatives":
            return policy.no_derivatives
        case "unknown":
            return policy.unknown
        case _:
            return "mix"


def judge_licences(batch: pyarrow.RecordBatch, policy: Licences) -> Judged:
    """The stage: documents whose licence the policy refuses go. Which of the others stand apart is decided where the corpus is written."""
    reasons: list[Why | None] = []
    for spdx in batch.column("licence").to_pylist():
        refused = treatment(spdx, policy) == "refuse"
        rule = "allow" if policy.allow and spdx != UNKNOWN else class_of(spdx).replace("-", "_")
        asked = ", ".join(policy.allow) if rule == "allow" else f"licences.{rule} is not refused"
        reasons.append(Why(rule, spdx, asked) if refused else None)
    return judged(batch, "licences", reasons)


def unknown_names(policy: Licences) -> list[str]:
    """What is wrong with the identifiers of an allow-list, one sentence each."""
    return [f"'{name}' is no licence that is known{nearest(name, table())}" for name in policy.allow if class_of(name) == UNKNOWN]


def drift(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Sources whose documents are under several licences, one sentence each; `counts` are documents by source and licence."""
    said = []
    for source, licences in sorted(counts.items()):
        if len(licences) > 1:
            parts = ", ".join(f"{count:,} {spdx}" for spdx, count in sorted(licences.items(), key=lambda item: (-item[1], item[0])))
            said.append(f"{source or 'the source'}: {parts}")
    return said


def notice(rows: Mapping[str, Mapping[tuple[str, str], tuple[int, int]]]) -> str:
    """The text of NOTICE: by licence, what is under it and the evidence; rows[licence][file, evidence] = (documents, bytes)."""
    parts = ["This corpus holds texts under the following licences. Each entry: what, documents, bytes, the evidence for its licence.\n"]
    for spdx in sorted(rows):
        entries = rows[spdx]
        documents, size = (sum(entry[place] for entry in entries.values()) for place in (0, 1))
        asks = {"attribution": "its authors must be named", "share-alike": "what is made from it may have to be shared alike"}
        told = asks.get(class_of(spdx), class_of(spdx))
        parts.append(f"\n{spdx} ({told}): {documents:,} documents, {size:,} bytes\n")
        for (file, evidence), (count, held) in sorted(entries.items()):
            parts.append(f"  {file}: {count:,} documents, {held:,} bytes; {evidence or 'no evidence'}\n")
    return "".join(parts)
