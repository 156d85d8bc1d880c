"""A model of ours as generator and judge, by its exact logits. Batches of like length; an answer does not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from openhearth.align.chat import prompt
from openhearth.align.judge import Choice, Conversation, Reply, identity_of, normalised
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.ledger import digest_file
from openhearth.model.generate import generate
from openhearth.model.hf import WEIGHTS, load_model
from openhearth.model.sampling import Sampling
from openhearth.model.transformer import Transformer

BATCH = 256
"""Conversations answered at once."""


class Checkpoint:
    """Weights and a tokenizer in memory."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, digest: str) -> None:
        self.model, self.tokenizer, self.digest = model.eval(), tokenizer, digest

    @classmethod
    def open(cls, weights: Path, tokenizer: Path) -> Checkpoint:
        """The model in one folder and the tokenizer in another (or the same)."""
        return cls(load_model(weights), Tokenizer.load(tokenizer), digest_file(weights / WEIGHTS))

    @property
    def identity(self) -> str:
        """Named by the digest of the weights' file."""
        return identity_of("checkpoint", weights=self.digest)

    @property
    def flops_per_token(self) -> float:
        """2 x matmul parameters + attention: a third of training's (model.config)."""
        config = self.model.config
        return config.flops_per_token(config.max_position_embeddings // 2) / 3

    def reply(self, conversations: Sequence[Conversation], *, seed: int, max_new_tokens: int, temperature: float = 1.0) -> list[Reply]:
        """One sampled answer each."""
        prompts = [prompt(each, self.tokenizer) for each in conversations]
        replies: list[Reply | None] = [None] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for number, answer in zip(
                batch, generate(self.model, self.tokenizer, [prompts[each] for each in batch], sampling), strict=True
            ):
                tokens = len(prompts[number]) + len(answer.ids)
                replies[number] = Reply(answer.text, tokens, truncated=answer.reason != "stop")
        return [each for each in replies if each is not None]

    @torch.inference_mode()
    def choose(self, conversations: Sequence[Conversation], choices: tuple[str, str], *, seed: int) -> list[Choice]:
        """By the log-probability of each whole choice; nothing is drawn."""
        options = [self.tokenizer.encode(choice) for choice in choices]
        if options[0] == options[1]:
            raise HearthError(f"the choices {choices[0]!r} and {choices[1]!r} are the same tokens; give two that differ")
        rows = [prompt(each, self.tokenizer) for each in conversations]
        found: list[Choice] = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            scores = [self._log_probabilities(batch, option) for option in options]
            for row, first, second in zip(batch, *scores, strict=True):
                found.append(Choice(normalised(first, second), "logits", (first, second), len(row) + len(options[0])))
        return found

    def _log_probabilities(self, rows: Sequence[Sequence[int]], option: Sequence[int]) -> list[float]:
        """ln p(option | row), summed over the option's tokens."""
        longest = max(map(len, rows)) + len(option)
        if longest > self.model.config.max_position_embeddings:
            raise HearthError(f"a question has {longest:,} tokens; the judge's context holds {self.model.config.max_position_embeddings:,}")
        ids = torch.full((len(rows), longest), self.tokenizer.bos)
        for number, row in enumerate(rows):  # padding comes after what is read, where causal attention does not look
            ids[number, : len(row) + len(option)] = torch.tensor([*row, *option])
        hidden = self.model.hidden(ids)
        places = torch.tensor([len(row) for row in rows])[:, None] + torch.arange(len(option))
        logits = self.model.lm_head(hidden[torch.arange(len(rows))[:, None], places - 1]).float().log_softmax(-1)
        return [float(value) for value in logits.gather(-1, ids.gather(1, places)[..., None]).sum((1, 2))]
