"""The store: what it keeps, what it refuses, and what two processes see of each other."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest

from cluster.api import MeterRow
from jobs.spec import InputError, Unavailable
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.store import Store, facts, forecasts, jobs, lease
from orchestrator.store.schema import SchemaVersion
from tests.unit.orchestrator.specs import tiny

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
SPEC = tiny(carbon={"finish_by": "36h"})
ROW = MeterRow(
    "boot", "cpu", 1, "node", NOW, NOW + timedelta(seconds=5), 50.0, "estimated", "train", "tiny", "tiny-1", 0
)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    yield opened
    opened.close()


def test_keeps_a_job_and_its_spec(store: Store) -> None:
    with store.write() as session:
        jobs.submit(session, SPEC, NOW)
    with store.read() as session:
        job = jobs.find(session, "tiny")
        assert jobs.spec_of(job) == SPEC
        assert (job.state, job.submitted_at, job.finish_by) == ("queued", NOW, NOW + timedelta(hours=36))
        assert [event.text for event in jobs.history(session, job.id)] == ["submitted"]


def test_jobs_of_one_name_get_ids_of_their_own(store: Store) -> None:
    with store.write() as session:
        assert [jobs.submit(session, SPEC, NOW).id for _ in range(3)] == ["tiny", "tiny-2", "tiny-3"]
        named = SPEC.model_copy(update={"name": "tiny-2"})
        assert jobs.submit(session, named, NOW).id == "tiny-2-2"


def test_names_the_jobs_it_has_when_one_is_not_found(store: Store) -> None:
    with store.write() as session:
        jobs.submit(session, SPEC, NOW)
        with pytest.raises(InputError, match="no job is called 'tny'; known: tiny"):
            jobs.find(session, "tny")


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as session:
        jobs.submit(session, SPEC, NOW)
        raise RuntimeError
    with store.read() as session:
        assert list(jobs.all_jobs(session)) == []


def test_a_row_taken_twice_is_one_row(store: Store) -> None:
    rows = [replace(ROW, seq=n, start=NOW + timedelta(seconds=n)) for n in range(450)]
    with store.write() as session:
        assert facts.add_rows(session, rows) == 450
        assert facts.add_rows(session, [*rows, replace(ROW, seq=450)]) == 1
    with store.read() as session:
        kept = facts.rows_of(session, "tiny")
        assert len(kept) == 451
        assert kept[0] == rows[0]


def test_an_unreadable_meter_stays_unmetered(store: Store) -> None:
    with store.write() as session:
        facts.add_rows(session, [replace(ROW, energy_j=None)])
    with store.read() as session:
        assert facts.rows_of(session, "tiny")[0].energy_j is None


def forecast(value: float | None, minutes: int, kind: str = "forecast") -> Forecast:
    point = Point(NOW, NOW + timedelta(hours=1), value, kind)  # type: ignore[arg-type]
    return Forecast("DE", "electricity_maps", "average", (point,), fetched_at=NOW + timedelta(minutes=minutes))


def test_a_revised_intensity_is_a_further_row_and_the_same_one_is_none(store: Store) -> None:
    with store.write() as session:
        for answer in (forecast(300, 0), forecast(300, 5), forecast(310, 10), forecast(290, 20, "measured")):
            facts.add_intensities(session, answer, answer.points)
    with store.read() as session:
        found = facts.intensities(session, "DE", NOW, NOW + timedelta(minutes=1))
        assert [(row.g_per_kwh, row.kind) for row in found] == [(300, "forecast"), (310, "forecast"), (290, "measured")]


def test_a_fault_keeps_the_earlier_forecast_and_says_why(store: Store) -> None:
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", NOW, forecast(300, 0), None)
        forecasts.keep(session, "DE", "plan", NOW, None, "electricity_maps: zone DE: no answer")
    with store.read() as session:
        kept = forecasts.newest(session)["DE"]
        assert (kept.at(NOW + timedelta(minutes=1)), kept.stale) == (300, True)
        row = forecasts.tried(session, "DE", "plan")
        assert row is not None and row.fault == "electricity_maps: zone DE: no answer"


def test_refuses_a_time_without_a_zone(store: Store) -> None:
    with pytest.raises(Unavailable, match="no time without a zone"), store.write() as session:
        facts.add_rows(session, [replace(ROW, start=datetime(2026, 3, 1))])


def test_an_older_lowtide_refuses_a_newer_store(database: str, store: Store) -> None:
    with store.write() as session:
        session.get_one(SchemaVersion, 1).version = 99
    with pytest.raises(Unavailable, match="schema version 99"):
        Store(database)


def test_a_store_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(Unavailable) as fault:
        Store(f"sqlite:///{tmp_path / 'state' / 'lowtide.db'}")
    assert "\n" not in str(fault.value)


def test_the_lease_has_one_holder_and_a_growing_epoch(store: Store) -> None:
    later = NOW + timedelta(seconds=lease.LEASE_S + 1)
    with store.write() as session:
        assert lease.take(session, "elsewhere:1:0", NOW) == 1
        assert lease.take(session, "elsewhere:1:0", NOW) == 1
        with pytest.raises(lease.Held, match="elsewhere:1:0"):
            lease.take(session, "other:2:0", NOW)
        assert lease.take(session, "other:2:0", later) == 2
        lease.release(session, "other:2:0", later)
        assert lease.take(session, "elsewhere:1:0", later) == 3


def test_a_lease_from_before_the_clock_was_set_back_holds_nobody_up(store: Store) -> None:
    with store.write() as session:
        lease.take(session, "elsewhere:1:0", NOW + timedelta(hours=1))
        assert lease.take(session, "other:2:0", NOW) == 2


def test_a_lease_of_a_process_that_has_ended_is_free_at_once(store: Store) -> None:
    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    child.start()
    holder = lease.this_process().replace(f":{os.getpid()}:", f":{child.pid}:")
    child.join()
    with store.write() as session:
        assert lease.take(session, holder, NOW) == 1
        assert lease.take(session, "other:2:0", NOW) == 2


def test_a_lease_stays_with_a_process_that_lives_when_the_wall_clock_was_set(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.write() as session:
        lease.take(session, lease.this_process(), NOW)
        boot_s = psutil.boot_time()
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_s + 1)
        monkeypatch.setattr(psutil, "boot_time", lambda: boot_s + 1)
        with pytest.raises(lease.Held):
            lease.take(session, "other:2:0", NOW)


def _submit(url: str) -> None:
    opened = Store(url)
    for _ in range(10):
        with opened.write() as session:
            jobs.submit(session, SPEC, NOW)
    opened.close()


def test_processes_that_submit_at_once_lose_nothing(database: str, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_submit, args=(database,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    with store.read() as session:
        assert len({job.id for job in jobs.all_jobs(session)}) == 30


def test_the_sqlite_file_is_in_wal_mode(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path / 'lowtide.db'}").close()
    with sqlite3.connect(tmp_path / "lowtide.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
