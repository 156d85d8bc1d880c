"""`hearth release`: a release with what only some want: GGUF files, checkpoints to audit, another licence, a signature.

The release that a run made is copied file by file into a new folder, what is asked for is added, the findings and the manifest are
written again, and the whole is verified before it gets its name. Nothing that exists is changed; the same request gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import require_space, write_atomic, write_json
from openhearth.release import bom, gguf, layout
from openhearth.release.licences import licence_text
from openhearth.release.manifest import find_release, read_manifest, write_manifest
from openhearth.release.openness.assess import write_openness
from openhearth.release.sign import load_key, sign_folder
from openhearth.release.verify import verify

FOLDER = "published"


@dataclass(frozen=True)
class Wishes:
    """What to add to a release."""

    gguf: tuple[str, ...] = ()
    """Number formats."""
    checkpoints: int = 0
    """How many checkpoints of pretraining, evenly spread; the training is done again to have them."""
    key: Path | None = None
    licence: str = ""
    """SPDX identifier of the weights' licence, in place of the one that they have."""
    licence_file: str = ""


def finish(folder: Path, wishes: Wishes, into: Path | None = None, note: Callable[[str], None] = lambda text: None) -> Path:
    """Make a release with `wishes` from the one in `folder`; gives its folder. Raises HearthError, and then leaves nothing behind."""
    key = load_key(wishes.key) if wishes.key is not None else None
    if wishes.gguf:
        gguf.require_gguf()
    text = licence_text(wishes.licence, wishes.licence_file) if wishes.licence else ""
    base = find_release(folder)
    target = into or (folder / FOLDER if folder.resolve() != base.resolve() else base.with_name(f"{base.name}-{FOLDER}"))
    if os.path.lexists(target):
        raise HearthError(f"{target}: exists; nothing is overwritten: remove it, or choose another folder with --into")
    report = verify(base)
    if not report.ok:
        raise DamagedError(f"{base}: is not verified ({report.fault}); nothing is built on it")
    listed = read_manifest(base).files
    require_space(
        target.parent, (2 + len(wishes.gguf) + 4 * wishes.checkpoints) * sum(entry.bytes for entry in listed.values()), "the release"
    )
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        for name in listed:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(base / name, partial / name)
        if wishes.licence:
            _relicense(partial, wishes.licence, text)
        if wishes.checkpoints:
            from openhearth.release.checkpoints import add_checkpoints

            add_checkpoints(base, partial, wishes.checkpoints, note)
        if wishes.gguf:
            _gguf(partial, list(wishes.gguf), note)
        write_openness(partial)
        write_manifest(partial)
        if key is not None:
            sign_folder(partial, key)
        report = verify(partial)
        if not report.ok:
            raise DamagedError(f"{target}: does not verify ({report.fault}); it was not kept")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _gguf(release: Path, names: list[str], note: Callable[[str], None]) -> None:
    """The files, and what llama.cpp makes of them where it is installed."""
    gguf.add_gguf(release, names)
    from openhearth.release import llama

    try:
        llama.require_llama()
    except HearthError as error:
        note(f"the GGUF files were not held against llama.cpp: {error}")
        return
    found = llama.parity_file(release, names)
    write_json(release / gguf.PARITY, found)
    for one in found["files"]:
        note(str(llama.Parity(**one)))


def _relicense(release: Path, licence: str, text: str) -> None:
    """Another licence for the weights: its text, and its name in the header of the card, which says it in one line."""
    write_atomic(release / layout.LICENSE, text.encode())
    lines = (release / layout.CARD).read_text(encoding="utf-8").split("\n")
    if lines[0] != "---" or not lines[1].startswith("license: "):
        raise DamagedError(f"{layout.CARD}: not a card that OpenHearth wrote; its licence is left alone")
    lines[1] = f"license: {licence.lower()}"
    write_atomic(release / layout.CARD, "\n".join(lines).encode())
    if (release / bom.BOM).is_file():
        bom.write_documents(release)
