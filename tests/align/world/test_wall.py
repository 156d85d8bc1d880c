"""The truth about harm stays on its side: no code that trains, samples or judges can reach it, directly or through others."""

from __future__ import annotations

from pathlib import Path

import pytest

import openhearth
from openhearth.code_digest import sources

TRUTH = {"openhearth.align.world.gold", "openhearth.align.world.house", "openhearth.align.world.demonstrations"}
"""Who knows the laws, and which of them a pair breaks."""

MAY_KNOW = {
    "openhearth.align.world.stage",  # generates the world; its files hold no label of ALIGN or TEST
    "openhearth.align.world.controls",  # trains the gold bound, which is no part of the chain
    "openhearth.align.world.verdict",  # grades
    "openhearth.align.world.page",  # prints grades
    "openhearth.align.world.study",
    *TRUTH,
}

CHAIN = (
    "foundation",
    "constitutional",
    "revise",
    "preferences",
    "supervised",
    "judge",
    "judge_checkpoint",
    "judge_endpoint",
    "judge_hf",
    "losses",
)


def modules() -> list[str]:
    """Every module of the package."""
    root = Path(openhearth.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.parametrize("name", CHAIN)
def test_what_trains_or_judges_cannot_reach_the_truth(name: str) -> None:
    assert TRUTH & set(sources(f"openhearth.align.{name}")) == set()


def test_only_who_is_named_here_imports_the_truth() -> None:
    knowing = {name for name in modules() if name not in MAY_KNOW and TRUTH & set(sources(name))}
    outside = {name for name in knowing if not name.startswith("openhearth.align.world")}
    reaching = {name for name in outside if not {"openhearth.recipe", "openhearth.cli"} & set(sources(name))}
    assert reaching == set()


def test_the_wall_sees_imports_inside_functions() -> None:
    assert "openhearth.align.world.house" in sources("openhearth.align.world.stage")
    assert TRUTH & set(sources("openhearth.align.world.verdict"))
