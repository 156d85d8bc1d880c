"""The texts of licences that go into a release: that of the weights, and Python's own where its library was the corpus."""

from __future__ import annotations

import importlib.metadata
import sysconfig
from pathlib import Path

from openhearth.errors import HearthError

MAX_BYTES = 1_000_000


def licence_text(licence: str, file: str) -> str:
    """The text for the release's LICENSE file; raises HearthError when it is not at hand."""
    if file:
        path = Path(file).expanduser()
        try:
            if not path.is_file() or path.stat().st_size > MAX_BYTES:
                raise HearthError(f"release.license_file: {path} is not a text file of at most {MAX_BYTES:,} bytes")
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise HearthError(f"release.license_file: {path} cannot be read ({error})") from None
    if licence != "Apache-2.0":
        raise HearthError(f"release.license: the text of {licence} does not come with OpenHearth; give its file with release.license_file")
    return apache()


def apache() -> str:
    """The Apache License 2.0: OpenHearth's own, from the source tree or from the installed package."""
    beside = Path(__file__).parents[2] / "LICENSE"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    try:
        found = importlib.metadata.distribution("openhearth").read_text("licenses/LICENSE")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None:
        raise HearthError(f"{beside}: missing; restore OpenHearth's LICENSE file, or give the weights' licence with release.license_file")
    return found


def python_licence() -> str | None:
    """The licence text of the Python whose library this is, where the installation carries it."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in (library / "LICENSE.txt", library.parents[1] / "LICENSE.txt", Path(f"/usr/share/doc/{library.name}/copyright")):
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None
