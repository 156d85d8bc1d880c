"""The stages `rl` and `outcome` one after the other on a small corpus: what they leave, and that a second run leaves the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openhearth.align.outcome import Outcome
from openhearth.align.rl import Rl
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError
from openhearth.ledger import Artifact, write_json
from openhearth.model.hf import save_model
from openhearth.plan.budget import PLAN_FORMAT
from openhearth.stage import Setting
from tests.align.test_policy_training import settings, weights
from tests.evaluate.conftest import small_model
from tests.train.tiny import Quiet, same_results

SETTING = Setting("tiny", 1, 60.0)
RL = Rl(iterations=2, prompts_per_iteration=2, group=3, max_new_tokens=40, rewards={"parses_with_body": 1.0, "parses": 0.5}, gold="parses")


def module(name: str) -> str:
    return "".join(f'def {name}{n}(x):\n    """Return {name} {n}."""\n    return x + {n}\n\n\n' for n in range(4))


@pytest.fixture
def made(tokenizer: Tokenizer, tmp_path: Path) -> dict[str, Artifact]:
    folders = {kind: tmp_path / kind for kind in ("corpus", "tokenizer", "plan", "sft")}
    for folder in folders.values():
        folder.mkdir()
    rows = [(f"id{n}", f"m{n}.py", "module", module(f"f{n}_"), "heldout" if n % 2 else "train") for n in range(12)]
    table = pa.table(dict(zip(("doc_id", "uri", "kind", "text", "split"), map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, folders["corpus"] / "documents.parquet")
    tokenizer.save(folders["tokenizer"])
    config = small_model(tokenizer.vocab_size, 256).config
    planned = settings(4, sequence_length=256, batch_tokens=1024, micro_batch_tokens=512).model_dump(mode="json")
    plan = {"format": PLAN_FORMAT, "model": config.model_dump(mode="json"), "pretrain": planned, "sft": planned}
    plan |= {"evaluate": {"heldout_bytes": 2000, "prompts": 4, "max_new_tokens": 8}, "predicted": {"seconds": {"total": 10.0}}}
    write_json(folders["plan"] / "plan.json", plan)
    save_model(weights(config), config, folders["sft"])
    return {kind: Artifact(folder, kind, "", "", {}, {}) for kind, folder in folders.items()}


def test_before_and_after_stand_side_by_side_with_intervals_and_every_answer(made: dict[str, Artifact], tmp_path: Path) -> None:
    outs = []
    for name in ("a", "b"):
        out = tmp_path / name
        (out / "rl").mkdir(parents=True)
        (out / "outcome").mkdir()
        told = Quiet()
        RL.resolve(SETTING).run(made, out / "rl", told)
        assert told.facts["flops"] == sum(told.facts[part] for part in ("flops_sampling", "flops_rewards", "flops_training"))
        assert told.facts["sampled_tokens"] > 0 and set(told.facts["last"]) == {"reward", "kl", "entropy", "length", "distinct"}
        now = made | {"rl": Artifact(out / "rl", "rl", "", "", {}, {})}
        stage = Outcome(prompts=6, max_new_tokens=40, heldout_bytes=2000)
        stage.resolve(SETTING).run(now, out / "outcome", told)
        outs.append(out)
    assert all(same_results(outs[0] / stage, outs[1] / stage) for stage in ("rl", "outcome"))
    found = json.loads((outs[0] / "outcome" / "outcome.json").read_text())
    for figure in ("parses", "parses_with_body", "trivial", "one_line", "bits_per_byte"):
        assert set(found[figure]) == {"sft", "rl", "difference"} and {"value", "low", "high"} == set(found[figure]["rl"])
    tax = found["bits_per_byte"]
    assert tax["difference"]["value"] == pytest.approx(tax["rl"]["value"] - tax["sft"]["value"])
    answers = json.loads((outs[0] / "outcome" / "answers.json").read_text())["answers"]
    assert len(answers) == found["questions"] == 6 and set(answers[0]["rl"]) >= {"text", "parses", "trivial"}
    rows = [json.loads(line) for line in (outs[0] / "rl" / "rollouts.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1] and {"gold", "reward_parses", "sqrt_kl"} <= set(rows[0])


def test_prompts_from_a_file_are_checked_line_by_line_and_their_digest_is_part_of_the_stage(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "3 + 4?", "reference": "7"}\n')
    stage = Rl(prompts=str(path), rewards={"exact_answer": 1.0}).resolve(SETTING)
    stage.preflight()
    assert len(stage.prompts_sha256) == 64
    for text, said in (
        ('{"prompt": "", "reference": "7"}\n', ":1: prompt is empty"),
        ('{"prompt": "x", "reference": 7}\n', ":1: must be an object"),
        ('{"prompt": [{"role": "assistant", "content": "x"}]}\n', ":1: message 1: 'assistant' cannot begin"),
        ("{\n", ":1: not JSON"),
        ("\n", "holds no prompt"),
    ):
        path.write_text(text)
        with pytest.raises(HearthError, match=said):
            Rl(prompts=str(path)).resolve(SETTING).preflight()
