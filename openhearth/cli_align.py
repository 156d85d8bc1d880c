"""`hearth constitution` and `hearth judge`: arguments only, like `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

constitution = typer.Typer(
    help="Written principles: read them, find what is wrong with them, see what a model will read.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
    rich_markup_mode="rich",
    epilog=examples("hearth constitution check house", "hearth constitution check my.toml --principle privacy"),
)


@constitution.callback()
def _constitution() -> None:
    pass  # so that `check` is a word of the command even while it is the only one


@constitution.command(
    epilog=examples(
        "hearth constitution check general",
        "hearth constitution check my.toml --principle privacy",
        "hearth constitution check prompts/CritiqueRevisionInstructions.json --json",
    )
)
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML or JSON, a folder of published prompts, or general, house.", show_default=False)
    ],
    principle: Annotated[str | None, typer.Option(metavar="ID", help="The principle to try; without, the first with an example.")] = None,
    json: Json = False,
) -> None:
    """Read a constitution, say what is wrong and where, and show one principle as a model reads it. Exit status 1 on an error."""
    from openhearth.align.constitution_check import check_command

    end(check_command(file, principle, json=json))
