"""Openness is found in files: folders that imitate typical releases, the framework's own arithmetic, and what happens when a file goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from openhearth.errors import HearthError
from openhearth.ledger import read_json
from openhearth.release.manifest import write_manifest
from openhearth.release.openness import frameworks, licences
from openhearth.release.openness.assess import FINDINGS, MOF_FILE, Openness, assess, files_of
from openhearth.release.openness.components import COMPONENTS
from openhearth.release.openness.folder import ModelFolder, read_yaml
from openhearth.release.openness.rung import rung
from openhearth.release.openness.show import openness_command
from openhearth.release.verify import verify

from .conftest import make_run

APACHE = "Apache License\n                        Version 2.0, January 2004\n" + "terms " * 100
LLAMA = "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\ngreater than 700 million monthly active users in the preceding calendar month\n"
CONFIG: dict[str, Any] = {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2", "transformers_version": "4.47.0"}
WORDS = "A sentence on what this model is and how it came to be. " * 8


def folder_of(path: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def weights_only(path: Path) -> Path:
    """A popular model under a community licence: weights in two shards, a card, a policy of use, and a gate."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    card = f"---\nlicense: llama3.1\nextra_gated_prompt: agree\nlanguage: [en]\n---\n# Big Llama\n{WORDS}\n## Training Data\n{WORDS}\n"
    return folder_of(
        path,
        {
            "README.md": card,
            "LICENSE": LLAMA,
            "USE_POLICY.md": "You agree not to ...",
            "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}),
            "model.safetensors.index.json": json.dumps(index),
            "model-00001-of-00002.safetensors": b"x" * 2000,
            "model-00002-of-00002.safetensors": b"x" * 2000,
        },
    )


def olmo_like(path: Path) -> Path:
    """Everything is public, and elsewhere: the card links to code, data, checkpoints and a paper."""
    card = f"""---
license: apache-2.0
datasets:
- allenai/dolma
---
# Olmo
{WORDS}
- Code for training, data processing and inference: https://github.com/allenai/OLMo
- Evaluation code: https://github.com/allenai/OLMo-Eval
- Evaluation data: https://huggingface.co/datasets/allenai/suite
- Paper: https://arxiv.org/abs/2402.00838
All intermediate checkpoints are had with revision="step1000-tokens4B".
## Evaluation
| task | score |
|---|---|
| arc | 48.5 |
## Dataset
{WORDS}
"""
    weights: dict[str, str | bytes] = {"model.safetensors": b"x" * 2000, "config.json": json.dumps(CONFIG)}
    return folder_of(path, {"README.md": card, "LICENSE": APACHE, **weights})


def gated(path: Path) -> Path:
    """Apache-2.0 in name, behind a form with a policy of use and an indemnity."""
    olmo_like(path)
    card = (path / "README.md").read_text().replace("---\n# Olmo", "extra_gated_fields:\n  Name: text\n---\n# Swiss", 1)
    (path / "README.md").write_text(card + "\nBy downloading you accept the Acceptable Use Policy and will indemnify us.\n")
    return path


def state(found: Openness, name: str) -> str:
    return next(one.state for one in found.components if one.component.name == name)


# -- releases that are not ours ---------------------------------------------------------------------------------------------


def test_weights_under_a_community_licence_reach_no_class_and_the_limits_are_named(tmp_path: Path) -> None:
    found = assess(weights_only(tmp_path))
    assert (found.proven.model_class, found.stated.model_class, found.open_source) == (0, 0, "no")
    assert {limit.kind for limit in found.access.limits} == {"gate", "policy", "licence", "clause"}
    assert any("LICENSE line 2" in limit.note and "700 million" in limit.note for limit in found.access.limits)
    assert state(found, "Model parameters (Final)") == "no" and "llama3.1 is not an open licence" in " ".join(found.proven.missing[3])
    assert state(found, "Model architecture") == "yes"  # its code is in transformers, under a licence of its own
    assert str(rung(found.folder)) == "none"


