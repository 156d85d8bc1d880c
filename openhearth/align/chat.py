"""ChatML as code: how a conversation becomes token ids, and which of them the model is taught to say.

    <|endoftext|><|im_start|>user
    What is a generator?<|im_end|>
    <|im_start|>assistant
    A function that yields.<|im_end|>

The markers are single ids put in by this module; what people write between them is always encoded as plain text, so that no
content can open or close a turn. `JINJA_TEMPLATE` is the same format for other tools, and a test proves that both give the same
ids. The loss is taken on what the assistant must produce by itself: its text and the marker that ends its turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from openhearth.data.tokenizer import END_OF_TEXT, IM_END, IM_START
from openhearth.errors import HearthError, nearest

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 4096

JINJA_TEMPLATE = (
    f"{{{{- '{END_OF_TEXT}' -}}}}"
    "{%- for message in messages -%}"
    f"{{{{- '{IM_START}' + message['role'] + '\\n' + message['content'] + '{IM_END}' + '\\n' -}}}}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{IM_START}assistant\\n' -}}}}{{%- endif -%}}"
)
"""The format as a chat template. Every tag eats the white space around it, so trim_blocks and lstrip_blocks change nothing."""

Message = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""


class ChatTokenizer(Protocol):
    """What the chat format needs of a tokenizer: its markers' ids, and text to ids with marker text as plain text."""

    bos: int
    im_start: int
    im_end: int

    def encode(self, text: str) -> list[int]: ...


def check(messages: Sequence[Message], last: str) -> None:
    """Raise HearthError unless `messages` are an optional system turn, then user and assistant in turn, ending with `last`."""
    if not messages:
        raise HearthError("the conversation is empty; give at least one message")
    if len(messages) > MAX_MESSAGES:
        raise HearthError(f"the conversation has {len(messages):,} messages, at most {MAX_MESSAGES:,} are allowed; leave out the oldest")
    before = None
    for number, message in enumerate(messages, 1):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise HearthError(f"message {number}: role {_shown(role)} is not known{nearest(str(role), ROLES)}; use one of {known}")
        if not isinstance(content, str):
            raise HearthError(f"message {number} ({role}): the content is not text but {type(content).__name__}; give a string")
        expected = "user" if before in (None, "system", "assistant") else "assistant"
        if role != expected and not (role == "system" and number == 1):
            where = "begin" if before is None else f"follow '{before}'"
            raise HearthError(
                f"message {number}: '{role}' cannot {where}; give an optional system message, then user and assistant in turn"
            )
        if role == "assistant" and not content.strip():
            raise HearthError(f"message {number}: the assistant's text is empty; give it some text or leave the turn out")
        before = role
    if before != last:
        raise HearthError(f"message {len(messages)}: the conversation must end with '{last}', not '{before}'")


def render(messages: Sequence[Message], tokenizer: ChatTokenizer) -> tuple[list[int], list[bool]]:
    """A whole conversation as ids and loss mask of equal length; the mask is true on the assistants' text and their <|im_end|>.

    The conversation must end with the assistant. Raises HearthError naming the message.
    """
    check(messages, last="assistant")
    ids, mask = [tokenizer.bos], [False]
    line_end = tokenizer.encode("\n")
    for message in messages:
        header, body = _turn(message, tokenizer)
        learned = message["role"] == "assistant"
        ids += [*header, *body, tokenizer.im_end, *line_end]
        mask += [False] * len(header) + [learned] * (len(body) + 1) + [False] * len(line_end)
    return ids, mask


def prompt(messages: Sequence[Message], tokenizer: ChatTokenizer) -> list[int]:
    """A conversation that ends with the user, as ids that end in the assistant's header: what the model is to continue."""
    check(messages, last="user")
    ids = [tokenizer.bos]
    line_end = tokenizer.encode("\n")
    for message in messages:
        header, body = _turn(message, tokenizer)
        ids += [*header, *body, tokenizer.im_end, *line_end]
    return [*ids, tokenizer.im_start, *tokenizer.encode("assistant\n")]


def _turn(message: Message, tokenizer: ChatTokenizer) -> tuple[list[int], list[int]]:
    """The ids before the loss may begin, and those after. An assistant's header is encoded alone, as `prompt` leaves it."""
    if message["role"] == "assistant":
        return [tokenizer.im_start, *tokenizer.encode("assistant\n")], tokenizer.encode(message["content"])
    return [tokenizer.im_start, *tokenizer.encode(f"{message['role']}\n{message['content']}")], []


def _shown(role: object) -> str:
    text = repr(role)
    return text if len(text) <= 40 else text[:37] + "..."
