"""A recipe: which stages make one model, with which settings, read from a TOML file.

Three keys for the whole run (name, seed, budget), then one table per stage; a recipe named after a published model has its facts in
[published], and its runs are miniatures in that model's proportions. The stages are pydantic records, so the same
declaration is the schema of the file, of `--set` and of the documentation; this module adds what a record does not know: where in the
file a key stands, and what the writer may have meant. Stage classes are imported when a recipe names them, and never import torch.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from openhearth.errors import HearthError, RecipeError, nearest
from openhearth.inputs import read_small
from openhearth.ledger import digest_json
from openhearth.plain_words import in_plain_words
from openhearth.plan.budgets import EXAMPLES, Budget, read_budget
from openhearth.plan.published import Published
from openhearth.stage import Setting, Stage
from openhearth.toml_lines import key_lines, syntax_error

STAGES: dict[str, str] = {
    "corpus": "openhearth.data.corpus:Corpus",
    "tokenizer": "openhearth.data.tokenize:Tokenize",
    "plan": "openhearth.train.planning:Planning",
    "pretrain": "openhearth.train.pretrain:Pretrain",
    "measure": "openhearth.evaluate.measure:Measure",
    "continue": "openhearth.train.continual:Continue",
    "forgetting": "openhearth.evaluate.forgetting:Forgetting",
    "sft": "openhearth.align.sft:Sft",
    "reward": "openhearth.align.reward:Reward",
    "prefer": "openhearth.align.prefer:Prefer",
    "rl": "openhearth.align.rl:Rl",
    "outcome": "openhearth.align.outcome:Outcome",
    "evaluate": "openhearth.evaluate.stage:Evaluate",
    "release": "openhearth.release.stage:Release",
    "world": "openhearth.align.world.stage:World",
    "base": "openhearth.align.foundation:Base",
    "helpful": "openhearth.align.foundation:Helpful",
    "sl_cai": "openhearth.align.constitutional:SlCai",
    "rl_cai": "openhearth.align.constitutional:RlCai",
    "controls": "openhearth.align.world.controls:Controls",
    "verdict": "openhearth.align.world.verdict:Verdict",
}
"""Every kind of stage, in the order in which a recipe runs them, and the class behind it."""

PUBLISHED = "published"
"""The table of facts; not a stage."""

Table = Mapping[str, str | type[Stage]]
Keys = tuple[str, ...]
"""A key and the tables around it: ("sft", "epochs")."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
_LARGEST = 2**63 - 1

Model = TypeVar("Model", bound=BaseModel)


class Header(BaseModel):
    """The keys at the top of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model: letters, digits, '.', '-' and '_'; also the run's folder under `runs/`."""
    seed: int = Field(default=0, ge=0, le=_LARGEST)
    """Where all randomness comes from: initial weights, order of the data."""
    budget: str = "5 min"
    """What the run may spend: time on this machine ("5 min"), FLOPs, chip-hours, or money on named hardware ("$100 on 8xh100")."""


