"""What a model writes on its way: a few samples at even shares of the run, told to whoever watches and kept in `telemetry/samples.jsonl`.

They are drawn from a copy of the weights with generators of their own: training is the same bits with them and without.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from openhearth.errors import HearthError
from openhearth.ledger import TELEMETRY, Json, write_atomic
from openhearth.model.config import ModelConfig
from openhearth.model.generate import Sampling, TextCodec, generate
from openhearth.model.transformer import Transformer
from openhearth.stage import Tell
from openhearth.train.trainer import Trainer

FILE = Path(TELEMETRY) / "samples.jsonl"
TOKENS, SHOWN = 48, 100
"""Of a sample; characters of it in a note."""


class Milestones:
    """Draws a sample after each of `count` even shares of `steps`; call it after every step."""

    def __init__(self, codec: TextCodec, config: ModelConfig, steps: int, count: int, seed: int, out: Path, tell: Tell) -> None:
        self.codec, self.config, self.seed, self.out, self.tell = codec, config, seed, out, tell
        self.shares = {round(steps * share / (count + 1)): share / (count + 1) for share in range(1, count + 1)}

    def __call__(self, step: int, trainer: Trainer) -> None:
        """Draw where `step` is a milestone. A disk that is full costs the file, not the run."""
        if step not in self.shares:
            return
        model = Transformer(self.config)
        with torch.no_grad():
            for name, tensor in trainer.flat.tensors().items():
                model.get_parameter(name).copy_(tensor)
        sampling = Sampling(max_new_tokens=min(TOKENS, self.config.max_position_embeddings - 1), seed=self.seed)
        text = generate(model, self.codec, [[self.codec.bos]], sampling)[0].text
        self.tell.note(f"after {self.shares[step]:.0%} it writes: {json.dumps(text[:SHOWN], ensure_ascii=False)}")
        self._keep({"step": step, "seed": self.seed, "temperature": sampling.temperature, "text": text})

    def _keep(self, row: Json) -> None:
        path = self.out / FILE
        lines = path.read_text().splitlines() if path.is_file() else []
        earlier = [line for line in lines if json.loads(line)["step"] < row["step"]]
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, "".join(f"{line}\n" for line in [*earlier, json.dumps(row, ensure_ascii=False)]).encode())
        except (HearthError, OSError) as error:
            self.tell.note(f"{error}; the sample is not kept")
