"""From a folder to a model that can answer: the files that are read are checked against the manifest first, then loaded.

Whoever talks to a model should know that it is the released one; checking the digests of three files costs a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openhearth.errors import DamagedError
from openhearth.release.layout import CONFIG, TOKENIZER
from openhearth.release.manifest import WEIGHTS, check_listed, find_release, read_manifest

if TYPE_CHECKING:
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.config import ModelConfig
    from openhearth.model.transformer import Transformer


@dataclass(frozen=True)
class Opened:
    """A released model, loaded in fp32, and the root digest that names the release."""

    folder: Path
    root: str
    model: Transformer
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Checked:
    """A release whose files are the listed ones, its tokenizer and shape read, its weights not yet: that takes torch, and seconds."""

    folder: Path
    root: str
    config: ModelConfig
    tokenizer: Tokenizer

    def load(self) -> Opened:
        """With the weights; raises DamagedError when they are not those that the shape describes."""
        from openhearth.model.hf import load_model

        return Opened(self.folder, self.root, load_model(self.folder), self.tokenizer)


def check_release(folder: Path) -> Checked:
    """The release in `folder` (a release, or a run that made one); raises HearthError naming the file that is not as listed."""
    place = find_release(folder)
    try:
        manifest = read_manifest(place)
    except DamagedError as error:
        raise DamagedError(f"{place}/{error}; get the release again, or see: hearth verify {folder}") from None
    for name in (CONFIG, TOKENIZER, WEIGHTS):
        if fault := check_listed(place, manifest, name):
            raise DamagedError(f"{place / name}: {fault}; get the release again, or see: hearth verify {folder}")

    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.config import load_config

    tokenizer = Tokenizer.load(place / TOKENIZER)
    config = load_config(place)
    if config.vocab_size != tokenizer.vocab_size:
        raise DamagedError(f"{place / TOKENIZER}: {tokenizer.vocab_size:,} ids, {CONFIG} says {config.vocab_size:,}")
    return Checked(place, manifest.root, config, tokenizer)


def open_release(folder: Path) -> Opened:
    """Load the release in `folder` (a release, or a run that made one); raises HearthError naming the file that is not as listed."""
    return check_release(folder).load()
