"""What a document offers as questions and answers, before anything is chosen: one kind of question for each kind of document.

A function is asked for by name, signature and docstring and answered with its code; a language topic is answered with its text,
a module with what its documentation says it does; of any other text the assistant continues a passage. The wording of a question is
chosen among a few by a keyed hash, so that the model does not learn one sentence by heart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from openhearth.align import chat, code

Kind = Literal["function", "topic", "reference", "continue"]

CHARACTERS_PER_TOKEN = 16
"""Text with more characters than this for each position of the window cannot fit, and is not encoded to find that out."""
BLOCK = 65_536
"""Characters; longer prose is read in blocks of about this size, in keyed order, so that one book does not come first whole."""
SHORTEST_ANSWER = 64
"""Characters; a topic with less to say than this is no answer."""

FUNCTION_QUESTIONS = (
    "Write a Python {what} `{signature}`{where}.\n\n{summary}",
    "Write a Python {what} `{signature}`{where}. Its docstring:\n\n{docstring}",
    "Implement the {what} `{name}`{where} in Python.\n\nSignature: `{signature}`\n\n{docstring}",
    "I need a Python {what} named `{name}`{where}, with the signature `{signature}`. {summary}",
)
TOPIC_QUESTIONS = (
    "Explain {title} in Python.",
    "Tell me about {title} in Python.",
    "What should I know about {title} in Python?",
    "What does the Python documentation say about {title}?",
)
DEFINITE_TOPIC_QUESTIONS = ("What is {title} in Python?", *TOPIC_QUESTIONS)
REFERENCE_QUESTIONS = (
    "What does the Python module `{title}` do?",
    "What is the module `{title}` for?",
    "Describe the Python module `{title}`.",
)
CONTINUE_QUESTIONS = ("Continue this text:\n\n{opening}", "How does this text go on?\n\n{opening}", "Write on from here:\n\n{opening}")


@dataclass(frozen=True)
class Candidate:
    """A question and an answer that may become an example."""

    kind: Kind
    name: str
    """The function, the topic or the module asked for; empty for a continuation."""
    question: str
    answer: str
    opening: str = ""
    """How the answer begins: decorators, header and docstring of a function; the text to continue; else empty."""
    subject: str = ""
    """What is asked for, without the wording of the question."""
    rule: str = ""
    """Why it cannot be an example, when that is known from the text alone."""


@dataclass(frozen=True)
class Window:
    """What must fit: `sequence_length` positions in the ids of `tokenizer`; and the key by which wordings are chosen."""

    tokenizer: chat.ChatTokenizer
    sequence_length: int
    key: str

    def tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def word(self, options: tuple[str, ...], what: str) -> str:
        """One of several wordings, always the same for the same piece of the same document."""
        return options[int.from_bytes(keyed(self.key, what), "little") % len(options)]


def keyed(key: str, text: str) -> bytes:
    """A keyed hash, to choose and to order by."""
    return hashlib.blake2b(f"{key}:{text}".encode(errors="surrogatepass"), digest_size=8).digest()


def is_python(kind: str, uri: str) -> bool:
    """True for documents whose text is Python source; a long file of one's own is a few documents, `a.py#1`, `a.py#2`, ..."""
    return kind == "module" or (kind == "text" and uri.split("#")[0].endswith((".py", ".py.gz", ".py.zst")))


def from_document(kind: str, uri: str, text: str, window: Window) -> tuple[Iterator[Candidate], bool]:
    """Everything that a document offers, and whether it could be read as what it is (false: Python that does not parse).

    Own Python that does not parse, or has no docstring anywhere, is continued like any other text.
    """
    if is_python(kind, uri):
        found = code.parse_piece(text)
        candidates = list(_functions(code.functions(*found), window)) if found else []
        if kind == "module" or any(not candidate.rule for candidate in candidates):
            return iter(candidates), found is not None
        return _continuations(text, window), found is not None
    if kind == "topic":
        return _topics(uri, text, window), True
    if kind == "reference":
        return _reference(uri, text, window), True
    return _continuations(text, window), True


def subject_of(function: code.Function) -> str:
    """What a function is asked for by."""
    return f"{function.signature}\n{function.docstring}"


def _functions(found: Iterator[code.Function | None], window: Window) -> Iterator[Candidate]:
    for function in found:
        if function is None:
            yield Candidate("function", "", "", "", rule="without a docstring")
            continue
        where = f" of the class `{function.owner}`" if function.owner else ""
        if function.decorators:
            where += ", decorated with " + " and ".join(f"`@{decorator}`" for decorator in function.decorators)
        question = window.word(FUNCTION_QUESTIONS, function.code).format(
            what="coroutine" if function.code.startswith("async ") else "method" if function.owner else "function",
            name=function.name,
            where=where,
            signature=function.signature,
            docstring=function.docstring,
            summary=paragraphs(function.docstring)[0],
        )
        yield Candidate("function", function.name, question, function.code, function.opening, subject_of(function))


def paragraphs(text: str) -> list[str]:
    """The parts of `text` between blank lines, blank ones left out."""
    return [part for part in re.split(r"\n[^\S\n]*\n", text) if part.strip()]


