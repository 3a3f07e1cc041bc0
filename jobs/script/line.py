"""The line between a worker and the script that it started: one question, one answer, over a local socket.
In: what jobs/hook/lowtide.py asks in the script's process. Out: its questions, in order; answers back.
jobs.script.run answers them between two looks at the process.
"""

from __future__ import annotations

import json
import select
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any


class Line:
    """A socket that the script finds by its path; JSON, a message a line. One process talks at a time."""

    def __init__(self) -> None:
        self._home = tempfile.mkdtemp(prefix="lowtide-", dir="/tmp")  # a socket's path has 107 bytes at most
        self.path = str(Path(self._home) / "line")
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(self.path)
        self._door.listen(1)
        self._talk: socket.socket | None = None
        self._read = b""

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None where none comes in time."""
        while b"\n" not in self._read:
            source = self._talk or self._door
            if not select.select([source], [], [], timeout_s)[0]:
                return None
            if self._talk is None:
                self._talk, _ = self._door.accept()
                continue
            piece = self._receive(self._talk)
            if not piece:  # that process is gone, or became another program: the next one may call
                self._hang_up()
                return None
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def answer(self, reply: dict[str, Any]) -> None:
        """Answer the question that `next` returned; one who is gone does not hear it."""
        if self._talk is None:
            return
        try:
            self._talk.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            self._hang_up()

    def close(self) -> None:
        """Hang up, and remove the socket."""
        self._hang_up()
        self._door.close()
        shutil.rmtree(self._home, ignore_errors=True)

    @staticmethod
    def _receive(talk: socket.socket) -> bytes:
        try:
            return talk.recv(1 << 16)
        except ConnectionError:
            return b""

    def _hang_up(self) -> None:
        if self._talk is not None:
            self._talk.close()
        self._talk, self._read = None, b""
