"""Running Python that a model wrote: in a child process with limits on time, memory, files and processes, in an empty folder.

Limits, not a jail: the child runs as the same user, without our environment, with isolated imports, at most `seconds` of processor and
twice that of clock, half a gigabyte, and with sockets, subprocesses and writing calls refused by an audit hook.
That stops mistakes and the crude tricks that rewards invite; it does not stop an attacker who knows the interpreter. Run models that you
do not trust inside a container.
"""

from __future__ import annotations

import resource
import secrets
import subprocess
import sys
import tempfile
from dataclasses import dataclass

MEMORY_BYTES, FILE_BYTES = 512 * 2**20, 2**20

_GUARD = """
import os, sys
sys.stdout = open(os.devnull, "w")
def _refuse(event, args, _forbidden=frozenset({
    "socket.__new__", "socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate", "shutil.rmtree",
    "ctypes.dlopen", "pty.spawn", "os.putenv",
}), _read=0):
    if event in _forbidden:
        raise PermissionError(event + " is not allowed here")
    if event == "open" and isinstance(args[2], int) and args[2] & 3:
        raise PermissionError("writing files is not allowed here")
sys.addaudithook(_refuse)
del _refuse, sys, os
"""


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    ok: bool
    """It ran to its end by itself: exit status 0 within the limits."""
    why: str
    """'' or the last line of what went wrong."""


def run_python(source: str, seconds: int = 5) -> Ran:
    """Run `source` in a child and say how it ended. Never raises for what the source does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = secrets.token_hex(16)  # said last, so that an answer that exits early has not passed
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-"], stdin=subprocess.PIPE, stdout=said, stderr=errors,
            cwd=folder, env={}, preexec_fn=limit, start_new_session=True,
        )  # fmt: skip
        program = (
            f"{_GUARD}\nexec(compile({source.encode('utf-8', 'replace')!r}, 'answer', 'exec'), {{'__name__': '__main__'}})\n"
            f"__import__('os').write(1, b'{done}')\n"
        )
        try:
            child.communicate(program.encode(), timeout=2 * seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return Ran(False, f"took longer than {2 * seconds} seconds")
        said.seek(0)
        errors.seek(0)
        ok = child.returncode == 0 and said.read(FILE_BYTES).endswith(done.encode())
        last = errors.read(FILE_BYTES).decode("utf-8", "replace").strip().split("\n")[-1]
    return Ran(ok, "" if ok else last or f"ended early with status {child.returncode}")
