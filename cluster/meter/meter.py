"""One host's meter: reads its devices, attributes their energy to ranks, writes rows.
In: owners (ranks with their process and GPUs), marks of phases, readings of GPUs and CPU times. Out: rows in the spool.
The controller pulls them from the spool through the meter's actor, and the ledger keeps them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from cluster.api import MeterRow, Phase
from cluster.meter.beat import TICK_S, Beat
from cluster.meter.book import Book
from cluster.meter.charging import Charging
from cluster.meter.clock import Clock, SystemClock, Timeline
from cluster.meter.estimate import CoreWatts
from cluster.meter.gpu import Gpu, Slice
from cluster.meter.holding import Gpus
from cluster.meter.host import HostEnergy
from cluster.meter.limit import Cap, Limits
from cluster.meter.owner import Owner
from cluster.meter.process import Host, LocalHost
from cluster.meter.rapl import Rapl
from cluster.meter.spool import Key, Spool


class Meter:
    """Meters one host. Thread-safe; `start` runs it in a thread, tests call `tick` themselves."""

    def __init__(
        self,
        spool: Spool,
        slot_s: float,
        gpus: Sequence[Gpu],
        host: Host | None = None,
        clock: Clock | None = None,
        watts: CoreWatts | None = None,
        node: str = "",
        rapl: Rapl | None = None,
        find: Callable[[str], Gpu | Slice | None] = lambda uuid: None,
        limits: Limits | None = None,
    ) -> None:
        self._spool = spool
        self._lock = threading.RLock()
        self._timeline = Timeline(clock or SystemClock())
        self._book = Book(spool, node)
        self._gpus = Gpus(gpus, find)
        host = host or LocalHost()
        self._energy = HostEnergy(host, watts or CoreWatts(), rapl)
        self._charging = Charging(self._timeline, self._book, host, self._energy, self._gpus)
        self._limits = limits or Limits(spool.limits, None)
        self._beat: Beat | None = None
        self.set_slot(slot_s)
        if spool.state is not None:
            self._charging.go_on(spool.state)
        self._write(always=True)

    # --- what owners ask ---------------------------------------------------------------------------------------

    def register(self, owner: Owner) -> Cap:
        """Charge `owner` from now on, and the CPU time of its process until now as phase `start`.

        Its GPUs are limited as it wishes when this returns, or the answer says why they are not.

        Registering the same owner again changes nothing; with another process it takes the rank over.
        """
        with self._lock:
            self._charging.advance()
            known = self._charging.of(owner.segment_id, owner.rank)
            if known is None or known.owner != owner:
                if known is not None:
                    self._charging.end(known)
                self._charging.admit(owner)
                self._write(always=True)
            return self._limits.cap((owner.segment_id, owner.rank))

    def mark(self, segment_id: str, rank: int, phase: Phase) -> None:
        """The rank enters a phase now: its rows are cut here. Unknown ranks are ignored: theirs ended already."""
        with self._lock:
            charge = self._charging.of(segment_id, rank)
            if charge is None or charge.phase == phase:
                return
            self._charging.look()  # what a child has spent by now belongs to the phase that ends
            self._charging.advance()
            if self._charging.of(segment_id, rank) is charge:
                self._charging.enter(charge, phase)
            self._write(always=True)

    def release(self, segment_id: str, rank: int) -> Cap:
        """The last cut of a rank, on disk when this returns; its GPUs go back to the idle account, and to their limits.

        The answer says what limit held for it all the time.
        """
        with self._lock:
            self._charging.advance()
            cap = self._limits.cap((segment_id, rank))
            charge = self._charging.of(segment_id, rank)
            if charge is not None:
                self._charging.end(charge)
            self._write(always=True)
            return cap if charge is not None else Cap(None, "the meter had not known it to the end")

    def starved(self, segment_id: str) -> dict[int, bool]:
        """Of this segment's ranks whose process went away: whether the kernel was killing for want of memory then.

        A rank of which nobody can tell is left out.
        """
        with self._lock:
            self._charging.advance()
            return self._charging.starved(segment_id)

    # --- what the controller asks ------------------------------------------------------------------------------

    def pull(self) -> list[MeterRow]:
        """Rows not yet acknowledged, oldest first."""
        return self._spool.pull()

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """These rows, by (device, seq), are committed."""
        self._spool.acknowledge(keys)

    def set_slot(self, slot_s: float) -> None:
        """Cut rows at UTC multiples of `slot_s` from now on."""
        self._book.slot_us = max(1, round(slot_s * 1e6))

    # --- running -----------------------------------------------------------------------------------------------

    def start(self, on_fault: Callable[[], None], tick_s: float = TICK_S) -> None:
        """Read in a thread of its own every `tick_s` until `stop`; `on_fault` is called if that thread fails."""
        self._beat = Beat(self, on_fault, tick_s)

    def stop(self) -> None:
        """Cut and write everything; owners stay in the spool's state, for the next meter to go on with."""
        if self._beat is not None:
            self._beat.stop()
        with self._lock:
            self._charging.advance()
            self._charging.close()
            self._write(always=True)
            self._spool.close()

    def tick(self) -> None:
        """Read all devices and attribute what they drew since the last reading."""
        with self._lock:
            self._charging.advance()
            self._write()

    def sample(self) -> None:
        """Sample the power of GPUs that have no counter."""
        with self._lock:
            at = self._timeline.now()
            for gpu in self._gpus.by_uuid.values():
                if gpu.sample_s is not None:
                    gpu.read(at)

    @property
    def sample_s(self) -> float | None:
        """How often power must be sampled between ticks; None where every GPU has a counter."""
        with self._lock:
            gpus = list(self._gpus.by_uuid.values())
        return min((gpu.sample_s for gpu in gpus if gpu.sample_s is not None), default=None)

    @property
    def slot_us(self) -> int:
        """Rows are cut at UTC multiples of it."""
        return self._book.slot_us

    @property
    def owed_j(self) -> float:
        """What ranks were charged for late CPU time that the idle account still has to pay back."""
        return self._energy.owed_j

    def now_us(self) -> int:
        """Microseconds of UTC since the epoch, that never go back against the host's monotonic clock."""
        with self._lock:
            return self._timeline.now().utc_us

    def _write(self, always: bool = False) -> None:
        """Put closed rows on disk; `always` also where there are none, so that the state of the owners is there.

        Limits follow the owners that there are then, whatever came or went.
        """
        self._limits.follow(self._charging.wishes(), self._charging.at_s)
        if always or not self._book.empty:
            self._book.write(self._charging.state())
