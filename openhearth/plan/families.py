"""Every family of decoders that Hugging Face's transformers knows by a `model_type`, as its differences from Llama's layout.

A row of `FAMILIES` says what the class builds whatever `config.json` says, and which keys decide the rest, with the class's default. The
tests build the same configurations with transformers and compare parameter counts to the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from openhearth.errors import HearthError, nearest
from openhearth.plan.shapes import Experts, Latent, Shape

Choice = bool | tuple[str, bool]
"""Always so, or as the named key of config.json says, with its default."""


@dataclass(frozen=True)
class Family:
    """One model_type. The defaults are Llama's."""

    norm: Literal["rms", "layer", "layer-without-bias", "none"] = "rms"
    norms: int = 2  # per layer
    gated: bool = True
    tied: bool = False  # when config.json does not say
    qkv_bias: Choice = False
    output_bias: Choice = False
    mlp_bias: Choice = False
    head_bias: Choice = False
    query_key_norm: Literal["none", "head", "all"] = "none"
    query_key_norm_if: Choice = True
    positions: str = ""  # the key with the rows of learned positions
    four_times: bool = False  # the feed-forward is 4 x hidden_size when config.json does not say
    pattern: int = 0  # of sliding windows: 0 none, 1 every layer, n every layer but each n-th
    experts: Literal["", "optional", "required"] = ""
    shared_gate: bool = False
    router_bias: bool = False
    relative_positions: bool = False
    embedding_norm: bool = False
    final_norm: bool = True
    defaults: Mapping[str, int] = field(default_factory=dict)  # of sizes that the class assumes when config.json does not say


_LLAMA = Family()
_ATTENTION = Family(qkv_bias=("attention_bias", False), output_bias=("attention_bias", False))
_GPT = Family(norm="layer", gated=False, tied=True, four_times=True, qkv_bias=True, output_bias=True, mlp_bias=True)
_GPT2 = replace(_GPT, positions="n_positions")
_GPTJ = replace(_GPT, norms=1, tied=False, qkv_bias=False, output_bias=False, head_bias=True)
_GEMMA = replace(_ATTENTION, tied=True, defaults={"head_dim": 256, "num_key_value_heads": 16})
_GEMMA_3 = {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 4096}
"""Gemma 3's own files leave these out."""
_COHERE = replace(_ATTENTION, norm="layer-without-bias", norms=1, tied=True)
_OLMO2 = replace(_ATTENTION, query_key_norm="all")
_DEEPSEEK = replace(_ATTENTION, experts="optional")


def _by(key: str, default: bool, family: Family) -> Family:
    """One key of config.json decides on all biases."""
    return replace(family, qkv_bias=(key, default), output_bias=(key, default), mlp_bias=(key, default))


