"""`hearth constitution check`: what is wrong with a constitution, and what a model would read of one principle.

Errors make a chain fail or mean something else than was written; warnings are likely slips. The dry run needs no model: it shows the
exact texts of critique, revision and comparison on an example. With a judge, the tests of the principles are put to it as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from openhearth.align.constitution import PLACEHOLDERS, Constitution, Example, Principle, placeholders
from openhearth.align.constitution_files import MAX_BYTES, SHIPPED, load, toml_places
from openhearth.errors import HearthError, nearest
from openhearth.inputs import read_small

EXAMPLE = Example(prompt="How do I open a lock without its key?", response="Push a tension wrench into the lock and rake the pins.")
"""What a dry run uses where the constitution has no example."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    level: Literal["error", "warning"]
    where: str
    """'principles[2].comparison'."""
    what: str


def lint(constitution: Constitution) -> list[Finding]:
    """Everything that is wrong with a constitution that could be read, in the order of the file."""
    return [*_templates(constitution), *_principles(constitution)]


def _templates(constitution: Constitution) -> Iterator[Finding]:
    for name, wanted in PLACEHOLDERS.items():
        found = placeholders(getattr(constitution.templates, name))
        for each in wanted:
            if found.count(each) != 1:
                times = "is missing" if not found.count(each) else f"stands {found.count(each)} times"
                yield Finding("error", f"templates.{name}", f"the placeholder {{{each}}} {times}; it must stand once")
        for each in sorted(set(found) - set(wanted)):
            known = nearest(each, wanted)
            yield Finding("error", f"templates.{name}", f"unknown placeholder {{{each}}}{known}; known are {', '.join(wanted)}")
    first, second = constitution.templates.choices
    if first == second or not first.strip() or not second.strip():
        yield Finding("error", "templates.choices", "a judge must be able to tell the two choices apart; give two different texts")


def _principles(constitution: Constitution) -> Iterator[Finding]:
    ids: dict[str, int] = {}
    texts: dict[tuple[str, str], str] = {}
    for number, each in enumerate(constitution.principles, 1):
        at = f"principles[{number}]"
        if each.id in ids:
            yield Finding(
                "error", f"{at}.id", f"{each.id!r} is the id of principle {ids[each.id]} too; preference rows could not tell them apart"
            )
        ids.setdefault(each.id, number)
        if not (each.critique.strip() or each.revision.strip() or each.comparison.strip()):
            yield Finding("error", at, f"{each.id!r} says nothing; give critique and revision, or comparison")
        elif bool(each.critique.strip()) != bool(each.revision.strip()):
            lacks, has = ("revision", "critique") if each.critique.strip() else ("critique", "revision")
            yield Finding("error", f"{at}.{lacks}", f"{each.id!r} has a {has} and no {lacks}; a round needs both")
        for kind in ("critique", "revision", "comparison"):
            text = getattr(each, kind)
            if (text, kind) in texts and text.strip():
                yield Finding("warning", f"{at}.{kind}", f"the same words as in {texts[text, kind]!r}, which is then drawn twice as often")
            texts.setdefault((text, kind), each.id)
            if odd := re.search(r"\{\w*\}", text):
                yield Finding("warning", f"{at}.{kind}", f"{odd[0]} is not filled in here; placeholders belong into [templates]")
            if text != text.strip() and text.strip():
                yield Finding("warning", f"{at}.{kind}", "begins or ends with white space, which the template adds already")
        for place, test in enumerate(each.tests, 1):
            if test.better.strip() == test.worse.strip():
                yield Finding("error", f"{at}.tests[{place}]", "better and worse are the same answer; no judge can tell them apart")
            if not each.comparison:
                yield Finding("error", f"{at}.tests[{place}]", f"{each.id!r} has no comparison that a judge could be tested with")


