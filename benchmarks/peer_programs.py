"""The peers, nanoGPT and nanochat: what their authors tell someone with a processor and no GPU to type, and how to read what they print.

Each program runs from a copy of its checkout, unchanged, with the arguments its authors give. What is added is named here and is in
the peer's favour or needed to measure it: the number of iterations, the processor as device, and no evaluation during training,
because evaluation is not counted. No line of theirs is copied; the text reaches them in the files that they read.
"""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from peer_process import Child

from openhearth.errors import HearthError
from openhearth.evaluate.heldout import pieces

ROOT = Path(__file__).resolve().parents[1]
UNUSED = ("wandb", "requests")
"""Imported by the peers and not used on a processor without a network; where they are not installed, an empty module stands in."""
PIECE_BYTES = 2_048
"""nanochat reads the training text in pieces of this size: it fills rows of 512 tokens with whole documents and throws away what is
cut off, so that of documents longer than a row it would see the beginnings only."""


@dataclass(frozen=True)
class Way:
    """One way to run a peer that its authors tell."""

    key: str
    program: str
    title: str
    told: str
    """Where its authors tell it."""
    arguments: tuple[str, ...]
    batch: int
    """Characters or tokens per step, as the arguments say."""


WAYS = (
    Way(
        "nanogpt-readme",
        "nanogpt",
        "nanoGPT, README",
        'README.md, "I only have a macbook (or other cheap computer)"',
        (
            "config/train_shakespeare_char.py",
            *("--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=1", "--block_size=64", "--batch_size=12"),
            *("--n_layer=4", "--n_head=4", "--n_embd=128", "--dropout=0.0"),
        ),
        12 * 64,
    ),
    Way(
        "nanogpt-config",
        "nanogpt",
        "nanoGPT, config",
        'config/train_shakespeare_char.py, "on macbook also add"',
        ("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=1", "--log_interval=1"),
        64 * 256,
    ),
    Way(
        "nanochat-runcpu",
        "nanochat",
        "nanochat, runcpu.sh",
        "runs/runcpu.sh",
        (
            *("--depth=6", "--head-dim=64", "--window-pattern=L", "--max-seq-len=512", "--device-batch-size=32"),
            *("--total-batch-size=16384", "--core-metric-every=-1", "--run=dummy"),
        ),
        16_384,
    ),
    Way(
        "nanochat-example",
        "nanochat",
        "nanochat, base_train.py",
        'scripts/base_train.py, "If you are only on CPU/Macbook"',
        (
            *("--depth=4", "--max-seq-len=512", "--device-batch-size=1", "--core-metric-every=-1"),
            *("--total-batch-size=512", "--run=dummy"),
        ),
        512,
    ),
)


@dataclass(frozen=True)
class Texts:
    """What every program is given: the training documents, and the held-out texts that ours was measured on."""

    train: list[str]
    heldout: list[str]

    @property
    def heldout_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.heldout)


