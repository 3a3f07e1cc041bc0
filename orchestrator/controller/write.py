"""Decisions become facts before they are carried out, so that a pass that dies half-way is finished by the next.
In: a Verdict on one job. Out: the job's new state in the store, and the order that the cluster shall follow.
The controller sends the orders when the transaction is through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from cluster.api import Desire, SegmentOrder
from jobs.spec import JobSpec
from orchestrator.controller.asleep import Rest
from orchestrator.controller.decide import Decision, End, Go, Kill, Wait, words
from orchestrator.site import Site
from orchestrator.store.jobs import note, of_ids, running_segments, segments_of
from orchestrator.store.schema import Job, Segment

RENEWED_BELOW = 0.8
"""Share of `renew_within` with which a segment is not renewed yet: passes that renewed a thousand did little else."""


@dataclass(frozen=True)
class Verdict:
    """What a pass decided for one job."""

    job_id: str
    spec: JobSpec
    decision: Decision
    plan: dict[str, Any] | None
    """The plan's document; None where nothing could be planned."""
    planned_for: str | None
    rest: Rest | None = None
    """How long it stands where nothing changes; None where the next pass is to look again."""
    nodes: tuple[str, ...] = ()
    """Where a start has taken its room."""


@dataclass(frozen=True)
class Order:
    """A segment to start, or one that runs already and is told what is wanted of it, or killed."""

    segment: SegmentOrder
    known: bool
    kill: bool = False


def stands(verdict: Verdict, job: Job, segment: Segment | None, site: Site, now: datetime) -> bool:
    """True where the verdict is what the store says already, and what a running segment was told holds for a while."""
    if verdict.plan is not None and verdict.planned_for != job.planned_for:
        return False
    decision = verdict.decision
    if isinstance(decision, Wait):
        return (decision.state, decision.text) == (job.state, job.reason)
    if not isinstance(decision, Go) or segment is None or not segment.known:
        return False
    told = (job.state, job.reason, segment.ends_as)
    if told != ("running", _told(decision, segment), decision.ends_as) or segment.run_until > decision.run_until:
        return False
    if decision.ends_as != "expired":
        return segment.run_until == decision.run_until
    return (segment.run_until - now).total_seconds() >= RENEWED_BELOW * site.renew_within_s


def write_all(session: Session, verdicts: Sequence[Verdict], site: Site, epoch: int, now: datetime) -> list[Order]:
    """Write verdicts, each on a job of its own; returns the orders that follow from them."""
    # Read at once and held, for a session forgets what nobody holds: each write then finds its job there.
    ids = [verdict.job_id for verdict in verdicts]
    _held = of_ids(session, ids)
    running = {segment.job_id: segment for segment in running_segments(session, ids)}
    written = [_write(session, verdict, running.get(verdict.job_id), site, epoch, now) for verdict in verdicts]
    return [order for order in written if order is not None]


def set_aside(session: Session, job_id: str, why: str, now: datetime) -> None:
    """Write why nothing can be decided for a job; what of it runs is renewed no more: it is saved and ends."""
    job = session.get_one(Job, job_id)
    segments = segments_of(session, job_id)
    if any(segment.ended is None for segment in segments):
        job.reason = why
    elif job.wish == "cancel":
        _set(session, job, "cancelled", "cancelled by the user", now)
    else:
        _set(session, job, "paused" if segments else "waiting", why, now)


