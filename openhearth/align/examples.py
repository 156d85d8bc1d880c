"""Instruction examples drawn from the corpus itself, with no model and no network: a question, and an answer that people wrote.

A function is asked for by name, signature and docstring and answered with its code; a language topic is answered with its text,
a module with what its documentation says it does; for any other text the assistant continues a passage. Documents are taken in the
order of a keyed hash and only as many are read as needed. Every candidate is either kept or dropped by one named rule, and counted.
An example for training is dropped when its answer, or what it asks for, also stands in a held-out document.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from openhearth.align import chat, code
from openhearth.errors import DamagedError

Kind = Literal["function", "topic", "reference", "continue"]

CHARACTERS_PER_TOKEN = 16
"""A candidate with more characters than this for each position of the window is too long without being encoded."""
BLOCK = 65_536
"""Characters; longer prose is read in blocks of about this size, in keyed order, so that one book does not come first whole."""
SHORTEST_PARAGRAPH = 64
"""Characters; shorter paragraphs (headings, stock phrases) are neither compared with the held-out text nor an answer about a topic."""

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
REFERENCE_QUESTIONS = (
    "What does the Python module `{title}` do?",
    "What is the module `{title}` for?",
    "Describe the Python module `{title}`.",
)
CONTINUE_QUESTIONS = ("Continue this text:\n\n{opening}", "How does this text go on?\n\n{opening}", "Write on from here:\n\n{opening}")


@dataclass(frozen=True)
class Example:
    """One question and its answer, and both as the model sees them."""

    kind: Kind
    doc_id: str
    name: str
    """The function, the topic or the module asked for; empty for a continuation."""
    question: str
    answer: str
    opening: str
    """How the answer begins: decorators, header and docstring of a function; the text to continue; else empty."""
    ids: list[int]
    mask: list[bool]
    """True on the ids the loss is taken on."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


@dataclass(frozen=True)
class Limits:
    """When to stop reading documents; None is no limit. The document at which a limit is reached is read to its end."""

    examples: int | None = None
    tokens: int | None = None

    def reached(self, examples: int, tokens: int) -> bool:
        return (self.examples is not None and examples >= self.examples) or (self.tokens is not None and tokens >= self.tokens)


