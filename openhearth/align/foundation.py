"""The models that Constitutional AI begins with: a base model of the world's text, and a helpful one that obeys whatever it is asked.

The helpful model also criticises, revises and compares: the paper's follows a few examples, one of under a million parameters has to be
taught the form on DEMO pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from openhearth.stage import Made, Seeded, Tell

if TYPE_CHECKING:
    from torch import Tensor

    from openhearth.train.settings import Settings

SEQUENCE = 256
"""Tokens of context: the longest dialogue of the world has half as many."""


class Base(Seeded):
    """Pretrain a small transformer on the world's text."""

    kind: ClassVar[str] = "base"
    needs: ClassVar[tuple[str, ...]] = ("world",)
    resumes: ClassVar[bool] = True

    num_layers: int = Field(default=4, ge=1, le=100)
    """Layers of the model."""
    hidden_size: int = Field(default=64, ge=32, le=8192, multiple_of=32)
    """Its width."""
    tokens: int = Field(default=2_000_000, ge=2_048, le=10**12)
    """Tokens to train on."""
    batch_tokens: int = Field(default=2_048, ge=SEQUENCE, le=2**20, multiple_of=SEQUENCE)
    """Tokens per update."""
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Peak learning rate of the matrices; a third of it for the rest."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        import numpy as np

        from openhearth.data.order import Windows
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.config import ModelConfig
        from openhearth.model.hf import tensor_shapes
        from openhearth.model.init import initial_tensor
        from openhearth.train.loop import Batch, train

        world, seed = made["world"], self.own_seed
        tokenizer = Tokenizer.load(world.path)
        ids = np.fromfile(world.path / "pretrain.tok", dtype="<u2").astype(np.int64)
        heads = self.hidden_size // 32
        config = ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=3 * self.hidden_size,
            num_layers=self.num_layers,
            num_heads=heads,
            num_kv_heads=heads,
            head_dim=32,
            max_position_embeddings=SEQUENCE,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos,
            eos_token_id=tokenizer.im_end,
        )
        settings = training(self.learning_rate, self.batch_tokens, steps=max(1, self.tokens // self.batch_tokens))
        windows, rows = Windows(ids, SEQUENCE, seed), self.batch_tokens // SEQUENCE

        def batches(step: int) -> Batch:
            return windows.sample(step * rows, (step + 1) * rows)

        def initial() -> Mapping[str, Tensor]:
            return {name: initial_tensor(name, shape, config, seed) for name, shape in tensor_shapes(config).items()}

        train(config, settings, initial, batches, out, tell, data=world.digest)


class Helpful(Seeded):
    """Teach the base model to obey, to criticise, to revise and to compare."""

    kind: ClassVar[str] = "helpful"
    needs: ClassVar[tuple[str, ...]] = ("world", "base")
    resumes: ClassVar[bool] = True

    epochs: float = Field(default=1.0, gt=0, le=1000)
    """Passes over the dialogues."""
    learning_rate: float = Field(default=0.015, gt=0, le=10)
    """Half of pretraining's, as in the paper."""
    batch_tokens: int = Field(default=2_048, ge=SEQUENCE, le=2**20, multiple_of=SEQUENCE)
    """Tokens per update."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        from openhearth.align.supervised import fine_tune, read_dialogues
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.hf import load_config, load_tensors

        config = load_config(made["base"].path)
        fine_tune(
            config,
            lambda: load_tensors(made["base"].path, config),
            read_dialogues(made["world"].path / "dialogues.jsonl"),
            Tokenizer.load(made["world"].path),
            training(self.learning_rate, self.batch_tokens),
            out,
            tell,
            epochs=self.epochs,
            seed=self.own_seed,
        )


def training(learning_rate: float, batch_tokens: int, steps: int = 1) -> Settings:
    """Settings of a training run of the chain, on one thread: so small a model gains nothing from a second."""
    from openhearth.train.settings import Settings

    third = learning_rate / 3
    rates = {"matrix": learning_rate, "embedding": third, "head": third, "gain": third}
    return Settings(
        sequence_length=SEQUENCE, batch_tokens=batch_tokens, micro_batch_tokens=batch_tokens, steps=steps, learning_rate=rates, threads=1
    )
