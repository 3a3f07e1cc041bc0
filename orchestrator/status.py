"""How the jobs stand, as `status --json` shows it.
In: the store and the site. Out: one document a job.
The command line prints them; the live view refreshes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from jobs.spec import iso, utc
from orchestrator.site import Site
from orchestrator.store.emitted import Emitted, emitted
from orchestrator.store.fleets import figures_of, kind_of
from orchestrator.store.jobs import Standing, count_ended, standing
from orchestrator.store.schema import Job

ENDED_SHOWN = 20
"""So many of the jobs that have ended are shown, the newest, where nobody asks for all."""


def status(session: Session, site: Site, job: Job, now: datetime) -> dict[str, Any]:
    """The contract's keys, and the reason for the state."""
    return _documents(session, site, standing(session, job_id=job.id), now)[0]


def status_of_all(
    session: Session, site: Site, now: datetime, ended: int | None = ENDED_SHOWN
) -> tuple[list[dict[str, Any]], int]:
    """The same of the jobs that have not ended and the newest that have, and how many earlier ones are left out."""
    found = standing(session, ended)
    left_out = count_ended(session) - ended if ended is not None else 0
    return _documents(session, site, found, now), max(0, left_out)


def _documents(session: Session, site: Site, jobs: Sequence[Standing], now: datetime) -> list[dict[str, Any]]:
    figures = emitted(session, site, {job.id: job.submitted_at for job in jobs}, now)
    marks = {kind_of(job.planned_for): job.planned_for for job in jobs}
    fleets = {kind: figures_of(session, mark) for kind, mark in marks.items()}
    return [_document(job, figures[job.id], fleets, now) for job in jobs]


def _document(
    job: Standing, figures: Emitted, fleets: Mapping[str | None, dict[str, Any] | None], now: datetime
) -> dict[str, Any]:
    change = next_change_at(job, now)
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "step": job.step,
        "steps": job.steps,
        "zone": job.zone,
        "workers": job.workers or 0,
        "next_change_at": iso(change) if change else None,
        "energy_j": figures.energy_j,
        "emissions_g": figures.emissions_g,
        "submitted_at": iso(job.submitted_at),
        "finish_by": iso(job.finish_by) if job.finish_by else None,
        "fleet": fleets[kind_of(job.planned_for)],
    }


def next_change_at(job: Standing, now: datetime) -> datetime | None:
    """When the plan starts or ends a segment next, or back-off ends; None where nothing is planned."""
    if job.not_before is not None and job.not_before > now:
        return job.not_before
    slots = job.plan["slots"] if job.plan else []
    edges = (utc(slot[edge]) for slot in slots for edge in ("start", "end"))
    return min((edge for edge in edges if edge > now), default=None)