@dataclass(frozen=True)
class Recipe:
    """Stages in order, and what holds for all of them. Equal recipes have equal digests."""

    name: str
    seed: int
    budget: str
    stages: Mapping[str, Stage]
    where: str = field(default="recipe", compare=False)
    published: Published | None = None
    """What the authors state of the model that the recipe is named after."""
    text_where: str = field(default="", compare=False)
    """The line or option that names the user's own text; empty when `with_text` did."""

    @classmethod
    def load(cls, path: Path | str, sets: Sequence[str] = (), budget: str | None = None, table: Table = STAGES) -> Recipe:
        """Read a file; `sets` are `KEY=VALUE` texts and `budget` a text that take the place of what the file says."""
        return cls.parse(read_small(Path(path), limit=MAX_BYTES, what="recipe", suffix=".toml"), str(path), sets, budget, table)

    @classmethod
    def parse(cls, text: str, where: str = "recipe", sets: Sequence[str] = (), budget: str | None = None, table: Table = STAGES) -> Recipe:
        """Read a text. Raises RecipeError: one line with the place, the key, what is wrong and what may have been meant."""
        try:
            content = _toml(text)
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(syntax_error(where, text, error)) from None
        except (RecursionError, ValueError) as error:
            reason = "values are nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
            raise RecipeError(f"{where}: {reason}") from None
        places = _Places(where, key_lines(text))
        for text_ in sets:
            _set(content, text_, places, table)
        if budget is not None:
            if not _is_text(budget):
                raise RecipeError(f"--budget {budget[:60]!a}: not text; write {EXAMPLES}")
            content["budget"] = budget
            places.given[("budget",)] = f"--budget {budget!r}"
        return _build(content, places, table)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return tuple(self.stages)

    @property
    def spending(self) -> Budget:
        """What the budget comes to."""
        return read_budget(self.budget)

    @property
    def budget_seconds(self) -> float:
        """The budget in seconds; for a budget of FLOPs a rough guess."""
        return self.spending.nominal_seconds

    def up_to(self, until: str | None) -> tuple[str, ...]:
        """The stages up to and with `until`, all when it is None."""
        if until is None:
            return self.kinds
        if until not in self.stages:
            raise RecipeError(
                f"--until {until}: not a stage of {self.where}{nearest(until, self.kinds)}; its stages are {', '.join(self.kinds)}"
            )
        return self.kinds[: self.kinds.index(until) + 1]

    def with_text(self, text: Sequence[str]) -> Recipe:
        """The same recipe on the user's own files and folders."""
        corpus = self.stages.get("corpus")
        if corpus is None:
            raise RecipeError(f"--text: {self.where} has no stage [corpus] that could read it")
        if not text:
            raise RecipeError("--text: name at least one file or folder")
        for path in text:
            if not path:
                raise RecipeError("--text: no path follows; name at least one file or folder")
            if not path.strip() or not _is_text(path):
                raise RecipeError(f"--text {path!a}: not the name of a file or folder")
        fields = {**corpus.model_dump(mode="json"), "source": "text", "text": list(text)}
        places = _Places(self.where, {}, {("corpus",): "--text"})
        return replace(self, stages={**self.stages, "corpus": _validated(type(corpus), "corpus", fields, places)}, text_where="")

    def resolved(self, followed_plan: Mapping[str, Any] | None = None) -> Recipe:
        """Every stage with what it takes from the whole run filled in."""
        spending = self.spending
        family = None if self.published is None else asdict(self.published.proportions())
        setting = Setting(self.name, self.seed, spending.nominal_seconds, spending.flops, spending.why, family, followed_plan)
        return replace(self, stages={kind: stage.resolve(setting) for kind, stage in self.stages.items()})

    def content(self) -> dict[str, Any]:
        """The recipe as plain values; keys without a value are left out, since TOML has no null."""
        tables = {kind: stage.model_dump(mode="json", exclude_none=True) for kind, stage in self.stages.items()}
        published = {} if self.published is None else {PUBLISHED: self.published.model_dump(mode="json", exclude_none=True)}
        return {"name": self.name, "seed": self.seed, "budget": self.budget, **tables, **published}

    def toml(self) -> str:
        """The recipe as a TOML file, every setting written out."""
        import tomli_w

        return tomli_w.dumps(self.content())

    @property
    def digest(self) -> str:
        """sha256 of the recipe's content."""
        return digest_json(self.content())


# -- reading ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Places:
    """Where each key was written: a line of the file, or an option of the command line."""

    where: str
    lines: Mapping[Keys, int]
    given: dict[Keys, str] = field(default_factory=dict)

    def of(self, path: Keys) -> str:
        """'recipe.toml:12' or '--set sft.epochs=2' for the key, else for the nearest table that holds it."""
        for given in self.given:
            if len(path) > 1 and given[: len(path)] == path:  # a table that the option wrote
                return self.given[given]
        for length in range(len(path), 0, -1):
            if (option := self.given.get(path[:length])) is not None:
                return option
            if (line := self.lines.get(path[:length])) is not None:
                return f"{self.where}:{line}"
        return self.where

    def error(self, path: Keys, what: str) -> RecipeError:
        """An error at a key: place, [stage], key, what is wrong."""
        key = path[0] if len(path) == 1 else f"[{path[0]}] {'.'.join(path[1:])}" if path else ""
        return RecipeError(f"{self.of(path)}: {key}: {what}" if key else f"{self.of(path)}: {what}")