@dataclass
class Examples:
    """What was kept, in keyed order, and what was not: `candidates` = sum of `kept` + sum of `dropped`."""

    kept: list[Example] = field(default_factory=list)
    candidates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    documents: Counter[str] = field(default_factory=Counter)
    """Documents of the split: read, not valid Python, not read because a limit was reached."""

    @property
    def rendered(self) -> list[tuple[list[int], list[bool]]]:
        """(ids, loss mask) of every example, as `packing.pack` takes them."""
        return [(example.ids, example.mask) for example in self.kept]

    def counts(self) -> dict[str, Any]:
        """The record for `examples.json`."""
        kinds = Counter(example.kind for example in self.kept)
        return {
            "documents": dict(sorted(self.documents.items())),
            "candidates": self.candidates,
            "kept": dict(sorted(kinds.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "tokens": sum(len(example.ids) for example in self.kept),
            "learned_tokens": sum(sum(example.mask) for example in self.kept),
        }


@dataclass(frozen=True)
class _Candidate:
    kind: Kind
    name: str
    question: str
    answer: str
    opening: str = ""
    subject: str = ""
    """What is asked for, without the wording of the question."""
    rule: str = ""
    """Why it cannot be an example, when that is known from the text alone."""


def read_documents(path: Path) -> pa.Table:
    """The columns of a corpus's `documents.parquet` that examples are made of; raises DamagedError naming the file."""
    try:
        return pq.read_table(path, columns=["doc_id", "split", "kind", "uri", "text"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DamagedError(f"{path}: not readable as the documents of a corpus ({str(error).splitlines()[0]})") from None


def is_python(kind: str, uri: str) -> bool:
    """True for documents whose text is Python source."""
    return kind == "module" or (kind == "text" and uri.split("#")[0].endswith(".py"))


def make_examples(
    documents: pa.Table,
    split: Literal["train", "heldout"],
    tokenizer: chat.ChatTokenizer,
    sequence_length: int,
    limits: Limits,
    seed: int,
) -> Examples:
    """Examples from the documents of `split`, each of at most `sequence_length` + 1 tokens (packing shifts inputs against targets).

    The same documents, tokenizer, limits and seed give the same examples in the same order.
    """
    made, tokens = Examples(), 0
    seen: set[bytes] = set()
    held_out = _held_out_pieces(documents) if split == "train" else frozenset()
    rows = [row for row, value in enumerate(documents["split"].to_pylist()) if value == split]
    ids = documents["doc_id"].to_pylist()
    rows.sort(key=lambda row: _key(seed, "document", ids[row]))
    for place, row in enumerate(rows):
        if limits.reached(len(made.kept), tokens):
            made.documents["not read, there are enough examples"] = len(rows) - place
            break
        kind, uri, text = (documents[column][row].as_py() for column in ("kind", "uri", "text"))
        choose = _chooser(seed, ids[row])
        if is_python(kind, uri):
            tree = code.parse(text)
            made.documents["read" if tree else "not valid Python"] += 1
            found = _functions(code.functions(tree, text), choose) if tree else iter(())
        else:
            made.documents["read"] += 1
            found = _prose(kind, uri, text, tokenizer, sequence_length, choose)
        for candidate in found:
            made.candidates += 1
            kept = _keep(candidate, ids[row], tokenizer, sequence_length, seen, held_out)
            if isinstance(kept, str):
                made.dropped[kept] += 1
            else:
                made.kept.append(kept)
                tokens += len(kept.ids)
                if candidate.kind == "continue" and limits.reached(len(made.kept), tokens):
                    break
    made.kept.sort(key=lambda example: _key(seed, "example", example.question + "\0" + example.answer))
    return made


def _keep(
    candidate: _Candidate, doc_id: str, tokenizer: chat.ChatTokenizer, sequence_length: int, seen: set[bytes], held_out: frozenset[bytes]
) -> Example | str:
    """The candidate as an example, or the rule by which it is dropped."""
    if candidate.rule:
        return candidate.rule
    if len(candidate.question) + len(candidate.answer) > CHARACTERS_PER_TOKEN * sequence_length:
        return "too long for the window"
    if candidate.kind == "function":
        tree = code.parse(candidate.answer)
        if tree is None or len(tree.body) != 1:
            return "not valid Python by itself"
        pieces = [_digest(candidate.answer), _digest(candidate.subject)]
    else:
        pieces = _paragraphs(candidate.opening) + _paragraphs(candidate.answer)
    if not held_out.isdisjoint(pieces):
        return "also in a held-out document"
    identity = _digest(candidate.subject + "\0" + candidate.answer)
    if identity in seen:
        return "duplicate"
    messages = [{"role": "user", "content": candidate.question}, {"role": "assistant", "content": candidate.answer}]
    ids, mask = chat.render(messages, tokenizer)
    if len(ids) > sequence_length + 1:
        return "too long for the window"
    seen.add(identity)
    return Example(candidate.kind, doc_id, candidate.name, candidate.question, candidate.answer, candidate.opening, ids, mask)


# -- keys and digests -------------------------------------------------------------------------------------------------------


def _key(seed: int, purpose: str, text: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{purpose}:{text}".encode(errors="surrogatepass"), digest_size=8).digest()


def _chooser(seed: int, doc_id: str) -> Callable[[tuple[str, ...], str], str]:
    """A function that picks one of several wordings for a piece of a document."""
    return lambda options, what: options[int.from_bytes(_key(seed, doc_id, what), "little") % len(options)]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.strip().encode(errors="surrogatepass"), digest_size=16).digest()


def _paragraphs(text: str) -> list[bytes]:
    """Digests of the paragraphs that are long enough to tell texts apart, white space made equal."""
    joined = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return [_digest(paragraph) for paragraph in joined if len(paragraph) >= SHORTEST_PARAGRAPH]


def _held_out_pieces(documents: pa.Table) -> frozenset[bytes]:
    """Digests of what training may not show: functions and what they are asked by, and paragraphs of prose."""
    pieces: set[bytes] = set()
    for row, split in enumerate(documents["split"].to_pylist()):
        if split != "heldout":
            continue
        kind, uri, text = (documents[column][row].as_py() for column in ("kind", "uri", "text"))
        tree = code.parse(text) if is_python(kind, uri) else None
        if tree is None:
            pieces.update(_paragraphs(text))
            continue
        for function in code.functions(tree, text):
            if function is not None:
                pieces.update((_digest(function.code), _digest(_subject(function))))
    return frozenset(pieces)


# -- functions --------------------------------------------------------------------------------------------------------------


def _subject(function: code.Function) -> str:
    return f"{function.signature}\n{function.docstring}"


def _functions(found: Iterator[code.Function | None], choose: Callable[[tuple[str, ...], str], str]) -> Iterator[_Candidate]:
    for function in found:
        if function is None:
            yield _Candidate("function", "", "", "", rule="without a docstring")
            continue
        where = f" of the class `{function.owner}`" if function.owner else ""
        if function.decorators:
            where += ", decorated with " + " and ".join(f"`@{decorator}`" for decorator in function.decorators)
        what = "coroutine" if function.code.startswith("async ") else "method" if function.owner else "function"
        question = choose(FUNCTION_QUESTIONS, function.code).format(
            what=what,
            name=function.name,
            where=where,
            signature=function.signature,
            docstring=function.docstring,
            summary=re.split(r"\n\s*\n", function.docstring)[0],
        )
        yield _Candidate("function", function.name, question, function.code, function.opening, _subject(function))


# -- prose ------------------------------------------------------------------------------------------------------------------


def _prose(
    kind: str, uri: str, text: str, tokenizer: chat.ChatTokenizer, sequence_length: int, choose: Callable[[tuple[str, ...], str], str]
) -> Iterator[_Candidate]:
    if kind == "topic":
        for title, body in sections(text, uri):
            question = choose(TOPIC_QUESTIONS, title).format(title=_within_a_sentence(title))
            yield _cut(_Candidate("topic", title, question, body), tokenizer, sequence_length)
    elif kind == "reference":
        title = uri.rsplit("#")[-1].rsplit("/")[-1].removesuffix(".py")
        summary = "\n\n".join(re.split(r"\n\s*\n", text.strip())[:3])
        yield _cut(
            _Candidate("reference", title, choose(REFERENCE_QUESTIONS, title).format(title=title), summary), tokenizer, sequence_length
        )
    else:
        blocks = list(_blocks(text))
        for block in sorted(blocks, key=lambda block: _key(0, "block", block)):
            for opening, rest in passages(block, tokenizer, sequence_length):
                question = choose(CONTINUE_QUESTIONS, opening).format(opening=opening.strip())
                yield _Candidate(
                    "continue", "", question, rest.strip(), opening, opening, rule="" if rest.strip() else "too short to continue"
                )


def _within_a_sentence(title: str) -> str:
    return title[0].lower() + title[1:] if title.startswith(("The ", "A ", "An ")) else title


def sections(text: str, uri: str) -> Iterator[tuple[str, str]]:
    """(title, body) for each underlined heading with text below it; the whole text under the last part of `uri` if there is none."""
    found = re.split(r"(?m)^(\S.*)\n[*=\-~^\"]{3,}[ \t]*$", text)
    if len(found) == 1:
        found = ["", uri.rsplit("#")[-1].rsplit("/")[-1].replace("-", " "), text]
    for title, body in zip(found[1::2], found[2::2], strict=True):
        if body.strip():
            yield title.strip(), body.strip("\n")


def _cut(candidate: _Candidate, tokenizer: chat.ChatTokenizer, sequence_length: int) -> _Candidate:
    """The same candidate with as many whole paragraphs of its answer as fit into the window; left as it is when none does."""
    room = sequence_length - len(tokenizer.encode(candidate.question)) - 16  # markers, roles and line ends
    end = size = 0
    for paragraph in re.finditer(r"(?s).+?(?:\n\s*\n|\Z)", candidate.answer[: CHARACTERS_PER_TOKEN * sequence_length]):
        size += len(tokenizer.encode(paragraph[0]))
        if size > room:
            break
        end = paragraph.end()
    answer = candidate.answer[:end].rstrip() if end else candidate.answer
    rule = "too short to explain anything" if candidate.kind == "topic" and len(answer) < SHORTEST_PARAGRAPH else ""
    return _Candidate(candidate.kind, candidate.name, candidate.question, answer, subject=candidate.name, rule=rule)


def _blocks(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        newline = text.find("\n", start + BLOCK)
        end = newline + 1 if 0 <= newline < start + 2 * BLOCK else start + BLOCK
        yield text[start:end]
        start = end


def passages(text: str, tokenizer: chat.ChatTokenizer, sequence_length: int) -> Iterator[tuple[str, str]]:
    """(opening, rest) of consecutive passages that fill the window, cut between sentences; together they are the whole text.

    The opening is about a fifth of the passage, at least one sentence. A sentence too long for the window is an opening with the
    rest empty.
    """
    sentences = re.findall(r"(?s).+?(?:[.!?。！？…][\"'”’»)\]]*\s+|\n\s*\n|\n(?=\s*[-*#|>])|\Z)", text)
    room = sequence_length - 32  # markers, roles, line ends and the words of the question
    passage: list[str] = []
    sizes: list[int] = []
    for sentence in [*sentences, ""]:
        size = len(tokenizer.encode(sentence))
        if passage and (sum(sizes) + size > room or not sentence):
            opening = next((n for n in range(1, len(sizes)) if 5 * sum(sizes[:n]) >= sum(sizes)), 1)
            yield "".join(passage[:opening]), "".join(passage[opening:])
            passage, sizes = [], []
        if sentence:
            passage.append(sentence)
            sizes.append(size)
