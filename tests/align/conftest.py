"""A small real tokenizer, trained on a page of Python and prose."""

from __future__ import annotations

import inspect
import textwrap

import pytest

from openhearth.data.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([inspect.getsource(textwrap)], 512)
