"""The terms on which a folder is had: gates before the download, policies of use, clauses that forbid. A licence's name tells half.

Apache-2.0 behind a form that one must sign is not the freedom that Apache-2.0 gives; so the grade looks at the terms too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from openhearth.release.openness.folder import CARD, ModelFolder

_POLICY_FILES = (
    r"(.*/)?[^/]*(use[_-]?policy|acceptable[_-]?use|terms[_-]?of[_-]?use|usage[_-]?(policy|guidelines)|prohibited)[^/]*\.(md|txt|pdf)"
)
_CLAUSES = (
    (r"acceptable use policy", "an acceptable use policy"),
    (r"prohibited[ _-]uses?", "a list of prohibited uses"),
    (r"700 million monthly active users", "a limit on the number of users"),
    (r"\bnon-?commercial(ly)?\b(?! or commercial)", "no commercial use"),
    (r"research (purposes )?only|only for (academic )?research", "research only"),
    (
        r"(agree|consent|accept)\b[^.\n]{0,60}\b(terms|licen[cs]e|policy)[^.\n]{0,40}\b(before|in order to|to access|to download)",
        "an agreement",
    ),
    (r"indemnif(y|ies)", "an indemnity"),
)
_PERMISSIVE = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "openmdw-1.0", "mpl-2.0"}


@dataclass(frozen=True)
class Limit:
    """Something that stands between a person and the use: what, and the file and line that say so."""

    kind: str
    """gate, policy, clause or licence."""
    file: str
    note: str


@dataclass
class Access:
    """All limits that were found; an empty list says that none was, not that there is none elsewhere."""

    limits: list[Limit] = field(default_factory=list)


def terms(folder: ModelFolder) -> Access:
    """Look for gates in the card's header, policies among the files, and clauses in the card and in the licence's text."""
    limits = []
    gates = sorted(key for key in folder.header if key.startswith("extra_gated") or key == "gated")
    if gates and not (gates == ["gated"] and folder.header["gated"] in (False, "false")):
        limits.append(
            Limit("gate", CARD, f"{CARD}: its header asks for consent or for data before the download ({', '.join(gates)[:100]})")
        )
    limits += [Limit("policy", name, f"{name}: a policy of use") for name in folder.matching(_POLICY_FILES)]
    licence, proof, remark = folder.licence
    if licence is not None and not licence.open:
        limits.append(Limit("licence", (proof or (CARD,))[-1], f"{remark}: not an open licence{_because(licence.restriction)}"))
    for name in (CARD, *folder.licence_files):
        text = folder.text(name)
        if name != CARD and (folder.licence[0] is not None and folder.licence[0].name.lower() in _PERMISSIVE):
            continue  # the text of a licence that is known to be open: Apache-2.0 too speaks of indemnity
        for pattern, what in _CLAUSES:
            if found := re.search(pattern, text, re.IGNORECASE):
                line = text.count("\n", 0, found.start()) + 1
                limits.append(Limit("clause", name, f"{name} line {line}: '{' '.join(found.group(0).split())[:60]}' ({what})"))
    return Access(limits)


def _because(restriction: str) -> str:
    return f" ({restriction})" if restriction else ""
