"""The database behind a store: SQLite or PostgreSQL, made to keep the same promises.
In: a URL. Out: an engine that reads and one that writes; what a failure of the database means, and what mends it.
store.py opens transactions on them: snapshots that do not change, and writers that wait for each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from jobs.spec import InputError, Unavailable

BUSY_S = 30
"""How long a transaction waits for another process's."""
_ABANDONED_S = 120
"""After so long without a word a writer on PostgreSQL is taken for gone, and its transaction is undone."""
_CONNECT_S = 10
_WRITERS = 0x6C6F777469646500
"""Key of the advisory lock that writers take: PostgreSQL has no BEGIN IMMEDIATE."""
_REMEDIES = {
    "does not exist": "create it, as README's site file says, or mend the site file's `database`",
    "password": "set PGPASSWORD, or write ~/.pgpass",
    "permission denied": "make its user the database's owner: ALTER DATABASE … OWNER TO …",
    "lock timeout": f"another process has been writing for {BUSY_S} s",
    "no schema has been": "make its user the database's owner: ALTER DATABASE … OWNER TO …",
    "read-only": "the server takes no writes: name its primary",
}
"""By what the server says, in English."""
_SQLITE_REMEDIES = {
    "locked": f"another process has been writing for {BUSY_S} s; `fuser` on the file names it",
    "readonly": "make the file and its folder writable for this user",
    "disk is full": "free some space on its disk",
    "disk I/O error": "look at its disk",
    "unable to open": "mend the path, or the rights of its folder",
    "malformed": "put a copy of it in its place",
    "not a database": "name another file, or move this one away",
}


def open_engines(database: str) -> tuple[Engine, Engine]:
    """An engine that reads and one that writes, on one pool; InputError where the URL is none of a store."""
    url = _parsed(database)
    is_sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_engine(url, json_serializer=_as_json, **(_sqlite(url) if is_sqlite else _postgres(url)))
    except ImportError:
        raise Unavailable('database: PostgreSQL needs a driver; pip install "lowtide[postgres]"') from None
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine, engine.execution_options(lowtide_writes=True)
    event.listen(engine, "begin", _begin_postgres)
    # A writer that has waited for another reads what that one wrote, a reader sees one moment.
    return engine, engine.execution_options(lowtide_writes=True, isolation_level="READ COMMITTED")


def told(fault: SQLAlchemyError, url: URL) -> Unavailable:
    """A failure of the database as one line: which database, what it said, and what to do."""
    said = str(fault.orig if isinstance(fault, DBAPIError) else fault).strip()
    if url.get_backend_name() == "sqlite":
        remedy = next((mend for text, mend in _SQLITE_REMEDIES.items() if text in said), "")
        return Unavailable(f"the store {url.database} does not answer: {said}{remedy and '; '}{remedy}")
    named = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    first = said.splitlines()[0].strip() if said else type(fault).__name__
    remedy = next((words for text, words in _REMEDIES.items() if text in said), "")
    if not remedy and isinstance(fault, OperationalError):
        remedy = "start the server, or mend the site file's `database`"
    line = f"the store {named.render_as_string()} does not answer: {first}"
    return Unavailable(f"{line}; {remedy}" if remedy else line)


def _parsed(database: str) -> URL:
    forms = "postgresql://USER@HOST/DATABASE or sqlite:///FILE"
    try:
        url = make_url(database.replace("postgres://", "postgresql://", 1))
    except ArgumentError:
        raise InputError(f"database: this is no URL of a database; write {forms}") from None
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise InputError(f"database: {url.get_backend_name()} is not supported; write {forms}")
    return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url


def _sqlite(url: URL) -> Mapping[str, Any]:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise Unavailable(f"the state folder {Path(url.database).parent} cannot be made: {fault}") from None
    return {"connect_args": {"timeout": BUSY_S, "check_same_thread": False}}


def _postgres(url: URL) -> Mapping[str, Any]:
    # client_encoding: a database of SQL_ASCII, as `initdb` makes where no locale is set, would answer in bytes.
    usual = {"connect_timeout": _CONNECT_S, "application_name": "lowtide", "client_encoding": "utf8"}
    own = {name: value for name, value in usual.items() if name not in url.query}
    return {"connect_args": own, "pool_pre_ping": True, "isolation_level": "REPEATABLE READ"}


def _prepare_sqlite(connection: Any, record: Any) -> None:
    # The driver's own transaction handling begins too late for a read-then-write; lowtide begins by itself.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: two that first read and then write would otherwise refuse each other.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _begin_postgres(connection: Connection) -> None:
    if _writes(connection):
        connection.exec_driver_sql(
            f"SET LOCAL lock_timeout = '{BUSY_S}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{_ABANDONED_S}s'; "
            f"SELECT pg_advisory_xact_lock({_WRITERS})"
        )


def _writes(connection: Connection) -> bool:
    return bool(connection.get_execution_options().get("lowtide_writes"))


def _as_json(value: Any) -> str:
    """JSON proper: a loss that is not a number is unknown there, for PostgreSQL refuses what is none."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
