"""All findings about a folder in one place, and the files of a release that hold them.

What is written into a release follows from the files beside it alone, so `hearth verify` makes it again and compares. The rung of the
ladder of rebuilds and the signature are not in it: they rest on the manifest, which is written after it.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openhearth.ledger import Json, digest_file, digest_json, write_atomic
from openhearth.release.openness import frameworks, transparency
from openhearth.release.openness.access import Access, terms
from openhearth.release.openness.components import Found, look
from openhearth.release.openness.folder import ModelFolder
from openhearth.release.openness.frameworks import CLASSES, Dimension, Mof, Requirement
from openhearth.release.openness.transparency import Indicator

FORMAT = "openhearth-openness/1"
FINDINGS, MOF_FILE, INDEX_FILE, INDICATORS = "openness/findings.json", "openness/mof.yml", "openness/osai.yaml", "openness/fmti.csv"


@dataclass(frozen=True)
class Openness:
    """What was found in a folder."""

    folder: ModelFolder
    components: list[Found]
    proven: Mof
    stated: Mof
    unlicensed_data: Mof
    """As `stated`, with a dataset that has no licence counted, as the framework's paper does."""
    definition: list[Requirement]
    index: list[Dimension]
    access: Access
    indicators: list[Indicator]

    @property
    def open_source(self) -> str:
        """Whether all requirements of the Open Source AI Definition are met: yes, stated (if links and headers are true) or no."""
        return min((one.state for one in self.definition), key=("no", "stated", "yes").index)

    def score(self) -> dict[str, int]:
        """One number for each finding, higher for more open: what must never rise when a file is taken away."""
        states = {"no": 0, "stated": 1, "yes": 2, "closed": 0, "partial": 1, "open": 2}
        return {
            **{f"component {one.component.name}": states[one.state] for one in self.components},
            "class": 3 - (self.proven.model_class or 4),
            "class as stated": 3 - (self.stated.model_class or 4),
            **{f"definition: {one.name}": states[one.state] for one in self.definition},
            **{f"index: {one.key}": states[one.value] for one in self.index},
            **{f"indicator: {one.name}": int(one.disclosed) for one in self.indicators},
        }

    def evidence(self) -> dict[str, tuple[str, ...]]:
        """The files that each "yes" rests on, by finding."""
        found = {f"component {one.component.name}": one.files for one in self.components if one.state == "yes"}
        found |= {f"definition: {one.name}": one.files for one in self.definition if one.state == "yes"}
        found |= {f"index: {one.key}": one.files for one in self.index if one.value == "open"}
        return found | {f"indicator: {one.name}": (one.file,) for one in self.indicators if one.disclosed}

    def to_json(self) -> Json:
        """Everything as plain values."""
        licence, proof, remark = self.folder.licence
        return {
            "format": FORMAT,
            "rules": rules(),
            "licence": {"name": licence.name if licence else None, "open": bool(licence and licence.open), "files": proof, "note": remark},
            "model_openness_framework": {
                "proven": _mof(self.proven),
                "as_stated": _mof(self.stated),
                "with_unlicensed_data": _mof(self.unlicensed_data),
                "components": [_component(one) for one in self.components],
            },
            "open_source_ai_definition": {"met": self.open_source, "requirements": [asdict(one) for one in self.definition]},
            "european_index": [asdict(one) for one in self.index],
            "access": {"limits": [asdict(limit) for limit in self.access.limits]},
            "transparency_index": [asdict(one) for one in self.indicators],
        }


@functools.cache
def rules() -> str:
    """The digest of the code and tables that these findings come from: only equal rules must give equal findings."""
    here = Path(__file__).parent
    return digest_json({path.name: digest_file(path) for path in here.iterdir() if path.suffix in (".py", ".tsv", ".txt")})


def _mof(mof: Mof) -> Json:
    return {
        "class": CLASSES[mof.model_class],
        "progress": {CLASSES[number].split(",")[0]: round(share, 4) for number, share in mof.progress.items()},
        "missing": {CLASSES[number].split(",")[0]: names for number, names in mof.missing.items()},
        "open_licence_of_another_kind": mof.conditional,
    }


def _component(one: Found) -> Json:
    return {
        "name": one.component.name,
        "class": CLASSES[one.component.model_class].split(",")[0],
        "required": one.component.required,
        "state": one.state,
        "there": one.evidence.state,
        "licence": one.licence.name if one.licence else None,
        "open_licence": one.open,
        "files": one.files,
        "note": one.evidence.note,
    }


def assess(path: Path) -> Openness:
    """Look at the folder `path`; raises HearthError when it is none. Nothing is fetched and nothing of the folder is run."""
    folder = ModelFolder(path)
    folder.files = {name: size for name, size in folder.files.items() if not name.startswith("openness/")}
    found, access = look(folder), terms(folder)
    return Openness(
        folder,
        found,
        proven=frameworks.evaluate(frameworks.included(found, proven=True)),
        stated=frameworks.evaluate(frameworks.included(found, proven=False)),
        unlicensed_data=frameworks.evaluate(frameworks.included(found, proven=False), unlicensed_data=True),
        definition=frameworks.definition(found, access),
        index=frameworks.index(folder, found),
        access=access,
        indicators=transparency.indicators(folder),
    )


def write_openness(folder: Path) -> None:
    """Write the files below `openness/` into a release."""
    for name, data in files_of(folder).items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomic(folder / name, data)


def files_of(path: Path) -> dict[str, bytes]:
    """The files below `openness/` that follow from the other files of a release."""
    found = assess(path)
    return {
        FINDINGS: (json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n").encode(),
        MOF_FILE: _yaml(mof_file(found)),
        INDEX_FILE: _yaml(frameworks.index_file(found.index)),
        INDICATORS: transparency.table(found.indicators).encode(),
    }


def mof_file(found: Openness) -> Json:
    """The release for the Model Openness Tool: what is proven, in the schema of `schema/mof_schema.json` there.

    Its name is the heading of the card; a release does not know its producer, who fills that in before handing it on.
    """
    licence, proof, _ = found.folder.licence
    components: list[Json] = []
    for one in found.components:
        if one.evidence.state != "yes":
            continue
        entry = {"name": one.component.name, "description": one.component.description, "component_path": one.evidence.files[0]}
        entry["license"] = one.licence.name if one.licence is not None and one.licence_files else "unlicensed"
        if one.licence_files:
            entry["license_path"] = one.licence_files[-1]
        components.append(entry)
    distribution = {"name": licence.name, "path": proof[-1]} if licence is not None and proof else {"name": None, "path": None}
    return {
        "framework": {"name": "Model Openness Framework", "version": "1.0", "date": "2024-12-15"},
        "release": {
            "name": (found.folder.sections[0][0] if found.folder.sections else "")[:200] or "unnamed",
            "license": {"distribution": distribution},
            "type": "language",
            "architecture": "transformer decoder",
            "treatment": "chat fine-tuned" if "chat_template.jinja" in found.folder.files else "pre-trained",
            "producer": "unnamed",
            "components": components,
        },
    }


def _yaml(value: Any) -> bytes:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=140)).encode()
