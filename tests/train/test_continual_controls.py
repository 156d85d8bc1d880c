"""A continued model beside its controls: equal tokens, the same documents, differences that are what the documents say."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from openhearth import cli
from openhearth.errors import RecipeError
from openhearth.experiments.continual import ARMS, Arm, check_arms, variant
from openhearth.recipe import Recipe
from openhearth.train.trained import open_trained
from tests.train.conftest import CONTINUE


def arm(name: str, *seeds: list[float]) -> Arm:
    """An arm with the bits per byte of four documents of 100, 200, 300 and 400 bytes, for each seed."""
    made = Arm(name)
    for bits in seeds:
        sizes = [100 * (number + 1) for number in range(len(bits))]
        texts = [
            {"unit": number, "bytes": size, "after": bit * size * math.log(2)}
            for number, (bit, size) in enumerate(zip(bits, sizes, strict=True))
        ]
        value = sum(bit * size for bit, size in zip(bits, sizes, strict=True)) / sum(sizes)
        made.results.append({"texts": {"old": texts}, "old": {"after": {"value": value}}, "mean": {"value": value}})
    return made


def test_a_difference_between_arms_is_that_of_their_means_over_seeds_weighted_by_bytes() -> None:
    first, second = arm("a", [1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]), arm("b", [1.5, 2.5, 1.5, 2.0])
    found = second.against(first, "old", seed=0)
    assert found.value == pytest.approx((0 * 100 + 1 * 200 + 0 * 300 + 0.5 * 400) / 1000)
    assert found.low is not None and found.high is not None and 0 <= found.low < found.value < found.high <= 1
    assert list(first.figure("old")) == pytest.approx([1.5, math.sqrt(0.5)]) and second.figure("mean")[1] is None


def test_what_is_equal_on_every_document_has_no_interval_to_either_side() -> None:
    found = arm("b", [1.25, 2.25, 3.25, 4.25]).against(arm("a", [1.0, 2.0, 3.0, 4.0]), "old", seed=0)
    assert [found.value, found.low, found.high] == pytest.approx([0.25] * 3)


def test_every_control_has_the_tokens_that_its_name_promises(place: Path) -> None:
    recipe = Recipe.parse(CONTINUE)
    before = open_trained("runs/old").tokens
    stages: dict[str, Any] = {name: variant(recipe, name, 4096, seed=9).stages["continue"] for name in ARMS}
    assert {name: stage.tokens for name, stage in stages.items()} == {
        "as-asked": 4096, "no-replay": 4096, "constant": 4096, "union": before + 4096, "union-equal": 4096, "scratch": 4096,
    }  # fmt: skip
    assert Fraction(stages["union"].replay).limit_denominator(10_000) == Fraction(before, before + 4096)
    assert {name for name, stage in stages.items() if stage.start == "scratch"} == {"union", "union-equal", "scratch"}
    assert stages["no-replay"].replay == stages["scratch"].replay == 0 and stages["constant"].rate == "constant"


def test_a_control_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(
        RecipeError, match=r"--control no-reply: no such control \(did you mean 'no-replay'\?\); the controls are no-replay,"
    ):
        check_arms(["no-reply"])
    assert check_arms(["union", "constant"]) == ["as-asked", "constant", "union"]


def test_the_command_runs_the_controls_on_the_same_documents_and_goes_on_where_it_was(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["continue", "runs/old", "--text", "new-text", "--replay", "0.25", "--control", "constant", "--dir", "table", "--json"]
    command += ["--set", "continue.tokens=512", "--set", "forgetting.heldout_bytes=2000"]
    assert cli._status(command) == 0
    table = json.loads(capfd.readouterr().out)
    assert [each["arm"] for each in table["arms"]] == ["as-asked", "constant"]
    assert table["arms"][1]["against_first"]["old"]["low"] is not None
    texts = [json.loads(path.read_bytes())["texts"] for path in sorted(place.glob("table/*/seed-1/forgetting/*/forgetting.json"))]
    first, second = ([(row["uri"], row["before"]) for row in each["new"]] for each in texts)
    assert first == second
    made = {path: path.stat().st_mtime_ns for path in place.glob("table/*/*/*/*/artifact.json")}
    assert cli._status(command) == 0
    assert json.loads(capfd.readouterr().out) == table
    assert {path: path.stat().st_mtime_ns for path in place.glob("table/*/*/*/*/artifact.json")} == made
