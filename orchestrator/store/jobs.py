"""Jobs in the store: submitted, found, wished for, and their history.
In: a session and a spec, a job's id or its name. Out: Job and Segment rows.
Commands write wishes here; the controller reads them at its next pass.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, defer

from jobs.spec import InputError, JobSpec, parse
from orchestrator.store.schema import Event, Job, Segment

ENDED_STATES = ("done", "failed", "cancelled")
ACTIVE_STATES = ("queued", "waiting", "running", "pausing", "paused")
_AT_ONCE = 500
"""Ids in one question."""


def submit(session: Session, spec: JobSpec, now: datetime) -> Job:
    """Store a validated spec as a queued job; its id is the name, with a number where that is taken."""
    taken = session.scalar(select(func.count()).select_from(Job).where(Job.name == spec.name)) or 0
    job_id = spec.name if taken == 0 else f"{spec.name}-{taken + 1}"
    while session.get(Job, job_id) is not None:
        taken += 1
        job_id = f"{spec.name}-{taken + 1}"
    job = Job(
        id=job_id,
        name=spec.name,
        spec=spec.to_json(),
        likeness=likeness(spec),
        submitted_at=now,
        finish_by=spec.finish_by_at(now),
        not_before=spec.not_before,
        priority=spec.priority,
        metrics={},
        plan=None,
    )
    session.add(job)
    session.flush()
    note(session, job, now, "submitted")
    return job


def spec_of(job: Job) -> JobSpec:
    """The spec that the job was submitted with; InputError names the job where this lowtide cannot read it."""
    return parse(job.spec, JobSpec, f"the stored spec of {job.id}")


def likeness(spec: JobSpec) -> str:
    """A hash of what decides a job's speed and power: jobs with the same one learn from each other."""
    document = spec.to_json()
    training = {k: v for k, v in document.get("training", {}).items() if k in ("batch_size", "micro_batch_size")}
    data = {k: v for k, v in document.get("data", {}).items() if k in ("tokenizer", "sequence_length")}
    workers = {k: v for k, v in document["workers"].items() if k != "count"}
    parts = [document["job"], document.get("model"), document.get("distill"), training, data, workers]
    parts.append(document.get("deepspeed"))
    if spec.script is not None:
        parts.append(document["script"])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def find(session: Session, name: str) -> Job:
    """The job of this id, else the newest of this name; InputError where there is none."""
    job = session.get(Job, name)
    if job is None:
        newest = select(Job).where(Job.name == name).order_by(Job.submitted_at.desc()).limit(1)
        job = session.scalar(newest)
    if job is None:
        known = session.scalars(select(Job.id).order_by(Job.submitted_at.desc()).limit(8)).all()
        hint = f"known: {', '.join(known)}" if known else "none is stored yet"
        raise InputError(f"JOB: no job is called {name!r}; {hint}")
    return job


def all_jobs(session: Session) -> Sequence[Job]:
    """Every job, newest last."""
    return session.scalars(select(Job).order_by(Job.submitted_at, Job.id)).all()


def active_jobs(session: Session) -> Sequence[Job]:
    """Jobs that have not ended: higher priority first, then the longest waiting."""
    query = select(Job).where(Job.state.in_(ACTIVE_STATES))
    return session.scalars(query.order_by(Job.priority.desc(), Job.submitted_at, Job.id)).all()


def jobs_of(session: Session, ids: Iterable[str]) -> list[Job]:
    """The jobs of these ids, whole, in the order of `active_jobs`."""
    wanted, found = sorted(ids), list[Job]()
    for first in range(0, len(wanted), _AT_ONCE):
        found += session.scalars(select(Job).where(Job.id.in_(wanted[first : first + _AT_ONCE])))
    return sorted(found, key=lambda job: (-job.priority, job.submitted_at, job.id))


def of_ids(session: Session, ids: Iterable[str]) -> list[Job]:
    """The jobs of these ids, without their specs and plans, which are read when they are asked for."""
    wanted, found = sorted(ids), list[Job]()
    for first in range(0, len(wanted), _AT_ONCE):
        query = select(Job).where(Job.id.in_(wanted[first : first + _AT_ONCE]))
        found += session.scalars(query.options(defer(Job.spec), defer(Job.plan)))
    return found


class Shown(NamedTuple):
    """A job as the metrics show it."""

    id: str
    step: int
    zone: str | None
    """Where it runs, or where its newest checkpoint lies."""
    workers: int
    segment_id: str | None
    """Of the segment that runs."""