FAMILIES: dict[str, Family] = {
    # GPT and its kin: LayerNorm, two matrices
    "gpt2": _GPT2,
    "openai-gpt": replace(_GPT2, final_norm=False),
    "gpt_bigcode": _GPT2,
    "gpt_neo": replace(_GPT, qkv_bias=False, positions="max_position_embeddings"),
    "gpt_neox": replace(_GPT, tied=False, four_times=False, qkv_bias=("attention_bias", True), output_bias=("attention_bias", True)),
    "gptj": _GPTJ,
    "codegen": _GPTJ,
    "opt": replace(_by("enable_bias", True, _GPT), positions="max_position_embeddings", four_times=False),
    "xglm": replace(_GPT, four_times=False),
    "bloom": replace(_GPT, embedding_norm=True),
    "falcon": _by("bias", False, _GPT),
    "mpt": Family(norm="layer-without-bias", gated=False, tied=True, four_times=True),
    "starcoder2": replace(_by("use_bias", True, _GPT), four_times=False, pattern=1, defaults={"num_key_value_heads": 2}),
    "phi": replace(_GPT, norms=1, tied=False, head_bias=True, query_key_norm="head", query_key_norm_if=("qk_layernorm", False)),
    "persimmon": replace(_GPT, tied=False, four_times=False, query_key_norm="head", query_key_norm_if=("qk_layernorm", True)),
    "stablelm": Family(norm="layer", qkv_bias=("use_qkv_bias", False)),
    "nanochat": replace(_ATTENTION, norm="none", gated=False),
    # Not in transformers: Rae et al. 2021 (section 2) and Hoffmann et al. 2022 (table 4), RMSNorm, relative positions of Transformer-XL.
    "gopher": replace(_GPT, norm="rms", tied=True, relative_positions=True),
    # Llama and its kin: RMSNorm, SwiGLU
    "llama": replace(_ATTENTION, mlp_bias=("mlp_bias", False)),
    "smollm3": replace(_ATTENTION, mlp_bias=("mlp_bias", False), tied=True, defaults={"num_key_value_heads": 4}),
    "granite": replace(_ATTENTION, mlp_bias=("mlp_bias", False)),
    "helium": Family(defaults={"head_dim": 128}, qkv_bias=("attention_bias", False), mlp_bias=("mlp_bias", False)),
    "arcee": replace(_ATTENTION, gated=False, mlp_bias=("mlp_bias", False)),
    "apertus": replace(_ATTENTION, gated=False, query_key_norm="head"),
    "seed_oss": Family(
        qkv_bias=("attention_bias", True),
        defaults={"head_dim": 128, "num_key_value_heads": 8},
        output_bias=("attention_out_bias", False),
        mlp_bias=("mlp_bias", False),
    ),
    "mistral": replace(_LLAMA, pattern=1, defaults={"num_key_value_heads": 8}),
    "ministral": replace(_LLAMA, pattern=1, defaults={"num_key_value_heads": 8}),
    "ministral3": replace(_LLAMA, pattern=1, defaults={"head_dim": 128, "num_key_value_heads": 8}),
    "phi3": replace(_LLAMA, pattern=1),
    "glm": Family(defaults={"head_dim": 128, "num_key_value_heads": 2}, qkv_bias=("attention_bias", True)),
    "glm4": Family(defaults={"head_dim": 128, "num_key_value_heads": 2}, norms=4, qkv_bias=("attention_bias", True)),
    "gemma": _GEMMA,
    "gemma2": replace(_GEMMA, norms=4, pattern=2, defaults={"head_dim": 256, "num_key_value_heads": 4}),
    "gemma3_text": replace(_GEMMA, norms=4, pattern=6, query_key_norm="head", defaults=_GEMMA_3),
    "cohere": replace(_COHERE, query_key_norm="all", query_key_norm_if=("use_qk_norm", False)),
    "cohere2": replace(_COHERE, pattern=4),
    "olmo": replace(_ATTENTION, norm="none"),
    "olmo2": _OLMO2,
    "olmo3": replace(_OLMO2, pattern=4),
    "exaone4": Family(query_key_norm="head", pattern=4),
    "ernie4_5": _by("use_bias", False, Family(tied=True, defaults={"head_dim": 128, "num_key_value_heads": 2})),
    "qwen2": Family(qkv_bias=True, pattern=1),
    "qwen3": replace(_ATTENTION, defaults={"head_dim": 128}, query_key_norm="head", pattern=1),
    # Mixtures of experts
    "mixtral": Family(defaults={"num_key_value_heads": 8}, pattern=1, experts="required"),
    "phimoe": replace(
        _ATTENTION, defaults={"num_key_value_heads": 8}, norm="layer", pattern=1, experts="required", head_bias=("lm_head_bias", False)
    ),
    "granitemoe": replace(_ATTENTION, experts="required"),
    "granitemoeshared": replace(_ATTENTION, experts="required"),
    "olmoe": replace(_OLMO2, experts="required"),
    "qwen2_moe": Family(qkv_bias=("qkv_bias", True), pattern=1, experts="required", shared_gate=True),
    "qwen3_moe": replace(_ATTENTION, defaults={"num_key_value_heads": 4}, query_key_norm="head", pattern=1, experts="required"),
    "minimax_m2": Family(defaults={"head_dim": 128, "num_key_value_heads": 8}, query_key_norm="all", experts="required"),
    "gpt_oss": Family(
        defaults={"head_dim": 64, "num_key_value_heads": 8},
        qkv_bias=("attention_bias", True),
        output_bias=("attention_bias", True),
        mlp_bias=True,
        pattern=2,
        experts="required",
        router_bias=True,
    ),
    "ernie4_5_moe": replace(
        _by("use_bias", False, Family(tied=True, defaults={"num_key_value_heads": 4})), experts="required", router_bias=True
    ),
    "glm4_moe": Family(
        defaults={"num_key_value_heads": 8, "first_k_dense_replace": 1, "n_shared_experts": 1},
        experts="required",
        qkv_bias=("attention_bias", False),
        query_key_norm="head",
        query_key_norm_if=("use_qk_norm", False),
    ),
    "llama4_text": replace(_ATTENTION, defaults={"head_dim": 128, "num_key_value_heads": 8}, experts="required", pattern=4),
    "deepseek_v2": replace(_DEEPSEEK, defaults={"n_shared_experts": 2}),
    "deepseek_v3": replace(_DEEPSEEK, defaults={"n_shared_experts": 1, "first_k_dense_replace": 3}),
}
"""By model_type."""

