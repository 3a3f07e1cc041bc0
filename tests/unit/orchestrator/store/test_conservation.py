"""From the meters' rows to the reports: whatever is sent again, ranks + idle = host, and reports = rows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from cluster.api import MeterRow
from orchestrator.report import as_json, report_of
from orchestrator.report.export import records
from orchestrator.site import Site
from orchestrator.store import Store, chain, draws, facts, jobs
from orchestrator.store.accounts import account_of
from orchestrator.store.emitted import emitted
from orchestrator.store.schema import Job, Segment
from tests.unit.cluster.meter.doubles import START_S
from tests.unit.cluster.meter.test_conservation import STEPS_OF_A_HOST, played
from tests.unit.orchestrator.conftest import NewDatabase
from tests.unit.orchestrator.store.test_accounts import HOUR, SPEC, T0, said

SITE = Site.model_validate({"zones": {"DE": {"provider": "electricity_maps", "pue": 1.2}}})
PHASES = ("start", "train", "checkpoint", "evaluate", "stop")
OWNERS = (("tiny", 0), ("tiny", 1), ("tiny-2", 0), (None, None))


def _submit_two_jobs(store: Store) -> None:
    with store.write() as session:
        for _ in range(2):
            job = jobs.submit(session, SPEC, T0)
            session.add(
                Segment(
                    id=f"{job.id}-1", job_id=job.id, n=1, zone="DE", workers=2, gpus=0, reason="start",
                    run_until=T0 + 9 * HOUR, ends_as="expired", ordered_at=T0, start_step=0, step=10, parts_s={},
                )
            )  # fmt: skip
        facts.add_intensities(session, said(100.0, 300.0, 50.0))


@st.composite
def _schedules(draw: st.DrawFn) -> list[MeterRow]:
    """One host's rows: stretch after stretch, each divided among whoever was there, some of them unread."""
    rows: list[MeterRow] = []
    seq: dict[str, int] = {}
    minute = 0
    for _ in range(draw(st.integers(1, 12))):
        length = draw(st.integers(1, 15))
        for job_id, rank in draw(st.lists(st.sampled_from(OWNERS), min_size=1, unique=True)):
            device = f"cpu-{job_id}-{rank}"
            seq[device] = seq.get(device, 0) + 1
            energy_j = draw(st.none() | st.just(0.0) | st.floats(1e-3, 1e6))  # meters resolve mJ
            phase = "idle" if job_id is None else draw(st.sampled_from(PHASES))
            start = T0 + timedelta(minutes=minute)
            owner = (job_id, None if job_id is None else f"{job_id}-1", rank)
            end = start + timedelta(minutes=length)
            rows.append(MeterRow("boot", device, seq[device], "n", start, end, energy_j, "rapl", phase, *owner))
        minute += length
    return rows


@settings(max_examples=30)
@given(st.data(), _schedules())
def test_jobs_and_idle_are_the_host_and_reports_are_their_rows_whatever_is_sent_again(
    new_database: NewDatabase, data: st.DataObject, rows: list[MeterRow]
) -> None:
    with new_database() as url, closing(Store(url)) as store:
        _submit_two_jobs(store)
        _conserves(store, data, rows)


def _sums_are_the_rows(session: Session, rows: list[MeterRow]) -> None:
    own = [row for row in rows if row.job_id is not None and row.segment_id is not None]
    total_j = {
        job_id: fsum(row.energy_j or 0.0 for row in own if row.job_id == job_id) for job_id in {r.job_id for r in own}
    }
    assert draws.energy_j(session, ["tiny", "tiny-2"]) == pytest.approx(total_j, rel=1e-9)
    trained = {}
    for segment_id in {row.segment_id for row in own}:
        known = [r for r in own if (r.segment_id, r.phase) == (segment_id, "train") and r.energy_j is not None]
        by_device: dict[str, float] = {}
        for row in known:
            by_device[row.device] = by_device.get(row.device, 0.0) + (row.end - row.start).total_seconds()
        trained[segment_id] = (fsum(row.energy_j or 0.0 for row in known), max(by_device.values(), default=0.0))
    found = draws.trained(session, ["tiny-1", "tiny-2-1"])
    assert found == {segment_id: pytest.approx(sums, rel=1e-9) for segment_id, sums in trained.items()}


