"""Samples on the way: drawn where they should be, kept once, and without a trace in what is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from openhearth.train import milestones
from openhearth.train.loop import Batch, train
from openhearth.train.milestones import FILE, Milestones
from tests.train.tiny import CONFIG, Quiet, batches, first_weights, same_results, settings, weights


class Letters:
    """A codec whose ids are letters."""

    bos, im_end = 0, 63

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(97 + i % 26 for i in ids)


def run(out: Path, count: int, kill_at: int | None = None) -> Quiet:
    out.mkdir(exist_ok=True)
    tell, chosen = Quiet(), settings()

    def reads(step: int) -> Batch:
        if step == kill_at:
            raise KeyboardInterrupt
        return batches(step)

    train(CONFIG, chosen, first_weights, reads, out, tell, after=Milestones(Letters(), CONFIG, chosen.steps, count, 1, out, tell))
    return tell


def rows(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / FILE).read_text().splitlines()]


def test_samples_come_at_even_shares_and_change_no_bit_of_training(tmp_path: Path) -> None:
    tell = run(tmp_path / "three", 3)
    assert [row["step"] for row in rows(tmp_path / "three")] == [3, 6, 9]
    assert [note.split(" it writes")[0] for note in tell.notes] == ["after 25%", "after 50%", "after 75%"]
    assert len({row["text"] for row in rows(tmp_path / "three")}) > 1, "the weights between them differ"
    run(tmp_path / "none", 0)
    assert not (tmp_path / "none" / FILE).exists()
    assert same_results(tmp_path / "three", tmp_path / "none")


def test_after_a_kill_a_sample_is_drawn_again_and_kept_once(tmp_path: Path) -> None:
    run(tmp_path / "whole", 3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 3, kill_at=7)
    run(tmp_path / "killed", 3)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_disk_that_is_full_costs_the_sample_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(milestones, "write_atomic", full)
    tell = run(tmp_path / "run", 1)
    assert any("No space left on device; the sample is not kept" in note for note in tell.notes)
    assert (tmp_path / "run" / "model.safetensors").is_file()
