"""What a simulation is about: where and by which costs jobs run, and which jobs.
In: recorded zones, slot, start costs; lengths, deadlines, spacing. Out: a Setting and its Tasks.
`follow` runs one task by one policy. Tasks of unlike kind may stand beside each other in one setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.plan import OperatingPoint, PauseCost
from orchestrator.simulate.recorded import Recorded


@dataclass(frozen=True)
class Task:
    """One job: submitted at `start`, due at `due`."""

    start: datetime
    due: datetime
    work_steps: float
    points: tuple[OperatingPoint, ...]
    priority: int = 0
    """In a fleet a higher one comes first."""
    gpus_per_worker: int = 1
    """Counts where GPUs are shared."""


@dataclass(frozen=True)
class Setting:
    """The same for every task and policy."""

    zones: Mapping[str, Recorded]
    slot_s: float = 3600.0
    """Plans are cut, and where forecasts are planned by made anew, at its UTC multiples."""
    pause: PauseCost = PauseCost()
    gpus: Mapping[str, int] | None = None
    """GPUs that the tasks share, by zone; a zone that is not named has no limit. None: each task is alone."""

    @property
    def start(self) -> datetime:
        """When the last of the zones' records begins."""
        return max(zone.start for zone in self.zones.values())

    @property
    def end(self) -> datetime:
        """When the first of the zones' records ends."""
        return min(zone.end for zone in self.zones.values())

    @property
    def foresees(self) -> bool:
        """Whether plans are made by what comes, so that making them anew changes nothing."""
        return all(zone.forecast is None for zone in self.zones.values())

    def is_known(self, task: Task) -> bool:
        """Whether anything at all is known of each zone before the deadline: of nothing no figure can be made."""
        return all(
            any(part.g_per_kwh is not None for part in zone.came(task.start, task.due)) for zone in self.zones.values()
        )

    def has_room(self, task: Task) -> bool:
        """Whether the task, at its narrowest, fits the GPUs of a zone."""
        needed = min(point.workers for point in task.points) * task.gpus_per_worker
        return self.gpus is None or any(needed <= self.gpus.get(zone, needed) for zone in self.zones)


def tasks_each(
    setting: Setting, length_s: float, deadline_s: float, every_s: float, points: tuple[OperatingPoint, ...]
) -> list[Task]:
    """A task each `every_s` from the start of the records, of the work that one worker does in `length_s`.

    Those whose deadline, `deadline_s` after their start, lies within the records.
    """
    tasks: list[Task] = []
    for number in range(int((setting.end - setting.start).total_seconds() // every_s) + 1):
        start = setting.start + timedelta(seconds=number * every_s)
        due = start + timedelta(seconds=deadline_s)
        if due > setting.end:
            break
        tasks.append(Task(start, due, length_s, points))
    return tasks
