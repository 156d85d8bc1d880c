"""Does a release load in the programs that people use, and say the same there? Only asked when everything else holds."""

from __future__ import annotations

from pathlib import Path

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import read_json
from openhearth.release import gguf, layout, llama

MOST_DIFFERENCE = 1e-4
"""Of a logit in fp32."""


def in_transformers(release: Path) -> str:
    """Logits of transformers beside ours, on hostile texts; raises DamagedError when they differ. No code of the folder is run."""
    try:
        import transformers
    except ImportError:
        raise HearthError("transformers is not installed: pip install 'openhearth[hf]'") from None
    import torch

    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.hf import load_model

    options = {"local_files_only": True, "trust_remote_code": False}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(release, use_safetensors=True, dtype=torch.float32, **options)
    theirs.eval()  # type: ignore[no-untyped-call]
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(release, **options)
    ours, tokenizer = load_model(release), Tokenizer.load(release / layout.TOKENIZER)
    texts = [text for text in llama.hostile_texts(60) if text and "<|" not in text]  # transformers reads the names of markers as markers
    largest = 0.0
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer.encode(text)[: ours.config.max_position_embeddings]
            if their_tokenizer.encode(text, add_special_tokens=False)[: len(ids)] != ids:
                raise DamagedError(f"{layout.TOKENIZER}: {text[:20]!r} has other ids in transformers")
            asked = torch.tensor([ids])
            largest = max(largest, float((theirs(asked).logits - ours(asked)).abs().max()))
    if not largest < MOST_DIFFERENCE:
        raise DamagedError(f"model.safetensors: logits differ by {largest:.2g} in transformers; at most {MOST_DIFFERENCE} is expected")
    return f"transformers {transformers.__version__}: {len(texts)} texts with equal ids, logits within {largest:.1e}"


def in_llama(release: Path) -> str:
    """What llama.cpp makes of the GGUF files; raises DamagedError when an F32 file is not read alike."""
    llama.require_llama()
    found = [llama.compare(release, name) for name in gguf.index(read_json(release / gguf.INDEX))]
    for one in found:
        if one.fault:
            raise DamagedError(one.fault)
    return "; ".join(str(one) for one in found)
