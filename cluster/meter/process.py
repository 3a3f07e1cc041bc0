"""CPU time: of the host's cores, and of registered processes with their children, none counted twice.
In: the kernel's accounts, by psutil. Out: core-seconds since boot; CPU seconds of process trees, never falling.
`host` shares the host's energy by them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil


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

    def memory_gib(self) -> float:
        """Memory that is installed, as far as the host may use it."""

    def process(self, pid: int) -> Process | None:
        """The process `pid`; None where there is none."""

    def children(self, pids: Iterable[int]) -> Mapping[int, Sequence[int]]:
        """Live descendants of each of `pids`, none of them counted for two."""


class LocalHost:
    """The machine that runs this, by psutil: reads the host's totals and registered processes, not all processes."""

    def times(self) -> HostTimes:
        """Core-seconds since boot; time stolen by the hypervisor is neither busy nor idle here."""
        times = psutil.cpu_times()
        extra_s = sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq"))
        return HostTimes(times.user + times.system + extra_s, times.idle + getattr(times, "iowait", 0.0))

    def memory_gib(self) -> float:
        """Memory that is installed, as far as the host may use it."""
        return float(psutil.virtual_memory().total / 1024**3)

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