@dataclass
class Peer(ABC):
    """A copy of a checkout in `work`, run by `python` with `threads` threads."""

    checkout: Path
    work: Path
    python: Path
    threads: int
    notes: list[str] = field(default_factory=list)

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    entry: ClassVar[str]
    unit: ClassVar[str]
    compiles: ClassVar[bool]
    step: ClassVar[re.Pattern[str]]
    """A line that the program prints at the end of each training step."""

    @property
    def folder(self) -> Path:
        return self.work / self.name

    @property
    def child(self) -> Child:
        kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        number = str(self.threads)
        paths = [self.folder, self.work / "stand-ins", ROOT]
        return Child(
            self.folder,
            kept
            | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "CUDA_VISIBLE_DEVICES": ""}
            | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "RAYON_NUM_THREADS": number}
            | {"NANOCHAT_BASE_DIR": str(self.work / "nanochat-base"), "TORCHINDUCTOR_CACHE_DIR": str(self.work / "compiled")},
            self.work / "logs",
        )

    def copy(self) -> None:
        """Copy the checkout and see that what it imports is there. Raises HearthError naming what is missing."""
        skipped = shutil.ignore_patterns(".git", "*.ipynb", "assets", "__pycache__", ".venv", "out-*")
        shutil.copytree(self.checkout, self.folder, ignore=skipped)
        names = (*self.needs, *UNUSED)
        missing = self.ask("import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])", *names).split()
        if lacking := [name for name in self.needs if name in missing]:
            raise HearthError(
                f"{self.python}: {self.name} needs {', '.join(lacking)}; install with {self.python} -m pip install {' '.join(lacking)}, "
                f"or name another interpreter with --python"
            )
        for name in UNUSED:
            if name in missing:
                (self.work / "stand-ins" / f"{name}.py").touch()
                note = f"{name} is not installed and not used here: an empty module stands in for its import"
                if note not in self.notes:
                    self.notes.append(note)

    def ask(self, code: str, *arguments: str) -> str:
        """What `code` prints in the peer's interpreter. Raises HearthError when that does not run."""
        try:
            asked = subprocess.run([str(self.python), "-c", code, *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise HearthError(f"{self.python}: does not run as a Python interpreter ({error}); name one with --python") from None
        return asked.stdout.strip()

    @abstractmethod
    def prepare(self, texts: Texts) -> None:
        """Write the text where the program looks for it, and make its vocabulary with its own script; not counted as its time."""

    @abstractmethod
    def train(self, way: Way, steps: int) -> list[str]:
        """The command that trains for `steps` steps from nothing and keeps the model under the name `way.key`."""

    @abstractmethod
    def own_estimate(self, way: Way) -> float | None:
        """Bits per byte as the program itself estimates them, after training; None where it printed none."""

    def readable(self, texts: Texts) -> list[str]:
        """The held-out texts in a form that the program can read."""
        return texts.heldout

    def score(self, way: Way, texts: Path, out: Path) -> None:
        """Let the peer's model score the list of texts in `texts`; see `peer_score.py`."""
        script = Path(__file__).with_name("peer_score.py")
        self.child.run(f"{way.key}-score", [str(self.python), str(script), self.name, str(texts), str(out), way.key])


def one_line_ends(text: str) -> str:
    """Line ends as Python reads a file in text mode, which is how nanoGPT reads its input."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


class NanoGPT(Peer):
    """Characters. Its prepare.py makes the vocabulary from the training text; ids of ours are the same and split where ours are split."""

    name = "nanogpt"
    needs = ("torch", "numpy", "tiktoken")
    entry = "train.py"
    unit = "characters"
    compiles = False
    step = re.compile(r"iter \d+: loss")

    def prepare(self, texts: Texts) -> None:
        data = self.folder / "data" / "shakespeare_char"
        train = one_line_ends("\n".join(texts.train)) + "\n"
        (data / "input.txt").write_text(train, encoding="utf-8", newline="\n")
        self.child.run("nanogpt-prepare", [str(self.python), "data/shakespeare_char/prepare.py"])
        characters = _characters(train)
        alphabet = np.unique(characters)
        ids = np.searchsorted(alphabet, characters).astype(np.uint16)
        theirs = [np.fromfile(data / name, dtype=np.uint16) for name in ("train.bin", "val.bin")]
        if not np.array_equal(np.concatenate(theirs), ids):
            raise HearthError(f"{self.checkout}: its prepare.py numbers characters in a way that this benchmark does not know")
        ids.tofile(data / "train.bin")
        heldout = _characters("\n".join(self.readable(texts)))
        np.searchsorted(alphabet, heldout).astype(np.uint16).tofile(data / "val.bin")
        self._characters, self._bytes = len(heldout), texts.heldout_bytes
        known = set(alphabet.tolist())
        replaced = sum(ord(character) not in known for text in texts.heldout for character in one_line_ends(text))
        self.notes.append(
            f"nanoGPT knows the {len(alphabet):,} characters of the training text; {replaced:,} characters of the held-out text are not "
            f"among them and were replaced for nanoGPT alone, which spares it their cost"
        )

    def readable(self, texts: Texts) -> list[str]:
        """The held-out texts with every character that the training text does not hold replaced."""
        train = set().union(*map(set, texts.train)) | {"\n"}
        instead = "?" if "?" in train else "\n"
        return ["".join(character if character in train else instead for character in one_line_ends(text)) for text in texts.heldout]

    def train(self, way: Way, steps: int) -> list[str]:
        shutil.rmtree(self.folder / way.key, ignore_errors=True)
        counted = (f"--max_iters={steps}", f"--lr_decay_iters={steps}", f"--eval_interval={steps}", f"--out_dir={way.key}")
        return [str(self.python), "train.py", *way.arguments, *counted]

    def own_estimate(self, way: Way) -> float | None:
        log = (self.work / "logs" / f"{way.key}.log").read_text(encoding="utf-8")
        losses = re.findall(r"^step \d+: train loss [\d.]+, val loss ([\d.]+)", log, re.MULTILINE)
        return float(losses[-1]) / math.log(2) * self._characters / self._bytes if losses else None


def _characters(text: str) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """The code points of `text`."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


class Nanochat(Peer):
    """Tokens of its own tokenizer, trained on the same text with its own defaults, from Parquet files in the place of its download."""

    name = "nanochat"
    needs = ("torch", "numpy", "pyarrow", "filelock", "rustbpe", "tiktoken", "jinja2", "yaml")
    entry = "scripts/base_train.py"
    unit = "tokens"
    compiles = True
    step = re.compile(r"step \d+/\d+ ")

    @property
    def base(self) -> Path:
        return Path(self.child.environment["NANOCHAT_BASE_DIR"])

    def prepare(self, texts: Texts) -> None:
        data = self.base / "base_data_climbmix"
        data.mkdir(parents=True)
        train = [piece for text in texts.train for piece in pieces(text, PIECE_BYTES)]
        random.Random(0).shuffle(train)  # as its own data set is
        for number, rows in enumerate((train, texts.heldout)):  # the last file is the one it holds out
            pq.write_table(pa.table({"text": pa.array(rows, pa.string())}), data / f"shard_{number:05d}.parquet", row_group_size=1024)
        version = self.ask("import torch; print('torch', torch.__version__)")
        self.child.run("nanochat-tokenizer", [str(self.python), "-m", "scripts.tok_train", "--max-chars=2000000000"])
        self.notes.append(
            f"nanochat is given the training text in shuffled pieces of at most {PIECE_BYTES:,} bytes, because its loader throws away what "
            f"does not fit in a row; its lock file names torch 2.9.1, it ran on {version}"
        )

    def train(self, way: Way, steps: int) -> list[str]:
        shutil.rmtree(self.base / "base_checkpoints" / way.key, ignore_errors=True)
        counted = (f"--num-iterations={steps}", "--eval-every=-1", "--sample-every=-1", "--device-type=cpu", f"--model-tag={way.key}")
        return [str(self.python), "-m", "scripts.base_train", *way.arguments, *counted]

    def own_estimate(self, way: Way) -> float | None:
        name = f"{way.key}-base-eval"
        arguments = ("--eval=bpb", "--device-batch-size=1", "--split-tokens=16384", "--device-type=cpu", f"--model-tag={way.key}")
        self.child.run(name, [str(self.python), "-m", "scripts.base_eval", *arguments])
        log = (self.work / "logs" / f"{name}.log").read_text(encoding="utf-8")
        found = re.findall(r"^val bpb: ([\d.]+)", log, re.MULTILINE)
        return float(found[-1]) if found else None


PEERS: dict[str, type[Peer]] = {"nanogpt": NanoGPT, "nanochat": Nanochat}
