"""GGUF files in the real llama.cpp, with a wrong one as a control; and `hearth release`, which puts them into a release."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.errors import HearthError
from openhearth.ledger import read_json, write_json
from openhearth.release import gguf, llama, weights
from openhearth.release.commands import release_command
from openhearth.release.finish import Wishes, finish
from openhearth.release.manifest import find_release, write_manifest
from openhearth.release.sign import fingerprint, load_key, new_key
from openhearth.release.verify import verify

pytest.importorskip("gguf")


def real_llama() -> None:
    pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def finished(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with F32 and Q8_0 files; do not change it."""
    return finish(made_run, Wishes(gguf=("f32", "q8_0")), tmp_path_factory.mktemp("finished") / "release")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_in_llama_cpp_the_f32_file_says_the_same_and_has_the_same_ids(finished: Path) -> None:
    real_llama()
    f32, q8 = (llama.Parity(**one) for one in read_json(finished / gguf.PARITY)["files"])
    assert (f32.prompts, f32.equal_continuations, f32.texts, f32.equal_texts) == (32, 32, 200, 200)
    assert f32.largest_difference < 1e-4 and f32.fault == ""
    assert abs(f32.divergence) < 1e-5 < q8.divergence < 0.1
    assert q8.largest_difference > 1e-3 and q8.fault == ""  # a quantised file is measured and promises nothing
    assert q8.equal_texts == 200


def test_a_file_whose_rows_are_permuted_wrongly_is_found(made_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The permutation that files of the architecture `llama` need, and `qwen3` must not have."""
    real_llama()

    def permuted(path: Path, where: str) -> Iterator[tuple[str, Any]]:
        for name, tensor in weights.read_tensors(path, where):
            if "q_proj" in name:
                heads = tensor.reshape(4, 2, tensor.shape[0] // 8, tensor.shape[1])
                yield name, np.ascontiguousarray(heads.swapaxes(1, 2).reshape(tensor.shape))
            else:
                yield name, tensor

    monkeypatch.setattr(gguf, "read_tensors", permuted)
    gguf.write_gguf(made_release, "f32", tmp_path / "wrong.gguf")
    found = llama.compare(made_release, "f32", tmp_path / "wrong.gguf", prompts=6)
    assert found.equal_continuations < 6 and "greedy continuations differ" in found.fault


def test_a_tokenizer_that_splits_otherwise_is_found(made_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_llama()
    import gguf as library

    monkeypatch.setattr(library.GGUFWriter, "add_tokenizer_pre", lambda self, name: self.add_string("tokenizer.ggml.pre", "gpt-2"))
    gguf.write_gguf(made_release, "f32", tmp_path / "wrong.gguf")
    assert "have other token ids" in llama.compare(made_release, "f32", tmp_path / "wrong.gguf", prompts=1).fault


def test_the_same_request_gives_the_same_bytes(made_run: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "parity_file", lambda release, names: read_json(finished / gguf.PARITY))
    again = finish(made_run, Wishes(gguf=("f32", "q8_0")), tmp_path / "elsewhere" / "again")
    assert verify(again).root == verify(finished).root


@pytest.mark.parametrize("name", list(gguf.FORMATS))
def test_every_number_format_is_written_to_the_same_bytes_twice(made_release: Path, tmp_path: Path, name: str) -> None:
    for number in "12":
        gguf.write_gguf(made_release, name, tmp_path / number)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_verify_writes_the_files_again_and_finds_one_that_is_not_of_these_weights(copy: Path) -> None:
    assert verify(copy).ok
    path = copy / gguf.file_of("q8_0")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    write_manifest(copy)
    report = verify(copy)
    assert report.fault == "gguf/model-q8_0.gguf: not what is written from the weights" and report.exit_status == 14


def test_verify_refuses_files_that_the_index_does_not_name_and_says_what_it_did_not_make(copy: Path) -> None:
    index = read_json(copy / gguf.INDEX)
    write_json(copy / gguf.INDEX, {**index, "gguf": "0.0.1"})
    write_manifest(copy)
    report = verify(copy)
    assert report.ok and any("not made again" in finding.detail for finding in report.findings if finding.name == "gguf")
    (copy / "gguf/other.gguf").write_bytes(b"GGUF")
    write_manifest(copy)
    assert "does not name the GGUF files" in verify(copy).fault


@pytest.mark.parametrize("content", [[], {"files": {"f32": "../x"}}, {"files": {"q9": "gguf/model-q9.gguf"}}, {"files": 1}])
def test_an_index_that_is_none_is_refused(copy: Path, content: Any) -> None:
    write_json(copy / gguf.INDEX, content)
    write_manifest(copy)
    assert verify(copy).fault


def test_a_signed_release_under_another_licence_states_it_everywhere(made_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mit.txt").write_text("Permission is hereby granted, free of charge, to any person obtaining a copy\n")
    new_key(tmp_path / "k")
    wishes = Wishes(key=tmp_path / "k", licence="MIT", licence_file=str(tmp_path / "mit.txt"))
    made = finish(made_run, wishes, tmp_path / "release")
    assert verify(made, fingerprint(load_key(tmp_path / "k").private.public_key())).ok
    assert read_json(made / "openness/findings.json")["licence"]["name"] == "MIT"


def test_what_cannot_be_done_is_refused_before_anything_is_written(made_run: Path, tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (lambda: gguf.formats("f32,q9_9"), "q9_9"),
        (lambda: finish(made_run, Wishes(key=tmp_path / "none"), tmp_path / "out"), "no such file"),
        (lambda: finish(made_run, Wishes(licence="MIT"), tmp_path / "out"), "give its file"),
        (lambda: finish(tmp_path, Wishes(), tmp_path / "out"), "not a release"),
        (lambda: finish(made_run, Wishes(), tmp_path), "nothing is overwritten"),
    ]
    for call, words in cases:
        with pytest.raises(HearthError, match=words):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_release_that_does_not_verify_is_not_built_on(release: Path, tmp_path: Path) -> None:
    (release / "README.md").write_text("x")
    with pytest.raises(HearthError, match="is not verified"):
        finish(release, Wishes(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_makes_a_folder_beside_the_run(made_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"gguf": "", "checkpoints": 0, "key": None, "licence": "", "licence_file": "", "json": False}
    assert release_command(made_run, into=None, **options) == 0
    try:
        assert "released: " in capsys.readouterr().out and verify(made_run / "published").ok
        assert find_release(made_run) != made_run / "published"  # the run's own stays the one that is meant
    finally:
        shutil.rmtree(made_run / "published")
