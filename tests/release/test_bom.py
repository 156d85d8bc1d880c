"""The bill of materials and the provenance: valid in their own schemas, true to the files, made again by verify."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from openhearth.ledger import read_json, write_json
from openhearth.release import bom
from openhearth.release.manifest import write_manifest
from openhearth.release.verify import verify


def test_the_bill_is_valid_cyclonedx_in_the_strict_validator(made_release: Path) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str((made_release / bom.BOM).read_text()) is None
    content = read_json(made_release / bom.BOM)
    content["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "magic"
    assert validator.validate_str(json.dumps(content)) is not None  # it looks at the model card


def test_every_digest_in_both_documents_is_that_of_its_file(made_release: Path) -> None:
    def digests(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["content"]] if value.get("alg") == "SHA-256" else [value["sha256"]] if "sha256" in value else []
            return own + [digest for part in value.values() for digest in digests(part)]
        return [digest for part in value for digest in digests(part)] if isinstance(value, list) else []

    files = {hashlib.sha256(path.read_bytes()).hexdigest() for path in made_release.rglob("*") if path.is_file()}
    found = [digests(read_json(made_release / name)) for name in (bom.BOM, bom.PROVENANCE)]
    assert [len(one) for one in found] == [3, 7] and all(set(one) <= files for one in found)


def test_the_provenance_is_an_in_toto_statement_of_slsa_with_the_recipe_as_parameters(made_release: Path) -> None:
    statement = read_json(made_release / bom.PROVENANCE)
    assert (statement["_type"], statement["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"]["name"] == "small"
    assert {"buildType", "externalParameters", "resolvedDependencies"} <= set(definition)


@pytest.mark.parametrize("name", [bom.BOM, bom.PROVENANCE])
def test_a_document_that_says_something_else_is_found(release: Path, name: str) -> None:
    content = read_json(release / name)
    content["more"] = "x"
    write_json(release / name, content)
    write_manifest(release)
    report = verify(release)
    assert report.fault == f"{name}: not what follows from the files of this release" and report.exit_status == 14
