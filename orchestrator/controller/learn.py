"""What earlier segments teach: speed and power by worker count and power limit, and what a pause costs.
In: the store. Out: operating points and pause costs, measured where any like job has run.
The problem that a planner gets is built from them; without any the plan says `basis: assumed`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from jobs.spec import JobSpec
from orchestrator.plan.problem import Mode, OperatingPoint, PauseCost
from orchestrator.store import draws
from orchestrator.store.schema import Job, Segment

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
"""How many of the newest segments of each mode are learned from: a machine that changed is soon learned anew."""


@dataclass(frozen=True)
class Learned:
    """Measured figures of one kind of job."""

    points: dict[Mode, OperatingPoint]
    pause: PauseCost
    stop_s: float
    """From the wish to stop to the end of the workers: a segment is told that much before its window closes."""
    variation: float = 0.0
    """Standard deviation of the segments' speeds over their mean: plans are done by so much before the deadline."""
    by_zone: Mapping[str, Mapping[Mode, OperatingPoint]] = field(default_factory=dict)
    """What was measured in each zone: its machines may be faster, or thirstier, than others."""


def learn(session: Session, likeness: str) -> Learned:
    """What the newest segments of jobs of this likeness measured."""
    segments = session.scalars(_newest(likeness)).all()
    by_mode: dict[Mode, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_mode[segment.ran_as].append(segment)
    points = {mode: point for mode, own in by_mode.items() if (point := _point(session, mode, own)) is not None}
    by_zone: dict[str, dict[Mode, OperatingPoint]] = defaultdict(dict)
    for mode, own in by_mode.items():
        for zone in {segment.zone for segment in own}:
            there = [segment for segment in own if segment.zone == zone]
            point = points.get(mode) if there == own else _point(session, mode, there)
            if point is not None:
                by_zone[zone][mode] = point
    pause = PauseCost(resume_s=_resume_s(segments))
    return Learned(points, pause, _stop_s(segments), _variation(by_mode), dict(by_zone))


def _point(session: Session, mode: Mode, segments: Sequence[Segment]) -> OperatingPoint | None:
    """What these segments of one mode measured together; None where that is too little."""
    steps, duration_s = sum(s.trained_steps for s in segments), sum(s.trained_s for s in segments)
    power_w = _train_power_w(session, [s.id for s in segments])
    if not _enough(steps, duration_s) or power_w is None:
        return None
    return OperatingPoint(mode[0], steps / duration_s, power_w, mode[1])


def _newest(likeness: str) -> Select[Segment]:
    of_mode = func.row_number().over(
        partition_by=(Segment.workers, Segment.power_limit_w), order_by=Segment.ordered_at.desc()
    )
    numbered = (
        select(Segment.id, of_mode.label("number"))
        .join(Job, Job.id == Segment.job_id)
        .where(Job.likeness == likeness, Segment.trained_steps > 0)
        .subquery()
    )
    newest = select(numbered.c.id).where(numbered.c.number <= _NEWEST)
    return select(Segment).where(Segment.id.in_(newest)).order_by(Segment.ordered_at.desc())


def _enough(steps: int, duration_s: float) -> bool:
    return duration_s > 0 and (steps >= CALIBRATION_STEPS or duration_s >= CALIBRATION_S)


def _variation(by_mode: Mapping[Mode, Sequence[Segment]]) -> float:
    """Of the mode whose speed varies most; a mode with fewer than three measured segments tells nothing."""
    found = [0.0]
    for measured in by_mode.values():
        speeds = [s.trained_steps / s.trained_s for s in measured if _enough(s.trained_steps, s.trained_s)]
        if len(speeds) >= 3:
            found.append(statistics.stdev(speeds) / statistics.fmean(speeds))
    return min(MOST_VARIATION, max(found))


def _train_power_w(session: Session, segment_ids: Sequence[str]) -> float | None:
    """Mean watts of all workers together while they trained; None before the first row is in."""
    trained = draws.trained(session, segment_ids).values()
    energy_j, duration_s = sum(total_j for total_j, _ in trained), sum(longest_s for _, longest_s in trained)
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


def assumed_point(spec: JobSpec, mode: Mode, steps_per_s: float) -> OperatingPoint:
    """An operating point that nobody has measured, for a plan of basis `assumed`."""
    workers, limit_w = mode
    watts = spec.workers.gpus * (limit_w or ASSUMED_W_PER_GPU) or spec.workers.cpus * ASSUMED_W_PER_CPU
    return OperatingPoint(workers, steps_per_s, workers * watts, limit_w)
