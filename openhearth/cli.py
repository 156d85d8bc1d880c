"""`hearth`: arguments only. Each command is a few lines that call a room, and rooms are imported when their command runs.

Whatever a user can mend ends in one line on the standard error and exit status 2; a fault of ours keeps its traceback.
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.models import TyperInfo

from openhearth import __version__, cli_align, cli_bench, cli_continual, cli_data, cli_experiments, cli_plan, cli_release, cli_serve
from openhearth.errors import HearthError, nearest

COMMANDS = (
    "run",
    "continue",
    "plan",
    "sweep",
    "compare",
    "bench",
    "data",
    "runs",
    "show",
    "verify",
    "rebuild",
    "audit",
    "openness",
    "release",
    "key",
    "sign",
    "chat",
    "generate",
    "serve",
    "align",
    "constitution",
    "judge",
)

app = typer.Typer(
    name="hearth",
    help="An open foundry for language models: from text to a model that you can chat with, check and rebuild.",
    epilog="Begin with: hearth run",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode="rich",
)


def _examples(*lines: str) -> str:
    """The foot of a help page."""
    return "Examples:\n\n" + "\n\n".join(lines)


def _stages(incomplete: str) -> list[str]:
    """For completion by the shell."""
    from openhearth.recipe import STAGES

    return [kind for kind in STAGES if kind.startswith(incomplete)]


def _boards(incomplete: str) -> list[str]:
    """For completion by the shell."""
    from openhearth.exporters import BOARDS

    return [name for name in BOARDS if name.startswith(incomplete)]


app.add_typer(cli_plan.app, name="plan")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_release.key, name="key")
app.add_typer(cli_align.constitution, name="constitution")
app.add_typer(cli_align.judge, name="judge")

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON on the standard output.")]
Release = Annotated[Path, typer.Argument(metavar="DIR", help="A release, or the folder of a run.", show_default=False)]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token; higher is more varied.", min=0.0, max=100.0)]
TopK = Annotated[int, typer.Option(help="Draw from the K likeliest tokens; 0 for all.", min=0)]
TopP = Annotated[float, typer.Option(help="Draw from the likeliest tokens that together have this probability.", min=0.0, max=1.0)]
NewTokens = Annotated[int, typer.Option(help="Tokens of an answer at most.", min=1, max=1_000_000)]
Seed = Annotated[int, typer.Option(help="The same seed gives the same answers.", min=0, max=2**63 - 1)]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        print(f"hearth {__version__}")
        raise typer.Exit


@app.command(
    epilog=_examples(
        "hearth run",
        'hearth run recipes/laptop.toml --budget "3 min"',
        "hearth run recipes/laptop.toml --text my-notes/ diary.md --dir runs/notes",
        "hearth run recipes/laptop.toml --set sft.epochs=2 --until sft",
        "hearth run --budget '1 h' --log tensorboard",
    )
)
def run(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A TOML file; without it recipes/laptop.toml.")] = None,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="Time for the whole run: '90 s', '5 min', '1 h 30 min'.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value for a key of the recipe.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.", autocompletion=_stages)] = None,
    dir_: Annotated[Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the run; by default runs/NAME.")] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="PATH...", help="Your own text: one or more files and folders.")] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Follow this plan.json instead of measuring this machine.")] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="BOARD", help="Show the run on a board too: tensorboard, wandb or trackio.", autocompletion=_boards),
    ] = None,
    json: Json = False,
) -> None:
    """Make a model: every stage of a recipe, in the folder of a run.

    What is made is never made again; a run that was stopped or killed goes on when the same command is typed again.
    """
    from openhearth.commands import run_command

    _end(run_command(recipe, budget=budget, sets=set_ or [], until=until, folder=dir_, text=text, plan=plan, log=log or [], json=json))


@app.command(epilog=_examples("hearth runs", "hearth runs --dir /data/runs --json"))
def runs(
    dir_: Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder that holds the runs.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs: state, budget, size, bits per byte, date."""
    from openhearth.commands import runs_command

    _end(runs_command(dir_, json=json))


@app.command(
    epilog=_examples(
        "hearth show laptop",
        "hearth show runs/laptop --plot loss.png",
        "hearth show runs/a runs/b --plot both.png --x flops",
        "hearth show laptop --drops",
        "hearth show laptop --json",
    )
)
def show(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="The folder of a run, or its name under runs/.", show_default=False)],
    json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the loss (.png, .svg or .pdf): of one run, or of several in one picture.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="AXIS", help="What --plot draws it against: tokens, time or flops."),
    ] = None,
    drops: Annotated[bool, typer.Option("--drops", help="List every file and row that the corpus left out, and by which rule.")] = False,
) -> None:
    """Show a run's ledger: per stage what went in, what came out, seconds, tokens, FLOPs."""
    from openhearth.commands import show_command

    _end(show_command(run, json=json, plot=plot, x=x, drops=drops))


