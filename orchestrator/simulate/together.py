"""Many jobs that share GPUs by one policy, in simulated time: who is there is planned, all run, the next one arrives.
In: a Setting with GPUs, Tasks, a policy. Out: an Outcome for each task.
`results` sums them as it sums those of `follow`, whose steps and bills these are.

A job is known from its submission on. Then, and where a forecast is planned by at each slot's edge too, plans are made
with what is left to do; what runs goes on without a start. `optimal` is the fleet planner, which plans everything anew
at the edges of slots and between them only whom has come, and keeps time for those to come. By any other policy each
job plans alone: by priority, then by submission, within the GPUs that those before it leave. A job then sees a zone in
the slots in which as many GPUs are left as it takes at its widest; of the plans for each limit on its width it takes
the one that emits least, and where none is in time it runs whenever there is room, at the fixed width that ends
soonest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import numpy as np

from jobs.spec import InputError, iso
from orchestrator.plan import POLICIES, PlannedSlot, Problem
from orchestrator.plan.lattice import Lattice, lattice
from orchestrator.plan.price import Run, price, until_done
from orchestrator.simulate.follow import Outcome, Walk, next_slot
from orchestrator.simulate.setting import Setting, Task

if TYPE_CHECKING:
    from orchestrator.fleet import FleetJob, FleetPlan, FleetZone

TOGETHER = "optimal"
"""The policy by which the jobs are planned together."""

Live = Mapping[int, Walk]
"""Who has come and is not done, by the task's number."""
Slots = Sequence[PlannedSlot]

_SECOND = timedelta(seconds=1)
_NEAR_S = 1e-6


class _Planner(Protocol):
    def plan(self, live: Live) -> Mapping[int, Slots]:
        """What each of `live` is to do from now on."""

    @property
    def is_due(self) -> bool:
        """Whether to plan at the next edge of a slot, be there someone new or not."""


