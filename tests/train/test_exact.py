"""Loss, gradients, clipping, schedule and order of data against what is known exactly: fp64 by hand, finite differences, closed forms."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from openhearth.model.config import ModelConfig
from openhearth.model.hf import tensor_shapes
from openhearth.model.init import initial_tensor
from openhearth.train.loop import Batch
from openhearth.train.schedule import Schedule
from openhearth.train.trainer import Trainer
from tests.train.tiny import CONFIG, batches, first_weights, run, same_results, settings

GROUPED = CONFIG.model_copy(update={"num_kv_heads": 1, "num_heads": 4, "head_dim": 8})
TIED = CONFIG.model_copy(update={"tie_word_embeddings": True})


def naive_loss(config: ModelConfig, weights: Mapping[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray) -> float:
    """The decoder as its paper writes it, position by position in fp64 numpy: nothing is shared with the model under test."""

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        normed: np.ndarray = x / np.sqrt(np.mean(x * x) + config.rms_norm_eps) * gain
        return normed

    def turned(x: np.ndarray, position: int) -> np.ndarray:
        half = config.head_dim // 2
        out = np.empty_like(x)
        for pair in range(half):
            angle = position * config.rope_theta ** (-2 * pair / config.head_dim)
            out[pair] = x[pair] * math.cos(angle) - x[pair + half] * math.sin(angle)
            out[pair + half] = x[pair + half] * math.cos(angle) + x[pair] * math.sin(angle)
        return out

    head = weights["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    total, counted, e, group = 0.0, 0, config.head_dim, config.num_heads // config.num_kv_heads
    for ids, wanted in zip(inputs, targets, strict=True):
        stream = [weights["model.embed_tokens.weight"][i] for i in ids]
        for layer in range(config.num_layers):
            w = {name.removeprefix(f"model.layers.{layer}."): value for name, value in weights.items()}
            seen = [norm(x, w["input_layernorm.weight"]) for x in stream]
            keys, values = [], []
            for position, x in enumerate(seen):
                k, v = w["self_attn.k_proj.weight"] @ x, w["self_attn.v_proj.weight"] @ x
                keys.append(
                    [turned(norm(k[h * e : h * e + e], w["self_attn.k_norm.weight"]), position) for h in range(config.num_kv_heads)]
                )
                values.append([v[h * e : h * e + e] for h in range(config.num_kv_heads)])
            for position, x in enumerate(seen):
                q, heads = w["self_attn.q_proj.weight"] @ x, []
                for h in range(config.num_heads):
                    query = turned(norm(q[h * e : h * e + e], w["self_attn.q_norm.weight"]), position)
                    scores = np.exp([query @ keys[past][h // group] / math.sqrt(e) for past in range(position + 1)])
                    heads.append(sum(s * values[past][h // group] for past, s in enumerate(scores)) / scores.sum())
                stream[position] = stream[position] + w["self_attn.o_proj.weight"] @ np.concatenate(heads)
            for position, x in enumerate(stream):
                y = norm(x, w["post_attention_layernorm.weight"])
                gate = w["mlp.gate_proj.weight"] @ y
                stream[position] = x + w["mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * (w["mlp.up_proj.weight"] @ y))
        for x, target in zip(stream, wanted, strict=True):
            if target >= 0:
                logits = head @ norm(x, weights["model.norm.weight"])
                total += math.log(np.exp(logits).sum()) - logits[target]
                counted += 1
    return total / counted


def random_weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    """Large enough for every term to matter: gains away from one, attention away from uniform."""
    drawn = {name: initial_tensor(name, shape, config, 3) for name, shape in tensor_shapes(config).items()}
    generator = torch.Generator().manual_seed(5)
    return {name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator) for name, tensor in drawn.items()}


def small_batch() -> Batch:
    ids = np.random.default_rng(2).integers(0, CONFIG.vocab_size, (2, 10))
    targets = ids[:, 1:].copy()
    targets[0, :3] = -1
    return ids[:, :-1].copy(), targets


@pytest.mark.parametrize("config", [CONFIG, GROUPED, TIED], ids=["plain", "grouped", "tied"])
def test_loss_and_gradients_equal_a_naive_fp64_forward_and_its_finite_differences(config: ModelConfig) -> None:
    """The loss to 1e-6 (fp32 rounding over some thousand sums); a directional derivative a tensor to 1e-4 of the gradient's length: central
    differences in fp64 err by the square of the step, 1e-8, so what is left is the rounding of the fp32 gradient."""
    weights = random_weights(config)
    trainer = Trainer(config, settings(), weights)
    inputs, targets = small_batch()
    loss, norm = trainer.gradient((inputs, targets))
    exact = {name: tensor.double().numpy() for name, tensor in weights.items()}
    assert loss == pytest.approx(naive_loss(config, exact, inputs, targets), rel=1e-6)
    generator, step = np.random.default_rng(7), 1e-4
    lengths = []
    for name, value in exact.items():
        start, end, shape = trainer.flat.places[name]
        found = trainer.flat.grad[start:end].view(shape).double().numpy()
        lengths.append(np.linalg.norm(found))
        direction = found / max(lengths[-1], 1e-12) + 0.3 * generator.standard_normal(shape) / math.sqrt(value.size)
        ahead, behind = (naive_loss(config, exact | {name: value + sign * step * direction}, inputs, targets) for sign in (1, -1))
        assert (found * direction).sum() == pytest.approx((ahead - behind) / (2 * step), abs=1e-4 * norm), name
    assert norm == pytest.approx(float(np.linalg.norm(lengths)), rel=1e-5)


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_a_gradient_is_clipped_as_pytorch_clips_it(limit: float) -> None:
    """By plain AdamW at its first step, whose update remembers nothing else; torch adds 1e-6 to the norm, hence the tolerance."""
    trainer = Trainer(CONFIG, settings(max_grad_norm=limit, optimizer="adamw"), first_weights())
    _, norm = trainer.gradient(batches(0))
    theirs = torch.nn.Parameter(torch.zeros_like(trainer.flat.grad))
    theirs.grad = trainer.flat.grad.clone()
    torch.nn.utils.clip_grad_norm_([theirs], limit)
    trainer.update(0, 0)
    first = trainer.optimizer.state["first_moment"]
    scale = torch.cat([torch.full((s.end - s.start,), 0.1 if s.group == "matrix" else 0.2) for s in trainer.flat.spans])
    assert torch.allclose(first, theirs.grad * scale, rtol=2e-3 if norm < 1e-2 else 1e-4, atol=1e-9)
    assert (float(theirs.grad.norm()) < 0.99 * norm) == (limit < 1)


def test_the_schedule_is_the_trapezoid_of_its_closed_form() -> None:
    """At the middle of step i of n, t = (i + 1/2) / n: min(1, t / w) (f + (1 - f) min(1, (1 - t) / c))."""
    for w, c, f in ((0.02, 0.6, 0.03), (0.1, 0.9, 0.0), (0.0, 1.0, 0.1), (0.3, 0.0, 0.5), (1.0, 1.0, 1.0)):
        schedule = Schedule(warmup=w, cooldown=c, final=f)
        for n in (1, 7, 1000):
            t = (np.arange(n) + 0.5) / n
            rise = np.minimum(1, t / w) if w else np.ones(n)
            fall = np.minimum(1, (1 - t) / c) if c else np.ones(n)
            assert [schedule.rate(i, n) for i in range(n)] == pytest.approx(list(rise * (f + (1 - f) * fall)), rel=1e-12)


def test_no_micro_batch_and_no_kill_changes_which_tokens_are_read(tmp_path: Path) -> None:
    """The tokens that updates were made of, in order: a step that is read again after a kill counts once."""

    def consumed(out: Path, kill_at: int | None = None, **changes: int) -> dict[int, str]:
        read: dict[int, str] = {}

        def reads(step: int) -> Batch:
            if step == kill_at:
                raise KeyboardInterrupt
            inputs, targets = batches(step)
            read[step] = hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest()
            return inputs, targets

        with contextlib.suppress(KeyboardInterrupt):
            run(out, reads, **changes)
        return read

    whole = consumed(tmp_path / "whole")
    assert list(whole) == list(range(12)) and len(set(whole.values())) == 12
    for tokens in (16, 32):
        assert consumed(tmp_path / str(tokens), micro_batch_tokens=tokens) == whole
    first = consumed(tmp_path / "killed", kill_at=6)
    second = consumed(tmp_path / "killed")
    assert first | second == whole and min(second) <= 6
    assert same_results(tmp_path / "killed", tmp_path / "whole")