def _write(
    session: Session, verdict: Verdict, segment: Segment | None, site: Site, epoch: int, now: datetime
) -> Order | None:
    job = session.get_one(Job, verdict.job_id)
    if verdict.plan is not None and job.planned_for != verdict.planned_for:
        job.plan, job.planned_for = verdict.plan, verdict.planned_for
    decision = verdict.decision
    if isinstance(decision, Wait):
        if job.not_before is not None and decision.until is not None and decision.until < job.not_before:
            job.not_before = decision.until  # the clock was set back: from here on it is as if written now
        _set(session, job, decision.state, decision.text, now)
        return None
    if isinstance(decision, Go):
        if segment is None:
            segment = _begin(session, job, verdict.spec, decision, site, now)
        segment.run_until, segment.ends_as = decision.run_until, decision.ends_as
        _set(session, job, "running", _told(decision, segment), now)
    elif isinstance(decision, End) and segment is not None:
        if not segment.known:
            # The cluster has never had it: there is nothing to end.
            segment.ended, segment.ended_at = decision.ends_as, now
            _set(session, job, "paused", decision.text, now)
            return None
        if segment.run_until > now:
            segment.run_until, segment.ends_as = now, decision.ends_as
        if job.state != "pausing":
            segment.quiet_s = 0.0  # from now on it counts how long it takes to end
        _set(session, job, "pausing", decision.text, now)
    elif isinstance(decision, Kill) and segment is not None:
        if segment.hung is None:
            segment.hung, segment.quiet_s = decision.text, 0.0
            note(session, job, now, f"segment {segment.n} is killed: {decision.text}")
        _set(session, job, "pausing", f"is being killed: {decision.text}", now)
    if segment is None:
        return None
    order = _order(job, segment, verdict.spec, site, epoch)
    if not segment.known:
        also_at = _also_at(segments_of(session, job.id), segment, site)
        order = replace(order, also_at=also_at, nodes=verdict.nodes)
    return Order(order, segment.known, kill=isinstance(decision, Kill))


def _told(go: Go, segment: Segment) -> str:
    return f"{go.text}; {segment.note}" if segment.note else go.text


def _begin(session: Session, job: Job, spec: JobSpec, go: Go, site: Site, now: datetime) -> Segment:
    n = len(segments_of(session, job.id)) + 1
    workers, limit_w = go.mode
    there = site.places(job.zone, job.id)[0] if job.zone in site.zones else None
    moved = there is not None and there not in site.places(go.zone, job.id)
    segment = Segment(
        id=f"{job.id}-{n}",
        job_id=job.id,
        n=n,
        zone=go.zone,
        workers=workers,
        power_limit_w=limit_w,
        gpus=workers * spec.workers.gpus,
        reason=go.start,
        restore_from=there if moved else None,
        run_until=go.run_until,
        ends_as=go.ends_as,
        ordered_at=now,
        known=False,
        start_step=job.step,
        step=job.step,
        parts_s={},
    )
    session.add(segment)
    note(session, job, now, f"segment {n} ordered in {go.zone} with {words(go.mode)} ({go.start}): {go.text}")
    return segment


def _set(session: Session, job: Job, state: str, reason: str, now: datetime) -> None:
    if (job.state, job.reason) == (state, reason):
        return
    if job.state != state:
        note(session, job, now, f"{state}: {reason}")
    job.state, job.reason = state, reason
    if state == "cancelled":
        job.ended_at = now


def _order(job: Job, segment: Segment, spec: JobSpec, site: Site, epoch: int) -> SegmentOrder:
    return SegmentOrder(
        segment_id=segment.id,
        job_id=job.id,
        reason=segment.reason,  # type: ignore[arg-type]  # written by decide.py, whose type it is
        zone=segment.zone,
        workers=segment.workers,
        power_limit_w=segment.power_limit_w,
        spec=spec,
        desire=Desire(segment.run_until, segment.ends_as, epoch),  # type: ignore[arg-type]  # likewise
        slot_s=site.slot_s,
        checkpoints=site.checkpoints(segment.zone, job.id),
        restore_from=segment.restore_from,
        spool=site.spool,
        mirror=site.mirror(segment.zone, job.id),
        start_step=segment.start_step,
    )


def _also_at(segments: Sequence[Segment], segment: Segment, site: Site) -> tuple[str, ...]:
    """Other places where the newest checkpoint may lie: of the last segment that saved it, and of lost ones since.

    What a lost segment had saved nobody was told.
    """
    places: list[str] = []
    for before in reversed([each for each in segments if each.n < segment.n]):
        if before.zone in site.zones:
            places += site.places(before.zone, segment.job_id)
        if before.ended not in ("lost", "failed"):
            break
    here = {*site.places(segment.zone, segment.job_id), segment.restore_from}
    return tuple(dict.fromkeys(place for place in places if place not in here))
