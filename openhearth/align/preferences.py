"""Pairs of a policy's answers, soft labels for them, and training on those (Bai et al. 2022, section 4; Rafailov et al. 2023).

Labels keep their probabilities: each pair pulls with the weight that the judge gave it (cDPO with a label of its own for each pair). What
was judged is a row with everything about where the label came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openhearth.align.chat import prompt, render
from openhearth.align.constitution import Constitution
from openhearth.align.judge import Backend, Pair, label_pairs
from openhearth.align.judge_checkpoint import Checkpoint
from openhearth.align.losses import cdpo
from openhearth.align.packing import keyed_order
from openhearth.align.revise import NEW_TOKENS, Costs, Row
from openhearth.align.supervised import FINE_TUNING, read_rows, write_rows
from openhearth.errors import HearthError
from openhearth.ledger import write_json
from openhearth.model.transformer import Transformer
from openhearth.stage import Tell
from openhearth.train.settings import GROUPS, Settings
from openhearth.train.trainer import Trainer

CHUNK = 512
"""Pairs judged between two signs of progress; what is judged is kept."""


def labelled(
    policy: Checkpoint,
    judge: Backend,
    constitution: Constitution,
    prompts: Sequence[Row],
    times: int,
    seed: int,
    judging: dict[str, Any],
    out: Path,
    tell: Tell,
    costs: Costs,
) -> list[Row]:
    """Preference rows: for each prompt `times` pairs of sampled answers that differ. Killed, it goes on with the pairs not yet judged."""
    pairs_file = out / "pairs.jsonl"
    if not pairs_file.is_file():
        asked = [[{"role": "user", "content": row["prompt"]}] for row in prompts]
        drawn = [policy.reply(asked, seed=seed + each, max_new_tokens=NEW_TOKENS) for each in range(2 * times)]
        rows = [
            {"id": f"{row['id']}/{each}", "split": row["split"], "prompt": row["prompt"], "first": a.text.strip(), "second": b.text.strip(),
             "tokens": a.tokens + b.tokens}
            for each in range(times)
            for row, a, b in zip(prompts, drawn[2 * each], drawn[2 * each + 1], strict=True)
        ]  # fmt: skip
        write_rows(pairs_file, rows)
    pairs = read_rows(pairs_file)
    costs.add("sampling", sum(row["tokens"] for row in pairs))
    pairs = [row for row in pairs if row["first"] != row["second"] and row["first"] and row["second"]]
    found: list[Row] = []
    for start in range(0, len(pairs), CHUNK):
        path = out / f"labels-{start // CHUNK:04d}.jsonl"
        if not path.is_file():
            part = [
                Pair(row["id"], row["split"], ({"role": "user", "content": row["prompt"]},), row["first"], row["second"], policy.identity)
                for row in pairs[start : start + CHUNK]
            ]
            write_rows(path, (label.row() for label in label_pairs(judge, constitution, part, seed=seed, **judging)))
        found += read_rows(path)
        tell.progress(min(start + CHUNK, len(pairs)), len(pairs))
    costs.add("judging", sum(row["tokens"] for row in found), sum(row["cost"] for row in found))
    return [row for row in found if row["label"] is not None]


@dataclass
class Curve:
    """What happened while preferences were learned, a line an update."""

    lines: list[dict[str, float]] = field(default_factory=list)

    def write(self, out: Path) -> None:
        """Leave it beside the weights."""
        write_json(out / "preference_curve.json", self.lines)

    def facts(self) -> dict[str, float]:
        """Of the last tenth: loss, how often the policy's margin has the label's sign, and the log-ratios to the reference."""
        last = self.lines[-max(1, len(self.lines) // 10) :]
        return {f"final_{name}": float(np.mean([line[name] for line in last])) for name in (last[0] if last else {})}


def prefer(
    policy: Checkpoint, rows: Sequence[Row], tuning: dict[str, Any], tell: Tell, *, seed: int
) -> tuple[dict[str, Tensor], Curve, int]:
    """DPO from the policy on soft labels; the policy before it is the reference. Gives new weights, the curve, and FLOPs of training.

    Raises HearthError when there is no row to learn from: every pair was equal, or the judge decided none.
    """
    if not rows:
        raise HearthError(
            "no pair of answers was labelled: the policy always says the same, or the judge names neither; nothing to learn from"
        )
    size = tuning["batch_pairs"]
    updates = max(1, round(tuning["epochs"] * len(rows) / size))
    settings = Settings(
        sequence_length=policy.model.config.max_position_embeddings, batch_tokens=2**20, micro_batch_tokens=2**20, steps=updates,
        learning_rate=dict.fromkeys(GROUPS, tuning["learning_rate"]), optimizer="adamw", schedule=FINE_TUNING, threads=1,
    )  # fmt: skip
    trainer = Trainer(policy.model.config, settings, dict(policy.model.named_parameters()))
    encoded = [(_encoded(row, "first", policy), _encoded(row, "second", policy)) for row in rows]
    labels = torch.tensor([row["label"] for row in rows])
    with torch.inference_mode():
        flat = [each for pair in encoded for each in pair]
        reference = torch.cat([log_probabilities(policy.model, flat[at : at + 256]) for at in range(0, len(flat), 256)]).view(-1, 2)
    curve, tokens = Curve(), 0
    order = [index for epoch in range(1 + updates * size // len(rows)) for index in keyed_order(len(rows), seed, f"preference/{epoch}")]
    for number in range(updates):
        batch = order[number * size : (number + 1) * size]
        sequences = [each for index in batch for each in encoded[index]]
        tokens += sum(len(ids) for ids, _ in sequences)
        ratios = (log_probabilities(trainer.model, sequences).view(-1, 2) - reference[batch]).T
        loss = cdpo(ratios[0], ratios[1], tuning["beta"], labels[batch]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        trainer.update(number, number)
        right = ((ratios[0] > ratios[1]) == (labels[batch] > 0.5)).float().mean()
        value = float(loss.detach())
        curve.lines.append({"loss": value, "agrees": float(right), "log_ratio": float(ratios.detach().mean())})
        tell.progress(number + 1, updates, loss=value)
    flops = round((tokens + len(flat) / len(rows) * tokens / (2 * updates)) * policy.flops_per_token * 3)
    return {name: tensor.clone() for name, tensor in trainer.flat.tensors().items()}, curve, flops


def _encoded(row: Row, which: str, policy: Checkpoint) -> tuple[list[int], int]:
    """Ids of prompt and answer, and where the answer begins."""
    asked = {"role": "user", "content": row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][0]["content"]}
    ids, mask = render([asked, {"role": "assistant", "content": row[which]}], policy.tokenizer)
    last = max(place for place, learned in enumerate(mask) if learned)
    return ids[: last + 1], len(prompt([asked], policy.tokenizer))


def log_probabilities(model: Transformer, sequences: Sequence[tuple[list[int], int]]) -> Tensor:
    """ln p(answer | prompt), summed over the answer's tokens and the marker that ends it: (sequences,) nats."""
    longest = max(len(ids) for ids, _ in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    answer = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for number, (each, start) in enumerate(sequences):
        ids[number, : len(each)] = torch.tensor(each)
        answer[number, start : len(each)] = True
    scores = model(ids)[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    summed: Tensor = (scores * answer[:, 1:]).sum(-1)
    return summed
