"""One host's meter: reads its devices, attributes their energy to ranks, writes rows.
In: owners (ranks with their process and GPUs), marks of phases, readings of GPUs and CPU times. Out: rows in the spool.
The controller pulls them from the spool through the meter's actor, and the ledger keeps them.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cluster.api import MeterRow, Phase, Source
from cluster.meter.beat import Beat
from cluster.meter.book import CPU, Book
from cluster.meter.clock import Clock, Instant, SystemClock, Timeline
from cluster.meter.estimate import CoreWatts, CpuAccount, Host, LocalHost, Process
from cluster.meter.nvml import Gpu
from cluster.meter.owner import Charge, Owner, owner_of
from cluster.meter.row import OpenRow, Piece
from cluster.meter.spool import Key, Spool

log = logging.getLogger(__name__)

CHILDREN_S = 15.0
"""How often the trees of registered processes are looked up anew."""
STEADY_READ_S = 0.005
"""Readings that took this much longer than thrice the fastest are taken again."""
BRIDGE_S = 60.0
"""A restarted meter shows at most this much of its absence as unmetered for owners that died meanwhile."""


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
    ) -> None:
        self._spool = spool
        self._host: Host = host or LocalHost()
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._timeline = Timeline(clock or SystemClock())
        self._account = CpuAccount(watts or CoreWatts())
        self._book = Book(spool, node)
        self._fastest_read_s = math.inf
        self._lock = threading.RLock()
        self._charges: dict[tuple[str, int], Charge] = {}
        self._released: dict[int, float] = {}
        """When a pid that was released had started: its earlier CPU time is charged already."""
        self._beat: Beat | None = None
        self.set_slot(slot_s)
        self._begin()

    # --- what owners ask ---------------------------------------------------------------------------------------

    def register(self, owner: Owner) -> None:
        """Charge `owner` from now on, and the CPU time of its process until now as phase `start`.

        Registering the same owner again changes nothing; with another process it takes the rank over.
        """
        with self._lock:
            self._advance()
            known = self._charges.get((owner.segment_id, owner.rank))
            if known is not None and known.owner == owner:
                return
            if known is not None:
                self._end(known)
            process = self._host.process(owner.pid)
            if process is None:
                log.warning("process %d of %s ended before it was metered", owner.pid, owner.segment_id)
            else:
                self._admit(owner, process)
            self._write(always=True)

    def mark(self, segment_id: str, rank: int, phase: Phase) -> None:
        """The rank enters a phase now: its rows are cut here. Unknown ranks are ignored: theirs ended already."""
        with self._lock:
            charge = self._charges.get((segment_id, rank))
            if charge is None or charge.phase == phase:
                return
            self._advance()
            if (segment_id, rank) in self._charges:
                self._close(charge)
                charge.phase = phase
            self._write(always=True)

    def release(self, segment_id: str, rank: int) -> None:
        """The last cut of a rank, on disk when this returns; its GPUs go back to the idle account."""
        with self._lock:
            self._advance()
            charge = self._charges.get((segment_id, rank))
            if charge is not None:
                self._end(charge)
            self._write(always=True)

    # --- what the controller asks ------------------------------------------------------------------------------

    def pull(self) -> list[MeterRow]:
        """Rows not yet acknowledged, oldest first."""
        return self._spool.pull()

    def acknowledge(self, keys: Iterable[Key]) -> None:
        """These rows, by (device, seq), are committed."""
        self._spool.acknowledge(keys)

    def set_slot(self, slot_s: float) -> None:
        """Cut rows at UTC multiples of `slot_s` from now on."""
        self._slot_us = max(1, round(slot_s * 1e6))

    # --- running -----------------------------------------------------------------------------------------------

    def start(self, on_fault: Callable[[], None]) -> None:
        """Read in a thread of its own until `stop`; `on_fault` is called if that thread fails."""
        self._beat = Beat(self, on_fault)

    def stop(self) -> None:
        """Cut and write everything; owners stay in the spool's state, for the next meter to go on with."""
        if self._beat is not None:
            self._beat.stop()
        with self._lock:
            self._advance()
            for charge in self._charges.values():
                self._close(charge)
            for device, row in self._idle.items():
                self._keep(row.cut(), device, None)
            self._write(always=True)
            self._spool.close()

    def tick(self) -> None:
        """Read all devices and attribute what they drew since the last reading."""
        with self._lock:
            self._advance()
            self._write()

    def sample(self) -> None:
        """Sample the power of GPUs that have no counter."""
        with self._lock:
            at = self._timeline.now()
            for gpu in self._gpus.values():
                if gpu.integrates:
                    gpu.read(at)

    @property
    def integrates(self) -> bool:
        """True where some GPU has no counter, so that its power must be sampled between ticks."""
        return any(gpu.integrates for gpu in self._gpus.values())

    @property
    def slot_us(self) -> int:
        """Rows are cut at UTC multiples of it."""
        return self._slot_us

    def now_us(self) -> int:
        """Microseconds of UTC since the epoch, that never go back against the host's monotonic clock."""
        with self._lock:
            return self._timeline.now().utc_us

    # --- reading and attributing -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take first readings and go on with the owners that an earlier meter of this boot left."""
        at = self._read()
        for gpu in self._gpus.values():
            gpu.take()
        self._times = self._host.times()
        self._at = at
        self._children_at_s = at.monotonic_s
        self._idle: dict[str, OpenRow] = {device: OpenRow(at.utc_us) for device in (CPU, *self._gpus)}
        if self._spool.state is not None:
            self._go_on(self._spool.state)
        self._write(always=True)

    def _read(self) -> Instant:
        """A reading of every GPU, and the moment that it holds for.

        It is taken again where the thread lost its core between the clock and a device, for then they do not agree.
        """
        for _ in range(3):
            at = self._timeline.now()
            for gpu in self._gpus.values():
                gpu.read(at)
            took_s = self._timeline.now().monotonic_s - at.monotonic_s
            self._fastest_read_s = min(self._fastest_read_s, took_s)
            if took_s <= 3 * self._fastest_read_s + STEADY_READ_S:
                break
        return at

    def _advance(self) -> None:
        """Book what every device drew since the last reading, and release owners whose process is gone."""
        at = self._read()
        for uuid, gpu in self._gpus.items():
            self._book_gpu(uuid, at, gpu.take())
        unknown = {uuid for charge in self._charges.values() for uuid in charge.owner.gpu_uuids} - set(self._gpus)
        for uuid in unknown:
            self._book_gpu(uuid, at, None)
        gone = self._book_cpu(at)
        self._at = at
        for charge in gone:
            log.warning("rank %d of %s is gone; released", charge.owner.rank, charge.owner.segment_id)
            self._end(charge)

    def _book_gpu(self, uuid: str, at: Instant, energy_j: float | None) -> None:
        """A GPU's energy goes to the rank that holds it, in equal parts where several do, else to the idle account."""
        holders = [charge for charge in self._charges.values() if uuid in charge.owner.gpu_uuids]
        for charge in holders:
            part_j = None if energy_j is None else energy_j / len(holders)
            self._keep(charge.rows[uuid].add(at.utc_us, part_j, self._slot_us), uuid, charge)
        if not holders and uuid in self._idle:
            self._keep(self._idle[uuid].add(at.utc_us, energy_j, self._slot_us), uuid, None)

    def _book_cpu(self, at: Instant) -> list[Charge]:
        """CPU energy of ranks and of the rest of the host; returns the owners whose process is gone."""
        if at.monotonic_s - self._children_at_s >= CHILDREN_S:
            self._look_for_children(at)
        times, last = self._host.times(), self._times
        self._times = times
        spent = [(charge, charge.process.cpu_s()) for charge in self._charges.values()]
        alive = [(charge, cpu_s) for charge, cpu_s in spent if cpu_s is not None]
        ranks_j, idle_j = self._account.split(
            max(0.0, times.busy_s - last.busy_s),
            max(0.0, times.idle_s - last.idle_s),
            [max(0.0, cpu_s - charge.cpu_s) for charge, cpu_s in alive],
        )
        for (charge, cpu_s), rank_j in zip(alive, ranks_j, strict=True):
            charge.cpu_s = max(charge.cpu_s, cpu_s)
            self._keep(charge.rows[CPU].add(at.utc_us, rank_j, self._slot_us), CPU, charge)
        self._keep(self._idle[CPU].add(at.utc_us, idle_j, self._slot_us), CPU, None)
        return [charge for charge, cpu_s in spent if cpu_s is None]

    def _look_for_children(self, at: Instant) -> None:
        self._children_at_s = at.monotonic_s
        trees = self._host.children(charge.owner.pid for charge in self._charges.values())
        for charge in self._charges.values():
            charge.process.adopt(trees[charge.owner.pid])

    # --- owners come and go ------------------------------------------------------------------------------------

    def _admit(self, owner: Owner, process: Process) -> None:
        """Open the owner's rows now; CPU's from its process's start, unless those seconds were charged before."""
        now_us = self._at.utc_us
        charge = Charge(owner, process, "start", 0.0)
        cpu_from_us = min(now_us, round(process.created_s * 1e6))
        if self._released.get(owner.pid) == process.created_s:
            charge.cpu_s, cpu_from_us = process.cpu_s() or 0.0, now_us
        for uuid in owner.gpu_uuids:
            self._keep(self._idle[uuid].cut() if uuid in self._idle else (), uuid, None)
        charge.rows = {CPU: OpenRow(cpu_from_us), **{uuid: OpenRow(now_us) for uuid in owner.gpu_uuids}}
        self._charges[owner.segment_id, owner.rank] = charge
        self._look_for_children(self._at)
        self._book_cpu(self._at)

    def _end(self, charge: Charge) -> None:
        """Cut the owner's rows and give its GPUs back."""
        self._close(charge)
        del self._charges[charge.owner.segment_id, charge.owner.rank]
        self._released[charge.owner.pid] = charge.process.created_s
        for uuid in charge.owner.gpu_uuids:
            if uuid in self._idle and not any(uuid in other.owner.gpu_uuids for other in self._charges.values()):
                self._idle[uuid] = OpenRow(self._at.utc_us)

    def _go_on(self, state: Mapping[str, Any]) -> None:
        """Charge the owners that the spool's last batch names from where it ended.

        Counters and CPU times kept counting meanwhile, so the absence costs nothing; power that nobody sampled, and
        an owner that died in the absence, show as unmetered.
        """
        for entry in state["owners"]:
            owner, rows = owner_of(entry)
            process = self._host.process(owner.pid)
            if process is None or abs(process.created_s - entry["created_s"]) > 1.0:
                self._close_unmetered(owner, entry["phase"], rows)
                continue
            charge = Charge(owner, process, entry["phase"], float(entry["cpu_s"]), rows)
            self._charges[owner.segment_id, owner.rank] = charge
            for uuid in set(owner.gpu_uuids) & set(self._gpus):
                self._gpus[uuid].resume(state["counters_j"].get(uuid))
        if self._charges:
            self._look_for_children(self._at)
        self._advance()

    def _close_unmetered(self, owner: Owner, phase: Phase, rows: Mapping[str, OpenRow]) -> None:
        """What was read of an owner that died, then the meter's absence, as far as it may have lived, as unmetered."""
        for device, row in rows.items():
            end_us = min(self._at.utc_us, row.open_part().end_us + round(BRIDGE_S * 1e6))
            for pieces in (row.add(end_us, None, self._slot_us), row.cut()):
                self._book.enter(pieces, device, self._source(device), owner, phase)

    # --- rows --------------------------------------------------------------------------------------------------

    def _close(self, charge: Charge) -> None:
        for device, row in charge.rows.items():
            self._keep(row.cut(), device, charge)

    def _keep(self, pieces: Iterable[Piece], device: str, charge: Charge | None) -> None:
        phase: Phase = charge.phase if charge is not None else "idle"
        self._book.enter(pieces, device, self._source(device), charge.owner if charge is not None else None, phase)

    def _source(self, device: str) -> Source:
        gpu = self._gpus.get(device)
        return "estimated" if device == CPU else gpu.source if gpu is not None else "nvml-counter"

    def _write(self, always: bool = False) -> None:
        """Put closed rows on disk; `always` also where there are none, so that the state of the owners is there."""
        if always or not self._book.empty:
            self._book.write(self._state())

    def _state(self) -> dict[str, Any]:
        """What a later meter of this boot goes on from: readings at the end of the rows that are written."""
        return {
            "owners": [charge.to_state() for charge in self._charges.values()],
            "counters_j": {uuid: gpu.baseline_j() for uuid, gpu in self._gpus.items()},
        }
