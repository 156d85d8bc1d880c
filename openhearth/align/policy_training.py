"""Reinforcement learning: one iteration samples answers, rewards them, turns rewards into advantages and takes a few updates.

An iteration is one step of the training loop and a pure function of (weights, optimiser, iteration number), so a run that was killed in the
middle of sampling, rewarding or updating does that iteration again to the same bits. Figures of each iteration are written to
`rollouts.jsonl` when it is done, seconds to `telemetry/rollouts.jsonl`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from openhearth.align import advantages, policy_losses
from openhearth.align.policy import Scored, frozen, log_probs_of, read
from openhearth.align.rewards import Answer, Reward, checked, weighted_sum
from openhearth.align.rollout import Response, sample, uniforms
from openhearth.data.tokenizer import Tokenizer
from openhearth.ledger import TELEMETRY
from openhearth.model.config import ModelConfig
from openhearth.train.settings import Settings
from openhearth.train.trainer import Batch, Trainer

Algorithm = Literal["ppo", "reinforce", "rloo", "grpo", "dr_grpo", "dapo"]
ROWS = "rollouts.jsonl"


@dataclass(frozen=True)
class Policy:
    """What an iteration does; `rl.py` documents each as a setting."""

    algorithm: Algorithm = "grpo"
    group: int = 8
    beta: float = 0.04
    epochs: int = 1
    minibatches: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    temperature: float = 1.0
    max_new_tokens: int = 128
    overlong_buffer: int = 0
    gamma: float = 1.0
    lam: float = 0.95
    value_weight: float = 0.1
    value_clip: float = 0.2
    seed: int = 0

    @property
    def penalty_in_reward(self) -> bool:
        """Whether beta x KL is taken from the reward (ppo, reinforce, rloo), and not added to the loss."""
        return self.algorithm in ("ppo", "reinforce", "rloo")


@dataclass(frozen=True)
class Task:
    """A prompt, and what its rewards compare with."""

    question: str
    reference: str
    prompt_ids: list[int]


@dataclass(frozen=True)
class Scoring:
    """Where rewards come from: the weighted sum that is trained on, and one that is only watched."""

    rewards: Mapping[str, tuple[float, Reward]]
    gold: Reward | None = None
    flops_per_token: int = 0
    """Of a reward model; 0 for functions."""


class PolicyTrainer(Trainer):
    """A policy, its frozen reference and its rewards."""

    def __init__(
        self, config: ModelConfig, settings: Settings, initial: Mapping[str, Tensor], policy: Policy, tasks: Sequence[Task],
        tokenizer: Tokenizer, scoring: Scoring, out: Path,
    ) -> None:  # fmt: skip
        super().__init__(config, settings, initial)
        self.reference = frozen(config, initial)
        self.policy, self.tasks, self.tokenizer, self.scoring, self.out = policy, tasks, tokenizer, scoring, out
        self.rest: list[Batch] = []
        self.row: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}

    # -- an iteration -------------------------------------------------------------------------------------------------------

    def gradient(self, batch: Batch) -> tuple[float, float]:
        """Sample, reward and prepare the updates of an iteration; the gradient of the first."""
        iteration, numbers = int(batch[2][0]), batch[3]
        _forget_from(self.out, iteration)
        began = time.monotonic()
        asked = [self.tasks[int(number)] for number in numbers for _ in range(self.policy.group)]
        draws = uniforms(self.policy.seed, iteration, len(asked), self.policy.max_new_tokens)
        ends = (self.tokenizer.im_end, self.tokenizer.bos)
        responses = sample(self.model, [task.prompt_ids for task in asked], draws, ends, self.policy.temperature)
        sampled = time.monotonic()
        answers = [
            Answer(task.question, task.reference, self.tokenizer.decode(one.ids), task.prompt_ids, one.ids, one.end is not None)
            for task, one in zip(asked, responses, strict=True)
        ]
        total, parts = weighted_sum(self.scoring.rewards, answers)
        gold = checked("gold", self.scoring.gold, answers) if self.scoring.gold is not None else None
        rewarded = time.monotonic()
        minibatches = self._prepare(asked, responses, total)
        self.rest = [one for _ in range(self.policy.epochs) for one in minibatches]
        self._note(iteration, answers, total, parts, gold)
        self.seconds = {"sampling": sampled - began, "rewards": rewarded - sampled, "preparing": time.monotonic() - rewarded}
        return super().gradient(self.rest.pop(0))

    def update(self, number: int, updates: int) -> None:
        """The updates of an iteration, then its row."""
        began, each, done = time.monotonic(), 1 + len(self.rest), 0
        super().update(number, updates * each)
        while self.rest:
            super().gradient(self.rest.pop(0))
            done += 1
            super().update(number, updates * each + done)
        self.seconds["updates"] = time.monotonic() - began
        _append(self.out / ROWS, self.row)
        _append(self.out / TELEMETRY / ROWS, {"iteration": self.row["iteration"], **self.seconds})
        self.figures = {name: self.row[name] for name in ("reward", "kl", "length", "entropy")}

    def _prepare(self, asked: Sequence[Task], responses: Sequence[Response], total: Sequence[float]) -> list[Batch]:
        """The minibatches of an iteration; log-probabilities of policy and reference are computed on the rows that are trained on."""
        its, group = self.policy, self.policy.group
        count, width = len(asked), max(len(task.prompt_ids) + len(one.log_probs) - 1 for task, one in zip(asked, responses, strict=True))
        inputs = np.full((count, width), self.tokenizer.bos, dtype=np.int64)
        targets = np.full_like(inputs, -1)
        own = np.zeros((count, width), dtype=np.float32)
        for row, (task, one) in enumerate(zip(asked, responses, strict=True)):
            ids, start = [*task.prompt_ids, *one.ids, *([] if one.end is None else [one.end])], len(task.prompt_ids) - 1
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, start : len(ids) - 1] = ids[start + 1 :]
            own[row, start : len(ids) - 1] = one.log_probs
        mask, score = torch.from_numpy(targets >= 0), torch.tensor(total, dtype=torch.float32)
        prompts = count // group
        size = -(-prompts // its.minibatches) * group
        old, entropy, reference, values = self._read_all(inputs, targets, size)
        ratio = old - reference
        if its.overlong_buffer:
            score = score + advantages.overlong_penalty(mask.sum(1), its.max_new_tokens, its.overlong_buffer)
        returns = values
        if its.algorithm == "ppo":
            scored = advantages.kl_penalised_rewards(score, ratio, mask, its.beta)
            found, returns = advantages.gae(scored, values, mask, its.gamma, its.lam)
            advantage = advantages.whiten(found, mask)
        else:
            if its.penalty_in_reward:
                score = advantages.kl_penalised_scores(score, ratio, mask, its.beta)
            advantage = self._of_responses(score).flatten()[:, None] * mask
        informative = advantages.informative_groups(score.view(-1, group))
        kept = mask & informative.repeat_interleave(group)[:, None] if its.algorithm == "dapo" else mask
        flops = self.config.flops_per_token(width)
        tokens = count * width
        self.row = {
            "kl": float(ratio.sum(1).mean()),
            "kl_k3": float((advantages.k3(ratio) * mask).sum(1).mean()),
            "entropy": float((policy_losses.token_mean(mask) * entropy).sum()),
            "length": float(mask.sum(1).float().mean()),
            "ended": float(np.mean([one.end is not None for one in responses])),
            "informative": float(informative.float().mean()),
            "sampler_difference": float((torch.from_numpy(own) - old).abs().max()),
            "prompt_tokens": sum(len(task.prompt_ids) for task in asked),
            "sampled_tokens": int(mask.sum()),
            "trained_tokens": tokens * its.epochs,
            "flops_sampling": sum(len(t.prompt_ids) + len(r.log_probs) for t, r in zip(asked, responses, strict=True)) * flops // 3,
            "flops_rewards": tokens * self.scoring.flops_per_token // 3,
            "flops_training": tokens * its.epochs * flops + 2 * tokens * flops // 3,
        }
        every = (inputs, targets, *(each.numpy() for each in (old, advantage, kept, reference, values, returns)))
        return [tuple(array[at : at + size] for array in every) for at in range(0, count, size)]

    def _of_responses(self, score_B: Tensor) -> Tensor:
        groups = score_B.view(-1, self.policy.group)
        if self.policy.algorithm == "reinforce":  # the baseline of a response is the mean of all others, whatever their prompt
            return advantages.rloo(score_B[None])
        if self.policy.algorithm == "rloo":
            return advantages.rloo(groups)
        return advantages.dr_grpo(groups) if self.policy.algorithm == "dr_grpo" else advantages.grpo(groups)

    def _micro_rows(self, width: int) -> int:
        return max(1, self.settings.micro_batch_tokens // width)

    @torch.no_grad()
    def _read_all(self, inputs: np.ndarray, targets: np.ndarray, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ln pi, entropy, ln pi_ref and values of all rows, (B, S) each, in the micro-batches in which they will be trained on."""
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        rows = self._micro_rows(inputs.shape[1])
        for first in range(0, len(inputs), size):
            last = min(first + size, len(inputs))
            for at in range(first, last, rows):
                part = slice(at, min(at + rows, last))
                ids, wanted = torch.from_numpy(inputs[part]), torch.from_numpy(targets[part])
                log_probs, entropy, hidden = read(self.model, ids, wanted, self.policy.temperature)
                reference = log_probs_of(self.reference, ids, wanted, self.policy.temperature)
                found.append((log_probs, entropy, reference, self.values(hidden, wanted)))
        old, entropy, reference, values = (torch.cat(each) for each in zip(*found, strict=True))
        return old, entropy, reference, values

    def values(self, hidden_BSD: Tensor, targets_BS: Tensor) -> Tensor:
        """The critic's values where a token is chosen, else 0; zeros without a critic."""
        if not isinstance(self.model, Scored):
            return torch.zeros(targets_BS.shape)
        return torch.where(targets_BS >= 0, self.model.score(hidden_BSD)[..., 0].float(), 0.0)

    # -- the loss of a minibatch --------------------------------------------------------------------------------------------

    def pieces(self, batch: Batch) -> list[Callable[[], Tensor]]:
        weights = self._weights(torch.from_numpy(batch[4])).numpy()
        rows = self._micro_rows(batch[0].shape[1])

        def piece(at: int) -> Tensor:
            part = slice(at, at + rows)
            inputs, targets, old, advantage, _, reference, values, returns = (torch.from_numpy(each[part]) for each in batch)
            return self._loss(inputs, targets, old, advantage, reference, values, returns, torch.from_numpy(weights[part]))

        return [partial(piece, at) for at in range(0, len(batch[0]), rows)]

    def _weights(self, mask_BT: Tensor) -> Tensor:
        if self.policy.algorithm in ("ppo", "dapo"):
            return policy_losses.token_mean(mask_BT)
        if self.policy.algorithm == "grpo":
            return policy_losses.sequence_mean(mask_BT)
        if self.policy.algorithm == "dr_grpo":
            return policy_losses.constant(mask_BT, self.policy.max_new_tokens)
        return policy_losses.sequence_sum(mask_BT)

    def _loss(
        self, inputs: Tensor, targets: Tensor, old: Tensor, advantage: Tensor, reference: Tensor, values: Tensor, returns: Tensor,
        weights: Tensor,
    ) -> Tensor:  # fmt: skip
        its = self.policy
        log_probs, _, hidden = read(self.model, inputs, targets, its.temperature)
        if its.algorithm == "rloo":  # one ratio per response; its weight stands on each of its tokens
            each = policy_losses.clipped(log_probs.sum(1), old.sum(1), advantage.amax(1) + advantage.amin(1), its.clip_low, its.clip_high)
            return (weights.amax(1) * each).sum()
        loss = policy_losses.clipped(log_probs, old, advantage, its.clip_low, its.clip_high)
        if not its.penalty_in_reward and its.beta:
            loss = loss + its.beta * advantages.importance_weighted_k3(log_probs, old, reference)
        if its.algorithm == "ppo":
            loss = loss + its.value_weight * policy_losses.value_loss(self.values(hidden, targets), values, returns, its.value_clip)
        return (weights * loss).sum()

    # -- figures ------------------------------------------------------------------------------------------------------------

    def _note(
        self, iteration: int, answers: Sequence[Answer], total: Sequence[float], parts: Mapping[str, Sequence[float]],
        gold: Sequence[float] | None,
    ) -> None:  # fmt: skip
        texts = [answer.text for answer in answers]
        groups = [len(set(texts[at : at + self.policy.group])) for at in range(0, len(texts), self.policy.group)]
        figures: dict[str, Any] = {"iteration": iteration, "reward": float(np.mean(total)), "reward_deviation": float(np.std(total))}
        figures |= {f"reward_{name}": float(np.mean(scores)) for name, scores in parts.items() if len(parts) > 1}
        if gold is not None:
            figures["gold"] = float(np.mean(gold))
        figures["distinct"] = sum(groups) / len(texts)
        self.row = figures | self.row | {"sqrt_kl": max(0.0, self.row["kl"]) ** 0.5}


class PpoTrainer(PolicyTrainer):
    """With a value head on the policy's own trunk (Ziegler et al. 2019)."""

    architecture = Scored


# -- rows of figures, kept through kills ------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of figures; none when there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
        file.flush()


def _forget_from(out: Path, iteration: int) -> None:
    """Remove the rows of this iteration and of later ones, which a kill before the next checkpoint left: they are made again."""
    for path in (out / ROWS, out / TELEMETRY / ROWS):
        if path.is_file():
            rows = [row for row in read_rows(path) if row["iteration"] < iteration]
            path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
