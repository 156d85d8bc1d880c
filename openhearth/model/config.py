"""The shape of a model: the fields of a Hugging Face `config.json` for the Qwen3 layout, and what the shape costs.

Cost accounting lives here, on the shape, so that the planner, the trainer and the ledger count alike and without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from openhearth.errors import DamagedError
from openhearth.ledger import read_json

CONFIG = "config.json"

LOGITS_CHUNK = 1024
"""Rows of fp32 logits that are alive at any moment in training."""


class ModelConfig(BaseModel):
    """A decoder in the exact Qwen3 layout: pre-RMSNorm, per-head QK-norm, RoPE, SwiGLU, no biases, grouped queries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(gt=0, le=10_000_000)
    hidden_size: int = Field(gt=0, le=1_000_000)
    intermediate_size: int = Field(gt=0, le=10_000_000)
    num_layers: int = Field(gt=0, le=10_000)
    num_heads: int = Field(gt=0, le=10_000)
    num_kv_heads: int = Field(gt=0, le=10_000)
    head_dim: int = Field(gt=0, le=10_000, multiple_of=2)
    max_position_embeddings: int = Field(gt=0)
    rope_theta: float = Field(default=10_000.0, gt=0)
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    tie_word_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)
    bos_token_id: int = 0
    eos_token_id: int = 0

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must be a multiple of num_kv_heads ({self.num_kv_heads})")
        return self

    # -- cost ---------------------------------------------------------------------------------------------------------------

    @property
    def matmul_parameters(self) -> int:
        """Parameters that take part in matrix products for every token: all matrices and the head, without the input embedding."""
        queries = self.num_heads * self.head_dim
        keys = self.num_kv_heads * self.head_dim
        layer = self.hidden_size * (2 * queries + 2 * keys) + 3 * self.hidden_size * self.intermediate_size
        return self.num_layers * layer + self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All parameters, the embedding once when it is tied to the head."""
        norms = self.num_layers * (2 * self.hidden_size + 2 * self.head_dim) + self.hidden_size
        embedding = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.matmul_parameters + norms + embedding

    def flops_per_token(self, sequence_length: int) -> int:
        """Training FLOPs per token, forward and backward: 6 x matmul parameters + 12 x layers x heads x head_dim x sequence.

        The convention of PaLM (Chowdhery et al. 2022, appendix B) with full, not causal, attention.
        """
        return 6 * self.matmul_parameters + 12 * self.num_layers * self.num_heads * self.head_dim * sequence_length

    # -- Hugging Face -------------------------------------------------------------------------------------------------------

    def to_hf(self) -> dict[str, Any]:
        """The content of `config.json` for `Qwen3ForCausalLM`."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": "qwen3",
            "num_attention_heads": self.num_heads,
            "num_hidden_layers": self.num_layers,
            "num_key_value_heads": self.num_kv_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab_size,
        }

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> ModelConfig:
        """The shape from a `config.json` of the Qwen3 layout; raises ValueError naming the field that cannot be followed."""
        if config.get("model_type") != "qwen3":
            raise ValueError(f"model_type is {config.get('model_type')!r}, only 'qwen3' is known")
        for field in ("auto_map", "quantization_config"):
            if field in config:
                raise ValueError(f"{field} is not followed")
        try:
            rope = config.get("rope_parameters") or {}
            return cls(
                vocab_size=config["vocab_size"],
                hidden_size=config["hidden_size"],
                intermediate_size=config["intermediate_size"],
                num_layers=config["num_hidden_layers"],
                num_heads=config["num_attention_heads"],
                num_kv_heads=config["num_key_value_heads"],
                head_dim=config["head_dim"],
                max_position_embeddings=config["max_position_embeddings"],
                rope_theta=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
                rms_norm_eps=config["rms_norm_eps"],
                tie_word_embeddings=config["tie_word_embeddings"],
                initializer_range=config.get("initializer_range", 0.02),
                bos_token_id=config["bos_token_id"],
                eos_token_id=config["eos_token_id"] if isinstance(config["eos_token_id"], int) else config["eos_token_id"][0],
            )
        except KeyError as missing:
            raise ValueError(f"field {missing} is missing") from None


def load_config(folder: Path) -> ModelConfig:
    """The shape in `folder/config.json`; raises DamagedError naming the file and the field."""
    path = folder / CONFIG
    content = read_json(path)
    try:
        return ModelConfig.from_hf(content)
    except (ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise DamagedError(f"{path}: not the shape of a model made here ({reason})") from None
