"""The ladder of rebuilds: how far a folder can be made again, R0 archived to R4 attested. The highest rung below which all hold.

R0  every file is listed with its digest, and has it
R1  text, recipe, plan and ledger are there, and what is made without floating point comes out of them
R2  processor, threads and packages are recorded, and digests of the weights along the way: same bits on the same kind of machine
R3  the same bits on any processor: not promised by PyTorch's arithmetic, so never found
R4  others have made all of it again and signed that (`hearth audit`)
"""

from __future__ import annotations

from dataclasses import dataclass

from openhearth.errors import HearthError
from openhearth.release import layout
from openhearth.release.manifest import MANIFEST
from openhearth.release.openness.components import texts_in
from openhearth.release.openness.folder import ModelFolder


@dataclass(frozen=True)
class Rung:
    """The rung, and why the next one does not hold."""

    level: int | None
    """0 to 4; None when not even the files are listed."""
    proof: tuple[str, ...]
    lacks: str

    def __str__(self) -> str:
        return "none" if self.level is None else f"R{self.level}"


def rung(folder: ModelFolder, attested: str = "") -> Rung:
    """The rung of a folder; `attested` is '' or why the attestations given do not cover everything ('all' when they do)."""
    if MANIFEST not in folder.files:
        return Rung(None, (), f"R0: no {MANIFEST} lists the files with their digests")
    from openhearth.release.verify import verify

    try:
        report = verify(folder.path)
    except HearthError as error:
        return Rung(None, (), f"R0: {error}")
    if not report.ok:
        return Rung(None, (), f"R0: {report.fault}")
    if not texts_in(folder):
        return Rung(0, (MANIFEST,), "R1: the texts are not in the folder")
    record = (layout.RECIPE, layout.PLAN, layout.LEDGER, layout.DOCUMENTS)
    machine = folder.json(layout.ENVIRONMENT)
    if not isinstance(machine, dict) or not all(machine.get(part) for part in ("cpu", "threads", "packages")):
        return Rung(1, (MANIFEST, *record), f"R2: {layout.ENVIRONMENT} does not say which processor, threads and packages")
    proof = (MANIFEST, *record, layout.ENVIRONMENT, "training/sft/trace.jsonl")
    if attested == "all":
        return Rung(4, proof, "")
    return Rung(2, proof, f"R3: other processors add in another order; R4: {attested or 'no attestation was given'}")
