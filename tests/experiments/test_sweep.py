"""A sweep on real text with a very small model: shared stages made once, one plan, resumed where it was stopped; and its grid."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from openhearth import cli
from openhearth.errors import HearthError, RecipeError
from openhearth.experiments import grid
from openhearth.experiments.runs import find
from openhearth.experiments.sweep import pinned
from openhearth.ledger import write_json
from openhearth.train.pretrain import Pretrain

ROOT = Path(__file__).parents[2]
LAPTOP = ROOT / "recipes" / "laptop.toml"
VOCABULARY = 320
TEXTS = ("argparse", "ast", "textwrap", "shlex", "string", "csv", "calendar", "statistics")


def settings(*over: str, sets: Sequence[str] = ()) -> list[grid.Setting]:
    return grid.settings(LAPTOP, over, sets, None, None)


# -- the grid ---------------------------------------------------------------------------------------------------------------


def test_every_combination_is_a_recipe_with_a_name_and_the_last_key_changes_first() -> None:
    found = settings("pretrain.learning_rate=1e-3,3e-3", "pretrain.schedule.warmup=0,0.1")
    assert [one.name for one in found] == [f"learning_rate={rate},warmup={part}" for rate in ("1e-3", "3e-3") for part in ("0", "0.1")]
    last = found[-1].recipe.stages["pretrain"]
    assert isinstance(last, Pretrain) and (last.learning_rate, last.schedule.warmup) == (0.003, 0.1)
    assert found[0].recipe.kinds == ("corpus", "tokenizer", "plan", "pretrain", "measure")
    assert [one.name for one in settings()] == ["recipe"]
    assert [one.name for one in settings("budget=1 min,1 h 30 min")] == ["budget=1-min", "budget=1-h-30-min"]
    assert [one.name for one in settings("plan.learning_rate_scale=1,2")][1] == "learning_rate_scale=2"


def test_commas_inside_of_brackets_and_quotes_separate_nothing() -> None:
    assert grid._split('[1,2],"a,b",c') == ["[1,2]", '"a,b"', "c"]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["pretrain.learning_rat=1"], "--over pretrain.learning_rat=1: [pretrain] learning_rat: unknown key (did you mean 'learning_rate'"),
        (["pretrain.learning_rate=0.1,x"], "--over pretrain.learning_rate=x: [pretrain] learning_rate: must be a number, not 'x'"),
        (["pretran.weight_decay=1"], "has no stage [pretran] (did you mean 'pretrain'?)"),
        (["pretrain.weight_decay=1,1.0"], "are the same recipe; leave one out"),
        (["pretrain.weight_decay=1", "pretrain.weight_decay=2"], "given twice"),
        (["pretrain.weight_decay"], "write --over KEY=A,B"),
        (["pretrain.weight_decay=1,,2"], "write --over KEY=A,B"),
        (["sft.epochs=1,2"], "nothing that a sweep measures depends on it"),
        (["seed=1,2"], "--seeds 3 makes every run with three of them"),
        ([f"plan.tokens={','.join(map(str, range(1, 1102)))}"], "more than 1,000 combinations"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_grid_is_one_line(over: list[str], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        settings(*over)
    assert said in str(caught.value) and "--set" not in str(caught.value)


def test_a_plan_that_is_made_again_is_held_to_the_first_save_for_what_is_swept() -> None:
    plan = small_plan()
    (one,) = settings("plan.hidden_size=64")
    held = pinned(one.recipe, plan).stages["plan"].model_dump()
    assert held["hidden_size"] == 64
    assert {name: held[name] for name in ("num_layers", "tokens", "batch_tokens", "sequence_length", "dtype", "compile", "threads")} == {
        "num_layers": 1, "tokens": 64 * 12, "batch_tokens": 64, "sequence_length": 32, "dtype": "float32", "compile": False, "threads": 1
    }  # fmt: skip


# -- the runs ---------------------------------------------------------------------------------------------------------------


def small_plan() -> dict[str, Any]:
    training = {
        "sequence_length": 32, "batch_tokens": 64, "micro_batch_tokens": 64, "steps": 12, "dtype": "float32", "compile": False,
        "threads": 1, "learning_rate": {"matrix": 0.02, "embedding": 0.1, "head": 0.01, "gain": 0.01},
        "checkpoint_steps": 5, "optimizer": "muon",
    }  # fmt: skip
    model = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1,
        "head_dim": 32, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    return {
        "format": "openhearth-plan/1", "budget_seconds": 30.0, "machine": {}, "model": model, "pretrain": {**training, "tokens": 64 * 12},
        "sft": training, "evaluate": {"heldout_bytes": 2000, "prompts": 0, "max_new_tokens": 8},
        "predicted": {"seconds": {"pretrain": 1.0, "total": 3.0}, "energy": {"joules": 1.0, "source": "a guess"}}, "why": [],
    }  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a sweep over two learning rates, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    library = Path(sysconfig.get_path("stdlib"))
    for name in TEXTS:
        Path(f"{name}.txt").write_text((library / f"{name}.py").read_text()[:12_000])
    write_json(Path("plan.json"), small_plan())
    return [
        "sweep", str(LAPTOP), "--over", "pretrain.learning_rate=0.02,0.0001", "--plan", "plan.json", "--dir", "s", "--json",
        "--set", f"tokenizer.vocab_size={VOCABULARY}", "--text", *(f"{name}.txt" for name in TEXTS),
    ]  # fmt: skip


def call(arguments: list[str]) -> int:
    return cli._status(cli.spread_text(arguments))


def test_a_sweep_shares_what_is_the_same_goes_on_where_it_was_stopped_and_is_compared(
    sweep: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    real = Pretrain.run

    def watched(self: Pretrain, *arguments: Any) -> None:
        trained.append((self.learning_rate, self.seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(Pretrain, "run", watched)
    assert call([*sweep, "--seeds", "2"]) == 130
    assert "to go on, type the same command again" in capfd.readouterr().err
    assert trained == [(0.02, 1), (0.02, 2), (0.0001, 1)]
    kept = Path("s/learning_rate=0.02/seed-1/ledger.jsonl").read_bytes()

    assert call([*sweep, "--seeds", "2"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert trained[3:] == [(0.0001, 1), (0.0001, 2)] and Path("s/learning_rate=0.02/seed-1/ledger.jsonl").read_bytes() == kept
    assert (facts["baseline"], facts["best"]) == ("learning_rate=0.02", "learning_rate=0.02")
    fast, slow = facts["settings"]
    assert fast["seeds"] == [1, 2] and fast["bits_per_byte"]["mean"] < slow["bits_per_byte"]["mean"]
    assert fast["bits_per_byte"]["low"] < fast["bits_per_byte"]["mean"] < fast["bits_per_byte"]["high"]
    assert fast["tokens"] == slow["tokens"] == 64 * 12 and slow["against_baseline"]["p"] < 0.05
    for kind in ("corpus", "tokenizer", "plan"):
        assert len(list(Path("s").glob(f"**/{kind}/*/artifact.json"))) == 1

    assert call([*sweep, "--seeds", "2"]) == 0 and len(trained) == 5
    capfd.readouterr()
    assert call(["compare", "s/learning_rate=0.02", "s/learning_rate=0.0001", "--json"]) == 0
    compared = json.loads(capfd.readouterr().out)
    assert compared["compute_multiplier"]["value"] < 1 and len(compared["second"]["runs"]) == 2
    assert compared["held_out"] and compared["bound_on_ratios"] == "at least"
    assert [folder.name for folder in find("s/learning_rate=*")] == ["seed-1", "seed-2"] * 2 and len(find("s")) == 4
    pytest.importorskip("matplotlib")
    for x in ("tokens", "time", "flops"):
        assert call(["show", "s", "--plot", f"{x}.svg", "--x", x]) == 0
    assert len({Path(f"{x}.svg").read_text() for x in ("tokens", "time", "flops")}) == 3
    assert call(["compare", "s/learning_rate=0.02", "s/learning_rate=0.0001", "--plot", "c.svg"]) == 0
    assert call([*sweep, "--seeds", "2", "--plot", "s.svg"]) == 0 and "<svg" in Path("s.svg").read_text()
    capfd.readouterr()
    assert call(["show", "s", "--plot", "x.svg", "--x", "flop"]) == 2
    assert "--x flop: must be tokens, time, flops (did you mean 'flops'?)" in capfd.readouterr().err
    assert call([*sweep, "--set", "pretrain.weight_decay=0.1"]) == 2
    assert "s: holds a sweep of another recipe" in capfd.readouterr().err


def test_a_run_that_diverges_is_given_up_and_the_others_go_on(
    sweep: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pretrain.run

    def fails(self: Pretrain, *arguments: Any) -> None:
        if self.learning_rate == 0.02:
            raise HearthError("the loss is nan at step 3")
        real(self, *arguments)

    monkeypatch.setattr(Pretrain, "run", fails)
    assert call(sweep) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["settings"][0]["failed"] == ["the loss is nan at step 3"] and facts["best"] == "learning_rate=0.0001"
    assert "did not come to its end" in facts["verdict"]


def test_what_no_sweep_can_do_is_refused_before_anything_is_made(sweep: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert call([*sweep, "--over", "plan.hidden_size=32,64"]) == 2
    assert "--over plan.hidden_size: --plan decides it" in capfd.readouterr().err
    assert call(["sweep", str(LAPTOP)]) == 2
    assert "nothing to sweep" in capfd.readouterr().err
    assert call([*sweep, "--seeds", "0"]) == 2
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("x")
    capfd.readouterr()
    assert call([*sweep, "--dir", "full"]) == 2
    assert "full: exists and is not the folder of a sweep" in capfd.readouterr().err
    assert not Path("s").exists()
