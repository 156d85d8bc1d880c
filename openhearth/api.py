"""The public functions besides `run`: small, taking folders as text or paths."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openhearth.release.verify import Report
    from openhearth.serve.loading import Opened


def load(folder: Path | str) -> Opened:
    """The model and the tokenizer of a release, or of the newest release of a run. Raises HearthError naming what is wrong."""
    from openhearth.serve.loading import open_release

    return open_release(Path(folder))


def verify(folder: Path | str) -> Report:
    """Check a release: every file listed and unchanged, nothing unlisted, weights finite, shapes as configured."""
    from openhearth.release.verify import verify as check

    return check(Path(folder))
