"""What `hearth openness` prints: a few lines that answer, then a table in which every "yes" names its file."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openhearth.release.openness.assess import Openness, assess
from openhearth.release.openness.frameworks import CLASSES
from openhearth.release.openness.rung import Rung, rung
from openhearth.serve.terminal import harmless
from openhearth.tables import print_whole

_COLOURS = {"yes": "green", "open": "green", "stated": "yellow", "partial": "yellow", "no": "red", "closed": "red"}


def openness_command(folder: Path, *, attestations: Sequence[Path] = (), json: bool = False) -> int:
    """Find out how open the model in `folder` is, and print it. A run's folder stands for the release in it."""
    place = _place(folder)
    found = assess(place)
    ladder = rung(found.folder, _attested(place, attestations) if attestations else "")
    if json:
        print(jsonlib.dumps({"folder": str(place), **found.to_json(), "rung": {**vars(ladder), "level": str(ladder)}}, ensure_ascii=True))
    else:
        _print(place, found, ladder)
    return 0


def _attested(release: Path, files: Sequence[Path]) -> str:
    """'all' when others than the release's signer found every segment equal, else what is lacking."""
    from openhearth.release.audit import merge
    from openhearth.release.manifest import read_manifest
    from openhearth.release.sign import PUBLIC_KEY, fingerprint, read_public

    own = release / PUBLIC_KEY
    signer = fingerprint(read_public(own.read_bytes(), PUBLIC_KEY)) if own.is_file() else ""
    found = merge(files, root=read_manifest(release).root)
    found.equal = {number: who - {signer} for number, who in found.equal.items()}
    if any(found.different.values()):
        return "an attestation found a segment different"
    return "all" if found.complete else f"{len(found.uncovered)} of {found.segments} segments are attested by nobody else"


def _place(folder: Path) -> Path:
    """The folder itself, or the release of the run that it is."""
    from openhearth.release.manifest import find_release

    return find_release(folder) if (folder / "ledger.jsonl").is_file() and (folder / "recipe.toml").is_file() else folder


def _print(place: Path, found: Openness, ladder: Rung) -> None:
    console = Console(highlight=False)
    licence, _, remark = found.folder.licence
    summary = Table(box=None, padding=(0, 2, 0, 0), show_header=False, show_edge=False)
    summary.add_column(no_wrap=True)
    summary.add_column(overflow="fold")
    summary.add_row("licence", Text(harmless(f"{licence.name if licence else 'none'} ({remark})")))
    summary.add_row(
        "access", Text(harmless("; ".join(one.note for one in found.access.limits) or "no gate, use policy or restriction found"))
    )
    summary.add_row("Model Openness Framework", Text(harmless(_class(found))))
    summary.add_row("Open Source AI Definition", Text(harmless(_definition(found)), style=_COLOURS[found.open_source]))
    values = [one.value for one in found.index]
    summary.add_row("European index", ", ".join(f"{values.count(value)} {value}" for value in ("open", "partial", "closed")))
    if found.indicators:
        filled = sum(one.disclosed for one in found.indicators)
        summary.add_row("transparency indicators", f"{filled} of the {len(found.indicators)} that files can fill (of 100)")
    summary.add_row("rebuild", Text(harmless(f"{ladder}" + (f"; lacks {ladder.lacks}" if ladder.lacks else ""))))
    console.print(Text(harmless(str(place)), style="bold"))
    print_whole(console, summary)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("class", "component", "found", "licence", "file"):
        table.add_column(name, no_wrap=name in ("class", "found"), overflow="fold")
    for one in found.components:
        what = (
            one.evidence.note
            if one.evidence.state != "yes"
            else one.evidence.files[0] + (f" ({one.evidence.note})" if one.evidence.note else "")
        )
        name = (one.licence.name if one.licence else "none") if one.evidence.state != "no" else ""
        table.add_row(
            CLASSES[one.component.model_class].split(",")[0],
            one.component.name + ("" if one.component.required else " (optional)"),
            Text(one.state, style=_COLOURS[one.state]),
            Text(harmless(name), style="" if one.open or not name else "red"),
            Text(harmless(what)),
        )
    print_whole(console, table)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for name in ("definition or dimension", "found", "file or reason"):
        table.add_column(name, overflow="fold")
    for requirement in found.definition:
        shown = ", ".join(requirement.files) if requirement.state == "yes" else requirement.note
        table.add_row(f"OSAID: {requirement.name}", Text(requirement.state, style=_COLOURS[requirement.state]), Text(harmless(shown)))
    for dimension in found.index:
        shown = ", ".join(part for part in (*dimension.files[:2], dimension.note) if part)
        table.add_row(f"index: {dimension.name}", Text(dimension.value, style=_COLOURS[dimension.value]), Text(harmless(shown)))
    print_whole(console, table)
    console.print(Text("'yes' and 'open' are proven by the named file; 'stated' is a link or a header, which nobody checked", style="dim"))


def _class(found: Openness) -> str:
    proven, stated, unlicensed = found.proven, found.stated, found.unlicensed_data
    said = f"class {CLASSES[proven.model_class]}"
    if stated.model_class != proven.model_class:
        said += f"; {CLASSES[stated.model_class]} if links and headers are true"
    if unlicensed.model_class != stated.model_class:
        said += f"; {CLASSES[unlicensed.model_class]} where data may be unlicensed"
    above = {0: 3, 3: 2, 2: 1}.get(proven.model_class)
    return said + (f"; class {CLASSES[above].split(',')[0]} lacks {', '.join(proven.missing[above])}" if above else "")


def _definition(found: Openness) -> str:
    lacking = [f"{one.name}: {one.note}" for one in found.definition if one.state != "yes"]
    return {"yes": "met", "stated": "met if links and headers are true", "no": "not met"}[found.open_source] + (
        f" ({'; '.join(lacking)})" if lacking else ""
    )
