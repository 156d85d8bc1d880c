"""How the next token is chosen. Without torch, so that what a person typed is checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from openhearth.errors import HearthError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 leave the distribution whole."""

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise HearthError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not 0.0 <= self.temperature <= 100.0:
            raise HearthError(f"temperature is {self.temperature}; it must lie between 0 (greedy) and 100")
        if self.top_k < 0:
            raise HearthError(f"top_k is {self.top_k}; it must be 0 (off) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise HearthError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
