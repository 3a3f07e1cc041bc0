"""The schema's version, and the steps from each version to the next.
In: a connection to any earlier store. Out: the same store at VERSION, or a clear refusal of a newer one.
store.py calls it whenever it opens a store.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, inspect, select, update

from jobs.spec import Unavailable
from orchestrator.store.schema import SchemaVersion, Table

Migration = Callable[[Connection], None]

MIGRATIONS: dict[int, Migration] = {}
"""From a version to the one after it. Version 1 is the first; a step never edits what an earlier one did."""

VERSION = 1 + len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the store to VERSION inside the caller's transaction; Unavailable where a newer lowtide wrote it."""
    if not inspect(connection).has_table(SchemaVersion.__tablename__):
        Table.metadata.create_all(connection)
        connection.execute(insert(SchemaVersion).values(one=1, version=VERSION))
        return
    version = connection.execute(select(SchemaVersion.version)).scalar_one()
    if version > VERSION:
        raise Unavailable(
            f"the store is of schema version {version}, this lowtide knows {VERSION}; install the newer lowtide"
        )
    while version < VERSION:
        MIGRATIONS[version](connection)
        version += 1
        connection.execute(update(SchemaVersion).values(version=version))