def follow_fleet(
    setting: Setting, tasks: Sequence[Task], policy: str, after_each: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Run `tasks` by `policy`, in their order; `after_each` is called as each of them ends.

    InputError where the policy does not exist or no zone ever has the GPUs that a task needs.
    """
    if policy not in POLICIES:
        raise InputError(f"carbon.policy: {policy!r} is not there yet; choose one of {', '.join(POLICIES)}")
    for task in tasks:
        if not setting.has_room(task):
            raise InputError(f"--capacity: no zone has the GPUs of the job of {iso(task.start)}; give one more")
    planner: _Planner = _Together(setting, tasks) if policy == TOGETHER else _Alone(setting, policy)
    walks = [Walk(setting, task) for task in tasks]
    to_come = sorted(range(len(tasks)), key=lambda number: tasks[number].start, reverse=True)
    live: dict[int, Walk] = {}
    while to_come or live:
        now = min(walk.now for walk in (live or {to_come[-1]: walks[to_come[-1]]}).values())
        while to_come and tasks[to_come[-1]].start <= now:
            number = to_come.pop()
            live[number] = walks[number]
        plans = planner.plan(live)
        stops = [tasks[to_come[-1]].start] if to_come else []
        if planner.is_due:
            stops.append(next_slot(now, setting.slot_s))
        for number, walk in live.items():
            walk.along(plans[number], min(stops, default=None))
        for number in [number for number, walk in live.items() if walk.done]:
            del live[number]
            after_each()
    return [walk.outcome(policy) for walk in walks]


class _Alone:
    """Each job by the policy, in order, within what is left."""

    def __init__(self, setting: Setting, policy: str) -> None:
        self.setting, self.choose = setting, POLICIES[policy]
        self._made: dict[int, Slots] = {}

    @property
    def is_due(self) -> bool:
        return not self.setting.foresees

    def plan(self, live: Live) -> Mapping[int, Slots]:
        """Plans by what comes stand until someone comes who is before the job in the order."""
        taken: list[tuple[PlannedSlot, int]] = []
        stands = self.setting.foresees
        for number in sorted(live, key=lambda each: (-live[each].task.priority, live[each].task.start, each)):
            task, stands = live[number].task, stands and number in self._made
            if not stands:
                self._made[number] = self._slots(live[number].problem(), task, taken)
            taken += [(slot, slot.workers * task.gpus_per_worker) for slot in self._made[number]]
        return self._made

    def _slots(self, problem: Problem, task: Task, taken: Sequence[tuple[PlannedSlot, int]]) -> Slots:
        found = [(cells, runs) for cells in self._rooms(problem, task, taken) if (runs := self.choose(cells))]
        best = min(found, key=lambda each: price(*each).emissions_g, default=None)
        while best is None:
            span = max(problem.deadline - problem.now, timedelta(seconds=self.setting.slot_s))
            problem = replace(problem, deadline=problem.deadline + span)
            late = [(cells, runs) for cells in self._rooms(problem, task, taken) for runs in _at_once(cells)]
            best = min(late, key=lambda each: (each[1][-1].end_s, price(*each).emissions_g), default=None)
        cells, runs = best
        return [PlannedSlot(cells.moment(r.start_s), cells.moment(r.end_s), r.way.zone, r.way.workers) for r in runs]

    def _rooms(self, problem: Problem, task: Task, taken: Sequence[tuple[PlannedSlot, int]]) -> Iterator[Lattice]:
        """The lattice for each limit on width, the widest first, where a narrower one has more room than it."""
        before = None
        for limit in sorted((point.workers for point in task.points), reverse=True):
            points = tuple(point for point in task.points if point.workers <= limit)
            zones = {name: replace(option, points=points) for name, option in problem.zones.items()}
            cells = lattice(replace(problem, zones=zones))
            left = [_left(cells, taken, name, (self.setting.gpus or {}).get(name)) for name in zones]
            usable = cells.usable & (np.array(left) >= limit * task.gpus_per_worker)
            if usable.any() and (before is None or (usable != before).any()):
                yield replace(cells, usable=usable)
            before = usable


def _left(cells: Lattice, taken: Sequence[tuple[PlannedSlot, int]], zone: str, gpus: int | None) -> list[float]:
    """GPUs of a zone that nobody uses in any part of each cell."""
    if gpus is None:
        return [np.inf] * len(cells.is_open)
    left = np.full(len(cells.is_open), float(gpus))
    now = cells.problem.now
    for slot, count in taken:
        if slot.zone == zone and slot.end > now:
            start_s, end_s = max(0.0, (slot.start - now) / _SECOND), (slot.end - now) / _SECOND
            first = int(np.searchsorted(cells.edge_s, start_s + _NEAR_S, side="right")) - 1
            left[first : int(np.searchsorted(cells.edge_s, end_s - _NEAR_S))] -= count
    return left.tolist()


def _at_once(cells: Lattice) -> Iterator[list[Run]]:
    """Each way to run whenever there is room."""
    for way in cells.ways:
        usable = np.flatnonzero(cells.usable[way.zone_index])
        runs = until_done(cells, (Run(float(cells.edge_s[i]), float(cells.edge_s[i + 1]), way) for i in usable))
        if runs:
            yield runs


class _Together:
    """All jobs by the fleet planner."""

    def __init__(self, setting: Setting, tasks: Sequence[Task]) -> None:
        self.setting, self.zones = setting, zones_of(setting, tasks)
        self._made: FleetPlan | None = None
        self._is_patched = False
        """Whether someone has come since all were planned."""

    @property
    def is_due(self) -> bool:
        return self._is_patched or not self.setting.foresees

    def plan(self, live: Live) -> Mapping[int, Slots]:
        from orchestrator.fleet import Fleet, plan_fleet, replan, reserved

        now = min(walk.now for walk in live.values())
        jobs = {_name(number): job_of(walk, _name(number)) for number, walk in live.items()}
        # Nobody knows who is to come.
        fleet = reserved(Fleet(now, self.zones, tuple(jobs.values()), self.setting.slot_s))
        at_edge = next_slot(now - timedelta(microseconds=1), self.setting.slot_s) == now
        self._is_patched = not at_edge and self._made is not None
        if self._is_patched and self._made is not None:
            self._made = replan(self._made, fleet, ())
        else:
            self._made = plan_fleet(fleet)
        return {number: self._made.plans[_name(number)].slots for number in live}


def _name(number: int) -> str:
    return f"{number:06d}"


def zones_of(setting: Setting, tasks: Sequence[Task]) -> dict[str, FleetZone]:
    """The zones as the fleet planner is told of them, from the first task to where the last can be."""
    from orchestrator.fleet import FleetZone

    start = min(task.start for task in tasks)
    slowest = (task.work_steps / min(point.steps_per_s for point in task.points) for task in tasks)
    end = max(task.due for task in tasks) + timedelta(seconds=max(slowest))
    gpus = setting.gpus or {}
    return {name: FleetZone(zone.told(start, end), gpus=gpus.get(name)) for name, zone in setting.zones.items()}


def job_of(walk: Walk, name: str) -> FleetJob:
    """The job of a task as the fleet planner is asked about it, not before its submission."""
    from orchestrator.fleet import FleetJob

    task = walk.task
    job = FleetJob.of(
        walk.problem(),
        name,
        priority=task.priority,
        waiting_since=task.start,
        gpus_per_worker=task.gpus_per_worker,
    )
    return replace(job, not_before=task.start)


def bound_g(setting: Setting, tasks: Sequence[Task]) -> float | None:
    """What no plans emit less than that know all tasks from the start and meet every deadline.

    None where it cannot be said: intensities change within slots or are not all known, or the planner finds no plans
    that meet every deadline.
    """
    from orchestrator.fleet import Fleet, plan_fleet

    zones = zones_of(setting, tasks)
    if any(part.start.timestamp() % setting.slot_s for zone in zones.values() for part in zone.curve):
        return None
    jobs = tuple(job_of(Walk(setting, task), _name(number)) for number, task in enumerate(tasks))
    made = plan_fleet(Fleet(min(task.start for task in tasks), zones, jobs, setting.slot_s))
    return None if made.missed or made.state.cells.unknown_share.any() else made.bound_g
