"""A store that was brought to today's version has what a new one has: tables, columns, keys and indexes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, inspect

from orchestrator.store import Store
from orchestrator.store.engine import open_engines
from tests.unit.orchestrator.store.earlier import unchained


def shape(connection: Connection) -> dict[str, Any]:
    seen = inspect(connection)
    return {
        table: (
            {column["name"]: column["nullable"] for column in seen.get_columns(table)},
            seen.get_pk_constraint(table)["constrained_columns"],
            sorted((index["name"], tuple(index["column_names"])) for index in seen.get_indexes(table)),
        )
        for table in seen.get_table_names()
    }


def test_an_earlier_store_becomes_what_a_new_one_is(database: str) -> None:
    Store(database).close()
    engine, _ = open_engines(database)
    with engine.begin() as connection:
        new = shape(connection)
        unchained(connection)
    Store(database).close()
    with engine.begin() as connection:
        assert shape(connection) == new
    engine.dispose()