_DEEP_KEY = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){{{MAX_DEPTH}}}""")


def _toml(text: str) -> dict[str, Any]:
    if _DEEP_KEY.search(text):  # tomllib takes quadratic time on these: a file of 100 kB would hang
        raise RecursionError
    return tomllib.loads(text)


def _set(content: dict[str, Any], option: str, places: _Places, table: Table) -> None:
    """Put one `KEY=VALUE` in its place; VALUE is TOML, or plain text where it is not."""
    name, equals, value = option.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    shown = f"--set {option if len(option) <= 60 else option[:57] + '...'}"
    if not equals or not all(path) or len(path) > MAX_DEPTH or not _is_text(option):
        raise RecipeError(f"{ascii(shown)[1:-1]}: write --set KEY=VALUE, such as --set sft.epochs=2")
    places.given[path] = shown
    if len(path) == 1 and isinstance(content.get(path[0]), dict):
        raise RecipeError(f"{shown}: {path[0]} is a stage; name one of its keys: --set {path[0]}.KEY=VALUE")
    if len(path) > 1 and path[0] not in content:
        raise RecipeError(f"{shown}: {places.where} has no stage [{path[0]}]{nearest(path[0], [k for k in content if k in table])}")
    here = content
    for part in path[:-1]:
        here = here.setdefault(part, {})
        if not isinstance(here, dict):
            raise RecipeError(f"{shown}: '{part}' holds a value, not keys")
    try:
        parsed = _toml(f"value = {value}")
    except (ValueError, RecursionError):
        parsed = {}
    here[path[-1]] = parsed["value"] if set(parsed) == {"value"} else value.strip()
    if isinstance(here[path[-1]], int | float) and _wants_text(path, table):
        here[path[-1]] = value.strip()


def _wants_text(path: Keys, table: Table) -> bool:
    """Whether the key is a text, so that `--set name=2024` means the text 2024."""
    model: type[BaseModel] | None = Header if len(path) == 1 else stage_class(path[0], table) if path[0] in table else None
    known = model.model_fields.get(path[-1]) if model is not None and len(path) <= 2 else None
    if known is None:
        return False
    kinds = get_args(known.annotation) if get_origin(known.annotation) is Literal else (known.annotation,)
    return all(kind is str or isinstance(kind, str) for kind in kinds)


def _build(content: dict[str, Any], places: _Places, table: Table) -> Recipe:
    """Check everything and import the stages that are named."""
    known = [*Header.model_fields, *table, PUBLISHED]
    for key, value in content.items():
        if key in known:
            continue
        if isinstance(value, dict):
            raise RecipeError(f"{places.of((key,))}: [{key}]: unknown stage{nearest(key, table)}; the stages are {', '.join(table)}")
        raise places.error((key,), f"unknown key{nearest(key, known)}")
    _refuse_odd_values((), content, places)
    header = _validated(Header, "", {key: content[key] for key in Header.model_fields if key in content}, places)
    try:
        read_budget(header.budget).require_here()
    except RecipeError as error:
        raise places.error(("budget",), str(error)) from None
    stages: dict[str, Stage] = {}
    for kind in table:
        if kind in content:
            if not isinstance(content[kind], dict):
                raise places.error((kind,), f"is a stage: write [{kind}] on a line of its own and its keys below")
            stages[kind] = _validated(stage_class(kind, table), kind, content[kind], places)
    if not stages:
        raise RecipeError(f"{places.where}: names no stage; write at least one table, such as [{next(iter(table))}]")
    for kind, stage in stages.items():
        for need in stage.required():
            if need not in stages:
                raise RecipeError(f"{places.of((kind,))}: [{kind}] needs the stage [{need}]; add a line [{need}]")
    published = None
    if PUBLISHED in content:
        if not isinstance(content[PUBLISHED], dict):
            raise places.error((PUBLISHED,), f"is a table: write [{PUBLISHED}] on a line of its own and its keys below")
        published = _validated(Published, PUBLISHED, content[PUBLISHED], places)
        try:
            published.proportions()
        except HearthError as error:
            raise RecipeError(f"{places.of((PUBLISHED, 'model'))}: {error}") from None
    text_where = places.of(("corpus", "text")) if content.get("corpus", {}).get("text") else ""
    return Recipe(header.name, header.seed, header.budget, stages, places.where, published, text_where)


def stage_class(kind: str, table: Table = STAGES) -> type[Stage]:
    """The class of a stage, imported when it is first asked for."""
    entry = table[kind]
    if not isinstance(entry, str):
        return entry
    module, name = entry.split(":")
    found: type[Stage] = getattr(importlib.import_module(module), name)
    return found


def _refuse_odd_values(path: Keys, value: Any, places: _Places) -> None:
    """What TOML can say and no setting is: dates, numbers that are not finite or do not fit 64 bits."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_odd_values((*path, str(key)), item, places)
    elif isinstance(value, float) and not math.isfinite(value):
        raise places.error(path, f"{value} is not a finite number")
    elif isinstance(value, int) and not -_LARGEST - 1 <= value <= _LARGEST:
        raise places.error(path, "the number is too large")
    elif not isinstance(value, str | int | float):
        raise places.error(path, f"{value} is a date or a time; no key takes one")


def _validated(model: type[Model], table: str, content: dict[str, Any], places: _Places) -> Model:
    """A record from plain values; the first thing that is wrong becomes one line in plain words."""
    try:
        return model.model_validate_json(json.dumps(content), strict=True)  # strict JSON: "5" is no number, 5 is a float
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        inside = tuple(str(part) for part in first["loc"])
        raise places.error((table, *inside) if table else inside, in_plain_words(first, model)) from None


def _is_text(text: str) -> bool:
    """False for arguments that are not UTF-8 (Python keeps their bytes as lone surrogates) or hold a NUL."""
    return not any(0xD800 <= ord(character) <= 0xDFFF or character == "\0" for character in text)
