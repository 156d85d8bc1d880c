"""Segments of a small but real training, made again; a weight nudged by 1e-6; attestations and what they add up to."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.ledger import read_json, write_json
from openhearth.release import checkpoints, sign
from openhearth.release.audit import Audit, Segment, attest, audit, caught, choose, merge, segments_of
from openhearth.release.audit_command import audit_command, merge_command
from openhearth.release.finish import Wishes, finish
from openhearth.release.manifest import find_release, write_manifest
from openhearth.release.openness.assess import assess, write_openness
from openhearth.release.openness.show import openness_command
from openhearth.release.segments import State, leaf_hash, merkle_root, read_state
from openhearth.release.verify import verify

from .conftest import make_run
from .test_rebuild import run_of, write_texts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    write_texts(folder / "texts")
    return run_of(folder / "texts", folder / "run")


@pytest.fixture(scope="module")
def audited(run: Path) -> Path:
    """A release with three checkpoints of six steps; do not change it."""
    return finish(run, Wishes(checkpoints=3))


@pytest.fixture
def copy(audited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(audited, tmp_path / "copy"))


def lie(release: Path, number: int, change: Callable[[State], None]) -> None:
    """Change a checkpoint and everything that names it, as whoever made the release could."""
    index = read_json(release / checkpoints.INDEX)
    folder, leaf = release / checkpoints.FOLDER, index["leaves"][number]
    state = read_state(folder, leaf)
    change(state)
    state.save(folder)
    leaf["state"] = state.digest()
    index["root"] = merkle_root([leaf_hash(place, one["step"], one["state"]) for place, one in enumerate(index["leaves"])])
    write_json(release / checkpoints.INDEX, index)
    write_openness(release)
    write_manifest(release)


def nudge(state: State) -> None:
    state.tensors["master"][7] += 1e-6


# -- checkpoints in a release -------------------------------------------------------------------------------------------------


def test_checkpoints_are_states_whose_digests_make_up_the_root_and_open_what_class_one_lacked(audited: Path) -> None:
    index = read_json(audited / checkpoints.INDEX)
    assert [leaf["step"] for leaf in index["leaves"]] == [2, 4, 6]
    assert verify(audited).ok and "Model parameters (Intermediate)" not in assess(audited).proven.missing[1]
    assert next(one for one in assess(audited).index if one.key == "llmweights").value == "open"


def test_the_same_request_gives_the_same_bytes(run: Path, audited: Path, tmp_path: Path) -> None:
    assert verify(finish(run, Wishes(checkpoints=3), tmp_path / "again")).root == verify(audited).root


def test_checkpoints_are_refused_where_the_machine_does_not_come_to_the_recorded_weights(tmp_path: Path) -> None:
    """The hand-made run's record was never trained: what training gives is something else."""
    run = make_run(tmp_path / "run").parents[2]
    with pytest.raises(HearthError):
        finish(run, Wishes(checkpoints=2), tmp_path / "out")
    assert not (tmp_path / "out").exists() and sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_more_checkpoints_than_steps_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(HearthError, match="only 6 steps"):
        finish(run, Wishes(checkpoints=7), tmp_path / "out")


def test_a_checkpoint_that_is_not_its_leaf_and_one_too_many_are_found(copy: Path) -> None:
    folder = copy / checkpoints.FOLDER
    state = read_state(folder, read_json(copy / checkpoints.INDEX)["leaves"][1])
    nudge(state)
    state.save(folder)
    write_manifest(copy)
    report = verify(copy)
    assert "not the state whose digest" in report.fault and report.exit_status == 14
    (folder / "step-00000009.json").write_text("{}")
    write_manifest(copy)
    assert "not one of the checkpoints" in verify(copy).fault


@pytest.mark.parametrize("content", [[], {}, {"format": checkpoints.FORMAT, "root": "", "leaves": []}, {"leaves": [{"step": -1}]}])
def test_an_index_that_is_none_is_refused(copy: Path, content: Any) -> None:
    write_json(copy / checkpoints.INDEX, content)
    write_manifest(copy)
    assert "not an index of checkpoints" in verify(copy).fault


