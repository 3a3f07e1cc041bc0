"""The chain of facts: a later change, removal or insertion shows, and sending rows again breaks nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from cluster.api import MeterRow
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.store import Store, chain, facts
from orchestrator.store.engine import open_engines
from orchestrator.store.migrate import VERSION
from tests.unit.orchestrator.conftest import NewDatabase
from tests.unit.orchestrator.store.earlier import unchained

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
ROW = MeterRow(
    "boot", "gpu", 1, "node", NOW, NOW + timedelta(minutes=1), 600.0, "nvml-counter", "train", "a", "a-1", 0, "GPU-0"
)


def rows(count: int, job: str = "a", first: int = 1) -> list[MeterRow]:
    return [replace(ROW, seq=n, job_id=job, start=NOW + timedelta(minutes=n)) for n in range(first, first + count)]


def said(value: float | None, minutes: int = 0) -> Forecast:
    points = (Point(NOW, NOW + timedelta(hours=1), value, "measured"),)
    return Forecast("DE", "csv", "average", points, fetched_at=NOW + timedelta(minutes=minutes))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Eight rows of two jobs and of none in batches, and an intensity with its revision."""
    opened = Store(database)
    for batch in (rows(3), rows(4, "b", 4), [replace(ROW, seq=8, job_id=None, energy_j=None)]):
        with opened.write() as session:
            facts.add_rows(session, batch)
    for intensity in (said(200), said(None, 5), said(210, 9)):
        with opened.write() as session:
            facts.add_intensities(session, intensity)
    yield opened
    opened.close()


def audit(store: Store, job_id: str | None = None) -> chain.Audit:
    with store.read() as session:
        return chain.audit(session, job_id)


def meddled(store: Store, statement: str) -> str | None:
    with store.write() as session:
        session.execute(text(statement))
    return audit(store).fault


def test_what_was_written_is_intact_and_counted(store: Store) -> None:
    found = audit(store)
    assert (found.fault, found.rows, found.intensities) == (None, 8, 3)
    assert audit(store, "b").rows == 4
    assert set(found.ends) == {"ledger_rows", "intensities"}


def test_an_empty_store_is_intact(database: str) -> None:
    empty = Store(database)
    assert audit(empty) == chain.Audit(0, 0, None, {})
    empty.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE ledger_rows SET energy_j = 599 WHERE seq = 2", r"ledger row 2 \(boot, gpu, 2; job a, .*does not fit"),
        ("UPDATE ledger_rows SET energy_j = 0 WHERE seq = 8", r"ledger row 8 \(boot, gpu, 8; job none"),
        ("UPDATE ledger_rows SET job_id = 'b' WHERE seq = 3", r"ledger row 3 "),
        ("UPDATE ledger_rows SET source = 'estimated' WHERE seq = 5", r"ledger row 5 "),
        ("DELETE FROM ledger_rows WHERE seq = 4", r"ledger row 5 .*1 before it are missing"),
        ("DELETE FROM ledger_rows WHERE seq = 1", r"ledger row 2 .*1 before it are missing"),
        ("DELETE FROM ledger_rows WHERE seq > 6", r"ledger_rows does not end as it was written: 6 rows"),
        ("DELETE FROM ledger_rows", r"ledger_rows does not end as it was written: 0 rows"),
        ("UPDATE intensities SET g_per_kwh = 100 WHERE place = 1", r"intensity 1 \(DE by csv, from 2026-03-01"),
        ("UPDATE intensities SET fetched_at = '2026-01-01 00:00:00' WHERE place = 3", r"intensity 3 "),
        ("DELETE FROM intensities WHERE place = 2", r"intensity 3 .*1 before it are missing"),
        (
            'INSERT INTO intensities (zone, provider, signal, start, "end", g_per_kwh, kind, fetched_at)'
            ' SELECT zone, provider, signal, start, "end", 1, kind, fetched_at FROM intensities WHERE place = 1',
            r"intensity \? \(DE by csv, .*not written by lowtide",
        ),
    ],
)
def test_every_later_change_shows_and_names_the_first_row(store: Store, statement: str, says: str) -> None:
    fault = meddled(store, statement)
    assert fault is not None
    assert re.search(says, fault), fault


def test_a_chain_that_was_written_anew_has_another_end(store: Store) -> None:
    before = audit(store).ends
    with store.write() as session:
        session.execute(text("DELETE FROM chain_ends"))
        session.execute(text("DELETE FROM ledger_rows"))
        facts.add_rows(session, rows(7))
    assert audit(store).ends["ledger_rows"] != before["ledger_rows"]


def test_sending_rows_again_in_any_grouping_changes_nothing(store: Store) -> None:
    before = audit(store)
    with store.write() as session:
        assert facts.add_rows(session, [*rows(4, "b", 4), *rows(3), *rows(2)]) == 0
        facts.add_intensities(session, said(210, 20))
    assert audit(store) == before


def test_a_transaction_that_fails_leaves_the_chain_as_it_was(store: Store) -> None:
    before = audit(store)
    with pytest.raises(RuntimeError), store.write() as session:
        facts.add_rows(session, rows(5, "c", 20))
        raise RuntimeError
    assert audit(store) == before


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 12), st.none() | st.floats(0, 1e9)), max_size=8), min_size=1, max_size=6)
)
def test_whatever_batches_come_each_row_is_kept_once_and_fits(
    new_database: NewDatabase, batches: list[list[tuple[int, float | None]]]
) -> None:
    with new_database() as url, closing(Store(url)) as opened:
        for batch in batches * 2:
            with opened.write() as session:
                facts.add_rows(session, [replace(ROW, seq=seq, energy_j=energy_j) for seq, energy_j in batch])
        found = audit(opened)
        assert (found.fault, found.rows) == (None, len({seq for batch in batches for seq, _ in batch}))


def test_a_store_without_chains_gets_them_and_they_go_on(database: str, store: Store) -> None:
    store.close()
    engine, _ = open_engines(database)
    with engine.begin() as connection:
        unchained(connection)
    again = Store(database)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version FROM schema_version")).scalar_one() == VERSION
    engine.dispose()
    assert audit(again).fault is None
    with again.write() as session:
        assert facts.add_rows(session, rows(9)) == 1
        facts.add_intensities(session, said(300, 30))
    found = audit(again)
    assert (found.fault, found.rows, found.intensities) == (None, 9, 4)
    assert "ledger row 9" in (meddled(again, "UPDATE ledger_rows SET energy_j = 1 WHERE seq = 9") or "")
    again.close()
