"""The shape of any decoder, and what it costs: parameters to the unit, FLOPs per token under each named convention, bytes of cached keys.

A shape is a list of choices (how many heads share a key, whether the feed-forward is gated, which layers have experts ...); every count
is a sum over those choices, so one formula serves GPT-2, Llama, Mixtral and DeepSeek alike. `families.py` reads the choices from a
Hugging Face `config.json`. `openhearth.model.config.ModelConfig` is the one shape that OpenHearth trains; its counts are these.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small

Numbers = Any
"""An int, a float, or a numpy array of them; what is computed from it is of the same kind (whole where the count is whole)."""

CONVENTIONS = {
    "full": "6 x matmul parameters (head included, input embedding not) + 12 x layers x heads x head_dim x sequence: PaLM, Megatron",
    "causal": "as 'full', and a token attends to half of the sequence on average: MaxText, DeepSeek's reports",
    "6n": "6 x parameters, of a mixture of experts those active per token: the rule of thumb",
    "6n-total": "6 x all parameters; of a mixture of experts far too much, kept to read what others computed",
    "deepseek": "DeepSeek LLM's M: as 'full' without the head: 72 x layers x hidden^2 + 12 x layers x hidden x sequence (eq. 2)",
    "kaplan": "Kaplan et al. 2020, table 1, times 3: as 'causal' without the head",
    "hoffmann": "Hoffmann et al. 2022, appendix F, as its table A4 is computed: as 'deepseek', and the softmax (3 x heads x sequence)",
}
"""The ways in which training FLOPs per token are counted. A figure without its convention is off by up to a fifth."""

MAX_BYTES = 4_000_000


class Latent(BaseModel):
    """Multi-head latent attention: keys and values come from one low-rank vector per token (DeepSeek-V2, section 2.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query_rank: int = Field(ge=0)  # 0: queries come straight from the hidden state
    rank: int = Field(gt=0)  # kv_lora_rank
    nope_dim: int = Field(ge=0)  # of a head's query and key, without position
    rope_dim: int = Field(ge=0)  # with position; the key's is shared by all heads
    value_dim: int = Field(gt=0)


class Experts(BaseModel):
    """A mixture of experts: a router sends each token to `per_token` of `count` feed-forward blocks, and to the shared ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(gt=0)
    per_token: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    shared_intermediate_size: int = Field(default=0, ge=0)  # of all shared experts together
    shared_gate: bool = False  # Qwen2-MoE weighs the shared expert
    router_bias: bool = False
    layers: int = Field(ge=0)  # the layers that have experts; the others are dense


class Shape(BaseModel):
    """A decoder-only transformer as far as counting goes. Sizes are in elements; all counts are exact integers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_type: str
    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)  # of the dense layers
    gated: bool = True  # SwiGLU and its kin: three matrices, not two
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    norm: Literal["rms", "layer", "layer-without-bias", "none"] = "rms"
    norms_per_layer: int = 2
    final_norm: bool = True
    embedding_norm: bool = False
    query_key_norm: Literal["none", "head", "all"] = "none"  # one norm of head_dim that all heads share, or one over all heads
    learned_positions: int = 0  # rows of the position embedding
    relative_positions: bool = False  # Transformer-XL: a matrix and two biases per layer (Gopher, Chinchilla)
    embedding_size: int | None = None  # where it is not hidden_size and is projected (OPT-350M)
    extra_per_layer: int = 0  # parameters that no rule above covers: attention sinks, learned activations
    sliding_window: int | None = None
    sliding_layers: int = 0  # layers that see no further than the window
    latent: Latent | None = None
    experts: Experts | None = None
    max_position_embeddings: int | None = None
    notes: tuple[str, ...] = ()
    """What was assumed or left out when the shape was read, one sentence each."""

    # -- reading ------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], where: str = "config.json") -> Shape:
        """The shape of a Hugging Face `config.json`; raises HearthError naming `where` and the field that is missing or wrong.

        A `model_type` that is not known is read as a decoder of the usual kind if the usual fields are there, and `notes` says so.
        """
        from openhearth.plan.families import read

        return read(config, where)

    @classmethod
    def load(cls, path: Path | str) -> Shape:
        """The shape in a `config.json`, in a folder that has one, or in a recipe's [published.model]."""
        path = Path(path)
        path = path / "config.json" if path.is_dir() and (path / "config.json").is_file() else path
        text = read_small(path, limit=MAX_BYTES, what="model configuration", suffix=path.suffix or ".json")
        if path.suffix == ".toml":
            try:
                published = tomllib.loads(text).get("published")
            except (ValueError, RecursionError) as error:
                raise HearthError(f"{path}: not TOML ({str(error) or 'nested too deeply'})") from None
            if not isinstance(published, dict) or not isinstance(published.get("model"), dict):
                raise HearthError(f"{path}: has no [published.model] with the keys of a config.json")
            return cls.from_hf(published["model"], f"{path}: [published.model]")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HearthError(f"{path}: not JSON ({str(error) or 'nested too deeply'})") from None
        if not isinstance(content, dict):
            raise HearthError(f"{path}: must hold a JSON object with the keys of a config.json")
        return cls.from_hf(content, str(path))

    # -- parameters ---------------------------------------------------------------------------------------------------------

    @cached_property
    def attention_matrices(self) -> int:
        """Elements of the attention matrices of one layer."""
        if self.latent is not None:
            low, heads = self.latent, self.num_heads
            queries = heads * (low.nope_dim + low.rope_dim)
            into = low.query_rank * (self.hidden_size + queries) if low.query_rank else self.hidden_size * queries
            return (
                into
                + self.hidden_size * (low.rank + low.rope_dim)
                + low.rank * heads * (low.nope_dim + low.value_dim)
                + heads * low.value_dim * self.hidden_size
            )
        return self.hidden_size * 2 * (self.num_heads + self.num_kv_heads) * self.head_dim

    def mlp_matrices(self, intermediate_size: int) -> int:
        """Elements of the matrices of one feed-forward block."""
        return (3 if self.gated else 2) * self.hidden_size * intermediate_size

    @cached_property
    def dense_layers(self) -> int:
        """Layers without experts."""
        return self.num_layers - (self.experts.layers if self.experts else 0)

    @cached_property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert in one layer."""
        return self._mlp_parameters(self.experts.intermediate_size) if self.experts else 0

    @cached_property
    def head_matrix(self) -> int:
        """Elements of the matrix from the last hidden state to the logits, tied or not."""
        return self.vocab_size * (self.embedding_size or self.hidden_size)

    @cached_property
    def matmul_parameters(self) -> int:
        """Parameters that multiply every token: matrices, active experts, routers and the head; no input embedding, no biases."""
        return self.num_layers * self.attention_matrices + self._feed_forward_matrices + self.projection_parameters + self.head_matrix

    @cached_property
    def layer_parameters(self) -> int:
        """All parameters of all layers, every expert included."""
        return self.num_layers * (self.attention_parameters + self._small_parameters) + self._feed_forward_parameters

    @cached_property
    def attention_parameters(self) -> int:
        """Parameters of the attention of one layer, without norms."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        if self.latent is not None:
            biases = self.latent.query_rank + self.latent.rank + self.latent.rope_dim
            norms = self._norm(self.latent.query_rank) + self._norm(self.latent.rank)
        else:
            biases = queries + 2 * keys
            norms = {"none": 0, "head": 2 * self._norm(self.head_dim), "all": self._norm(queries) + self._norm(keys)}[self.query_key_norm]
        relative = (self.hidden_size + 2) * queries if self.relative_positions else 0
        return self.attention_matrices + self.qkv_bias * biases + self.output_bias * self.hidden_size + norms + relative

    @cached_property
    def embedding_parameters(self) -> int:
        """Token embedding, learned positions, and the head's matrix where it is not tied."""
        width = self.embedding_size or self.hidden_size
        return self.vocab_size * width * (1 if self.tie_word_embeddings else 2) + self.learned_positions * self.hidden_size

    @cached_property
    def parameters(self) -> int:
        """All parameters, the embedding once where it is tied to the head: what `model.num_parameters()` gives in transformers."""
        ends = self.embedding_parameters + self.projection_parameters + self.head_bias * self.vocab_size
        return self.layer_parameters + ends + (self.final_norm + self.embedding_norm) * self._norm(self.hidden_size)

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that a token meets: all but the routed experts it is not sent to."""
        if self.experts is None:
            return self.parameters
        idle = self.experts.count - min(self.experts.per_token, self.experts.count)
        return self.parameters - self.experts.layers * idle * self.expert_parameters

    @cached_property
    def non_embedding_parameters(self) -> int:
        """Kaplan's and Pythia's N: without token embedding, positions and head."""
        return self.parameters - self.embedding_parameters

    # -- FLOPs --------------------------------------------------------------------------------------------------------------

    def flops_per_token(self, sequence_length: Numbers, convention: str = "full") -> Numbers:
        """Training FLOPs per token, forward and backward (a multiply and an add are two), under a convention of `CONVENTIONS`.

        `sequence_length` may be an array. Layers with a sliding window count the window where it is shorter. Raises HearthError for
        a convention that is not known. 'causal' halves the attention: a window w in a sequence s then costs w - w^2 / 2s.
        """
        layers = 6 * (self.matmul_parameters - self.head_matrix)
        head = 6 * self.head_matrix
        if convention == "full":
            return layers + head + self.attention_flops_per_token(sequence_length)
        if convention == "causal":
            return layers + head + self.attention_flops_per_token(sequence_length, causal=True)
        if convention == "6n":
            return 6 * self.active_parameters + 0 * sequence_length
        if convention == "6n-total":
            return 6 * self.parameters + 0 * sequence_length
        if convention == "deepseek":
            return layers + self.attention_flops_per_token(sequence_length)
        if convention == "kaplan":
            return layers + self.attention_flops_per_token(sequence_length, causal=True)
        if convention == "hoffmann":
            softmax = 9 * self.num_heads * self._keys_seen(sequence_length)
            return layers + self.attention_flops_per_token(sequence_length) + softmax
        raise HearthError(
            f"convention '{convention}' is not known{nearest(convention, CONVENTIONS)}; the conventions are {', '.join(CONVENTIONS)}"
        )

    def attention_flops_per_token(self, sequence_length: Numbers, *, causal: bool = False) -> Numbers:
        """Training FLOPs per token of scores and weighted values: 12 x layers x heads x head_dim x sequence, half of it if causal."""
        dims = self.latent.nope_dim + self.latent.rope_dim + self.latent.value_dim if self.latent else 2 * self.head_dim
        if not causal:
            return 6 * self.num_heads * dims * self._keys_seen(sequence_length)
        full = (self.num_layers - self.sliding_layers) * sequence_length
        if not self.sliding_layers:
            return 3 * self.num_heads * dims * full
        window = self._window(sequence_length)
        return 3 * self.num_heads * dims * (full + self.sliding_layers * (2 * window - window * window / sequence_length))

    def forward_flops_per_token(self, sequence_length: Numbers, convention: str = "full") -> Numbers:
        """FLOPs per token of reading or generating: a third of training's."""
        flops = self.flops_per_token(sequence_length, convention)
        return flops // 3 if isinstance(flops, int) else flops / 3

    def executed_flops_per_token(self, sequence_length: Numbers, recompute: str = "none", convention: str = "full") -> Numbers:
        """What the processor runs when activations are computed again in the backward pass: the layers' forward once more for 'full',
        their attention for 'selective' (Korthikanti et al. 2022, appendix), every second matrix product for 'operations' (torchtitan).
        Utilisation (MFU) is counted without what is computed again, HFU with it.
        """
        flops = self.flops_per_token(sequence_length, convention)
        attention = self.attention_flops_per_token(sequence_length, causal=convention in ("causal", "kaplan"))
        attention = attention // 3 if isinstance(attention, int) else attention / 3
        again = {
            "none": 0,
            "selective": attention,
            "operations": self.num_layers * self.attention_matrices + 2 * self._feed_forward_matrices // (3 if self.gated else 2),
            "full": attention + 2 * (self.matmul_parameters - self.head_matrix),
        }
        if recompute not in again:
            raise HearthError(f"recompute '{recompute}' is not known{nearest(recompute, again)}; known are {', '.join(again)}")
        return flops + again[recompute]

    # -- serving ------------------------------------------------------------------------------------------------------------

    def kv_bytes_per_token(self, element_bytes: float = 2) -> float:
        """Bytes of cached keys and values for one more token, in all layers (those with a window stop growing when it is full)."""
        per_layer = self.latent.rank + self.latent.rope_dim if self.latent else 2 * self.num_kv_heads * self.head_dim
        return self.num_layers * per_layer * element_bytes

    def kv_bytes(self, sequence_length: Numbers, element_bytes: float = 2) -> Numbers:
        """Bytes of cached keys and values of one sequence of this length."""
        return self.kv_bytes_per_token(element_bytes) / self.num_layers * self._keys_seen(sequence_length)

    # -- parts --------------------------------------------------------------------------------------------------------------

    def _norm(self, size: int) -> int:
        return size * {"rms": 1, "layer": 2, "layer-without-bias": 1, "none": 0}[self.norm]

    def _mlp_parameters(self, intermediate_size: int) -> int:
        biases = (2 if self.gated else 1) * intermediate_size + self.hidden_size
        return self.mlp_matrices(intermediate_size) + self.mlp_bias * biases

    @property
    def _small_parameters(self) -> int:
        return self.norms_per_layer * self._norm(self.hidden_size) + self.extra_per_layer

    @property
    def projection_parameters(self) -> int:
        """Of the matrices between embeddings of another width and the layers."""
        return 2 * self.embedding_size * self.hidden_size if self.embedding_size else 0

    @cached_property
    def _feed_forward_matrices(self) -> int:
        """Active per token, of all layers."""
        total = self.dense_layers * self.mlp_matrices(self.intermediate_size)
        if self.experts is None:
            return total
        own = min(self.experts.per_token, self.experts.count) * self.mlp_matrices(self.experts.intermediate_size)
        return total + self.experts.layers * (own + self.mlp_matrices(self.experts.shared_intermediate_size) + self._router)

    @cached_property
    def _feed_forward_parameters(self) -> int:
        """Of all layers, every expert included."""
        total = self.dense_layers * self._mlp_parameters(self.intermediate_size)
        if self.experts is None:
            return total
        shared = self._mlp_parameters(self.experts.shared_intermediate_size) if self.experts.shared_intermediate_size else 0
        router = self._router + self.experts.router_bias * self.experts.count
        return total + self.experts.layers * (self.experts.count * self.expert_parameters + shared + router)

    @property
    def _router(self) -> int:
        return self.hidden_size * (self.experts.count + self.experts.shared_gate) if self.experts else 0

    def _window(self, sequence_length: Numbers) -> Numbers:
        window = self.sliding_window or 0
        if isinstance(sequence_length, int | float):
            return min(window, sequence_length)
        import numpy as np  # here, so that a recipe is read without it

        return np.minimum(window, sequence_length)

    def _keys_seen(self, sequence_length: Numbers) -> Numbers:
        """Keys that one query is compared with, summed over the layers."""
        if not self.sliding_layers:
            return self.num_layers * sequence_length
        return (self.num_layers - self.sliding_layers) * sequence_length + self.sliding_layers * self._window(sequence_length)
