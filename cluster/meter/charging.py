"""Who is charged what: the energy of every device goes to the ranks that hold it, or to the idle account.
In: readings of the devices at an instant, owners that come, change phase and go. Out: rows in the book; its state.
`meter` gives it the instants, under its lock; a later meter of the same boot goes on from the state.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.api import Phase
from cluster.meter.book import CPU, Book
from cluster.meter.clock import Instant, Timeline
from cluster.meter.holding import Gpus, Part, weights
from cluster.meter.host import HostEnergy
from cluster.meter.limit import Wish
from cluster.meter.memory import Kills
from cluster.meter.owner import Charge, Owner, owner_of
from cluster.meter.process import Host, Process
from cluster.meter.row import OpenRow
from cluster.meter.share import Weights

log = logging.getLogger(__name__)

LOOK_S = 15.0
"""How often the trees of registered processes, and GPUs that nobody has seen yet, are looked up anew."""
STEADY_READ_S = 0.005
"""Readings that took this much longer than thrice the fastest are taken again."""
BRIDGE_S = 60.0
"""A restarted meter shows at most this much of its absence as unmetered for owners that died meanwhile."""
REMEMBERED = 256
"""Ends of processes that went away, until their segments' drivers have asked."""
ABSENCE_S = 600.0
"""After a longer absence in which no owner lived on, the idle account begins anew instead of filling the time."""


