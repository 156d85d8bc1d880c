"""[published] of a recipe: what the authors state about the model it is named after, and the proportions that a miniature keeps.

Facts only, each with its place in the source as a comment beside it. What the authors do not state is left out, so None means
"not published"; `parameters` is counted from the released configuration and agrees with `stated` to the digits printed there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from openhearth.plan.shapes import Shape


@dataclass(frozen=True)
class Proportions:
    """What makes a family recognisable at any size."""

    width_per_layer: float  # hidden_size / num_layers
    intermediate_ratio: float  # width of the feed-forward that a token meets / hidden_size
    gated: bool  # three matrices in the feed-forward, not two
    head_dim: int
    query_ratio: float  # num_heads x head_dim / hidden_size
    heads_per_kv_head: int
    tied: bool
    experts: int  # 0 when dense
    experts_per_token: int
    tokens_per_parameter: float | None  # active parameters, where the tokens are published


class Published(BaseModel):
    """The table [published]."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # docstrings as descriptions would take 40 ms to read

    source: str = Field(min_length=1)
    """Authors, year, arXiv number, and the tables that the facts are from."""
    stated: str | None = None
    """The size as the source prints it: "65.2B"."""
    parameters: int | None = Field(default=None, gt=0)
    """All parameters, counted from the released configuration."""
    active_parameters: int | None = Field(default=None, gt=0)
    """Those that a token meets, of a mixture of experts."""
    tokens: float | None = Field(default=None, gt=0)
    """Tokens trained on, repetitions included."""
    unique_tokens: float | None = Field(default=None, gt=0)
    """Different tokens, where they are fewer."""
    sequence_length: int | None = Field(default=None, gt=0)
    """Tokens of a training sequence, in the main phase."""
    batch_tokens: float | None = Field(default=None, gt=0)
    """Tokens of a batch; the last size where it grew."""
    learning_rate: float | None = Field(default=None, gt=0)
    """The peak."""
    warmup: str | None = None
    """How the learning rate rises."""
    schedule: str | None = None
    """How the learning rate falls."""
    optimizer: str | None = None
    """Its name and settings."""
    flops: float | None = Field(default=None, gt=0)
    """Training FLOPs as stated."""
    hardware: str | None = None
    """The device, with the number in front where it is stated: "2048xa100-80", "h100-sxm"."""
    chip_hours: float | None = Field(default=None, gt=0)
    """Hours of all devices together."""
    energy_mwh: float | None = Field(default=None, gt=0)
    """Energy as stated, in MWh."""
    carbon_tonnes: float | None = Field(default=None, gt=0)
    """Emissions as stated, in tonnes of CO2 equivalent."""
    model: dict[str, Any]
    """The keys of its config.json."""

    def shape(self) -> Shape:
        """The model's shape; raises HearthError naming the key of [published.model] that cannot be followed."""
        from openhearth.plan.shapes import Shape

        return Shape.from_hf(self.model, "[published.model]")

    def proportions(self) -> Proportions:
        """The ratios that a miniature keeps."""
        shape = self.shape()
        experts = shape.experts
        met = experts.per_token * experts.intermediate_size + experts.shared_intermediate_size if experts else shape.intermediate_size
        return Proportions(
            width_per_layer=shape.hidden_size / shape.num_layers,
            intermediate_ratio=met / shape.hidden_size,
            gated=shape.gated,
            head_dim=shape.head_dim,
            query_ratio=shape.num_heads * shape.head_dim / shape.hidden_size,
            heads_per_kv_head=shape.num_heads // shape.num_kv_heads,
            tied=shape.tie_word_embeddings,
            experts=experts.count if experts else 0,
            experts_per_token=experts.per_token if experts else 0,
            tokens_per_parameter=None if self.tokens is None else self.tokens / shape.active_parameters,
        )
