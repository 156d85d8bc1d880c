"""Reinforcement learning on a model of ten thousand parameters: sampling and training agree, kills cost nothing, rewards rise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openhearth.align.policy import frozen, log_probs_of
from openhearth.align.policy_training import Policy, PolicyTrainer, PpoTrainer, Scoring, Task, read_rows
from openhearth.align.rewards import Answer
from openhearth.align.rollout import sample, uniforms
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.model.config import ModelConfig
from openhearth.model.hf import tensor_shapes
from openhearth.model.init import initial_tensor
from openhearth.train.loop import Batch, train
from openhearth.train.settings import GROUPS, Guard, Settings
from tests.train.tiny import Quiet, same_results

MOST = 6


def config_for(tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16,
        max_position_embeddings=48,
    )  # fmt: skip


def weights(config: ModelConfig) -> dict[str, Tensor]:
    """Far from uniform, so that a wrong context shows."""
    first = {name: initial_tensor(name, shape, config, 1) for name, shape in tensor_shapes(config).items()}
    generator = torch.Generator().manual_seed(2)
    return {name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in first.items()}


def tasks_for(tokenizer: Tokenizer) -> list[Task]:
    return [Task(word, "", [tokenizer.bos, *tokenizer.encode(word)]) for word in ("text", "the width of a line", "wrap", "indent it")]


def early(answers: Sequence[Answer]) -> list[float]:
    """A reward that every policy can learn: ids below 100."""
    return [float(np.mean([token < 100 for token in answer.ids] or [0.0])) for answer in answers]


def settings(iterations: int, **more: Any) -> Settings:
    known: dict[str, Any] = {
        "sequence_length": 32, "batch_tokens": 32 * 16, "micro_batch_tokens": 96, "steps": iterations, "optimizer": "adamw",
        "learning_rate": dict.fromkeys(GROUPS, 0.01), "checkpoint_steps": 2, "guard": Guard(spike=0, recompute=0), "max_grad_norm": 1.0,
    }  # fmt: skip
    return Settings(**known | more)


def learn(out: Path, tokenizer: Tokenizer, policy: Policy, iterations: int = 5, reward: Any = early) -> Quiet:
    config = config_for(tokenizer)
    tasks, tell = tasks_for(tokenizer), Quiet()
    ids = np.full((len(tasks), 16), tokenizer.bos)
    kind = PpoTrainer if policy.algorithm == "ppo" else PolicyTrainer

    def batches(step: int) -> Batch:
        return ids, np.full((len(tasks), 1), -1), np.array([step]), np.arange(len(tasks))

    def initial() -> Mapping[str, Tensor]:
        return weights(config) | ({"score.weight": torch.zeros(1, 32)} if policy.algorithm == "ppo" else {})

    out.mkdir(exist_ok=True)
    scoring = Scoring({"early": (1.0, reward)})
    train(
        config, settings(iterations), initial, batches, out, tell,
        make=lambda c, s, first: kind(c, s, first, policy, tasks, tokenizer, scoring, out),
    )  # fmt: skip
    return tell


def test_the_sampler_draws_what_the_model_says_and_its_log_probabilities_are_the_training_forwards_up_to_rounding(
    tokenizer: Tokenizer,
) -> None:
    config = config_for(tokenizer)
    model = frozen(config, weights(config))
    prompts = [task.prompt_ids for task in tasks_for(tokenizer)]
    responses = sample(model, prompts, uniforms(1, 0, len(prompts), MOST), (tokenizer.im_end,))
    for prompt, one in zip(prompts, responses, strict=True):
        ids = torch.tensor([[*prompt, *one.ids, *([] if one.end is None else [one.end])]])
        targets = torch.full_like(ids, -1)[:, 1:]
        targets[:, len(prompt) - 1 :] = ids[:, len(prompt) :]
        ours = log_probs_of(model, ids[:, :-1], targets)[0, len(prompt) - 1 :]
        torch.testing.assert_close(torch.tensor(one.log_probs), ours, atol=1e-5, rtol=0)


def test_a_response_does_not_depend_on_the_prompts_beside_it_nor_on_those_that_ended(tokenizer: Tokenizer) -> None:
    config = config_for(tokenizer)
    model = frozen(config, weights(config))
    prompts = [task.prompt_ids for task in tasks_for(tokenizer)]
    ends = tuple(range(0, tokenizer.vocab_size, 3))  # a third of all ids: rows leave the batch early
    together = sample(model, prompts, uniforms(3, 0, 4, 12), ends)
    for row in range(4):
        (alone,) = sample(model, [prompts[row]], uniforms(3, 0, 4, 12)[row : row + 1], ends)
        assert (alone.ids, alone.end) == (together[row].ids, together[row].end)
    assert len({len(one.ids) for one in together}) > 1, "else none left early"


def test_draws_have_the_probabilities_of_the_policy(tokenizer: Tokenizer) -> None:
    config = config_for(tokenizer)
    model = frozen(config, weights(config))
    prompt, count = tasks_for(tokenizer)[0].prompt_ids, 4000
    drawn = sample(model, [prompt] * count, uniforms(5, 0, count, 1), (tokenizer.im_end,), temperature=0.5)
    exact = (model(torch.tensor([prompt]))[0, -1] / 0.5).softmax(-1)
    token = int(exact.argmax())
    share = np.mean([token == (one.ids[0] if one.ids else one.end) for one in drawn])
    p = float(exact[token])
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_before_the_first_update_the_ratio_to_the_sampling_policy_is_one_bit_for_bit(
    tmp_path: Path, tokenizer: Tokenizer, algorithm: Any
) -> None:
    config, policy = config_for(tokenizer), Policy(algorithm=algorithm, group=3, max_new_tokens=MOST, minibatches=2)
    tasks = tasks_for(tokenizer)
    kind = PpoTrainer if algorithm == "ppo" else PolicyTrainer
    first = weights(config) | ({"score.weight": torch.zeros(1, 32)} if algorithm == "ppo" else {})
    trainer = kind(config, settings(2), first, policy, tasks, tokenizer, Scoring({"early": (1.0, early)}), tmp_path)
    trainer.gradient((np.zeros((4, 4), dtype=np.int64), np.full((4, 1), -1), np.array([0]), np.arange(4)))
    (minibatch,) = trainer.rest
    rows = trainer._micro_rows(minibatch[0].shape[1])
    for at in range(0, len(minibatch[0]), rows):
        inputs, targets, old = (torch.from_numpy(each[at : at + rows]) for each in minibatch[:3])
        now = log_probs_of(trainer.model, inputs, targets)  # with a gradient, as in the update
        assert now.requires_grad and torch.equal(now.detach(), old)
    assert 0 < trainer.row["sampler_difference"] < 1e-4 and trainer.row["kl"] == 0.0


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce", "rloo", "grpo", "dr_grpo", "dapo"])
def test_each_algorithm_raises_the_reward_that_it_is_given(tmp_path: Path, tokenizer: Tokenizer, algorithm: Any) -> None:
    learn(tmp_path / "a", tokenizer, Policy(algorithm=algorithm, group=6, max_new_tokens=MOST, beta=0.01, epochs=2), iterations=12)
    rows = read_rows(tmp_path / "a" / "rollouts.jsonl")
    assert rows[-1]["reward"] > rows[0]["reward"] + 0.15
    assert rows[-1]["kl"] > 0 and {"entropy", "length", "distinct", "sqrt_kl", "flops_sampling"} <= set(rows[-1])


def test_killed_in_the_middle_of_rewarding_a_run_ends_with_the_same_bits(tmp_path: Path, tokenizer: Tokenizer) -> None:
    policy = Policy(algorithm="ppo", group=3, max_new_tokens=MOST, epochs=2, minibatches=2)
    learn(tmp_path / "whole", tokenizer, policy)
    calls = 0

    def dies(answers: Sequence[Answer]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return early(answers)

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "killed", tokenizer, policy, reward=dies)
    assert len(read_rows(tmp_path / "killed" / "rollouts.jsonl")) == 3
    tell = learn(tmp_path / "killed", tokenizer, policy)
    assert any("going on from step" in note for note in tell.notes)
    assert same_results(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda answers: [float("nan")] * len(answers), "gave nan for the answer"),
        (lambda answers: [1.0], "gave 1 scores for 12 answers"),
        (lambda answers: [1 / 0 for _ in answers], "raised ZeroDivisionError"),
    ],
)
def test_a_reward_that_fails_is_named_in_one_line_and_the_iterations_before_it_are_kept(
    tmp_path: Path, tokenizer: Tokenizer, reward: Any, said: str
) -> None:
    policy, calls = Policy(algorithm="grpo", group=3, max_new_tokens=MOST), 0

    def later(answers: Sequence[Answer]) -> Any:
        nonlocal calls
        calls += 1
        return reward(answers) if calls == 4 else early(answers)

    with pytest.raises(HearthError, match=said) as error:
        learn(tmp_path / "a", tokenizer, policy, reward=later)
    assert "\n" not in str(error.value) and "'early'" in str(error.value)
    learn(tmp_path / "a", tokenizer, policy)
    learn(tmp_path / "b", tokenizer, policy)
    assert same_results(tmp_path / "a", tmp_path / "b")
