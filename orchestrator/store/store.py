"""One store: opened, migrated, and read or written in short transactions.
In: the URL of an SQLite file or of a PostgreSQL database. Out: sessions; every failure of it is one Unavailable.
The other modules of this package hold the queries; the controller is the one writer of facts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from orchestrator.store.engine import open_engines, told
from orchestrator.store.migrate import migrate


class Store:
    """The database of one site. Open it once a process; sessions are for one thread each."""

    def __init__(self, url: str) -> None:
        self._reader, self._writer = open_engines(url)
        try:
            with self._translated(), self._writer.begin() as connection:
                migrate(connection)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session on a consistent snapshot; what it changes is not kept."""
        with self._translated(), Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at its end, or not at all; writers wait for each other."""
        with self._translated(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Give the connections back."""
        self._reader.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as fault:
            raise told(fault, self._reader.url) from fault
