"""What a host's processors and memory draw: by RAPL where it can be read, by estimate where not; and who bears it.
In: the kernel's CPU times, RAPL's counters, watts of the site, weights of GPUs. Out: joules of each rank, and idle.
The meter books them as devices `cpu` and `dram`.

Memory is a device of its own only where the processors' figure is theirs alone: by RAPL, by TDP, or as the site says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.api import Source
from cluster.meter.book import CPU, DRAM
from cluster.meter.clock import Instant
from cluster.meter.estimate import CoreWatts
from cluster.meter.process import Host, HostTimes
from cluster.meter.rapl import Rapl, RaplEnergy
from cluster.meter.row import Drawn
from cluster.meter.share import Account, Weights


@dataclass(frozen=True)
class Split:
    """One device's energy of an interval: of each rank, in the order in which they were given, and of nobody."""

    device: str
    ranks: Sequence[Drawn]
    idle: Drawn


class HostEnergy:
    """Reads the host's own energy and splits it; readings and debts survive the process by `state`."""

    def __init__(self, host: Host, watts: CoreWatts, rapl: Rapl | None = None) -> None:
        self._host, self._watts = host, watts
        self._rapl = rapl or Rapl(())
        self._accounts = {CPU: Account(watts, price=1.0), DRAM: Account(watts)}
        self._apart = watts.dram_apart
        self._memory_gib = host.memory_gib()
        self._times = HostTimes(0.0, 0.0)
        self._at_s = 0.0

    def begin(self, at: Instant) -> None:
        """Measure from now on; `read` was called."""
        self._times, self._at_s = self._host.times(), at.monotonic_s
        self._rapl.take()

    def read(self, at: Instant) -> None:
        """Read the counters that must be read together with the clock."""
        self._rapl.read(at)

    def times(self) -> HostTimes:
        """Core-seconds of the host, to be read just before those of the ranks."""
        return self._host.times()

    def split(self, at: Instant, times: HostTimes, ranks_s: Sequence[float], rest: Weights) -> list[Split]:
        """What each device drew since the last split, of ranks that spent `ranks_s` CPU seconds in that time.

        `rest` is who bears what no such CPU time explains.
        """
        busy_s = max(0.0, times.busy_s - self._times.busy_s)
        idle_s = max(0.0, times.idle_s - self._times.idle_s)
        elapsed_s = max(0.0, at.monotonic_s - self._at_s)
        self._times, self._at_s = times, at.monotonic_s
        splits = []
        for device, (host_j, source) in self._drawn(busy_s, idle_s, elapsed_s).items():
            ranks_j, rest_j = self._accounts[device].split(host_j, busy_s, idle_s, ranks_s)
            common_j, idle_j = rest.share(rest_j)
            ranks = [Drawn(own_j + part_j, source) for own_j, part_j in zip(ranks_j, common_j, strict=True)]
            splits.append(Split(device, ranks, Drawn(idle_j, source)))
        return splits

    def admit(self, spent_s: float, seen: bool) -> dict[str, Drawn]:
        """What CPU time of a process from before it registered cost, by device: an estimate, whatever metered it.

        `seen` tells that the meter lived all that time, and booked it to the idle account.
        """
        devices = (CPU, DRAM) if self._apart else (CPU,)
        return {device: Drawn(self._accounts[device].admit(spent_s, seen), "estimated") for device in devices}

    @property
    def owed_j(self) -> float:
        """What the idle account still has to pay back for late CPU time, in J."""
        return sum(account.owed_j for account in self._accounts.values())

    def state(self) -> dict[str, Any]:
        """What a later process of this boot goes on from, as JSON."""
        return {
            "busy_s": self._times.busy_s,
            "idle_s": self._times.idle_s,
            "at_s": self._at_s,
            "apart": self._apart,
            "rapl": self._rapl.baseline(),
            "accounts": {device: account.state() for device, account in self._accounts.items()},
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Measure the next split from what an earlier process kept; its debts are owed on."""
        self._times, self._at_s = HostTimes(state["busy_s"], state["idle_s"]), state["at_s"]
        self._apart = self._apart or state["apart"]
        self._rapl.resume(state["rapl"])
        for device, account in self._accounts.items():
            account.resume(state["accounts"][device])

    def _drawn(self, busy_s: float, idle_s: float, elapsed_s: float) -> dict[str, tuple[float, Source]]:
        """The host's joules by device. Where RAPL falls silent its last watts go on as the estimate."""
        measured: RaplEnergy = self._rapl.take()
        self._apart = self._apart or measured.packages_j is not None
        estimate_j = self._watts.cores_j(busy_s, idle_s) * self._accounts[CPU].price
        drawn = {CPU: _best(measured.packages_j, estimate_j)}
        if self._apart:
            drawn[DRAM] = _best(measured.memory_j, self._watts.dram_w_per_gib * self._memory_gib * elapsed_s)
        return drawn


def _best(measured_j: float | None, estimate_j: float) -> tuple[float, Source]:
    return (estimate_j, "estimated") if measured_j is None else (measured_j, "rapl")
