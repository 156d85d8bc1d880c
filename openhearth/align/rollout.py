"""Sampling answers from the policy that is being trained: the same weights in the same process, many prompts at once, with a KV cache.

What a response is drawn by depends on (seed, iteration, its number) alone: one uniform number per token, taken through the cumulated
probabilities. The log-probabilities that training uses are not the sampler's: the training forward computes them again, on the rows that
it then trains on, so the ratio to the policy that sampled is exactly 1 at the first update. The sampler's own, which differ by the
rounding of another order of sums, are kept to measure that difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openhearth.errors import HearthError
from openhearth.model.transformer import KVCache, Transformer


@dataclass
class Response:
    """One answer: its ids without the end, the log-probability of each and of the end, and the id that ended it (None: it was cut)."""

    ids: list[int]
    log_probs: list[float]
    end: int | None = None


def uniforms(seed: int, iteration: int, count: int, tokens: int) -> np.ndarray:
    """Numbers in [0, 1), (count, tokens) fp64: row i is the same whatever `count` is, on every machine."""
    rows = []
    for number in range(count):
        source = np.random.Philox(key=np.array([seed, (iteration << 32) + number], dtype=np.uint64))
        rows.append((source.random_raw(tokens) >> np.uint64(11)).astype(np.float64) / 2.0**53)
    return np.stack(rows)


@torch.inference_mode()
def sample(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    draws: np.ndarray,
    end: Sequence[int],
    temperature: float = 1.0,
) -> list[Response]:
    """One response to each prompt, at most as many tokens as `draws` (prompts, tokens) has columns; any id of `end` ends it.

    Rows that ended leave the batch once it is half empty. Raises HearthError when a prompt leaves no room in the model's context.
    """
    context, most = model.config.max_position_embeddings, draws.shape[1]
    longest = max(map(len, prompts))
    if longest + most > context:
        raise HearthError(f"a prompt of {longest:,} tokens with {most:,} more is longer than the model's context of {context:,}")
    responses = [Response([], []) for _ in prompts]
    rows = np.arange(len(prompts))
    ids = torch.full((len(prompts), longest), end[0])
    positions = torch.zeros(len(prompts), longest, dtype=torch.long)
    cache = KVCache(model.config, len(prompts), longest + most)
    for place, prompt in enumerate(prompts):
        start = longest - len(prompt)
        ids[place, start:] = torch.tensor(list(prompt))
        positions[place, start:] = torch.arange(len(prompt))
        cache.valid_BS[place, start:longest] = True
    done = np.zeros(len(prompts), dtype=bool)
    logits_BV = model.lm_head(model.hidden(ids, cache, positions)[:, -1]).float()
    following = positions[:, -1:] + 1
    for step in range(most):
        log_probs_BV = (logits_BV / temperature).log_softmax(-1)
        chosen = _draw(log_probs_BV, draws[rows, step])
        taken = log_probs_BV.gather(1, chosen[:, None])[:, 0].tolist()
        for place, (row, token) in enumerate(zip(rows.tolist(), chosen.tolist(), strict=True)):
            if done[place]:
                continue
            responses[row].log_probs.append(taken[place])
            if token in end:
                responses[row].end, done[place] = token, True
            else:
                responses[row].ids.append(token)
        if done.all() or step + 1 == most:
            break
        if done.sum() * 2 >= len(done):
            left = torch.from_numpy(np.flatnonzero(~done))
            cache.keys, cache.values, cache.valid_BS = cache.keys[:, left], cache.values[:, left], cache.valid_BS[left]
            rows, chosen, following, done = rows[left.numpy()], chosen[left], following[left], np.zeros(len(left), dtype=bool)
        cache.valid_BS[:, cache.length] = True
        logits_BV = model.lm_head(model.hidden(chosen[:, None], cache, following)[:, -1]).float()
        following = following + 1
    return responses


def _draw(log_probs_BV: Tensor, uniform_B: np.ndarray) -> Tensor:
    """One id per row by its uniform number, through the cumulated probabilities in fp64."""
    cumulated = log_probs_BV.double().exp().cumsum(-1)
    wanted = torch.from_numpy(uniform_B)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, wanted, right=True)[:, 0].clamp(max=log_probs_BV.shape[1] - 1)
