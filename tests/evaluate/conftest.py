"""A small real tokenizer and a small real model with random weights."""

from __future__ import annotations

import inspect
import textwrap

import pytest
import torch

from openhearth.data.tokenizer import Tokenizer
from openhearth.model.config import ModelConfig
from openhearth.model.init import initialise
from openhearth.model.transformer import Transformer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([inspect.getsource(textwrap)], 400)


def small_model(vocab_size: int, context: int = 64, seed: int = 0) -> Transformer:
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        max_position_embeddings=context,
    )
    model = Transformer(config)
    initialise(model, config, seed)
    with torch.no_grad():  # far from uniform, so that a wrong context shows
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    return small_model(tokenizer.vocab_size)
