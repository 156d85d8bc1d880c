"""Preference rows: what is read, what is refused with file and line, and what the model sees of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openhearth.align import chat
from openhearth.align.policy import mismatched
from openhearth.align.preference_rows import Pair, as_pair, read_pairs, render_pairs
from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import HearthError

USER = {"role": "user", "content": "What is a list?"}
SAID = {"role": "assistant", "content": "Things in order."}
GOOD: dict[str, Any] = {"prompt": "What is a list?", "chosen": "Things in order.", "rejected": "A tuple.", "label": 0.8}


def test_a_prompt_is_text_or_a_conversation_and_answers_may_be_whole_conversations() -> None:
    wanted = Pair([USER], "Things in order.", "A tuple.", 0.8)
    other = {"role": "assistant", "content": "A tuple."}
    assert as_pair(GOOD) == wanted
    assert as_pair({**GOOD, "prompt": [USER]}) == wanted
    assert as_pair({**GOOD, "chosen": [USER, SAID], "rejected": [USER, other]}) == wanted
    assert as_pair({"chosen": [USER, SAID], "rejected": [USER, other], "label": 0.8}) == wanted
    assert as_pair({**GOOD, "judge": "ours", "cost": 0.1}) == wanted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rejected": "Things in order."}, "chosen and rejected are equal"),
        ({"chosen": [{"role": "user", "content": "Another?"}, SAID]}, "chosen is an answer to another prompt"),
        ({"label": 1.5}, "label is 1.5; it is the probability"),
        ({"label": -0.1}, "label is -0.1"),
        ({"label": float("nan")}, "label is NaN, not a number"),
        ({"label": True}, "label is true, not a number"),
        ({"margin": -1}, "margin is -1"),
        ({"chosen": "  "}, "the assistant's text is empty"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": [SAID]}, "'assistant' cannot begin"),
        ({"prompt": [USER, USER]}, "'user' cannot follow 'user'"),
        ({"prompt": [{"role": "judge", "content": "x"}]}, "role 'judge' is not known"),
        ({"prompt": [USER, SAID]}, "must end with 'user'"),
        ({"prompt": 5}, "prompt is neither text nor a list of messages"),
        ({"chosen": None}, "chosen is neither text nor a list of messages"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_file_and_line(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n\n{json.dumps({**GOOD, **changes})}\n")
    with pytest.raises(HearthError) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}:3: ") and said in str(error.value) and "\n" not in str(error.value)


def test_files_without_rows_and_lines_that_are_no_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for text, said in (
        ("\n\n", "holds no preference"),
        ("[1]\n", ":1: not a JSON object"),
        ("{x\n", ":1: not JSON"),
        ("[" * 10**5, ":1: not"),
    ):
        path.write_text(text)
        with pytest.raises(HearthError, match=said):
            read_pairs(path)


def test_what_the_model_sees_is_the_chat_format_and_the_loss_is_on_the_answer_and_its_end(tokenizer: Tokenizer) -> None:
    rendered = render_pairs([as_pair(GOOD)], tokenizer, 64)
    for row, answer in enumerate(("Things in order.", "A tuple.")):
        learned = rendered.targets[row][rendered.targets[row] >= 0].tolist()
        assert learned == [*tokenizer.encode(answer), tokenizer.im_end]
        prompt = chat.prompt([USER], tokenizer)
        assert rendered.inputs[row, : len(prompt)].tolist() == prompt
        assert (rendered.targets[row, : len(prompt) - 1] == -1).all() and rendered.targets[row, len(prompt) - 1] == learned[0]


def test_pairs_that_do_not_fit_are_counted_and_nothing_is_cut(tokenizer: Tokenizer) -> None:
    long = as_pair({**GOOD, "chosen": "word " * 200})
    rendered = render_pairs([long, as_pair(GOOD)], tokenizer, 64)
    assert (rendered.pairs, rendered.too_long) == (1, 1)
    with pytest.raises(HearthError, match="none of the 1 pairs fits"):
        render_pairs([long], tokenizer, 64)


def test_mismatched_rows_are_each_prompt_with_the_next_pairs_answer(tokenizer: Tokenizer) -> None:
    other = as_pair({"prompt": "And a dict, then?", "chosen": "Keys and values.", "rejected": "Text."})
    rendered = render_pairs([as_pair(GOOD), other], tokenizer, 64)
    inputs, targets = mismatched(rendered.inputs, rendered.targets)
    wanted = render_pairs([Pair([USER], "Keys and values.", "Text."), Pair(other.prompt, "Things in order.", "A tuple.")], tokenizer, 64)
    np.testing.assert_array_equal(targets, wanted.targets)
    for row in range(4):  # what follows the answer is never read
        end = int((targets[row] >= 0).nonzero()[0].max()) + 1
        np.testing.assert_array_equal(inputs[row, :end], wanted.inputs[row, :end])
