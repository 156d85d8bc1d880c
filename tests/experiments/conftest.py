"""Runs whose loss is known in closed form, as they would be read from ledgers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.experiments.runs import Floats, Text, Trained

BYTES = np.array([900.0, 1500.0, 700.0, 2000.0, 1100.0, 1300.0, 800.0, 1700.0])
"""Of the documents that are held out."""
HARDNESS = np.array([0.9, 1.1, 1.3, 0.8, 1.0, 1.2, 0.95, 0.9])
"""Of each document, as a factor on bits per byte."""


@pytest.fixture
def trained() -> Callable[..., Trained]:
    """Gives a run: `law` is its bits per byte after so many tokens, of training text and of held-out text alike."""

    def make(name: str, law: Callable[[Floats], Floats], tokens: float = 1e6, steps: int = 500, **changes: Any) -> Trained:
        seen = np.linspace(tokens / steps, tokens, steps)
        bits = law(seen)
        end = float(law(np.array([tokens]))[0]) * changes.pop("luck", 1.0)
        level = HARDNESS / ((BYTES * HARDNESS).sum() / BYTES.sum())
        values: dict[str, Any] = {
            "folder": Path(name),
            "seed": 1,
            "tokens": seen,
            "loss": bits * np.log(2) * 3.5,
            "times": seen / 20_000,
            "flops": 6e6 * tokens,
            "bytes_per_token": 3.5,
            "bits_per_byte": end,
            "interval": None,
            "text": Text(end * level * BYTES * np.log(2), BYTES, "document"),
            "heldout": ("corpus", int(BYTES.sum()), 1),
            "corpus": "corpus",
            "tokenizer": "tokenizer",
            "code": "code",
            "machine": "a machine",
        }
        return Trained(**{**values, **changes})

    return make
