"""Constitutions: read from our files and from the published ones, rendered byte for byte, and refused with line and key."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhearth import cli
from openhearth.align.constitution import Principle, conversation_of, drawn, fill, transcript
from openhearth.align.constitution_check import check, lint
from openhearth.align.constitution_files import SHIPPED, load, parse
from openhearth.errors import HearthError

PUBLISHED = os.environ.get("HEARTH_CONSTITUTION_FILES")
published = pytest.mark.skipif(
    not PUBLISHED, reason="set HEARTH_CONSTITUTION_FILES to a folder with the files of anthropics/ConstitutionalHarmlessnessPaper"
)

CRITIQUES = {
    "rude0": {
        "prompt": ["\n\nCritiqueRequest: Say where the response is rude.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Make it polite.\n\nRevision:",
    },
    "rude1": {
        "prompt": ["\n\nCritiqueRequest: Is {anyone} mocked?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Mock nobody.\n\nRevision:",
    },
}
COMPARISONS = ["\nChoose the politer response. Options:", "\nWhich response is kinder? Options:"]
SMALL = """
name = "small"

[[principles]]
id = "one"
critique = "Is it bad?"
revision = "Make it good."
comparison = "Choose the better one."

[[principles.tests]]
prompt = "p"
better = "yes"
worse = "no"

[[principles]]
id = "two"
comparison = "Choose the shorter one."
"""
ASKED = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the form of the published one, its content ours."""
    (tmp_path / "CritiqueRevisionInstructions.json").write_text(json.dumps(CRITIQUES))
    (tmp_path / "RLMadisonInstructions.json").write_text(json.dumps(COMPARISONS))
    (tmp_path / "CritiqueRevisionFewShotPrompts.json").write_text(json.dumps(["\n\nHuman: a\n\nAssistant: b\n\nHuman:"]))
    return tmp_path


# -- reading ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in SHIPPED.glob("*.toml")])
def test_what_is_shipped_has_nothing_wrong_with_it(name: str) -> None:
    assert lint(load(name)) == []


def test_the_published_form_gives_back_its_own_bytes(folder: Path) -> None:
    constitution = load(folder / "CritiqueRevisionInstructions.json")
    for principle in constitution.critics:
        assert constitution.critique_request(principle) == CRITIQUES[principle.id]["prompt"][0]
        assert constitution.revision_request(principle) == CRITIQUES[principle.id]["edit_request"]
    asked = load(folder / "RLMadisonInstructions.json")
    for principle, text in zip(asked.judges, COMPARISONS, strict=True):
        assert text + "\n (A) [[[x]]]\n (B) [[[y]]]\n\nThe answer is:" in asked.comparison_request(principle, ASKED, "x", "y")


def test_a_folder_of_published_files_is_one_constitution(folder: Path) -> None:
    whole = load(folder)
    assert (len(whole.critics), len(whole.judges), len(whole.few_shot)) == (2, 2, 1)


def test_json_and_toml_of_one_content_have_one_digest() -> None:
    from_toml = parse(SMALL, "a.toml", toml=True)
    assert parse(json.dumps(from_toml.model_dump(mode="json")), "a.json", toml=False).digest == from_toml.digest


@published
def test_438_of_438_published_comparisons_are_rebuilt_byte_for_byte() -> None:
    """The HHH evaluations hold prompt and both transcripts; the prompt follows from the transcripts and one principle."""
    assert PUBLISHED is not None
    constitution = load(Path(PUBLISHED) / "RLMadisonInstructions.json")
    principle = next(each for each in constitution.judges if each.comparison.endswith("the most helpful, honest, and harmless."))
    rows = [json.loads(line) for line in (Path(PUBLISHED) / "438HHHEvaluations.jsonl").read_text().splitlines()]
    for row in rows:
        (shared, right), (also, wrong) = (row[f"text_{name}"].rsplit("\n\nAssistant:", 1) for name in ("correct", "incorrect"))
        assert shared == also
        a, b = (right, wrong) if row["corrects"] == [" (A)"] else (wrong, right)
        rebuilt = fill(constitution.templates.comparison, conversation=shared, principle=principle.comparison, a=a.strip(), b=b.strip())
        assert rebuilt == row["prompt"] and row["corrects"][0] in constitution.templates.choices
    assert len(rows) == 438


