"""A provider on loopback that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from orchestrator.http.limits import Limits

QUICK = Limits(connect_s=2, read_s=2, wait_s=2, total_s=4, backoff_s=0.01, failed_s=0)


@dataclass
class Reply:
    """What the provider's server sends: a JSON document, or bytes as they are."""

    document: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drip_s: float = 0.0
    """Seconds between the bytes of the body."""
    silence_s: float = 0.0
    """Seconds before the first byte."""
    cut_after: int | None = None
    """Bytes of the body that are sent before the connection is reset; the length of the whole is promised."""
    reset: bool = False
    """Reset the connection in place of an answer."""


@dataclass
class Asked:
    """One request as it came."""

    path: str
    params: dict[str, str]
    headers: dict[str, str]


class ProviderServer:
    """A provider on loopback: it answers as it is told, by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: dict[str, Callable[[Asked], Reply]] = {}
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                parts = urlsplit(self.path)
                asked = Asked(parts.path, dict(parse_qsl(parts.query)), dict(self.headers))
                outer.asked.append(asked)
                reply = outer.reply(asked)
                outer.stopping.wait(reply.silence_s)
                if reply.reset:
                    return self._reset()
                body = json.dumps(reply.document).encode() if reply.body is None else reply.body
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if reply.cut_after is not None:
                    self.wfile.write(body[: reply.cut_after])
                    return self._reset()
                for piece in [body[n : n + 1] for n in range(len(body))] if reply.drip_s else [body]:
                    try:
                        self.wfile.write(piece)
                    except OSError:
                        return
                    if outer.stopping.wait(reply.drip_s):
                        return

            def _reset(self) -> None:
                """Ends the connection as a server does that crashes: with RST in place of FIN."""
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.005})
        self._thread.start()

    def on(self, path: str, *replies: Reply) -> None:
        """Answer paths that end so with these replies in order, the last of them for good."""
        left = list(replies)
        self.replies[path] = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    def reply(self, asked: Asked) -> Reply:
        """What is answered to a question: the longest end of its path that was told decides."""
        for end in sorted(self.replies, key=len, reverse=True):
            if f"/{asked.path.lstrip('/')}".endswith(f"/{end}"):
                return self.replies[end](asked)
        return Reply({"message": "no Route matched with those values"}, 404)

    def asked_of(self, path: str) -> list[Asked]:
        """The questions whose path ends so, in order."""
        return [asked for asked in self.asked if asked.path.endswith(f"/{path}")]

    def count(self, path: str) -> int:
        return len(self.asked_of(path))

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
