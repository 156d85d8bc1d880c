"""GGUF files for llama.cpp and what is built on it, written from the released weights with the `gguf` package, tokenizer included.

The same weights give the same bytes, so `hearth verify` writes a file again and compares instead of trusting one. Norms stay in fp32;
matrices whose rows the format cannot divide into blocks of 32 do too. The rows of queries and keys keep their order: llama.cpp's
Qwen3 rotates halves, as ours does (files of the architecture `llama` would need them permuted).
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError
from openhearth.ledger import Json, write_atomic, write_json
from openhearth.model.config import load_config
from openhearth.release import layout
from openhearth.release.manifest import WEIGHTS
from openhearth.release.weights import read_tensors

FOLDER, INDEX, MODELFILE, PARITY = "gguf", "gguf/index.json", "gguf/Modelfile", "gguf/parity.json"
FORMATS = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2)}
"""Number formats: the name in gguf's GGMLQuantizationType, and llama.cpp's file type."""
_BLOCK = 32
_PLAIN, _CONTROL = 1, 3


def require_gguf() -> str:
    """The version of the gguf package; raises HearthError, saying how to get it, where it is not installed."""
    try:
        return importlib.metadata.version("gguf")
    except importlib.metadata.PackageNotFoundError:
        raise HearthError("GGUF files need the package gguf: pip install 'openhearth[llama]'") from None


def file_of(name: str) -> str:
    """Where the file of a number format lies in a release."""
    return f"{FOLDER}/model-{name}.gguf"


def formats(text: str) -> list[str]:
    """The number formats in a list such as `f32,q8_0`; raises HearthError naming the one that is not known."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise HearthError(f"--gguf {name[:40]}: not a number format; known are {', '.join(FORMATS)}")
    return list(dict.fromkeys(names))


def add_gguf(release: Path, names: list[str]) -> None:
    """Write the files, an index of them and a Modelfile into a release."""
    version = require_gguf()
    (release / FOLDER).mkdir(exist_ok=True)
    for name in names:
        write_gguf(release, name, release / file_of(name))
    write_json(release / INDEX, {"gguf": version, "files": {name: file_of(name) for name in names}})
    write_atomic(release / MODELFILE, modelfile(names[0]).encode())


def modelfile(name: str) -> str:
    """What `ollama create` reads: the file, the chat format, where an answer ends. (Written after Ollama's documentation, not run.)"""
    from openhearth.data.tokenizer import END_OF_TEXT, IM_END, IM_START

    turns = f"{{{{ range .Messages }}}}{IM_START}{{{{ .Role }}}}\n{{{{ .Content }}}}{IM_END}\n{{{{ end }}}}"
    return (
        f'FROM ./{Path(file_of(name)).name}\nTEMPLATE """{END_OF_TEXT}{turns}{IM_START}assistant\n"""\n'
        f'PARAMETER stop "{IM_END}"\nPARAMETER stop "{END_OF_TEXT}"\n'
    )


def write_gguf(release: Path, name: str, target: Path) -> None:
    """The weights of a release in one number format, at `target`."""
    import gguf

    config = load_config(release)
    kind = gguf.GGMLQuantizationType[FORMATS[name][0]]
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_name("model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(FORMATS[name][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_tokenizer(writer, release)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config.num_layers)
    for tensor_name, tensor in read_tensors(release / WEIGHTS, WEIGHTS):
        known = names.get_name(tensor_name, try_suffixes=(".weight",))
        assert known is not None, tensor_name
        blocks = kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0)
        plain = tensor.ndim == 1 or (blocks and tensor.shape[-1] % _BLOCK) or kind == gguf.GGMLQuantizationType.F32
        if plain:
            writer.add_tensor(known, tensor)
        else:
            writer.add_tensor(known, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, release: Path) -> None:
    """Tokens in GPT-2's spelling, merges, the split regex by the name that llama.cpp has for it, marker tokens, chat format."""
    from openhearth.align.chat import JINJA_TEMPLATE
    from openhearth.data import bpe
    from openhearth.data.tokenizer import SPECIAL_TOKENS, Tokenizer

    tokenizer = Tokenizer.load(release / layout.TOKENIZER)
    spelled = [bpe.spell(bytes([byte])) for byte in range(256)] + [bpe.spell(left + right) for left, right in tokenizer.merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*spelled, *SPECIAL_TOKENS])
    writer.add_token_types([_PLAIN] * len(spelled) + [_CONTROL] * len(SPECIAL_TOKENS))
    writer.add_token_merges([f"{bpe.spell(left)} {bpe.spell(right)}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.im_end)
    writer.add_pad_token_id(tokenizer.bos)
    writer.add_add_bos_token(False)  # the chat format begins with it
    writer.add_chat_template(JINJA_TEMPLATE)


def index(content: Json) -> dict[str, str]:
    """The files in an index, by number format; raises HearthError unless it is one that is written here."""
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or any(name not in FORMATS or place != file_of(name) for name, place in files.items()):
        raise HearthError(f"{INDEX}: not an index of GGUF files")
    return files
