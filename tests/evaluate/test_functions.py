"""Which answers count as functions, and that judging never runs or crashes on what a model wrote."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from openhearth.align.examples import Limits, make_examples
from openhearth.data.tokenizer import Tokenizer
from openhearth.evaluate import functions
from openhearth.evaluate.functions import Written, judge, share, tasks, until_dedent, written_as_code, written_in_chat
from openhearth.model import generate as generation
from openhearth.model.generate import Generation, Sampling
from openhearth.model.transformer import Transformer

GREEDY = Sampling(max_new_tokens=64, temperature=0.0)

SOURCE = '''
def area(radius):
    """The area of a circle."""
    return 3 * radius


def stub():
    """Nothing but a docstring."""


def long(x):
    """Long."""
''' + "\n".join(f"    x = x + {number} * {number}" for number in range(25))


@pytest.mark.parametrize(
    ("source", "counted"),
    [
        ("def f(x):\n    return x", True),
        ('def f(x):\n    """Doc."""\n    return x', True),
        ("import math\n\n@cache\nasync def f():\n    pass\n", True),
        ("", False),
        ("x = 1", False),
        ("def f(x):\n    return x\n\ndef g(x):\n    return x", True),
        ('def f(x):\n    """Doc."""', False),
        ("def f(x):\n    return (x", False),
        ("def f(x):\nreturn x", False),
        ("```python\ndef f(x):\n    return x\n```", False),
        ("class A:\n    def f(self):\n        return 1", False),
        ("def f():\n    return 'a\0b'", False),
        ("def f():\n    return " + "(" * 5000 + ")" * 5000, False),
        ("def f():\n    return '\ud800'", False),
        ("def f():\n    return " + "-" * 200_000 + "1", False),
    ],
)
def test_only_an_answer_that_parses_and_defines_a_function_counts(source: str, counted: bool) -> None:
    assert judge(source, "f") == (counted, counted)


def test_another_name_than_the_one_asked_for_is_said() -> None:
    assert judge("def g(x):\n    return x", "f") == (True, False)


def test_nothing_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("print('ran')\nraise SystemExit\ndef f(): return print('ran')", "f") == (True, True)
    assert capsys.readouterr().out == ""


def test_text_is_cut_before_the_first_line_that_is_not_indented() -> None:
    assert until_dedent("    a\n\n    b\ndef g():\n    c") == "    a\n\n    b"
    assert until_dedent("    a\n\tb") == "    a\n\tb"
    assert until_dedent("x\n    a") == ""


@pytest.fixture
def asked(tokenizer: Tokenizer) -> list[functions.Task]:
    documents = pa.table({"doc_id": ["d"], "split": ["heldout"], "kind": ["module"], "uri": ["a.py"], "text": [SOURCE]})
    examples = make_examples(documents, "heldout", tokenizer, 1024, Limits(), seed=0).kept
    assert len(examples) == 3
    return tasks(examples, tokenizer, 64, max_new_tokens=64, context=512)


def test_functions_are_asked_for_that_have_a_body_and_fit_into_an_answer(asked: list[functions.Task]) -> None:
    (task,) = asked
    assert task.name == "area" and task.reference.startswith(task.opening) and task.opening.endswith('circle."""\n')


def test_both_prompts_leave_room_for_the_answer(tokenizer: Tokenizer, asked: list[functions.Task]) -> None:
    documents = pa.table({"doc_id": ["d"], "split": ["heldout"], "kind": ["module"], "uri": ["a.py"], "text": [SOURCE]})
    examples = make_examples(documents, "heldout", tokenizer, 1024, Limits(), seed=0).kept
    longest = max(len(asked[0].chat_prompt), len(asked[0].code_prompt))
    assert len(tasks(examples, tokenizer, 64, 64, context=64 + longest)) == 1
    assert tasks(examples, tokenizer, 64, 64, context=63 + longest) == []
    assert tasks(examples, tokenizer, 0, 64, context=512) == []


def test_a_perfect_model_gets_full_marks_both_ways(
    tokenizer: Tokenizer, asked: list[functions.Task], model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = asked[0]
    replies = {tuple(task.chat_prompt): task.reference, tuple(task.code_prompt): task.reference[len(task.opening) :] + "\n\n\ndef more(:"}

    def reply(model, codec, prompts, sampling):
        assert sampling == GREEDY
        return [Generation(ids=[1, 2], text=replies[tuple(prompt)]) for prompt in prompts]

    monkeypatch.setattr(generation, "generate", reply)
    for write, prompt in ((written_in_chat, task.chat_prompt), (written_as_code, task.code_prompt)):
        (one,) = write(model, tokenizer, asked, GREEDY, lambda count: None)
        assert one == Written(one.source, True, True, len(prompt) + 2)


def test_a_base_model_that_writes_nothing_does_not_count(
    tokenizer: Tokenizer, asked: list[functions.Task], model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "generate", lambda model, codec, prompts, sampling: [Generation() for _ in prompts])
    assert not written_as_code(model, tokenizer, asked, GREEDY, lambda count: None)[0].parses
    assert not written_in_chat(model, tokenizer, asked, GREEDY, lambda count: None)[0].parses


def test_answers_keep_the_order_of_the_prompts(tokenizer: Tokenizer, model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "BATCH", 3)
    prompts = [[tokenizer.bos, *range(65, 65 + size)] for size in (7, 1, 5, 3, 9, 2, 8)]
    told: list[int] = []
    found = functions.answers(model, tokenizer, prompts, replace(GREEDY, max_new_tokens=4), told.append)
    alone = [functions.answers(model, tokenizer, [prompt], replace(GREEDY, max_new_tokens=4), lambda count: None)[0] for prompt in prompts]
    assert [one.ids for one in found] == [one.ids for one in alone] and told == [3, 3, 1]


def test_the_share_has_its_interval() -> None:
    found = share([Written("", True, False, 1)] + [Written("", False, False, 1)] * 28)
    assert found == {
        "share": 1 / 29,
        "low": pytest.approx(0.0061, abs=5e-5),
        "high": pytest.approx(0.1718, abs=5e-5),
        "n": 29,
        "named": 0.0,
    }


def test_how_says_how_answers_were_drawn(asked: list[functions.Task]) -> None:
    assert "answered greedily in at most 64 tokens" in functions.how(asked, GREEDY)
    assert "answered at temperature 0.8 in" in functions.how(asked, replace(GREEDY, temperature=0.8))
