"""Ctrl-C, SIGTERM and SIGHUP while training: finish the step, keep it, then stop.

The first signal is only noted. Once the state is saved it is delivered to whoever handled it before, so that the exit status and the line
that is printed are theirs. A second signal is delivered at once.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from openhearth.errors import HearthError


class CannotGoOn(HearthError):
    """A step that cannot be taken for a reason outside of training, such as a reward that fails: the steps before it are kept."""


STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignals:
    """A context in which a signal to stop is kept in `received` (None: there was none). Does nothing outside of the main thread."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # whoever started this with `nohup` wants it so
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def deliver(self) -> None:
        """Hand the signal that was received to whoever handled it before: usually this raises, or ends the process."""
        self._restore()
        if self.received is not None:
            signal.raise_signal(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.received = self.received is None, number
        if not first:
            self.deliver()

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
