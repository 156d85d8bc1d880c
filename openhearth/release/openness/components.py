"""The 17 components of the Model Openness Framework, looked for in a folder: what is there, what is only pointed at, what is missing.

A component is there when a file of the folder is it; the files that prove it are named. A link in the card is no proof, since nothing
is fetched: such a component is *stated*. What each component is: White et al. 2024 (arXiv:2403.13784), table 2, in the words of
github.com/lfai/model_openness_tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from openhearth.release.code_archive import ARCHIVE as CODE_ARCHIVE
from openhearth.release.code_archive import LICENCE as CODE_LICENCE
from openhearth.release.openness import licences
from openhearth.release.openness.folder import CARD, ModelFolder
from openhearth.release.openness.licences import Licence

State = Literal["yes", "stated", "no"]

_FORGE = r"^https?://(www\.)?(github\.com|gitlab\.com|codeberg\.org|bitbucket\.org|git\.[^/]+)/[^/]+/[^/]+"
_PAPER = r"^https?://(www\.)?(arxiv\.org/(abs|pdf)/|(dx\.)?doi\.org/|openreview\.net/|aclanthology\.org/|papers\.nips\.cc/|proceedings\.)"


@dataclass(frozen=True)
class Evidence:
    """Whether something is there, the files that prove it, and a remark."""

    state: State
    files: tuple[str, ...] = ()
    note: str = ""

    @property
    def rank(self) -> int:
        """no 0, stated 1, yes 2."""
        return ("no", "stated", "yes").index(self.state)


NO = Evidence("no")


@dataclass(frozen=True)
class Component:
    """A component of the framework: the kind of its content, the class that asks for it, and whether that class needs it."""

    name: str
    kind: Literal["code", "data", "document"]
    model_class: int
    required: bool
    description: str
    find: Callable[[ModelFolder], Evidence]


def first(*found: Evidence) -> Evidence:
    """The strongest of several, the first of equals."""
    return max(found, key=lambda evidence: evidence.rank, default=NO)


def _file(folder: ModelFolder, pattern: str, note: str = "") -> Evidence:
    names = folder.matching(pattern)
    return Evidence("yes", (names[0],), note) if names else NO


def _section(folder: ModelFolder, pattern: str, least: int = 200) -> Evidence:
    title = folder.section(pattern, least)
    return Evidence("yes", (CARD,), f"its section '{title[:60]}'") if title else NO


def _link(folder: ModelFolder, address: str, context: str = "") -> Evidence:
    link = folder.link(address, context)
    return Evidence("stated", (CARD,), f"{link}, not fetched") if link else NO


def _ours(folder: ModelFolder, note: str) -> Evidence:
    """Part of the code that OpenHearth puts into a release."""
    return Evidence("yes", (CODE_ARCHIVE,), note) if folder.files.get(CODE_ARCHIVE) else NO


def _native(folder: ModelFolder, note: str) -> Evidence:
    kind = folder.native
    return Evidence("yes", ("config.json",), f"{note} of {kind} in transformers (Apache-2.0)") if kind else NO


def texts_in(folder: ModelFolder) -> str:
    """The table of documents of an OpenHearth release, when it holds their text."""
    name = "data/documents.parquet"
    if not folder.files.get(name):
        return ""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(folder.path / name).names
    except (OSError, pa.ArrowException):
        return ""
    return name if {"text", "split", "licence"} <= set(names) else ""


def _architecture(folder: ModelFolder) -> Evidence:
    return first(_file(folder, r"(.*/)?modeling_\w+\.py"), _native(folder, "the code"), _ours(folder, "openhearth/model"))


def _weights(folder: ModelFolder) -> Evidence:
    names, fault = folder.weights
    return Evidence("yes", tuple(names)) if names else Evidence("no", (), fault)


def _results(folder: ModelFolder) -> Evidence:
    index = folder.header.get("model-index")
    in_header = isinstance(index, list) and any(isinstance(entry, dict) and entry.get("results") for entry in index)
    own = _file(folder, r"(\.eval_results/.*\.ya?ml|evaluations?/.*\.(json|csv)|(eval_|all_|test_)?results\.json)")
    return first(own, Evidence("yes", (CARD,), "model-index in its header") if in_header else NO, _numbers(folder))


def _numbers(folder: ModelFolder) -> Evidence:
    """A table with numbers in a section on evaluation."""
    for title, text in folder.sections:
        if re.search(r"eval|benchmark|results|performance|how good", title, re.IGNORECASE):
            rows = [line for line in text.splitlines() if line.count("|") >= 2 and re.search(r"\d", line)]
            if rows:
                return Evidence("yes", (CARD,), f"the table in its section '{title[:60]}'")
    return NO


def _card(folder: ModelFolder) -> Evidence:
    return Evidence("yes", (CARD,)) if len(folder.body.strip()) >= 300 else Evidence("no", (), "no card, or less than 300 characters")


def _data_card(folder: ModelFolder) -> Evidence:
    named = _file(folder, r"(.*/)?(data[_-]?card|data[_-]?sheet|dataset[_-]?card|LICENCES)\.(md|txt|json)|(.*/)?croissant\.json")
    return first(named, _section(folder, r"training (details|data)|dataset|^data\b|pre-?training data|made from"))


def _report(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?(technical[_-]?)?report\.(md|pdf)|(.*/)?tech[_-]?report.*\.(md|pdf)")
    return first(own, _link(folder, _PAPER + r"|\.pdf$", r"report"))


def _paper(folder: ModelFolder) -> Evidence:
    tags = folder.header.get("tags")
    listed = [tag for tag in tags if isinstance(tag, str) and tag.lower().startswith("arxiv:")] if isinstance(tags, list) else []
    tagged = Evidence("stated", (CARD,), f"{listed[0][:40]} in its header, not fetched") if listed else NO
    return first(_file(folder, r"(.*/)?[^/]*paper[^/]*\.pdf"), _link(folder, _PAPER), tagged)


def _training_code(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?(pre)?train(ing|er)?[\w-]*\.(py|sh|ipynb)")
    return first(_ours(folder, "openhearth/train, openhearth/align"), own, _link(folder, _FORGE, r"train|code|repo|source"))


def _inference_code(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?(inference|generate|generation|infer|chat|demo|app)[\w-]*\.(py|ipynb)")
    return first(own, _native(folder, "generation"), _ours(folder, "openhearth/model/generate.py"), _link(folder, _FORGE, r"inferenc|serv"))


def _evaluation_code(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?eval(uate|uation)?[\w-]*\.(py|sh|ipynb)")
    return first(_ours(folder, "openhearth/evaluate"), own, _link(folder, _FORGE, r"eval|harness|benchmark|bench"))


def _evaluation_data(folder: ModelFolder) -> Evidence:
    texts = texts_in(folder)
    ours = Evidence("yes", (texts,), "the rows held out") if texts else NO
    own = _file(folder, r"(.*/)?(test|valid(ation)?|eval(uation)?|heldout)[\w.-]*\.(jsonl|parquet|csv|arrow|txt)(\.gz|\.zst)?")
    index = folder.header.get("model-index")
    named = Evidence("stated", (CARD,), "public benchmarks named in its header") if isinstance(index, list) and index else NO
    return first(ours, own, named, _link(folder, r"^https?://huggingface\.co/datasets/", r"eval|benchmark|test"))


def _preprocessing(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?(pre-?process|prepare|tokeni[sz]e|clean|dedup|filter)[\w-]*\.(py|sh|ipynb)")
    linked = _link(folder, _FORGE, r"data|dolma|corpus|pre-?process|dedup|filter")
    return first(_ours(folder, "openhearth/data"), own, linked)


def _datasets(folder: ModelFolder) -> Evidence:
    texts = texts_in(folder)
    ours = Evidence("yes", (texts,), "every text, with its digest") if texts else NO
    own = _file(
        folder, r"(data|datasets?|corpus)/(.*/)?[^/]+\.(jsonl|txt|csv|arrow|parquet)(\.gz|\.zst)?|train[\w.-]*\.(jsonl|parquet|csv|arrow)"
    )
    if own.files and own.files[0].startswith("data/") and "data/documents.parquet" in folder.files:
        own = NO  # a release of ours without its text: the tables beside it are no data
    named = folder.header.get("datasets")
    if isinstance(named, str):
        named = [named]
    if isinstance(named, list) and (names := [name for name in named if isinstance(name, str)]):
        return first(ours, own, Evidence("stated", (CARD,), f"its header names {', '.join(names)[:80]}, not fetched"))
    return first(ours, own, _link(folder, r"^https?://huggingface\.co/datasets/", r"train|corpus|data"))


def _intermediate(folder: ModelFolder) -> Evidence:
    own = _file(folder, r"(.*/)?(checkpoint|step|iter)s?[-_/]?[\w-]*/(.*/)?[^/]+\.(safetensors|bin|pt)", "")
    if own.files and "checkpoints/index.json" in folder.files:
        own = Evidence("yes", ("checkpoints/index.json", own.files[0]))
    words = re.search(r"(intermediate|all|training) checkpoints?|revision=.{0,3}(step|iter|checkpoint)", folder.body, re.IGNORECASE)
    return first(own, Evidence("stated", (CARD,), f"'{words.group(0)[:40]}'; not in this folder") if words else NO)


def _libraries(folder: ModelFolder) -> Evidence:
    names = r"requirements[\w.-]*\.txt|environment\.(json|ya?ml)|pyproject\.toml|uv\.lock|Dockerfile"
    config = folder.json("config.json")
    version = config.get("transformers_version") if isinstance(config, dict) else None
    stated = Evidence("stated", ("config.json",), f"transformers {version}") if isinstance(version, str) else NO
    return first(_file(folder, names), stated)


def _metadata(folder: ModelFolder) -> Evidence:
    if "ledger.jsonl" in folder.files:  # ours: both, and neither stands in for the other
        return Evidence("yes", ("plan.json", "recipe.toml")) if {"plan.json", "recipe.toml"} <= set(folder.files) else NO
    return _file(folder, r"training_args\.(json|ya?ml)|trainer_state\.json|(.*/)?optimizer[\w-]*\.(safetensors|pt)")


def _samples(folder: ModelFolder) -> Evidence:
    widget = folder.header.get("widget")
    outputs = isinstance(widget, list) and any(isinstance(one, dict) and one.get("output") for one in widget)
    in_header = Evidence("yes", (CARD,), "outputs in its header") if outputs else NO
    own = _file(folder, r"(.*/)?samples?[\w-]*\.(json|jsonl|md|txt)")
    return first(own, in_header, _section(folder, r"samples|sample outputs|example (outputs|generations)", 100))


COMPONENTS = (
    Component("Model architecture", "code", 3, True, "Well commented code for the model's architecture", _architecture),
    Component("Model parameters (Final)", "data", 3, True, "Trained model parameters, weights and biases", _weights),
    Component("Evaluation results", "document", 3, True, "The results from evaluating the model", _results),
    Component("Model card", "document", 3, True, "Model details including performance metrics, intended use, and limitations", _card),
    Component(
        "Data card",
        "document",
        3,
        True,
        "Documentation for datasets including source, characteristics, and preprocessing details",
        _data_card,
    ),
    Component(
        "Technical report", "document", 3, True, "Technical report detailing capabilities and usage instructions for the model", _report
    ),
    Component("Sample model outputs", "document", 3, False, "Examples of outputs generated by the model", _samples),
    Component("Training code", "code", 2, True, "Code used for training the model", _training_code),
    Component("Inference code", "code", 2, True, "Code used for running the model to make predictions", _inference_code),
    Component("Evaluation code", "code", 2, True, "Code used for evaluating the model", _evaluation_code),
    Component("Evaluation data", "data", 2, True, "Data used for evaluating the model", _evaluation_data),
    Component("Supporting libraries and tools", "code", 2, False, "Libraries and tools used in the model's development", _libraries),
    Component("Datasets", "data", 1, True, "Training, validation and testing datasets used for the model", _datasets),
    Component("Data preprocessing code", "code", 1, True, "Code for data cleansing, normalization, and augmentation", _preprocessing),
    Component("Model parameters (Intermediate)", "data", 1, True, "Trained model parameters, weights and biases", _intermediate),
    Component("Research paper", "document", 1, True, "Research paper detailing the development and capabilities of the model", _paper),
    Component("Model metadata", "data", 1, False, "Any model metadata including training configuration and optimizer states", _metadata),
)


@dataclass(frozen=True)
class Found:
    """A component in a folder: what proves it, and the licence that it is under."""

    component: Component
    evidence: Evidence
    licence: Licence | None
    licence_files: tuple[str, ...]
    """The files that prove the licence; none when it is only stated."""

    @property
    def open(self) -> bool:
        """Whether it is under a licence that the Model Openness Tool counts as open."""
        return self.licence is not None and self.licence.open

    @property
    def state(self) -> State:
        """`yes`: there, and its open licence is too; `stated`: one of them is only stated; `no`: missing, or not open."""
        if self.evidence.state == "no" or not self.open:
            return "no"
        return "yes" if self.evidence.state == "yes" and self.licence_files else "stated"

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the component and its licence rest on."""
        return tuple(dict.fromkeys((*self.evidence.files, *self.licence_files)))


