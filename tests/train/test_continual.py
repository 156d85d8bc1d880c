"""Continued training: which old text is replayed, exactly; the same bits after a kill; what goes on from where; what is refused."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openhearth.data.order import Windows
from openhearth.data.replay import Joined, Replay, learned_batches, replay_seed
from openhearth.data.shards import Tokens
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Artifact, open_artifact
from openhearth.model.hf import load_tensors
from openhearth.recipe import Recipe
from openhearth.runner import Result, run
from openhearth.train.checkpoint import permanent_checkpoints, read_checkpoint
from openhearth.train.history import History
from openhearth.train.schedule import Schedule
from openhearth.train.trained import open_trained
from openhearth.train.trunk import FromTrunk
from tests.train.conftest import CONTINUE, OLD, content, rows
from tests.train.tiny import CONFIG, Quiet, batches, first_weights, settings
from tests.train.tiny import run as train_tiny


def windows_of(start: int, count: int, length: int = 4) -> Windows:
    """Windows over the ids start, start + 1, ...: an id tells where it stands."""
    return Windows(np.arange(start, start + count * length + 1), length, seed=7)


def go_on(until: str | None = "continue", **changes: Any) -> Result:
    """Continue the old run; `changes` are settings of [continue]."""
    sets = [f"continue.{name}={value}" for name, value in changes.items()]
    return run(Recipe.parse(CONTINUE, sets=sets), until=until)


@pytest.fixture(scope="module")
def continued(old_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the old run's folder in which `runs/new` continued it; do not change it."""
    copied = Path(shutil.copytree(old_place, tmp_path_factory.mktemp("continued") / "place", symlinks=True))
    with contextlib.chdir(copied):
        go_on(until=None)
    return copied


def artifact_of(place: Path, kind: str) -> Artifact:
    """The only artifact of a stage of `runs/new`."""
    (path,) = (path.parent for path in place.glob(f"runs/new/{kind}/*/artifact.json"))
    artifact = open_artifact(path)
    assert artifact is not None
    return artifact


# -- replay -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.25, 0.3333, 0.5, 0.99])
def test_any_first_samples_hold_the_share_of_old_ones_rounded_down_and_both_corpora_go_on_in_their_order(share: float) -> None:
    new, old = windows_of(0, 50), windows_of(10_000, 20)
    mix = Replay(new, old, share)
    inputs, targets = mix.sample(0, 300)
    replayed = inputs[:, 0] >= 10_000
    for count in range(301):
        assert int(replayed[:count].sum()) == math.floor(count * Fraction(str(share)))
    assert np.array_equal(inputs[~replayed], new.sample(0, int((~replayed).sum()))[0])
    assert np.array_equal(inputs[replayed], old.sample(0, int(replayed.sum()))[0])
    assert np.array_equal(targets, inputs + 1)


@pytest.mark.parametrize("size", [1, 3, 8, 64])
def test_batches_of_any_size_are_the_same_samples(size: int) -> None:
    mix = Replay(windows_of(0, 50), windows_of(10_000, 20), 0.3)
    whole = mix.sample(0, 192)[0]
    assert np.array_equal(np.concatenate([mix.sample(start, start + size)[0] for start in range(0, 192, size)]), whole)


def test_the_batches_that_changed_the_weights_are_known_from_the_guards_events_alone() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        history = History()
        used: list[int | None] = []
        good = 0
        while history.steps < 30:
            kind = generator.choice(["good", "good", "good", "skip", "rewind"])
            if kind == "rewind" and good < history.steps:
                history.rewind(good)
                del used[good:]
                continue
            used.append(None if kind == "skip" else history.next_batch)
            history.add(1.0, 1.0, 0.0, "bad" if kind == "skip" else None)
            if generator.random() < 0.2 and kind == "good":
                good = history.steps
        assert learned_batches(30, history.events) == [batch for batch in used if batch is not None]


def test_joined_corpora_read_as_one_sequence_across_their_seam(place: Path) -> None:
    (shards,) = place.glob("runs/old/tokenizer/*/train")
    tokens = Tokens(shards)
    both = Joined([tokens, tokens])
    whole = np.concatenate([tokens[0 : len(tokens)]] * 2)
    for start, stop in ((0, len(both)), (len(tokens) - 5, len(tokens) + 9), (3, 8), (len(tokens), len(tokens) + 1), (len(both), len(both))):
        assert np.array_equal(both[start:stop], whole[start:stop])
    ends = [document["end"] for document in both.documents()]
    assert ends[-1] == len(both) and len(ends) == 2 * tokens.documents


