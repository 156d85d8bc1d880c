"""`hearth sweep` and `hearth compare`: arguments only, like `cli.py`, whose commands they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, Plot, end, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "hearth sweep recipes/laptop.toml --over pretrain.learning_rate=0.02,0.04,0.08 --budget '1 min' --dir runs/sweep",
        "hearth sweep recipes/laptop.toml --over plan.optimizer=muon,adamw --over pretrain.schedule.warmup=0.02,0.1 --seeds 3",
        "hearth sweep recipes/laptop.toml --over plan.optimizer=muon,adamw --over plan.tokens=500000,1000000,2000000",
    )
)
def sweep(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A TOML file; without it recipes/laptop.toml.")] = None,
    over: Annotated[
        list[str] | None, typer.Option("--over", metavar="KEY=A,B", help="A key of the recipe and its values; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds of each setting: the recipe's and those after it.")] = 1,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="What a whole run may spend: '90 s', '5 min'.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key, in all runs.")] = None,
    dir_: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the sweep; by default runs/NAME-sweep.")] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="PATH...", help="Your own text: one or more files and folders.")] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Follow this plan.json instead of measuring this machine.")] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Train a recipe with every combination of settings, and say which is best and whether that is more than noise.

    All runs follow one plan, so that only what is swept differs. A sweep that was killed goes on when the same command is typed again. The
    first value of each key is the baseline.
    """
    from openhearth.experiments.commands import sweep_command

    end(
        sweep_command(
            recipe, over or [], sets=set_ or [], budget=budget, seeds=seeds, folder=dir_, text=text, plan=plan, plot=plot, json=json
        )
    )


@app.command(
    epilog=examples(
        "hearth compare runs/a runs/b",
        "hearth compare runs/sweep/optimizer=muon runs/sweep/optimizer=adamw --plot compare.png",
        "hearth compare 'runs/sweep/optimizer=muon,tokens=*' 'runs/sweep/optimizer=adamw,tokens=*' --json",
    )
)
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run, a folder of runs, or a pattern.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="RUN", help="What is held against it.", show_default=False)],
    plot: Plot = None,
    json: Json = False,
) -> None:
    """How much compute the second recipe needs to be as good as the first: the compute multiplier, with its interval.

    A folder of runs stands for one recipe: several seeds, or several sizes.
    """
    from openhearth.experiments.commands import compare_command

    end(compare_command(first, second, plot=plot, json=json))
