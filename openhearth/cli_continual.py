"""`hearth continue`: arguments only, like `cli.py`, whose command it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

app = typer.Typer()


@app.command(
    "continue",
    epilog=examples(
        "hearth continue runs/laptop --text my-notes/",
        "hearth continue runs/laptop --text french/ --replay 0.25 --budget '10 min' --dir runs/french",
        "hearth continue runs/laptop --text my-notes/ --controls --seeds 3",
        "hearth continue runs/laptop --text my-notes/ --control no-replay --control union",
    ),
)
def continue_(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The folder of a run, its name under runs/, or a release.", show_default=False)
    ],
    text: Annotated[list[str] | None, typer.Option(metavar="PATH...", help="The new text: one or more files and folders.")] = None,
    replay: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the samples that are old text: 0.05, or 0.25 for another kind of text.")
    ] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time for a whole run: '90 s', '5 min'.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the recipe.")] = None,
    controls: Annotated[bool, typer.Option("--controls", help="Beside it, everything else that could have been done.")] = False,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this control: no-replay, constant, union, union-equal, scratch; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds of each: the recipe's and those after it.")] = 1,
    dir_: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the run, or of the controls' runs.")] = None,
    json: Json = False,
) -> None:
    """Go on training a model on new text, keep what it knows, and measure both texts before and after.

    The same as: hearth run recipes/continue.toml --set continue.model=MODEL. Killed, the same command goes on.
    """
    from openhearth.experiments.continual import continue_command

    sets = [*([] if replay is None else [f"continue.replay={replay}"]), *(set_ or [])]
    arms = control or ([] if controls else None)
    end(continue_command(model, text, sets=sets, budget=budget, arms=arms, seeds=seeds, folder=dir_, json=json))