class Charging:
    """The accounts of one host, at the instant of the last reading. Not thread-safe."""

    def __init__(self, timeline: Timeline, book: Book, host: Host, energy: HostEnergy, gpus: Gpus) -> None:
        self._timeline, self._book, self._host, self._energy, self._gpus = timeline, book, host, energy, gpus
        self._charges: dict[tuple[str, int], Charge] = {}
        self._released: dict[int, float] = {}
        """When a pid that was released had started: its earlier CPU time is charged already."""
        self._kills = Kills()
        self._starved: dict[tuple[str, int], bool] = {}
        self._fastest_read_s = math.inf
        self._at = self._read()
        self._looked_at_s = self._at.monotonic_s
        self._since_us = self._at.utc_us
        gpus.take()
        energy.begin(self._at)

    @property
    def at_s(self) -> float:
        """Monotonic s of the last reading."""
        return self._at.monotonic_s

    def of(self, segment_id: str, rank: int) -> Charge | None:
        """The charge of a rank; None where it never registered, or is gone."""
        return self._charges.get((segment_id, rank))

    def wishes(self) -> dict[tuple[str, int], Wish]:
        """What each owner holds, and how much of it it wishes to draw."""
        owners = {key: charge.owner for key, charge in self._charges.items()}
        return {key: Wish(owner.gpu_uuids, owner.power_limit_w) for key, owner in owners.items()}

    def starved(self, segment_id: str) -> dict[int, bool]:
        """Of this segment's ranks whose process went away: whether the kernel was killing for want of memory then."""
        return {rank: starved for (segment, rank), starved in self._starved.items() if segment == segment_id}

    def admit(self, owner: Owner) -> None:
        """Charge `owner` from the last reading on, and its process's CPU time until then as phase `start`."""
        process = self._host.process(owner.pid)
        if process is None:
            log.warning("process %d of %s ended before it was metered", owner.pid, owner.segment_id)
            return
        now_us = self._at.utc_us
        self._kills.watch(owner.pid)
        charge = self._charges[owner.segment_id, owner.rank] = Charge(owner, process, "start", 0.0)
        charge.rows = {CPU: OpenRow(now_us), **{uuid: OpenRow(now_us) for uuid in owner.gpu_uuids}}
        self.look()
        charge.cpu_s = process.cpu_s() or 0.0
        if self._released.get(owner.pid) != process.created_s:
            self._charge_the_past(charge, process)

    def enter(self, charge: Charge, phase: Phase) -> None:
        """Cut the rows of a rank at the last reading; it is in `phase` from then on."""
        self._book.close(charge)
        charge.phase = phase

    def end(self, charge: Charge) -> None:
        """Cut the owner's rows at the last reading and give its GPUs back."""
        self._book.close(charge)
        del self._charges[charge.owner.segment_id, charge.owner.rank]
        self._released[charge.owner.pid] = charge.process.created_s
        self._kills.forget(charge.owner.pid)

    def close(self) -> None:
        """Cut all rows at the last reading; owners stay."""
        for charge in self._charges.values():
            self._book.close(charge)
        self._book.close_idle()

    def advance(self) -> None:
        """Book what every device drew since the last reading, and release owners whose process is gone."""
        at = self._read()
        held = [(key, uuid) for key, charge in self._charges.items() for uuid in charge.owner.gpu_uuids]
        parts = self._gpus.parts(self._gpus.take(), held)
        self._book_gpus(at, parts)
        gone = self._book_host(at, weights(parts) if self._gpus.by_uuid else {})
        self._at = at
        self._kills.look(at.monotonic_s)
        for charge in gone:
            log.warning("rank %d of %s is gone; released", charge.owner.rank, charge.owner.segment_id)
            self._remember(charge.owner)
            self.end(charge)
        if at.monotonic_s - self._looked_at_s >= LOOK_S:
            self.look()

    def go_on(self, state: Mapping[str, Any]) -> None:
        """Charge the owners that the spool's last batch names, and the idle account, from where it ended.

        Counters and CPU times kept counting meanwhile, so the absence costs nothing; power that nobody sampled, and
        an owner that died in the absence, show as unmetered. What such an owner drew is in the idle account.
        """
        for entry in state["owners"]:
            owner, rows = owner_of(entry)
            process = self._host.process(owner.pid)
            if process is None or abs(process.created_s - entry["created_s"]) > 1.0:
                self._book.close_unmetered(owner, entry["phase"], rows, round(BRIDGE_S * 1e6), self._at.utc_us)
                continue
            self._kills.watch(owner.pid)
            charge = Charge(owner, process, entry["phase"], float(entry["cpu_s"]), rows)
            self._charges[owner.segment_id, owner.rank] = charge
        if "host" in state:
            if not self._charges and self._at.monotonic_s - state["host"]["at_s"] > ABSENCE_S:
                return
            self._since_us = state["since_us"]
            self._book.resume_idle(state["idle"])
            self._energy.resume(state["host"])
        for uuid, gpu in self._gpus.by_uuid.items():
            gpu.resume(state["counters_j"].get(uuid))
        self.look()
        self.advance()

    def state(self) -> dict[str, Any]:
        """What a later meter of this boot goes on from: readings at the end of the rows that are written."""
        return {
            "since_us": self._since_us,
            "owners": [charge.to_state() for charge in self._charges.values()],
            "idle": self._book.idle_state(),
            "counters_j": {uuid: gpu.baseline_j() for uuid, gpu in self._gpus.by_uuid.items()},
            "host": self._energy.state(),
        }

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

    def _book_gpus(self, at: Instant, parts: Sequence[Part[tuple[str, int]]]) -> None:
        """Each part goes to its owner's rows; a GPU of which nothing is idle leaves its idle row behind."""
        for part in parts:
            charge = None if part.holder is None else self._charges[part.holder]
            self._book.add(part.uuid, part.drawn, self._at.utc_us, at.utc_us, charge)
        for uuid in self._gpus.by_uuid.keys() - {part.uuid for part in parts if part.holder is None}:
            self._book.pass_by(uuid, self._at.utc_us, at.utc_us)

    def _book_host(self, at: Instant, by_gpus: Mapping[tuple[str, int] | None, float]) -> list[Charge]:
        """Energy of processors and memory to ranks and the rest; returns the owners whose process is gone.

        Who holds a GPU weighs by it, `by_gpus`; others by their CPU time. One that is gone has no CPU time to tell.
        """
        times = self._energy.times()
        charges = {key: (charge, charge.process.cpu_s()) for key, charge in self._charges.items()}
        charged = {key: each for key, each in charges.items() if key in by_gpus or each[1] is not None}
        ranks_s = [
            0.0 if key in by_gpus or cpu_s is None else max(0.0, cpu_s - charge.cpu_s)
            for key, (charge, cpu_s) in charged.items()
        ]
        rest = Weights([by_gpus.get(key, 0.0) for key in charged], by_gpus.get(None, 0.0))
        for split in self._energy.split(at, times, ranks_s, rest):
            for (charge, _), drawn in zip(charged.values(), split.ranks, strict=True):
                self._book.add(split.device, drawn, self._at.utc_us, at.utc_us, charge)
            self._book.add(split.device, split.idle, self._at.utc_us, at.utc_us, None)
        for charge, cpu_s in charges.values():
            charge.cpu_s = max(charge.cpu_s, cpu_s or 0.0)
        return [charge for charge, cpu_s in charges.values() if cpu_s is None]

    def _remember(self, owner: Owner) -> None:
        starved = self._kills.near(owner.pid, self.at_s)
        if starved is not None:
            self._starved[owner.segment_id, owner.rank] = starved
        if len(self._starved) > REMEMBERED:
            del self._starved[next(iter(self._starved))]

    def look(self) -> None:
        """Find children of owners' processes, and GPUs that owners hold and nobody has seen yet."""
        self._looked_at_s = self._at.monotonic_s
        trees = self._host.children(charge.owner.pid for charge in self._charges.values())
        for charge in self._charges.values():
            charge.process.adopt(trees[charge.owner.pid])
        self._gpus.look_for([uuid for c in self._charges.values() for uuid in c.owner.gpu_uuids], self._at)

    def _charge_the_past(self, charge: Charge, process: Process) -> None:
        """What the owner's process spent before it registered, from its start."""
        now_us = self._at.utc_us
        started_us = min(now_us, round(process.created_s * 1e6))
        for device, drawn in self._energy.admit(charge.cpu_s, started_us >= self._since_us).items():
            charge.rows[device] = OpenRow(started_us)
            self._book.add(device, drawn, started_us, now_us, charge)
