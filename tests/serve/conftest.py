"""The small release of the release room's tests, to talk to."""

from ..release.conftest import made_release, made_run, release

__all__ = ["made_release", "made_run", "release"]
