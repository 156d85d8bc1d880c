"""The stages `reward` and `prefer` on a small model: they learn what the rows say, resume to the same bits, and say what is wrong first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openhearth.align.policy import frozen, log_probs_of
from openhearth.align.prefer import Prefer
from openhearth.align.preference_rows import as_pair, render_pairs
from openhearth.align.preference_training import Direct, DirectTrainer
from openhearth.align.reward import Reward
from openhearth.align.reward_model import RewardModel
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.ledger import Artifact, write_json
from openhearth.model.hf import save_model
from openhearth.plan.budget import PLAN_FORMAT
from openhearth.recipe import Recipe
from openhearth.stage import Setting
from tests.align.test_policy_training import config_for, settings, weights
from tests.train.tiny import Quiet, same_results

SETTING = Setting("tiny", 1, 60.0)
QUESTIONS = ["a", "b c", "text", "wrap it", "width", "line", "in", "of a"]


@pytest.fixture
def made(tokenizer: Tokenizer, tmp_path: Path) -> dict[str, Artifact]:
    config = config_for(tokenizer)
    folders = {kind: tmp_path / kind for kind in ("tokenizer", "plan", "sft")}
    for folder in folders.values():
        folder.mkdir()
    tokenizer.save(folders["tokenizer"])
    planned = settings(4, batch_tokens=96, micro_batch_tokens=96).model_dump(mode="json")
    plan = {"format": PLAN_FORMAT, "model": config.model_dump(mode="json"), "pretrain": planned, "sft": planned}
    plan |= {"evaluate": {"heldout_bytes": 10, "prompts": 1, "max_new_tokens": 8}, "predicted": {"seconds": {"total": 10.0}}}
    write_json(folders["plan"] / "plan.json", plan)
    save_model(weights(config), config, folders["sft"])
    return {kind: Artifact(folder, kind, "", "", {}, {}) for kind, folder in folders.items()}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    pairs = [{"prompt": question, "chosen": "the text", "rejected": "a width", "label": 0.9} for question in QUESTIONS]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def run(stage: Any, made: dict[str, Artifact], out: Path) -> Quiet:
    out.mkdir(exist_ok=True)
    tell = Quiet()
    resolved = stage.resolve(SETTING)
    resolved.preflight()
    resolved.run(made, out, tell)
    return tell


def test_a_reward_model_learns_the_rows_and_is_read_back_as_it_was_trained(
    made: dict[str, Artifact], rows: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tell = run(Reward(rows=str(rows), epochs=15, batch_pairs=4, learning_rate=0.01, held_out=0.3), made, tmp_path / "reward")
    figures = json.loads((tmp_path / "reward" / "reward.json").read_text())
    assert figures["train"]["accuracy"]["value"] == 1.0 and {"low", "high"} <= set(figures["heldout"]["accuracy"])
    assert figures["heldout"]["accuracy"]["value"] == 1.0, "every prompt has the same better answer"
    assert tell.facts["flops"] > 0 and (tmp_path / "reward" / "rows.jsonl").read_bytes() == rows.read_bytes()
    model = RewardModel.load(tmp_path / "reward")
    pair = render_pairs([as_pair({"prompt": "a", "chosen": "the text", "rejected": "a width"})], tokenizer, 32)
    prompt = pair.inputs[0][: int((pair.targets[0] >= 0).argmax()) + 1].tolist()
    scores = model.score([prompt, prompt], [tokenizer.encode("the text"), tokenizer.encode("a width")], tokenizer)
    np.testing.assert_allclose(scores, (model.raw(pair.inputs, pair.targets) - model.mean) / model.deviation, rtol=1e-5)
    assert scores[0] > scores[1]


def test_a_reward_model_scores_in_transformers_as_here(made: dict[str, Artifact], rows: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    run(Reward(rows=str(rows), batch_pairs=4, learning_rate=0.01), made, tmp_path / "reward")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", num_labels=1).eval()
    model = RewardModel.load(tmp_path / "reward", calibrated=False)
    pair = render_pairs([as_pair({"prompt": "a", "chosen": "the text", "rejected": "a width"})], tokenizer, 32)
    ids = [*pair.inputs[0][: int((pair.targets[0] >= 0).nonzero()[0].max()) + 1].tolist(), tokenizer.im_end]
    with torch.no_grad():
        found = float(theirs(torch.tensor([ids])).logits[0, 0])
    assert found == pytest.approx(float(model.raw(pair.inputs[:1], pair.targets[:1])[0]), abs=1e-4)


@pytest.mark.parametrize("method", ["dpo", "cdpo", "ipo", "ipo_token_averaged", "kto", "simpo", "orpo"])
def test_each_direct_method_comes_to_prefer_the_chosen_answers(made: dict[str, Artifact], rows: Path, tmp_path: Path, method: str) -> None:
    stage = Prefer(rows=str(rows), method=method, epochs=8, batch_pairs=4, learning_rate=0.003, held_out=0.3)  # type: ignore[arg-type]
    tell = run(stage, made, tmp_path / "prefer")
    heldout = tell.facts["heldout"]
    assert heldout["log_ratio_chosen"] > heldout["log_ratio_rejected"] and heldout["accuracy"]["value"] == 1.0


def test_a_stage_that_was_killed_ends_with_the_same_bits(
    made: dict[str, Artifact], rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Prefer(rows=str(rows), epochs=4, batch_pairs=2, learning_rate=0.003)
    run(stage, made, tmp_path / "whole")
    steps = 0
    update = DirectTrainer.update

    def dies(self: DirectTrainer, number: int, updates: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 8:
            raise KeyboardInterrupt
        update(self, number, updates)

    with monkeypatch.context() as patch:
        patch.setattr(DirectTrainer, "update", dies)
        with pytest.raises(KeyboardInterrupt):
            run(stage, made, tmp_path / "killed")
    tell = run(stage, made, tmp_path / "killed")
    assert any("going on from step" in note for note in tell.notes)
    assert same_results(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("method", ["cdpo", "ipo", "simpo", "orpo"])
def test_neither_micro_batches_nor_padding_change_the_gradient(tokenizer: Tokenizer, method: Any) -> None:
    config = config_for(tokenizer)
    pairs = [
        as_pair({"prompt": q, "chosen": "the text" + " of" * n, "rejected": "a width", "label": 0.7}) for n, q in enumerate(QUESTIONS[:4])
    ]
    found = []
    for micro, window in ((32, 32), (10_000, 32), (10_000, 40)):
        batch = render_pairs(pairs, tokenizer, window)
        trainer = DirectTrainer(config, settings(1, micro_batch_tokens=micro), weights(config), Direct(method))
        whole = (batch.inputs, batch.targets, batch.labels, batch.margins) if window == 40 else batch.take(range(4))
        found.append((trainer.gradient(whole), trainer._gradient.clone()))
    for (loss, _), gradient in found[1:]:
        assert loss == pytest.approx(found[0][0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1], atol=1e-5, rtol=1e-3)


def test_the_log_ratio_to_the_reference_is_zero_to_the_bit_before_the_first_update(tokenizer: Tokenizer) -> None:
    config = config_for(tokenizer)
    trainer = DirectTrainer(config, settings(1), weights(config), Direct("dpo"))
    batch = render_pairs([as_pair({"prompt": "a", "chosen": "the text", "rejected": "a width"})], tokenizer, 32)
    assert trainer.gradient(batch.take([0]))[0] == pytest.approx(np.log(2), abs=1e-7)
    ids, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    assert torch.equal(log_probs_of(trainer.model, ids, targets).detach(), log_probs_of(frozen(config, weights(config)), ids, targets))


def test_what_is_wrong_with_the_rows_is_said_before_anything_is_made(tmp_path: Path, rows: Path) -> None:
    with pytest.raises(HearthError, match=r"\[prefer\] needs preference rows"):
        Prefer().resolve(SETTING).preflight()
    with pytest.raises(HearthError, match="no such file"):
        Reward(rows=str(tmp_path / "none.jsonl")).resolve(SETTING).preflight()
    with pytest.raises(HearthError, match="another sha256 than rows_sha256"):
        Reward(rows=str(rows), rows_sha256="0" * 64).resolve(SETTING).preflight()


def test_other_rows_are_another_stage(rows: Path) -> None:
    before = Prefer(rows=str(rows)).resolve(SETTING)
    rows.write_text(rows.read_text() + json.dumps({"prompt": "x", "chosen": "y", "rejected": "z"}) + "\n")
    assert Prefer(rows=str(rows)).resolve(SETTING).model_dump() != before.model_dump()


def test_a_recipe_that_rewards_by_a_reward_model_needs_that_stage_and_knows_the_rewards() -> None:
    stages = "[corpus]\n[tokenizer]\n[plan]\n[pretrain]\n[sft]\n"
    with pytest.raises(HearthError, match=r"\[rl\] needs the stage \[reward\]"):
        Recipe.parse(f"name = 'x'\n{stages}[rl]\nrewards = {{ reward_model = 1.0 }}\n")
    with pytest.raises(HearthError, match=r"recipe:8: \[rl\] rewards: 'parse' is not a reward \(did you mean 'parses'\?\)"):
        Recipe.parse(f"name = 'x'\n{stages}[rl]\nrewards = {{ parse = 1.0 }}\n")
