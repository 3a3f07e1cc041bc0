"""Which jobs must share what: those that want more together than a zone, or a part of it, has are one fleet.
In: framed jobs, the zones' limits, what is taken besides. Out: Fleets to be planned, by what is shared.
`orchestrator.planner` asks it beside the passes. Who is in no fleet is planned alone, as if no others were there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from jobs.spec import JobSpec
from orchestrator.controller.pools import CPU_PARTS, Limit
from orchestrator.controller.told import digest
from orchestrator.plan.problem import OperatingPoint, Plan, Problem, ZoneOption
from orchestrator.store.fleets import Kind

if TYPE_CHECKING:
    from orchestrator.fleet import Capacity, Fleet, FleetZone

TOGETHER = "optimal"
"""The policy whose jobs are planned together; those of others keep what they plan."""
_MARGIN_S = 60.0
"""A job that has not started so long after its plan said so does not follow it."""
_DRIFT = 0.25
"""So much of a slot may a job's work be ahead of its plan, or behind, until it is planned anew."""


@dataclass(frozen=True)
class Member:
    """A job that wants room."""

    job_id: str
    spec: JobSpec
    problem: Problem
    priority: int
    submitted_at: datetime
    plan: Plan | None
    """The newest one, whoever made it."""
    not_before: datetime | None = None
    """No start before it: the spec's, or the back-off after a lost segment."""

    @property
    def kind(self) -> Kind:
        """What it takes of a zone."""
        return "gpus" if self.spec.workers.gpus else "cpus"

    @property
    def is_planned(self) -> bool:
        """Whether the fleet planner is to say when it runs."""
        options = self.problem.zones.values()
        can_run = any(point.steps_per_s > 0 for option in options for point in option.points)
        # What cannot save is never stopped: it takes its room once it runs.
        return self.spec.carbon.policy == TOGETHER and self.problem.work_steps > 0 and can_run and not self.is_blind

    @property
    def is_blind(self) -> bool:
        """Whether it runs to its end once started, whatever a plan says."""
        return self.spec.is_blind()

    def each(self, kind: Kind) -> int:
        """What one worker takes, in GPUs or thousandths of CPUs."""
        return self.spec.workers.gpus if kind == "gpus" else round(self.spec.workers.cpus * CPU_PARTS)

    def most(self, zone: str, kind: Kind) -> int:
        """What it takes in a zone at its widest."""
        widths = [point.workers for point in self.problem.zones[zone].points] if zone in self.problem.zones else [0]
        return max(widths, default=0) * self.each(kind)


@dataclass(frozen=True)
class Shared:
    """A fleet, and what it was made of."""

    kind: Kind
    zones: tuple[str, ...]
    """Where more is wanted than there is."""
    members: tuple[Member, ...]
    fleet: Fleet


def shared(
    kind: Kind, members: Sequence[Member], there: Mapping[str, tuple[Limit, ...]], now: datetime, slot_s: float
) -> Shared | None:
    """The fleet of those `members` that cannot all run at once where they may; None where they can."""
    from orchestrator.fleet import Fleet, FleetJob

    of_kind = [member for member in members if member.each(kind) > 0 and (kind == "cpus" or member.kind == kind)]
    crowded = _crowded(of_kind, there, kind)
    planned = tuple(
        member
        for member in of_kind
        if member.kind == kind and member.is_planned and any(_limits_of(member, crowded, kind).values())
    )
    if not planned:
        return None
    ids = {member.job_id for member in planned}
    others = [member for member in of_kind if member.job_id not in ids]
    zones = {}
    for member in planned:
        for zone, option in member.problem.zones.items():
            if zone not in zones:
                zones[zone] = _zone(option, crowded.get(zone, ()), others, zone, kind, now, slot_s)
    jobs = tuple(
        replace(
            FleetJob.of(
                member.problem,
                member.job_id,
                priority=member.priority,
                waiting_since=member.submitted_at,
                gpus_per_worker=member.each(kind),
            ),
            not_before=member.not_before,
            pools={
                zone: tuple(limit.name for limit in found if limit.name)
                for zone, found in _limits_of(member, crowded, kind).items()
            },
        )
        for member in planned
    )
    return Shared(kind, tuple(crowded), planned, Fleet(now, zones, jobs, slot_s))


def _crowded(
    members: Sequence[Member], there: Mapping[str, tuple[Limit, ...]], kind: Kind
) -> dict[str, tuple[Limit, ...]]:
    """By zone the limits that have less than all they count want at their widest."""

    def wanted(limit: Limit, zone: str) -> int:
        return sum(member.most(zone, kind) for member in members if limit.counts(member, kind))

    found = {
        zone: tuple(limit for limit in own if limit.most is not None and wanted(limit, zone) > limit.most)
        for zone, own in there.items()
    }
    return {zone: own for zone, own in found.items() if own}


def _limits_of(member: Member, crowded: Mapping[str, tuple[Limit, ...]], kind: Kind) -> dict[str, list[Limit]]:
    """By zone the limits that the member counts against."""
    return {
        zone: [limit for limit in crowded.get(zone, ()) if limit.counts(member, kind)] for zone in member.problem.zones
    }


