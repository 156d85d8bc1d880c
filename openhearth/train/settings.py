"""What fixes a training run besides its data and its first weights. No torch here: the plan writes it, the ledger records it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from openhearth.train.schedule import Schedule

OptimizerName = Literal["muon", "adamw"]

GROUPS = ("matrix", "embedding", "head", "gain")
"""Of parameters, each with a learning rate of its own."""

LONGEST_SEQUENCE, LARGEST_BATCH = 65_536, 2**26
"""Tokens of context, and tokens per update, beyond which no machine of this kind trains."""

MOST_STEPS = 10**9
"""More updates than the shortest ones that fit into the longest run."""

MOST_HELDOUT_BYTES, MOST_PROMPTS, MOST_NEW_TOKENS = 10**9, 100_000, LONGEST_SEQUENCE
"""Of an evaluation: a thousand times what intervals need."""


class Guard(BaseModel):
    """When an optimiser step is bad, and what is done about it. A bad step changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    spike: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    """Robust standard deviations above the usual at which loss or gradient norm is bad; 0: only when it is not finite."""
    window: int = Field(default=128, ge=16, le=100_000)
    """Good steps whose median and median absolute deviation are the usual."""
    patience: int = Field(default=4, ge=1, le=MOST_STEPS)
    """Bad steps in a row after which training goes back to the last checkpoint and on with the data after these steps."""
    rewinds: int = Field(default=3, ge=0, le=1000)
    """How often training goes back before it stops."""
    recompute: int = Field(default=128, ge=0, le=MOST_STEPS)
    """One step in so many is computed twice and compared bit for bit, so that a processor that errs is found; 0: none."""


class Settings(BaseModel):
    """What fixes a training run besides its data and its first weights. Written by the plan, recorded, followed by a rebuild."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    sequence_length: int = Field(gt=0, le=LONGEST_SEQUENCE)
    """Tokens of context per sequence."""
    batch_tokens: int = Field(gt=0, le=LARGEST_BATCH)
    """Tokens per optimiser step."""
    micro_batch_tokens: int = Field(gt=0, le=LARGEST_BATCH)
    """Tokens per forward and backward pass; bounds the memory."""
    steps: int = Field(gt=0, le=MOST_STEPS)
    """Optimiser steps."""
    learning_rate: dict[str, Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]]
    """Peak learning rate by optimiser group: matrix, embedding, head, gain."""
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    """What products are computed in; master weights are always fp32."""
    compile: bool = False
    """Whether blocks run through torch.compile."""
    threads: int = Field(default=1, gt=0, le=4096)
    """Processor threads; a different number may give different bits."""
    checkpoint_steps: int = Field(default=100, gt=0, le=MOST_STEPS)
    """Optimiser steps between checkpoints."""
    permanent_steps: int = Field(default=0, ge=0, le=MOST_STEPS)
    """Optimiser steps between checkpoints that are kept for good; 0: none is."""
    guard: Guard = Guard()
    """When a step is skipped, and what follows."""
    optimizer: OptimizerName = "muon"
    """'muon' (matrices by Muon, the rest by AdamW) or 'adamw' (all by AdamW)."""
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Decoupled weight decay of the matrices."""
    max_grad_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False, exclude_if=lambda value: value is None)
    """The L2 norm that a gradient is scaled down to where it is longer; left alone when left out."""
    schedule: Schedule = Schedule()
    """Learning rate and momentum over the run."""

    @field_validator("learning_rate")
    @classmethod
    def _every_group(cls, rates: dict[str, float]) -> dict[str, float]:
        if set(rates) != set(GROUPS):
            raise ValueError(f"must have the groups {', '.join(GROUPS)}, not {', '.join(rates) or 'none'}")
        return rates

    @property
    def tokens(self) -> int:
        """Tokens seen over the whole run."""
        return self.steps * self.batch_tokens
