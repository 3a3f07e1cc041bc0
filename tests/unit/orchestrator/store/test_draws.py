"""Running sums of the ledger: what they say is what the rows say, whoever wrote the rows, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from cluster.api import MeterRow
from orchestrator.store import Store, draws, facts
from orchestrator.store.engine import open_engines
from tests.unit.orchestrator.store.earlier import unchained

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)
ROW = MeterRow("boot", "GPU-0", 1, "n", NOW, NOW + MINUTE, 600.0, "nvml-counter", "train", "a", "a-1", 0, "GPU-0")
LATER = replace(ROW, seq=2, start=NOW + MINUTE, end=NOW + 2 * MINUTE, energy_j=1200.0)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    yield opened
    opened.close()


def keep(store: Store, *rows: MeterRow) -> None:
    with store.write() as session:
        facts.add_rows(session, rows)


def test_a_worker_s_power_is_that_of_its_devices_together(store: Store) -> None:
    processors = replace(LATER, device="cpu", uuid=None, energy_j=300.0)
    keep(store, ROW, LATER, replace(processors, seq=1), processors, replace(LATER, seq=9, rank=1, device="GPU-1"))
    with store.read() as session:
        assert draws.power_w(session, ["a-1"], NOW + MINUTE) == {"a-1": {0: 25.0, 1: 20.0}}
        # Ranks and devices are metered at the same time: 3,600 J in two minutes.
        assert draws.trained(session, ["a-1"]) == {"a-1": (3600.0, 120.0)}


def test_rows_that_come_late_or_twice_do_not_become_the_newest(store: Store) -> None:
    keep(store, LATER)
    keep(store, ROW, LATER)
    with store.read() as session:
        assert draws.power_w(session, ["a-1"], NOW) == {"a-1": {0: 20.0}}
        assert draws.power_w(session, ["a-1"], NOW + 2 * MINUTE) == {}
        assert draws.energy_j(session, ["a", "b"]) == {"a": 1800.0}


def test_unmetered_and_idle_time_is_no_power(store: Store) -> None:
    keep(store, ROW, replace(LATER, energy_j=None), replace(ROW, seq=7, job_id=None, segment_id=None, rank=None))
    with store.read() as session:
        assert draws.power_w(session, ["a-1"], NOW) == {}
        assert draws.trained(session, ["a-1"]) == {"a-1": (600.0, 60.0)}


def test_only_training_counts_for_the_power_in_training_and_the_driver_never(store: Store) -> None:
    keep(store, ROW, replace(LATER, phase="checkpoint"), replace(ROW, seq=3, device="cpu", rank=-1))
    with store.read() as session:
        assert draws.trained(session, ["a-1"]) == {"a-1": (600.0, 60.0)}
        assert draws.energy_j(session, ["a"]) == {"a": 2400.0}


def test_more_ids_than_one_question_takes_are_asked_in_several(store: Store) -> None:
    keep(store, *(replace(ROW, seq=n, job_id=f"j{n}", segment_id=f"j{n}-1") for n in range(1203)))
    with store.read() as session:
        assert draws.energy_j(session, {f"j{n}" for n in range(1203)}) == {f"j{n}": 600.0 for n in range(1203)}


def test_an_earlier_store_gets_the_sums_of_its_rows(database: str, store: Store) -> None:
    keep(store, ROW, LATER, replace(ROW, seq=5, job_id=None, segment_id=None, rank=None))
    keep(store, replace(ROW, seq=6, segment_id="a-2", rank=-1, energy_j=None))
    store.close()
    engine, _ = open_engines(database)
    with engine.begin() as connection:
        unchained(connection)
    engine.dispose()
    again = Store(database)
    with again.read() as session:
        assert draws.energy_j(session, ["a"]) == {"a": 1800.0}
        assert draws.trained(session, ["a-1", "a-2"]) == {"a-1": (1800.0, 120.0)}
        assert draws.power_w(session, ["a-1"], NOW) == {"a-1": {0: 20.0}}
    keep(again, replace(LATER, seq=8, start=NOW + 2 * MINUTE, end=NOW + 3 * MINUTE))
    with again.read() as session:
        assert draws.trained(session, ["a-1"]) == {"a-1": (3000.0, 180.0)}
    again.close()
