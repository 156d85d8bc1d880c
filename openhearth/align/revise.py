"""The supervised stage's data: a response, then critique and revision by a drawn principle, a few times over (Bai et al. 2022, section 3).

All revisions are kept, with the critique and the principle that led to each. A round is one file, so that a run that is killed repeats
at most one round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openhearth.align.constitution import Constitution, Message, drawn
from openhearth.align.judge import Backend, Reply
from openhearth.align.supervised import read_rows, write_rows
from openhearth.stage import Tell

NEW_TOKENS = 40
Row = dict[str, Any]


@dataclass
class Costs:
    """What sampling and judging took; training counts for itself."""

    flops_per_token: float
    tokens: dict[str, int] = field(default_factory=lambda: {"sampling": 0, "judging": 0})
    cost: float = 0.0

    def add(self, what: str, tokens: int, cost: float = 0.0) -> None:
        """`what` is sampling or judging."""
        self.tokens[what] += tokens
        self.cost += cost

    @property
    def flops(self) -> int:
        """Forward passes over all tokens that were read or written."""
        return round(sum(self.tokens.values()) * self.flops_per_token)

    def facts(self) -> Row:
        """For the ledger."""
        return {f"{what}_tokens": count for what, count in self.tokens.items()} | {
            f"{what}_flops": round(count * self.flops_per_token) for what, count in self.tokens.items()
        }


def revise(
    model: Backend, constitution: Constitution, prompts: Sequence[Row], rounds: int, seed: int, out: Path, tell: Tell, costs: Costs
) -> list[Row]:
    """Every revision of every prompt as rows {id, prompt, round, principle, before, critique, text}; round 0 is the first response.

    A revision that comes out empty is not kept: the response before it stands.
    """
    asked: list[list[Message]] = [[{"role": "user", "content": row["prompt"]}] for row in prompts]
    kept: list[Row] = []
    before: list[str] = []
    for number in range(rounds + 1):
        path = out / f"round-{number}.jsonl"
        if not path.is_file():
            rows = _round(model, constitution, prompts, asked, before, number, seed)
            write_rows(path, rows)
        rows = read_rows(path)
        costs.add("sampling", sum(row["tokens"] for row in rows))
        before = [row["text"] for row in rows]
        kept += rows if number else []
        tell.progress(number + 1, rounds + 1, round=float(number))
    return kept


def _round(
    model: Backend,
    constitution: Constitution,
    prompts: Sequence[Row],
    asked: list[list[Message]],
    before: list[str],
    number: int,
    seed: int,
) -> list[Row]:
    if number == 0:
        first = model.reply(asked, seed=seed, max_new_tokens=NEW_TOKENS)
        return [_row(row, 0, "", "", "", reply) for row, reply in zip(prompts, first, strict=True)]
    principles = [drawn(constitution.critics, seed, "revision", row["id"], number) for row in prompts]
    critiques = model.reply(
        [constitution.critique_turns(*each) for each in zip(asked, before, principles, strict=True)],
        seed=seed + 2 * number,
        max_new_tokens=NEW_TOKENS,
    )
    written = [critique.text.strip() or "-" for critique in critiques]
    revisions = model.reply(
        [constitution.revision_turns(*each) for each in zip(asked, before, principles, written, strict=True)],
        seed=seed + 2 * number + 1,
        max_new_tokens=NEW_TOKENS,
    )
    rows = []
    for row, old, principle, critique, said, revision in zip(prompts, before, principles, critiques, written, revisions, strict=True):
        text = revision.text.strip() or old
        rows.append(_row(row, number, principle.id, old, said, Reply(text, critique.tokens + revision.tokens)))
    return rows


def _row(prompt: Row, number: int, principle: str, before: str, critique: str, reply: Reply) -> Row:
    text = reply.text.strip() or "-"
    found = {"round": number, "principle": principle, "before": before, "critique": critique, "text": text, "tokens": reply.tokens}
    return {"id": prompt["id"], "split": prompt["split"], "prompt": prompt["prompt"], **found}


def helpful_samples(model: Backend, prompts: Sequence[str], seed: int, out: Path, costs: Costs) -> list[Row]:
    """The helpful model's own answers to helpfulness prompts, which keep the fine-tuned model helpful."""
    path = out / "helpful_samples.jsonl"
    if not path.is_file():
        replies = model.reply([[{"role": "user", "content": prompt}] for prompt in prompts], seed=seed, max_new_tokens=NEW_TOKENS)
        answered = [
            {"prompt": prompt, "text": reply.text.strip() or "-", "tokens": reply.tokens}
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        write_rows(path, answered)
    rows = read_rows(path)
    costs.add("sampling", sum(row["tokens"] for row in rows))
    return rows
