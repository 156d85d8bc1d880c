"""A decoder of so many parameters, where nobody tells its shape: the usual proportions, and the feed-forward wide enough to meet the count.

Published decoders from 1B to 405B have layers of 100 to 130 times as much width as there are layers, heads of 128, and a gated
feed-forward. What a step costs depends on the count far more than on the proportions, which is why a guess is good enough to plan time
by.
"""

from __future__ import annotations

from openhearth.errors import HearthError
from openhearth.plan.shapes import Experts, Shape

WIDTH_PER_LAYER = 128
HEAD = 128
VOCABULARY = 50_304
EXPERTS = 64
"""Of a mixture in each layer; the part that a token meets is made up by their number per token and one shared expert."""
TIED_BELOW = 2e9
"""Smaller models share the embedding with the head, of which they would otherwise consist."""


def decoder(parameters: float, active: float | None = None, *, vocab_size: int = VOCABULARY) -> Shape:
    """A shape of these parameters to about 0.1 %; with `active` parameters per token fewer, a mixture of experts.

    Raises HearthError for counts at or below zero, or active above all.
    """
    dense = parameters if active is None else active
    if not 0 < dense <= parameters < 1e16:
        raise HearthError(
            f"parameters {parameters:g}{'' if active is None else f', active {active:g}'}: must be above zero, active at most all"
        )
    tied = dense < TIED_BELOW
    vocab_size = min(vocab_size, 64 * max(1, int(0.2 * dense ** (2 / 3) / 64)))  # a small model has a small vocabulary
    tables = vocab_size * (1 if tied else 2)
    hidden, layers = _proportions(dense, tables)
    attention, ends = layers * 4 * hidden**2, tables * hidden
    inside = max(8.0, (dense - attention - ends) / (3 * layers * hidden))  # feed-forward width that a token meets
    experts = None
    if active is not None and active < 0.99 * parameters:
        everything = (parameters - attention - ends) / (3 * layers * hidden)
        chosen = max(1, int(EXPERTS * inside / everything))
        width = max(1, round((everything - inside) / (EXPERTS - chosen)))
        shared = max(0, round(inside - chosen * width))
        experts = Experts(count=EXPERTS, per_token=chosen, intermediate_size=width, shared_intermediate_size=shared, layers=layers)
    return Shape(
        model_type="decoder",
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=max(1, hidden // HEAD),
        num_kv_heads=max(1, hidden // HEAD),
        head_dim=min(hidden, HEAD),
        intermediate_size=max(8, round(inside)),
        tie_word_embeddings=tied,
        experts=experts,
        notes=(f"a decoder of the usual proportions: {layers} layers of {hidden:,}",),
    )


def _proportions(parameters: float, tables: int) -> tuple[int, int]:
    """(hidden size, layers), both of numbers that parallel ranks divide; narrower where the tables of a small model would fill it."""
    ideal = (parameters / (12 * WIDTH_PER_LAYER**2)) ** (1 / 3)
    unit = 1024 if ideal >= 14 else 256 if ideal >= 4 else 64
    hidden = max(unit, unit * round(WIDTH_PER_LAYER * ideal / unit))
    while hidden > 16 and tables * hidden > 0.5 * parameters:
        hidden //= 2
    layers = max(0.0, parameters - tables * hidden) / (12 * hidden**2)
    return hidden, max(2, 8 * round(layers / 8) if layers >= 12 else round(layers))
