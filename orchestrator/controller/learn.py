"""What earlier segments teach: speed and power by worker count and power limit, and what a pause costs.
In: the store. Out: operating points and pause costs, measured where any like job has run.
The problem that a planner gets is built from them; without any the plan says `basis: assumed`.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from jobs.spec import JobSpec
from orchestrator.accounting.pauses import stop_s
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
_Trained = Mapping[str, tuple[float, float]]
"""By segment, the joules of all its workers in training, and its metered seconds."""
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
    checkpoint_bytes: int | None = None
    """Of the newest checkpoint; None where none was told of."""


def learn(session: Session, likeness: str) -> Learned:
    """What the newest segments of jobs of this likeness measured."""
    return learn_all(session, [likeness])[likeness]


def learn_all(session: Session, likenesses: Collection[str]) -> dict[str, Learned]:
    """The same of several likenesses, in two questions however many there are."""
    by_likeness: dict[str, list[Segment]] = {likeness: [] for likeness in likenesses}
    for likeness, segment in session.execute(_newest(likenesses)):
        by_likeness[likeness].append(segment)
    trained = draws.trained(session, [segment.id for own in by_likeness.values() for segment in own])
    return {likeness: _learned(own, trained) for likeness, own in by_likeness.items()}


def _learned(segments: Sequence[Segment], trained: _Trained) -> Learned:
    by_mode: dict[Mode, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_mode[segment.ran_as].append(segment)
    points = {mode: point for mode, own in by_mode.items() if (point := _point(mode, own, trained)) is not None}
    by_zone: dict[str, dict[Mode, OperatingPoint]] = defaultdict(dict)
    for mode, own in by_mode.items():
        for zone in {segment.zone for segment in own}:
            there = [segment for segment in own if segment.zone == zone]
            point = points.get(mode) if there == own else _point(mode, there, trained)
            if point is not None:
                by_zone[zone][mode] = point
    pause = PauseCost(_resume_s(segments), _move_s(segments))
    size_bytes = next((s.checkpoint_bytes for s in segments if s.checkpoint_bytes), None)
    return Learned(points, pause, _stop_s(segments), _variation(by_mode), dict(by_zone), size_bytes)


def _point(mode: Mode, segments: Sequence[Segment], trained: _Trained) -> OperatingPoint | None:
    """What these segments of one mode measured together; None where that is too little."""
    steps, duration_s = sum(s.trained_steps for s in segments), sum(s.trained_s for s in segments)
    known = [trained[s.id] for s in segments if s.id in trained]
    energy_j, metered_s = sum(total_j for total_j, _ in known), sum(longest_s for _, longest_s in known)
    if not _enough(steps, duration_s) or metered_s <= 0:
        return None
    return OperatingPoint(mode[0], steps / duration_s, energy_j / metered_s, mode[1])


def _newest(likenesses: Collection[str]) -> Select[str, Segment]:
    of_mode = func.row_number().over(
        partition_by=(Job.likeness, Segment.workers, Segment.power_limit_w), order_by=Segment.ordered_at.desc()
    )
    numbered = (
        select(Segment.id, Job.likeness, of_mode.label("number"))
        .join(Job, Job.id == Segment.job_id)
        .where(Job.likeness.in_(likenesses), Segment.trained_steps > 0)
        .subquery()
    )
    newest = select(numbered.c.likeness, Segment).join(numbered, numbered.c.id == Segment.id)
    return newest.where(numbered.c.number <= _NEWEST).order_by(Segment.ordered_at.desc())


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


def _resume_s(segments: Sequence[Segment]) -> float:
    """Median seconds from the order to the first step, and from the stop to the end, of what was measured.

    The time in which a checkpoint came from elsewhere is left out, for a move is charged it beside; and that in which
    others had the place of its workers, for that is no cost of a pause.
    """
    costs = []
    for segment in segments:
        if segment.first_step_at is not None:
            start_s = (segment.first_step_at - segment.ordered_at).total_seconds()
            start_s -= segment.parts_s.get("transfer", 0.0) + segment.parts_s.get("place", 0.0)
            costs.append(start_s + _parts_of_stop_s(segment))
    return statistics.median(costs) if costs else ASSUMED_RESUME_S


def _move_s(segments: Sequence[Segment]) -> float:
    """Median seconds that bringing a checkpoint from elsewhere took; 0 where none was brought."""
    moves = [float(s.parts_s["transfer"]) for s in segments if s.moved_bytes and "transfer" in s.parts_s]
    return statistics.median(moves) if moves else 0.0


def _stop_s(segments: Sequence[Segment]) -> float:
    stops = [_parts_of_stop_s(segment) for segment in segments if segment.parts_s]
    return STOP_MARGIN * max(stops) if stops else ASSUMED_STOP_S


def _parts_of_stop_s(segment: Segment) -> float:
    return stop_s(segment.parts_s)


def assumed_point(spec: JobSpec, mode: Mode, steps_per_s: float) -> OperatingPoint:
    """An operating point that nobody has measured, for a plan of basis `assumed`."""
    workers, limit_w = mode
    watts = spec.workers.gpus * (limit_w or ASSUMED_W_PER_GPU) or spec.workers.cpus * ASSUMED_W_PER_CPU
    return OperatingPoint(workers, steps_per_s, workers * watts, limit_w)
