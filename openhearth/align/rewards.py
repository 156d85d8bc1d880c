"""Rewards for answers: functions that can be checked, a reward model, and weighted sums of these. Each gives one finite number per answer.

Code that a model wrote is only ever parsed here, or run in a child process of its own (`sandbox.py`).
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from openhearth.align import code
from openhearth.train.stopping import CannotGoOn


@dataclass(frozen=True)
class Answer:
    """What a reward looks at: the task, the answer's text and its token ids."""

    question: str
    reference: str
    """What was expected: the right answer, the name of the function, or the tests to pass; empty where there is none."""
    text: str
    prompt_ids: Sequence[int]
    ids: Sequence[int]
    ended: bool
    """Whether the answer came to its end by itself, and was not cut."""


Reward = Callable[[Sequence[Answer]], Sequence[float]]
"""Scores of answers, one each."""

Verifiable = Literal["exact_answer", "parses", "parses_with_body", "passes_tests"]


def exact_answer(answers: Sequence[Answer]) -> list[float]:
    """1 where the last number of the answer, or else the whole text, equals that of the reference."""
    return [float(_final(answer.text) == _final(answer.reference)) for answer in answers]


def _final(text: str) -> str:
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
    return format(float(numbers[-1]), "g") if numbers else " ".join(text.split())


def parses(answers: Sequence[Answer]) -> list[float]:
    """1 where the answer ended by itself, parses as Python and defines a function with a body: what `hearth evaluate` counts."""
    return [float(answer.ended and any(code.has_body(node) for node in code.defined(answer.text))) for answer in answers]


def parses_with_body(answers: Sequence[Answer]) -> list[float]:
    """`parses`, and the function is the one that was asked for (`reference`) and is not trivial: so that `pass` earns nothing."""
    return [
        float(
            answer.ended
            and any(node.name == answer.reference and code.has_body(node) and not is_trivial(node) for node in code.defined(answer.text))
        )
        for answer in answers
    ]


def is_trivial(node: code.Definition) -> bool:
    """Whether all that a function does besides its docstring is one `pass`, `...`, constant, `return` of a constant, or `raise`."""
    rest = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if len(rest) > 1:
        return False
    only = rest[0] if rest else None
    return (
        only is None
        or isinstance(only, ast.Pass | ast.Raise)
        or (isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant))
        or (isinstance(only, ast.Return) and (only.value is None or isinstance(only.value, ast.Constant)))
    )


def passes_tests(answers: Sequence[Answer]) -> list[float]:
    """1 where the answer, followed by the tests in `reference`, runs to its end in a child process with limits."""
    from openhearth.align.sandbox import run_python

    return [float(run_python(f"{answer.text}\n\n{answer.reference}\n").ok) for answer in answers]


VERIFIABLE: Mapping[Verifiable, Reward] = {
    "exact_answer": exact_answer,
    "parses": parses,
    "parses_with_body": parses_with_body,
    "passes_tests": passes_tests,
}


def checked(name: str, reward: Reward, answers: Sequence[Answer]) -> list[float]:
    """The scores of `reward`; raises CannotGoOn naming it and the answer when it raises, gives too few or a number that is not finite."""
    try:
        scores = [float(score) for score in reward(answers)]
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise CannotGoOn(f"the reward '{name}' raised {type(error).__name__}: {said}; mend it and type the same command again") from error
    if len(scores) != len(answers):
        raise CannotGoOn(f"the reward '{name}' gave {len(scores)} scores for {len(answers)} answers; it must give one for each")
    for number, score in enumerate(scores):
        if not math.isfinite(score):
            raise CannotGoOn(f"the reward '{name}' gave {score} for the answer {answers[number].text[:60]!r}; it must give a finite number")
    return scores


def weighted_sum(rewards: Mapping[str, tuple[float, Reward]], answers: Sequence[Answer]) -> tuple[list[float], dict[str, list[float]]]:
    """The sum of weight x score over named rewards, and each one's scores by name."""
    parts = {name: checked(name, reward, answers) for name, (_, reward) in rewards.items()}
    total = [sum(weight * parts[name][row] for name, (weight, _) in rewards.items()) for row in range(len(answers))]
    return total, parts
