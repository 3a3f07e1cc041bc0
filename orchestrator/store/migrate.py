"""The schema's version, and the steps from each version to the next.
In: a connection to any earlier store. Out: the same store at VERSION, or a clear refusal of a newer one.
store.py calls it whenever it opens a store.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    DateTime,
    Float,
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


def _fleets(connection: Connection) -> None:
    """To 5: how jobs that share GPUs were planned together, and what the zones have."""
    tables = MetaData()
    Table(
        "fleets",
        tables,
        Column("kind", String(10), primary_key=True),
        Column("checked_at", DateTime(timezone=True), nullable=False),
        Column("made_from", String(64), nullable=False),
        Column("zones", JSON, nullable=False),
        Column("jobs", Integer, nullable=False),
        Column("emissions_g", Float, nullable=False),
        Column("bound_g", Float, nullable=False),
        Column("missed", JSON, nullable=False),
    )
    Table(
        "capacities",
        tables,
        Column("zone", String(80), primary_key=True),
        Column("seen_at", DateTime(timezone=True), nullable=False),
        Column("gpus", Float, nullable=False),
        Column("cpus", Float, nullable=False),
    )
    tables.create_all(connection)


def _running_sums(connection: Connection) -> None:
    """To 6: running sums of the ledger, made from its rows."""
    sums = Table(
        "draws",
        MetaData(),
        Column("segment_id", String(140), primary_key=True),
        Column("rank", Integer, primary_key=True),
        Column("device", String(80), primary_key=True),
        Column("job_id", String(120), nullable=False, index=True),
        Column("energy_j", Float, nullable=False),
        Column("train_j", Float, nullable=False),
        Column("train_s", Float, nullable=False),
        Column("last_start", DateTime(timezone=True), nullable=False),
        Column("last_end", DateTime(timezone=True), nullable=False),
        Column("last_j", Float),
    )
    sums.metadata.create_all(connection)
    rows = Table("ledger_rows", MetaData(), autoload_with=connection)
    metered = and_(rows.c.job_id.is_not(None), rows.c.segment_id.is_not(None), rows.c["rank"].is_not(None))
    query = select(rows).where(metered).order_by(rows.c.segment_id, rows.c["end"])
    for segment_id, own in groupby(connection.execute(query).mappings(), itemgetter("segment_id")):
        by_key: dict[tuple[int, str], dict[str, Any]] = {}
        for row in own:
            known = by_key.setdefault((row["rank"], row["device"]), {"energy_j": 0.0, "train_j": 0.0, "train_s": 0.0})
            known |= {"job_id": row["job_id"], "last_start": row["start"], "last_end": row["end"]}
            known["last_j"] = row["energy_j"]
            if row["energy_j"] is not None:
                known["energy_j"] += row["energy_j"]
                if row["phase"] == "train":
                    known["train_j"] += row["energy_j"]
                    known["train_s"] += (row["end"] - row["start"]).total_seconds()
        for (rank, device), known in by_key.items():
            known |= {"segment_id": segment_id, "rank": rank, "device": device}
        connection.execute(insert(sums), list(by_key.values()))


def _losses(connection: Connection) -> None:
    """To 7: the loss of running jobs is kept by time, from now on."""
    progress = Table(
        "progress",
        MetaData(),
        Column("job_id", String(120), primary_key=True),
        Column("at", DateTime(timezone=True), primary_key=True),
        Column("step", Integer, nullable=False),
        Column("loss", Float, nullable=False),
    )
    progress.create(connection)


def _moves(connection: Connection) -> None:
    """To 8: a segment says what it brought from elsewhere, and what its user shall know."""
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN moved_bytes BIGINT")
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN moved_from TEXT")
    connection.exec_driver_sql("ALTER TABLE segments ADD COLUMN note TEXT")


def _indexes(connection: Connection) -> None:
    """To 9: segments that run, and jobs by their end, are found among all that ever were."""
    connection.exec_driver_sql("CREATE INDEX segments_that_run ON segments (job_id) WHERE ended IS NULL")
    connection.exec_driver_sql("CREATE INDEX ix_jobs_ended_at ON jobs (ended_at)")


def _liveness(connection: Connection) -> None:
    """To 10: whether a segment gets on, whether it could be started, and whether its hosts owe rows."""
    for column in (
        "phase VARCHAR(16)",
        "looked_at TIMESTAMP WITH TIME ZONE",
        "quiet_s FLOAT DEFAULT 0 NOT NULL",
        "hung TEXT",
        "refusals INTEGER DEFAULT 0 NOT NULL",
        "rows_due TIMESTAMP WITH TIME ZONE",
    ):
        connection.exec_driver_sql(f"ALTER TABLE segments ADD COLUMN {column}")
    connection.exec_driver_sql("CREATE INDEX segments_that_owe_rows ON segments (rows_due) WHERE rows_due IS NOT NULL")


def _nodes(connection: Connection) -> None:
    """To 11: what the zones have for jobs, by node; the next pass that attaches to the cluster says it anew."""
    connection.exec_driver_sql("DELETE FROM capacities")
    connection.exec_driver_sql("ALTER TABLE capacities ADD COLUMN nodes JSON DEFAULT '[]' NOT NULL")


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


MIGRATIONS: dict[int, Migration] = {
    1: _forecasts_by_purpose,
    2: _chained,
    3: _power_limits,
    4: _fleets,
    5: _running_sums,
    6: _losses,
    7: _moves,
    8: _indexes,
    9: _liveness,
    10: _nodes,
}
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
