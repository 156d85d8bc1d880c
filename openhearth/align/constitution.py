"""A constitution: principles in words, and the exact text that a model reads when it is asked to apply one.

A principle asks for a critique of a response, for a revision of it, and for a choice between two responses (Bai et al. 2022,
arXiv:2212.08073, sections 3.1 and 4.1). Each of the three is put into a template, so that the words of a principle are apart from the
words around them. The default templates are those of Anthropic's published prompts, byte for byte. No torch here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

from openhearth.ledger import digest_json

HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
"""How turns begin in the paper's transcripts."""

Message = Mapping[str, str]
"""{"role": "user" | "assistant", "content": text}; the same as a message of the chat format."""

CONCLUDE = "So the answer is:"
"""What a judge is asked after its thought (the paper's few-shot prompts end so)."""

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

TEMPLATES = {
    "critique": "\n\nCritiqueRequest: {principle}\n\nCritique:",
    "revision": "\n\nRevisionRequest: {principle}\n\nRevision:",
    "comparison": (
        "\n\nConsider the following conversation between a human and an assistant:{conversation}"
        "\n\n\n{principle} Options:\n (A) [[[{a}]]]\n (B) [[[{b}]]]\n\nThe answer is:"
    ),
    "thought": (
        "Consider the following conversation between a human (H) and an assistant (A):{conversation}"
        "\n\n{principle}\n (A) [[[{a}]]]\n (B) [[[{b}]]]"
    ),
}
"""Bai et al. 2022, section 3.1 and appendix; `thought` is the question before a chain of thought."""

PLACEHOLDERS: dict[str, tuple[str, ...]] = {
    "critique": ("principle",),
    "revision": ("principle",),
    "comparison": ("conversation", "principle", "a", "b"),
    "thought": ("conversation", "principle", "a", "b"),
}
"""What each template must hold, once."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Example(_Record):
    """One worked critique and revision: shown to a model before the real one, and used by a dry run."""

    prompt: str = Field(min_length=1)
    """What the human says."""
    response: str = Field(min_length=1)
    """What the assistant answers at first."""
    critique: str = ""
    """The critique that a good reader writes; empty where nobody wrote one."""
    revision: str = ""
    """The answer after the critique; empty where nobody wrote one."""


class Test(_Record):
    """Two answers of which the principle prefers the first: what a judge who applies it must find."""

    __test__ = False  # not a test of pytest's

    prompt: str = Field(min_length=1)
    """What the human says."""
    better: str = Field(min_length=1)
    """The answer that the principle prefers."""
    worse: str = Field(min_length=1)
    """The other answer."""


class Principle(_Record):
    """One principle. It may critique and revise, compare, or both."""

    id: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its name, which preference rows and transcripts carry."""
    critique: str = ""
    """What to look for in a response; asks for a critique."""
    revision: str = ""
    """How to rewrite the response."""
    comparison: str = ""
    """Which of two responses to choose."""
    examples: tuple[Example, ...] = ()
    """Worked critiques and revisions."""
    tests: tuple[Test, ...] = ()
    """Pairs of answers with the better one first."""


class Templates(_Record):
    """The text around a principle; `{name}` marks where something goes."""

    critique: str = TEMPLATES["critique"]
    """Around a critique request. Holds {principle}."""
    revision: str = TEMPLATES["revision"]
    """Around a revision request. Holds {principle}."""
    comparison: str = TEMPLATES["comparison"]
    """The question which of two responses is better. Holds {conversation}, {principle}, {a} and {b}."""
    thought: str = TEMPLATES["thought"]
    """The same question when a judge is to think first. Holds {conversation}, {principle}, {a} and {b}."""
    choices: tuple[str, str] = (" (A)", " (B)")
    """What the judge answers for the first and for the second response."""


