"""Every document has a licence with its evidence, policies decide what enters, and a notice names what asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openhearth.data import buckets, licences
from openhearth.data.settings import Licences

from .conftest import Write, jsonl
from .test_build import built, dropped, page

CODE = "\n".join(f"def function_{n}(value):\n    return value * {n}\n" for n in range(20))


def mixed(write: Write) -> Path:
    """A tree of several licences: what is stated nearest decides."""
    write("LICENSE", "Attribution 4.0 International\n\nCreative Commons ...")
    write("one.md", page(1))
    write("gpl/COPYING", "GNU GENERAL PUBLIC LICENSE\n   Version 3, 29 June 2007")
    write("gpl/two.md", page(2))
    write("gpl/tool.py", "# SPDX-License-Identifier: MIT OR Apache-2.0\n" + CODE)
    write("nc/LICENSE.txt", "Attribution-NonCommercial 4.0 International")
    write("nc/three.md", page(3))
    return write("rows.jsonl", jsonl({"text": page(4), "license": "CC-BY-SA-4.0"}, {"text": page(5), "license": "ask me"})).parent


def test_the_nearest_statement_decides_and_is_kept_as_evidence(tmp_path: Path, write: Write) -> None:
    built(mixed(write), tmp_path / "out")
    found = {row["uri"]: (row["licence"], row["evidence"], row["licence_rule"]) for row in buckets.documents(tmp_path / "out")}
    assert found == {
        "one.md": ("CC-BY-4.0", "LICENSE", "file"),
        "gpl/two.md": ("GPL-3.0", "gpl/COPYING", "file"),
        "gpl/tool.py": ("MIT OR Apache-2.0", "SPDX-License-Identifier: MIT OR Apache-2.0", "header"),
        "rows.jsonl:1": ("CC-BY-SA-4.0", "field: CC-BY-SA-4.0", "field"),
        "rows.jsonl:2": ("unknown", "field: ask me", "field"),
    }
    gone = dropped(tmp_path / "out")
    assert gone["nc/three.md"] == ("licences", "non_commercial")


def test_a_policy_keeps_apart_or_refuses_and_the_report_tells_of_drift(tmp_path: Path, write: Write) -> None:
    sets = ("licences.share_alike=apart", "licences.copyleft=refuse", "licences.unknown=refuse")
    report = built(mixed(write), tmp_path / "out", sets=sets).report
    assert {row["uri"]: row["set"] for row in buckets.documents(tmp_path / "out")} == {
        "one.md": "mix",
        "gpl/tool.py": "mix",
        "rows.jsonl:1": "apart",
    }
    assert report["dropped"]["licences.copyleft"] == 1 and report["dropped"]["licences.unknown"] == 1
    assert report["drift"] == ["the source: 1 CC-BY-4.0, 1 CC-BY-SA-4.0, 1 MIT OR Apache-2.0"]
    notice = (tmp_path / "out/NOTICE").read_text()
    assert "CC-BY-4.0 (its authors must be named): 1 documents" in notice and "one.md: 1 documents" in notice and "GPL" not in notice


def test_an_allow_list_lets_in_what_is_on_it(tmp_path: Path, write: Write) -> None:
    built(mixed(write), tmp_path / "out", sets=('licences.allow=["CC-BY-4.0"]',))
    assert {row["licence"] for row in buckets.documents(tmp_path / "out")} == {"CC-BY-4.0", "unknown"}


@pytest.mark.parametrize(("statement", "spdx"), [
    ("MIT", "MIT"), ("apache-2.0", "Apache-2.0"), ("cc by-nc 4.0", "CC-BY-NC-4.0"),
    ("https://creativecommons.org/licenses/by-sa/3.0/de/", "CC-BY-SA-3.0"),
    ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
    ("GPL-3.0-or-later", "GPL-3.0-or-later"), ("all rights reserved", None), ("", None),
])  # fmt: skip
def test_statements_become_identifiers_or_nothing(statement: str, spdx: str | None) -> None:
    assert licences.spdx_of(statement) == spdx


@pytest.mark.parametrize(("spdx", "asks"), [
    ("MIT OR GPL-3.0", "attribution"), ("MIT AND GPL-3.0-only", "copyleft"),
    ("CC-BY-NC-SA-4.0", "non-commercial"), ("CC-BY-ND-2.0", "no-derivatives"),
    ("CC-BY-SA-3.0", "share-alike"), ("GPL-2.0-only WITH Classpath-exception-2.0", "copyleft"),
    ("CC0-1.0", "public"), ("Nonsense-1.0", "unknown"),
])  # fmt: skip
def test_what_a_licence_asks(spdx: str, asks: str) -> None:
    assert licences.class_of(spdx) == asks
    treated = licences.treatment(spdx, Licences(copyleft="apart"))
    assert treated == {"copyleft": "apart", "non-commercial": "refuse", "no-derivatives": "refuse"}.get(asks, "mix")


def test_licence_texts_of_this_machine_are_recognised() -> None:
    for name, spdx in (
        ("GPL-3", "GPL-3.0"),
        ("GPL-2", "GPL-2.0"),
        ("LGPL-2.1", "LGPL-2.1"),
        ("Apache-2.0", "Apache-2.0"),
        ("MPL-2.0", "MPL-2.0"),
    ):
        file = Path("/usr/share/common-licenses") / name
        if file.is_file():
            assert licences.of_text(file.read_text(errors="replace")) == spdx
