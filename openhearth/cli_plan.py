"""`hearth plan`: arguments only, like `cli.py`. Numbers are texts here; the room reads them, with their suffixes and units.

`hearth plan RECIPE ...` is the command `recipe`: a first word that names no other command is taken as the recipe (`route`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

COMMANDS = ("optimal", "loss", "laws", "shape", "fit", "claims", "backtest", "recipe")


def examples(*lines: str) -> str:
    """The foot of a help page."""
    return "Examples:\n\n" + "\n\n".join(lines)


app = typer.Typer(
    help="What a budget buys, before it is spent: size, tokens, loss, time, memory, layout, money, energy.",
    epilog=examples(
        "hearth plan optimal --flops 5.76e23", "hearth plan recipes/llama-65b.toml --on 2048xa100-80", "hearth plan fit runs.csv"
    ),
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


def end(status: int) -> None:
    """Leave with this exit status."""
    if status:
        raise typer.Exit(status)


@app.command(
    epilog=examples(
        "hearth plan optimal --flops 5.76e23",
        "hearth plan optimal --flops 1e22 --unique-tokens 25B",
        "hearth plan optimal --flops 5.76e23 --serve-tokens 2T --law all",
        "hearth plan optimal --budget '$1M' --on h100 --mfu 0.40 --price 2.95/h",
        "hearth plan optimal --quality-of 13B --serve-tokens 2T --law hoffmann-3",
        "hearth plan optimal --flops 5.76e23 --plot plane.png",
    )
)
def optimal(
    flops: Annotated[str | None, typer.Option(metavar="NUMBER", help="Training FLOPs; with --serve-tokens, serving included.")] = None,
    law: Annotated[
        str | None, typer.Option(metavar="NAME", help="The law to answer by alone, or 'all'. Without: refit, all beside it.")
    ] = None,
    unique_tokens: Annotated[str | None, typer.Option(metavar="COUNT", help="Different tokens there are; more are repetitions.")] = None,
    serve_tokens: Annotated[str | None, typer.Option(metavar="COUNT", help="Tokens to serve, paid from the same budget.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TEXT", help="A budget with its unit: '$1M', '$1M on h100', '1e23 flop'.")] = None,
    usd: Annotated[str | None, typer.Option(metavar="NUMBER", help="A budget in USD, with --on.")] = None,
    on: Annotated[str | None, typer.Option(metavar="HARDWARE", help="What the money is spent on: h100, a100-80.")] = None,
    mfu: Annotated[float | None, typer.Option(metavar="SHARE", help="Of peak; without, what whole runs typically reach.")] = None,
    price: Annotated[str | None, typer.Option(metavar="USD/h", help="Per device and hour, as 2.10/h; without, the catalogue's.")] = None,
    serve_mfu: Annotated[float | None, typer.Option(metavar="SHARE", help="Of peak while serving; without, as while training.")] = None,
    quality_of: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Instead of a budget: the cheapest model as good as the best of this size.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Instead of a budget: as good as the compute-optimal run of so many tokens.")
    ] = None,
    loss: Annotated[float | None, typer.Option(metavar="NATS", help="Instead of a budget: the cheapest model of this loss.")] = None,
    sequence_length: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Count attention over so many tokens, instead of 6N a token.")
    ] = None,
    more: Annotated[float, typer.Option(metavar="TIMES", help="Say what so many times the budget would gain.")] = 2.0,
    bigger: Annotated[float, typer.Option(metavar="TIMES", help="Say what so many times the size would gain.")] = 4.0,
    json: Json = False,
    plot: Plot = None,
) -> None:
    """The size, tokens and loss that a budget buys, by every law side by side, with intervals."""
    from openhearth.plan.commands.optimal import optimal_command

    end(
        optimal_command(
            flops=flops,
            law=law,
            unique_tokens=unique_tokens,
            serve_tokens=serve_tokens,
            budget=budget,
            usd=usd,
            on=on,
            mfu=mfu,
            price=price,
            serve_mfu=serve_mfu,
            quality_of=quality_of,
            tokens=tokens,
            loss=loss,
            sequence_length=sequence_length,
            more=more,
            bigger=bigger,
            json=json,
            plot=plot,
        )
    )


@app.command(
    epilog=examples(
        "hearth plan loss 70B:1.4T 280B:300B",
        "hearth plan loss 30B:450B 120B:450B --plot curves.png",
        "hearth plan loss 7B:1T --unique-tokens 100B",
    )
)
def loss(
    models: Annotated[
        list[str], typer.Argument(metavar="PARAMETERS:TOKENS...", help="Models; the others are held against the first.", show_default=False)
    ],
    law: Annotated[str | None, typer.Option(metavar="NAME", help="One law alone. Without: refit, all beside it.")] = None,
    unique_tokens: Annotated[str | None, typer.Option(metavar="COUNT", help="Different tokens there are; more are repetitions.")] = None,
    bigger: Annotated[float, typer.Option(metavar="TIMES", help="Say what so many times the size would gain.")] = 4.0,
    json: Json = False,
    plot: Plot = None,
) -> None:
    """The loss of models by every law, one against another, and what more data or size would gain."""
    from openhearth.plan.commands.loss import loss_command

    end(loss_command(models, law=law, unique_tokens=unique_tokens, bigger=bigger, json=json, plot=plot))


@app.command(epilog=examples("hearth plan laws", "hearth plan laws --json"))
def laws(json: Json = False) -> None:
    """List the laws: formula, coefficients exact and printed, source, and the runs behind them."""
    from openhearth.plan.commands.laws import laws_command

    end(laws_command(json=json))


@app.command(
    epilog=examples(
        "hearth plan shape recipes/llama-65b.toml", "hearth plan shape config.json --sequence-length 32k", "hearth plan shape model/ --json"
    )
)
def shape(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A Hugging Face config.json, a folder with one, or a recipe.")],
    sequence_length: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Tokens that a token attends among; without, as published or as the model stands.")
    ] = None,
    json: Json = False,
) -> None:
    """Count a model from its shape: parameters to the unit, FLOPs per token by every convention, memory."""
    from openhearth.plan.commands.shape import shape_command

    end(shape_command(path, sequence_length=sequence_length, json=json))


@app.command(
    epilog=examples(
        "hearth plan fit runs.csv",
        "hearth plan fit runs.csv --flops 5.76e23 --predict N=70B,D=1.4T --plot fit.png",
        "hearth plan fit runs.csv --form muennighoff --where dataset=c4 --column loss=val_loss",
        "hearth plan fit runs/*",
    )
)
def fit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="A table (CSV), or folders of runs.", show_default=False)],
    form: Annotated[str, typer.Option(help="chinchilla, gadre (over-training), muennighoff (repeated data) or isoflop.")] = "chinchilla",
    flops: Annotated[list[str] | None, typer.Option(metavar="FLOPS", help="Say the optimum at this budget; may be repeated.")] = None,
    predict: Annotated[list[str] | None, typer.Option(metavar="N=..,D=..", help="Predict the loss of a run; may be repeated.")] = None,
    hold_out: Annotated[
        int | None, typer.Option(metavar="K", help="Foretell the K largest runs from the others; 0 for none.", min=0)
    ] = None,
    extrapolate: Annotated[bool, typer.Option("--extrapolate", help="Answer more than two decades beyond the runs.")] = False,
    tied: Annotated[bool, typer.Option("--tied", help="Hold alpha and beta equal.")] = False,
    fix: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Hold a coefficient; may be repeated.")] = None,
    drop_outliers: Annotated[bool, typer.Option("--drop-outliers", help="Leave out the runs that lie too far from the law.")] = False,
    delta: Annotated[str, typer.Option(help="Width of the Huber loss; inf for least squares.")] = "0.001",
    residuals: Annotated[str, typer.Option(help="Residuals of ln loss (log) or of the loss itself (loss).")] = "log",
    bootstraps: Annotated[int | None, typer.Option(help="Resamples for the intervals; 4000 by default.", min=0)] = None,
    seed: Annotated[int | None, typer.Option(help="Of the resamples; 42 by default.", min=0, max=2**32 - 1)] = None,
    column: Annotated[list[str] | None, typer.Option(metavar="WHAT=NAME", help="Which column is which; may be repeated.")] = None,
    where: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Take rows with this value only; may be repeated.")] = None,
    plot: Plot = None,
    json: Json = False,
) -> None:
    """Fit a law to runs of your own: coefficients with intervals, outliers, and the error on the largest runs.

    A table has columns of parameters, tokens and loss (and, if you have them, flops, unique_tokens, tokenizer, dataset, name, held_out).
    """
    from openhearth.plan.commands.fit import fit_command

    options = {"columns": column or (), "where": where or (), "fix": fix or (), "flops": flops or (), "predict": predict or ()}
    end(
        fit_command(
            runs, form=form, tied=tied, delta=delta, residuals=residuals, bootstraps=bootstraps, seed=seed, hold_out=hold_out,
            drop_outliers=drop_outliers, extrapolate=extrapolate, plot=plot, json=json, **options,
        )
    )  # fmt: skip
