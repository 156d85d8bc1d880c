"""Whoever writes and judges for a constitution, behind one protocol; and how a judgement becomes a preference label.

A back end answers conversations and chooses between two continuations of one. How sure a choice is comes from log-probabilities where the
back end has them and from votes where it has not; which of the two is recorded with every label. Each pair is judged in both orders and
the two are averaged, because judges prefer a place (Bai et al. 2022, section 4.1; Zheng et al. 2023, arXiv:2306.05685, section 3.4).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from openhearth.align.constitution import CONCLUDE, Constitution, Message, Principle, drawn
from openhearth.errors import HearthError
from openhearth.ledger import digest_json

Conversation = Sequence[Message]
Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True)
class Reply:
    """An answer of a back end, and what it took."""

    text: str
    tokens: int
    """Read and written."""
    cost: float = 0.0
    """USD; 0 for models that run here."""
    truncated: bool = False
    """Whether it ended because it was too long."""


@dataclass(frozen=True)
class Choice:
    """How a back end chose between two continuations."""

    first: float | None
    """Probability of the first, of the two alone; None when it named neither."""
    kind: Literal["logits", "votes"]
    raw: tuple[float, ...]
    """Log-probabilities of the first and of the second, or votes for the first, the second and neither."""
    tokens: int
    cost: float = 0.0


class Backend(Protocol):
    """A generator and judge: our own checkpoint, a Hugging Face folder or an endpoint."""

    @property
    def identity(self) -> str:
        """What a label says of who made it: digest of the weights, or address and model."""
        ...

    @property
    def flops_per_token(self) -> float:
        """Of a forward pass; 0 where that is not known."""
        ...

    def reply(self, conversations: Sequence[Conversation], *, seed: int, max_new_tokens: int, temperature: float = 1.0) -> list[Reply]:
        """One answer to each conversation, which ends with the user."""
        ...

    def choose(self, conversations: Sequence[Conversation], choices: tuple[str, str], *, seed: int) -> list[Choice]:
        """For each conversation how likely it goes on with the first of `choices` rather than with the second."""
        ...


def normalised(log_first: float, log_second: float) -> float:
    """exp(first) / (exp(first) + exp(second)), without overflow."""
    difference = log_second - log_first
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, and where they are from."""

    id: str
    split: str
    prompt: tuple[Message, ...]
    first: str
    second: str
    policy: str
    """Digest of the model that answered."""


@dataclass(frozen=True)
class Label:
    """A preference row: everything that is needed to know where a label came from, and to train on it."""

    id: str
    split: str
    prompt: tuple[Message, ...]
    first: str
    second: str
    label: float | None
    """Probability that the first is better; None when the judge named neither in either order."""
    principle: str
    constitution: str
    policy: str
    judge: str
    kind: str
    """'logits' or 'votes', and '+thought' when the judge thought before it answered."""
    forward: tuple[float, ...]
    """What the judge said with the first answer as (A): log-probabilities or votes."""
    backward: tuple[float, ...]
    """The same with the first answer as (B); still first, second."""
    order_gap: float | None
    """Probability of the first answer in the first order less that in the second: 0 for a judge without a favourite place."""
    clamp: tuple[float, float] | None
    seed: int
    tokens: int
    cost: float

    def row(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def label_pairs(
    judge: Backend,
    constitution: Constitution,
    pairs: Sequence[Pair],
    *,
    seed: int,
    thought: bool = False,
    clamp: tuple[float, float] | None = None,
    max_new_tokens: int = 256,
    principle: str | None = None,
) -> list[Label]:
    """A soft label for each pair, by a principle drawn for it (or by the one named), both orders averaged.

    With `thought` the judge reasons first ("Let's think step by step", section 4.1) and its probabilities, which are then near 0 or 1,
    may be clamped to `clamp`; the paper found 0.4 to 0.6 best. Raises HearthError for a clamp that is no interval in [0, 1].
    """
    if clamp is not None and not 0.0 <= clamp[0] <= clamp[1] <= 1.0:
        raise HearthError(f"clamp {clamp[0]} to {clamp[1]}: must be two numbers in [0, 1], the smaller first")
    if not constitution.judges:
        raise HearthError(f"constitution {constitution.name!r} has no principle with a comparison; nothing can be judged by it")
    principles = [constitution.principle(principle) if principle else drawn(constitution.judges, seed, "label", each.id) for each in pairs]
    forward = [_question(constitution, each, rule, False, thought) for each, rule in zip(pairs, principles, strict=True)]
    backward = [_question(constitution, each, rule, True, thought) for each, rule in zip(pairs, principles, strict=True)]
    spent = [(0, 0.0)] * (2 * len(pairs))
    questions: list[Conversation] = [*forward, *backward]
    if thought:
        thoughts = judge.reply(questions, seed=seed, max_new_tokens=max_new_tokens)
        spent = [(each.tokens, each.cost) for each in thoughts]
        questions = [
            [*asked, {"role": "assistant", "content": said.text}, {"role": "user", "content": CONCLUDE}]
            for asked, said in zip(questions, thoughts, strict=True)
        ]
    choices = judge.choose(questions, constitution.templates.choices, seed=seed)
    labels = []
    for number, (each, rule) in enumerate(zip(pairs, principles, strict=True)):
        one, other = choices[number], choices[number + len(pairs)]
        swapped = None if other.first is None else 1.0 - other.first
        known = [value for value in (one.first, swapped) if value is not None]
        label = sum(known) / len(known) if known else None
        if clamp is not None and label is not None:
            label = min(max(label, clamp[0]), clamp[1])
        labels.append(
            Label(
                **{name: getattr(each, name) for name in ("id", "split", "prompt", "first", "second", "policy")},
                label=label,
                principle=rule.id,
                constitution=constitution.digest,
                judge=judge.identity,
                kind=one.kind + ("+thought" if thought else ""),
                forward=one.raw,
                backward=(other.raw[1], other.raw[0], *other.raw[2:]),
                order_gap=one.first - swapped if one.first is not None and swapped is not None else None,
                clamp=clamp,
                seed=seed,
                tokens=one.tokens + other.tokens + spent[number][0] + spent[number + len(pairs)][0],
                cost=one.cost + other.cost + spent[number][1] + spent[number + len(pairs)][1],
            )
        )
    return labels


def _question(constitution: Constitution, pair: Pair, principle: Principle, swapped: bool, thought: bool) -> list[Message]:
    a, b = (pair.second, pair.first) if swapped else (pair.first, pair.second)
    if thought:
        return constitution.thinking_turns(principle, pair.prompt, a, b)
    return [{"role": "user", "content": constitution.comparison_request(principle, pair.prompt, a, b).strip()}]


def named(text: str, choices: tuple[str, str]) -> int | None:
    """Which of the two choices a text names: 0, 1, or None when it names neither or both. What follows 'answer is' counts first."""
    for part in (text.rpartition("answer is")[2], text):
        found = [bool(re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", part)) for bare in map(bare_choice, choices)]
        if sum(found) == 1:
            return found.index(True)
    return None


def bare_choice(choice: str) -> str:
    """'A' of ' (A)': what stands for the choice whatever is around it."""
    return choice.strip().strip("()[].: ") or choice.strip()


def identity_of(kind: str, **facts: Any) -> str:
    """'checkpoint:0123abcd...': a kind and the digest of what it is."""
    return f"{kind}:{digest_json(facts)}"
