"""What fixes a training run besides its data and its first weights. No torch here: the plan writes it, the ledger records it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from openhearth.train.schedule import Schedule

OptimizerName = Literal["muon", "adamw"]


class Settings(BaseModel):
    """What fixes a training run besides its data and its first weights. Written by the plan, recorded, followed by a rebuild."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    sequence_length: int = Field(gt=0)
    """Tokens of context per sequence."""
    batch_tokens: int = Field(gt=0)
    """Tokens per optimiser step."""
    micro_batch_tokens: int = Field(gt=0)
    """Tokens per forward and backward pass; bounds the memory."""
    steps: int = Field(gt=0)
    """Optimiser steps."""
    learning_rate: dict[str, float]
    """Peak learning rate by optimiser group: matrix, embedding, head, gain."""
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16)$")
    """What products are computed in; master weights are always fp32."""
    compile: bool = False
    """Whether blocks run through torch.compile."""
    threads: int = Field(default=1, gt=0)
    """Processor threads; a different number may give different bits."""
    checkpoint_steps: int = Field(default=100, gt=0)
    """Optimiser steps between checkpoints."""
    optimizer: OptimizerName = "muon"
    """'muon' (matrices by Muon, the rest by AdamW) or 'adamw' (all by AdamW)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of the matrices."""
    schedule: Schedule = Schedule()
    """Learning rate and momentum over the run."""

    @property
    def tokens(self) -> int:
        """Tokens seen over the whole run."""
        return self.steps * self.batch_tokens
