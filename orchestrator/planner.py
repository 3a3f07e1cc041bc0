"""Jobs that share GPUs (or CPUs), planned together beside the passes.
In: the store: jobs, forecasts, measurements, what zones have. Out: their plans and the fleet's figures, in the store.
Passes act on the plans and never wait for them; where this does not run, they plan each job alone.

It is woken after each pass and plans where something has changed: a forecast, a job, what a zone has, or at the edge of
a slot a job that does not follow its plan. What has not changed keeps its plan.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.spec import InputError, JobSpec, LowtideError
from orchestrator.controller.consider import framing_of
from orchestrator.controller.frame import frame, opening
from orchestrator.controller.look import Look, look
from orchestrator.controller.pools import limits
from orchestrator.controller.share import Member, Shared, follows, made_from, shared
from orchestrator.controller.told import digest
from orchestrator.plan.problem import Plan, Problem
from orchestrator.plan.record import document, read
from orchestrator.site import Site
from orchestrator.store import Store, fleets
from orchestrator.store.fleets import KINDS, Kind
from orchestrator.store.jobs import ENDED_STATES
from orchestrator.store.schema import FleetRow, ForecastRow, Job

if TYPE_CHECKING:
    from orchestrator.fleet import FleetPlan

log = logging.getLogger(__name__)

_NEW = ""
"""The id of a job that is not stored."""
_AT_ONCE = 500
"""Plans written in one transaction: passes wait for it."""


def utcnow() -> datetime:
    """The machine's clock."""
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class _Kept:
    """A planned fleet, so that one job can change without all being planned again."""

    plan: FleetPlan
    made_from: Mapping[str, str]
    """By job."""


