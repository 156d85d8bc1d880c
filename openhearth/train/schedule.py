"""Schedules as fractions of the run, so that one rule serves fifty steps and fifty thousand."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Schedule(BaseModel):
    """Linear warm-up, flat, linear cool-down (trapezoid); momentum of Muon rises over the first part of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    warmup: float = Field(default=0.02, ge=0, le=1)
    """Fraction of the steps over which the learning rate rises from zero."""
    cooldown: float = Field(default=0.6, ge=0, le=1)
    """Fraction of the steps, at the end, over which it falls."""
    final: float = Field(default=0.03, ge=0, le=1)
    """What is left of the learning rate at the last step."""
    momentum_start: float = Field(default=0.85, ge=0, lt=1)
    """Momentum of Muon at the first step."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Momentum of Muon from `momentum_rise` on."""
    momentum_rise: float = Field(default=0.15, ge=0, le=1)
    """Fraction of the steps over which momentum rises."""

    def rate(self, step: int, steps: int) -> float:
        """The factor on every learning rate at `step` (0 ... steps - 1)."""
        done = (step + 0.5) / steps
        rise = min(1.0, done / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (1.0 - done) / self.cooldown) if self.cooldown else 1.0
        return rise * (self.final + (1.0 - self.final) * fall)

    def muon_momentum(self, step: int, steps: int) -> float:
        """Muon's momentum at `step`."""
        done = (step + 0.5) / steps
        part = min(1.0, done / self.momentum_rise) if self.momentum_rise else 1.0
        return self.momentum_start + (self.momentum - self.momentum_start) * part
