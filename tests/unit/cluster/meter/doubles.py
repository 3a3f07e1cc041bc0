"""A host whose every reading a test sets: clock, CPU times, processes, GPUs.
In: what the test says. Out: the protocols that a Meter reads.
They stand for hardware; the meter, its rows and its spool are the product's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cluster.api import MeterRow
from cluster.meter.estimate import CoreWatts
from cluster.meter.gpu import CounterGpu, Gpu, PowerGpu, Slice, Unreadable
from cluster.meter.limit import Limits
from cluster.meter.meter import Meter
from cluster.meter.process import HostTimes
from cluster.meter.rapl import Rapl
from cluster.meter.spool import Spool

START_S = 1_800_000_000.0
WATTS = CoreWatts(busy_w_per_core=10.0, idle_w_per_core=3.0)


@dataclass
class SetClock:
    """Time that passes when a test says so; `wall_offset_s` steps the wall clock alone."""

    passed_s: float = 0.0
    wall_offset_s: float = 0.0

    def wall_s(self) -> float:
        return START_S + self.passed_s + self.wall_offset_s

    def monotonic_s(self) -> float:
        return 100.0 + self.passed_s


@dataclass
class SetProcess:
    """A process with CPU seconds."""

    created_s: float
    spent_s: float = 0.0
    alive: bool = True

    def cpu_s(self) -> float | None:
        return self.spent_s if self.alive else None

    def adopt(self, children: Sequence[int]) -> None:
        """No children here."""


@dataclass
class SetHost:
    """CPU times and processes."""

    busy_s: float = 0.0
    idle_s: float = 0.0
    processes: dict[int, SetProcess] = field(default_factory=dict)

    def times(self) -> HostTimes:
        return HostTimes(self.busy_s, self.idle_s)

    def memory_gib(self) -> float:
        return 64.0

    def process(self, pid: int) -> SetProcess | None:
        process = self.processes.get(pid)
        return process if process is not None and process.alive else None

    def children(self, pids: Iterable[int]) -> Mapping[int, Sequence[int]]:
        return {pid: () for pid in pids}


@dataclass
class SetCounter:
    """An energy counter; `lost` makes it unreadable."""

    energy_j: float = 5000.0
    lost: bool = False

    def __call__(self) -> float:
        if self.lost:
            raise Unreadable("GPU is lost")
        return self.energy_j


@dataclass
class Bench:
    """A metered host under a test's control: two cores, GPUs `GPU-a` and `GPU-b`."""

    folder: Path
    slot_s: float = 900.0
    clock: SetClock = field(default_factory=SetClock)
    host: SetHost = field(default_factory=SetHost)
    counters: Mapping[str, SetCounter] = field(default_factory=lambda: {"GPU-a": SetCounter(), "GPU-b": SetCounter()})

    powercap: Path | None = None
    watts: CoreWatts = WATTS
    slices: dict[str, tuple[str, float]] = field(default_factory=dict)
    """MIG slices by UUID: their GPU and their share."""
    limits: Limits | None = None
    with_counters: bool = True
    """False where the GPUs tell their power alone."""
    gpu_w: float = 100.0

    def __post_init__(self) -> None:
        self.meter = self.new_meter()

    def new_meter(self) -> Meter:
        """A meter as after a restart of its process."""
        gpus: list[Gpu] = [CounterGpu(uuid, counter) for uuid, counter in self.counters.items()]
        if not self.with_counters:
            gpus = [PowerGpu(uuid, lambda: self.gpu_w) for uuid in self.counters]
        self.spool = Spool(self.folder, "boot")
        by_uuid = {gpu.uuid: gpu for gpu in gpus}

        def find(uuid: str) -> Gpu | Slice | None:
            if uuid not in self.slices:
                return None
            parent, share = self.slices[uuid]
            return Slice(uuid, by_uuid[parent], share)

        rapl = Rapl.of(self.powercap) if self.powercap else None
        return Meter(
            self.spool,
            self.slot_s,
            gpus,
            self.host,
            self.clock,
            self.watts,
            node="host",
            rapl=rapl,
            find=find,
            limits=self.limits,
        )

    def crash(self) -> None:
        """End the meter as kill -9 does: nothing is written, the lock goes."""
        self.spool.close()

    def run_process(self, pid: int) -> SetProcess:
        process = self.host.processes[pid] = SetProcess(self.clock.wall_s())
        return process

    def pass_s(self, duration_s: float, busy: Mapping[int, float] | None = None, gpu_w: float = 100.0) -> None:
        """Let time pass without a tick; `busy` maps a pid (0: somebody else) to its CPU seconds, of two cores."""
        busy = busy or {}
        self.gpu_w = gpu_w
        self.clock.passed_s += duration_s
        for pid, spent_s in busy.items():
            if pid:
                self.host.processes[pid].spent_s += spent_s
        self.host.busy_s += sum(busy.values())
        self.host.idle_s += 2 * duration_s - sum(busy.values())
        for counter in self.counters.values():
            counter.energy_j += gpu_w * duration_s

    def host_cpu_j(self) -> float:
        return WATTS.busy_w_per_core * self.host.busy_s + WATTS.idle_w_per_core * self.host.idle_s


def total_j(rows: Iterable[MeterRow]) -> float:
    """The sum of rows that are all readable, in J."""
    total = 0.0
    for row in rows:
        assert row.energy_j is not None, row
        total += row.energy_j
    return total


def of(rows: Iterable[MeterRow], device: str, rank: int | None) -> list[MeterRow]:
    """The rows of one device and rank, in order of time."""
    return sorted((row for row in rows if (row.device, row.rank) == (device, rank)), key=lambda row: row.start)
