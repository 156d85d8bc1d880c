"""A person at a terminal, or a program at a pipe: reading lines, writing text that cannot act on the terminal.

A model can produce any character. Those that move the cursor, recolour, rename the window or reverse the writing direction are
shown as visible signs, so that nothing a model says can hide or fake what a person sees.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}  # U+2400..: pictures of control characters
_VISIBLE[0x7F] = 0x2421
_HIDDEN = [*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_TABLE = {**_VISIBLE, **dict.fromkeys(_HIDDEN, 0xFFFD)}


def harmless(text: str) -> str:
    """`text` with every control character but newline and tab, and every change of writing direction, as a visible sign."""
    return text.translate(_TABLE)


def say(text: str) -> None:
    """Write a piece of an answer at once."""
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def note(text: str) -> None:
    """Write a line that is not the model's, to the standard error."""
    sys.stdout.flush()
    print(harmless(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def speaking() -> Iterator[bool]:
    """Prepare the streams for any character, and end quietly when whoever reads has gone. Gives whether a person is typing."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    person = sys.stdin.isatty() and sys.stdout.isatty()
    if person:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (importing it gives `input` editing and history)
    try:
        yield person
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains when it flushes at its end


def lines(person: bool) -> Iterator[str]:
    """The lines that are typed or piped in. Ctrl-D ends them; so does Ctrl-C on an empty line, and on others it clears the line."""
    while True:
        try:
            yield input("\nyou> ") if person else _piped()
        except EOFError:
            if person:
                print()
            return
        except KeyboardInterrupt:
            print()
            if not person or not _typed():
                return


def _piped() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _typed() -> str:
    """What stands on the line that Ctrl-C interrupted."""
    try:
        import readline
    except ImportError:
        return ""
    return readline.get_line_buffer()
