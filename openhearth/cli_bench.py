"""`hearth bench`: arguments only, like `cli.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

COMMANDS = ("train",)

app = typer.Typer(
    help="What this machine can do, and how much of it training uses. Every figure is measured.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
    epilog=examples("hearth bench train", "hearth bench train --shape S --json"),
)


class Dtype(StrEnum):
    """What products are computed in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Rule(StrEnum):
    """The update rule."""

    muon = "muon"
    adamw = "adamw"


@app.callback()
def _bench() -> None:
    pass  # so that `train` is a word of the command even while it is the only one


@app.command(
    epilog=examples(
        "hearth bench train",
        "hearth bench train --shape 2x128 --shape 12x768 --context 1024 --batch-tokens 2048",
        "hearth bench train --shape M --optimizer adamw --compile --json",
    )
)
def train(
    shape: Annotated[list[str] | None, typer.Option(metavar="S|M|LxW", help="S, M or LAYERSxWIDTH; may be repeated; S and M.")] = None,
    context: Annotated[int | None, typer.Option(metavar="N", help="Tokens of context; without, the shape's, or 256.", min=1)] = None,
    vocab: Annotated[
        int | None, typer.Option(metavar="N", help="Vocabulary; without, the shape's, or 4096.", min=2, max=10_000_000)
    ] = None,
    batch_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of a step.", min=1)] = 4096,
    optimizer: Annotated[Rule, typer.Option(help="The update rule.")] = Rule.muon,
    dtype: Annotated[Dtype, typer.Option(help="What products are computed in; auto: the faster one here.")] = Dtype.auto,
    compile_: Annotated[bool, typer.Option("--compile", help="Run blocks through torch.compile.")] = False,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Processor threads; without, all.", min=1, max=256)] = None,
    rounds: Annotated[int, typer.Option(metavar="N", help="Steps that are timed, in turns with their parts.", min=1, max=1000)] = 5,
    json: Json = False,
) -> None:
    """Where a training step's time goes, tokens per second, share of the product rate, memory predicted and measured."""
    from openhearth.train.bench_command import train_command

    end(
        train_command(
            shape or ["S", "M"], context=context, vocab=vocab, batch_tokens=batch_tokens, optimizer=optimizer.value, dtype=dtype.value,
            compiled=compile_, threads=threads, rounds=rounds, json=json,
        )
    )  # fmt: skip
