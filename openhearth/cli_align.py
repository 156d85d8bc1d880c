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


judge = typer.Typer(
    help="Whoever chooses between two answers: how far a judge may be believed.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
    rich_markup_mode="rich",
    epilog=examples("hearth judge agree runs/laptop ~/models/qwen3-0.6b --constitution general"),
)


@judge.callback()
def _judge() -> None:
    pass


@judge.command(
    epilog=examples(
        "hearth judge agree runs/laptop --constitution general",
        "hearth judge agree ~/models/qwen3-0.6b https://api.example.com/v1#some-model --budget 2 --price-read 0.5 --price-written 1.5",
        "hearth judge agree runs/a runs/b --pairs pairs.jsonl --json",
    )
)
def agree(
    judges: Annotated[
        list[str],
        typer.Argument(
            metavar="JUDGE...", help="One or two: a run, a release, a Hugging Face folder, or https://HOST/v1#MODEL.", show_default=False
        ),
    ],
    constitution: Annotated[str, typer.Option(metavar="FILE", help="The principles to judge by; its tests are the pairs.")] = "general",
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help='Pairs instead: a line {"prompt", "first", "second", "label"} each.')
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the principle of each pair.", min=0)] = 0,
    budget: Annotated[
        float | None, typer.Option(metavar="USD", help="What endpoints may cost in all; no request passes it.", min=0.0)
    ] = None,
    price_read: Annotated[float, typer.Option(metavar="USD", help="An endpoint's price of a million tokens read.", min=0.0)] = 0.0,
    price_written: Annotated[float, typer.Option(metavar="USD", help="Its price of a million tokens written.", min=0.0)] = 0.0,
    cache: Annotated[Path, typer.Option(metavar="DIR", help="Where an endpoint's answers are kept, to be paid for once.")] = Path(
        "runs/judge-cache"
    ),
    json: Json = False,
) -> None:
    """Have judges label the same pairs: how often each is right, how far it may be believed when it is sure, whether it likes a place,
    and how far two agree.

    The key of an endpoint is read from OPENAI_API_KEY and written nowhere.
    """
    from openhearth.align.judge_command import agree_command
    from openhearth.align.judge_endpoint import Price
    from openhearth.errors import HearthError

    if len(judges) > 2:
        raise HearthError(f"{len(judges)} judges are named; give one or two")
    price = Price(price_read, price_written)
    end(agree_command(judges, constitution, pairs, seed=seed, price=price, budget=budget, cache=cache, json_=json))


app = typer.Typer()


@app.command(
    epilog=examples("hearth align recipes/constitution.toml", "hearth align recipes/constitution.toml --set seed=2 --dir runs/seed2")
)
def align(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A TOML file with the stage [verdict].", show_default=False)],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the recipe.")] = None,
    dir_: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the run; by default runs/NAME.")] = None,
    json: Json = False,
) -> None:
    """Align a model by a constitution, from its recipe, and print what that did: harm, help, the judge, the share of the compute.

    What is made is never made again; a run that was stopped or killed goes on when the same command is typed again.
    """
    from openhearth.align.align_command import align_command

    end(align_command(recipe, set_ or [], dir_, json=json))
