"""The schema's version, and the steps from each version to the next.
In: a connection to any earlier store. Out: the same store at VERSION, or a clear refusal of a newer one.
store.py calls it whenever it opens a store.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from jobs.spec import Unavailable
from orchestrator.store import schema
from orchestrator.store.schema import SchemaVersion

Migration = Callable[[Connection], None]


def _forecasts_by_purpose(connection: Connection) -> None:
    """To 2: a forecast has a purpose, and earlier ones are kept. The newest ones are fetched anew."""
    connection.exec_driver_sql("DROP TABLE forecasts")
    tables = MetaData()
    Table(
        "forecasts",
        tables,
        Column("zone", String(80), primary_key=True),
        Column("purpose", String(10), primary_key=True),
        Column("tried_at", DateTime(timezone=True), nullable=False),
        Column("fault", Text),
        Column("forecast", JSON),
        Column("measured_at", DateTime(timezone=True)),
    )
    Table(
        "earlier_forecasts",
        tables,
        Column("id", Integer, primary_key=True, autoincrement=True),
        Column("zone", String(80), nullable=False),
        Column("provider", String(80), nullable=False),
        Column("fetched_at", DateTime(timezone=True), nullable=False),
        Column("start", DateTime(timezone=True), nullable=False),
        Column("hourly_g_per_kwh", JSON, nullable=False),
        Index("earlier_forecasts_by_zone", "zone", "provider", "fetched_at"),
    )
    tables.create_all(connection)


MIGRATIONS: dict[int, Migration] = {1: _forecasts_by_purpose}
"""From a version to the one after it. Version 1 is the first; a step never edits what an earlier one did."""

VERSION = 1 + len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the store to VERSION inside the caller's transaction; Unavailable where a newer lowtide wrote it."""
    if not inspect(connection).has_table(SchemaVersion.__tablename__):
        schema.Table.metadata.create_all(connection)
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
