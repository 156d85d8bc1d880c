"""What the evidence amounts to under three definitions of openness: the Model Openness Framework, the Open Source AI Definition, and
the fourteen dimensions of the European Open Source AI index.

Each is read twice: *proven* counts what the folder itself holds, *stated* takes links and headers at their word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from openhearth.release.openness import licences
from openhearth.release.openness.access import Access
from openhearth.release.openness.components import COMPONENTS, NO, Evidence, Found, State, first
from openhearth.release.openness.folder import CARD, ModelFolder

CLASSES = {0: "none", 1: "I, Open Science Model", 2: "II, Open Tooling Model", 3: "III, Open Model"}


@dataclass(frozen=True)
class Mof:
    """A class of the Model Openness Framework, and how far each is reached: shares of its required components, by class."""

    model_class: int
    """1, 2 or 3; 0 for none."""
    progress: dict[int, float]
    missing: dict[int, list[str]]
    """The required components that a class lacks, each with what is wrong where it is there."""
    conditional: list[str]
    """Components under a licence that is open but meant for another kind of content."""


def evaluate(included: Mapping[str, str | None], *, unlicensed_data: bool = False) -> Mof:
    """The class of a model whose components have these licences (None: unlicensed), as ModelEvaluator.php of the Model Openness Tool.

    With `unlicensed_data` a dataset without a licence counts, as the paper says (White et al. 2024, section 5) and the tool does not.
    """
    progress: dict[int, float] = {}
    missing: dict[int, list[str]] = {}
    conditional = []
    counted = set()
    for component in COMPONENTS:
        if component.name not in included:
            continue
        name = included[component.name]
        licence = licences.find(name) if name else None
        if (licence is not None and licence.open) or (name is None and unlicensed_data and component.name == "Datasets"):
            counted.add(component.name)
            if licence is not None and component.kind not in licence.kinds:
                conditional.append(component.name)
    for model_class in (3, 2, 1):
        needed = [component.name for component in COMPONENTS if component.required and component.model_class >= model_class]
        if "Technical report" not in counted and "Research paper" in included:  # a paper stands in for the report
            needed = list(dict.fromkeys("Research paper" if name == "Technical report" else name for name in needed))
        lacking = [name for name in needed if name not in counted]
        progress[model_class] = 1 - len(lacking) / len(needed)
        missing[model_class] = [f"{name} ({_wrong(included, name)})" if name in included else name for name in lacking]
    reached = [model_class for model_class in (3, 2, 1) if not missing[model_class]]
    return Mof(min(reached, default=0), progress, missing, conditional)


def _wrong(included: Mapping[str, str | None], name: str) -> str:
    licence = included[name]
    return f"{licence} is not an open licence" if licence else "unlicensed"


def included(found: list[Found], *, proven: bool) -> dict[str, str | None]:
    """The components that are there, with their licences: proven by files, or also those that are only stated."""
    chosen: dict[str, str | None] = {}
    for one in found:
        if one.evidence.state == "yes" or (one.evidence.state == "stated" and not proven):
            known = one.licence is not None and (one.licence_files or not proven)
            if one.licence is not None and " AND " in one.licence.name:
                chosen[one.component.name] = one.licence.name.split(" AND ")[0]
            else:
                chosen[one.component.name] = one.licence.name if known and one.licence is not None else None
    return chosen


# -- Open Source AI Definition 1.0 ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Requirement:
    """One requirement of a definition: its name, whether it is met, what proves it, and what is missing where it is not."""

    name: str
    state: State
    files: tuple[str, ...]
    note: str


def definition(found: list[Found], access: Access) -> list[Requirement]:
    """The Open Source AI Definition 1.0 (Open Source Initiative, October 2024): data information, code, parameters, and freedom of use.

    Code and parameters need a licence that OSI approved, or for parameters its terms: an open one without restrictions of use.
    """
    by_name = {one.component.name: one for one in found}
    return [
        _requirement("data information", by_name, ("Data card",), "data"),
        _requirement("code", by_name, ("Training code", "Data preprocessing code", "Inference code", "Model architecture"), "code"),
        _requirement("parameters", by_name, ("Model parameters (Final)",), "data"),
        Requirement(
            "use for any purpose",
            "no" if access.limits else by_name["Model parameters (Final)"].state,
            () if access.limits else by_name["Model parameters (Final)"].licence_files,
            access.limits[0].note if access.limits else "no gate, no use policy, no restriction that was found",
        ),
    ]


def _requirement(name: str, found: Mapping[str, Found], needed: tuple[str, ...], kind: str) -> Requirement:
    parts = [found[part] for part in needed]
    state = min((_approved(part, kind) for part in parts), key=("no", "stated", "yes").index)
    lacking = [part for part in parts if _approved(part, kind) == state]
    files = tuple(dict.fromkeys(file for part in parts for file in part.files))
    if state == "yes":
        return Requirement(name, state, files, "")
    words = ", ".join(part.component.name for part in lacking)
    why = "missing, or not under an open licence" if state == "no" else "only stated"
    return Requirement(name, state, files if state == "stated" else (), f"{words}: {why}")


def _approved(part: Found, kind: str) -> State:
    if kind == "code" and part.licence is not None and not part.licence.osi:
        return "no"
    return part.state


# -- the European index -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """One of the fourteen dimensions: `open`, `partial` or `closed`, and what that rests on."""

    key: str
    name: str
    value: str
    files: tuple[str, ...]
    note: str


def index(folder: ModelFolder, found: list[Found]) -> list[Dimension]:
    """The fourteen dimensions of the European Open Source AI index (osai-index.eu; Liesenfeld & Dingemanse 2024), judged from files.

    `paper` asks for review by peers, which no file proves: a link makes it partial. `api` can be seen only in part.
    """
    by_name = {one.component.name: one for one in found}

    def of(name: str) -> Evidence:
        one = by_name[name]
        return one.evidence

    licence, proof, remark = folder.licence
    tuned = bool(folder.matching(r"training/sft/.*")) or "base_model" in folder.header or bool(folder.matching(r"chat_template\.jinja"))
    base = of("Model parameters (Intermediate)" if tuned else "Model parameters (Final)")
    linked_base = Evidence("stated", (CARD,), "base_model in its header") if "base_model" in folder.header else NO
    tuning = (
        Evidence("yes", ("training/sft/artifact.json",), "made from the same texts")
        if folder.matching(r"training/sft/artifact\.json")
        else NO
    )
    code = (
        Evidence("yes", by_name["Training code"].evidence.files, "docstrings and sources")
        if of("Training code").state == "yes"
        else of("Training code")
    )
    machine = folder.matching(r"environment\.json")
    licensed = Evidence("yes" if proof else "stated", proof or (CARD,), remark) if licence is not None and licence.open else NO
    template = folder.matching(r"chat_template\.(jinja|json)")
    rows = (
        ("opencode", "Training code", of("Training code")),
        ("llmdata", "Base model data", of("Datasets")),
        ("llmweights", "Base model weights", first(base, linked_base)),
        ("rldata", "End user model data", tuning if of("Datasets").state == "yes" else NO if tuned else of("Datasets")),
        ("rlweights", "End user model weights", of("Model parameters (Final)")),
        ("license", "Licenses", licensed),
        ("code", "Code documentation", code),
        ("architecture", "Hardware architecture", Evidence("yes", (machine[0],)) if machine else _hardware(folder)),
        ("preprint", "Preprint", of("Research paper")),
        ("paper", "Paper", Evidence("stated", (CARD,), "a link; review by peers is not checked") if _reviewed(folder) else NO),
        ("modelcard", "Model card", of("Model card")),
        ("datasheet", "Data sheet", of("Data card")),
        ("package", "Package", Evidence("yes", ("config.json",), "loads in transformers") if folder.native else NO),
        ("api", "API and meta prompts", Evidence("stated", (template[0],), "the format of prompts") if template else NO),
    )
    values = {"yes": "open", "stated": "partial", "no": "closed"}
    return [Dimension(key, name, values[evidence.state], evidence.files, evidence.note) for key, name, evidence in rows]


def _hardware(folder: ModelFolder) -> Evidence:
    title = folder.section(r"hardware|infrastructure|environmental impact|compute", 60)
    return Evidence("yes", (CARD,), f"its section '{title[:60]}'") if title else NO


def _reviewed(folder: ModelFolder) -> bool:
    return folder.link(r"^https?://((dx\.)?doi\.org/(?!10\.48550)|openreview\.net/|aclanthology\.org/|proceedings\.)") is not None


def index_file(dimensions: list[Dimension]) -> dict[str, Any]:
    """The dimensions in the schema of opening-up-chatgpt: a class, a link and notes for each key."""
    return {one.key: {"class": one.value, "link": one.files[0] if one.files else "", "notes": one.note} for one in dimensions}
