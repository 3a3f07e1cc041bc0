"""The script's process: started without a shell, its errors kept, ended with all that it started.
In: a command, a folder and an environment. Out: its exit code, and the last of what it wrote to stderr.
jobs.script.run looks at it ten times a second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from jobs.telling import telling

TAIL_BYTES = 16_384
"""Of stderr that is kept for the error."""
TAIL_LINES = 40
_DIES_WITH_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(137)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as fault:
    sys.exit(f"{sys.argv[2]}: {fault.strerror}")
"""
"""A worker that is killed takes its script along: PR_SET_PDEATHSIG, which prctl(2) keeps over exec."""


class Child:
    """One running script, leader of a process group of its own. Its stdout is ours; its stderr passes through here."""

    def __init__(self, command: Sequence[str], folder: str, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _DIES_WITH_US, str(os.getpid()), *command],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._tail = bytearray()
        self._reader = threading.Thread(target=self._pass_on, name="lowtide-stderr", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The script's process id, and its group's."""
        return self._process.pid

    def code(self) -> int | None:
        """Its exit code, the signal's number below zero; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the script and what it started to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the script and what it started, now."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing of it behind, and wait for it."""
        self.kill()
        self._process.wait()
        self._reader.join(5.0)

    def last_words(self) -> str:
        """The last lines of its stderr; of a line that was written over, as progress bars are, what stood last."""
        self._reader.join(5.0)
        lines = self._tail.decode(errors="replace").split("\n")
        shown = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines]
        return "\n".join([line for line in shown if line][-TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return  # all of them are gone

    def _pass_on(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as errors:
            while piece := os.read(errors.fileno(), 1 << 16):
                self._tail += piece
                del self._tail[:-TAIL_BYTES]
                os.write(2, piece)


def cause(code: int, last_words: str) -> str:
    """One line that says why a script ended: its last exception, else the last line that it wrote, else its code."""
    said = telling(last_words) or "it wrote nothing to stderr"
    if code >= 0:
        return f"exit code {code}: {said}"
    name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else str(-code)
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"{name}{hint}: {said}"
