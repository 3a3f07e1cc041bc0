"""What one pass sees: the jobs that have not ended, their segments, forecasts and measurements, read once.
In: the store. Out: a Look at one moment.
Every job of the pass is considered on the same Look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.spec import InputError, JobSpec
from orchestrator.accounting.charge import J_PER_KWH
from orchestrator.controller.asleep import Glance, Sleepers, Waking
from orchestrator.controller.learn import Learned, learn_all
from orchestrator.controller.outlook import Outlook, curves_of
from orchestrator.controller.told import digest, told
from orchestrator.site import Site
from orchestrator.store import fleets, forecasts
from orchestrator.store.emitted import emitted
from orchestrator.store.fleets import Shown
from orchestrator.store.jobs import ACTIVE_STATES, active_jobs, jobs_of, segments_by_job, spec_of
from orchestrator.store.schema import FleetRow, Job, Segment

SEEN_TO_S = 600.0
"""Plans of a fleet to which nobody has seen for so long, and for two slots, are as none: each job is planned alone."""

SHOWN_TO_S = 600.0
"""What nodes there are is taken for granted so long: larger ones may come to a cluster that nobody asks meanwhile."""


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
    told_of: Mapping[str, str] = field(default_factory=dict)
    """A digest of it: unchanged, a plan made from it stands."""
    emitted_g: Mapping[str, float] = field(default_factory=dict)
    """By job, of those that have a budget: what they have emitted so far."""
    fleets: Mapping[str, FleetRow] = field(default_factory=dict)
    """By what is shared, jobs that are planned together; those of which nobody has seen to it of late are absent."""
    shown: Mapping[str, Shown] = field(default_factory=dict)
    """What zones have for jobs, where the cluster was seen of late."""
    specs: dict[str, JobSpec] = field(default_factory=dict)
    """By job, those that were read already: no spec changes."""
    unreadable: Sequence[tuple[Job, str]] = ()
    """Jobs beside `jobs` whose spec cannot be read, and why."""

    def spec_of(self, job: Job) -> JobSpec:
        """The job's spec; what runs is asked for it in every pass."""
        if job.id not in self.specs:
            self.specs[job.id] = spec_of(job)
        return self.specs[job.id]

    def running(self, job_id: str) -> Segment | None:
        """The job's segment that has not ended."""
        return next((s for s in self.segments.get(job_id, ()) if s.ended is None), None)


def look(session: Session, site: Site, now: datetime, specs: Mapping[str, JobSpec] | None = None) -> Look:
    """Read what a pass needs, in a handful of queries however many jobs there are.

    `specs` are those that are known, by job.
    """
    seen = replace(_empty(session, site, now), specs=dict(specs or {}))
    return look_at(session, site, seen, active_jobs(session))


def glance(
    session: Session,
    site: Site,
    now: datetime,
    sleepers: Sleepers,
    window_end: datetime | None,
    specs: Mapping[str, JobSpec],
) -> tuple[Look, Waking, Mapping[str, Glance]]:
    """The same of the jobs that must be considered at once; who else does not sleep; a few columns of all.

    `specs` are those that are known, by job.
    """
    seen = replace(_empty(session, site, now), specs=dict(specs))
    glances = {each.id: each for each in _glances(session)}
    sleepers.begin(seen.versions, window_end)
    waking = sleepers.awake(glances.values(), now, seen.fleets)
    likenesses = {glances[job_id].likeness for job_id in waking.now}
    # Whoever ran a pass ago has since been measured to its end.
    learned = learn_all(session, sleepers.awake_likenesses | likenesses)
    seen = replace(seen, learned=learned, told_of=sleepers.learned_anew(learned))
    sleepers.awake_likenesses = likenesses
    return look_at(session, site, seen, jobs_of(session, waking.now)), waking, glances


def look_at(session: Session, site: Site, seen: Look, jobs: Sequence[Job]) -> Look:
    """`seen` with these jobs instead; those whose spec cannot be read stand apart."""
    unreadable = _unreadable(seen, jobs)
    apart = {job.id for job, _ in unreadable}
    jobs = [job for job in jobs if job.id not in apart]
    more = {job.likeness for job in jobs} - set(seen.learned)
    learned = {**seen.learned, **learn_all(session, more)} if more else seen.learned
    return replace(
        seen,
        jobs=jobs,
        unreadable=unreadable,
        segments=segments_by_job(session, [job.id for job in jobs]),
        emitted_g=_emitted_g(session, site, [job for job in jobs if _has_budget(job)], seen.curves, seen.now),
        learned=learned,
        told_of={
            **{name: told(each).digest for name, each in learned.items() if name not in seen.told_of},
            **seen.told_of,
        },
    )


def _unreadable(seen: Look, jobs: Sequence[Job]) -> list[tuple[Job, str]]:
    found = []
    for job in jobs:
        try:
            seen.spec_of(job)
        except InputError as fault:
            found.append((job, str(fault)))
    return found


def _empty(session: Session, site: Site, now: datetime) -> Look:
    """What all jobs of a pass share."""
    curves = curves_of(forecasts.newest(session))
    return Look(
        now=now,
        jobs=(),
        segments={},
        curves=curves,
        versions={zone: digest(outlook) for zone, outlook in curves.items()},
        learned={},
        fleets={kind: row for kind, row in fleets.fleets(session).items() if _is_kept(row, site, now)},
        shown=fleets.capacities(session, now - timedelta(seconds=SHOWN_TO_S)),
    )


def _glances(session: Session) -> list[Glance]:
    """All jobs that have not ended, in the order in which they are considered."""
    decides = (Job.wish, Job.state, Job.step, Job.steps, Job.not_before, Job.planned_for, Job.retries, Job.zone)
    query = select(Job.id, Job.likeness, *decides).where(Job.state.in_(ACTIVE_STATES))
    rows = session.execute(query.order_by(Job.priority.desc(), Job.submitted_at, Job.id))
    return [Glance(row[0], row[1], tuple(row[2:])) for row in rows]


def _is_kept(row: FleetRow, site: Site, now: datetime) -> bool:
    """Whether somebody sees to the fleet: its planner does at each slot's edge."""
    return (now - row.checked_at).total_seconds() <= max(SEEN_TO_S, 2 * site.slot_s)


def _has_budget(job: Job) -> bool:
    return job.spec.get("carbon", {}).get("budget") is not None


def _emitted_g(
    session: Session, site: Site, jobs: Sequence[Job], curves: Mapping[str, Outlook], now: datetime
) -> dict[str, float]:
    """What the ledger says; energy of no known intensity counts as the rest does, or at the worst that is forecast."""
    found = dict[str, float]()
    for job_id, figures in emitted(session, site, {job.id: job.submitted_at for job in jobs}, now).items():
        if figures.known_j:
            found[job_id] = (figures.emissions_g or 0.0) * figures.energy_j / figures.known_j
        else:
            worst = (part.g_per_kwh for ahead in curves.values() for part in ahead.curve if part.g_per_kwh is not None)
            found[job_id] = figures.energy_j / J_PER_KWH * max(worst, default=0.0)
    return found
