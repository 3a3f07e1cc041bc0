"""Taking in what happened: views of segments and metered rows become facts, and jobs get their state.
In: the running segments, what the cluster shows of them, rows. Out: the store says what is so.
Level-triggered: seen twice, nothing changes; decisions come after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from cluster.api import Progress, SegmentResult, SegmentView
from orchestrator.controller.stuck import GONE_S, notice
from orchestrator.plan.record import when_done
from orchestrator.store import owed
from orchestrator.store.jobs import note, of_ids, running_segments
from orchestrator.store.schema import Job, Segment

MAX_RETRIES = 5
MOST_REFUSALS = 3
"""A segment that the cluster has refused to start so often is lost, and its room free for others until the retry."""
_BACK_OFF_S = 10.0


def settle(session: Session, views: Mapping[str, SegmentView], now: datetime) -> None:
    """Write down what the cluster shows of each running segment, and what that makes of its job."""
    # Read at once and held: each is then found in the session.
    running = running_segments(session)
    _held = of_ids(session, {segment.job_id for segment in running})
    for segment_id, view in views.items():
        segment = session.get(Segment, segment_id)
        if segment is None or segment.ended is not None:
            continue
        job = session.get_one(Job, segment.job_id)
        if view.status != "lost":
            segment.known = True
            notice(segment, view.progress, job.state == "pausing", now)
        if view.progress is not None:
            _advance(job, segment, view.progress)
        if view.progress is not None and view.progress.note != (segment.note or ""):
            segment.note = view.progress.note
            if segment.note:
                note(session, job, view.progress.at, f"segment {segment.n}: {segment.note}")
        for said in (view.progress, view.result):
            if said is not None and said.power_limit_refused and segment.power_limit_refused is None:
                segment.power_limit_refused = said.power_limit_refused
                note(session, job, now, f"segment {segment.n} runs without its power limit: {said.power_limit_refused}")
        if view.result is not None:
            _finish(session, job, segment, _as_killed(segment, view.result), now, view.message)
        elif view.status == "lost" and segment.known:
            # One that the cluster never knew is ordered again by the next act; one that it knew has died.
            _lose(session, job, segment, segment.hung or view.message, now)
        elif segment.hung is not None and segment.quiet_s > GONE_S:
            _lose(session, job, segment, f"{segment.hung}; nor does it end", now)


def _as_killed(segment: Segment, result: SegmentResult) -> SegmentResult:
    """What a killed segment says of its end is that it was killed; one that ended well after all stands."""
    if segment.hung is None or result.ended not in ("failed", "lost"):
        return result
    return replace(result, ended="lost", error=f"{result.error or ''}\n{segment.hung}".strip())


def _advance(job: Job, segment: Segment, progress: Progress) -> None:
    job.steps = progress.steps or job.steps
    if segment.first_step_at is None and progress.trained_steps > 0:
        _began(job, segment, progress.step - progress.trained_steps)
    segment.step = max(segment.step, progress.step)
    segment.trained_steps, segment.trained_s = progress.trained_steps, progress.trained_s
    job.step = max(job.step, progress.step)
    if progress.loss is not None:
        job.metrics = {**job.metrics, "loss": progress.loss}
    if progress.trained_steps > 0 and segment.first_step_at is None:
        segment.first_step_at = progress.at - timedelta(seconds=progress.trained_s)
    if job.state not in ("running", "pausing"):
        job.state = "running"


def _began(job: Job, segment: Segment, restored_step: int) -> None:
    """A segment's first steps say where its checkpoint really stands: what lost segments had saved counts, too.

    One that begins further on than the one before it did ends the row of retries: the job gets on, if slowly.
    """
    if restored_step > segment.start_step:
        job.retries = 0
    if restored_step != segment.start_step:
        segment.start_step = segment.step = job.step = restored_step


def _finish(session: Session, job: Job, segment: Segment, result: SegmentResult, now: datetime, why: str = "") -> None:
    segment.ended, segment.ended_at = result.ended, result.at
    owed.owe(segment)
    segment.parts_s, segment.checkpoint_bytes = dict(result.parts_s), result.checkpoint_bytes
    segment.error = result.error
    segment.moved_bytes, segment.moved_from = result.moved_bytes, result.moved_from
    if result.ended in ("failed", "lost"):
        # What was not saved is not done: the job stands again where its newest checkpoint stands.
        segment.step = job.step = segment.start_step
    else:
        segment.step = job.step = result.step
        job.steps = result.steps or job.steps
        job.metrics = {**job.metrics, **result.metrics}
        job.zone, job.retries = segment.zone, 0
    text = f"segment {segment.n} in {segment.zone} ended: {result.ended} at step {segment.step}"
    note(session, job, result.at, f"{text} ({why})" if why else text)
    if result.ended == "done":
        job.state, job.reason, job.ended_at = "done", "all steps are done", result.at
        job.plan = when_done(job.plan)
    elif result.ended == "failed":
        job.state, job.reason, job.ended_at = "failed", cause_of(result.error), result.at
        job.plan = None
    elif result.ended == "lost":
        _retry(job, now, cause_of(result.error))
    else:
        job.state, job.reason = "paused", f"segment {segment.n} ended: {why or result.ended}"


def refused(session: Session, segment_id: str, why: str, now: datetime) -> None:
    """Write down that the cluster would not start a segment; after a few times it is lost, and retried later."""
    segment = session.get_one(Segment, segment_id)
    job = session.get_one(Job, segment.job_id)
    if segment.ended is not None:
        return
    segment.refusals += 1
    text = f"cannot be started: {why}"
    if segment.refusals >= MOST_REFUSALS:
        _lose(session, job, segment, text, now)
    else:
        job.reason = f"{text}; tried {segment.refusals} of {MOST_REFUSALS} times"


def _lose(session: Session, job: Job, segment: Segment, message: str, now: datetime) -> None:
    segment.ended, segment.ended_at, segment.error = "lost", now, message or "the cluster no longer knows it"
    segment.step = job.step = segment.start_step
    if segment.known:
        owed.owe(segment)
    note(session, job, now, f"segment {segment.n} in {segment.zone} is lost: {segment.error}")
    _retry(job, now, segment.error)


def _retry(job: Job, now: datetime, cause: str) -> None:
    job.retries += 1
    if job.retries > MAX_RETRIES:
        job.state, job.ended_at = "failed", now
        job.reason = f"lost {job.retries} segments in a row, the last: {cause}"
        return
    job.state, job.reason = "waiting", retry_text(job, cause)
    job.not_before = max(job.not_before or now, now + _back_off(job))


def retry_at(job: Job, asked: datetime | None, now: datetime) -> datetime | None:
    """Not before when a job may start: as it is written, but no later than its back-off from now.

    It is later where the clock was set back since it was written. What the user `asked` for in the spec stands.
    """
    if job.not_before is None or job.retries == 0:
        return job.not_before
    return min(job.not_before, max(now + _back_off(job), asked or now))


def _back_off(job: Job) -> timedelta:
    return timedelta(seconds=_BACK_OFF_S * 2 ** (job.retries - 1))


def retry_text(job: Job, cause: str) -> str:
    """Why a job waits for its next try."""
    return f"lost its segment ({cause}); retry {job.retries} of {MAX_RETRIES}"


def cause_of(error: str | None) -> str:
    """The last line of a traceback: the one that names the error."""
    lines = [line for line in (error or "").strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it left no reason"
