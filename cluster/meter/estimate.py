"""CPU energy by estimate, where no sensor tells: CPU time times watts per core.
In: CPU seconds of the host and of each rank's process tree. Out: joules of each rank and of the host's idle account.
The meter adds them to its rows as device `cpu`, source `estimated`.

The model: a core-second costs `busy_w_per_core` while it computes and `idle_w_per_core` while it waits. The defaults
are an assumption, not a measurement: dual-socket servers of 2019 to 2024 have 200 to 360 W of TDP over 24 to 64 cores
a socket, 5 to 9 W a core, and SPECpower results of such machines draw about a quarter to a third of full load when
idle; with memory, fans and conversion losses that makes 10 W busy and 3 W idle.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from jobs.spec import InputError

BUSY_W_PER_CORE = 10.0
IDLE_W_PER_CORE = 3.0


@dataclass(frozen=True)
class CoreWatts:
    """Power of one core in W, computing and waiting, with its share of the rest of the machine."""

    busy_w_per_core: float = BUSY_W_PER_CORE
    idle_w_per_core: float = IDLE_W_PER_CORE

    @staticmethod
    def from_environment() -> CoreWatts:
        """The watts that LOWTIDE_CPU_W_PER_CORE and LOWTIDE_CPU_IDLE_W_PER_CORE set; InputError names a bad one."""
        return CoreWatts(
            _watts("LOWTIDE_CPU_W_PER_CORE", BUSY_W_PER_CORE), _watts("LOWTIDE_CPU_IDLE_W_PER_CORE", IDLE_W_PER_CORE)
        )


@dataclass(frozen=True)
class HostTimes:
    """Core-seconds since boot that the host's cores computed and waited."""

    busy_s: float
    idle_s: float


class Process(Protocol):
    """One registered process and its children."""

    created_s: float
    """When it started, UNIX s."""

    def cpu_s(self) -> float | None:
        """CPU seconds of the tree since it started; None once the process is gone."""

    def adopt(self, children: Sequence[int]) -> None:
        """Count these processes with it from now on."""


class Host(Protocol):
    """The host's CPU accounting."""

    def times(self) -> HostTimes:
        """Core-seconds since boot."""

    def process(self, pid: int) -> Process | None:
        """The process `pid`; None where there is none."""

    def children(self, pids: Iterable[int]) -> Mapping[int, Sequence[int]]:
        """Live descendants of each of `pids`, none of them counted for two."""


class CpuAccount:
    """Splits the host's CPU energy into ranks and the idle account, so that in sum ranks + idle = host.

    CPU time that reaches the meter late (a process's time before it registered, a child found only now) was already
    booked to the idle account as somebody else's. It is charged to its rank, and the idle account pays it back out of
    its coming energy; it never goes negative. Time from before the meter lived is charged to the rank, owed by nobody.
    """

    def __init__(self, watts: CoreWatts) -> None:
        self._watts = watts
        self._reclaimable_j = 0.0
        self._owed_j = 0.0

    def split(self, busy_s: float, idle_s: float, ranks_s: Sequence[float]) -> tuple[list[float], float]:
        """Energy in J of each rank and of the idle account, for core-seconds of one interval."""
        ranks_j = [self._watts.busy_w_per_core * rank_s for rank_s in ranks_s]
        others_j = self._watts.busy_w_per_core * busy_s - math.fsum(ranks_j)
        claimed_j = min(max(0.0, -others_j), self._reclaimable_j)
        others_j = max(0.0, others_j)
        self._reclaimable_j += others_j - claimed_j
        self._owed_j += claimed_j
        gross_j = others_j + self._watts.idle_w_per_core * idle_s
        paid_j = min(self._owed_j, gross_j)
        self._owed_j -= paid_j
        return ranks_j, gross_j - paid_j


class LocalHost:
    """The machine that runs this, by psutil: reads the host's totals and registered processes, not all processes."""

    def times(self) -> HostTimes:
        """Core-seconds since boot; time stolen by the hypervisor is neither busy nor idle here."""
        times = psutil.cpu_times()
        extra_s = sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
        return HostTimes(times.user + times.system + extra_s, times.idle + getattr(times, "iowait", 0.0))

    def process(self, pid: int) -> Process | None:
        """The process `pid`; None where there is none."""
        try:
            return LocalProcess(psutil.Process(pid))
        except psutil.NoSuchProcess:
            return None

    def children(self, pids: Iterable[int]) -> Mapping[int, Sequence[int]]:
        """Live descendants of each of `pids`; a registered descendant's own tree is its own."""
        roots = set(pids)
        by_parent: dict[int, list[int]] = {}
        for process in psutil.process_iter(["ppid"]) if roots else ():
            by_parent.setdefault(process.info["ppid"], []).append(process.pid)
        return {root: _descendants(root, roots, by_parent) for root in roots}


@dataclass
class _Member:
    """A process of a tree with its last reading: CPU seconds of its own, and of children that it waited for."""

    process: psutil.Process
    own_s: float = 0.0
    reaped_s: float = 0.0


class LocalProcess:
    """A live process tree: each member's CPU time, and that of the dead children which it has waited for."""

    def __init__(self, process: psutil.Process) -> None:
        self.created_s = process.create_time()
        self._pid = process.pid
        self._members = {process.pid: _Member(process)}
        self._unreaped_s = 0.0

    def cpu_s(self) -> float | None:
        """CPU seconds of the tree since it started, never falling; None once the process is gone, also as a zombie.

        A dead child's seconds stay counted until its parent's record of waited-for children takes them over.
        """
        for pid, member in list(self._members.items()):
            times = _cpu_s(member.process)
            if times is None:
                if pid == self._pid:
                    return None
                self._unreaped_s += member.own_s + member.reaped_s
                del self._members[pid]
                continue
            self._unreaped_s -= times[1] - member.reaped_s
            member.own_s, member.reaped_s = times
        self._unreaped_s = max(0.0, self._unreaped_s)
        return self._unreaped_s + math.fsum(member.own_s + member.reaped_s for member in self._members.values())

    def adopt(self, children: Sequence[int]) -> None:
        """Count these processes with it from now on."""
        for pid in children:
            if pid not in self._members:
                try:
                    child = psutil.Process(pid)
                except psutil.NoSuchProcess:
                    continue
                times = _cpu_s(child)
                if times is not None:
                    self._members[pid] = _Member(child, *times)


def _cpu_s(process: psutil.Process) -> tuple[float, float] | None:
    """CPU seconds of the process and of its waited-for children; None once it is gone."""
    try:
        with process.oneshot():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return None
            times = process.cpu_times()
            return times.user + times.system, times.children_user + times.children_system
    except psutil.NoSuchProcess:
        return None


def _descendants(root: int, roots: set[int], by_parent: Mapping[int, Sequence[int]]) -> list[int]:
    found: list[int] = []
    rest = list(by_parent.get(root, ()))
    while rest:
        pid = rest.pop()
        if pid not in roots:
            found.append(pid)
            rest.extend(by_parent.get(pid, ()))
    return found


def _watts(name: str, default_w: float) -> float:
    text = os.environ.get(name, "")
    if not text:
        return default_w
    try:
        watts = float(text)
    except ValueError:
        watts = math.nan
    if not 0 <= watts < math.inf:
        raise InputError(f"{name}: {text!r} is not a power in W per core; set e.g. {name}={default_w:g}")
    return watts
