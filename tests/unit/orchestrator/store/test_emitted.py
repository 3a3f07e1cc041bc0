"""Figures of many jobs at once are those of each one's own ledger, whatever its zones give and its grids said.
In: jobs that ran in two zones, with rows, moves and intensities of several kinds. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cluster.api import MeterRow
from orchestrator.accounting.ledger import add_up
from orchestrator.signal.measured import Measured
from orchestrator.site import Site
from orchestrator.store import Store, facts, jobs
from orchestrator.store.accounts import account_of
from orchestrator.store.emitted import emitted
from orchestrator.store.schema import Job, Segment
from tests.unit.orchestrator.specs import tiny
from tests.unit.orchestrator.store.test_accounts import HOUR, T0, points

NOW = T0 + 6 * HOUR
IDS = ("tiny", "tiny-2", "tiny-3")


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """Three jobs, an hour apart: the first moved from DE to FR, the second is in DE, the third has not run."""
    opened = Store(database)
    with opened.write() as session:
        for n, job_id in enumerate(IDS):
            jobs.submit(session, tiny(), T0 + n * HOUR)
            for number, zone in enumerate(("DE", "FR")[: 2 - n], 1):
                at = T0 + (n + number - 1) * HOUR
                session.add(_segment(job_id, number, zone, at))
                session.flush()
                facts.add_rows(session, [_row(job_id, number, at, rank, part) for rank in (0, 1) for part in range(6)])
    yield opened
    opened.close()


def _segment(job_id: str, n: int, zone: str, at: Any) -> Segment:
    return Segment(
        id=f"{job_id}-{n}", job_id=job_id, n=n, zone=zone, workers=2, gpus=2, reason="move" if n > 1 else "start",
        run_until=at + HOUR, ends_as="moved", ordered_at=at, ended_at=at + HOUR, ended="moved", start_step=0, step=10,
        parts_s={}, checkpoint_bytes=10**9, moved_bytes=10**9 if n > 1 else None,
    )  # fmt: skip


def _row(job_id: str, n: int, at: Any, rank: int, part: int) -> MeterRow:
    start, end = at + part * HOUR / 6, at + (part + 1) * HOUR / 6
    energy_j = None if (rank, part) == (1, 2) else 1e5 * (1 + rank + part)
    uuid = f"GPU-{job_id}-{rank}"
    return MeterRow(
        f"boot-{job_id}", uuid, 10 * n + part, "node", start, end, energy_j, "nvml-counter", "train", job_id,
        f"{job_id}-{n}", rank, uuid,
    )  # fmt: skip


def _said(zone: str, *values: float | None, signal: Any = "average", provider: str = "electricity_maps") -> Measured:
    return Measured(zone, provider, signal, points(*values), T0)


AVERAGE = (_said("DE", 100.0, 300.0, 50.0), _said("FR", 20.0, 30.0, None))
MARGINAL = _said("DE", 700.0, 800.0, 900.0, signal="marginal", provider="watttime")


@pytest.mark.parametrize("given", [AVERAGE, (*AVERAGE, MARGINAL), (MARGINAL,), (_said("DE", 100.0), MARGINAL), ()])
@pytest.mark.parametrize(
    "zone",
    [
        {},
        {"pue": 1.3, "embodied_g_per_gpu_hour": 26, "transfer_j_per_byte": 2e-7},
        {"transfer_j_per_byte": 2e-7, "mix": True},
        {"node_overhead_w": 150, "embodied_g_per_gpu_hour": 26},
    ],
)
def test_what_is_added_up_together_is_what_each_ledger_says(
    store: Store, zone: dict[str, Any], given: tuple[Measured, ...]
) -> None:
    providers = ["electricity_maps", "watttime"]
    site = Site.model_validate({"zones": {name: {"provider": providers, **zone} for name in ("DE", "FR")}})
    with store.write() as session:
        for said in given:
            facts.add_intensities(session, said)
    with store.read() as session:
        found = emitted(session, site, {job_id: session.get_one(Job, job_id).submitted_at for job_id in IDS}, NOW)
        for job_id in IDS:
            ledger = add_up(account_of(session, site, session.get_one(Job, job_id), NOW))
            assert found[job_id].energy_j == pytest.approx(ledger.total.energy_j)
            assert found[job_id].known_j == pytest.approx(ledger.total.known_j)
            assert found[job_id].emissions_g == pytest.approx(ledger.emissions_g)
    assert found["tiny-3"].energy_j == 0.0 and found["tiny"].energy_j > found["tiny-2"].energy_j > 0.0
    assert found["tiny-3"].emissions_g == 0.0


def test_a_job_that_cannot_be_read_keeps_its_joules_and_hides_no_other(store: Store) -> None:
    site = Site.model_validate({"zones": {name: {"provider": "demo", "node_overhead_w": 150} for name in ("DE", "FR")}})
    with store.write() as session:
        for said in AVERAGE:
            facts.add_intensities(session, replace(said, provider="demo"))
        job = session.get_one(Job, "tiny")
        job.spec = {**job.spec, "gone_key": 1}
    with store.read() as session:
        found = emitted(session, site, dict.fromkeys(IDS, T0), NOW)
    assert found["tiny"].energy_j > 0.0 and found["tiny"].emissions_g is None
    assert found["tiny-2"].emissions_g


def test_nobody_asked_for_is_nobody_told(store: Store) -> None:
    with store.read() as session:
        assert emitted(session, Site.model_validate({"zones": {"DE": {"provider": "demo"}}}), {}, NOW) == {}
        assert facts.drawn_by_time(session, ["tiny"])["tiny"][0].end - T0 == timedelta(minutes=10)