def test_what_is_only_linked_is_stated_and_the_two_readings_differ(tmp_path: Path) -> None:
    found = assess(olmo_like(tmp_path))
    assert (found.proven.model_class, found.stated.model_class) == (0, 1)
    assert {name for name in ("Training code", "Datasets", "Research paper") if state(found, name) == "stated"} == {
        *("Training code", "Datasets", "Research paper")
    }
    assert found.open_source == "stated" and not found.access.limits
    code = next(one for one in found.components if one.component.name == "Training code")
    assert code.evidence.note == "README.md line 8: https://github.com/allenai/OLMo, not fetched"


def test_a_gate_and_a_policy_take_the_definition_away_from_an_open_licence(tmp_path: Path) -> None:
    found = assess(gated(tmp_path))
    assert found.open_source == "no" and found.definition[-1].state == "no"
    assert {limit.kind for limit in found.access.limits} == {"gate", "clause"}


def test_a_gate_that_is_switched_off_is_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"README.md": "---\nlicense: mit\ngated: false\n---\n# x\n"})
    assert not assess(folder).access.limits


def test_a_licence_is_proven_by_its_text_and_only_stated_without_it(tmp_path: Path) -> None:
    folder = olmo_like(tmp_path)
    assert state(assess(folder), "Model parameters (Final)") == "yes"
    (folder / "LICENSE").unlink()
    assert state(assess(folder), "Model parameters (Final)") == "stated"


def test_where_header_and_text_disagree_the_licence_that_allows_less_counts(tmp_path: Path) -> None:
    folder = olmo_like(tmp_path)
    (folder / "LICENSE").write_text(LLAMA)
    licence, _, remark = assess(folder).folder.licence
    assert licence is not None and not licence.open and "allows less" in remark
    assert state(assess(folder), "Model parameters (Final)") == "no"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "model-00002-of-00002.safetensors").unlink(), "which is missing"),
        (lambda path: (path / "model-00001-of-00002.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid"), "LFS"),
        (lambda path: (path / "model.safetensors.index.json").write_text("[" * 100_000), "not readable"),
    ],
)
def test_weights_that_are_not_whole_are_no_weights(tmp_path: Path, change: Any, words: str) -> None:
    folder = weights_only(tmp_path)
    change(folder)
    assert words in ModelFolder(folder).weights[1]


def test_a_model_whose_code_is_its_own_is_not_one_of_transformers(tmp_path: Path) -> None:
    folder = olmo_like(tmp_path)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_x.X"}}))
    assert state(assess(folder), "Model architecture") == "no"


@pytest.mark.parametrize(
    "card",
    [
        "---\na: &a [x, x]\nb: *a\n---\n# x",
        "---\n{{{\n---\n",
        "---\n- list\n---\n",
        "\xff\x00",
        "---\nlicense: !!python/object:os.x\n---\n",
        "",
    ],
)
def test_a_card_that_is_hostile_or_broken_is_read_as_far_as_it_goes(tmp_path: Path, card: str) -> None:
    assert assess(folder_of(tmp_path, {"README.md": card})).proven.model_class == 0
    assert read_yaml("x: 1") == {"x": 1} and read_yaml("a: &a 1\nb: *a") == {}


@pytest.mark.parametrize("make", [weights_only, olmo_like, gated])
def test_taking_any_file_away_never_makes_a_folder_more_open(tmp_path: Path, make: Any) -> None:
    folder = make(tmp_path)
    before = assess(folder)
    limits = {"USE_POLICY.md", "LICENSE", "README.md"}  # what these forbid goes with them
    for name in before.folder.files:
        if name in limits and make is not olmo_like:
            continue
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        after = assess(folder).score()
        assert all(after.get(key, 0) <= value for key, value in before.score().items()), name
        (folder / name).write_bytes(data)


# -- our release ------------------------------------------------------------------------------------------------------------


