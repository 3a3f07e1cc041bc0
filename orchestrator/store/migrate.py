"""The schema's version, and the steps from each version to the next.
In: a connection to any earlier store. Out: the same store at VERSION, or a clear refusal of a newer one.
store.py calls it whenever it opens a store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    DateTime,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    bindparam,
    insert,
    inspect,
    select,
    update,
)

from jobs.spec import Unavailable
from orchestrator.store import schema
from orchestrator.store.chain import FIRST_LINK, link
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


def _chained(connection: Connection) -> None:
    """To 3: ledger rows and intensities are linked into chains, in the order of their time."""
    for table, key in _CHAINED.items():
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN place BIGINT")
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN link VARCHAR(64)")
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX {table}_by_place ON {table} (place)")
        _link_all(connection, table, key)
    connection.exec_driver_sql('CREATE INDEX ledger_rows_by_uuid_and_start ON ledger_rows (uuid, "start")')


def _power_limits(connection: Connection) -> None:
    """To 4: a segment has a power limit, and may have been refused it."""
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN power_limit_w INTEGER")
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN power_limit_refused TEXT")


_CHAINED = {"ledger_rows": ("host_boot", "device", "seq"), "intensities": ("id",)}


def _link_all(connection: Connection, name: str, key: tuple[str, ...]) -> None:
    table = Table(name, MetaData(), autoload_with=connection)
    before = FIRST_LINK
    linked: list[dict[str, Any]] = []
    rows = connection.execute(select(table).order_by(table.c.start, *(table.c[part] for part in key))).mappings()
    for place, row in enumerate(rows, 1):
        before = link(before, row)
        linked.append({"new_place": place, "new_link": before, **{f"key_{part}": row[part] for part in key}})
    if linked:
        at = and_(*(table.c[part] == bindparam(f"key_{part}") for part in key))
        connection.execute(
            update(table).where(at).values(place=bindparam("new_place"), link=bindparam("new_link")), linked
        )
    ends = Table(
        "chain_ends",
        MetaData(),
        Column("name", String(40), primary_key=True),
        Column("length", BigInteger, nullable=False),
        Column("link", String(64), nullable=False),
    )
    ends.create(connection, checkfirst=True)
    connection.execute(insert(ends).values(name=name, length=len(linked), link=before))


MIGRATIONS: dict[int, Migration] = {1: _forecasts_by_purpose, 2: _chained, 3: _power_limits}
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
