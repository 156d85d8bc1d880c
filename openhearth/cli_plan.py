"""`hearth plan`: arguments only, like `cli.py`. Numbers are texts here; the room reads them, with their suffixes and units.

`hearth plan RECIPE ...` is the command `recipe`: a first word that names no other command is taken as the recipe (`route`).
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Annotated

import typer

from openhearth.errors import nearest

COMMANDS = ("optimal", "loss", "ladder", "laws", "shape", "fit", "claims", "backtest", "hardware", "accelerators", "energy", "recipe")


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
    """`plan RECIPE ...` as `plan recipe RECIPE ...`. A word that is no file and all but a command stays: typer names the command."""
    if len(arguments) < 2 or arguments[0] != "plan" or arguments[1] in COMMANDS or arguments[1].startswith("-"):
        return arguments
    word = arguments[1]
    if word.isalpha() and nearest(word.lower(), COMMANDS) and not Path(word).exists():
        return arguments
    return ["plan", "recipe", *arguments[1:]]


def on_one_thread(arguments: list[str]) -> None:
    """Ask numpy, before it is loaded, for no thread per processor: starting them takes a tenth of the time in which an answer is wanted.

    Not where a budget of time measures this machine: PyTorch may multiply with the same library.
    """
    measures = arguments[1:2] == ["recipe"] and any(each.startswith("--budget") for each in arguments)
    if arguments[:1] == ["plan"] and not measures:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def only(whole: typer.Typer, name: str) -> typer.Typer:
    """The same with no other command than this one: building the others takes a tenth of the time in which an answer is wanted."""
    small = copy.copy(whole)
    small.registered_commands = [
        each for each in whole.registered_commands if each.callback and name in (each.name, each.callback.__name__)
    ]
    return small


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


@app.command(epilog=examples("hearth plan laws", "hearth plan laws muennighoff", "hearth plan laws --json"))
def laws(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One law; without, all.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List the laws: formula, coefficients exact and printed, source, and the runs behind them."""
    from openhearth.plan.commands.laws import laws_command

    end(laws_command(name, json=json))


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
    bootstraps: Annotated[
        int | None, typer.Option(help="Resamples for the intervals; by default 4000, of repeated data 1000.", min=0)
    ] = None,
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


