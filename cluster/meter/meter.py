"""One host's meter: reads its devices, attributes their energy to ranks, writes rows.
In: owners (ranks with their process and GPUs), marks of phases, readings of GPUs and CPU times. Out: rows in the spool.
The controller pulls them from the spool through the meter's actor, and the ledger keeps them.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from cluster.api import MeterRow, Phase
from cluster.meter.beat import Beat
from cluster.meter.book import CPU, Book
from cluster.meter.clock import Clock, Instant, SystemClock, Timeline
from cluster.meter.estimate import CoreWatts
from cluster.meter.gpu import Gpu, Slice
from cluster.meter.holding import Gpus, Part
from cluster.meter.host import HostEnergy
from cluster.meter.owner import Charge, Owner, owner_of
from cluster.meter.process import Host, LocalHost, Process
from cluster.meter.rapl import Rapl
from cluster.meter.row import Drawn, OpenRow, Piece
from cluster.meter.spool import Key, Spool

log = logging.getLogger(__name__)

LOOK_S = 15.0
"""How often the trees of registered processes, and GPUs that nobody has seen yet, are looked up anew."""
STEADY_READ_S = 0.005
"""Readings that took this much longer than thrice the fastest are taken again."""
BRIDGE_S = 60.0
"""A restarted meter shows at most this much of its absence as unmetered for owners that died meanwhile."""
ABSENCE_S = 600.0
"""After a longer absence in which no owner lived on, the idle account begins anew instead of filling the time."""


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
    ) -> None:
        self._spool = spool
        self._host: Host = host or LocalHost()
        self._energy = HostEnergy(self._host, watts or CoreWatts(), rapl)
        self._gpus = Gpus(gpus, find)
        self._timeline = Timeline(clock or SystemClock())
        self._book = Book(spool, node)
        self._fastest_read_s = math.inf
        self._lock = threading.RLock()
        self._charges: dict[tuple[str, int], Charge] = {}
        self._idle: dict[str, OpenRow] = {}
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
            for gpu in self._gpus.by_uuid.values():
                if gpu.sample_s is not None:
                    gpu.read(at)

    @property
    def sample_s(self) -> float | None:
        """How often power must be sampled between ticks; None where every GPU has a counter."""
        return min((gpu.sample_s for gpu in self._gpus.by_uuid.values() if gpu.sample_s is not None), default=None)

    @property
    def slot_us(self) -> int:
        """Rows are cut at UTC multiples of it."""
        return self._slot_us

    @property
    def owed_j(self) -> float:
        """What ranks were charged for late CPU time that the idle account still has to pay back."""
        return self._energy.owed_j

    def now_us(self) -> int:
        """Microseconds of UTC since the epoch, that never go back against the host's monotonic clock."""
        with self._lock:
            return self._timeline.now().utc_us

    # --- reading and attributing -------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take first readings, or go on with what an earlier meter of this boot left."""
        at = self._at = self._read()
        self._gpus.take()
        self._energy.begin(at)
        self._looked_at_s = at.monotonic_s
        self._since_us = at.utc_us
        if self._spool.state is not None:
            self._go_on(self._spool.state)
        self._write(always=True)

    def _read(self) -> Instant:
        """A reading of every device, and the moment that it holds for.

        It is taken again where the thread lost its core between the clock and a device, for then they do not agree.
        """
        for _ in range(3):
            at = self._timeline.now()
            self._gpus.read(at)
            self._energy.read(at)
            took_s = self._timeline.now().monotonic_s - at.monotonic_s
            self._fastest_read_s = min(self._fastest_read_s, took_s)
            if took_s <= 3 * self._fastest_read_s + STEADY_READ_S:
                break
        return at

    def _advance(self) -> None:
        """Book what every device drew since the last reading, and release owners whose process is gone."""
        at = self._read()
        held = [(key, uuid) for key, charge in self._charges.items() for uuid in charge.owner.gpu_uuids]
        self._book_gpus(at, self._gpus.parts(self._gpus.take(), held))
        gone = self._book_host(at)
        self._at = at
        for charge in gone:
            log.warning("rank %d of %s is gone; released", charge.owner.rank, charge.owner.segment_id)
            self._end(charge)
        if at.monotonic_s - self._looked_at_s >= LOOK_S:
            self._look()

    def _book_gpus(self, at: Instant, parts: Sequence[Part[tuple[str, int]]]) -> None:
        """Each part goes to its owner's rows; a GPU of which nothing is idle leaves its idle row behind."""
        for part in parts:
            charge = None if part.holder is None else self._charges[part.holder]
            self._add(part.uuid, part.drawn, at, charge)
        for uuid in self._gpus.by_uuid.keys() - {part.uuid for part in parts if part.holder is None}:
            self._keep(self._idle_row(uuid).skip(at.utc_us), uuid, None)

    def _book_host(self, at: Instant) -> list[Charge]:
        """Energy of processors and memory to ranks and the rest; returns the owners whose process is gone."""
        times = self._energy.times()
        spent = [(charge, charge.process.cpu_s()) for charge in self._charges.values()]
        alive = [(charge, cpu_s) for charge, cpu_s in spent if cpu_s is not None]
        for split in self._energy.split(at, times, [max(0.0, cpu_s - charge.cpu_s) for charge, cpu_s in alive]):
            for (charge, _), drawn in zip(alive, split.ranks, strict=True):
                self._add(split.device, drawn, at, charge)
            self._add(split.device, split.idle, at, None)
        for charge, cpu_s in alive:
            charge.cpu_s = max(charge.cpu_s, cpu_s)
        return [charge for charge, cpu_s in spent if cpu_s is None]

    def _look(self) -> None:
        """Find children of owners' processes, and GPUs that owners hold and nobody has seen yet."""
        self._looked_at_s = self._at.monotonic_s
        trees = self._host.children(charge.owner.pid for charge in self._charges.values())
        for charge in self._charges.values():
            charge.process.adopt(trees[charge.owner.pid])
        self._gpus.look_for([uuid for c in self._charges.values() for uuid in c.owner.gpu_uuids], self._at)

    # --- owners come and go ------------------------------------------------------------------------------------

    def _admit(self, owner: Owner, process: Process) -> None:
        """Open the owner's rows now; the host's from its process's start, unless those seconds were charged before."""
        now_us = self._at.utc_us
        charge = self._charges[owner.segment_id, owner.rank] = Charge(owner, process, "start", 0.0)
        charge.rows = {CPU: OpenRow(now_us), **{uuid: OpenRow(now_us) for uuid in owner.gpu_uuids}}
        self._look()
        charge.cpu_s = process.cpu_s() or 0.0
        if self._released.get(owner.pid) == process.created_s:
            return
        started_us = min(now_us, round(process.created_s * 1e6))
        for device, drawn in self._energy.admit(charge.cpu_s, started_us >= self._since_us).items():
            charge.rows[device] = OpenRow(started_us)
            self._add(device, drawn, self._at, charge)

    def _end(self, charge: Charge) -> None:
        """Cut the owner's rows and give its GPUs back."""
        self._close(charge)
        del self._charges[charge.owner.segment_id, charge.owner.rank]
        self._released[charge.owner.pid] = charge.process.created_s

    def _go_on(self, state: Mapping[str, Any]) -> None:
        """Charge the owners that the spool's last batch names, and the idle account, from where it ended.

        Counters and CPU times kept counting meanwhile, so the absence costs nothing; power that nobody sampled, and
        an owner that died in the absence, show as unmetered. What such an owner drew is in the idle account.
        """
        for entry in state["owners"]:
            owner, rows = owner_of(entry)
            process = self._host.process(owner.pid)
            if process is None or abs(process.created_s - entry["created_s"]) > 1.0:
                self._close_unmetered(owner, entry["phase"], rows)
                continue
            charge = Charge(owner, process, entry["phase"], float(entry["cpu_s"]), rows)
            self._charges[owner.segment_id, owner.rank] = charge
        if "host" in state:
            if not self._charges and self._at.monotonic_s - state["host"]["at_s"] > ABSENCE_S:
                return
            self._since_us = state["since_us"]
            self._idle = {device: OpenRow(*part) for device, part in state["idle"].items()}
            self._energy.resume(state["host"])
        for uuid, gpu in self._gpus.by_uuid.items():
            gpu.resume(state["counters_j"].get(uuid))
        self._look()
        self._advance()

    def _close_unmetered(self, owner: Owner, phase: Phase, rows: Mapping[str, OpenRow]) -> None:
        """What was read of an owner that died, then the meter's absence, as far as it may have lived, as unmetered."""
        for device, row in rows.items():
            part = row.open_part()
            end_us = min(self._at.utc_us, part.end_us + round(BRIDGE_S * 1e6))
            for pieces in (row.add(end_us, Drawn(None, part.source), self._slot_us), row.cut()):
                self._book.enter(pieces, device, owner, phase)

    # --- rows --------------------------------------------------------------------------------------------------

    def _add(self, device: str, drawn: Drawn, at: Instant, charge: Charge | None) -> None:
        """Go on with a row of an owner, or of the idle account; a device that is new begins with the last reading."""
        row = self._idle_row(device) if charge is None else charge.rows.setdefault(device, OpenRow(self._at.utc_us))
        self._keep(row.add(at.utc_us, drawn, self._slot_us), device, charge)

    def _idle_row(self, device: str) -> OpenRow:
        return self._idle.setdefault(device, OpenRow(self._at.utc_us))

    def _close(self, charge: Charge) -> None:
        for device, row in charge.rows.items():
            self._keep(row.cut(), device, charge)

    def _keep(self, pieces: Iterable[Piece], device: str, charge: Charge | None) -> None:
        phase: Phase = charge.phase if charge is not None else "idle"
        self._book.enter(pieces, device, charge.owner if charge is not None else None, phase)

    def _write(self, always: bool = False) -> None:
        """Put closed rows on disk; `always` also where there are none, so that the state of the owners is there."""
        if always or not self._book.empty:
            self._book.write(self._state())

    def _state(self) -> dict[str, Any]:
        """What a later meter of this boot goes on from: readings at the end of the rows that are written."""
        return {
            "since_us": self._since_us,
            "owners": [charge.to_state() for charge in self._charges.values()],
            "idle": {device: astuple(row.open_part()) for device, row in self._idle.items()},
            "counters_j": {uuid: gpu.baseline_j() for uuid, gpu in self._gpus.by_uuid.items()},
            "host": self._energy.state(),
        }