app.registered_commands += cli_continual.app.registered_commands
app.registered_commands += cli_experiments.app.registered_commands
app.registered_commands += cli_align.app.registered_commands


app.registered_commands += cli_release.app.registered_commands
app.registered_commands += cli_serve.app.registered_commands


@app.command(epilog=_examples("hearth chat runs/laptop", "hearth chat runs/laptop --temperature 0.3 --seed 7"))
def chat(
    folder: Release,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="What the assistant is told before the conversation.")] = None,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    max_new_tokens: NewTokens = 256,
    seed: Seed = 0,
) -> None:
    """Talk to a model. Ctrl-C stops an answer and keeps it; /help lists the commands."""
    from openhearth.serve.commands import chat_command

    _end(chat_command(folder, system=system, temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens, seed=seed))


@app.command(
    epilog=_examples(
        'hearth generate runs/laptop "Write the function `clamp(value, low, high)`."', 'hearth generate runs/laptop --base "def "'
    )
)
def generate(
    folder: Release,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="What to ask, or with --base the text to go on from.", show_default=False)
    ],
    base: Annotated[bool, typer.Option("--base", help="Go on from the text as it is, without the chat format.")] = False,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    max_new_tokens: NewTokens = 256,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Print a model's answer to one prompt."""
    from openhearth.serve.commands import generate_command

    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
    _end(generate_command(folder, prompt, base=base, json=json, **options))  # type: ignore[arg-type]


# -- the way in and the ways out --------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> NoReturn:
    """The console script. Exit status: 0, 1 (verify, rebuild: a fault was found), 2 (one line says what to mend), 130, 143."""
    # Threads that wait for each other must soon sleep instead of spinning: beside another busy program the default makes training
    # ten times slower (docs/log.md). Read when GNU's OpenMP runtime is loaded, so it is set before anything imports torch.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    asked = cli_plan.route(spread_text(sys.argv[1:] if arguments is None else arguments))
    cli_plan.on_one_thread(asked)
    sys.exit(_status(asked))


def _status(arguments: list[str]) -> int:
    try:
        status = _asked(arguments)(arguments, prog_name="hearth", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except HearthError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains when it flushes at its end
        return 141
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed, there is nothing to add
            return 2
        said = _usage(error)
        if said is None:
            raise
        _complain(said)
        return 2


def _asked(arguments: list[str]) -> typer.Typer:
    """The command line as far as it is asked for."""
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):  # names the groups, not what is in them
        outer = copy.copy(app)
        groups = (
            (cli_plan.app, "laws", "plan"),
            (cli_bench.app, "train", "bench"),
            (cli_data.app, "build", "data"),
            (cli_release.key, "new", "key"),
            (cli_align.constitution, "check", "constitution"),
            (cli_align.judge, "agree", "judge"),
        )
        outer.registered_groups = [TyperInfo(cli_plan.only(whole, inner), name=group) for whole, inner, group in groups]
        return outer
    if name not in COMMANDS:
        return app
    small = cli_plan.only(app, name)
    if name == "plan" and rest and rest[0] in cli_plan.COMMANDS:
        small.registered_groups = [TyperInfo(cli_plan.only(cli_plan.app, rest[0]), name="plan")]
    elif name not in ("plan", "bench", "data", "key", "constitution", "judge"):
        small.registered_groups = []
    return small


def _usage(error: Exception) -> str | None:
    """One line for a mistake in the command line itself; None for anything else.

    typer raises classes of click, or of its own copy of click, by version: they are known by what they can do.
    """
    if type(error).__name__ == "Abort":
        return "stopped"
    if not hasattr(error, "format_message"):
        return None
    said = str(error.format_message()).replace("\n", " ").strip().rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "hearth") or "hearth"
    if said.startswith("No such command") and "Did you mean" not in said:
        said += f"{nearest(said.split(chr(39))[1], COMMANDS)}; the commands are {', '.join(COMMANDS)}" if chr(39) in said else ""
    return f"{said[:1].lower()}{said[1:]}; see: {command} --help"


def _complain(line: str) -> None:
    """One line: names of files may hold anything, also a line break."""
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)
    print(f"hearth: {shown}", file=sys.stderr)


def _end(status: int) -> None:
    if status:
        raise typer.Exit(status)


def spread_text(arguments: list[str]) -> list[str]:
    """`--text a b c` as `--text a --text b --text c`: everything up to the next option belongs to it."""
    if not arguments or arguments[0] not in ("run", "continue", "rebuild", "sweep"):
        return arguments
    spread: list[str] = []
    in_text = False
    for position, argument in enumerate(arguments):
        if argument == "--":
            return spread + arguments[position:]
        if argument.startswith("-"):
            in_text = argument == "--text"
            if not in_text:
                spread.append(argument)
            elif position + 1 == len(arguments) or arguments[position + 1].startswith("-"):
                spread.append("--text=")  # no path follows: else the next option would be taken for one
        else:
            spread += ["--text", argument] if in_text else [argument]
    return spread
