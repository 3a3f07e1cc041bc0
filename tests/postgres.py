"""A PostgreSQL server of the tests' own, of Debian's package, on a socket in a folder of its own.
In: initdb and postgres, installed. Out: a URL of a new database each time; the server can be restarted.
The fixtures of tests/unit/orchestrator run the store's tests on it beside SQLite.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

_READY_S = 60
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    # A zone that nobody else here is in, so that a time that comes back in the server's own shows.
    "timezone": "Asia/Kathmandu",
}


def program(name: str) -> Path | None:
    """Where a server program lies: on the path, else where Debian has the newest version; None where it is absent."""
    on_path = shutil.which(name)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return Path(on_path) if on_path else installed[-1] if installed else None


class Server:
    """A server whose files are gone when it is closed; PostgreSQL refuses root, so then another user runs it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lowtide-pg-"))
        self._user = _unprivileged() if os.getuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user, -1)
        self._numbers = count(1)
        as_made = ["--username=lowtide", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        assert self._run("initdb", f"--pgdata={self._data}", *as_made).wait() == 0, self._said
        self.start()

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _said(self) -> str:
        return (self.folder / "log").read_text()

    def url(self, database: str) -> str:
        """The URL of a database, as a site file names it."""
        return f"postgresql://lowtide@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self._server = self._run("postgres", "-D", str(self._data), "-k", str(self.folder), *settings)
        until_s = time.monotonic() + _READY_S
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self._server.poll() is None and time.monotonic() < until_s, self._said
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server at once; its connections break."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait()

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop()
        shutil.rmtree(self.folder)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new and empty database, which is gone afterwards."""
        name = f"site{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def schema(self) -> Iterator[str]:
        """The URL of a new and empty schema: to those in it like a database, and much sooner made."""
        name = f"site{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        try:
            yield f"{self.url('postgres')}&options=-csearch_path%3D{name}"
        finally:
            self.execute(f"SET lock_timeout = '10s'; DROP SCHEMA {name} CASCADE")

    def execute(self, statement: str) -> None:
        """Let the server's owner do something."""
        with psycopg.connect(host=str(self.folder), user="lowtide", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _run(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = program(name)
        assert path is not None
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        group = None if self._user is None else pwd.getpwuid(self._user).pw_gid
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [path, *arguments], cwd=self.folder, env=env, user=self._user, group=group,
                extra_groups=None if self._user is None else [], stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip


def _unprivileged() -> int:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise AssertionError("there is no user postgres or nobody to run PostgreSQL as")