@app.command(epilog=examples("hearth plan claims", "hearth plan claims thirty-billion", "hearth plan claims --json"))
def claims(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One claim; without, all.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Well-known statements about scale, tested: the figure by every law, its interval, a verdict, and the command behind it."""
    from openhearth.plan.commands.claims import claims_command

    end(claims_command(name, json=json))


@app.command(
    hidden=True,
    epilog=examples(
        "hearth plan recipes/llama-65b.toml --on 2048xa100-80",
        "hearth plan recipes/laptop.toml --budget '$100 on 8xh100'",
        "hearth plan config.json --on 64xh100 --tokens 2T --price 2.10/h",
        "hearth plan 7B --on 8xh100 --tokens 140B --layout dp=8,sharding=zero3",
        "hearth plan recipes/llama3-8b.toml --on 512xh100 --mfu 0.40 --plot memory.png",
    ),
)
def recipe(
    model: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe, a config.json, a folder with one, or a size: 7B.", show_default=False)
    ],
    budget: Annotated[
        str | None,
        typer.Option(metavar="BUDGET", help="What hearth run would choose: '5 min' here, '1e19 flop', '$100 on 8xh100'."),
    ] = None,
    dir_: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="With a budget of time: the folder of the run.")] = None,
    on: Annotated[str | None, typer.Option(metavar="HARDWARE", help="As 8xh100; without, what the recipe's authors state.")] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="COUNT", help="Training tokens; without, the published or the compute-optimal.")
    ] = None,
    active: Annotated[str | None, typer.Option(metavar="COUNT", help="With a size: parameters that a token meets.")] = None,
    sequence_length: Annotated[str | None, typer.Option(metavar="COUNT", help="Tokens of a training sequence.")] = None,
    batch_tokens: Annotated[str | None, typer.Option(metavar="COUNT", help="Tokens of a batch; without, published or by StepLaw.")] = None,
    precision: Annotated[str | None, typer.Option(metavar="NAME", help="bf16, fp16, fp8 or fp32.")] = None,
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="adamw, adamw-8bit, adafactor, muon, sgd-momentum or sgd.")] = "adamw",
    layout: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Choices to keep: dp=256,tp=8,pp=2,cp=1,ep=1,mb=1,sharding=zero3,recompute=full.")
    ] = None,
    mfu: Annotated[float | None, typer.Option(metavar="SHARE", help="Of peak, instead of what is predicted.")] = None,
    peak: Annotated[float | None, typer.Option(metavar="TFLOPS", help="Dense peak of a device, instead of the catalogue's.")] = None,
    convention: Annotated[
        str, typer.Option(metavar="NAME", help="How FLOPs are counted for --mfu: full, causal, 6n, 6n-total ...")
    ] = "full",
    price: Annotated[str | None, typer.Option(metavar="USD/h", help="Per device and hour, as 2.10/h; without, the catalogue's.")] = None,
    watts: Annotated[float | None, typer.Option(metavar="W", help="Mean power of a device, instead of 0.75 x TDP x 1.25.")] = None,
    pue: Annotated[float | None, typer.Option(metavar="RATIO", help="Power of the building over that of its computers; 1.1.")] = None,
    carbon: Annotated[float | None, typer.Option(metavar="KG/kWh", help="CO2 equivalent of a kilowatt-hour; 0.385.")] = None,
    unique_tokens: Annotated[str | None, typer.Option(metavar="COUNT", help="Different tokens there are; more are repetitions.")] = None,
    law: Annotated[str | None, typer.Option(metavar="NAME", help="The law of the loss; without, refit.")] = None,
    json: Json = False,
    plot: Plot = None,
) -> None:
    """What a model takes on named hardware: layout, memory, time, money, energy, in two cases; and what it buys: loss, data, returns."""
    if budget is not None:
        from openhearth.plan.commands.dial import dial_command

        return end(dial_command(model, budget, law=law, folder=dir_, json=json))
    from openhearth.plan.commands.on import on_command

    return end(
        on_command(
            model, on=on, tokens=tokens, active=active, sequence_length=sequence_length, batch_tokens=batch_tokens, precision=precision,
            optimizer=optimizer, layout=layout, mfu=mfu, peak=peak, convention=convention, price=price, watts=watts, pue=pue, carbon=carbon,
            unique_tokens=unique_tokens, law=law, json=json, plot=plot,
        )
    )  # fmt: skip


@app.command(epilog=examples("hearth plan ladder", "hearth plan ladder --on a100-80 --price 1.30/h --plot ladder.png"))
def ladder(
    on: Annotated[str, typer.Option(metavar="HARDWARE", help="What the money is spent on.")] = "h100",
    price: Annotated[str | None, typer.Option(metavar="USD/h", help="Per device and hour, as 2.10/h; without, the catalogue's.")] = None,
    mfu: Annotated[float | None, typer.Option(metavar="SHARE", help="Of peak; without, what whole runs typically reach.")] = None,
    law: Annotated[str | None, typer.Option(metavar="NAME", help="The law to answer by; without, refit.")] = None,
    json: Json = False,
    plot: Plot = None,
) -> None:
    """What each tenfold budget buys, from $100 to $100M: FLOPs, size, tokens, loss."""
    from openhearth.plan.commands.ladder import ladder_command

    end(ladder_command(on, price=price, mfu=mfu, law=law, json=json, plot=plot))


@app.command(epilog=examples("hearth plan backtest", "hearth plan backtest runs.csv --json"))
def backtest(
    runs: Annotated[
        Path | None, typer.Argument(metavar="RUNS.csv", help="A table of runs; without, the published ones.", show_default=False)
    ] = None,
    law: Annotated[str | None, typer.Option(metavar="NAME", help="The law of the optimum; without, refit.")] = None,
    json: Json = False,
) -> None:
    """Hold predictions of time, cost, energy and optimum against what published runs report."""
    from openhearth.plan.commands.backtest import backtest_command

    end(backtest_command(runs, law=law, json=json))


@app.command(epilog=examples("hearth plan hardware", "hearth plan hardware h100", "hearth plan hardware --json"))
def hardware(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One device, with its sources.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List the accelerators: dense peaks, memory, power, dated prices. Your own rows are added or take the place of cells."""
    from openhearth.plan.commands.hardware import hardware_command

    end(hardware_command(name, json=json))


app.command("accelerators", hidden=True)(hardware)


@app.command(
    epilog=examples("hearth plan energy --chip-hours 1022362 --on a100-80 --watts 400", "hearth plan energy --chip-hours 30.84M --on h100")
)
def energy(
    on: Annotated[str, typer.Option(metavar="DEVICE", help="As a100-80.", show_default=False)],
    chip_hours: Annotated[str | None, typer.Option(metavar="COUNT", help="Devices times hours.", show_default=False)] = None,
    watts: Annotated[float | None, typer.Option(metavar="W", help="Mean power of a device, instead of 0.75 x TDP x 1.25.")] = None,
    pue: Annotated[float | None, typer.Option(metavar="RATIO", help="Power of the building over that of its computers; 1.1.")] = None,
    carbon: Annotated[float | None, typer.Option(metavar="KG/kWh", help="CO2 equivalent of a kilowatt-hour; 0.385.")] = None,
    price: Annotated[str | None, typer.Option(metavar="USD/h", help="Per device and hour, as 2.10/h; without, the catalogue's.")] = None,
    json: Json = False,
) -> None:
    """What chip-hours come to: kilowatt-hours, CO2, money."""
    from openhearth.plan.commands.hardware import energy_command

    end(energy_command(on=on, chip_hours=chip_hours, watts=watts, pue=pue, carbon=carbon, price=price, json=json))
