"""`hearth chat` and `hearth generate`: a conversation in a terminal, and one answer to one prompt."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.errors import HearthError, nearest
from openhearth.serve.chat import Conversation
from openhearth.serve.loading import Checked, Opened, check_release, open_release
from openhearth.serve.terminal import harmless, lines, note, say, speaking

if TYPE_CHECKING:
    from openhearth.model.sampling import Sampling

HELP = """/reset          forget the conversation (the system message stays)
/system TEXT    set the system message for the whole conversation; without TEXT, remove it
/retry          answer the last message again, with other draws
/save FILE      write the conversation, the model's digest and the sampling as JSON
/help           this list
/quit           leave (so do Ctrl-C and Ctrl-D on an empty line)
Ctrl-C stops an answer and keeps what was said. A line that begins with a blank is always a message."""
COMMANDS = ("/reset", "/system", "/retry", "/save", "/help", "/quit")


def chat_command(
    folder: Path,
    system: str | None = None,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
) -> int:
    """Talk to the model in `folder` until the input ends; returns the exit status. Raises HearthError when it cannot be loaded."""
    sampling = _sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    opened = open_release(folder)
    conversation = Conversation(opened, sampling, system or "")
    with speaking() as person:
        if person:
            note(f"{_described(opened)}\n/help lists the commands; Ctrl-D leaves.")
        _talk(conversation, person)
    return 0


def _talk(conversation: Conversation, person: bool) -> None:
    refused = ""  # the file that the last /save did not dare to replace
    for line in lines(person):
        command, _, text = line.partition(" ")
        text = text.strip()
        if not line.strip():
            continue
        try:
            if not line.startswith("/"):
                conversation.tries = 0
                _answer(conversation, line.strip(), person)
            elif command == "/quit":
                return
            elif command == "/help":
                note(HELP)
            elif command == "/reset":
                conversation.reset()
                note("the conversation is forgotten")
            elif command == "/system":
                conversation.instruct(text)
                note("the system message is set" if text else "there is no system message now")
            elif command == "/retry":
                _answer(conversation, conversation.again(), person)
            elif command == "/save":
                if not text:
                    raise HearthError("give a file: /save FILE")
                again, refused = refused == text, text
                conversation.save(Path(text).expanduser(), replace_file=again)
                refused = ""
                note(f"{'replaced' if again else 'saved'}: {text}")
            else:
                raise HearthError(f"{command}: no such command{nearest(command, COMMANDS)}; /help lists them")
        except HearthError as error:
            note(str(error))


def _answer(conversation: Conversation, message: str, person: bool) -> None:
    """Show an answer as it comes; Ctrl-C ends it and keeps what was said."""
    left_out, kept = conversation.left_out, len(conversation.turns)
    pieces = conversation.answer(message)
    try:
        for number, piece in enumerate(pieces):
            if number == 0 and conversation.left_out != left_out:
                note(f"(the oldest {conversation.left_out} messages no longer fit the model's context and are left out)")
            say(piece)
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    finally:
        pieces.close()  # type: ignore[attr-defined]
    say("\n")
    if stopped:
        note("(stopped; what was said is kept)")
    if len(conversation.turns) == kept:
        note("(no answer; the message is not kept)")


def generate_command(
    folder: Path,
    prompt: str,
    base: bool = False,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    max_new_tokens: int = 256,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Print one answer to `prompt`, or with `base` its raw continuation without the chat format; returns the exit status."""
    sampling = _sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    checked = check_release(folder)
    ids = _prompt_ids(checked, prompt, base)
    opened = checked.load()
    from openhearth.model.generate import generate, stream

    with speaking():
        if json:
            (answer,) = generate(opened.model, opened.tokenizer, [ids], sampling)
            model = {"release": opened.folder.name, "root": opened.root}
            content = {"model": model, "sampling": asdict(sampling), "base": base, "prompt": prompt, **asdict(answer)}
            print(jsonlib.dumps(content, ensure_ascii=True))
            return 0
        try:
            for piece in stream(opened.model, opened.tokenizer, ids, sampling):
                say(piece)
        except KeyboardInterrupt:
            say("\n")
            return 130
        say("\n")
    return 0


def _sampling(**options: Any) -> Sampling:
    """The options of the command line, checked; an error names one as it is typed."""
    from openhearth.model.sampling import Sampling

    try:
        return Sampling(**options)
    except HearthError as error:
        name, said = str(error).split(" ", 1)
        raise HearthError(f"--{name.replace('_', '-')} {said}") from None


def _prompt_ids(checked: Checked, prompt: str, base: bool) -> list[int]:
    """The ids to go on from. Raises HearthError when they leave no room for an answer."""
    from openhearth.align import chat

    tokenizer, context = checked.tokenizer, checked.config.max_position_embeddings
    ids = [tokenizer.bos, *tokenizer.encode(prompt)] if base else chat.prompt([{"role": "user", "content": prompt}], tokenizer)
    if len(ids) >= context:
        around = "" if base else " with all that goes around it"
        raise HearthError(
            f"the prompt has {len(ids):,} tokens{around}; the model reads {context:,}, of which one must stay free for the answer: "
            f"{'give less of the text' if base else 'say it in fewer words'}"
        )
    return ids


def _described(opened: Opened) -> str:
    config = opened.model.config
    return harmless(
        f"{opened.folder}: {config.parameters:,} parameters, context {config.max_position_embeddings:,} tokens, root {opened.root[:16]}"
    )
