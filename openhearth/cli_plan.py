"""`hearth plan`: arguments only, like `cli.py`. Numbers are texts here; the room reads them, with their suffixes and units.

`hearth plan RECIPE ...` is the command `recipe`: a first word that names no other command is taken as the recipe (`route`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

COMMANDS = ("optimal", "fit", "claims", "backtest", "recipe")

app = typer.Typer(
    help="What a budget buys, before it is spent: size, tokens, loss, time, memory, layout, money, energy.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
)

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON on the standard output.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a picture (.png, .svg or .pdf).")]


def route(arguments: list[str]) -> list[str]:
    """`plan RECIPE ...` as `plan recipe RECIPE ...`."""
    if len(arguments) < 2 or arguments[0] != "plan" or arguments[1] in COMMANDS or arguments[1].startswith("-"):
        return arguments
    return ["plan", "recipe", *arguments[1:]]


def examples(*lines: str) -> str:
    """The foot of a help page."""
    return "Examples:\n\n" + "\n\n".join(lines)


def end(status: int) -> None:
    """Leave with this exit status."""
    if status:
        raise typer.Exit(status)
