"""How the jobs stand, as `status --json` shows it.
In: the store and the site. Out: one document a job.
The command line prints them; the live view refreshes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from jobs.spec import iso
from orchestrator.accounting.ledger import add_up
from orchestrator.plan.record import read
from orchestrator.site import Site
from orchestrator.store.accounts import account_of
from orchestrator.store.fleets import figures_of
from orchestrator.store.jobs import running_segment
from orchestrator.store.schema import Job


def status(session: Session, site: Site, job: Job, now: datetime) -> dict[str, Any]:
    """The contract's keys, and the reason for the state."""
    segment = running_segment(session, job.id)
    ledger = add_up(account_of(session, site, job, now))
    change = next_change_at(job, now)
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "step": job.step,
        "steps": job.steps,
        "zone": segment.zone if segment else None,
        "workers": segment.workers if segment else 0,
        "next_change_at": iso(change) if change else None,
        "energy_j": ledger.total.energy_j,
        "emissions_g": ledger.emissions_g,
        "submitted_at": iso(job.submitted_at),
        "finish_by": iso(job.finish_by) if job.finish_by else None,
        "fleet": figures_of(session, job.planned_for),
    }


def next_change_at(job: Job, now: datetime) -> datetime | None:
    """When the plan starts or ends a segment next, or back-off ends; None where nothing is planned."""
    if job.not_before is not None and job.not_before > now:
        return job.not_before
    if not job.plan:
        return None
    plan = read(job.plan)
    edges = sorted(edge for slot in plan.slots for edge in (slot.start, slot.end) if edge > now)
    return edges[0] if edges else None
