"""One job from submission to its last step by one policy, in simulated time: plan, run, plan anew, charge.
In: a Setting, a Task, a policy. Out: an Outcome with what ran where and what it emitted by what came.
`results` sums the outcomes, `together` walks with many at once. Plans and bills are those of `orchestrator.plan`.

Where a forecast is planned by, a plan is made at the start and at each UTC multiple of the slot, with the work that is
left, what runs, and what is told then; only its first slot is acted on. A plan by what comes stands. Energy that is
drawn while the intensity is not known is charged at the worst known intensity of the zone during the run, and its
seconds are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from orchestrator.plan import Current, PlannedSlot, Problem, ZoneOption, plan
from orchestrator.plan.lattice import lattice
from orchestrator.plan.price import Bill, Run, joined, price
from orchestrator.simulate.setting import Setting, Task

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND = timedelta(seconds=1)
_NOTHING_S = 1e-4
"""Work of so short a time is what times in whole microseconds leave over."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    policy: str
    task: Task
    ran: tuple[PlannedSlot, ...]
    """Segments in order, each of one zone and width, its start's time inside it."""
    emissions_g: float
    energy_j: float
    unknown_s: float
    """Seconds that ran in unknown intensity."""

    @property
    def finish_at(self) -> datetime:
        """When the last step was done."""
        return self.ran[-1].end

    @property
    def wait_s(self) -> float:
        """Time from submission to finish in which the job did not run: before its first start and in pauses."""
        ran = sum((segment.end - segment.start for segment in self.ran), timedelta())
        return (self.finish_at - self.task.start - ran) / _SECOND

    @property
    def switches(self) -> int:
        """Starts after the first: after a pause, in another zone, with another worker count."""
        return len(self.ran) - 1

    @property
    def missed_deadline(self) -> bool:
        """Whether it was done after its deadline."""
        return (self.finish_at - self.task.due) / _SECOND > _NOTHING_S


def follow(setting: Setting, task: Task, policy: str) -> Outcome:
    """Run `task` by `policy`; InputError where the policy does not exist."""
    walk = Walk(setting, task)
    while not walk.done:
        until = None if setting.foresees else next_slot(walk.now, setting.slot_s)
        walk.along(plan(walk.problem(), policy).slots, until)
    return walk.outcome(policy)


class Walk:
    """How far a task has come at `now`."""

    def __init__(self, setting: Setting, task: Task) -> None:
        self.setting, self.task, self.now = setting, task, task.start
        self.ran: list[PlannedSlot] = []
        self._left_steps = task.work_steps
        self._owed_s = 0.0
        """What the start of the segment that runs still takes."""
        self._rate = {point.workers: point.steps_per_s for point in task.points}
        self._nothing_steps = _NOTHING_S * max(self._rate.values())

    @property
    def done(self) -> bool:
        """Whether all the work is."""
        return self._left_steps <= self._nothing_steps

    def problem(self) -> Problem:
        """What the planner is asked at `now`."""
        setting, task, now = self.setting, self.task, self.now
        last = self.ran[-1] if self.ran else None
        runs = last is not None and last.end == now
        current = Current(last.zone, last.workers) if last is not None and runs else None
        owed_steps = self._owed_s * self._rate[last.workers] if last is not None and runs else 0.0
        due = max(task.due, now)
        # A plan that is late looks on: so far as the slowest way to run needs.
        until = due + timedelta(seconds=self._left_steps / min(self._rate.values()))
        return Problem(
            now=now,
            deadline=due,
            work_steps=self._left_steps + owed_steps,
            zones={name: ZoneOption(zone.told(now, until), task.points) for name, zone in setting.zones.items()},
            slot_s=setting.slot_s,
            pause=setting.pause,
            current=current,
            started=last is not None,
            last_zone=last.zone if last is not None else None,
        )

    def along(self, slots: Sequence[PlannedSlot], until: datetime | None) -> None:
        """Do what the plan of these slots says from now up to `until`; None is to its end."""
        for slot in slots:
            end = slot.end if until is None else min(slot.end, until)
            start = max(slot.start, self.now)
            if start < end and not self.done:
                self._run(PlannedSlot(start, end, slot.zone, slot.workers))
        self.now = until if until is not None else slots[-1].end
        if until is None:  # to the microsecond the plan does the work
            self._left_steps = 0.0

    def outcome(self, policy: str) -> Outcome:
        """What became of the task, once it is done."""
        bill = _charge(self.setting, self.task, self.ran)
        return Outcome(policy, self.task, tuple(self.ran), bill.emissions_g, bill.energy_j, bill.unknown_s)

    def _run(self, slot: PlannedSlot) -> None:
        last = self.ran[-1] if self.ran else None
        rate, length_s = self._rate[slot.workers], (slot.end - slot.start) / _SECOND
        goes_on = last is not None and (last.end, last.zone, last.workers) == (slot.start, slot.zone, slot.workers)
        if not goes_on:
            self._owed_s = 0.0
            if last is not None:
                pause = self.setting.pause
                self._owed_s = pause.resume_s + (pause.move_s if last.zone != slot.zone else 0.0)
        end, needed_s = slot.end, self._owed_s + self._left_steps / rate
        if needed_s <= length_s:
            end = slot.start + timedelta(seconds=needed_s)
            self._left_steps = 0.0
        else:
            self._left_steps -= rate * max(0.0, length_s - self._owed_s)
            self._owed_s = max(0.0, self._owed_s - length_s)
        if goes_on and last is not None:
            self.ran[-1] = PlannedSlot(last.start, end, slot.zone, slot.workers)
        else:
            self.ran.append(PlannedSlot(slot.start, end, slot.zone, slot.workers))


def next_slot(now: datetime, slot_s: float) -> datetime:
    """The first UTC multiple of the slot after `now`."""
    length = timedelta(seconds=slot_s)
    return _EPOCH + ((now - _EPOCH) // length + 1) * length


def _charge(setting: Setting, task: Task, ran: list[PlannedSlot]) -> Bill:
    """What the segments emitted, by what came."""
    end = ran[-1].end
    zones = {name: ZoneOption(zone.came(task.start, end), task.points) for name, zone in setting.zones.items()}
    cells = lattice(Problem(task.start, end, task.work_steps, zones, setting.slot_s, setting.pause))
    ways = {(way.zone, way.workers): way for way in cells.ways}
    runs = [
        Run((slot.start - task.start) / _SECOND, (slot.end - task.start) / _SECOND, ways[slot.zone, slot.workers])
        for slot in ran
    ]
    return price(cells, joined(runs))
