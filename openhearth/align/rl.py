"""The stage `rl`: train the policy on rewards for what it samples itself (PPO, REINFORCE, RLOO, GRPO, Dr. GRPO, DAPO).

Prompts come from the corpus (its documented functions, by name, signature and docstring) or from a file of JSON lines with `prompt` and
`reference`. Rewards are a weighted sum of functions that can be checked and of the reward model of the stage `reward`; a further one,
`gold`, is watched and never trained on. What each iteration did is in `rollouts.jsonl`: proxy, gold, square root of the divergence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator

from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small
from openhearth.ledger import digest_file, digest_if_file, digest_json
from openhearth.stage import Made, Seeded, Setting, Tell
from openhearth.train.schedule import Schedule
from openhearth.train.settings import GROUPS, MOST_NEW_TOKENS, Guard

if TYPE_CHECKING:
    from openhearth.align.policy_training import Scoring, Task
    from openhearth.data.tokenizer import Tokenizer

REWARDS = ("exact_answer", "parses", "parses_with_body", "passes_tests", "reward_model")


class Rl(Seeded):
    """Train the policy by reinforcement learning."""

    kind: ClassVar[str] = "rl"
    needs: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer", "plan", "sft")
    resumes: ClassVar[bool] = True

    start: Literal["sft", "prefer"] = "sft"
    """The stage whose model is trained, and which stays as the reference."""
    prompts: str = Field(default="", max_length=4096)
    """File of JSON lines with prompt and reference; empty: the documented functions of the corpus's training side."""
    prompts_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """sha256 of that file; filled in when left out."""
    rewards: dict[str, float] = Field(default={"parses_with_body": 1.0}, min_length=1, max_length=16)
    """Weight of each reward: exact_answer, parses, parses_with_body, passes_tests, reward_model."""
    gold: Literal["", "exact_answer", "parses", "parses_with_body", "passes_tests"] = ""
    """A reward that is measured beside them and never trained on; empty for none."""
    algorithm: Literal["ppo", "reinforce", "rloo", "grpo", "dr_grpo", "dapo"] = "grpo"
    """How rewards become updates; docs/align-methods.md has the formulas."""
    iterations: int = Field(default=40, ge=1, le=1_000_000)
    """How often answers are sampled and learned from."""
    prompts_per_iteration: int = Field(default=8, ge=1, le=65_536)
    """Different prompts in an iteration."""
    group: int = Field(default=8, ge=2, le=1024)
    """Answers to each prompt."""
    epochs: int = Field(default=1, ge=1, le=100)
    """Passes over the answers of an iteration."""
    minibatches: int = Field(default=1, ge=1, le=1024)
    """Updates per pass."""
    beta: float = Field(default=0.04, ge=0, le=1000)
    """Weight of the divergence from the reference: in the reward (ppo, reinforce, rloo) or in the loss (grpo, dr_grpo, dapo)."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """How far below 1 the ratio to the sampling policy may go and still be learned from."""
    clip_high: float = Field(default=0.2, gt=0, le=100)
    """How far above 1; DAPO uses 0.28."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Of sampling, and of the policy that is trained."""
    max_new_tokens: int = Field(default=128, ge=1, le=MOST_NEW_TOKENS)
    """Tokens of an answer at most."""
    overlong_buffer: int = Field(default=0, ge=0, le=MOST_NEW_TOKENS)
    """Tokens before that limit over which a penalty rises to 1 (DAPO); 0: none."""
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    """Peak learning rate of AdamW."""
    value_weight: float = Field(default=0.1, ge=0, le=100)
    """Of the critic's loss (ppo)."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Of generalised advantage estimation (ppo)."""
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    """Seed of prompts and of sampling; the recipe's when left out."""
    checkpoint_iterations: int = Field(default=5, ge=1, le=1_000_000)
    """Iterations between checkpoints."""
    schedule: Schedule = Schedule(warmup=0.1, cooldown=0.3, final=0.1, momentum_start=0.95)
    """Learning rate over the stage, as fractions of it."""

    @field_validator("rewards")
    @classmethod
    def _known(cls, rewards: dict[str, float]) -> dict[str, float]:
        for name, weight in rewards.items():
            if name not in REWARDS:
                raise ValueError(f"'{name}' is not a reward{nearest(name, REWARDS)}; the rewards are {', '.join(REWARDS)}")
            if not -1e6 <= weight <= 1e6:
                raise ValueError(f"the weight of '{name}' is {weight}; it must be a number between -1e6 and 1e6")
        return rewards

    def required(self) -> tuple[str, ...]:
        """Also the reward model, and the model that is trained, where the settings name them."""
        more = [stage for stage, wanted in (("reward", "reward_model" in self.rewards), ("prefer", self.start == "prefer")) if wanted]
        return (*self.needs, *more)

    def resolve(self, setting: Setting) -> Self:
        return super().resolve(setting).model_copy(update={"prompts_sha256": self.prompts_sha256 or digest_if_file(self.prompts)})

    def preflight(self) -> None:
        if self.prompts:
            self._rows()
            if digest_file(Path(self.prompts)) != self.prompts_sha256:
                raise HearthError(f"{self.prompts}: has another sha256 than prompts_sha256; the file changed: give the one that was meant")

    def _rows(self) -> list[tuple[list[dict[str, str]], str]]:
        """Prompts and references of the file; raises HearthError naming the line."""
        from openhearth.align.preference_rows import MOST_BYTES, as_conversation

        rows = []
        text = read_small(Path(self.prompts), limit=MOST_BYTES, what="file of prompts", suffix=".jsonl")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                reference = row.get("reference", "") if isinstance(row, dict) else None
                if not isinstance(reference, str) or "prompt" not in row:
                    raise HearthError("must be an object with prompt and, as text, reference")
                rows.append((as_conversation(row["prompt"]), reference))
            except (ValueError, RecursionError):
                raise HearthError(f"{self.prompts}:{number}: not JSON; write one object a line") from None
            except HearthError as error:
                raise HearthError(f"{self.prompts}:{number}: {error}") from None
        if not rows:
            raise HearthError(f"{self.prompts}: holds no prompt; write one JSON object with prompt and reference on each line")
        return rows

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        import numpy as np
        import torch

        from openhearth.align.policy_training import Policy, PolicyTrainer, PpoTrainer, read_rows
        from openhearth.align.preference_training import order
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.model.config import ModelConfig
        from openhearth.model.hf import load_tensors
        from openhearth.train.loop import Batch, train
        from openhearth.train.planning import read_plan, settings_of

        assert self.seed is not None, "resolve() fills in the seed"
        plan = read_plan(made)
        config = ModelConfig.model_validate(plan["model"])
        planned = settings_of(plan, "sft")
        tokenizer = Tokenizer.load(made["tokenizer"].path)
        tasks = self._tasks(made, tokenizer, config.max_position_embeddings, planned.sequence_length)
        count = min(self.prompts_per_iteration, len(tasks))
        tell.note(f"{len(tasks):,} prompts, {count * self.group:,} answers in each of {self.iterations:,} iterations")
        names = ("algorithm", "group", "beta", "epochs", "minibatches", "clip_low", "clip_high", "temperature", "max_new_tokens",
                 "overlong_buffer", "lam", "value_weight", "seed")  # fmt: skip
        policy = Policy(**{name: getattr(self, name) for name in names})
        settings = planned.model_copy(
            update={
                "steps": self.iterations,
                "batch_tokens": count * self.group * self.max_new_tokens,
                "learning_rate": dict.fromkeys(GROUPS, self.learning_rate),
                "optimizer": "adamw",
                "max_grad_norm": 1.0,
                "schedule": self.schedule,
                "dtype": "float32",
                "compile": False,
                "checkpoint_steps": self.checkpoint_iterations,
                "guard": Guard(spike=0, recompute=0),
            }
        )
        longest = max(len(task.prompt_ids) for task in tasks)
        padded = np.full((len(tasks), longest), tokenizer.bos, dtype=np.int64)
        for row, task in enumerate(tasks):
            padded[row, : len(task.prompt_ids)] = task.prompt_ids
        chosen = order(len(tasks), count, self.seed, "rl")

        def batches(step: int) -> Batch:
            numbers = np.array(chosen(step))
            return padded[numbers], np.full((count, 1), -1), np.array([step]), numbers

        def initial() -> dict[str, torch.Tensor]:
            tensors = load_tensors(made[self.start].path, config)
            return tensors | {"score.weight": torch.zeros(1, config.hidden_size)} if self.algorithm == "ppo" else tensors

        trainer = PpoTrainer if self.algorithm == "ppo" else PolicyTrainer
        scoring = self._scoring(made, tokenizer)
        train(
            config, settings, initial, batches, out, tell,
            data=digest_json([padded.tobytes().hex(), [task.reference for task in tasks], self.model_dump(mode="json")]),
            make=lambda shape, given, first: trainer(shape, given, first, policy, tasks, tokenizer, scoring, out),
        )  # fmt: skip
        rows = read_rows(out / "rollouts.jsonl")
        tell.record(
            tokens=sum(row["prompt_tokens"] + row["sampled_tokens"] + row["trained_tokens"] for row in rows),
            flops=sum(row["flops_sampling"] + row["flops_rewards"] + row["flops_training"] for row in rows),
            **{name: sum(row[name] for row in rows) for name in ("sampled_tokens", "flops_sampling", "flops_rewards", "flops_training")},
            algorithm=self.algorithm,
            first={name: rows[0][name] for name in ("reward", "entropy", "length", "distinct")},
            last={name: rows[-1][name] for name in ("reward", "kl", "entropy", "length", "distinct")},
        )
        times = read_rows(out / "telemetry" / "rollouts.jsonl")
        tell.measure(**{f"seconds_{name}": sum(row[name] for row in times) for name in ("sampling", "rewards", "preparing", "updates")})

    def _tasks(self, made: Made, tokenizer: Tokenizer, context: int, window: int) -> list[Task]:
        """The prompts that leave room for an answer; raises HearthError when there is none."""
        from openhearth.align import chat
        from openhearth.align.examples import Limits, make_examples, read_documents
        from openhearth.align.policy_training import Task

        assert self.seed is not None
        if self.prompts:
            rows = [
                (conversation[-1]["content"], reference, chat.prompt(conversation, tokenizer)) for conversation, reference in self._rows()
            ]
        else:
            documents = read_documents(made["corpus"].path / "documents.parquet")
            enough = Limits(examples=8 * self.iterations * self.prompts_per_iteration)
            kept = make_examples(documents, "train", tokenizer, window, enough, self.seed).kept
            rows = [
                (one.question, one.name, chat.prompt([{"role": "user", "content": one.question}], tokenizer))
                for one in kept
                if one.kind == "function" and len(tokenizer.encode(one.answer)) < self.max_new_tokens
            ]
        tasks = [Task(*row) for row in rows if len(row[2]) + self.max_new_tokens <= context]
        if not tasks:
            raise HearthError(
                f"[rl] has no prompt that leaves room for {self.max_new_tokens:,} tokens in the context of {context:,}: "
                "lower max_new_tokens, give shorter prompts, or a corpus with documented functions"
            )
        return tasks

    def _scoring(self, made: Made, tokenizer: Tokenizer) -> Scoring:
        from openhearth.align.policy_training import Scoring
        from openhearth.align.rewards import VERIFIABLE

        known: dict[str, Any] = {str(name): score for name, score in VERIFIABLE.items()}
        cost = 0
        if "reward_model" in self.rewards:
            from openhearth.align.reward_model import RewardModel

            judge = RewardModel.load(made["reward"].path)
            cost = judge.model.config.flops_per_token(self.max_new_tokens)
            known["reward_model"] = lambda answers: judge.score(
                [one.prompt_ids for one in answers], [one.ids for one in answers], tokenizer
            )
        return Scoring(
            {name: (weight, known[name]) for name, weight in self.rewards.items()}, known[self.gold] if self.gold else None, cost
        )
