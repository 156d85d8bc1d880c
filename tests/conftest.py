"""Fixtures for the whole house."""

from __future__ import annotations

from pathlib import Path

import pytest

from openhearth.recipe import Recipe
from openhearth.runner import run
from tests.fakes import RECIPE, TABLE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_run(here: Path) -> Path:
    return run(Recipe.parse(RECIPE, table=TABLE)).folder
