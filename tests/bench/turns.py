"""Two groups of workers that train in turns on the same cores, so that both meet the same machine.
In: both sides, alive at once. Out: steps and seconds of each turn, and cores by kind of process.
`tests.bench.training` compares the two.

The side that waits is stopped (SIGSTOP) with all of its processes: workers, trainer and driver, and for lowtide its
meter, control actor and attachment. A step that a stop cuts in two goes on in the next turn, so a side's steps over
the seconds of its turns are its throughput. A machine whose speed drifts slows both alike: runs one after the other
differ by several percent where nothing but the time of day does.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.bench import cores
from tests.bench.ground import Counted

TURN_S = 8.0
"""Below the ten seconds within which a segment's link expects an answer."""


@dataclass
class Side:
    """One way to train: its processes, and a look at its counts that costs what it costs this side in use."""

    name: str
    segment_id: str
    look: Callable[[], Counted]
    own_kinds: Sequence[str] = ()
    """Kinds of processes beyond the Ray job's own that only this side needs."""
    steps: list[int] = field(default_factory=list)
    """Steps between the looks of two turns."""
    seconds: list[float] = field(default_factory=list)
    """Seconds of its own turns between the same looks."""
    used: dict[str, float] = field(default_factory=dict)
    """Core-seconds by kind of process in its turns."""
    turned_s: float = 0.0

    @property
    def steps_per_s(self) -> float:
        """Throughput over all turns."""
        return sum(self.steps) / sum(self.seconds)

    @property
    def cores(self) -> dict[str, float]:
        """Cores by kind of process."""
        return {kind: used_s / self.turned_s for kind, used_s in self.used.items()}


class Turns:
    """Both sides' turns. Begins with both stopped; `end` lets both go."""

    def __init__(self, sides: Sequence[Side], head_pid: int) -> None:
        self._sides = sides
        self._head_pid = head_pid
        self._processes = {side.name: self._of(side) for side in sides}
        self._before: dict[str, tuple[Counted, float]] = {}
        """Each side's last look, and the seconds of its turn that came after it."""
        for side in sides:
            self._signal(side, signal.SIGSTOP)

    def take(self, rounds: int) -> None:
        """One round that only warms up, then `rounds`; the side that begins changes."""
        for index in range(rounds + 1):
            for side in self._sides if index % 2 == 0 else reversed(self._sides):
                self._turn(side)

    def end(self) -> None:
        """Let all processes go on."""
        for side in self._sides:
            self._signal(side, signal.SIGCONT)

    def _turn(self, side: Side) -> None:
        before = cores.look(self._head_pid)
        self._signal(side, signal.SIGCONT)
        began_s = time.time()
        time.sleep(TURN_S)
        counted = side.look()
        self._signal(side, signal.SIGSTOP)
        ended_s = time.time()
        last = self._before.get(side.name)
        self._before[side.name] = (counted, ended_s - counted.at_s)
        if last is None:
            return
        side.steps.append(counted.steps - last[0].steps)
        side.seconds.append(last[1] + counted.at_s - began_s)
        after = cores.look(self._head_pid)
        for kind, used in cores.cores(before, after).items():
            side.used[kind] = side.used.get(kind, 0.0) + used * (after.at_s - before.at_s)
        side.turned_s += after.at_s - before.at_s

    def _of(self, side: Side) -> list[psutil.Process]:
        """The processes of the side: those whose variables name its segment, and its own kinds."""
        found = cores.of_kind(self._head_pid, *side.own_kinds)
        for process in cores.own(self._head_pid):
            with suppress(psutil.Error):
                if process not in found and f'"{side.segment_id}"' in process.environ().get("LOWTIDE_ORDER", ""):
                    found.append(process)
        return found

    def _signal(self, side: Side, number: signal.Signals) -> None:
        for process in self._processes[side.name]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
