"""`hearth verify`, `rebuild`, `openness` and their like: arguments only, like `cli.py`, whose commands they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openhearth.cli_plan import Json, end, examples

app = typer.Typer()

Release = Annotated[Path, typer.Argument(metavar="DIR", help="A release, or the folder of a run.", show_default=False)]


@app.command(
    epilog=examples(
        "hearth release runs/laptop --gguf f32,q8_0",
        "hearth release runs/laptop --checkpoints 4 --sign my.key --into laptop-model",
    )
)
def release(
    folder: Release,
    gguf: Annotated[str, typer.Option(metavar="FORMATS", help="GGUF files for llama.cpp: some of f32, f16, bf16, q8_0, q4_0.")] = "",
    checkpoints: Annotated[
        int, typer.Option(metavar="N", help="Keep N checkpoints to audit; trains again to have them.", min=0, max=1000)
    ] = 0,
    sign: Annotated[Path | None, typer.Option(metavar="KEY", help="Sign with this private key.")] = None,
    licence: Annotated[str, typer.Option(metavar="SPDX", help="Another licence for the weights.")] = "",
    licence_file: Annotated[str, typer.Option(metavar="FILE", help="Its text; needed for every licence but Apache-2.0.")] = "",
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="The new folder; by default RUN/published.")] = None,
    json: Json = False,
) -> None:
    """Copy a run's release into a new folder with what you ask for, verified before it gets its name."""
    from openhearth.release.commands import release_command

    end(
        release_command(
            folder, into=into, gguf=gguf, checkpoints=checkpoints, key=sign, licence=licence, licence_file=licence_file, json=json
        )
    )


@app.command(
    epilog=examples(
        "hearth audit a-release/ --segments 3",
        "hearth audit a-release/ --only 4,5 --sign my.key --out mine.json",
        "hearth audit --merge mine.json theirs.json",
    )
)
def audit(
    paths: Annotated[
        list[Path], typer.Argument(metavar="DIR", help="A release with checkpoints; attestations with --merge.", show_default=False)
    ],
    segments: Annotated[int, typer.Option(metavar="K", help="Segments drawn by chance, beside those always audited.", min=0)] = 2,
    only: Annotated[str, typer.Option(metavar="I,J", help="Train these segments again, and no others.")] = "",
    sign: Annotated[Path | None, typer.Option(metavar="KEY", help="Sign what was found with this key.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the signed attestation goes; by default audit.json.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Add attestations up instead of auditing.")] = False,
    trust: Annotated[list[str] | None, typer.Option(metavar="FINGERPRINT", help="Whose attestations count; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Train some segments between a release's checkpoints again and compare. Exit status 1 when one differs."""
    from openhearth.errors import HearthError
    from openhearth.release.audit_command import audit_command, merge_command

    if merge:
        end(merge_command(paths, trusted=trust or (), json=json))
    elif len(paths) > 1:
        raise HearthError(f"hearth audit: one release at a time, not {len(paths)}; attestations are added up with --merge")
    else:
        end(audit_command(paths[0], segments=segments, only=only, key=sign, out=out, json=json))


key = typer.Typer(
    no_args_is_help=True, help="Keys to sign releases with.", epilog=examples("hearth key new my.key", "hearth key new --help")
)


@key.command("new", epilog=examples("hearth key new my.key", "hearth key new my.key --expires 2027-12-31"))
def key_new(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the private key goes; FILE.pub is the public one.", show_default=False)
    ],
    expires: Annotated[str, typer.Option(metavar="DAY", help="The last day on which its signatures hold: 2027-12-31.")] = "",
) -> None:
    """Make a key (ECDSA on P-256), readable by you only; nothing is ever overwritten."""
    from openhearth.release.commands import key_command

    end(key_command(path, expires))


@app.command(epilog=examples("hearth sign runs/laptop --key my.key", "hearth sign any-hugging-face-folder/ --key my.key"))
def sign(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A release, a run, or any model's folder.", show_default=False)],
    key: Annotated[Path, typer.Option(metavar="FILE", help="A private key that `hearth key new` made.", show_default=False)],
) -> None:
    """Sign every file of a folder, in the format of OpenSSF model-signing."""
    from openhearth.release.commands import sign_command

    end(sign_command(folder, key))


@app.command(
    epilog=examples(
        "hearth verify runs/laptop", "hearth verify a-release-from-elsewhere/ --json", "hearth verify a-release/ --trust signer.pub"
    )
)
def verify(
    folder: Release,
    trust: Annotated[str, typer.Option(metavar="KEY", help="Who must have signed: a fingerprint, or the file of a public key.")] = "",
    load: Annotated[bool, typer.Option("--load", help="Also load it in transformers and llama.cpp, and compare what they say.")] = False,
    json: Json = False,
) -> None:
    """Check a release: every file listed and unchanged, nothing unlisted, weights finite. Each stage has its own exit status."""
    from openhearth.release.commands import verify_command

    end(verify_command(folder, json, trust, load))


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
    attestation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="What `hearth audit` signed; may be repeated, and may lift it to R4.")
    ] = None,
    json: Json = False,
) -> None:
    """Find how open a model is: class, definition, index, terms of access, rebuild; every yes names the file that proves it."""
    from openhearth.release.openness.show import openness_command

    end(openness_command(folder, attestations=attestation or (), json=json))
