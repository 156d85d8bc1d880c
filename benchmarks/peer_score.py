"""Scores a trained peer on the held-out texts; runs in a process of its own, beside the peer's modules.

    python peer_score.py nanogpt|nanochat TEXTS.json OUT.json NAME

The peer's own code loads its model and its vocabulary: nanoGPT's sample.py (NAME is its out_dir) or nanochat's load_model (NAME is
the tag of its checkpoint). The texts are then scored by the function that scores our models, `openhearth.evaluate.bits_per_byte.nats`:
every token once, windows as long as the peer's context, half of each window overlapping the one before.
"""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from openhearth.evaluate.bits_per_byte import nats

if TYPE_CHECKING:
    from openhearth.model.transformer import Transformer


@dataclass(frozen=True)
class Trained:
    """A peer's model in the form in which `nats` asks a model: `hidden` and `lm_head`, whose product is the logits."""

    logits: Callable[[torch.Tensor], torch.Tensor]
    """ids (batch, sequence) to logits (batch, sequence, vocabulary)."""
    encode: Callable[[str], list[int]]
    bos: int
    context: int
    parameters: int
    bos_leads: bool
    """Whether every training row began with the bos, so that every window has to as well."""

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        ids = ids.clone()
        if self.bos_leads:
            ids[:, 0] = self.bos
        return self.logits(ids)

    def lm_head(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


def nanogpt(out_dir: str) -> Trained:
    """sample.py, asked for no samples, leaves the model and the vocabulary in its names. A line break stands before each text."""
    sys.path.insert(0, "")
    sys.argv = ["sample.py", f"--out_dir={out_dir}", "--device=cpu", "--num_samples=0"]
    names: dict[str, Any] = runpy.run_path("sample.py")
    model, encode = names["model"], names["encode"]
    return Trained(
        logits=lambda ids: model(ids, ids)[0],  # without targets it gives the logits of the last position alone
        encode=encode,
        bos=encode("\n")[0],
        context=model.config.block_size,
        parameters=sum(weights.numel() for weights in model.parameters()),
        bos_leads=False,
    )


def nanochat(tag: str) -> Trained:
    """load_model gives the model, its tokenizer and the settings of its training."""
    load_model = importlib.import_module("nanochat.checkpoint_manager").load_model  # in the peer's own folder

    model, tokenizer, facts = load_model("base", torch.device("cpu"), phase="eval", model_tag=tag)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        short = ids.shape[1] < 2  # it refuses rows of one token
        found: torch.Tensor = model(torch.nn.functional.pad(ids, (0, 1)) if short else ids)
        return found[:, :1] if short else found

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text)
        assert tokenizer.enc.decode_bytes(ids) == text.encode(), "nanochat's tokenizer does not give a text back byte for byte"
        return ids

    return Trained(
        logits=logits,
        encode=encode,
        bos=tokenizer.get_bos_token_id(),
        context=facts["model_config"]["sequence_len"],
        parameters=sum(weights.numel() for weights in model.parameters()),
        bos_leads=True,
    )


def main() -> None:
    program, texts, out, name = sys.argv[1:]
    trained = {"nanogpt": nanogpt, "nanochat": nanochat}[program](name)
    ids: list[npt.NDArray[np.int64]] = [np.asarray(trained.encode(text), dtype=np.int64) for text in json.loads(Path(texts).read_text())]
    found = nats(cast("Transformer", trained), ids, trained.bos, trained.context, max(1, trained.context // 2))
    facts = {"nats": found.tolist(), "tokens": sum(map(len, ids)), "context": trained.context, "parameters": trained.parameters}
    Path(out).write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