def _conserves(store: Store, data: st.DataObject, rows: list[MeterRow]) -> None:
    sent = 0
    while sent < len(rows):
        # What a crash left unacknowledged comes again with the next pull, and perhaps with the one after.
        back, ahead = data.draw(st.integers(0, sent)), data.draw(st.integers(1, 8))
        with store.write() as session:
            facts.add_rows(session, rows[sent - back : sent + ahead])
        sent += ahead
    with store.read() as session:
        assert chain.audit(session) == replace(chain.audit(session), rows=len(rows), fault=None)
        _sums_are_the_rows(session, rows)
        idle_j = facts.idle_j(session, T0, T0 + 9 * HOUR) or 0.0
        accounts = [account_of(session, SITE, session.get_one(Job, id_), T0 + 9 * HOUR) for id_ in ("tiny", "tiny-2")]
        together = emitted(session, SITE, {"tiny": T0, "tiny-2": T0}, T0 + 9 * HOUR)
    in_reports = 0.0
    for account in accounts:
        report = report_of(account)
        document = as_json(report)
        own_j = fsum(row.energy_j or 0.0 for row in rows if row.job_id == account.job_id)
        in_reports += document["energy_j"]
        ledger, figures = report.ledger, together[account.job_id]
        assert figures.energy_j == pytest.approx(ledger.total.energy_j, rel=1e-9)
        assert figures.known_j == pytest.approx(ledger.total.known_j, rel=1e-9)
        assert figures.emissions_g == pytest.approx(ledger.emissions_g, rel=1e-9)
        assert document["energy_j"] == pytest.approx(own_j, rel=1e-9)
        assert fsum(document["phases"].values()) == pytest.approx(own_j, rel=1e-9)
        assert fsum(worker["energy_j"] for worker in document["workers"]) == pytest.approx(own_j, rel=1e-9)
        charged_g = fsum(record["emissions_g"] or 0.0 for record in records(report))
        assert charged_g == pytest.approx(report.ledger.total.operational_g, rel=1e-9)
    assert in_reports + idle_j == pytest.approx(fsum(row.energy_j or 0.0 for row in rows), rel=1e-9)


@settings(max_examples=15)
@given(STEPS_OF_A_HOST, st.booleans(), st.booleans())
def test_what_a_host_drew_is_in_the_reports_and_the_idle_account_whatever_happens_between_sensor_and_store(
    new_database: NewDatabase, steps: list[tuple[str, int]], with_rapl: bool, with_gpus: bool
) -> None:
    world = played(steps, 60.0, with_rapl, with_gpus)
    end = datetime.fromtimestamp(START_S, timezone.utc) + timedelta(days=2)
    with new_database() as url, closing(Store(url)) as store:
        _submit_two_jobs(store)
        for batch in [*world.batches, *world.batches[-2:]]:
            with store.write() as session:
                facts.add_rows(session, batch)
        with store.read() as session:
            assert chain.audit(session) == replace(chain.audit(session), rows=len(world.committed), fault=None)
            told_j = facts.idle_j(session, T0, end) or 0.0
            for job_id in ("tiny", "tiny-2"):
                document = as_json(report_of(account_of(session, SITE, session.get_one(Job, job_id), end)))
                own_j = fsum(row.energy_j or 0.0 for row in world.committed.values() if row.job_id == job_id)
                assert document["energy_j"] == pytest.approx(own_j, rel=1e-9)
                assert fsum(document["phases"].values()) == pytest.approx(own_j, rel=1e-9)
                assert fsum(worker["energy_j"] for worker in document["workers"]) == pytest.approx(own_j, rel=1e-9)
                told_j += document["energy_j"]
    drawn_j = fsum(world.drawn_j.values())
    assert told_j <= drawn_j * (1 + 1e-9), "nothing is counted twice"
    if not world.spoiled:
        assert told_j == pytest.approx(drawn_j, rel=1e-9, abs=1e-6)
