"""The figures of a pass, for the cluster's metrics.
In: the store at one moment. Out: gauges with the README's names and labels.
The cluster publishes them to the Ray dashboard, Prometheus and Grafana.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from cluster.api import Gauge, MeterRow
from orchestrator.accounting.ledger import add_up
from orchestrator.accounting.run_now import savings
from orchestrator.site import Site
from orchestrator.store import facts, forecasts
from orchestrator.store.accounts import account_of
from orchestrator.store.jobs import running_segments
from orchestrator.store.schema import Job

_RECENT = timedelta(seconds=90)
"""Power is that of the newest rows; a meter cuts one every 60 s at the latest."""


def gauges(session: Session, site: Site, now: datetime) -> list[Gauge]:
    """Every figure of this moment: of zones, and of jobs that run or ended within the last minutes."""
    return [*_of_zones(session, now), *_of_jobs(session, site, now)]


def _of_zones(session: Session, now: datetime) -> Iterator[Gauge]:
    for zone, forecast in forecasts.newest(session).items():
        label = {"zone": zone}
        intensity = forecast.at(now)
        if intensity is not None:
            yield Gauge("lowtide_grid_intensity_g_per_kwh", intensity, label)
        yield Gauge("lowtide_forecast_age_s", (now - forecast.fetched_at).total_seconds(), label)


def _of_jobs(session: Session, site: Site, now: datetime) -> Iterator[Gauge]:
    zones = {segment.job_id: segment for segment in running_segments(session)}
    ended = select(Job).where(Job.ended_at > now - timedelta(minutes=5))
    jobs = {job.id: job for job in session.scalars(ended)}
    jobs |= {job_id: session.get_one(Job, job_id) for job_id in zones}
    for job in jobs.values():
        segment = zones.get(job.id)
        label = {"job": job.id, "zone": segment.zone if segment else job.zone or ""}
        account = account_of(session, site, job, now)
        ledger = add_up(account)
        yield Gauge("lowtide_job_workers", segment.workers if segment else 0, label)
        yield Gauge("lowtide_job_step", job.step, label)
        yield Gauge("lowtide_job_energy_j_total", ledger.total.energy_j, label)
        if ledger.emissions_g is not None:
            yield Gauge("lowtide_job_emissions_g_total", ledger.emissions_g, label)
            saved_g = savings(account, ledger).saved_g
            if saved_g is not None:
                yield Gauge("lowtide_job_saved_g", saved_g, label)
        power_w = power_by_rank_w(facts.last_rows(session, job.id, now - _RECENT)) if segment else {}
        yield Gauge("lowtide_job_power_w", sum(power_w.values()), label)
        for rank, watts in power_w.items():
            yield Gauge("lowtide_worker_power_w", watts, {**label, "rank": str(rank)})


def power_by_rank_w(rows: list[MeterRow]) -> dict[int, float]:
    """Mean watts of each rank over its newest row on every device."""
    newest: dict[tuple[int, str, str], MeterRow] = {}
    for row in rows:
        if row.rank is None or row.energy_j is None or row.end <= row.start:
            continue
        key = (row.rank, row.host_boot, row.uuid or "cpu")
        if key not in newest or newest[key].end < row.end:
            newest[key] = row
    watts: dict[int, float] = {}
    for (rank, _, _), row in newest.items():
        power_w = (row.energy_j or 0.0) / (row.end - row.start).total_seconds()
        watts[rank] = watts.get(rank, 0.0) + power_w
    return watts
