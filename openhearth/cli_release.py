"""`hearth verify`, `rebuild`, `openness` and their like: arguments only, like `cli.py`, whose commands they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

app = typer.Typer()

Release = Annotated[Path, typer.Argument(metavar="DIR", help="A release, or the folder of a run.", show_default=False)]


@app.command(epilog=examples("hearth verify runs/laptop", "hearth verify a-release-from-elsewhere/ --json"))
def verify(folder: Release, json: Json = False) -> None:
    """Check a release: every file listed and unchanged, nothing unlisted, weights finite. Each stage has its own exit status."""
    from openhearth.release.commands import verify_command

    end(verify_command(folder, json))


@app.command(epilog=examples("hearth rebuild runs/laptop", "hearth rebuild a-release/ --into /tmp/again"))
def rebuild(
    folder: Release,
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the second making; by default one that is removed.")] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="PATH...", help="The same text, where the release does not hold it.")] = None,
    json: Json = False,
) -> None:
    """Make the weights again from the record, and compare them bit by bit. Exit status 1 when they differ."""
    from openhearth.release.commands import rebuild_command

    end(rebuild_command(folder, into, text or (), json))


@app.command(epilog=examples("hearth openness runs/laptop", "hearth openness any-hugging-face-folder/ --json"))
def openness(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder, ours or any other, or a run.", show_default=False)],
    json: Json = False,
) -> None:
    """Find how open a model is: class, definition, index, terms of access, rebuild; every yes names the file that proves it."""
    from openhearth.release.openness.show import openness_command

    end(openness_command(folder, json=json))