# -- topics and modules -----------------------------------------------------------------------------------------------------


def _topics(uri: str, text: str, window: Window) -> Iterator[Candidate]:
    for title, body in sections(text, uri):
        definite = title.startswith("The ")
        question = window.word(DEFINITE_TOPIC_QUESTIONS if definite else TOPIC_QUESTIONS, title)
        question = question.format(title="the " + title[4:] if definite else title)
        candidate = _cut(Candidate("topic", title, question, body, subject=title), window)
        yield replace(candidate, rule="too short to explain anything") if len(candidate.answer) < SHORTEST_ANSWER else candidate


def sections(text: str, uri: str) -> Iterator[tuple[str, str]]:
    """(title, body) for each underlined heading with text below it; the whole text under the last part of `uri` if there is none."""
    found = re.split(r"(?m)^(\S.*)\n[*=\-~^\"]{3,}[ \t]*$", text)
    if len(found) == 1:
        found = ["", uri.rsplit("/")[-1].replace("-", " "), text]
    for title, body in zip(found[1::2], found[2::2], strict=True):
        if body.strip():
            yield title.strip(), body.strip("\n")


def _reference(uri: str, text: str, window: Window) -> Iterator[Candidate]:
    """A module's page is its name, what its docstring says, then its classes and functions: the docstring answers."""
    module = uri.rsplit("/")[-1]
    about: list[str] = []
    for paragraph in paragraphs(text.removeprefix(f"# {module}")):
        if re.match(r"(?:class|def|async def) \w", paragraph):
            break
        about.append(paragraph.strip("\n"))
    question = window.word(REFERENCE_QUESTIONS, module).format(title=module)
    candidate = Candidate("reference", module, question, "\n\n".join(about[:3]), subject=module)
    yield _cut(candidate, window) if about else replace(candidate, rule="nothing said about the module")


def _cut(candidate: Candidate, window: Window) -> Candidate:
    """The same candidate with as many whole paragraphs of its answer as fit into the window; left as it is when none does."""
    room = window.sequence_length - window.tokens(candidate.question) - 16  # markers, roles and line ends
    end = size = 0
    for paragraph in re.finditer(r"(?s).+?(?:\n\s*\n|\Z)", candidate.answer[: CHARACTERS_PER_TOKEN * window.sequence_length]):
        size += window.tokens(paragraph[0])
        if size > room:
            break
        end = paragraph.end()
    return replace(candidate, answer=candidate.answer[:end].rstrip()) if end else candidate


# -- any other text ---------------------------------------------------------------------------------------------------------


def _continuations(text: str, window: Window) -> Iterator[Candidate]:
    for block in sorted(_blocks(text), key=lambda block: keyed(window.key, block)):
        for opening, rest in passages(block, window):
            question = window.word(CONTINUE_QUESTIONS, opening).format(opening=opening.strip())
            rule = "" if rest.strip() and opening.strip() else "too short to continue"
            yield Candidate("continue", "", question, rest.strip(), opening, opening, rule)


def _blocks(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        newline = text.find("\n", start + BLOCK)
        end = newline + 1 if 0 <= newline < start + 2 * BLOCK else start + BLOCK
        yield text[start:end]
        start = end


def passages(text: str, window: Window) -> Iterator[tuple[str, str]]:
    """(opening, rest) of consecutive passages that fill the window, cut between sentences; together they are the whole text.

    The opening is about a fifth of the passage, at least one sentence; where that is the whole passage, the rest is empty.
    """
    room = max(3, window.sequence_length - 32)  # markers, roles, line ends and the words of the question
    passage: list[str] = []
    sizes: list[int] = []
    for sentence, size in [*_sentences(text, window, room // 3), ("", 0)]:
        if passage and (sum(sizes) + size > room or not sentence):
            opening = next((n for n in range(1, len(sizes)) if 5 * sum(sizes[:n]) >= sum(sizes)), 1)
            yield "".join(passage[:opening]), "".join(passage[opening:])
            passage, sizes = [], []
        if sentence:
            passage.append(sentence)
            sizes.append(size)


def _sentences(text: str, window: Window, most: int) -> Iterator[tuple[str, int]]:
    """`text` in sentences or paragraphs with their tokens; those of more than `most` tokens in lines, and longer lines in words."""
    for sentence in re.findall(r"(?s).+?(?:[.!?…][\"'”’»)\]]*\s+|[。！？][”’」』）]*\s*|\n\s*\n|\n(?=\s*[-*#|>])|\Z)", text):
        size = window.tokens(sentence)
        if size <= most:
            yield sentence, size
            continue
        for line in sentence.splitlines(keepends=True):
            size = window.tokens(line)
            if size <= most:
                yield line, size
                continue
            longest = max(1, len(line) * most // (2 * size))  # characters, so that about half of `most` is used
            for words in re.findall(rf"(?s).{{1,{longest}}}(?:(?<=\s)|\Z)|.{{1,{longest}}}", line):
                yield words, window.tokens(words)
