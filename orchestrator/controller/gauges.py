"""The figures of a pass, for the cluster's metrics.
In: the store at one moment. Out: gauges with the README's names and labels.
The cluster publishes them to the Ray dashboard, Prometheus and Grafana.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from cluster.api import Gauge
from orchestrator.controller.figures import Figures
from orchestrator.site import Site
from orchestrator.store import draws, forecasts
from orchestrator.store.jobs import shown

_RECENT = timedelta(seconds=90)
"""Power is that of the newest rows; a meter cuts one every 60 s at the latest."""
_ENDED = timedelta(minutes=5)
"""A job is shown so long after its end."""


def gauges(session: Session, site: Site, now: datetime, figures: Figures) -> list[Gauge]:
    """Every figure of this moment: of zones, and of jobs that run or ended within the last minutes."""
    return [*_of_zones(session, now), *_of_jobs(session, site, now, figures)]


def _of_zones(session: Session, now: datetime) -> Iterator[Gauge]:
    for zone, forecast in forecasts.newest(session).items():
        label = {"zone": zone}
        intensity = forecast.at(now)
        if intensity is not None:
            yield Gauge("lowtide_grid_intensity_g_per_kwh", intensity, label)
        yield Gauge("lowtide_forecast_age_s", (now - forecast.fetched_at).total_seconds(), label)


def _of_jobs(session: Session, site: Site, now: datetime, figures: Figures) -> Iterator[Gauge]:
    jobs = shown(session, now - _ENDED)
    energy_j = draws.energy_j(session, [job.id for job in jobs])
    power_w = draws.power_w(session, [job.segment_id for job in jobs if job.segment_id is not None], now - _RECENT)
    grams = figures.of(session, site, [job.id for job in jobs], energy_j, now)
    for job in jobs:
        figure = grams.get(job.id)
        label = {"job": job.id, "zone": job.zone or ""}
        yield Gauge("lowtide_job_workers", job.workers, label)
        yield Gauge("lowtide_job_step", job.step, label)
        yield Gauge("lowtide_job_energy_j_total", energy_j.get(job.id, 0.0), label)
        if figure is not None and figure.emissions_g is not None:
            yield Gauge("lowtide_job_emissions_g_total", figure.emissions_g, label)
        if figure is not None and figure.saved_g is not None:
            yield Gauge("lowtide_job_saved_g", figure.saved_g, label)
        by_rank_w = power_w.get(job.segment_id or "", {})
        yield Gauge("lowtide_job_power_w", sum(by_rank_w.values()), label)
        for rank, watts in by_rank_w.items():
            yield Gauge("lowtide_worker_power_w", watts, {**label, "rank": str(rank)})