def _zone(
    option: ZoneOption,
    crowded: Sequence[Limit],
    others: Sequence[Member],
    zone: str,
    kind: Kind,
    now: datetime,
    slot_s: float,
) -> FleetZone:
    """The zone with what its limits leave once others have theirs."""
    from orchestrator.fleet import FleetZone, Pool

    left: dict[str, tuple[int, tuple[Capacity, ...]]] = {}
    for limit in crowded:
        if limit.most is not None:
            taken = _taken([each for each in others if limit.counts(each, kind)], zone, kind, now, slot_s)
            left[limit.name] = limit.most, _left(limit.most, taken)
    gpus, changes = left.pop("", (None, ()))
    pools = {name: Pool(*own) for name, own in left.items()}
    return FleetZone(option.curve, option.pue, gpus, changes, option.stale_since, pools)


def made_from(member: Member, window_end: datetime | None) -> str:
    """A hash of what a member's plan depends on, but for how far it has come: unchanged, its plan stands."""
    problem, carbon = member.problem, member.spec.carbon
    options = [(zone, [_rounded(point) for point in option.points]) for zone, option in sorted(problem.zones.items())]
    pause = (f"{problem.pause.resume_s:.2g}", f"{problem.pause.move_s:.2g}")
    asked = (carbon.windows, carbon.finish_by and problem.deadline, carbon.min_run_s, problem.max_pauses is not None)
    bounds = (problem.max_g_per_kwh, problem.min_renewable_percent, carbon.budget_g, problem.basis)
    return digest((options, pause, asked, bounds, member.priority, member.not_before, window_end))


def follows(member: Member, plan: Plan, now: datetime) -> bool:
    """Whether the job does what its fleet's plan says, as far as it should by now."""
    problem, current = member.problem, member.problem.current
    slot = plan.at(now)
    is_late = slot is not None and (now - slot.start).total_seconds() > min(_MARGIN_S, problem.slot_s)
    if current is None and is_late:
        return False
    if current is not None and (slot is None or (slot.zone, slot.mode) != (current.zone, current.mode)):
        return False
    return abs(_planned_steps(member, plan, now) - problem.work_steps) <= _drift_steps(member)


def taken_after(plans: Iterable[tuple[Plan, int]], zone: str, now: datetime) -> list[tuple[datetime, datetime, int]]:
    """What plans take of a zone from now on, each with what one worker takes."""
    return [
        (slot.start, slot.end, slot.workers * each)
        for plan, each in plans
        for slot in plan.slots
        if slot.zone == zone and slot.end > now
    ]


def _taken(
    others: Sequence[Member], zone: str, kind: Kind, now: datetime, slot_s: float
) -> list[tuple[datetime, datetime, int]]:
    """What jobs take that are planned otherwise, by whole slots, so that it changes only when they do."""
    plans = [(member.plan, member.each(kind)) for member in others if member.plan is not None]
    return [
        (_edge(start, slot_s, 0), _edge(end, slot_s, 1), count) for start, end, count in taken_after(plans, zone, now)
    ]


def _edge(moment: datetime, slot_s: float, up: int) -> datetime:
    """The edge of a slot before (0) or after (1) the moment, itself where it is one."""
    slots, rest = divmod(moment.timestamp(), slot_s)
    return datetime.fromtimestamp((slots + (up if rest > 1e-6 else 0)) * slot_s, moment.tzinfo)


def _left(most: int, taken: Sequence[tuple[datetime, datetime, int]]) -> tuple[Capacity, ...]:
    """What is left of a zone, from each moment on at which that changes."""
    from orchestrator.fleet import Capacity

    edges: dict[datetime, int] = {}
    for start, end, count in taken:
        edges[start] = edges.get(start, 0) - count
        edges[end] = edges.get(end, 0) + count
    left, found = most, []
    for moment in sorted(edges):
        left += edges[moment]
        found.append(Capacity(moment, max(0, left)))
    return tuple(found)


def _rounded(point: OperatingPoint) -> tuple[object, ...]:
    """A point as far as it matters: measured figures move a little with every row that comes in."""
    return point.mode, f"{point.steps_per_s:.2g}", f"{point.power_w:.2g}"


def _planned_steps(member: Member, plan: Plan, now: datetime) -> float:
    """The work that the plan has left from now on."""
    problem, steps, last = member.problem, 0.0, member.problem.current
    here = (last.zone, last.mode) if last is not None else None
    for slot in plan.slots:
        options = problem.zones[slot.zone].points if slot.zone in problem.zones else ()
        point = next((point for point in options if point.mode == slot.mode), None)
        if slot.end <= now or point is None:
            continue
        lost_s = 0.0 if here == (slot.zone, slot.mode) and slot.start <= now else problem.pause.resume_s
        lost_s += problem.pause.move_s if here is not None and here[0] != slot.zone else 0.0
        span_s = (slot.end - max(slot.start, now)) / timedelta(seconds=1)
        steps += point.steps_per_s * max(0.0, span_s - lost_s)
        here = (slot.zone, slot.mode)
    return steps


def _drift_steps(member: Member) -> float:
    fastest = max(point.steps_per_s for option in member.problem.zones.values() for point in option.points)
    slack_s = _DRIFT * member.problem.slot_s + member.problem.pause.resume_s
    return fastest * slack_s + 0.02 * member.problem.work_steps