class Constitution(_Record):
    """Principles and the text around them. Equal constitutions have equal digests."""

    name: str = Field(min_length=1, max_length=64)
    """What to call it."""
    description: str = ""
    """What it is for."""
    templates: Templates = Templates()
    """The text around a principle."""
    principles: tuple[Principle, ...] = Field(min_length=1)
    """The principles, in order."""
    few_shot: tuple[str, ...] = ()
    """Whole transcripts put before a critique, as in the paper's CritiqueRevisionFewShotPrompts."""

    @property
    def digest(self) -> str:
        """sha256 of the content."""
        return digest_json(self.model_dump(mode="json"))

    @cached_property
    def critics(self) -> tuple[Principle, ...]:
        """The principles that critique and revise."""
        return tuple(each for each in self.principles if each.critique and each.revision)

    @cached_property
    def judges(self) -> tuple[Principle, ...]:
        """The principles that compare."""
        return tuple(each for each in self.principles if each.comparison)

    def principle(self, name: str) -> Principle:
        """The principle with an id; raises KeyError."""
        return next(each for each in self.principles if each.id == name)

    def critique_request(self, principle: Principle) -> str:
        """The request for a critique, as the model reads it."""
        return fill(self.templates.critique, principle=principle.critique)

    def revision_request(self, principle: Principle) -> str:
        """The request for a revision, as the model reads it."""
        return fill(self.templates.revision, principle=principle.revision)

    def comparison_request(self, principle: Principle, conversation: Sequence[Message], a: str, b: str) -> str:
        """The question which of two answers to the conversation is better; the judge goes on with one of `templates.choices`."""
        shown = transcript(conversation)
        return fill(self.templates.comparison, conversation=shown, principle=principle.comparison, a=a.strip(), b=b.strip())

    def thought_request(self, principle: Principle, conversation: Sequence[Message], a: str, b: str) -> str:
        """The same question for a judge that thinks before it answers."""
        shown = transcript(conversation).replace(HUMAN, "\n\nH:").replace(ASSISTANT, "\n\nA:")
        return fill(self.templates.thought, conversation=shown, principle=principle.comparison, a=a.strip(), b=b.strip())

    def thinking_turns(self, principle: Principle, conversation: Sequence[Message], a: str, b: str) -> list[Message]:
        """The question as a chat model reads it when it is to think first; after its thought comes `CONCLUDE`."""
        asked = self.thought_request(principle, conversation, a, b).strip()
        return [_turn("user", f"{asked}\n\nLet's think step by step.")]

    def critique_turns(self, conversation: Sequence[Message], response: str, principle: Principle) -> list[Message]:
        """The conversation as a chat model reads it when it is to write a critique of `response`."""
        asked = _turn("user", self.critique_request(principle).strip())
        return [*conversation, _turn("assistant", response), asked]

    def revision_turns(self, conversation: Sequence[Message], response: str, principle: Principle, critique: str) -> list[Message]:
        """The same, after the critique, when it is to write the revision."""
        asked = _turn("user", self.revision_request(principle).strip())
        return [*self.critique_turns(conversation, response, principle), _turn("assistant", critique), asked]

    def critique_text(self, conversation: Sequence[Message], response: str, principle: Principle) -> str:
        """What a plain language model reads when it is to write a critique: transcript, then request, as in the paper's samples."""
        return transcript([*conversation, _turn("assistant", response.strip())]) + self.critique_request(principle)

    def revision_text(self, conversation: Sequence[Message], response: str, principle: Principle, critique: str) -> str:
        """The same, after the critique."""
        said = " " + critique.strip()
        return self.critique_text(conversation, response, principle) + said + self.revision_request(principle)


def fill(template: str, **values: str) -> str:
    """`template` with each `{name}` replaced, in one pass: what is put in is never searched for placeholders."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), template)


def placeholders(template: str) -> list[str]:
    """The names in braces, in order."""
    return _PLACEHOLDER.findall(template)


def transcript(conversation: Sequence[Message]) -> str:
    """'\\n\\nHuman: ...\\n\\nAssistant: ...': a conversation as the paper's files write it."""
    return "".join((HUMAN if each["role"] == "user" else ASSISTANT) + " " + each["content"] for each in conversation)


def conversation_of(text: str) -> list[Message]:
    """The turns of a transcript; an assistant's header that nothing follows is left out. The inverse of `transcript`."""
    pieces = re.split(r"\n\n(Human|Assistant):", text)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return [_turn(roles[name], said.removeprefix(" ")) for name, said in turns if said.strip()]


def drawn(principles: Sequence[Principle], seed: int, *about: object) -> Principle:
    """One principle, each as likely as the others, by a keyed hash: what is drawn for one prompt does not depend on the others."""
    key = hashlib.blake2b("\0".join(map(str, (seed, *about))).encode(), digest_size=8).digest()
    return principles[int.from_bytes(key, "little") * len(principles) >> 64]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}