LATENT = ("deepseek_v2", "deepseek_v3")
OTHER_NAMES = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    **dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), "qwen2"),
    **dict.fromkeys(("qwen3_vl", "qwen3_vl_text"), "qwen3"),
    **dict.fromkeys(("qwen3_vl_moe", "qwen3_vl_moe_text"), "qwen3_moe"),
    "kimi_k2": "deepseek_v3",
}
"""Language models inside others, and the same layout under another name."""
_FOREIGN = ("ssm_cfg", "state_size", "linear_num_value_heads", "attn_layer_period", "block_types", "rwkv_version", "full_attn_idxs")


class _Fields:
    """The keys of one config.json, read under each of their names, refused by name."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def error(self, name: str, text: str) -> HearthError:
        return HearthError(f"{self.where}: {name} {text}")

    def present(self, *names: str) -> str | None:
        return next((name for name in names if self.config.get(name) is not None), None)

    def whole(self, *names: str, default: int | None = None, low: int = 1) -> int:
        """A whole number under the first of `names` that is there."""
        name = self.present(*names)
        if name is None:
            if default is not None:
                return default
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise self.error(names[0] + others, "is missing; without it the size is not known")
        value = self.config[name]
        if isinstance(value, list):
            raise self.error(name, "is a list: layers of different sizes are not counted")
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 10**9:
            raise self.error(name, f"must be a whole number of at least {low}, not {str(value)[:40]!r}")
        return value

    def choice(self, choice: Choice) -> bool:
        if isinstance(choice, bool):
            return choice
        value = self.config.get(choice[0])
        if value is not None and not isinstance(value, bool):
            raise self.error(choice[0], f"must be true or false, not {str(value)[:40]!r}")
        return choice[1] if value is None else value


def read(config: Mapping[str, Any], where: str) -> Shape:
    """The shape of a Hugging Face configuration; see `Shape.from_hf`."""
    notes: list[str] = []
    inner = config.get("text_config")
    if isinstance(inner, Mapping) and ("num_hidden_layers" in inner or "hidden_size" in inner):
        notes.append("only the language model (text_config) is counted, not what reads images or sound")
        outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config and key not in inner}
        config = {**outer, **inner, "model_type": inner.get("model_type", config.get("model_type"))}
    fields = _Fields(config, where)
    _refuse_other_kinds(fields)
    family_name, family = _family(fields, notes)
    assumed = {key: value for key, value in family.defaults.items() if key not in config}
    if assumed:
        notes.append("not in the file, taken as transformers does: " + ", ".join(f"{key} {value:,}" for key, value in assumed.items()))
        fields.config = {**config, **assumed}
    if "quantization_config" in config:
        notes.append("quantization_config changes the bytes of the weights, not their number")

    hidden = fields.whole("hidden_size", "n_embd", "d_model", "n_embed")
    layers = fields.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = fields.whole("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
    kv_heads = _kv_heads(fields, family_name, heads)
    if heads % kv_heads:
        raise fields.error("num_key_value_heads", f"({kv_heads}) must divide num_attention_heads ({heads})")
    latent = _latent(fields) if family_name in LATENT or fields.present("kv_lora_rank") else None
    experts = _experts(fields, family, layers)
    window, windowed = _windows(fields, family, family_name, layers)
    width = fields.whole("word_embed_proj_dim", default=hidden) if family_name == "opt" else hidden
    special = _special(fields, family_name, heads)
    values: dict[str, Any] = {
        "model_type": str(config.get("model_type") or family_name),
        "vocab_size": fields.whole("vocab_size"),
        "hidden_size": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": latent.nope_dim + latent.rope_dim if latent else _head_dim(fields, hidden, heads),
        "intermediate_size": _intermediate(fields, family, family_name, hidden, experts),
        "gated": family.gated,
        "tie_word_embeddings": fields.choice(("tie_word_embeddings", family.tied)),
        "qkv_bias": fields.choice(family.qkv_bias),
        "output_bias": fields.choice(family.output_bias),
        "mlp_bias": fields.choice(family.mlp_bias),
        "head_bias": fields.choice(family.head_bias),
        "norm": family.norm,
        "norms_per_layer": family.norms,
        "final_norm": family.final_norm,
        "embedding_norm": family.embedding_norm,
        "query_key_norm": family.query_key_norm if fields.choice(family.query_key_norm_if) else "none",
        "learned_positions": fields.whole(family.positions, "n_ctx", default=1024) if family.positions else 0,
        "relative_positions": family.relative_positions,
        "embedding_size": width if width != hidden else None,
        "sliding_window": window,
        "sliding_layers": windowed,
        "latent": latent,
        "experts": experts,
        "max_position_embeddings": fields.whole("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_seq_len", default=0)
        or None,
        "notes": tuple(notes),
    }
    try:
        return Shape(**values | special)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise fields.error(".".join(str(part) for part in first["loc"]), f"cannot be: {first['msg'].lower()}") from None


def _refuse_other_kinds(fields: _Fields) -> None:
    """Encoders, encoder-decoders and recurrent layers are not what this module counts."""
    for name in _FOREIGN + tuple(key for key in fields.config if key.startswith("mamba_")):
        if fields.config.get(name) is not None:
            raise fields.error(name, "tells of layers that are not attention; only transformer decoders are counted")
    if fields.config.get("is_encoder_decoder") or fields.present("decoder_layers", "num_decoder_layers"):
        raise fields.error("is_encoder_decoder", "tells of an encoder with a decoder; only decoders are counted")
    if fields.present("type_vocab_size"):
        raise fields.error("type_vocab_size", "tells of an encoder; only decoders are counted")


def _family(fields: _Fields, notes: list[str]) -> tuple[str, Family]:
    name = fields.config.get("model_type")
    if name is not None and not isinstance(name, str):
        raise fields.error("model_type", f"must be text, not {str(name)[:40]!r}")
    known = OTHER_NAMES.get(name or "", name or "")
    if known in FAMILIES:
        return known, FAMILIES[known]
    if name and (near := nearest(name, FAMILIES, cutoff=0.85)):  # a slip of a letter, or a successor with other layers
        raise fields.error("model_type", f"'{name[:40]}' is not known{near}; name the family whose layout it has")
    modern = fields.present("rms_norm_eps") or fields.config.get("hidden_act") in ("silu", "swish")
    family = Family(experts="optional", pattern=1) if modern else replace(_GPT, tied=False, experts="optional")
    layout = "Llama's layout (RMSNorm, gated, no biases)" if modern else "GPT's layout (LayerNorm, two matrices, biases)"
    said = f"model_type '{name}' is not known" if name else "model_type is missing"
    notes.append(f"{said}: counted in {layout}; norms, biases and details may differ")
    return name or "unknown", family


def _kv_heads(fields: _Fields, family: str, heads: int) -> int:
    if family == "gpt_bigcode":
        return 1 if fields.choice(("multi_query", True)) else heads
    if family == "falcon" and not fields.choice(("new_decoder_architecture", False)):
        return 1 if fields.choice(("multi_query", True)) else heads
    return fields.whole("num_key_value_heads", "num_kv_heads", "n_head_kv", default=heads)


def _head_dim(fields: _Fields, hidden: int, heads: int) -> int:
    if fields.present("head_dim") is None and hidden % heads:
        raise fields.error("num_attention_heads", f"({heads}) must divide hidden_size ({hidden}) where head_dim is not given")
    return fields.whole("head_dim", default=hidden // heads)


def _intermediate(fields: _Fields, family: Family, name: str, hidden: int, experts: Experts | None) -> int:
    if name in ("bloom", "openai-gpt"):
        return 4 * hidden  # whatever config.json says
    if name == "llama4_text":
        return fields.whole("intermediate_size_mlp")
    if name == "mpt":
        return fields.whole("expansion_ratio", default=4) * hidden
    default = 4 * hidden if family.four_times else experts.intermediate_size if experts else None
    return fields.whole("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", default=default)


def _latent(fields: _Fields) -> Latent:
    return Latent(
        query_rank=fields.whole("q_lora_rank", default=0, low=0),
        rank=fields.whole("kv_lora_rank"),
        nope_dim=fields.whole("qk_nope_head_dim"),
        rope_dim=fields.whole("qk_rope_head_dim"),
        value_dim=fields.whole("v_head_dim"),
    )


def _experts(fields: _Fields, family: Family, layers: int) -> Experts | None:
    counts = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if not family.experts or (family.experts == "optional" and fields.present(*counts) is None):
        return None
    count = fields.whole(*counts, low=0)
    if count == 0:
        return None
    per_token = fields.whole("num_experts_per_tok", "moe_k", "num_experts_per_token", "moe_topk")
    if per_token > count:
        raise fields.error("num_experts_per_tok", f"({per_token}) cannot be more than the experts ({count})")
    size = fields.whole("moe_intermediate_size", "intermediate_size")
    shared = fields.whole("shared_expert_intermediate_size", "shared_intermediate_size", default=0, low=0)
    shared = shared or fields.whole("n_shared_experts", "moe_num_shared_experts", default=0, low=0) * size
    if fields.config.get("model_type") in ("llama4", "llama4_text"):
        shared = size
    return Experts(
        count=count,
        per_token=per_token,
        intermediate_size=size,
        shared_intermediate_size=shared,
        shared_gate=family.shared_gate and shared > 0,
        router_bias=family.router_bias,
        layers=sum(_has_experts(fields, layer, layers) for layer in range(layers)),
    )


def _has_experts(fields: _Fields, layer: int, layers: int) -> bool:
    """Whether a layer has experts: by list, by step, after the first dense ones, or between two indices (Ernie)."""
    chosen = fields.config.get("moe_layers")
    if isinstance(chosen, list):
        return layer in chosen
    step = fields.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq", "moe_layer_interval", default=1)
    first = fields.whole("first_k_dense_replace", "moe_layer_start_index", default=fields.config.get("model_type") == "ernie4_5_moe", low=0)
    last = fields.whole("moe_layer_end_index", default=layers - 1, low=-1)
    dense = fields.config.get("mlp_only_layers") or ()
    offset = 0 if fields.present("moe_layer_freq") else 1
    return first <= layer <= (last if last >= 0 else layers - 1) and (layer + offset) % step == 0 and layer not in dense


def _windows(fields: _Fields, family: Family, name: str, layers: int) -> tuple[int | None, int]:
    """The sliding window and the layers that have it."""
    key = fields.present("sliding_window", "attention_chunk_size", "window_size")
    kinds = fields.config.get("layer_types")
    if (
        key is None
        or not (family.pattern or name == "gpt_neo")
        or not fields.choice(("use_sliding_window", not name.startswith(("qwen2", "qwen3"))))
    ):
        return None, 0
    window = fields.whole(key, low=0)
    if window == 0:
        return None, 0
    if isinstance(kinds, list):
        return window, sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds[:layers])
    if name == "gpt_neo":
        return window, layers // 2  # "global" and "local" in turn
    if fields.present("max_window_layers") and name.startswith("qwen"):
        return window, max(0, layers - fields.whole("max_window_layers", low=0))
    pattern = fields.config.get("sliding_window_pattern", fields.config.get("_sliding_window_pattern"))
    pattern = pattern if isinstance(pattern, int) and pattern > 0 else family.pattern
    return window, layers if pattern == 1 else layers - layers // pattern


def _special(fields: _Fields, name: str, heads: int) -> dict[str, Any]:
    """What only one family does."""
    if name == "opt":
        before = fields.choice(("do_layer_norm_before", True)) and not fields.choice(("_remove_final_layer_norm", False))
        affine = fields.choice(("layer_norm_elementwise_affine", True))
        rows = fields.whole("max_position_embeddings", default=2048) + 2  # the first two are never used, and are there
        return {"learned_positions": rows, "final_norm": before, "norm": "layer" if affine else "none"}
    if name == "falcon":
        side_by_side = fields.choice(("parallel_attn", True))
        two = fields.whole("num_ln_in_parallel_attn", default=2 if fields.choice(("new_decoder_architecture", False)) else 1) == 2
        return {"norms_per_layer": 1 if side_by_side and not two else 2}
    if name == "stablelm":
        if fields.choice(("qk_layernorm", False)):
            raise fields.error("qk_layernorm", "is not counted for StableLM")
        return {"norms_per_layer": 1 if fields.choice(("use_parallel_residual", False)) else 2}
    if name == "ernie4_5_moe" and fields.choice(("use_bias", False)):
        raise fields.error("use_bias", "is not counted for Ernie 4.5's mixture of experts")
    if name == "gpt_oss":
        return {"extra_per_layer": heads}  # one attention sink per head
    if name == "apertus":
        return {"extra_per_layer": 2}  # the two slopes of xIELU
    return {}
