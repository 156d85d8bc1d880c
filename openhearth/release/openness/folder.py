"""A model folder as it lies there, any Hugging Face folder: its files by name, its card by header, sections and links.

Nothing in it is trusted or run: names come from a walk that follows no link, texts are bounded, the header of the card is read by a
YAML loader that makes plain values only and knows no aliases.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from openhearth.errors import HearthError
from openhearth.release.manifest import MAX_FILES, walk
from openhearth.release.openness import licences
from openhearth.release.openness.licences import Licence

CARD = "README.md"
MAX_TEXT = 4_000_000
MAX_HEADER = 1_000_000
_WEIGHTS = re.compile(r"^[^/]*\.(safetensors|gguf|bin|pt|pth)$")
_LICENCE_FILES = re.compile(r"^(licen[cs]e|copying|unlicense)([-._].*)?$", re.IGNORECASE)
_URL = re.compile(r"https?://[^\s<>()\[\]\"'`|\\]+")


@dataclass(frozen=True)
class Link:
    """An address in the card: the line it stands in, and its text."""

    url: str
    line: int
    context: str

    def __str__(self) -> str:
        return f"{CARD} line {self.line}: {self.url[:100]}"


@dataclass
class ModelFolder:
    """The files of a folder by name with their sizes, and what its texts say. Raises HearthError for a folder that is none."""

    path: Path
    files: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise HearthError(f"{self.path}: {'not a folder' if self.path.exists() else 'does not exist'}; give the folder of a model")
        self.files = {}
        try:
            for name, info in walk(self.path):
                if not name.startswith((".git/", ".cache/")) and stat.S_ISREG(info.st_mode) and name.isprintable():
                    self.files[name] = info.st_size
                if len(self.files) > MAX_FILES:
                    raise HearthError(f"{self.path}: more than {MAX_FILES:,} files; no model's folder holds so many")
        except OSError as error:
            raise HearthError(f"{self.path}: not readable ({error.strerror})") from None

    def text(self, name: str) -> str:
        """The text of a file, at most `MAX_TEXT` bytes of it; '' when there is none."""
        if name not in self.files:
            return ""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(MAX_TEXT).decode("utf-8", errors="replace")
        except OSError:
            return ""

    def json(self, name: str) -> Any:
        """A JSON file; None when it is missing, too large or not JSON."""
        if not 0 < self.files.get(name, 0) <= MAX_TEXT:
            return None
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError):
            return None

    def matching(self, pattern: str) -> list[str]:
        """The names that match all of a regular expression, empty files left out."""
        compiled = re.compile(pattern, re.IGNORECASE)
        return [name for name, size in sorted(self.files.items()) if size and compiled.fullmatch(name)]

    # -- the card -----------------------------------------------------------------------------------------------------------

    @cached_property
    def _card(self) -> tuple[str, str]:
        text = self.text(CARD).replace("\r\n", "\n").removeprefix("\ufeff")
        found = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", text, re.DOTALL)
        return (found.group(1), text[found.end() :]) if found else ("", text)

    @cached_property
    def header(self) -> dict[str, Any]:
        """The values at the head of the card; none when there are none or they cannot be read."""
        return read_yaml(self._card[0])

    @property
    def body(self) -> str:
        """The card without its header."""
        return self._card[1]

    @cached_property
    def sections(self) -> list[tuple[str, str]]:
        """Headings of the card, each with the text up to the next heading of its rank or above."""
        lines = self.body.splitlines()
        heads: list[tuple[int, int, str]] = []
        fenced = False
        for number, line in enumerate(lines):
            if line.lstrip().startswith(("```", "~~~")):
                fenced = not fenced
            elif not fenced and (found := re.match(r"(#{1,6})\s+(.*)", line)):
                heads.append((number, len(found.group(1)), found.group(2).strip("# *")))
        found_sections = []
        for place, (number, rank, title) in enumerate(heads):
            end = next((at for at, other, _ in heads[place + 1 :] if other <= rank), len(lines))
            found_sections.append((title, "\n".join(lines[number + 1 : end]).strip()))
        return found_sections

    def section(self, pattern: str, least: int = 1) -> str:
        """The heading of the first section whose heading matches and which holds at least so many characters; '' when there is none."""
        return next((title for title, text in self.sections if re.search(pattern, title, re.IGNORECASE) and len(text) >= least), "")

    @cached_property
    def links(self) -> list[Link]:
        """The addresses in the card, in order."""
        found = []
        offset = self.text(CARD).replace("\r\n", "\n").count("\n") - self.body.count("\n")
        for number, line in enumerate(self.body.splitlines(), offset + 1):
            found += [Link(url.rstrip(".,;:*_"), number, line) for url in _URL.findall(line[:5000])]
        return found[:10_000]

    def link(self, address: str, context: str = "") -> Link | None:
        """The first link whose address matches, in a line that matches."""
        for link in self.links:
            if re.search(address, link.url, re.IGNORECASE) and re.search(context, link.context, re.IGNORECASE):
                return link
        return None

    # -- weights ------------------------------------------------------------------------------------------------------------

    @cached_property
    def weights(self) -> tuple[list[str], str]:
        """The files of the final weights, all that are needed, and '' or what is wrong with them."""
        for index in self.matching(r"[^/]*\.(safetensors|bin)\.index\.json"):
            content = self.json(index)
            shards = sorted(set(content["weight_map"].values())) if isinstance(content, dict) and _is_map(content.get("weight_map")) else []
            if not shards:
                return [], f"{index} is not readable"
            if missing := [name for name in shards if not self.files.get(name)]:
                return [], f"{index} names {missing[0]}, which is missing"
            return self._without_pointers([index, *shards])
        found = [name for name, size in sorted(self.files.items()) if size and _WEIGHTS.match(name) and "training_args" not in name]
        found = [name for name in found if not re.search(r"(optimizer|scheduler|rng_state|adapter_)", name)]
        if (several := [name for name in found if re.search(r"-\d{5}-of-\d{5}\.", name)]) and len(several) == len(found):
            total = int(re.findall(r"-of-(\d{5})", several[0])[0])
            return (found, "") if len(found) == total else ([], f"{len(found)} of {total} shards are there")
        for suffix in (".safetensors", ".gguf", ""):
            if chosen := [name for name in found if name.endswith(suffix)]:
                return self._without_pointers(chosen[:1])
        return [], "no weights"

    def _without_pointers(self, names: list[str]) -> tuple[list[str], str]:
        for name in names:
            if self.files[name] < 1024 and self.text(name).startswith("version https://git-lfs"):
                return [], f"{name} is a pointer of Git LFS, not the weights"
        return names, ""

    # -- licence ------------------------------------------------------------------------------------------------------------

    @cached_property
    def licence_files(self) -> list[str]:
        """The files at the top whose name says that they hold a licence, the plainest name first."""
        return sorted(
            (name for name, size in self.files.items() if size and _LICENCE_FILES.match(name)), key=lambda name: (len(name), name)
        )

    @cached_property
    def stated_licence(self) -> str:
        """What the header of the card says, '' for nothing."""
        value = self.header.get("license")
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if isinstance(value, str) and value.lower() == "other" and isinstance(self.header.get("license_name"), str):
            return str(self.header["license_name"])
        return value if isinstance(value, str) else ""

    @cached_property
    def licence(self) -> tuple[Licence | None, tuple[str, ...], str]:
        """The licence of the weights, the files that prove it (none: it is only stated), and a remark.

        Where the header of the card and the text of the licence disagree the one that allows less counts.
        """
        stated = licences.find(self.stated_licence) if self.stated_licence else None
        for name in self.licence_files:
            if (read := licences.recognise(self.text(name))) is not None:
                if stated is None:
                    return read, (name,), f"the text in {name}"
                if _same(read.name, stated.name):
                    return stated, (CARD, name), f"{CARD} says {stated.name}, {name} has its text"
                less = stated if read.open else read
                return less, (CARD, name), f"{CARD} says {stated.name}, {name} is the text of {read.name}: the one that allows less counts"
        if stated is not None and self.licence_files and not stated.open:
            return stated, (CARD, self.licence_files[0]), f"{CARD} says {stated.name}, its text is in {self.licence_files[0]}"
        if stated is not None:
            return stated, (), f"{CARD} says {stated.name}; its text is not in the folder"
        return None, (), "no licence"

    @property
    def native(self) -> str:
        """The `model_type` in config.json, when it is one whose code is in transformers and no code of the folder takes its place."""
        config = self.json("config.json")
        if not isinstance(config, dict) or "auto_map" in config or not isinstance(config.get("architectures"), list):
            return ""
        kind = config.get("model_type")
        return kind if isinstance(kind, str) and kind in _architectures() else ""


def _architectures() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("architectures.txt").read_text(encoding="utf-8").split())


def _same(one: str, other: str) -> bool:
    def plain(name: str) -> str:
        return re.sub(r"-(only|or-later)$", "", name.lower())

    return plain(one) == plain(other) or any(word in one.lower() and word in other.lower() for word in ("llama", "gemma", "rail"))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value.values())


def read_yaml(text: str) -> dict[str, Any]:
    """Plain values from YAML; {} when it is not an object of them, holds aliases, or is larger than any header."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("aliases are not read")
            return super().compose_node(parent, index)

    if len(text) > MAX_HEADER:
        return {}
    try:
        value = yaml.load(text, Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, OverflowError):
        return {}
    return value if isinstance(value, dict) else {}
