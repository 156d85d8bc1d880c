"""What `hearth verify` accepts and refuses."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.ledger import read_json, write_json
from openhearth.release import manifest
from openhearth.release.commands import verify_command
from openhearth.release.manifest import clash, unsafe, write_manifest
from openhearth.release.verify import verify

from .conftest import forge, make_run


def names_of(release: Path) -> list[str]:
    return sorted(path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file())


def test_a_fresh_release_verifies(made_release: Path) -> None:
    report = verify(made_release)
    assert [finding.detail for finding in report.findings if not finding.ok] == []
    assert len(report.findings) == 13
    assert report.root == read_json(made_release / "MANIFEST.json")["root"]


def test_a_run_folder_verifies_as_its_release(made_run: Path, made_release: Path) -> None:
    report = verify(made_run)
    assert report.ok and report.folder == made_release


def test_a_tied_model_and_a_release_without_text_verify(tmp_path: Path) -> None:
    report = verify(make_run(tmp_path / "run", tied=True, include_text=False))
    assert report.fault == ""
    assert any("not in the release" in finding.detail for finding in report.findings)


def test_the_card_of_a_release_without_text_does_not_claim_to_hold_it(tmp_path: Path, made_release: Path) -> None:
    run = make_run(tmp_path / "run", include_text=False)
    without, with_text = ((folder / "README.md").read_text() for folder in (verify(run).folder, made_release))
    assert "Everything it was made from" in with_text and "### Samples" in with_text
    assert "Everything it was made from" not in without and "the training text is not, only its digests" in without
    assert "### Samples" not in without and "quote passages of the held-out text" in without
    assert "The text itself is not in this release" in without and "--text PATH..." in without


def test_verify_needs_no_torch(made_release: Path) -> None:
    program = (
        f"import sys; from pathlib import Path; from openhearth.release.verify import verify; assert verify(Path({str(made_release)!r})).ok"
    )
    subprocess.run([sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=True, timeout=60)


def test_one_changed_byte_in_any_file_is_found_and_the_file_is_named(release: Path) -> None:
    for name in names_of(release):
        path = release / name
        data = path.read_bytes()
        for at in {0, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            report = verify(release)
            assert not report.ok, (name, at)
            assert name in report.fault or name == "MANIFEST.json", (name, at, report.fault)
            assert "\n" not in report.fault
        path.write_bytes(data)
    assert verify(release).ok


def test_each_missing_file_is_found_and_named(release: Path) -> None:
    for name in names_of(release):
        (release / name).rename(release.parent / "away")
        report = verify(release)
        assert report.fault.startswith(f"{name}: missing"), (name, report.fault)
        (release.parent / "away").rename(release / name)
    assert verify(release).ok


@pytest.mark.parametrize("name", ["extra.txt", "data/extra.parquet", ".hidden", "new/folder/file"])
def test_an_unlisted_file_is_found_and_named(release: Path, name: str) -> None:
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_text("x")
    assert verify(release).fault.startswith(f"{name}: not listed")


@pytest.mark.parametrize("name", ["empty", "data/empty", "new/folder"])
def test_an_unlisted_empty_folder_is_found_and_named(release: Path, name: str) -> None:
    (release / name).mkdir(parents=True)
    assert verify(release).fault.startswith(f"{name.replace('new/folder', 'new')}/: a folder not listed")
    assert verify_command(release) == 11


def test_a_file_that_cannot_be_read_is_a_fault(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(manifest, "digest_file", refuse)
    assert "not readable (Permission denied)" in verify(release).fault


def link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def hard(path: Path) -> None:
    os.link(path, path.with_name("second"))


@pytest.mark.parametrize("change", [link, dangle, fifo, folder, hard])
@pytest.mark.parametrize("name", ["MANIFEST.json", "model.safetensors", "data/report.json", "README.md"])
def test_links_pipes_and_folders_in_place_of_files_are_faults(release: Path, change: Callable[[Path], None], name: str) -> None:
    change(release / name)
    started = time.monotonic()
    report = verify(release)
    assert not report.ok and time.monotonic() - started < 2


def test_a_folder_that_is_a_link_is_a_fault(release: Path) -> None:
    (release / "data").rename(release.parent / "data")
    (release / "data").symlink_to(release.parent / "data")
    assert verify(release).fault.startswith("data: a link")


# -- a hostile author: the manifest agrees with the folder, the content is wrong ---------------------------------------------


def refused(release: Path) -> str:
    """The fault of a release whose manifest lists exactly what is there."""
    write_manifest(release)
    started = time.monotonic()
    report = verify(release)
    assert not report.ok and "\n" not in report.fault and time.monotonic() - started < 2
    return report.fault


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "data/x.PKL", "a.ckpt", "modeling_qwen3.py"])
def test_files_that_run_code_when_loaded_are_refused(release: Path, name: str) -> None:
    (release / name).write_bytes(b"x")
    assert refused(release).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModelForCausalLM": "modeling.Model"}),
        ("_attn_implementation_internal", "someone/kernels"),
        ("trust_remote_code", True),
        ("quantization_config", {}),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 2.0),
        ("num_hidden_layers", None),
        ("num_key_value_heads", 3),
        ("vocab_size", 100),
        ("hidden_act", "gelu"),
        ("model_type", "llama"),
        ("rope_parameters", "x"),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 10000.0}),
        ("eos_token_id", []),
        ("architectures", ["Other"]),
        ("rms_norm_eps", float("nan")),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(release: Path, key: str, value: Any) -> None:
    config = read_json(release / "config.json")
    (release / "config.json").write_text(json.dumps({**config, key: value}))
    fault = refused(release)
    assert (
        fault.startswith(("config.json: ", "model.safetensors: ", "tokenizer.json: "))
        and "that the stage" not in fault
        and "Error" not in fault
    )


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100_000, b'{"a":1,"a":2}', b"\xff\xfe", b"1" * 10_000, b'{"model_type": {}}', b"null"])
@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json", "training/sft/artifact.json", "ledger.jsonl"],
)
def test_json_that_is_not_what_belongs_there_is_a_fault_and_never_an_error(release: Path, name: str, data: bytes) -> None:
    (release / name).write_bytes(data)
    refused(release)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"[" * 100_000, b'{"format":"openhearth-release/1","root":"","files":{}}', b"null"])
def test_a_manifest_that_is_none_is_a_fault(release: Path, data: bytes) -> None:
    (release / "MANIFEST.json").write_bytes(data)
    report = verify(release)
    assert report.fault


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a//b",
        "./a",
        "a\\b",
        "C:x",
        "a\nb",
        "a\x00b",
        "a\x85b",
        "e\u0301",
        "x" * 241,
        "CON",
        "a/nul.txt",
        "a ",
        "",
        "\ud800",
    ],
)
def test_names_that_are_not_safe_are_refused(release: Path, name: str) -> None:
    assert unsafe(name) is not None
    content = read_json(release / "MANIFEST.json")
    content["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (release / "MANIFEST.json").write_text(json.dumps(content))
    assert verify(release).fault.startswith("MANIFEST.json: ")


def test_a_root_digest_that_is_not_that_of_the_table_is_refused(release: Path) -> None:
    content = read_json(release / "MANIFEST.json")
    write_json(release / "MANIFEST.json", {**content, "root": "0" * 64})
    assert verify(release).fault == "MANIFEST.json: the root digest is not the digest of the list of files"


def test_a_listed_file_of_another_size_is_named_with_both_sizes(release: Path) -> None:
    size = (release / "LICENSE").stat().st_size
    (release / "LICENSE").write_bytes(b"x")
    assert verify(release).fault == f"LICENSE: 1 bytes, MANIFEST.json lists {size:,}"


def test_one_file_under_two_listed_names_is_refused(release: Path) -> None:
    os.link(release / "README.md", release / "data/README.md")
    assert "a hard link" in refused(release)


def test_names_that_clash_are_found() -> None:
    assert clash(["a", "b/c"]) is None
    assert clash(["README.md", "readme.MD"]) == ("README.md", "readme.MD")
    assert clash(["data", "data/x"]) == ("data", "data/x")


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def safetensors(header: str, body: bytes) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + body


@pytest.mark.parametrize(
    "length",
    [0, 1, 2**63, 2**64 - 1, 10**9],
)
def test_a_header_of_impossible_size_is_refused(release: Path, length: int) -> None:
    path = release / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    assert refused(release).startswith("model.safetensors: ")


def mutate_overlap(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"]


def mutate_missing(header: dict[str, Any]) -> None:
    header["model.other.weight"] = header.pop("model.norm.weight")


def mutate_shape(header: dict[str, Any]) -> None:
    shape = header["model.layers.0.mlp.up_proj.weight"]["shape"]
    header["model.layers.0.mlp.up_proj.weight"]["shape"] = shape[::-1]


def mutate_dtype(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["dtype"] = "I32"


def mutate_negative(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["data_offsets"] = [-256, 0]


def mutate_huge(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["shape"] = [2**62, 2**62]


def mutate_field(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["extra"] = 1


def mutate_boolean(header: dict[str, Any]) -> None:
    header["model.norm.weight"]["shape"] = [True, 64]


def mutate_metadata(header: dict[str, Any]) -> None:
    header["__metadata__"] = {"format": 1}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (mutate_overlap, "begins at"),
        (mutate_missing, "tensor model.norm.weight is missing"),
        (mutate_shape, "has shape"),
        (mutate_dtype, "has dtype 'I32'"),
        (mutate_negative, "are not two positions"),
        (mutate_huge, "its shape"),
        (mutate_field, "is not a dtype, a shape and two offsets"),
        (mutate_boolean, "is not a list of sizes"),
        (mutate_metadata, "the metadata are not texts"),
    ],
)
def test_a_header_that_does_not_describe_the_weights_is_refused(
    release: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    path = release / "model.safetensors"
    header, body = header_of(path.read_bytes())
    change(header)
    path.write_bytes(safetensors(json.dumps(header), body))
    fault = refused(release)
    assert fault.startswith("model.safetensors: ") and words in fault


def test_a_tensor_given_twice_and_bytes_behind_the_last_tensor_are_refused(release: Path) -> None:
    path = release / "model.safetensors"
    data = path.read_bytes()
    header, body = header_of(data)
    text = json.dumps(header)
    path.write_bytes(safetensors(text[:-1] + ', "model.norm.weight": ' + json.dumps(header["model.norm.weight"]) + "}", body))
    assert "given twice" in refused(release)
    path.write_bytes(data + b"\0")
    assert refused(release).startswith("model.safetensors: the tensors end")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(release: Path, value: float) -> None:
    path = release / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4:] = struct.pack("<f", value)
    path.write_bytes(bytes(data))
    assert "not finite" in refused(release)


def test_weights_that_the_run_did_not_make_are_refused(release: Path) -> None:
    path = release / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x80  # the sign of one weight
    path.write_bytes(bytes(data))
    assert refused(release) == "model.safetensors: not the file model.safetensors that the stage sft made"


def test_weights_that_are_not_those_of_the_last_step_are_refused(release: Path) -> None:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-1] ^= 0x80
        path.write_bytes(bytes(data))

    forge(release, "sft", "model.safetensors", "model.safetensors", change)
    assert verify(release).fault.startswith("training/sft/trace.jsonl: ")


def test_a_table_of_an_artifact_that_does_not_have_its_digest_is_refused(release: Path) -> None:
    record = read_json(release / "training/corpus/artifact.json")
    record["files"]["other"] = {"sha256": "0" * 64, "bytes": 1}
    write_json(release / "training/corpus/artifact.json", record)
    assert refused(release) == "training/corpus/artifact.json: its digest is not that of its list of files"


def test_facts_that_the_ledger_does_not_state_are_refused(release: Path) -> None:
    record = read_json(release / "training/pretrain/artifact.json")
    record["facts"]["tokens"] = 10**12
    write_json(release / "training/pretrain/artifact.json", record)
    assert refused(release) == "training/pretrain/artifact.json: the ledger states other facts for the stage pretrain"


def test_a_recipe_that_the_ledger_does_not_state_is_refused(release: Path) -> None:
    (release / "recipe.toml").write_text('name = "small"\nseed = 2\n')
    assert refused(release).startswith("recipe.toml: not the recipe")
    (release / "recipe.toml").write_text("= = =")
    assert refused(release).startswith("recipe.toml: not readable")


def test_swapped_ids_in_the_tokenizer_are_refused(release: Path) -> None:
    content = read_json(release / "tokenizer.json")
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    write_json(release / "tokenizer.json", content)
    assert refused(release).startswith("tokenizer.json: ")


def test_a_tokenizer_that_would_take_forever_is_refused(release: Path) -> None:
    content = read_json(release / "tokenizer.json")
    content["model"]["merges"] = [["a" * size, "a" * size] for size in (2**n for n in range(21))]
    write_json(release / "tokenizer.json", content)
    assert "a merge makes a token of more than" in refused(release)


def test_a_tokenizer_that_the_tokenizers_library_reads_otherwise_is_refused(made_release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openhearth.data.tokenizer import Tokenizer

    monkeypatch.setattr(Tokenizer, "encode", lambda self, text: list(text.encode()))
    assert "has other ids in the tokenizers library" in verify(made_release).fault


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{{ 'a' * 10**9 }}", "", "{% for"])
def test_a_chat_template_that_is_not_ours_is_refused(release: Path, template: str) -> None:
    (release / "chat_template.jinja").write_text(template)
    assert refused(release).startswith("chat_template.jinja: ")


def test_a_broken_chain_and_another_digest_in_the_ledger_are_found(release: Path) -> None:
    path = release / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert refused(release).startswith("ledger.jsonl: line 3")
    path.write_bytes(b"".join(lines[:-2]))  # the chain is whole, the last stages are not in it
    assert "the ledger states another digest" in refused(release)
    path.write_bytes(b"".join(lines)[:-1])
    assert "torn" in refused(release)


def test_a_text_that_does_not_have_its_digest_is_found(release: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = release / "data/documents.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[3]["text"] = rows[3]["text"].replace("Return", "Give")
    pq.write_table(pa.Table.from_pylist(rows), path)
    faults = [finding.detail for finding in verify_all(release) if not finding.ok]
    assert "data/documents.parquet: the text of document m3 is not the one that its sha256 states" in faults


def test_a_document_that_stands_there_twice_is_found(release: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = release / "data/documents.parquet"
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), path)
    assert any("stands there twice" in finding.detail for finding in verify_all(release))


def test_a_text_on_both_sides_of_the_split_is_found(release: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = release / "data/documents.parquet"
    rows = pq.read_table(path).to_pylist()
    rows.append({**rows[0], "doc_id": "again", "split": "heldout"})
    pq.write_table(pa.Table.from_pylist(rows), path)
    faults = [finding.detail for finding in verify_all(release) if not finding.ok]
    assert any("both trained on and held out" in fault for fault in faults)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_table_that_is_not_parquet_is_a_fault(release: Path, data: bytes) -> None:
    (release / "data/documents.parquet").write_bytes(data)
    refused(release)


def verify_all(release: Path) -> list[Any]:
    write_manifest(release)
    return verify(release).findings