class Planner:
    """Keeps the plans of jobs that share room; one for each controller."""

    def __init__(
        self, store: Store, site: Site, window_end: datetime | None = None, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self._store, self._site, self._window_end, self._clock = store, site, window_end, clock
        self._kept: dict[Kind, _Kept] = {}
        self._specs: dict[str, JobSpec] = {}
        self._seen: tuple[str, datetime] | None = None
        self._woken = threading.Event()

    def wake(self) -> None:
        """Something may have changed."""
        self._woken.set()

    def forever(self, stop: threading.Event, every_s: float) -> None:
        """Plan whenever woken, until `stop` is set; what fails is tried again when next woken."""
        while not stop.is_set():
            if self._woken.wait(every_s):
                self._woken.clear()
                try:
                    self.once()
                except LowtideError as fault:
                    log.warning("%s", fault)
                except Exception as fault:  # the thread's edge: without it nobody would plan any more
                    log.exception("planning failed (%s: %s); the next pass tries again", type(fault).__name__, fault)

    def once(self) -> None:
        """Plan what has changed since the last time."""
        now = self._clock()
        edge = self._site.slot_start(now)
        with self._store.read() as session:
            sign = _sign(session)
            if self._seen == (sign, edge):
                return
            seen = look(session, self._site, now, self._specs)
            shown, rows = fleets.capacities(session), fleets.fleets(session)
        at_edge = self._seen is None or self._seen[1] != edge
        self._specs = {job.id: seen.spec_of(job) for job in seen.jobs}
        members = members_of(seen, self._site, self._window_end)
        for kind in KINDS:
            there = limits(self._site, shown, kind, members)
            found = shared(kind, members, there, now, self._site.slot_s)
            if found is None:
                self._part(kind, seen, rows)
            else:
                self._plan(found, seen, rows.get(kind), at_edge)
        self._seen = (sign, edge)

    def _part(self, kind: Kind, seen: Look, rows: Mapping[str, FleetRow]) -> None:
        """All have room: each is planned alone."""
        self._kept.pop(kind, None)
        if kind in rows:
            with self._store.write() as session:
                fleets.forget(session, kind)
                fleets.keep_plans(session, _left_out(seen, kind, ()))

    def _plan(self, found: Shared, seen: Look, row: FleetRow | None, at_edge: bool) -> None:
        """Plan the fleet, or what has changed of it, and write that."""
        from orchestrator.fleet import plan_fleet, replan, reserved, ruled

        kind, problems = found.kind, {member.job_id: member.problem for member in found.members}
        each = {member.job_id: made_from(member, self._window_end) for member in found.members}
        whole = self._whole(found, each, seen)
        kept = self._kept.get(kind)
        if kept is None and row is not None and row.made_from == whole and self._stand(found, each, seen, at_edge):
            self._check(row, seen.now)
            return
        fleet = reserved(found.fleet)
        try:
            if kept is None:
                changed, planned = set(each), plan_fleet(fleet)
            else:
                changed = self._changed(found, each, kept, at_edge)
                planned = replan(kept.plan, fleet, changed)
                # Where all were planned anew, all are to be looked at.
                changed = changed if planned.state.cells is kept.plan.state.cells else set(each)
            planned = ruled(planned, fleet.jobs, problems, changed)
        except InputError as fault:
            log.warning("%s", fault)
            self._part(kind, seen, {kind: row} if row is not None else {})
            return
        self._kept[kind] = _Kept(planned, each)
        self._write(found, planned, each, whole, seen)

    def _whole(self, found: Shared, each: Mapping[str, str], seen: Look) -> str:
        """A hash of all that the fleet's plans are made from."""
        zones = [
            (zone, seen.versions[zone], there.gpus, there.changes, sorted(there.pools.items()))
            for zone, there in found.fleet.zones.items()
        ]
        return digest((sorted(each.items()), sorted(zones, key=lambda zone: zone[0])))

    def _stand(self, found: Shared, each: Mapping[str, str], seen: Look, at_edge: bool) -> bool:
        """Whether the plans that an earlier process wrote still are what they should be."""
        marks = {job.id: job.planned_for for job in seen.jobs}
        return all(
            fleets.is_made_from(marks[member.job_id], found.kind, each[member.job_id])
            and member.plan is not None
            and (not at_edge or follows(member, member.plan, seen.now))
            for member in found.members
        )

    def _changed(self, found: Shared, each: Mapping[str, str], kept: _Kept, at_edge: bool) -> set[str]:
        changed = {job_id for job_id, made in each.items() if kept.made_from.get(job_id) != made}
        if at_edge:
            now = found.fleet.now
            changed |= {
                member.job_id
                for member in found.members
                if member.job_id in kept.plan.plans and not follows(member, kept.plan.plans[member.job_id], now)
            }
        return changed

    def _check(self, row: FleetRow, now: datetime) -> None:
        with self._store.write() as session:
            row.checked_at = now
            fleets.keep(session, row)

    def _write(self, found: Shared, planned: FleetPlan, each: Mapping[str, str], whole: str, seen: Look) -> None:
        kind, jobs = found.kind, {job.id: job for job in seen.jobs}
        new: list[tuple[str, dict[str, Any] | None, str | None]] = []
        for member in found.members:
            job, told = jobs[member.job_id], document(planned.plans[member.job_id], member.job_id)
            mark = fleets.mark(kind, each[member.job_id], digest(told))
            if told != job.plan or mark != job.planned_for:
                new.append((member.job_id, told, mark))
        new += _left_out(seen, kind, each)
        row = FleetRow(
            kind=kind,
            checked_at=seen.now,
            made_from=whole,
            zones=list(found.zones),
            jobs=len(found.members),
            emissions_g=planned.emissions_g,
            bound_g=planned.bound_g,
            missed=list(planned.missed),
        )
        with self._store.write() as session:
            fleets.keep(session, row)
        for begin in range(0, len(new), _AT_ONCE):
            with self._store.write() as session:
                fleets.keep_plans(session, new[begin : begin + _AT_ONCE])


def members_of(seen: Look, site: Site, window_end: datetime | None) -> list[Member]:
    """The jobs that want to run and can be planned."""
    found = []
    for job in seen.jobs:
        if job.wish != "run":
            continue
        spec = seen.spec_of(job)
        framing = framing_of(seen, job, spec, site, window_end)
        problem = frame(framing, opening(framing).spans, site)
        if isinstance(problem, Problem):
            plan = read(job.plan) if job.plan is not None else None
            found.append(Member(job.id, spec, problem, job.priority, job.submitted_at, plan, job.not_before))
    return found


def beside(
    store: Store, site: Site, spec: JobSpec, problem: Problem, now: datetime
) -> tuple[Plan, dict[str, Any]] | None:
    """The plan that a new job would get beside those that want the same room, and the figures of all.

    Nothing is stored. None where there is room for all: its own plan is then the one that it would get.
    """
    from orchestrator.fleet import plan_fleet, reserved, ruled

    with store.read() as session:
        seen, shown = look(session, site, now), fleets.capacities(session)
    new = Member(_NEW, spec, problem, spec.priority, now, None, spec.not_before)
    members = [*members_of(seen, site, None), new]
    found = shared(new.kind, members, limits(site, shown, new.kind, members), now, site.slot_s)
    if found is None or new not in found.members:
        return None
    problems = {member.job_id: member.problem for member in found.members}
    made = ruled(plan_fleet(reserved(found.fleet)), found.fleet.jobs, problems, set(problems))
    missed = [spec.name if job_id == _NEW else job_id for job_id in made.missed]
    return made.plans[_NEW], fleets.figures(len(problems), made.emissions_g, made.bound_g, missed)


def _left_out(seen: Look, kind: Kind, within: Collection[str]) -> list[tuple[str, dict[str, Any] | None, str | None]]:
    """Jobs that were in the fleet and are not any more: their plans are to be made anew, each alone."""
    return [
        (job.id, job.plan, None)
        for job in seen.jobs
        if fleets.kind_of(job.planned_for) == kind and job.id not in within
    ]


def _sign(session: Session) -> str:
    """A hash of what may have changed, read in a moment however many jobs there are."""
    columns = (Job.id, Job.wish, Job.priority, Job.not_before, Job.retries, Job.steps, Job.zone)
    jobs = select(*columns).where(Job.state.not_in(ENDED_STATES))
    asked = select(ForecastRow.zone, ForecastRow.tried_at, ForecastRow.fault).where(ForecastRow.purpose == "plan")
    told = [sorted(tuple(row) for row in session.execute(query)) for query in (jobs, asked)]
    return digest((told, sorted(fleets.capacities(session).items())))
