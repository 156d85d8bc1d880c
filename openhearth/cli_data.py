"""`hearth data`: arguments only, like `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

COMMANDS = ("build", "report", "show", "search", "verify", "remove")

app = typer.Typer(
    help="From raw text to a corpus that one can account for: cleaned, deduplicated, decontaminated, with licences.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
    epilog=examples("hearth data build books/ --out corpora/books --dry-run", "hearth data report corpora/books"),
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a corpus.", show_default=False)]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes; without, one for each processor.", min=1, max=512)]


@app.command(
    epilog=examples(
        "hearth data build books/ --out corpora/books --profile book --licence CC0-1.0",
        "hearth data build web.jsonl.zst wiki/ --out corpora/mixed --decontaminate gsm8k.jsonl --dry-run",
        "hearth data build mixed.toml --out corpora/mixed --set duplicates.similarity=0.8",
        "hearth data build new/ --out corpora/new --against corpora/books",
    )
)
def build(
    inputs: Annotated[list[str], typer.Argument(metavar="RECIPE|PATH...", help="A data recipe (.toml), or files and folders.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of the corpus.", show_default=False)],
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="web, book, code, forum or reference; without, by kind of file.")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="SPDX", help="Licence of what states no other itself, such as CC0-1.0.")] = None,
    text_field: Annotated[str | None, typer.Option(metavar="NAME", help="The field of JSON lines and tables that holds the text.")] = None,
    decontaminate: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="An evaluation whose items must not be in the corpus; may be repeated.")
    ] = None,
    against: Annotated[
        list[str] | None, typer.Option(metavar="DIR", help="A corpus built earlier: its copies go; may be repeated.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the recipe.")] = None,
    workers: Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be dropped and why; write no corpus.")] = False,
    json: Json = False,
) -> None:
    """Build a corpus: read, clean, deduplicate, decontaminate, check licences; every drop is a row with its reason.

    A build that was stopped or killed goes on when the same command is typed again.
    """
    from openhearth.data.data_commands import build_command

    shared = {"profile": profile, "licence": licence, "text_field": text_field}
    sets = [f"evaluations.files={_listed(decontaminate)}"] if decontaminate else []
    sets += [f"duplicates.against={_listed(against)}"] if against else []
    named = {key: value for key, value in shared.items() if value is not None}
    end(build_command(inputs, out, shared=named, sets=[*sets, *(set_ or [])], workers=workers, dry_run=dry_run, json=json))


def _listed(values: list[str]) -> str:
    """A list as TOML."""
    import json

    return json.dumps(values)


@app.command(epilog=examples("hearth data report corpora/books", "hearth data report corpora/books --json"))
def report(folder: Folder, json: Json = False) -> None:
    """What came in, what each rule dropped (with five samples), what is kept, by source, licence and language."""
    from openhearth.data.data_commands import report_command

    end(report_command(folder, json=json))


@app.command(epilog=examples("hearth data show corpora/books 3f2a9c01"))
def show(
    folder: Folder,
    doc_id: Annotated[str, typer.Argument(metavar="DOC_ID", help="The beginning of a document's id.", show_default=False)],
    json: Json = False,
) -> None:
    """One document, kept or dropped: its text, source, licence with evidence, what was changed, its copies."""
    from openhearth.data.data_commands import show_command

    end(show_command(folder, doc_id, json=json))


@app.command(epilog=examples('hearth data search corpora/books "call me Ishmael" --ignore-case'))
def search(
    folder: Folder,
    phrase: Annotated[str, typer.Argument(metavar="PHRASE", help="The words, exactly as they stand.", show_default=False)],
    ignore_case: Annotated[bool, typer.Option("--ignore-case", help="Capitals or not.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="Occurrences shown at most; all are counted.", min=1)] = 20,
    json: Json = False,
) -> None:
    """Where a phrase stands in the corpus, with source and licence: where did the model read this? Exit status 1 where it does not."""
    from openhearth.data.data_commands import search_command

    end(search_command(folder, phrase, ignore_case=ignore_case, limit=limit, json=json))


@app.command(epilog=examples("hearth data verify corpora/books"))
def verify(folder: Folder, json: Json = False) -> None:
    """Check every file and text of a corpus against its manifest, and that the counts add up. Exit status 1 on a fault."""
    from openhearth.data.data_commands import verify_command

    end(verify_command(folder, json=json))


@app.command(
    epilog=examples(
        "hearth data remove corpora/books --doc 3f2a9c01 --why 'request of the author, 2026-11-24'",
        "hearth data remove corpora/web --source shop/page.html --copies",
        "hearth data remove corpora/web --matching phrases.txt",
    )
)
def remove(
    folder: Folder,
    doc: Annotated[list[str] | None, typer.Option(metavar="ID", help="The beginning of a document's id; may be repeated.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(metavar="URI", help="A uri, a folder of uris or a pattern with *; also for later builds.")
    ] = None,
    matching: Annotated[Path | None, typer.Option(metavar="FILE", help="Phrases, one a line: every document that holds one.")] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Also all copies of what is removed; else the next copy takes its place.")
    ] = False,
    why: Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the record.")] = "",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Remove documents: the corpus becomes, byte for byte, one built without them; only the touched buckets are written."""
    from openhearth.data.data_commands import remove_command

    end(remove_command(folder, docs=doc or [], sources=source or [], matching=matching, copies=copies, why=why, workers=workers, json=json))
