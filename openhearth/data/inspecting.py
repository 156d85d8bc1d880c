"""Looking into a built corpus: one document, a phrase, the report in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from openhearth.data import buckets, built
from openhearth.errors import HearthError
from openhearth.ledger import Json
from openhearth.serve.terminal import harmless

CONTEXT = 60
"""Characters shown on each side of a phrase."""
SHORTEST_ID = 6


def find(folder: Path, doc_id: str) -> Json:
    """A document or a drop by the beginning of its id, with its cluster; raises HearthError for none or several."""
    if len(doc_id) < SHORTEST_ID:
        raise HearthError(f"{doc_id}: give at least {SHORTEST_ID} characters of the id; ids are in: hearth data report {folder} --json")
    found: list[Json] = [{"state": "kept", **row} for row in buckets.documents(folder) if row["doc_id"].startswith(doc_id)]
    found += [{"state": "dropped", **row} for row in buckets.table(folder, "drops.parquet") if row["doc_id"].startswith(doc_id)]
    if not found:
        raise HearthError(f"{doc_id}: no document of {folder} has an id that begins so; look for its words with: hearth data search")
    if len({row["doc_id"] for row in found}) > 1:
        raise HearthError(f"{doc_id}: {len(found)} documents have ids that begin so; give more characters")
    clusters = buckets.table(folder, "clusters.parquet")
    mine = {row["cluster"] for row in clusters if row["doc_id"] == found[0]["doc_id"]}
    return {**found[0], "copies": [row for row in clusters if row["cluster"] in mine]}


def search(folder: Path, phrase: str, ignore_case: bool = False) -> Iterator[Json]:
    """Every exact occurrence of a phrase in the documents that are kept, with its source and licence."""
    if not phrase.strip():
        raise HearthError("hearth data search: the phrase is empty; give some words in quotes")
    wanted = phrase.casefold() if ignore_case else phrase
    for row in buckets.documents(folder, ("doc_id", "uri", "source", "licence", "evidence", "set", "text")):
        text = row.pop("text")
        within = text.casefold() if ignore_case else text
        at = within.find(wanted)
        while at >= 0:
            around = text if len(within) == len(text) else within  # folding can change the length of a few letters
            shown = (
                around[max(0, at - CONTEXT) : at],
                around[at : at + len(wanted)],
                around[at + len(wanted) : at + len(wanted) + CONTEXT],
            )
            yield {**row, "at": at, "before": shown[0], "phrase": shown[1], "after": shown[2]}
            at = within.find(wanted, at + len(wanted))


def print_report(report: Json, folder: Path) -> None:
    """The report for a terminal: what came in, what each rule took with samples, what is kept."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble((report["name"], "bold"), f" in {folder}"))
    share = report["kept"] / max(1, report["input"])
    console.print(f"{report['input']:,} looked at = {report['kept']:,} kept ({share:.1%}, {report['bytes'] / 1e6:,.1f} MB)", end="")
    console.print(f" + {sum(report['dropped'].values()):,} dropped\n")
    for rule, count in report["dropped"].items():
        samples = report["samples"].get(rule, [])
        console.print(
            Text.assemble((f"{count:>8,}  ", ""), (rule, "bold"), (f"   asks: {samples[0]['threshold']}" if samples else "", "dim"))
        )
        for sample in samples:
            console.print(Text(f"            {sample['doc_id'][:10]}  {harmless(sample['uri'])}  {harmless(sample['value'])}"))
            if sample["excerpt"]:
                console.print(Text(f"                        {harmless(sample['excerpt'])[:90]}", style="dim"))
    for name in ("source", "profile", "licence", "language"):
        rows = report[f"by_{name}"]
        if set(rows) == {"-"}:
            continue
        shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
        for head in (name, "documents", "MB"):
            shown.add_column(head, justify="left" if head == name else "right")
        for key, row in rows.items():
            told = f" ({report['classes'][key]})" if name == "licence" else ""
            shown.add_row(Text(harmless(key) + told), f"{row['documents']:,}", f"{row['bytes'] / 1e6:,.2f}")
        console.print()
        console.print(shown)
    console.print()
    if report["edits"]:
        console.print("changed in texts: " + ", ".join(f"{count:,} {kind}" for kind, count in report["edits"].items()))
    clusters = report["clusters"]
    console.print(f"copies: {clusters['documents']:,} documents in {clusters['clusters']:,} clusters")
    for one in report["contamination"]:
        console.print(
            f"{one['set']}: {one['dirty']:,} of {one['items']:,} items ({one['share']:.1%}) stood in {one['documents']:,} documents, which "
            f"went; {one['too_short']:,} items are too short to look for"
        )
    for line in report["drift"]:
        console.print(Text(f"several licences in one source: {harmless(line)}", style="yellow"))


def print_document(row: Json) -> None:
    """One document with everything that is known of it."""
    console = Console(highlight=False, soft_wrap=True)
    for name in row:
        if name not in ("text", "copies") and row[name] not in ("", None, -1):
            console.print(Text.assemble((f"{name:<14}", "dim"), harmless(str(row[name]))))
    for copy in row["copies"]:
        mark = "kept" if copy["kept"] else f"{copy['kind']} {copy['similarity']:.3f}"
        console.print(Text.assemble(("copy          ", "dim"), f"{copy['doc_id'][:10]}  {harmless(copy['uri'])}  {mark} {copy['corpus']}"))
    if "text" in row:
        console.print()
        print("\n".join(harmless(line) for line in row["text"].split("\n")))


def facts(folder: Path) -> Json:
    """The report of a corpus."""
    built.manifest_of(folder)
    try:
        report: Json = json.loads((folder / "report.json").read_bytes())
    except (OSError, ValueError):
        raise HearthError(f"{folder / 'report.json'}: missing or damaged; build the corpus again") from None
    return report