def test_our_release_is_class_two_meets_the_definition_and_says_what_class_one_lacks(made_release: Path) -> None:
    found = assess(made_release)
    assert found.proven.model_class == 2 and found.open_source == "yes" and not found.access.limits
    assert found.proven.missing[1] == ["Model parameters (Intermediate)", "Research paper"]
    assert str(rung(found.folder)) == "R2"
    assert rung(found.folder, "all").level == 4


def test_every_yes_names_files_that_are_there_and_each_of_them_is_needed(made_release: Path, release: Path) -> None:
    """Each file that a "yes" rests on is deleted in turn: a finding that named it falls, and none rises."""
    before = assess(made_release)
    named = {file for files in before.evidence().values() for file in files}
    assert all(files for files in before.evidence().values()) and named <= set(before.folder.files)
    for name in sorted(named):
        data = (release / name).read_bytes()
        (release / name).unlink()
        after = assess(release)
        fallen = [key for key, value in before.score().items() if after.score().get(key, -1) < value]
        risen = [key for key, value in after.score().items() if value > before.score()[key]]
        assert not risen and all(name not in files for files in after.evidence().values())
        assert fallen, name
        (release / name).write_bytes(data)


def test_taking_away_any_file_at_all_takes_the_rung(release: Path) -> None:
    for name in list(ModelFolder(release).files):
        data = (release / name).read_bytes()
        (release / name).unlink()
        assert rung(ModelFolder(release)).level is None, name
        (release / name).write_bytes(data)


def test_a_release_without_its_text_stays_archived_and_has_no_dataset(tmp_path: Path) -> None:
    release = make_run(tmp_path / "run", include_text=False)
    found = assess(release)
    assert str(rung(found.folder)) == "R0" and state(found, "Datasets") == "no" and verify(release).ok


def test_the_findings_in_a_release_are_made_again_when_it_is_verified(release: Path) -> None:
    content = read_json(release / FINDINGS)
    content["open_source_ai_definition"]["met"] = "no"
    (release / FINDINGS).write_text(json.dumps(content))
    write_manifest(release)
    assert verify(release).fault == f"{FINDINGS}: not what is found in the files of this release"


def test_a_release_from_before_without_findings_and_code_still_verifies(release: Path) -> None:
    for name in ("openness", "code", "bom"):
        shutil.rmtree(release / name)
    (release / "REPORT.md").unlink()
    write_manifest(release)
    assert verify(release).ok and str(rung(ModelFolder(release))) == "R2"


def test_the_files_are_the_same_bytes_twice_and_wherever_the_release_lies(made_release: Path, release: Path) -> None:
    assert files_of(made_release) == files_of(release)


SCHEMA = {  # what github.com/lfai/model_openness_tool, schema/mof_schema.json (May 2026) asks for
    "type": "object",
    "required": ["framework", "release"],
    "properties": {
        "framework": {
            "type": "object",
            "required": ["name", "version", "date"],
            "properties": {
                "name": {"type": "string", "enum": ["Model Openness Framework"]},
                "version": {"type": "string"},
                "date": {"type": "string", "format": "date"},
            },
        },
        "release": {
            "type": "object",
            "required": ["name", "license", "producer", "components"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "version": {"type": "string"},
                "license": {
                    "type": "object",
                    "properties": {
                        kind: {
                            "type": "object",
                            "properties": {"name": {"type": ["string", "null"]}, "path": {"type": ["string", "null"]}},
                        }
                        for kind in ("distribution", "code", "document", "data")
                    },
                },
                "type": {
                    "type": "string",
                    "enum": ["", "language", "vision", "image", "audio", "video", "3d", "code", "multimodal", "other"],
                },
                "architecture": {"type": "string", "enum": ["", "transformer", "transformer decoder", "decoder", "other"]},
                "treatment": {"type": "string", "enum": ["pre-trained", "instruct fine-tuned", "chat fine-tuned"]},
                "producer": {"type": "string"},
                "components": {
                    "type": "array",
                    "maxItems": 17,
                    "items": {
                        "type": "object",
                        "properties": {
                            name: {"type": "string"} for name in ("name", "description", "license", "license_path", "component_path")
                        },
                    },
                },
            },
        },
    },
}