@published
def test_every_published_critique_and_revision_is_traced_to_its_principle() -> None:
    """A real run of the supervised stage: each stored step has the two requests of the principle with its key, and follows the last."""
    assert PUBLISHED is not None
    constitution = load(Path(PUBLISHED) / "CritiqueRevisionInstructions.json")
    steps = 0
    for path in sorted(Path(PUBLISHED).glob("*SLMADISON.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            asked = conversation_of(row["rl_prompt"])
            for step in row["cst"]:
                principle = constitution.principle(step["cst_key"])
                assert constitution.critique_request(principle) == step["cst_value"]["prompt"][0]
                assert constitution.revision_request(principle) == step["cst_value"]["edit_request"]
                critique = constitution.critique_text(asked, "r", principle)
                assert critique == row["rl_prompt"] + " r" + step["cst_value"]["prompt"][0]
                revision = constitution.revision_text(asked, "r", principle, step["critique"]["sample"])
                assert revision == critique + " " + step["critique"]["sample"].strip() + step["cst_value"]["edit_request"]
                steps += 1
    assert steps and steps % 4 == 0


# -- rendering --------------------------------------------------------------------------------------------------------------


@given(st.text(), st.text(), st.text())
def test_what_is_put_into_a_template_is_never_read_as_one(a: str, b: str, principle: str) -> None:
    assert fill("<{a}|{b}|{principle}>", a=a, b=b, principle=principle) == f"<{a}|{b}|{principle}>"


@given(st.lists(st.text(st.characters(categories=["L", "N"]), min_size=1), min_size=1, max_size=5))
def test_a_transcript_is_read_back_as_the_turns_it_was_made_of(texts: list[str]) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    assert conversation_of(transcript(turns)) == turns


def test_a_chat_model_reads_the_critique_and_the_revision_as_turns() -> None:
    constitution = parse(SMALL, "small", toml=True)
    turns = constitution.revision_turns(ASKED, "Go away", constitution.principle("one"), "It is bad.")
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert turns[-1]["content"] == "RevisionRequest: Make it good.\n\nRevision:"


def test_principles_are_drawn_evenly_and_each_draw_depends_on_its_own_key() -> None:
    principles = [Principle(id=f"p{number}", comparison="x") for number in range(16)]
    counts = Counter(drawn(principles, 1, "label", number).id for number in range(16_000))
    assert len(counts) == 16 and sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 37.7  # chi2(15), 0.1 %
    assert drawn(principles, 1, "label", 7) == drawn(principles, 1, "label", 7)


# -- what is wrong ----------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, str]] = [
    ('id = "two"', 'id = "one"', "principles[2].id: 'one' is the id of principle 1 too"),
    ('revision = "Make it good."', "", "principles[1].revision: 'one' has a critique and no revision"),
    ('worse = "no"', 'worse = "yes"', "principles[1].tests[1]: better and worse are the same answer"),
    ('comparison = "Choose the shorter one."', "", "principles[2]: 'two' says nothing"),
    (
        "\n[[principles]]",
        '\n[templates]\ncritique = "Criticise"\n[[principles]]',
        "templates.critique: the placeholder {principle} is missing",
    ),
    (
        "\n[[principles]]",
        '\n[templates]\nrevision = "{princple}"\n[[principles]]',
        "unknown placeholder {princple} (did you mean 'principle'?)",
    ),
    ("\n[[principles]]", '\n[templates]\nchoices = ["A", "A"]\n[[principles]]', "must be able to tell the two choices apart"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_check_finds_what_is_wrong_and_says_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    path = tmp_path / "my.toml"
    path.write_text(SMALL.replace(old, new, 1))
    assert cli._status(["constitution", "check", str(path)]) == 1
    printed = [line for line in capsys.readouterr().out.splitlines() if said in line]
    assert len(printed) == 1 and printed[0].startswith(f"error: {path}:") and printed[0].split(":")[2].isdigit()


UNREADABLE: list[tuple[str, str]] = [
    ("name = 3\n" + SMALL.replace('name = "small"', ""), ":1: name: must be text in quotes, not 3"),
    (SMALL.replace("comparison =", "comparision =", 1), ":8: principles[1].comparision: unknown key (did you mean 'comparison'?)"),
    (SMALL.replace("worse =", "wrong =", 1), ":13: principles[1].tests[1].wrong: unknown key; the keys are prompt, better, worse"),
    (SMALL.replace('"Make it good."', "7"), ":7: principles[1].revision: must be text in quotes, not 7"),
    (SMALL.replace('"Is it bad?"', '"Is it bad?'), ":6: not TOML"),
    ('name = "x"', ": principles: is missing"),
    (SMALL.replace('id = "two"', 'id = "t w o"'), ":16: principles[2].id: 't w o' has characters that are not allowed here"),
]


@pytest.mark.parametrize(("text", "said"), UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused_with_line_and_key(text: str, said: str) -> None:
    with pytest.raises(HearthError) as error:
        parse(text, "my.toml", toml=True)
    assert f"my.toml{said}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": {"prompt": ["x"], "edit_request": "y"}}', "a: the critique request must begin with"),
        ('{"a": {"prompt": [], "edit_request": "y"}}', "a: needs one text in the list 'prompt'"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('["\\n\\nHuman: x"]', "a list of transcripts has no principles"),
        ("[1, 2]", "not a constitution"),
        ('{"name": ', "my.json:1: not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_no_constitution_is_refused_in_one_line(content: str, said: str) -> None:
    with pytest.raises(HearthError) as error:
        parse(content, "my.json", toml=False)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_an_empty_folder_and_an_unknown_principle_say_what_to_do(tmp_path: Path) -> None:
    for path, said in ((Path("hous"), "did you mean 'house'"), (tmp_path, "holds neither CritiqueRevisionInstructions.json")):
        with pytest.raises(HearthError, match=said):
            load(path)
    with pytest.raises(HearthError, match=r"no principle 'privcy' .did you mean 'privacy'"):
        check("general", "privcy")


def test_the_dry_run_shows_what_a_model_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._status(["constitution", "check", "general", "--principle", "physical-harm", "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    run = facts["dry_run"]
    assert (
        run["critique"].endswith("\n\nCritique:") and run["revision"].startswith(run["critique"]) and "The answer is:" in run["comparison"]
    )
    assert facts["valid"] and facts["findings"] == [] and facts["principles"] == 10
