"""Errors that a user can mend: one line, exit status 2, no traceback. Anything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HearthError(Exception):
    """What is wrong, where, and what to do, in one line. The command line prints it and exits with status 2."""

    exit_status = 2


class RecipeError(HearthError):
    """A recipe, a `--set` value or a budget that cannot be understood; names the file, the line and the key."""


class DamagedError(HearthError):
    """Bytes that are not the bytes that were written: names the file and says what was expected."""


class DiskFullError(HearthError):
    """Not enough room on the disk; names the folder and the bytes needed. What was made before stays intact."""


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """' (did you mean X?)' for the nearest of `known`, or '' when nothing is near; `cutoff` is the share of letters in common."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (did you mean '{close[0]}'?)" if close else ""
