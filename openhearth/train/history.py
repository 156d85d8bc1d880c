"""What a run has seen so far, step by step: beside the flat buffers, all that a checkpoint must hold.

Everything that is decided about a step follows from here, so that a run that was killed decides as one that was not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from openhearth.ledger import Json


@dataclass
class History:
    """One entry per step in every list of figures; `None` stands for a figure that was not finite (JSON has no NaN)."""

    losses: list[float | None] = field(default_factory=list)
    """Nats per counted token, before the update."""
    gradient_norms: list[float | None] = field(default_factory=list)
    """L2 norm of the gradient of all parameters."""
    seconds: list[float] = field(default_factory=list)
    """How long each step took."""
    skipped: list[int] = field(default_factory=list)
    """The steps (from 0) that changed nothing."""
    traces: list[Json] = field(default_factory=list)
    """Now and then, the digest of every tensor."""
    events: list[Json] = field(default_factory=list)
    """Steps skipped and rewinds, also those that a later rewind took back. Depends on weights and data alone."""
    faults: list[Json] = field(default_factory=list)
    """Results that were computed wrongly by this machine, and put right: they leave no trace in weights or data."""

    @property
    def steps(self) -> int:
        """Steps taken, skipped ones included: the number of the next one."""
        return len(self.losses)

    @property
    def updates(self) -> int:
        """Steps that changed the weights."""
        return self.steps - len(self.skipped)

    @property
    def rewinds(self) -> list[Json]:
        """The rewinds among the events."""
        return [event for event in self.events if event["event"] == "rewind"]

    @property
    def next_batch(self) -> int:
        """Number of the batch of the next step: its own, moved on by the batches that rewinds passed over."""
        return self.steps + sum(int(event["batches"]) for event in self.rewinds)

    @property
    def bad_in_a_row(self) -> int:
        """How many of the last steps were skipped, without a good one between."""
        count = 0
        while count < len(self.skipped) and self.skipped[-1 - count] == self.steps - 1 - count:
            count += 1
        return count

    def add(self, loss: float, norm: float, seconds: float, reason: str | None) -> None:
        """Write down a step; one that was skipped has a `reason`."""
        if reason is not None:
            self.events.append({"event": "skip", "step": self.steps + 1, "batch": self.next_batch, "reason": reason})
            self.skipped.append(self.steps)
        self.losses.append(loss if math.isfinite(loss) else None)
        self.gradient_norms.append(norm if math.isfinite(norm) else None)
        self.seconds.append(seconds)

    def rewind(self, step: int) -> None:
        """Go back to the state after `step` steps, and pass over the batches that were read since."""
        self.events.append({"event": "rewind", "step": self.steps, "to": step, "batches": self.steps - step})
        for figures in (self.losses, self.gradient_norms, self.seconds):
            del figures[step:]
        self.skipped = [number for number in self.skipped if number < step]
        self.traces = [trace for trace in self.traces if trace["step"] <= step]

    def good(self, figures: list[float | None], count: int) -> list[float]:
        """The last `count` of `figures` from steps that were not skipped, newest first."""
        found: list[float] = []
        last = len(self.skipped) - 1
        for step in range(self.steps - 1, -1, -1):
            if len(found) == count:
                break
            if last >= 0 and self.skipped[last] == step:
                last -= 1
            elif (value := figures[step]) is not None:
                found.append(value)
        return found

    def copy(self) -> Json:
        """As JSON values that later steps do not change."""
        return {name: list(value) for name, value in vars(self).items()}
