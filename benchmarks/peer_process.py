"""Child processes on one clock: another program runs as it ships, and its own lines of output say when each training step was done.

Nothing is measured inside the other program. The clock starts when its process starts, so imports, compilation and the loading of
data are inside; the time of a step is the time at which its line arrived.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from openhearth.errors import HearthError

FEWEST_STEPS = 4
"""Steps that a calibration sees at least; the first two are still settling and only the later ones are timed."""


@dataclass(frozen=True)
class Child:
    """How the processes of one program are started: its folder, its environment, where their output is kept."""

    folder: Path
    environment: Mapping[str, str]
    logs: Path

    def run(
        self,
        name: str,
        command: Sequence[str],
        step: re.Pattern[str] | None = None,
        enough: Callable[[Sequence[float]], bool] = lambda marks: False,
    ) -> list[float]:
        """Run `command` to its end, or until `enough(marks)`. Returns the marks: seconds from its start to each line that matches `step`.

        Its output goes to `logs/NAME.log`. Raises HearthError with its last line when it fails.
        """
        marks: list[float] = []
        last, stopped = "", False
        path = self.logs / f"{name}.log"
        with path.open("w", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            started = time.monotonic()
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # so that the workers it starts can be ended with it
            )
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    now = time.monotonic() - started
                    log.write(line)
                    last = line.strip() or last
                    if step is not None and step.match(line):
                        marks.append(now)
                        if stopped := enough(marks):
                            break
                status = 0 if stopped else child.wait()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.stdout.close()
                child.wait()
        if status:
            raise HearthError(f"{name} ended with status {status}: {last[:200] or 'no output'} (its output is in {path})")
        return marks


@dataclass(frozen=True)
class Pace:
    """What a program needs on this machine: seconds to the end of its first step, and seconds for each step after it."""

    first: float
    step: float

    def steps_in(self, seconds: float) -> int:
        """The fewest steps that take at least `seconds`, never none."""
        left = max(0.0, seconds - self.first)
        return 1 + int(-(-left // self.step))


def calibrate(child: Child, name: str, command: Sequence[str], step: re.Pattern[str], span: float, warm: bool) -> Pace:
    """Run `command` for about `span` seconds after its first step and stop it. With `warm`, it is first run up to one step, which
    fills the compiler's cache, so that what is measured finds it filled.
    """
    if warm:
        child.run(f"{name}-warm", command, step, lambda marks: len(marks) >= 1)
    marks = child.run(f"{name}-calibrate", command, step, lambda marks: len(marks) >= FEWEST_STEPS and marks[-1] - marks[0] >= span)
    if len(marks) < FEWEST_STEPS:
        raise HearthError(f"{name} ended after {len(marks)} steps while it was calibrated; see {child.logs / f'{name}-calibrate.log'}")
    return Pace(first=marks[0], step=(marks[-1] - marks[1]) / (len(marks) - 2))
