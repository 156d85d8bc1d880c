"""docs/plan/laws.md says what the commands print and what the code holds."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from openhearth.plan.rates import RULES
from openhearth.plan.scaling_laws import LAWS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/plan/laws.md"


def transcripts() -> Any:
    spec = importlib.util.spec_from_file_location("transcripts", ROOT / "scripts/transcripts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_transcripts_are_what_the_commands_print() -> None:
    page = PAGE.read_text()
    assert page.count("$ hearth plan ") == 4
    assert transcripts().filled(page) == page, "run: python scripts/transcripts.py docs/plan/laws.md"


def test_it_names_every_law_and_rule() -> None:
    page = PAGE.read_text()
    for name in LAWS:
        assert f"`{name}`" in page
    assert len(re.findall(r"^\| (?:critical, )?(?:StepLaw|DeepSeek LLM 2024|Porian|Power Lines|Zhang|Kaplan)", page, re.MULTILINE)) == len(
        RULES
    )
