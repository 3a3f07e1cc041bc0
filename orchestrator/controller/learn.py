"""What earlier segments teach: speed and power by worker count, and what a pause costs.
In: the store. Out: operating points and pause costs, measured where any like job has run.
The problem that a planner gets is built from them; without any the plan says `basis: assumed`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.spec import JobSpec
from orchestrator.plan.problem import OperatingPoint, PauseCost
from orchestrator.store.schema import Job, LedgerRow, Segment

CALIBRATION_STEPS = 20
CALIBRATION_S = 120.0
ASSUMED_RESUME_S = 60.0
ASSUMED_STOP_S = 15.0
STOP_MARGIN = 1.5
"""No two stops take equally long, and a window closes when it closes."""
ASSUMED_W_PER_GPU = 300.0
ASSUMED_W_PER_CPU = 10.0
MOST_VARIATION = 0.25
"""A plan keeps no more time to spare than this share of what it needs."""
_NEWEST = 12
"""How many of the newest segments are learned from: a machine that changed is soon learned anew."""


@dataclass(frozen=True)
class Learned:
    """Measured figures of one kind of job."""

    points: dict[int, OperatingPoint]
    pause: PauseCost
    stop_s: float
    """From the wish to stop to the end of the workers: a segment is told that much before its window closes."""
    variation: float = 0.0
    """Standard deviation of the segments' speeds over their mean: plans are done by so much before the deadline."""


def learn(session: Session, likeness: str) -> Learned:
    """What the newest segments of jobs of this likeness measured."""
    query = (
        select(Segment)
        .join(Job, Job.id == Segment.job_id)
        .where(Job.likeness == likeness, Segment.trained_steps > 0)
        .order_by(Segment.ordered_at.desc())
        .limit(_NEWEST)
    )
    segments = session.scalars(query).all()
    by_width: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_width[segment.workers].append(segment)
    points = {}
    for workers, measured in by_width.items():
        steps, duration_s = sum(s.trained_steps for s in measured), sum(s.trained_s for s in measured)
        power_w = _train_power_w(session, [s.id for s in measured])
        if _enough(steps, duration_s) and power_w is not None:
            points[workers] = OperatingPoint(workers, steps / duration_s, power_w)
    return Learned(points, PauseCost(resume_s=_resume_s(segments)), _stop_s(segments), _variation(by_width))


def _enough(steps: int, duration_s: float) -> bool:
    return duration_s > 0 and (steps >= CALIBRATION_STEPS or duration_s >= CALIBRATION_S)


def _variation(by_width: Mapping[int, Sequence[Segment]]) -> float:
    """Of the width whose speed varies most; a width with fewer than three measured segments tells nothing."""
    found = [0.0]
    for measured in by_width.values():
        speeds = [s.trained_steps / s.trained_s for s in measured if _enough(s.trained_steps, s.trained_s)]
        if len(speeds) >= 3:
            found.append(statistics.stdev(speeds) / statistics.fmean(speeds))
    return min(MOST_VARIATION, max(found))


def _train_power_w(session: Session, segment_ids: Sequence[str]) -> float | None:
    """Mean watts of all workers together while they trained; None before the first row is in."""
    rows = session.execute(
        select(LedgerRow.segment_id, LedgerRow.rank, LedgerRow.start, LedgerRow.end, LedgerRow.energy_j).where(
            LedgerRow.segment_id.in_(segment_ids),
            LedgerRow.phase == "train",
            LedgerRow.rank >= 0,
            LedgerRow.energy_j.is_not(None),
        )
    ).all()
    energy_j, spans_s = 0.0, defaultdict[str, dict[int, float]](lambda: defaultdict(float))
    for segment_id, rank, start, end, row_j in rows:
        assert segment_id is not None and rank is not None and row_j is not None  # as the query asks
        energy_j += row_j
        spans_s[segment_id][rank] += (end - start).total_seconds()
    # Ranks train at the same time: the time of a segment is that of its longest-metered rank.
    duration_s = sum(max(by_rank.values()) for by_rank in spans_s.values())
    return energy_j / duration_s if duration_s > 0 else None


def _resume_s(segments: Sequence[Segment]) -> float:
    """Median seconds from the order to the first step, and from the stop to the end, of what was measured."""
    costs = []
    for segment in segments:
        if segment.first_step_at is not None:
            start_s = (segment.first_step_at - segment.ordered_at).total_seconds()
            costs.append(start_s + _parts_of_stop_s(segment))
    return statistics.median(costs) if costs else ASSUMED_RESUME_S


def _stop_s(segments: Sequence[Segment]) -> float:
    stops = [_parts_of_stop_s(segment) for segment in segments if segment.parts_s]
    return STOP_MARGIN * max(stops) if stops else ASSUMED_STOP_S


def _parts_of_stop_s(segment: Segment) -> float:
    return float(sum(segment.parts_s.get(part, 0.0) for part in ("step_end", "checkpoint", "publish", "end")))


def assumed_point(spec: JobSpec, workers: int, steps_per_s: float) -> OperatingPoint:
    """An operating point that nobody has measured, for a plan of basis `assumed`."""
    watts = spec.workers.gpus * ASSUMED_W_PER_GPU or spec.workers.cpus * ASSUMED_W_PER_CPU
    return OperatingPoint(workers, steps_per_s, workers * watts)