def test_the_root_is_that_of_rfc_6962() -> None:
    """Certificate Transparency's own vectors: the tree over no leaf, and over its first known leaves."""
    import hashlib

    assert merkle_root([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    leaves = [hashlib.sha256(b"\x00" + bytes.fromhex(text)).digest() for text in ("", "00", "10", "2021", "3031", "40414243")]
    assert merkle_root(leaves[:1]) == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle_root(leaves[:3]) == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert merkle_root(leaves[:6]) == "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"


# -- audits -------------------------------------------------------------------------------------------------------------------


def test_every_segment_of_an_honest_release_comes_out_the_same(audited: Path) -> None:
    found = audit(audited, 10)
    assert found.ok and found.results == dict.fromkeys(range(4), "equal")
    assert found.segments[0].always and found.segments[-1].name == "fine-tuning"


def test_a_weight_nudged_by_a_millionth_is_found_in_the_segments_on_both_sides(copy: Path) -> None:
    lie(copy, 1, nudge)
    assert verify(copy).ok  # nothing but training again shows it
    found = audit(copy, 0, only=[1, 2])
    assert found.results == {1: "different", 2: "different"} and "master differ" in found.details[1]


def test_a_loss_that_was_invented_is_found(copy: Path) -> None:
    lie(copy, 0, lambda state: state.history["losses"].__setitem__(0, 1.0))
    assert audit(copy, 0, only=[0]).details[0] == "losses of the steps so far differ"


def test_the_last_checkpoint_must_be_where_pretraining_ended(copy: Path) -> None:
    lie(copy, 2, nudge)
    assert "does not hold the weights that pretraining ended with" in audit(copy, 0, only=[3]).details[3]


def test_a_release_without_checkpoints_and_numbers_that_are_none_are_refused(run: Path, audited: Path) -> None:
    with pytest.raises(HearthError, match="holds no checkpoints"):
        audit(run, 1)
    with pytest.raises(HearthError, match="segments 0 to 3"):
        audit(audited, 1, only=[9])


def test_an_audit_leaves_nothing_behind(audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    audit(audited, 0, only=[0])
    assert list(tmp_path.iterdir()) == []


# -- chance -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "bad", "drawn"), [(6, 1, 2), (7, 2, 3), (5, 5, 1), (5, 0, 3), (8, 3, 0)])
def test_the_probability_is_that_of_counting_every_draw(total: int, bad: int, drawn: int) -> None:
    draws = list(itertools.combinations(range(total), drawn))
    assert caught(total, bad, drawn) == pytest.approx(sum(min(draw, default=total) < bad for draw in draws) / len(draws))


def test_known_probabilities() -> None:
    assert caught(100, 1, 10) == pytest.approx(0.10) and caught(100, 5, 50) == pytest.approx(0.97, abs=0.005)


def segments(count: int) -> list[Segment]:
    return segments_of(10 * count, [{"step": 10 * (number + 1)} for number in range(count)], [15])


def test_first_last_and_turns_are_always_audited_and_the_rest_is_drawn_evenly() -> None:
    all_ = segments(10)
    assert [segment.number for segment in all_ if segment.always] == [0, 1, 9, 10]
    seen: dict[int, int] = {}
    for _ in range(700):
        chosen, drawn = choose(all_, 2, ())
        assert {0, 1, 9, 10} <= {segment.number for segment in chosen} and len(drawn) == 2
        for number in drawn:
            seen[number] = seen.get(number, 0) + 1
    assert sorted(seen) == [2, 3, 4, 5, 6, 7, 8]
    assert all(120 < count < 290 for count in seen.values())  # 200 expected, six standard deviations


def test_the_chances_are_those_against_someone_who_avoids_what_is_always_audited() -> None:
    found = Audit("", segments(10), {}, [2, 5], {})
    assert found.chances()[1] == pytest.approx(2 / 7)


# -- attestations -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, sign.Key]:
    made = {}
    for name in ("ann", "bo"):
        sign.new_key(tmp_path / name)
        made[name] = sign.load_key(tmp_path / name)
    return made


def attested(audited: Path, key: sign.Key, target: Path, results: dict[int, str], root: str = "ab" * 32) -> Path:
    attest(Audit(root, segments(3), results, [], {}), audited, key, target)
    return target


def test_attestations_of_several_people_add_up_to_a_map(audited: Path, tmp_path: Path, keys: dict[str, sign.Key]) -> None:
    ann = attested(audited, keys["ann"], tmp_path / "1", {0: "equal", 1: "equal"})
    again = attested(audited, keys["ann"], tmp_path / "2", {0: "equal"})
    bo = attested(audited, keys["bo"], tmp_path / "3", {0: "equal", 3: "equal"})
    found = merge([ann, again, bo])
    assert (found.map, found.uncovered, found.complete) == ("21.1", [2], False)  # the same signer counts once
    more = attested(audited, keys["bo"], tmp_path / "4", {2: "equal"})
    assert merge([ann, bo, more]).complete
    bad = attested(audited, keys["bo"], tmp_path / "5", {2: "different"})
    assert merge([ann, bo, more, bad]).map == "21X1" and not merge([ann, bo, more, bad]).complete


def test_an_attestation_that_was_changed_or_is_not_trusted_or_about_something_else_is_refused(
    audited: Path, tmp_path: Path, keys: dict[str, sign.Key]
) -> None:
    import base64

    one = attested(audited, keys["ann"], tmp_path / "1", {0: "equal"})
    print_ = sign.fingerprint(keys["ann"].private.public_key())
    assert merge([one], [print_]).map == "1..."
    with pytest.raises(sign.UntrustedError):
        merge([one], ["0" * 64])
    with pytest.raises(HearthError, match="another release"):
        merge([one, attested(audited, keys["bo"], tmp_path / "2", {0: "equal"}, root="cd" * 32)])
    bundle = read_json(one)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"0": "equal"', b'"1": "equal"')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    write_json(one, bundle)
    with pytest.raises(sign.SignatureError, match="is not one of the key"):
        merge([one])
    for content in (b"", b"{}", b"[]", b"null"):
        one.write_bytes(content)
        with pytest.raises(HearthError):
            merge([one])


def test_the_commands_write_an_attestation_that_they_read(
    audited: Path, tmp_path: Path, keys: dict[str, sign.Key], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.json"
    options: dict[str, Any] = {"key": tmp_path / "ann", "json": False}
    assert audit_command(audited, segments=1, only="0,3", out=out, **options) == 0
    assert "attestation: " in capsys.readouterr().out
    assert merge_command([out], trusted=(), json=True) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["map"] == "1..1" and content["root"] == verify(find_release(audited)).root
    with pytest.raises(HearthError, match="exists"):
        audit_command(audited, segments=1, only="0", out=out, **options)


def test_a_release_that_others_audited_whole_stands_on_the_fourth_rung(
    audited: Path, tmp_path: Path, keys: dict[str, sign.Key], capsys: pytest.CaptureFixture[str]
) -> None:
    root = verify(audited).root
    everything = attested(audited, keys["ann"], tmp_path / "1", dict.fromkeys(range(4), "equal"), root)
    part = attested(audited, keys["bo"], tmp_path / "2", {0: "equal"}, root)

    def level(release: Path, *files: Path) -> tuple[str, str]:
        openness_command(release, attestations=files, json=True)
        ladder = json.loads(capsys.readouterr().out)["rung"]
        return ladder["level"], ladder["lacks"]

    assert level(audited, everything) == ("R4", "")
    assert level(audited, part)[0] == "R2" and "3 of 4 segments are attested by nobody else" in level(audited, part)[1]
    own = Path(shutil.copytree(audited, tmp_path / "own"))
    sign.sign_folder(own, keys["ann"])
    assert level(own, everything)[0] == "R2"  # who signed the release does not count
    with pytest.raises(HearthError, match="another release"):
        level(audited, attested(audited, keys["bo"], tmp_path / "3", {0: "equal"}))


def test_states_have_one_digest_for_their_bytes() -> None:
    import torch

    def state(values: list[float]) -> State:
        return State(1, {"master": torch.tensor(np.array(values, dtype=np.float32))}, {"losses": [1.0]})

    assert state([1.0, 2.0]).digest() == state([1.0, 2.0]).digest() != state([1.0, 2.0000002]).digest()
