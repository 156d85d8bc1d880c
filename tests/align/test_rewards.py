"""Rewards that can be checked, and the child process in which a model's code may run."""

from __future__ import annotations

import pytest

from openhearth.align.rewards import VERIFIABLE, Answer, weighted_sum
from openhearth.align.sandbox import run_python


def answer(text: str, reference: str = "", ended: bool = True) -> Answer:
    return Answer("", reference, text, [], [], ended)


@pytest.mark.parametrize(
    ("reward", "text", "reference", "score"),
    [
        ("exact_answer", "So 3 + 4 is 7.", "7", 1.0),
        ("exact_answer", "It is 1,200.", "1200.0", 1.0),
        ("exact_answer", "It is 8.", "7", 0.0),
        ("exact_answer", "Paris ", "Paris", 1.0),
        ("parses", "def f(x):\n    return x", "f", 1.0),
        ("parses", "def f(x):\n    pass", "f", 1.0),
        ("parses", "def f(x):\nreturn", "f", 0.0),
        ("parses", "", "f", 0.0),
        ("parses_with_body", "def f(x):\n    '''Doc.'''\n    return x", "f", 1.0),
        ("parses_with_body", "def g(x):\n    return x", "f", 0.0),
        ("parses_with_body", "def f(x):\n    pass", "f", 0.0),
        ("parses_with_body", "def f(x):\n    '''Doc.'''\n    return None", "f", 0.0),
        ("parses_with_body", "def f(x):\n    raise NotImplementedError", "f", 0.0),
        ("parses_with_body", "def f(x):\n    '''Doc.'''", "f", 0.0),
        ("passes_tests", "def f(x):\n    return x + 1", "assert f(1) == 2", 1.0),
        ("passes_tests", "def f(x):\n    return x", "assert f(1) == 2", 0.0),
    ],
)
def test_a_reward_is_what_it_says(reward: str, text: str, reference: str, score: float) -> None:
    assert list(VERIFIABLE[reward]([answer(text, reference)])) == [score]  # type: ignore[index]


def test_an_answer_that_was_cut_earns_nothing_even_if_it_parses() -> None:
    assert VERIFIABLE["parses"]([answer("def f(x):\n    return x", "f", ended=False)]) == [0.0]


def test_a_weighted_sum_keeps_its_parts() -> None:
    rewards = {"length": (0.5, lambda all_of: [len(one.text) for one in all_of]), "parses": (2.0, VERIFIABLE["parses"])}
    total, parts = weighted_sum(rewards, [answer("x = 1"), answer("def f():\n    return 1")])
    assert parts == {"length": [5.0, 21.0], "parses": [0.0, 1.0]} and total == [2.5, 12.5]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(0)", "ended early"),
        ("import os; os._exit(0)", "ended early"),
        ("open('/tmp/oops', 'w')", "PermissionError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import subprocess, sys; subprocess.run([sys.executable])", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("x = 'x' * 10**10", "MemoryError"),
        ("while True: pass", ""),
        ("def f(:", "SyntaxError"),
    ],
)
def test_code_that_fails_or_reaches_out_of_its_child_does_not_pass(source: str, why: str) -> None:
    ran = run_python(source, seconds=1)
    assert not ran.ok and why in ran.why


def test_code_that_is_fine_passes_and_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert run_python("import os, math\nassert 'SECRET' not in os.environ\nassert math.sqrt(4) == 2\nprint('é')").ok
