"""Small stages that stand in for the real ones: they count, write and can be told to fail, wait or be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field

from openhearth import cli
from openhearth.errors import HearthError
from openhearth.ledger import write_atomic, write_json
from openhearth.recipe import Recipe
from openhearth.runner import Result
from openhearth.stage import Made, Setting, Stage, Tell

ROOT = Path(__file__).parents[1]
LAPTOP = str(ROOT / "recipes" / "laptop.toml")


class Words(Stage):
    """Writes its words to a file."""

    kind: ClassVar[str] = "words"
    words: tuple[str, ...] = ("a", "b")
    """What is written."""
    source: str = "here"
    """A text."""
    missing: bool = False
    """Whether the preflight finds a fault."""

    def preflight(self) -> None:
        if self.missing:
            raise HearthError("words: the text is not there; name another")

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        assert not any(out.iterdir())
        for done, word in enumerate(self.words, 1):
            tell.progress(done, len(self.words))
            if word == "fail":
                (out / "half.txt").write_text("half")
                raise HearthError("words: a word that cannot be read; take it out")
            if word == "bug":
                raise ValueError("a bug")
            if word == "full":
                raise OSError(28, "No space left on device")
            if word == "kill":
                (out / "half.txt").write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
        (out / "words.txt").write_text(" ".join(self.words))
        tell.record(words=len(self.words))


class Count(Stage):
    """Counts up to `steps`, a file per step; goes on where it was stopped."""

    kind: ClassVar[str] = "count"
    needs: ClassVar[tuple[str, ...]] = ("words",)
    resumes: ClassVar[bool] = True
    steps: int = Field(default=5, gt=0, le=1_000)
    """Files to write."""
    seconds: float = Field(default=0.0, ge=0)
    """To wait at each step."""
    signal_at: int = 0
    """The step at which `signal_number` is sent to this process; 0 for never."""
    signal_number: int = 9
    """Which signal."""
    seed: int | None = None
    """Taken from the recipe."""

    def resolve(self, setting: Setting) -> Stage:
        return self.model_copy(update={"seed": setting.seed if self.seed is None else self.seed})

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        assert set(made) == {"words"}
        text = (made["words"].path / "words.txt").read_text()
        begun = len(list(out.glob("*.step")))
        tell.measure(seconds_before=100.0 if begun else 0.0)
        for step in range(begun + 1, self.steps + 1):
            if step == self.signal_at and not begun:
                os.kill(os.getpid(), self.signal_number)
            time.sleep(self.seconds)
            write_atomic(out / f"{step:04}.step", f"{text} {self.seed} {step}".encode())
            tell.progress(step, self.steps, loss=1 / step, tokens_per_second=10.0)
        (out / "telemetry").mkdir(exist_ok=True)
        (out / "telemetry" / "clock.txt").write_text(str(time.time()))
        tell.record(tokens=10 * self.steps, flops=60 * self.steps)
        tell.measure(tokens_per_second=10.0)


class Publish(Stage):
    """Says that it is done."""

    kind: ClassVar[str] = "publish"
    needs: ClassVar[tuple[str, ...]] = ("words", "count")
    title: str = ""
    """Of the page."""

    def run(self, made: Made, out: Path, tell: Tell) -> None:
        write_json(out / "page.json", {"title": self.title, "files": len(made["count"].files)})


TABLE: dict[str, str | type[Stage]] = {"words": Words, "count": Count, "publish": Publish}
RECIPE = 'name = "fake"\nseed = 3\nbudget = "1 min"\n\n[words]\n\n[count]\nsteps = 4\n\n[publish]\n'


def fake(*sets: str) -> Recipe:
    return Recipe.parse(RECIPE, "fake.toml", sets, table=TABLE)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def digests(result: Result) -> dict[str, str]:
    return {kind: artifact.digest for kind, artifact in result.made.items()}


def in_another_process(folder: Path, *sets: str) -> subprocess.Popen[str]:
    """The same run in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from openhearth.runner import run; from tests.fakes import fake\n"
        "from openhearth.errors import HearthError\n"
        "try: run(fake(*sys.argv[2:]), Path(sys.argv[1]))\n"
        "except HearthError as error: print(error, file=sys.stderr); sys.exit(error.exit_status)"
    )
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, str(folder), *sets], stderr=subprocess.PIPE, text=True, env=where, cwd=ROOT)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said when a command is refused, in this process."""
    assert cli._status(cli.spread_text(list(arguments))) == 2
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("hearth: ") and said.err.count("\n") == 1
    return said.err.removeprefix("hearth: ").rstrip("\n")
