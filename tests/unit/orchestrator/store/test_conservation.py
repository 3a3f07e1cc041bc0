"""From the meters' rows to the reports: whatever is sent again, ranks + idle = host, and reports = rows."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.api import MeterRow
from orchestrator.report import as_json, report_of
from orchestrator.report.export import records
from orchestrator.site import Site
from orchestrator.store import Store, chain, facts, jobs
from orchestrator.store.accounts import account_of
from orchestrator.store.schema import Job, Segment
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
            energy_j = draw(st.none() | st.floats(0, 1e6))
            phase = "idle" if job_id is None else draw(st.sampled_from(PHASES))
            start = T0 + timedelta(minutes=minute)
            owner = (job_id, None if job_id is None else f"{job_id}-1", rank)
            end = start + timedelta(minutes=length)
            rows.append(MeterRow("boot", device, seq[device], "n", start, end, energy_j, "rapl", phase, *owner))
        minute += length
    return rows


@settings(max_examples=30, deadline=None)
@given(st.data(), _schedules())
def test_jobs_and_idle_are_the_host_and_reports_are_their_rows_whatever_is_sent_again(
    new_database: NewDatabase, data: st.DataObject, rows: list[MeterRow]
) -> None:
    with new_database() as url, closing(Store(url)) as store:
        _submit_two_jobs(store)
        _conserves(store, data, rows)


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
        idle_j = facts.idle_j(session, T0, T0 + 9 * HOUR) or 0.0
        accounts = [account_of(session, SITE, session.get_one(Job, id_), T0 + 9 * HOUR) for id_ in ("tiny", "tiny-2")]
    in_reports = 0.0
    for account in accounts:
        report = report_of(account)
        document = as_json(report)
        own_j = fsum(row.energy_j or 0.0 for row in rows if row.job_id == account.job_id)
        in_reports += document["energy_j"]
        assert document["energy_j"] == pytest.approx(own_j, rel=1e-9)
        assert fsum(document["phases"].values()) == pytest.approx(own_j, rel=1e-9)
        assert fsum(worker["energy_j"] for worker in document["workers"]) == pytest.approx(own_j, rel=1e-9)
        charged_g = fsum(record["emissions_g"] or 0.0 for record in records(report))
        assert charged_g == pytest.approx(report.ledger.total.operational_g, rel=1e-9)
    assert in_reports + idle_j == pytest.approx(fsum(row.energy_j or 0.0 for row in rows), rel=1e-9)
