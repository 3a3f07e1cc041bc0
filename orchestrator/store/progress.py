"""How jobs went, by time: the loss and the step of a running job, a point now and then.
In: what the cluster shows of running segments. Out: one job's points, oldest first.
A pass keeps them beside the ledger's rows; loggers draw the loss beside watts, joules and grams.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cluster.api import SegmentView
from orchestrator.accounting.account import LossAt
from orchestrator.store.schema import Job, ProgressRow, Segment


def keep(session: Session, views: Mapping[str, SegmentView], every_s: float) -> None:
    """Keep a point of each segment that told a loss, at most one in `every_s` seconds a job, and always the last."""
    told = {segment_id: point for segment_id, view in views.items() if (point := _point(view)) is not None}
    query = select(Segment.id, Segment.job_id).where(Segment.id.in_(told))
    jobs = {segment_id: job_id for segment_id, job_id in session.execute(query)}
    newest = _newest(session, set(jobs.values()))
    for segment_id, job_id in jobs.items():
        point, last = told[segment_id], newest.get(job_id)
        pause = timedelta(0) if views[segment_id].result is not None else timedelta(seconds=every_s)
        if last is None or (point.at > last and point.at - last >= pause):
            session.add(ProgressRow(job_id=job_id, at=point.at, step=point.step, loss=point.loss))
            newest[job_id] = point.at


def points(session: Session, job_id: str) -> list[LossAt]:
    """What is kept of a job, oldest first; a step that was done again after a loss stands there again."""
    rows = session.scalars(select(ProgressRow).where(ProgressRow.job_id == job_id).order_by(ProgressRow.at))
    return [LossAt(row.at, row.step, row.loss) for row in rows]


def _point(view: SegmentView) -> LossAt | None:
    result, progress = view.result, view.progress
    if result is not None:
        loss = result.metrics.get("loss")
        return None if loss is None or result.ended in ("failed", "lost") else LossAt(result.at, result.step, loss)
    if progress is None or progress.loss is None:
        return None
    return LossAt(progress.at, progress.step, progress.loss)


def _newest(session: Session, job_ids: set[str]) -> dict[str, datetime]:
    # A question for each job, answered by the end of its index: a group would be read from its first point on.
    last = select(func.max(ProgressRow.at)).where(ProgressRow.job_id == Job.id).scalar_subquery()
    query = select(Job.id, last).where(Job.id.in_(job_ids))
    return {job_id: at for job_id, at in session.execute(query) if at is not None}
