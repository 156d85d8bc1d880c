"""The last stage: gather what the run made into one folder that anyone can use, check and rebuild.

The folder is a Hugging Face model (it loads in transformers with no code of ours) and the whole record beside it: recipe, plan,
ledger, data, losses, evaluations, environment. Files of stages are copied byte for byte, so that equal weights are equal bytes and
every copy can be followed back to the ledger; `MANIFEST.json` comes last and lists them all.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from openhearth.errors import HearthError
from openhearth.ledger import Json, read_json, require_space, write_atomic, write_json
from openhearth.release import bom, code_archive, layout
from openhearth.release.card import card, data_licences
from openhearth.release.layout import COPIED, KINDS
from openhearth.release.licences import apache, licence_text, python_licence
from openhearth.release.manifest import write_manifest
from openhearth.release.openness.assess import write_openness
from openhearth.release.report import REPORT, report
from openhearth.stage import Made, Setting, Stage, Tell

if TYPE_CHECKING:
    from openhearth.data.tokenizer import Tokenizer

FOLDER = "release"


class Release(Stage):
    """Write the Hugging Face folder with its record, card and manifest."""

    kind: ClassVar[str] = "release"
    needs: ClassVar[tuple[str, ...]] = KINDS

    license: Literal["Apache-2.0", "MIT", "CC0-1.0", "CC-BY-4.0", "other"] = "Apache-2.0"
    """Licence of the weights (SPDX identifier), stated in the card; 'other' needs `license_file`."""
    license_file: str = ""
    """Path of the licence's text; needed for every licence but Apache-2.0."""
    include_text: bool = True
    """Whether the training text itself goes into the release; without it a rebuild needs the same text from elsewhere."""
    title: str = Field(default="", max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Name of the model in its card; empty for the name of the recipe."""

    def resolve(self, setting: Setting) -> Release:
        """The title defaults to the recipe's name."""
        return self.model_copy(update={"title": self.title or setting.name})

    def preflight(self) -> None:
        """The licence's text must be at hand before anything is trained."""
        licence_text(self.license, self.license_file)

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        """Fill `out/release`. The ledger and the recipe are those of the run that `out` lies in (two folders up)."""
        from openhearth.data.tokenizer import Tokenizer
        from openhearth.release.environment import environment, planned_threads

        run = out.parents[1]
        size = sum(listed["bytes"] for kind in KINDS for listed in made[kind].files.values())
        require_space(out, size + 1_000_000, "the release")
        folder = out / FOLDER
        folder.mkdir()
        steps = 4
        tell.progress(0, steps)
        copy_record(made, run, folder, include_text=self.include_text)
        tell.progress(1, steps)
        for name, data in companions(Tokenizer.load(folder / layout.TOKENIZER), _context(folder)).items():
            write_atomic(folder / name, data)
        tell.progress(2, steps)
        write_json(folder / layout.ENVIRONMENT, environment(planned_threads(folder)))
        _text(folder / layout.LICENSE, licence_text(self.license, self.license_file))
        licences = data_licences(folder / layout.DOCUMENTS)
        _text(folder / layout.LICENCES, licences.page(with_text=self.include_text))
        if (python := python_licence()) is not None and "PSF-2.0" in licences.names:
            _text(folder / "data" / "LICENSE-PSF-2.0.txt", python)
        tell.progress(3, steps)
        title = self.title or "an OpenHearth model"
        (folder / "code").mkdir()
        write_atomic(folder / code_archive.ARCHIVE, code_archive.archive())
        _text(folder / code_archive.LICENCE, apache())
        _text(folder / REPORT, report(folder, title=title))
        _text(folder / layout.CARD, card(folder, title=title, license=self.license, licences=licences, with_text=self.include_text))
        bom.write_documents(folder)
        write_openness(folder)
        manifest = write_manifest(folder)
        tell.progress(steps, steps)
        tell.record(root=manifest.root, files=len(manifest.files), bytes=sum(listed.bytes for listed in manifest.files.values()))


def copy_record(made: Made, run: Path, folder: Path, *, include_text: bool) -> None:
    """Copy weights, plan, data, losses and evaluations from the stages, and the recipe and the ledger from the run."""
    for copied in COPIED:
        source, target = made[copied.kind].path / copied.source, folder / copied.target
        if not source.is_file():
            if copied.required:
                raise HearthError(f"{source}: missing; delete the folder {source.parent} to make this stage again")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if copied.target == layout.DOCUMENTS and not include_text:
            _without_text(source, target)
        else:
            shutil.copyfile(source, target)
    for kind in KINDS:
        target = folder / layout.artifact_record(kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made[kind].path / "artifact.json", target)
    for name in (layout.LEDGER, layout.RECIPE):
        if not (run / name).is_file():
            raise HearthError(f"{run / name}: missing; a release is made inside the folder of a run")
        shutil.copyfile(run / name, folder / name)


def companions(tokenizer: Tokenizer, context: int) -> dict[str, bytes]:
    """The small files that follow from the tokenizer and the chat format alone, by name: what other tools read beside the weights.

    The format of the release fixes these bytes: `verify` writes them again and compares. `context` is in tokens.
    """
    from openhearth.align.chat import JINJA_TEMPLATE
    from openhearth.data.tokenizer import END_OF_TEXT, IM_END, IM_START

    special: Json = {
        "bos_token": END_OF_TEXT,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": [IM_START, IM_END],
    }
    generation: Json = {
        "bos_token_id": tokenizer.bos,
        "do_sample": True,
        "eos_token_id": [tokenizer.im_end, tokenizer.bos],
        "pad_token_id": tokenizer.bos,
        "temperature": 0.8,
    }
    config: Json = {
        "add_prefix_space": False,
        "chat_template": JINJA_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
        **special,
    }
    return {
        layout.CHAT_TEMPLATE: JINJA_TEMPLATE.encode(),
        layout.GENERATION_CONFIG: _json(generation),
        layout.SPECIAL_TOKENS: _json(special),
        layout.TOKENIZER_CONFIG: _json(config),
    }


def _json(value: Json) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def _context(folder: Path) -> int:
    context: int = read_json(folder / layout.CONFIG)["max_position_embeddings"]
    return context


def _without_text(source: Path, target: Path) -> None:
    """The table of documents, every column but the text."""
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(source).names if name != "text"]
    pq.write_table(pq.read_table(source, columns=names), target, compression="zstd")


def _text(path: Path, text: str) -> None:
    write_atomic(path, text.encode())
