"""Stores as earlier versions of lowtide left them, for the tests of migrations.
In: a connection to a store of today. Out: the same store without what later versions added.
`test_chain` and `test_forecasts` open them again.
"""

from __future__ import annotations

from sqlalchemy import Connection, text


def unchained(connection: Connection) -> None:
    """As version 2 left it: no chains, no power limits, no fleets, no running sums, no losses, no moves."""
    without_moves(connection)
    for table in ("fleets", "capacities", "draws", "progress"):
        connection.execute(text(f"DROP TABLE {table}"))
    for column in ("power_limit_w", "power_limit_refused"):
        connection.execute(text(f"ALTER TABLE segments DROP COLUMN {column}"))
    for name in ("ledger_rows_by_place", "intensities_by_place", "ledger_rows_by_uuid_and_start"):
        connection.execute(text(f"DROP INDEX {name}"))
    for table in ("ledger_rows", "intensities"):
        for column in ("place", "link"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
    connection.execute(text("DROP TABLE chain_ends"))
    connection.execute(text("UPDATE schema_version SET version = 2"))


def without_moves(connection: Connection) -> None:
    """Without what version 8 added, and later ones: what segments brought, and notes; indexes; liveness; nodes."""
    connection.execute(text("ALTER TABLE capacities DROP COLUMN nodes"))
    for name in ("segments_that_run", "ix_jobs_ended_at", "segments_that_owe_rows"):
        connection.execute(text(f"DROP INDEX {name}"))
    liveness = ("phase", "looked_at", "quiet_s", "hung", "refusals", "rows_due")
    for column in ("moved_bytes", "moved_from", "note", *liveness):
        connection.execute(text(f"ALTER TABLE segments DROP COLUMN {column}"))