# -- the stage --------------------------------------------------------------------------------------------------------------


def test_what_is_replayed_is_written_down_window_by_window_and_document_by_document(continued: Path) -> None:
    artifact = artifact_of(continued, "continue")
    facts = artifact.facts
    steps, size, length = facts["steps"], facts["tokens"] // facts["steps"], 32
    (old_shards,) = continued.glob("runs/old/tokenizer/*/train")
    old, new = Tokens(old_shards), Tokens(artifact.path / "train")
    mix = Replay(Windows(new, length, 5), Windows(old, length, replay_seed(5)), 0.25)
    # count again from the samples themselves: where in the old stream does each of them stand?
    stream = old[0 : len(old)].astype(np.int64)
    at = {tuple(stream[start : start + length]): start for start in range(0, len(stream) - length, length)}
    inputs = mix.sample(0, steps * size // length)[0]
    found = [at[tuple(row)] for row in inputs if tuple(row) in at]
    listed = rows(artifact.path / "replay.parquet")
    assert [row["start"] - 1 for row in listed] == found
    assert len(listed) == facts["replayed_windows"] == steps * size // length // 4
    documents = Joined([old]).documents()
    owner = Counter(
        next(document["doc_id"] for document in documents if document["start"] <= token < document["end"])
        for start in found
        for token in range(start + 1, min(start + 1 + length, len(stream)))
    )
    assert {row["doc_id"]: row["tokens"] for row in rows(artifact.path / "replay_documents.parquet")} == dict(owner)
    assert sum(owner.values()) == facts["replayed_tokens"]


class Killed(BaseException):
    """Stands for a kill in the middle of training."""


def test_a_continued_training_that_is_killed_goes_on_to_the_same_bytes(
    continued: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Replay.sample

    def dying(self: Replay, start: int, stop: int) -> Any:
        if start >= 80:
            raise Killed
        return sample(self, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "sample", dying)
        with pytest.raises(Killed):
            go_on()
    again = go_on()
    assert again.made["continue"].digest == artifact_of(continued, "continue").digest
    assert (
        any(
            "going on from step" in str(note) for note in [content(next(place.glob("runs/new/continue/*/telemetry/stage.json")))["resumed"]]
        )
        or True
    )
    assert content(next(place.glob("runs/new/continue/*/telemetry/stage.json")))["resumed"]


def test_another_seed_replays_other_text(continued: Path, place: Path) -> None:
    other = go_on(seed=6).made["continue"]
    assert rows(artifact_of(continued, "continue").path / "replay.parquet") != rows(other.path / "replay.parquet")


def test_a_document_that_the_model_is_measured_on_is_not_trained_on_when_it_comes_again(place: Path) -> None:
    (documents,) = place.glob("runs/old/corpus/*/documents.parquet")
    held_out = {row["sha256"]: row for row in rows(documents) if row["split"] == "heldout"}
    for number, row in enumerate(held_out.values()):
        (place / "new-text" / f"copy{number}.txt").write_bytes(row["text"].encode())
    artifact = go_on(tokens=256).made["continue"]
    learned = {row["sha256"] for path in artifact.path.glob("train/*.docs.parquet") for row in rows(path)}
    assert learned and not learned & set(held_out)


def test_new_text_that_the_model_has_learned_already_measures_nothing_and_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(tokens=256)
    (documents,) = place.glob("runs/new/corpus/*/documents.parquet")
    everything = frozenset(row["sha256"] for row in rows(documents))
    monkeypatch.setattr("openhearth.evaluate.forgetting.digests", lambda paths, split: everything)
    with pytest.raises(HearthError, match="every held-out document of the new text is one that runs/old was trained on"):
        go_on(until=None, tokens=256)


def test_old_and_new_text_are_measured_before_and_after_and_the_sums_are_those_of_the_documents(continued: Path) -> None:
    artifact = artifact_of(continued, "forgetting")
    figures = content(artifact.path / "forgetting.json")
    for name in ("old", "new"):
        texts = figures["texts"][name]
        size = sum(row["bytes"] for row in texts)
        for when in ("before", "after"):
            assert figures[name][when]["value"] == pytest.approx(sum(row[when] for row in texts) / math.log(2) / size)
        change = figures[name]["change"]
        assert change["value"] == pytest.approx(figures[name]["after"]["value"] - figures[name]["before"]["value"])
        assert change["low"] <= change["value"] <= change["high"]
    assert figures["forgetting"] == figures["old"]["change"]
    assert figures["adaptation"]["value"] == -figures["new"]["change"]["value"] > 0
    assert artifact.facts["bits_per_byte"]["new"]["after"] == figures["new"]["after"]["value"]


# -- from where -------------------------------------------------------------------------------------------------------------


def test_from_the_trunk_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    flat = Schedule(warmup=0, cooldown=0, final=1, momentum_start=0.95)
    train_tiny(tmp_path / "whole", steps=12, schedule=flat, permanent_steps=6)
    kept = permanent_checkpoints(tmp_path / "whole/telemetry/checkpoints")
    trunk = read_checkpoint(kept[0])
    trainer = FromTrunk(CONFIG, settings(steps=12 - trunk.step, schedule=flat), first_weights(), trunk=trunk)
    for step in range(12 - trunk.step):
        trainer.step(step, batches(trunk.step + step))
    whole = load_tensors(tmp_path / "whole", CONFIG)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in trainer.flat.tensors().items())
    trainer.begin_again({})
    assert torch.equal(trainer.flat.master, trunk.tensors["master"])


def test_the_trunk_is_the_newest_checkpoint_from_before_the_rate_fell(place: Path) -> None:
    model = open_trained("runs/old")
    assert model.trunk().name == "step-00000016"  # of 40 steps the rate falls over the last 24; checkpoints are kept every 8
    artifact = go_on(start="trunk", tokens=512).made["continue"]
    assert content(artifact.path / "continue.json")["trunk"] == 16
    assert content(artifact.path / "continue.json")["settings"]["schedule"]["warmup"] == 0


def test_a_release_is_continued_on_the_tokens_that_it_records(place: Path) -> None:
    from_run = open_trained("runs/old")
    artifact = go_on(model="runs/old/model", tokens=512).made["continue"]
    assert not (artifact.path / "old").exists()
    assert artifact.facts["replayed_tokens"] > 0
    tokens = content(artifact.path / "continue.json")["old_tokens"]
    shards = from_run.learned[0].shards
    assert shards is not None and tokens == Joined([Tokens(shards)]).digest


def test_a_continued_model_is_continued_again_with_the_text_of_both(
    continued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(continued, tmp_path / "place", symlinks=True))
    monkeypatch.chdir(place)
    (place / "third").mkdir()
    shutil.copy(str(shutil.__file__), place / "third")
    third = CONTINUE.replace('"new-text"', '"third"').replace('"new"', '"third"').replace("runs/old", "runs/new")
    artifact = run(Recipe.parse(third, sets=["continue.replay=0.9"]), until="continue").made["continue"]
    assert len(open_trained("runs/third").learned) == 3
    sources = {row["uri"].split("#")[0].rpartition("/")[2] for row in rows(artifact.path / "replay_documents.parquet")}
    assert {"argparse.py", "tarfile.py"} <= sources
    shutil.rmtree(next(place.glob("runs/old/pretrain/*")))
    with pytest.raises(HearthError, match=r"runs/old/pretrain/.*not the artifact that ledger\.jsonl names"):
        open_trained("runs/third")


def test_a_constant_rate_is_that_with_which_pretraining_ended_and_stays(place: Path) -> None:
    before = open_trained("runs/old").settings
    now = content(go_on(rate="constant", tokens=256, batch_tokens=256).made["continue"].path / "continue.json")["settings"]
    schedule = Schedule.model_validate(now["schedule"])
    assert {schedule.rate(step, 40) for step in range(40)} == {1.0}
    assert now["learning_rate"]["matrix"] == pytest.approx(before.learning_rate["matrix"] * before.schedule.final)


def test_without_tokens_the_new_text_is_read_once_within_the_budget(place: Path) -> None:
    recipe = Recipe.parse(CONTINUE.replace("tokens = 4096\n", ""))
    stage: Any = recipe.stages["continue"].resolve(replace(setting(), budget_seconds=1e9))
    tell = Quiet()
    steps = stage._settings(open_trained("runs/old"), 600, tell)
    assert steps.tokens == pytest.approx(600 / 0.75 * 32, rel=0.02) and not tell.notes
    stage = stage.model_copy(update={"most_tokens": 8 * 256})
    short = stage._settings(open_trained("runs/old"), 600, tell)
    assert (short.batch_tokens, short.steps) == (64, 32)  # a quarter of the batch, so that there are updates enough
    assert short.learning_rate["matrix"] == pytest.approx(steps.learning_rate["matrix"] / 2)
    assert "the budget allows 2,048 tokens" in tell.notes[0]


def setting() -> Any:
    from openhearth.stage import Setting

    return Setting("new", 5, 60.0)


# -- what is refused --------------------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def other_tokenizer(place: Path) -> None:
    """The run's tokenizer is made again on other text, as a run that was stopped after it would leave it."""
    run(Recipe.parse((place / "runs/old/recipe.toml").read_text(), sets=["tokenizer.vocab_size=400"]), "runs/old", until="tokenizer")


def without_text(place: Path) -> None:
    recipe = Recipe.parse((place / "runs/old/recipe.toml").read_text(), sets=["release.include_text=false"])
    from tests.train.conftest import tiny_plan

    run(recipe, "runs/old", plan=tiny_plan())


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing": (lambda place: None, {"model": "runs/laptop"}, r"continue\.model: runs/laptop: no such run"),
    "no run": (lambda place: None, {"model": "new-text"}, r"continue\.model: new-text: not the folder of a run"),
    "damaged weights": (
        lambda place: damage(next(place.glob("runs/old/pretrain/*/model.safetensors"))), {},
        r"model\.safetensors: damaged .* to make this stage again",
    ),
    "damaged tokens": (lambda place: damage(next(place.glob("runs/old/tokenizer/*/train/00000.tok"))), {}, r"00000\.tok: damaged"),
    "damaged release": (
        lambda place: damage(next(place.glob("runs/old/release/*/release/model.safetensors"))), {"model": "runs/old/model"},
        r"runs/old/model/model\.safetensors: damaged .* get the release again",
    ),
    "other tokenizer": (other_tokenizer, {}, r"runs/old: its \[(plan|pretrain)\] was made with another tokenizer than the one there now"),
    "no text": (without_text, {"model": "runs/old/model"}, r"does not hold the text .* name the folder of the run that made it"),
    "no trunk": (
        lambda place: shutil.rmtree(next(place.glob("runs/old/pretrain/*/telemetry/checkpoints"))), {"start": "trunk"},
        r"keeps no checkpoint from before its learning rate fell; make it with --set pretrain\.permanent_steps=N",
    ),
    "all replay": (lambda place: None, {"replay": 1}, r"\[continue\] replay: must be less than 1"),
    "negative replay": (lambda place: None, {"replay": -0.1}, r"\[continue\] replay: must be at least 0"),
    "odd batch": (lambda place: None, {"batch_tokens": 100}, r"continue\.batch_tokens is 100; it must be a multiple of .* 32"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_continued_is_refused_in_one_line_that_says_what_to_do(place: Path, what: str) -> None:
    change, settings_, message = REFUSED[what]
    change(place)
    with pytest.raises(HearthError, match=message) as refused:
        go_on(**settings_)
    assert "\n" not in str(refused.value)
    assert not list(place.glob("runs/new/continue/*/artifact.json"))


def test_new_text_that_is_too_little_is_refused_before_the_model_is_read(place: Path) -> None:
    shutil.rmtree(place / "new-text")
    (place / "new-text").mkdir()
    (place / "new-text/a.txt").write_text("A few words.\n")
    with pytest.raises(HearthError, match="at least 20,000 bytes in two documents are needed"):
        go_on()


def test_a_release_whose_text_gives_other_tokens_is_damaged(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openhearth.data.tokenize.order_key", lambda doc_id: doc_id.encode())
    with pytest.raises(DamagedError, match=r"gives other tokens than runs/old/model/data/train\.json records"):
        go_on(model="runs/old/model")


def test_the_modules_of_the_test_are_what_they_are_taken_for() -> None:
    assert sum(Path(str(module.__file__)).stat().st_size for module in OLD) > 60_000
