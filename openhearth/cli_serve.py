"""`hearth serve`: arguments only, like `cli.py`, whose command it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import end, examples

app = typer.Typer()


@app.command(
    epilog=examples(
        "hearth serve runs/laptop --open",
        "hearth serve runs/laptop --port 8080 --slots 32",
        "HEARTH_KEY=$(openssl rand -hex 24) hearth serve runs/laptop --host 0.0.0.0",
    )
)
def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A release, or the folder of a run.", show_default=False)],
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one.", min=0, max=65_535)] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen at. Others than this computer's own need a key.")
    ] = "127.0.0.1",
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the key that clients must show; else the variable HEARTH_KEY.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A host name under which clients may ask; may be repeated.")
    ] = None,
    slots: Annotated[int, typer.Option(metavar="N", help="Answers that are made at once; more of them wait.", min=1, max=1024)] = 16,
    open_: Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")] = False,
) -> None:
    """Serve a model: a chat page in the browser, and OpenAI's API for programs. Nothing else than this computer reaches it by default."""
    from openhearth.serve.server import serve_command

    end(serve_command(folder, host, port, key_file=key_file, names=tuple(name or ()), slots=slots, browser=open_))
