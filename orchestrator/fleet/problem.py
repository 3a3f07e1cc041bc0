"""What the fleet planner is asked, as values: no clock, no Ray, no HTTP.
In: zones with their curves and GPUs, jobs with priorities, windows and deadlines. Out: a Fleet.
`plan_fleet` and `replan` make a FleetPlan of it (see `state`).

Capacity counts GPUs by slot. A plan never uses more in any moment; the bound is proven for capacity on average over
each slot, which is no less, so that it holds for every plan that keeps to it.

A zone may have limits on parts of its GPUs besides its own: those of one kind, those of nodes that hold a whole worker.
A job counts against its zone's limit and against those of the parts that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.plan.problem import Basis, Current, OperatingPoint, PauseCost, Problem, Stretch, ZoneOption


@dataclass(frozen=True)
class Capacity:
    """GPUs of a zone from `start` on, until the next one takes over."""

    start: datetime
    gpus: int


@dataclass(frozen=True)
class Pool:
    """A part of a zone's GPUs, for the jobs that name it."""

    gpus: int
    changes: tuple[Capacity, ...] = ()


@dataclass(frozen=True)
class FleetZone:
    """A zone that jobs share."""

    curve: tuple[Stretch, ...]
    pue: float = 1.0
    gpus: int | None = None
    """GPUs there now; None is no limit."""
    changes: tuple[Capacity, ...] = ()
    """Known changes of it, in order; within a slot the least counts."""
    stale_since: datetime | None = None
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """Limits on parts of it, by name; together they may have more than the zone, or less."""


@dataclass(frozen=True)
class FleetJob:
    """One job of the fleet; the fields that a Problem has too mean what they mean there."""

    job_id: str
    deadline: datetime
    work_steps: float
    points: Mapping[str, tuple[OperatingPoint, ...]]
    """By zone where the job may run."""
    gpus_per_worker: int = 1
    priority: int = 0
    """A higher one never misses its deadline for a lower one."""
    waiting_since: datetime | None = None
    """Of equal jobs the longest waiting comes first; None is the shortest."""
    pause: PauseCost = PauseCost()
    windows: tuple[tuple[datetime, datetime], ...] | None = None
    not_before: datetime | None = None
    current: Current | None = None
    started: bool = False
    last_zone: str | None = None
    max_g_per_kwh: float | None = None
    min_renewable_percent: float | None = None
    basis: Basis = "measured"
    spare_s: float = 0.0
    """How long before the deadline the plan is done where it can be; see `Problem.spare_s`."""
    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By zone the parts of it that the job's GPUs count against besides."""

    @classmethod
    def of(
        cls,
        problem: Problem,
        job_id: str,
        *,
        priority: int = 0,
        waiting_since: datetime | None = None,
        gpus_per_worker: int = 1,
    ) -> FleetJob:
        """The job of a single job's `problem`; curves and PUE are the fleet's zones'."""
        return cls(
            job_id=job_id,
            deadline=problem.deadline,
            work_steps=problem.work_steps,
            points={zone: option.points for zone, option in problem.zones.items()},
            gpus_per_worker=gpus_per_worker,
            priority=priority,
            waiting_since=waiting_since,
            pause=problem.pause,
            windows=problem.windows,
            current=problem.current,
            started=problem.started,
            last_zone=problem.last_zone,
            max_g_per_kwh=problem.max_g_per_kwh,
            min_renewable_percent=problem.min_renewable_percent,
            basis=problem.basis,
            spare_s=problem.spare_s,
        )


@dataclass(frozen=True)
class Fleet:
    """All jobs and zones, as the planner sees them at `now`."""

    now: datetime
    zones: Mapping[str, FleetZone]
    jobs: tuple[FleetJob, ...]
    slot_s: float = 900.0

    def problem(self, job: FleetJob) -> Problem:
        """The job as if it were alone."""
        zones = {
            name: ZoneOption(zone.curve, job.points[name], zone.pue, zone.stale_since)
            for name, zone in self.zones.items()
            if name in job.points
        }
        return Problem(
            now=self.now,
            deadline=max(job.deadline, self.now),
            work_steps=job.work_steps,
            zones=zones,
            slot_s=self.slot_s,
            pause=job.pause,
            windows=job.windows,
            current=job.current,
            started=job.started,
            max_g_per_kwh=job.max_g_per_kwh,
            min_renewable_percent=job.min_renewable_percent,
            basis=job.basis,
            last_zone=job.last_zone,
            spare_s=job.spare_s,
        )
