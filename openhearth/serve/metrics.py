"""What the server counts, in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Counter:
    """A number that only grows, for each value of one label (or without one)."""

    def __init__(self, name: str, text: str, label: str = "") -> None:
        self.name, self.text, self.label = name, text, label
        self._lock = threading.Lock()
        self._values: dict[str, int] = {} if label else {"": 0}

    def add(self, amount: int, value: str = "") -> None:
        """Count `amount` more. `value` must be one of few and known words: it becomes part of a name."""
        with self._lock:
            self._values[value] = self._values.get(value, 0) + amount

    def lines(self) -> list[str]:
        """In the text format."""
        with self._lock:
            values = sorted(self._values.items())
        shown = [f"{self.name}{{{self.label}={value!r}}} {count}".replace("'", '"') if self.label else f"{self.name} {count}"
                 for value, count in values]  # fmt: skip
        return [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} counter", *shown]


class Histogram:
    """How often a time in seconds was at most so long."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self._lock = threading.Lock()
        self._buckets = [0] * len(SECONDS)
        self._count, self._sum = 0, 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        with self._lock:
            self._count, self._sum = self._count + 1, self._sum + seconds
            for number, bound in enumerate(SECONDS):
                self._buckets[number] += seconds <= bound

    def lines(self) -> list[str]:
        """In the text format."""
        with self._lock:
            buckets = [f'{self.name}_bucket{{le="{bound}"}} {count}' for bound, count in zip(SECONDS, self._buckets, strict=True)]
            totals = [
                f'{self.name}_bucket{{le="+Inf"}} {self._count}',
                f"{self.name}_sum {self._sum:.6f}",
                f"{self.name}_count {self._count}",
            ]
        return [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} histogram", *buckets, *totals]


class Metrics:
    """Everything that is counted."""

    def __init__(self) -> None:
        self.requests = Counter("hearth_requests_total", "HTTP requests by status.", "status")
        self.prompt_tokens = Counter("hearth_prompt_tokens_total", "Tokens of prompts that were read.")
        self.answer_tokens = Counter("hearth_answer_tokens_total", "Tokens that were generated.")
        self.answers = Counter("hearth_answers_total", "Answers by why they ended.", "reason")
        self.first_token = Histogram("hearth_first_token_seconds", "From a request to its first token.")
        self.steps = Histogram("hearth_step_seconds", "Time of a step in which tokens were generated.")

    def step(self, seconds: float, rows: int) -> None:
        """A step of the engine is over."""
        if rows:
            self.steps.observe(seconds)

    def ended(self, reason: str) -> None:
        """An answer is over."""
        self.answers.add(1, reason)

    def text(self, gauges: Mapping[str, int]) -> str:
        """The page for Prometheus; `gauges` are numbers of this moment."""
        series = (self.requests, self.prompt_tokens, self.answer_tokens, self.answers, self.first_token, self.steps)
        lines = [line for one in series for line in one.lines()]
        for name, value in gauges.items():
            lines += [f"# HELP hearth_{name} Answers {name} now." if name != "slots" else "# HELP hearth_slots Answers at once at most.",
                      f"# TYPE hearth_{name} gauge", f"hearth_{name} {value}"]  # fmt: skip
        return "\n".join(lines) + "\n"
