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


@dataclass(frozen=True)
class Setting:
    """The same for every task and policy."""

    zones: Mapping[str, Recorded]
    slot_s: float = 3600.0
    """Plans are cut, and where forecasts are planned by made anew, at its UTC multiples."""
    pause: PauseCost = PauseCost()

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
