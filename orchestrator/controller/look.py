"""What one pass sees: the jobs that have not ended, their segments, forecasts and measurements, read once.
In: the store. Out: a Look at one moment.
Every job of the pass is considered on the same Look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.accounting.ledger import J_PER_KWH, add_up
from orchestrator.controller.learn import Learned, learn
from orchestrator.controller.outlook import Outlook, curves_of
from orchestrator.site import Site
from orchestrator.store import fleets, forecasts
from orchestrator.store.accounts import account_of
from orchestrator.store.jobs import active_jobs, segments_by_job, spec_of
from orchestrator.store.schema import FleetRow, Job, Segment

SEEN_TO_S = 600.0
"""Plans of a fleet to which nobody has seen for so long, and for two slots, are as none: each job is planned alone."""


@dataclass(frozen=True)
class Look:
    """The store at one moment."""

    now: datetime
    jobs: Sequence[Job]
    segments: Mapping[str, Sequence[Segment]]
    """By job id, first to last; jobs that never ran are absent."""
    curves: Mapping[str, Outlook]
    """The newest forecast of each zone."""
    versions: Mapping[str, str]
    """A digest of each zone's forecast: unchanged, a plan made from it stands."""
    learned: Mapping[str, Learned]
    """By likeness."""
    emitted_g: Mapping[str, float] = field(default_factory=dict)
    """By job, of those that have a budget: what they have emitted so far."""
    fleets: Mapping[str, FleetRow] = field(default_factory=dict)
    """By what is shared, jobs that are planned together; those of which nobody has seen to it of late are absent."""

    def running(self, job_id: str) -> Segment | None:
        """The job's segment that has not ended."""
        return next((s for s in self.segments.get(job_id, ()) if s.ended is None), None)


def look(session: Session, site: Site, now: datetime) -> Look:
    """Read what a pass needs, in a handful of queries however many jobs there are."""
    jobs = active_jobs(session)
    curves = curves_of(forecasts.newest(session))
    return Look(
        now=now,
        jobs=jobs,
        segments=segments_by_job(session, [job.id for job in jobs]),
        curves=curves,
        versions={zone: digest(outlook) for zone, outlook in curves.items()},
        emitted_g={job.id: _emitted_g(session, site, job, curves, now) for job in jobs if _has_budget(job)},
        learned={likeness: learn(session, likeness) for likeness in {job.likeness for job in jobs}},
        fleets={kind: row for kind, row in fleets.fleets(session).items() if _is_kept(row, site, now)},
    )


def _is_kept(row: FleetRow, site: Site, now: datetime) -> bool:
    """Whether somebody sees to the fleet: its planner does at each slot's edge."""
    return (now - row.checked_at).total_seconds() <= max(SEEN_TO_S, 2 * site.slot_s)


def _has_budget(job: Job) -> bool:
    return spec_of(job).carbon.budget_g is not None


def _emitted_g(session: Session, site: Site, job: Job, curves: Mapping[str, Outlook], now: datetime) -> float:
    """What the ledger says; energy of no known intensity counts as the rest does, or at the worst that is forecast."""
    ledger = add_up(account_of(session, site, job, now))
    total = ledger.total
    if not total.known_j:
        said = (part.g_per_kwh for ahead in curves.values() for part in ahead.curve if part.g_per_kwh is not None)
        return total.energy_j / J_PER_KWH * max(said, default=0.0)
    return (ledger.emissions_g or 0.0) * total.energy_j / total.known_j


def digest(value: object) -> str:
    """A short hash of a value made of plain values."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:32]
