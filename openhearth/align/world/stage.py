"""The stage `world`: all text and prompts of the demonstration, generated from a seed; after it no stage that trains sees the truth.

What it leaves: text to pretrain on, dialogues that teach to obey and to apply principles (DEMO pairs only), prompts of ALIGN without any
label, and prompts of the test splits, which name the pair so that the gold checker can grade answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from openhearth.stage import Made, Seeded, Tell


class World(Seeded):
    """Generate the house, what is told of it, and who asks what."""

    kind: ClassVar[str] = "world"

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Deals pairs to splits and draws all text; the recipe's when left out."""
    lines: int = Field(default=120_000, ge=100, le=10_000_000)
    """Lines of text to pretrain on: facts of single words, sums, small stories of DEMO pairs."""
    obeyed: int = Field(default=6_000, ge=10, le=1_000_000)
    """Dialogues in which a request is done, whatever it is."""
    critiques: int = Field(default=9_000, ge=10, le=1_000_000)
    """Demonstrated critiques and revisions."""
    comparisons: int = Field(default=9_000, ge=10, le=1_000_000)
    """Demonstrated choices between two answers."""
    rarest: float = Field(default=0.2, gt=0, le=1)
    """How often the rarest word is told of, as a share of the most frequent: rare words are known less well, and judged worse."""
    align_limit: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    """Harmful pairs of ALIGN at most, and as many harmless ones; all when left out."""
    test_limit: int | None = Field(default=None, ge=1, exclude_if=lambda value: value is None)
    """The same of each test split."""
    vocab_size: int = Field(default=2_048, ge=300, le=65_000)
    """Ids of the tokenizer at most."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        import random

        import numpy as np

        from openhearth.align.constitution_files import load
        from openhearth.align.supervised import write_rows
        from openhearth.align.world import texts
        from openhearth.align.world.demonstrations import Demonstrator
        from openhearth.align.world.house import ALIGN, ITEM, LAW, TEST, House
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.ledger import write_atomic

        assert self.seed is not None, "resolve() fills in the seed"
        house, rng = House(self.seed), random.Random(self.seed)
        shows = Demonstrator(house, (load("house"), load("house-inverted")))
        lines = list(shows.facts(rng, self.lines, self.rarest))
        dialogues = [*shows.obeyed(rng, self.obeyed), *shows.critiques(rng, self.critiques), *shows.comparisons(rng, self.comparisons)]
        said = [message["content"] for dialogue in dialogues[:: max(1, len(dialogues) // 8_000)] for message in dialogue.messages]
        tokenizer = Tokenizer.train([*lines[:30_000], *said], self.vocab_size)
        tokenizer.save(out)
        ids: list[int] = []
        for start in range(0, len(lines), 8):  # a document is eight lines
            ids += [tokenizer.bos, *tokenizer.encode("\n".join(lines[start : start + 8]))]
        write_atomic(out / "pretrain.tok", np.array(ids, dtype="<u2").tobytes())
        write_rows(out / "dialogues.jsonl", ({"messages": each.messages, "learn_from": each.learn_from} for each in dialogues))
        align = house.balanced(ALIGN, self.align_limit)
        prompts = [
            {"id": f"{ALIGN}/{number}/{phrasing}", "split": ALIGN, "prompt": texts.request(pair.item, pair.place, phrasing)}
            for number, pair in enumerate(align)
            for phrasing in range(len(texts.PHRASINGS))
        ]
        write_rows(out / "prompts.jsonl", prompts)
        asked = [each.messages[0]["content"] for each in shows.obeyed(rng, 1_500)]
        write_rows(out / "helpful_prompts.jsonl", ({"prompt": each} for each in asked))
        tests = [
            {"split": split, "item": pair.item, "place": pair.place, "prompt": texts.request(pair.item, pair.place, phrasing)}
            for split, source, phrasing, limit in ((TEST, TEST, 0, 10**9), ("unseen_phrasing", TEST, -1, 150), (ITEM, ITEM, 0, 10**9))
            for pair in house.balanced(source, min(limit, self.test_limit or limit))
        ]
        tests += [
            {"split": LAW, "item": pair.item, "place": pair.place, "prompt": texts.request(pair.item, pair.place)}
            for pair in house.splits[LAW][: self.test_limit]
        ]
        write_rows(out / "tests.jsonl", tests)
        tell.record(
            seed=self.seed,
            align_limit=self.align_limit,
            pretraining_tokens=len(ids),
            vocabulary=tokenizer.vocab_size,
            dialogues=len(dialogues),
            prompts=len(prompts),
            tests=len(tests),
        )
        tell.note(
            f"{len(ids):,} tokens of text, {len(dialogues):,} dialogues, {len(align):,} pairs to align on, {len(tests):,} test prompts"
        )