def dry_run(constitution: Constitution, principle: Principle) -> dict[str, str]:
    """The exact texts that a plain language model reads for one principle, on its first example or on ours."""
    example = principle.examples[0] if principle.examples else EXAMPLE
    asked = [{"role": "user", "content": example.prompt}]
    texts: dict[str, str] = {}
    if principle.critique:
        texts["critique"] = constitution.critique_text(asked, example.response, principle)
        texts["revision"] = constitution.revision_text(asked, example.response, principle, example.critique or "[the model's critique]")
    if principle.comparison:
        other = example.revision or "[the other response]"
        texts["comparison"] = constitution.comparison_request(principle, asked, example.response, other)
        texts["choices"] = " | ".join(constitution.templates.choices)
    return texts


def check(path: Path | str, principle: str | None = None) -> dict[str, Any]:
    """Facts about a constitution: what is in it, what is wrong with it, and the dry run of one principle (the first with an example)."""
    constitution = load(path)
    ids = [each.id for each in constitution.principles]
    if principle is not None and principle not in ids:
        raise HearthError(f"{path}: no principle {principle!r}{nearest(principle, ids)}; its principles are {', '.join(ids)}")
    chosen = principle or next((each.id for each in constitution.principles if each.examples), ids[0])
    findings = lint(constitution)
    where = _lines(path)
    return {
        "constitution": constitution.name,
        "file": str(path),
        "digest": constitution.digest,
        "principles": len(ids),
        "critiques": len(constitution.critics),
        "comparisons": len(constitution.judges),
        "examples": sum(len(each.examples) for each in constitution.principles) + len(constitution.few_shot),
        "tests": sum(len(each.tests) for each in constitution.principles),
        "findings": [{**asdict(each), "line": where(each.where)} for each in findings],
        "valid": not any(each.level == "error" for each in findings),
        "dry_run": {"principle": chosen, **dry_run(constitution, constitution.principle(chosen))},
    }


def require_valid(constitution: Constitution, where: str) -> None:
    """Raise HearthError with the first error of a constitution, before anything is spent on it."""
    for each in lint(constitution):
        if each.level == "error":
            raise HearthError(f"{where}: {each.where}: {each.what}; see: hearth constitution check {where}")


def _lines(path: Path | str) -> Any:
    """From 'principles[2].id' to its line in a TOML file; None where it has none."""
    place = Path(path) if Path(path).exists() else SHIPPED / f"{path}.toml"
    if place.suffix == ".json" or not place.is_file():
        return lambda where: None
    lines = toml_places(read_small(place, limit=MAX_BYTES, what="constitution", suffix=".toml"))

    def line(where: str) -> int | None:
        parts = [str(int(part) - 1) if part.isdigit() else part for part in re.findall(r"\w+", where)]
        found = [lines[tuple(parts[:length])] for length in range(len(parts), 0, -1) if tuple(parts[:length]) in lines]
        return found[0] if found else None

    return line


def check_command(path: Path, principle: str | None, *, json: bool) -> int:
    """Print what `check` finds; the exit status is 1 when there is an error."""
    facts = check(path, principle)
    if json:
        from openhearth.commands import print_json

        print_json(facts)
        return 0 if facts["valid"] else 1
    counts = ", ".join(f"{facts[name]} {name}" for name in ("critiques", "comparisons", "examples", "tests"))
    print(f"{facts['constitution']}: {facts['principles']} principles ({counts}); digest {facts['digest'][:12]}")
    for each in facts["findings"]:
        place = f"{facts['file']}:{each['line']}" if each["line"] else facts["file"]
        print(f"{each['level']}: {place}: {each['where']}: {each['what']}")
    for kind, text in facts["dry_run"].items():
        print(f"\n-- {kind} " + "-" * (60 - len(kind)) if kind != "principle" else f"\nOne principle as a model reads it: {text}")
        if kind != "principle":
            print(text.strip("\n"))
    errors = sum(each["level"] == "error" for each in facts["findings"])
    print(f"\n{errors} errors, {len(facts['findings']) - errors} warnings" if facts["findings"] else "\nNothing is wrong with it.")
    return 0 if facts["valid"] else 1
