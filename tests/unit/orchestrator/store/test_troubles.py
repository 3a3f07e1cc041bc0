"""A store that is locked or takes no writes for a while: one line with its path and what mends it, and then it goes on.
In: SQLite files that another connection holds, or that are made read-only. Out: nothing.
What PostgreSQL says is test_engine's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest

from jobs.spec import Unavailable
from orchestrator.store import Store, engine, jobs
from tests.unit.orchestrator.store.test_store import SPEC

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lowtide.db"


@pytest.fixture
def store(file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that waits for others a tenth of a second only."""
    monkeypatch.setattr(engine, "BUSY_S", 0.1)
    opened = Store(f"sqlite:///{file}")
    yield opened
    opened.close()


def submit(store: Store) -> str:
    with store.write() as session:
        return jobs.submit(session, SPEC, NOW).id


def count(store: Store) -> int:
    with store.read() as session:
        return len(jobs.all_jobs(session))


def test_a_locked_store_is_named_with_what_to_do_and_goes_on_afterwards(store: Store, file: Path) -> None:
    submit(store)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=rf"{file} does not answer: database is locked; another process .*fuser"):
            submit(store)
        assert count(store) == 1, "readers do not wait"
        other.execute("ROLLBACK")
    submit(store)
    assert count(store) == 2


def test_a_store_that_takes_no_writes_says_so_and_goes_on_afterwards(store: Store, file: Path) -> None:
    submit(store)
    with store.read() as session:
        session.connection().exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match=rf"{file} does not answer: .* readonly .*; make the file and"):
        submit(store)
    assert count(store) == 1
    with store.read() as session:
        session.connection().exec_driver_sql("PRAGMA query_only = OFF")
    submit(store)
    assert count(store) == 2


def test_what_is_no_store_is_not_overwritten(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"a letter to my mother, and no database at all " * 40)
    before = file.read_bytes()
    with pytest.raises(Unavailable, match="not a database; name another file"):
        Store(f"sqlite:///{file}")
    assert file.read_bytes() == before
