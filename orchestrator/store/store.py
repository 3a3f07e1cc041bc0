"""One store: opened, migrated, and read or written in short transactions.
In: a SQLAlchemy URL. Out: sessions; every failure of the database is one Unavailable.
The other modules of this package hold the queries; the controller is the one writer of facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from jobs.spec import Unavailable
from orchestrator.store.migrate import migrate

_BUSY_S = 30
"""How long a transaction waits for another process's."""


class Store:
    """The database of one site. Open it once a process; sessions are for one thread each."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, **_options(url))
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(lowtide_writes=True)
        with _translated(), self._writer.begin() as connection:
            migrate(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on a consistent snapshot; what it changes is not kept."""
        with _translated(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at its end, or not at all; writers wait for each other."""
        with _translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def _options(url: str) -> dict[str, Any]:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return {"pool_pre_ping": True}
    if parsed.database and parsed.database != ":memory:":
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise Unavailable(f"the state folder {Path(parsed.database).parent} cannot be made: {fault}") from None
    return {"connect_args": {"timeout": _BUSY_S, "check_same_thread": False}}


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # The driver's own transaction handling begins too late for a read-then-write; lowtide begins by itself.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: two that first read and then write would otherwise refuse each other.
    writes = connection.get_execution_options().get("lowtide_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DBAPIError as fault:
        raise Unavailable(f"the store does not answer: {fault.orig}") from fault
    except SQLAlchemyError as fault:
        raise Unavailable(f"the store does not answer: {fault}") from fault