def look(folder: ModelFolder) -> list[Found]:
    """Every component, in the order of the framework's classes."""
    return [_found(folder, component) for component in COMPONENTS]


def _found(folder: ModelFolder, component: Component) -> Found:
    evidence = component.find(folder)
    files = evidence.files
    if files == (CODE_ARCHIVE,):
        read = licences.recognise(folder.text(CODE_LICENCE))
        return Found(component, evidence, read, (CODE_LICENCE,) if read else ())
    if files == ("config.json",) and "in transformers" in evidence.note:
        return Found(component, evidence, licences.find("Apache-2.0"), ("config.json",))  # the licence of transformers
    if files == ("data/documents.parquet",):
        return Found(component, evidence, *_of_documents(folder))
    licence, proof, _ = folder.licence
    return Found(component, evidence, licence, proof)


def _of_documents(folder: ModelFolder) -> tuple[Licence | None, tuple[str, ...]]:
    """The licence of the documents: that of each when they agree, else the first that is not open, else those of all."""
    names = sorted(set(document_licences(folder)))
    found = [licences.find(name) for name in names]
    if not found:
        return None, ()
    closed = next((licence for licence in found if not licence.open), None)
    if closed is not None or len(found) == 1:
        return closed or found[0], ("data/documents.parquet",)
    return Licence(" AND ".join(licence.name for licence in found), open_data=True, kinds=("data",)), ("data/documents.parquet",)


def document_licences(folder: ModelFolder) -> Iterator[str]:
    """The licence of every document of an OpenHearth release."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(folder.path / "data/documents.parquet").iter_batches(columns=["licence"]):
        yield from (str(name) for name in set(batch.column(0).to_pylist()))
