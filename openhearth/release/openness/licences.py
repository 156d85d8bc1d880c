"""Which licences are open, and which one a folder is under: the identifiers of SPDX, what the Hub calls them, and texts known by sight.

The table `licences.tsv` has every licence that the Model Openness Tool counts as open (OSI-approved, free after the FSF, an open-data
licence, OpenMDW), with the kinds of content it suits; facts of the SPDX list 3.27 and of github.com/lfai/model_openness_tool. One
row differs: PSF-2.0 is free after the FSF ("License of Python 2.0.1, 2.1.1, and newer versions"), which SPDX does not say.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

KINDS = ("code", "data", "document")

_RESTRICTED = {
    "llama": "use policy, and a licence from Meta above 700 million users",
    "gemma": "prohibited uses, which Google may change",
    "rail": "restrictions on use",
    "nc": "no commercial use",
    "nd": "no changed versions",
    "research": "research only",
}
"""Licences that are published with weights and are not open: part of the name, and what they forbid."""

_TEXTS = (
    ("Apache-2.0", r"Apache License\s+Version 2\.0, January 2004"),
    ("CC0-1.0", r"CC0 1\.0 Universal"),
    ("CC-BY-NC-SA-4.0", r"Attribution-NonCommercial-ShareAlike 4\.0 International"),
    ("CC-BY-NC-ND-4.0", r"Attribution-NonCommercial-NoDerivatives 4\.0 International"),
    ("CC-BY-NC-4.0", r"Attribution-NonCommercial 4\.0 International"),
    ("CC-BY-SA-4.0", r"Attribution-ShareAlike 4\.0 International"),
    ("CC-BY-4.0", r"Attribution 4\.0 International"),
    ("AGPL-3.0", r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3"),
    ("LGPL-3.0", r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-3.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 3"),
    ("GPL-2.0", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("MPL-2.0", r"Mozilla Public License,? [Vv]ersion 2\.0"),
    ("OpenMDW-1.0", r"OpenMDW License Agreement"),
    ("CDLA-Permissive-2.0", r"Community Data License Agreement - Permissive - Version 2\.0"),
    ("ODC-By-1.0", r"Open Data Commons Attribution License"),
    ("llama-community", r"LLAMA [\d. ]*COMMUNITY LICENSE AGREEMENT"),
    ("gemma", r"Gemma Terms of Use"),
    ("rail", r"(?:Responsible AI License|\bOpen ?RAIL)"),
    ("BSD-3-Clause", r"Redistribution and use in source and binary forms[\s\S]*Neither the name"),
    ("BSD-2-Clause", r"Redistribution and use in source and binary forms"),
    ("MIT", r"Permission is hereby granted, free of charge, to any person obtaining a copy"),
)
"""How the texts of licences are known, the more special before the more general."""


@dataclass(frozen=True)
class Licence:
    """A licence as far as it matters here."""

    name: str
    """Its SPDX identifier, or the name that it was given where it has none."""
    osi: bool = False
    free: bool = False
    """After the Free Software Foundation."""
    open_data: bool = False
    kinds: tuple[str, ...] = ()
    """The kinds of content that the Model Openness Tool calls it appropriate for."""
    restriction: str = ""
    """What it is known to forbid."""

    @property
    def open(self) -> bool:
        """Whether the Model Openness Tool counts a component under it."""
        return self.osi or self.free or self.open_data


@functools.cache
def table() -> dict[str, Licence]:
    """The open licences by their identifier in lower case."""
    rows = Path(__file__).with_name("licences.tsv").read_text(encoding="utf-8").splitlines()[1:]
    found = {}
    for row in rows:
        name, osi, free, open_data, kinds = row.split("\t")
        found[name.lower()] = Licence(name, osi == "1", free == "1", open_data == "1", tuple(kinds.split(",")) if kinds else ())
    return found


def find(name: str) -> Licence:
    """The licence of a name as SPDX or the Hub writes it; one that is not in the table is not open."""
    plain = name.strip().lower().replace(" ", "-")
    known = table()
    for word in (plain, {"pddl": "pddl-1.0", "odc-by": "odc-by-1.0", "odbl": "odbl-1.0", "bsd": "bsd-3-clause"}.get(plain, "")):
        for one in (word, f"{word}-only"):
            if one in known:
                return known[one]
    parts = set(re.split(r"[^a-z]+", plain))
    why = next((what for part, what in _RESTRICTED.items() if part in parts or (len(part) > 3 and part in plain)), "")
    return Licence(name.strip(), restriction=why)


def recognise(text: str) -> Licence | None:
    """The licence whose text this is; None when it is not known by sight."""
    head = text[:200_000]
    name = next((name for name, pattern in _TEXTS if re.search(pattern, head, re.IGNORECASE if name == "rail" else 0)), None)
    return find(name) if name else None
