"""The way in: `hearth`, and `python -m openhearth`. It imports little, so that Ctrl-C is met from the first moment, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line. Exit status 130 on Ctrl-C, also while the commands are still being imported."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not when whoever started this has Ctrl-C ignored
        signal.signal(signal.SIGINT, _leave)
    from openhearth.cli import main as hearth

    try:
        signal.signal(signal.SIGINT, before)
        hearth()
    except KeyboardInterrupt:
        sys.exit(130)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(130)


if __name__ == "__main__":
    main()
