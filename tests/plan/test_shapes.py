"""Parameters to the unit against transformers' own models, and FLOPs against published figures and other counts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.model.config import ModelConfig
from openhearth.plan.families import FAMILIES
from openhearth.plan.shapes import CONVENTIONS, Shape

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
}
LLAMA_3 = LLAMA | {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8}
MIXTRAL = LLAMA | {
    "model_type": "mixtral",
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def llama(hidden: int, intermediate: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads}
    return LLAMA | sizes | changes


def gpt2(layers: int, width: int, heads: int, **changes: Any) -> dict[str, Any]:
    return {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_layer": layers, "n_embd": width, "n_head": heads} | changes


def qwen3(hidden: int, intermediate: int, layers: int, heads: int, tied: bool) -> dict[str, Any]:
    own = {"model_type": "qwen3", "vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": tied}
    return llama(hidden, intermediate, layers, heads, **own)


def pythia(hidden: int, layers: int, heads: int, vocab: int) -> dict[str, Any]:
    return llama(hidden, 4 * hidden, layers, heads, model_type="gpt_neox", vocab_size=vocab)


DEEPSEEK_V3 = llama(
    7168,
    18432,
    61,
    128,
    model_type="deepseek_v3",
    vocab_size=129280,
    num_key_value_heads=128,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    first_k_dense_replace=3,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": (gpt2(12, 768, 12), 124_439_808),
    "gpt2-medium": (gpt2(24, 1024, 16), 354_823_168),
    "gpt2-large": (gpt2(36, 1280, 20), 774_030_080),
    "gpt2-xl": (gpt2(48, 1600, 25), 1_557_611_200),
    "llama-7b": (LLAMA, 6_738_415_616),
    "llama-13b": (llama(5120, 13824, 40, 40), 13_015_864_320),
    "llama-65b": (llama(8192, 22016, 80, 64), 65_285_660_672),
    "llama-3-8b": (LLAMA_3, 8_030_261_248),
    "llama-3-70b": (llama(8192, 28672, 80, 64, vocab_size=128256, num_key_value_heads=8), 70_553_706_496),
    "llama-3-405b": (llama(16384, 53248, 126, 128, vocab_size=128256, num_key_value_heads=8), 405_853_388_800),
    "mixtral-8x7b": (MIXTRAL, 46_702_792_704),
    "pythia-12b": (pythia(5120, 36, 40, 50688), 11_846_072_320),
    "pythia-1b": (pythia(2048, 16, 8, 50304), 1_011_781_632),
    "olmo-2-7b": (LLAMA | {"model_type": "olmo2", "vocab_size": 100352}, 7_298_617_344),
    "qwen3-0.6b": (qwen3(1024, 3072, 28, 16, True), 596_049_920),
    "qwen3-1.7b": (qwen3(2048, 6144, 28, 16, True), 1_720_574_976),
    "qwen3-4b": (qwen3(2560, 9728, 36, 32, True), 4_022_468_096),
    "qwen3-8b": (qwen3(4096, 12288, 36, 32, False), 8_190_735_360),
    "deepseek-v3": (DEEPSEEK_V3, 671_026_404_352),
    "bloom-176b": ({"model_type": "bloom", "vocab_size": 250880, "hidden_size": 14336, "n_layer": 70, "n_head": 112}, 176_247_271_424),
    "gpt-j-6b": (
        {"model_type": "gptj", "vocab_size": 50400, "n_positions": 2048, "n_embd": 4096, "n_layer": 28, "n_head": 16},
        6_050_882_784,
    ),
    "gpt-neox-20b": (pythia(6144, 44, 64, 50432), 20_554_567_680),
    "mistral-7b": (LLAMA | {"model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8}, 7_241_732_096),
    "qwen2.5-7b": (llama(3584, 18944, 28, 28, model_type="qwen2", vocab_size=152064, num_key_value_heads=4), 7_615_616_512),
    "qwen3-30b-a3b": (
        llama(2048, 6144, 48, 32, model_type="qwen3_moe", vocab_size=151936, num_key_value_heads=4, head_dim=128)
        | {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
        30_532_122_624,
    ),
    "olmoe-1b-7b": (
        llama(2048, 1024, 16, 16, model_type="olmoe", vocab_size=50304, num_experts=64, num_experts_per_tok=8),
        6_919_161_856,
    ),
    "gemma-2-9b": (
        llama(3584, 14336, 42, 16, model_type="gemma2", vocab_size=256000, num_key_value_heads=8, head_dim=256),
        9_241_705_984,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_number_of_parameters(name: str) -> None:
    config, parameters = PUBLISHED[name]
    assert Shape.from_hf(config).parameters == parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_transformers_builds_the_same_number_of_parameters(name: str) -> None:
    assert _in_transformers(PUBLISHED[name][0]) == PUBLISHED[name][1]


def test_active_and_non_embedding_parameters_are_those_of_the_reports() -> None:
    mixtral = Shape.from_hf(MIXTRAL)
    assert mixtral.active_parameters == 46_702_792_704 - 32 * 6 * 3 * 4096 * 14336 == 12_879_925_248  # "13B", Jiang et al. 2024
    assert Shape.from_hf(PUBLISHED["qwen3-30b-a3b"][0]).active_parameters // 10**8 == 33  # "3.3B", its model card
    assert round(Shape.from_hf(PUBLISHED["olmoe-1b-7b"][0]).active_parameters / 1e9, 1) == 1.3  # Muennighoff et al. 2024
    assert round(Shape.from_hf(DEEPSEEK_V3).active_parameters / 1e9, 1) == 37.6  # "37B" without the input embedding
    assert Shape.from_hf(PUBLISHED["pythia-12b"][0]).non_embedding_parameters == 11_327_027_200  # Biderman et al. 2023, table 1
    assert Shape.from_hf(PUBLISHED["pythia-1b"][0]).non_embedding_parameters == 805_736_448
    assert round(Shape.from_hf(PUBLISHED["qwen3-0.6b"][0]).non_embedding_parameters / 1e9, 2) == 0.44  # its model card
    assert round(Shape.from_hf(PUBLISHED["qwen3-8b"][0]).non_embedding_parameters / 1e9, 2) == 6.95


# -- any configuration, against transformers -------------------------------------------------------------------------------------

NAMES = {  # of the five sizes, where a family has its own words
    "gpt": ("n_embd", "n_layer", "n_head", "n_inner", "vocab_size"),
    "mpt": ("d_model", "n_layers", "n_heads", "expansion_ratio", "vocab_size"),
    "xglm": ("d_model", "num_layers", "attention_heads", "ffn_dim", "vocab_size"),
    "opt": ("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim", "vocab_size"),
    "falcon": ("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_hidden_size", "vocab_size"),
    "bloom": ("hidden_size", "n_layer", "n_head", "-", "vocab_size"),
    "gpt_neo": ("hidden_size", "num_layers", "num_heads", "intermediate_size", "vocab_size"),
    "llama4_text": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size_mlp", "vocab_size"),
    "": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"),
}
NAMES |= dict.fromkeys(("gpt2", "openai-gpt", "gpt_bigcode", "gptj", "codegen"), NAMES["gpt"])


def _random_config(kind: str, draw: random.Random) -> dict[str, Any]:
    """A small configuration with every switch of the family thrown at random, in the words of its config.json."""
    kv_heads, groups, head_dim = draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 4]), 8 * draw.randint(1, 5)
    heads, layers = kv_heads * groups, draw.choice([2, 4, 6])
    hidden = heads * head_dim
    if kind == "codegen":  # its projection is cut in four
        heads, hidden, kv_heads = 4, 4 * head_dim, 4
    names = NAMES.get(kind, NAMES[""])
    sizes = (hidden, layers, heads, 4 if kind == "mpt" else 8 * draw.randint(2, 30), draw.randint(50, 3000))
    config: dict[str, Any] = {"model_type": kind, **dict(zip(names, sizes, strict=True)), "tie_word_embeddings": draw.random() < 0.5}
    config.pop("-", None)
    if kind in ("gptj", "codegen"):
        config |= {"rotary_dim": 4, "tie_word_embeddings": False}  # transformers ties the weight and leaves the bias
    if kind in ("bloom", "mpt", "xglm", "gpt_neo", "phi", "phimoe"):
        config.pop("tie_word_embeddings")
    if kind == "gpt_neo":
        config |= {"num_layers": layers, "attention_types": [[["global", "local"], layers // 2]]}
    if kind == "opt":
        config |= {"word_embed_proj_dim": draw.choice([hidden, hidden // 2]), "do_layer_norm_before": draw.random() < 0.5}
        config |= {"layer_norm_elementwise_affine": draw.random() < 0.8}
    if kind in ("gpt2", "openai-gpt", "gpt_bigcode", "gptj", "codegen"):
        config["n_positions"] = 8 * draw.randint(4, 40)
    elif kind not in ("bloom", "mpt"):
        config["max_position_embeddings"] = 8 * draw.randint(4, 40)
    family = FAMILIES[kind]
    grouped = kind not in (
        "gpt2",
        "openai-gpt",
        "gpt_neo",
        "gpt_neox",
        "gptj",
        "codegen",
        "opt",
        "xglm",
        "bloom",
        "mpt",
        "persimmon",
        "falcon",
    )
    if grouped and kind not in ("gpt_bigcode", "deepseek_v2", "deepseek_v3"):
        config["num_key_value_heads"] = kv_heads
    if kind in ("falcon", "gpt_bigcode"):
        config["multi_query"] = draw.random() < 0.5
    if kind == "falcon":
        config |= {key: draw.random() < 0.5 for key in ("new_decoder_architecture", "parallel_attn", "alibi")} | {"num_kv_heads": kv_heads}
    for choice in (family.qkv_bias, family.output_bias, family.mlp_bias, family.head_bias, family.query_key_norm_if):
        if isinstance(choice, tuple):
            config[choice[0]] = draw.random() < 0.5
    if kind == "apertus":
        config["attention_bias"] = False
    if kind == "ernie4_5_moe":
        config["use_bias"] = False
    if kind == "stablelm":
        config["use_parallel_residual"] = draw.random() < 0.5
    if kind == "helium":  # its output projection is square
        config["head_dim"] = head_dim
    elif "head_dim" in family.defaults or kind in ("mistral", "ministral", "mixtral", "llama", "qwen3_moe"):
        config["head_dim"] = 2 * draw.randint(2, 20)
    if family.experts:
        config |= _random_experts(kind, layers, draw)
    if kind.startswith("deepseek"):
        config |= {
            "q_lora_rank": draw.choice([None, 24, 40]),
            "kv_lora_rank": 8 * draw.randint(1, 6),
            "qk_nope_head_dim": 8 * draw.randint(1, 5),
        }
        config |= {"qk_rope_head_dim": 8 * draw.randint(1, 3), "v_head_dim": 8 * draw.randint(1, 5), "num_key_value_heads": heads}
    return config | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _random_experts(kind: str, layers: int, draw: random.Random) -> dict[str, Any]:
    count, per_token, size = draw.randint(4, 12), draw.randint(1, 4), 8 * draw.randint(1, 12)
    if kind == "ernie4_5_moe":
        return {
            "moe_num_experts": count,
            "moe_k": per_token,
            "moe_intermediate_size": size,
            "moe_num_shared_experts": draw.randint(1, 2),
        } | {
            "moe_layer_start_index": 1,
            "moe_layer_end_index": layers - 1,
        }
    name = {"deepseek_v2": "n_routed_experts", "deepseek_v3": "n_routed_experts", "glm4_moe": "n_routed_experts", "olmoe": "num_experts"}
    name |= dict.fromkeys(("qwen2_moe", "qwen3_moe"), "num_experts")
    config: dict[str, Any] = {name.get(kind, "num_local_experts"): count, "num_experts_per_tok": per_token}
    if kind in ("qwen2_moe", "qwen3_moe"):
        config |= {"moe_intermediate_size": size, "decoder_sparse_step": draw.choice([1, 2]), "mlp_only_layers": draw.choice([[], [0]])}
    if kind == "qwen2_moe":
        config["shared_expert_intermediate_size"] = 8 * draw.randint(1, 12)
    if kind == "granitemoeshared":
        config["shared_intermediate_size"] = draw.choice([0, 8 * draw.randint(1, 12)])
    if kind in ("deepseek_v2", "deepseek_v3", "glm4_moe"):
        config |= {"n_shared_experts": draw.randint(1, 2), "moe_intermediate_size": size, "first_k_dense_replace": draw.randint(0, 2)}
        config |= {"n_group": 1, "topk_group": 1}
    if kind == "llama4_text":
        config |= {"intermediate_size": size, "interleave_moe_layer_step": draw.choice([1, 2])}
    return config


def _in_transformers(config: dict[str, Any]) -> int:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    built = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return int(transformers.AutoModelForCausalLM.from_config(built).num_parameters())


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "gopher"])
def test_every_family_is_counted_as_transformers_builds_it(kind: str) -> None:
    draw = random.Random(f"shapes-{kind}")
    for _ in range(8):
        config = _random_config(kind, draw)
        assert Shape.from_hf(config).parameters == _in_transformers(config), config


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text", "cohere2", "olmo3", "exaone4", "gpt_oss", "llama4_text", "qwen3"])
def test_layers_with_a_window_are_those_of_transformers(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    for layers in (1, 5, 6, 7, 26):
        config = _random_config(kind, random.Random(layers)) | {NAMES.get(kind, NAMES[""])[1]: layers, "use_sliding_window": True}
        config["attention_chunk_size" if kind == "llama4_text" else "sliding_window"] = 128
        config |= {"max_window_layers": 3} if kind == "qwen3" else {}
        wanted = transformers.AutoConfig.for_model(**config).layer_types
        shape = Shape.from_hf(config)
        assert shape.sliding_layers == sum(name != "full_attention" for name in wanted)
        assert Shape.from_hf(config | {"layer_types": wanted}).sliding_layers == shape.sliding_layers


def test_a_configuration_with_images_is_counted_without_them_and_says_so() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    shape = Shape.from_hf({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}})  # google/gemma-3-4b-it
    assert shape.parameters == _in_transformers(text)
    assert "text_config" in shape.notes[0] and "vocab_size 262,208" in shape.notes[1]
    assert (shape.sliding_window, shape.sliding_layers) == (1024, 29)


def test_an_unknown_type_is_counted_in_the_usual_layout_with_a_note() -> None:
    known = Shape.from_hf(LLAMA_3)
    unknown = Shape.from_hf(LLAMA_3 | {"model_type": "strange"})
    assert unknown.parameters == known.parameters and not known.notes and "'strange' is not known" in unknown.notes[0]
    old = {"vocab_size": 500, "n_embd": 64, "n_layer": 2, "n_head": 4}  # neither type nor RMSNorm: GPT's layout
    shape = Shape.from_hf(old)
    assert shape.parameters == 2 * 500 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64
    assert "model_type is missing" in shape.notes[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "lama"}, "model_type 'lama' is not known (did you mean 'llama'?)"),
        ({"model_type": "deepseek_v4"}, "model_type 'deepseek_v4' is not known (did you mean 'deepseek_v3'?)"),
        ({"vocab_size": None}, "vocab_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 0}, "num_hidden_layers"),
        ({"num_attention_heads": -8}, "num_attention_heads"),
        ({"intermediate_size": "11008"}, "intermediate_size"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"hidden_size": 4096.0}, "hidden_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_attention_heads": 30}, "num_attention_heads (30) must divide hidden_size"),
        ({"num_key_value_heads": 5}, "num_key_value_heads (5) must divide"),
        ({"num_key_value_heads": [8, 4]}, "num_key_value_heads is a list"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ({"model_type": 3}, "model_type"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"model_type": "bert", "type_vocab_size": 2}, "type_vocab_size"),
        ({"model_type": "jamba", "mamba_d_state": 16}, "mamba_d_state"),
        ({"model_type": "mixtral", "num_experts_per_tok": 2}, "num_local_experts"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9, "num_local_experts": 8}, "num_experts_per_tok (9)"),
    ],
)
def test_a_field_that_cannot_be_counted_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(HearthError) as caught:
        Shape.from_hf(LLAMA | change, "x/config.json")
    assert str(caught.value).startswith(f"x/config.json: {named}") and "\n" not in str(caught.value)


def test_a_shape_is_loaded_from_a_file_a_folder_and_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MIXTRAL))
    lines = ["[published]", "[published.model]"] + [f"{key} = {json.dumps(value)}" for key, value in MIXTRAL.items()]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    wanted = Shape.from_hf(MIXTRAL)
    assert Shape.load(tmp_path) == Shape.load(tmp_path / "config.json") == Shape.load(tmp_path / "recipe.toml") == wanted


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [("a.json", "{", "not JSON"), ("a.json", "[1]", "JSON object"), ("a.toml", "x =", "not TOML"), ("a.toml", "x = 1", "published.model")],
)
def test_files_without_a_shape_are_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(HearthError, match=said):
        Shape.load(tmp_path / name)


# -- FLOPs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_flops_are_those_of_the_model_that_openhearth_trains(kv_heads: int, tied: bool) -> None:
    trained = ModelConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_layers=6,
        num_heads=4,
        num_kv_heads=kv_heads,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
    )
    shape = Shape.from_hf(trained.to_hf())
    assert shape.parameters == trained.parameters and shape.matmul_parameters == trained.matmul_parameters
    for length in (1, 256, 4096):
        assert shape.flops_per_token(length) == trained.flops_per_token(length)


@pytest.mark.parametrize(
    ("config", "length", "ratio"),
    [(gpt2(96, 12288, 96, n_positions=2048), 2048, 1.027), (LLAMA, 2048, 1.060), (LLAMA_3, 8192, 1.202), (gpt2(12, 768, 12), 1024, 1.144)],
)
def test_six_n_falls_short_by_the_known_ratio(config: dict[str, Any], length: int, ratio: float) -> None:
    shape = Shape.from_hf(config)
    assert round(shape.flops_per_token(length) / shape.flops_per_token(length, "6n"), 3) == ratio


@pytest.mark.parametrize(  # layers, width, heads, and the forward and backward FLOPs of one sequence of 2,048 in appendix F's count
    ("layers", "width", "heads", "flops", "parameters", "ratio"),
    [
        (10, 640, 10, 929_877_196_800, 73_825_280, 1.025),
        (20, 1024, 16, 4_135_248_199_680, 305_707_008, 1.101),
        (24, 1280, 10, 7_353_453_772_800, 552_604_160, 1.083),
        (26, 1792, 14, 14_670_316_437_504, 1_143_453_696, 1.044),
        (28, 2048, 16, 20_220_437_594_112, 1_593_126_912, 1.033),
        (40, 3584, 28, 83_021_046_743_040, 6_796_274_688, 0.994),
    ],
)
def test_hoffmanns_table_a4_comes_out(layers: int, width: int, heads: int, flops: int, parameters: int, ratio: float) -> None:
    config = {"model_type": "gopher", "vocab_size": 32000, "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    shape = Shape.from_hf(config)
    assert 2048 * shape.flops_per_token(2048, "hoffmann") == flops
    counted = shape.model_copy(update={"norm": "layer"}).parameters  # nanoGPT's count has the biases of LayerNorm
    assert counted == parameters and round(shape.flops_per_token(2048, "hoffmann") / (6 * counted), 3) == ratio


def test_deepseeks_and_megatrons_formulas_are_the_same_count() -> None:
    layers, width, length, vocab = 48, 6144, 2048, 51200
    shape = Shape.from_hf(gpt2(layers, width, 64, vocab_size=vocab))
    assert shape.flops_per_token(length, "deepseek") == 72 * layers * width**2 + 12 * layers * width * length
    full = 72 * layers * width**2 * (1 + length / (6 * width) + vocab / (12 * layers * width))  # Narayanan et al. 2021, appendix
    assert shape.flops_per_token(length) == pytest.approx(full, rel=1e-12)
    again = 96 * layers * width**2 * (1 + length / (6 * width) + vocab / (16 * layers * width))
    assert shape.executed_flops_per_token(length, "full") == pytest.approx(again, rel=1e-12)
    assert shape.executed_flops_per_token(length, "selective") == shape.flops_per_token(length) + 4 * layers * width * length
    assert shape.executed_flops_per_token(length, "none") == shape.flops_per_token(length)
    every_second = 2 * layers * (2 + 4) * width**2  # keys, what attention gives, the second matrix of the feed-forward
    assert shape.executed_flops_per_token(length, "operations") == shape.flops_per_token(length) + every_second
    with pytest.raises(HearthError, match="did you mean 'selective'"):
        shape.executed_flops_per_token(length, "selectiv")
    assert shape.forward_flops_per_token(length) * 3 == shape.flops_per_token(length)


@pytest.mark.parametrize(
    ("tokens", "parameters", "devices", "rate", "days"), [(300e9, 175e9, 1024, 140e12, 34), (450e9, 1e12, 3072, 163e12, 84)]
)
def test_narayanans_training_times_come_out(tokens: float, parameters: float, devices: int, rate: float, days: float) -> None:
    """8 T P / (n X): the eight is 6 x 4/3, recomputation of everything."""
    layers, width, heads = {175e9: (96, 12288, 96), 1e12: (128, 25600, 160)}[parameters]
    shape = Shape.from_hf(gpt2(layers, width, heads, vocab_size=51200))
    rule = 8 * tokens * parameters / (devices * rate) / 86400
    executed = tokens * shape.executed_flops_per_token(2048, "full") / (devices * rate) / 86400
    assert rule == pytest.approx(days, rel=0.011)
    assert executed == pytest.approx(rule, rel=0.04)


def test_causal_attention_costs_half_and_a_window_what_it_sees() -> None:
    shape = Shape.from_hf(LLAMA)
    core = shape.flops_per_token(2048) - 6 * shape.matmul_parameters
    assert core == 12 * 32 * 4096 * 2048
    assert shape.flops_per_token(2048, "causal") == 6 * shape.matmul_parameters + core // 2
    windowed = Shape.from_hf(LLAMA | {"model_type": "mistral", "num_key_value_heads": 32, "sliding_window": 4096})
    assert windowed.flops_per_token(2048) == shape.flops_per_token(2048)
    assert windowed.flops_per_token(32768) == shape.flops_per_token(4096)
    seen = np.minimum(np.arange(1, 32769), 4096).mean()  # counted one query after the other
    assert windowed.attention_flops_per_token(32768, causal=True) == pytest.approx(12 * 32 * 4096 * seen, rel=3e-4)
    gemma = Shape.from_hf(_random_config("gemma2", random.Random(1)) | {"num_hidden_layers": 4, "sliding_window": 16})
    assert gemma.attention_flops_per_token(64) == 12 * gemma.num_heads * gemma.head_dim * (2 * 64 + 2 * 16)


def test_a_mixture_costs_what_its_active_experts_cost() -> None:
    shape = Shape.from_hf(MIXTRAL)
    dense = Shape.from_hf(LLAMA_3 | {"vocab_size": 32000})
    assert shape.matmul_parameters - dense.matmul_parameters == 32 * (3 * 4096 * 14336 + 4096 * 8)  # a second expert, and the router
    assert shape.flops_per_token(4096, "6n") == 6 * shape.active_parameters
    assert shape.flops_per_token(4096, "6n-total") == 6 * shape.parameters


def test_latent_attention_multiplies_its_own_heads_and_caches_one_vector() -> None:
    shape = Shape.from_hf(DEEPSEEK_V3)
    assert shape.attention_flops_per_token(4096) == 6 * 61 * 128 * (192 + 128) * 4096
    assert shape.kv_bytes_per_token() == 61 * (512 + 64) * 2
    assert Shape.from_hf(LLAMA_3).kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2
    windowed = Shape.from_hf(LLAMA_3 | {"model_type": "mistral", "sliding_window": 4096})
    assert (
        windowed.kv_bytes(100_000) == 4096 * windowed.kv_bytes_per_token() and windowed.kv_bytes(10) == 10 * windowed.kv_bytes_per_token()
    )


def test_lengths_may_be_arrays() -> None:
    lengths = np.arange(1, 10_001)
    for name in CONVENTIONS:
        for config in (LLAMA_3, LLAMA | {"model_type": "mistral", "num_key_value_heads": 32, "sliding_window": 4096}):
            shape = Shape.from_hf(config)
            found = shape.flops_per_token(lengths, name)
            assert found.shape == lengths.shape
            assert found[[0, 99, 9999]] == pytest.approx([shape.flops_per_token(n, name) for n in (1, 100, 10_000)])


def test_an_unknown_convention_is_refused_with_the_nearest() -> None:
    with pytest.raises(HearthError, match=r"did you mean 'causal'.*6n-total"):
        Shape.from_hf(LLAMA).flops_per_token(2048, "casual")
