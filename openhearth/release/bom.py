"""Two records of a release in the forms that other tools read: a bill of materials (CycloneDX 1.6, ML-BOM) and a provenance (SLSA v1 in an
in-toto statement). Both follow from the files beside them, so `hearth verify` makes them again.

The provenance is SLSA Build L1: made by the program that built, and signed only with the release.
"""

from __future__ import annotations

import functools
import json
import tomllib
import uuid
from pathlib import Path
from typing import Any

from openhearth.ledger import Json, Ledger, digest_file, read_json, write_atomic
from openhearth.release import code_archive, layout
from openhearth.release.card import data_licences
from openhearth.release.manifest import WEIGHTS
from openhearth.release.openness import licences
from openhearth.release.openness.folder import ModelFolder

BOM, PROVENANCE = "bom/cyclonedx.json", "bom/provenance.intoto.json"


@functools.cache
def rules() -> str:
    """The digest of this code: only the same code must give the same documents."""
    return digest_file(Path(__file__))


def write_documents(release: Path) -> None:
    """Write the two documents into a release."""
    for name, data in files_of(release).items():
        (release / name).parent.mkdir(exist_ok=True)
        write_atomic(release / name, data)


def files_of(release: Path) -> dict[str, bytes]:
    """The two documents of a release, by name; the licence of its weights is the one in the header of its card."""
    licence = ModelFolder(release).stated_licence
    documents = {BOM: bill(release, licence), PROVENANCE: provenance(release)}
    return {name: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode() for name, content in documents.items()}


def stated_rules(content: Any) -> str:
    """The digest of the code that a bill of materials says it comes from; '' when it says nothing."""
    try:
        named = {entry["name"]: entry["value"] for entry in content["metadata"]["component"]["properties"]}
        return str(named["openhearth:rules"])
    except (KeyError, TypeError):
        return ""


def _licence(name: str) -> Json:
    known = licences.table().get(name.lower())
    return {"license": {"id": known.name} if known is not None else {"name": name}}


def _hashes(release: Path, name: str) -> list[Json]:
    return [{"alg": "SHA-256", "content": digest_file(release / name)}]


def bill(release: Path, licence: str) -> Json:
    """The ML-BOM: the model with its card, the text it was made from, the packages that made it."""
    config, environment = read_json(release / layout.CONFIG), read_json(release / layout.ENVIRONMENT)
    names = data_licences(release / layout.DOCUMENTS).names
    card: Json = {
        "modelParameters": {
            "approach": {"type": "self-supervised"},
            "task": "text-generation",
            "architectureFamily": "transformer decoder",
            "modelArchitecture": config["architectures"][0],
            "datasets": [{"ref": "text"}],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(read_json(release / "evaluations/evaluation.json"))},
        "considerations": {"technicalLimitations": ["small, and trained on little text; what it writes is often wrong"]},
    }
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": "model",
        "hashes": _hashes(release, WEIGHTS),
        "licenses": [_licence(licence)],
        "modelCard": card,
        "properties": [{"name": "openhearth:rules", "value": rules()}],
    }
    text = {
        "type": "data",
        "bom-ref": "text",
        "name": "training and held-out text",
        "hashes": _hashes(release, layout.DOCUMENTS),
        "licenses": [_licence(name) for name in names],
        "data": [{"type": "dataset", "name": layout.DOCUMENTS, "classification": "public"}],
    }
    code = {
        "type": "application",
        "bom-ref": "code",
        "name": "openhearth",
        "version": str(environment["packages"].get("openhearth", "")),
        "hashes": _hashes(release, code_archive.ARCHIVE),
        "licenses": [_licence("Apache-2.0")],
    }
    packages = [
        {"type": "library", "bom-ref": f"pkg:pypi/{name}@{version}", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(environment["packages"].items())
        if name != "openhearth"
    ]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest_file(release / WEIGHTS))}",
        "version": 1,
        "metadata": {"component": model},
        "components": [text, code, *packages],
        "dependencies": [
            {"ref": "model", "dependsOn": ["text", "code"]},
            {"ref": "code", "dependsOn": [one["bom-ref"] for one in packages]},
        ],
    }


def _metrics(evaluation: Json) -> list[Json]:
    """Bits per byte of the model, with its interval."""
    figure = (evaluation.get("bits_per_byte") or {}).get("sft")
    if not isinstance(figure, dict) or figure.get("value") is None:
        return []
    metric: Json = {"type": "bits per byte of held-out text", "value": str(figure["value"])}
    if figure.get("low") is not None and figure.get("high") is not None:
        metric["confidenceInterval"] = {"lowerBound": str(figure["low"]), "upperBound": str(figure["high"])}
    return [metric]


def provenance(release: Path) -> Json:
    """The in-toto statement of how the weights were built (slsa.dev/spec/v1.0/provenance)."""
    entries = Ledger(release / layout.LEDGER).entries()
    environment = read_json(release / layout.ENVIRONMENT)
    began = next((entry["date"] for entry in entries if isinstance(entry.get("date"), str)), None)

    def resource(name: str) -> Json:
        return {"name": name, "digest": {"sha256": digest_file(release / name)}}

    packages = [{"uri": f"pkg:pypi/{name}@{version}"} for name, version in sorted(environment["packages"].items()) if name != "openhearth"]
    details: Json = {
        "builder": {"id": "urn:openhearth:hearth", "version": {"openhearth": str(environment["packages"].get("openhearth", ""))}}
    }
    if began is not None:
        details["metadata"] = {"startedOn": began}
    details["byproducts"] = [resource(name) for name in (layout.LEDGER, "evaluations/evaluation.json")]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [resource(WEIGHTS), resource(layout.TOKENIZER)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:openhearth:run:1",
                "externalParameters": {"recipe": _plain(tomllib.loads((release / layout.RECIPE).read_text(encoding="utf-8")))},
                "internalParameters": {"plan": resource(layout.PLAN)},
                "resolvedDependencies": [resource(code_archive.ARCHIVE), resource(layout.DOCUMENTS), *packages],
            },
            "runDetails": details,
        },
    }


def _plain(value: Any) -> Any:
    """TOML values as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool) else str(value)