def test_mof_yml_is_valid_against_the_published_schema_and_gives_the_same_class(made_release: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    content = yaml.safe_load((made_release / MOF_FILE).read_text())
    jsonschema.validate(content, SCHEMA)
    assert {entry["name"] for entry in content["release"]["components"]} <= {component.name for component in COMPONENTS}
    given = {entry["name"]: None if entry["license"] == "unlicensed" else entry["license"] for entry in content["release"]["components"]}
    assert frameworks.evaluate(given).model_class == 2


# -- the framework's arithmetic ---------------------------------------------------------------------------------------------

III = [component.name for component in COMPONENTS if component.required and component.model_class == 3]
II = III + [component.name for component in COMPONENTS if component.required and component.model_class == 2]
I_ = II + [component.name for component in COMPONENTS if component.required and component.model_class == 1]


def test_there_are_seventeen_components_six_ten_and_fourteen_required() -> None:
    assert (len(COMPONENTS), len(III), len(II), len(I_)) == (17, 6, 10, 14)


@pytest.mark.parametrize(
    ("names", "licence", "reached"),
    [
        (III, "MIT", 3),
        (II, "Apache-2.0", 2),
        (I_, "CC-BY-4.0", 1),
        (I_, "OpenMDW-1.0", 1),
        (I_, "CC-BY-NC-4.0", 0),
        (I_, None, 0),
        (III[1:], "MIT", 0),
        ([name for name in II if name != "Technical report"] + ["Research paper"], "MIT", 2),
        ([name for name in I_ if name != "Technical report"], "MIT", 1),
        ([name for name in III if name != "Technical report"], "MIT", 0),
    ],
)
def test_the_class_of_a_set_of_components(names: list[str], licence: str | None, reached: int) -> None:
    assert frameworks.evaluate(dict.fromkeys(names, licence)).model_class == reached


def test_a_dataset_without_a_licence_counts_in_the_paper_and_not_in_the_tool() -> None:
    given: dict[str, str | None] = {**dict.fromkeys(I_, "MIT"), "Datasets": None}
    assert frameworks.evaluate(given).model_class == 2
    assert frameworks.evaluate(given, unlicensed_data=True).model_class == 1


def test_an_open_licence_for_another_kind_of_content_passes_with_a_remark() -> None:
    assert frameworks.evaluate({"Datasets": "MIT", "Training code": "MIT"}).conditional == ["Datasets"]


@pytest.mark.parametrize(
    ("name", "is_open"),
    [
        *(("apache-2.0", True), ("MIT", True), ("cc-by-4.0", True), ("odc-by", True), ("gpl-3.0", True), ("PSF-2.0", True)),
        *(("llama3", False), ("gemma", False), ("cc-by-nc-4.0", False), ("cc-by-nd-4.0", False), ("bigscience-openrail-m", False)),
        ("other", False),
    ],
)
def test_licences_are_found_as_the_hub_writes_them(name: str, is_open: bool) -> None:
    assert licences.find(name).open is is_open


# -- the command ------------------------------------------------------------------------------------------------------------


def test_the_command_names_a_file_on_every_line_that_says_yes(made_release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openness_command(made_release) == 0
    files = ModelFolder(made_release).files
    lines = [line for line in capsys.readouterr().out.splitlines() if " yes " in line or " open " in line[:60]]
    assert len(lines) > 20 and all(any(name in line for name in files) for line in lines if "index:" in line or line[:3].strip())


def test_the_command_prints_json_for_a_run_and_refuses_what_is_no_folder(made_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openness_command(made_run, json=True) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["rung"]["level"] == "R2" and len(content["model_openness_framework"]["components"]) == 17
    with pytest.raises(HearthError, match="does not exist"):
        openness_command(made_run / "none")