def shown(session: Session, since: datetime) -> list[Shown]:
    """The jobs that run, and those that ended later than `since`."""
    columns = (Job.id, Job.step, Segment.zone, Segment.workers, Segment.id)
    running = select(*columns).join(Segment, Segment.job_id == Job.id).where(Segment.ended.is_(None))
    ended = select(Job.id, Job.step, Job.zone).where(Job.ended_at > since)
    found = [Shown(*row) for row in session.execute(running)]
    # Sorted here: asked for an order, SQLite walks all jobs that ever were by their ids.
    found += [Shown(*row, 0, None) for row in session.execute(ended)]
    return sorted(found, key=lambda job: job.id)


def segments_of(session: Session, job_id: str) -> Sequence[Segment]:
    """The job's segments, first to last."""
    return session.scalars(select(Segment).where(Segment.job_id == job_id).order_by(Segment.n)).all()


def segments_by_job(session: Session, job_ids: Sequence[str]) -> dict[str, list[Segment]]:
    """The segments of these jobs, first to last; jobs without any are absent."""
    found = dict[str, list[Segment]]()
    for first in range(0, len(job_ids), _AT_ONCE):
        query = select(Segment).where(Segment.job_id.in_(job_ids[first : first + _AT_ONCE]))
        for segment in session.scalars(query.order_by(Segment.n)):
            found.setdefault(segment.job_id, []).append(segment)
    return found


def running_segments(session: Session, job_ids: Iterable[str] | None = None) -> list[Segment]:
    """The segments that have not ended, of these jobs or of all; a job has at most one."""
    query = select(Segment).where(Segment.ended.is_(None))
    if job_ids is None:
        return list(session.scalars(query))
    wanted, found = sorted(job_ids), list[Segment]()
    for first in range(0, len(wanted), _AT_ONCE):
        found += session.scalars(query.where(Segment.job_id.in_(wanted[first : first + _AT_ONCE])))
    return found


class Standing(NamedTuple):
    """A job as `status` shows it."""

    id: str
    name: str
    state: str
    reason: str
    step: int
    steps: int | None
    submitted_at: datetime
    finish_by: datetime | None
    not_before: datetime | None
    plan: dict[str, Any] | None
    planned_for: str | None
    zone: str | None
    """Where it runs."""
    workers: int | None


def standing(session: Session, ended: int | None = None, job_id: str | None = None) -> list[Standing]:
    """The jobs that have not ended, and of those that have the `ended` newest (None is all), or one; newest last."""
    columns = (Job.id, Job.name, Job.state, Job.reason, Job.step, Job.steps, Job.submitted_at, Job.finish_by)
    told = (*columns, Job.not_before, Job.plan, Job.planned_for, Segment.zone, Segment.workers)
    runs = and_(Segment.job_id == Job.id, Segment.ended.is_(None))
    query = select(*told).outerjoin(Segment, runs)
    if job_id is not None:
        queries = [query.where(Job.id == job_id)]
    else:
        newest = query.where(Job.ended_at.is_not(None)).order_by(Job.ended_at.desc(), Job.id).limit(ended)
        queries = [query.where(Job.ended_at.is_(None)), newest]
    found = [Standing(*row) for asked in queries for row in session.execute(asked)]
    return sorted(found, key=lambda job: (job.submitted_at, job.id))


def count_ended(session: Session) -> int:
    """How many jobs have ended."""
    return session.scalar(select(func.count(Job.ended_at))) or 0


def running_ids(session: Session) -> Sequence[str]:
    """The ids of the segments that have not ended."""
    return session.scalars(select(Segment.id).where(Segment.ended.is_(None))).all()


def running_segment(session: Session, job_id: str) -> Segment | None:
    """The job's segment that has not ended."""
    return session.scalar(select(Segment).where(Segment.job_id == job_id, Segment.ended.is_(None)))


def history(session: Session, job_id: str) -> Sequence[Event]:
    """The job's events, oldest first."""
    return session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.id)).all()


def note(session: Session, job: Job, at: datetime, text: str) -> None:
    """Append a line to the job's history."""
    session.add(Event(job_id=job.id, at=at, text=text))


def wish(session: Session, job: Job, wanted: str, now: datetime) -> None:
    """Record what the user asks for: run, hold or cancel; InputError where the job has ended."""
    if job.state in ENDED_STATES:
        raise InputError(f"JOB: {job.id} is {job.state}; only a job that has not ended can be changed")
    if job.wish == "cancel" and wanted != "cancel":
        raise InputError(f"JOB: {job.id} is being cancelled; submit it again instead")
    if job.wish != wanted:
        job.wish = wanted
        note(
            session,
            job,
            now,
            {"run": "resume asked for", "hold": "pause asked for", "cancel": "cancel asked for"}[wanted],
        )
