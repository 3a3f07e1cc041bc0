"""The time of a fleet cut into slots, with each zone's price and its GPUs in them, as arrays.
In: a Fleet. Out: a Grid from `now` to an end. Prices are the single-job planner's, cell by cell.
`table` puts the jobs on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from orchestrator.fleet.problem import Fleet, FleetJob, FleetZone, Pool
from orchestrator.plan.lattice import Lattice, lattice
from orchestrator.plan.problem import OperatingPoint, Problem, ZoneOption

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NO_LIMIT = 1 << 40
"""GPUs of a zone without a limit."""

_SECOND = timedelta(seconds=1)
_CELLS = 2_900
"""Slots at most that are asked of the lattice at once; it keeps equal slots up to somewhat more."""
_ANY = OperatingPoint(workers=1, steps_per_s=1.0, power_w=1.0)


@dataclass(frozen=True)
class Grid:
    """Slots from `now` on; times are seconds from `now`."""

    now: datetime
    slot_s: float
    zones: tuple[str, ...]
    edge_s: Floats
    """Shape (cells + 1,), rising from 0; all multiples of the slot in UTC but the first."""
    g_per_kwh: Floats
    """Shape (zones, cells), unknown time priced as in `lattice`."""
    unknown_share: Floats
    renewable_percent: Floats
    gpus: Ints
    """Shape (limits, cells): the least number that is there throughout the slot, of the zones and then of `pools`."""
    pools: tuple[tuple[str, str], ...] = ()
    """Parts of zones with limits of their own: zone and name."""

    @property
    def cells(self) -> int:
        """Number of slots."""
        return len(self.edge_s) - 1

    @property
    def end_s(self) -> float:
        """Where the grid ends."""
        return float(self.edge_s[-1])

    def limits(self, job: FleetJob, zone: str) -> tuple[int, ...]:
        """The rows of `gpus` that count what the job takes in a zone: the zone's own, then those of its parts."""
        pools = tuple(len(self.zones) + self.pools.index((zone, name)) for name in job.pools.get(zone, ()))
        return (self.zones.index(zone), *pools)

    def offset_s(self, moment: datetime) -> float:
        """Seconds from `now` to `moment`."""
        return (moment - self.now) / _SECOND

    def moment(self, at_s: float) -> datetime:
        """The UTC time, to the microsecond."""
        return self.now + timedelta(microseconds=round(at_s * 1e6))


def grid(fleet: Fleet, end: datetime) -> Grid:
    """The grid of `fleet` from its `now` to the slot edge at or after `end`."""
    span = (end - fleet.now) / _SECOND
    until = fleet.now + timedelta(seconds=max(fleet.slot_s, min(span, _CELLS * fleet.slot_s)))
    zones = {name: ZoneOption(zone.curve, (_ANY,)) for name, zone in fleet.zones.items()}
    first = lattice(Problem(fleet.now, until, 1.0, zones, fleet.slot_s))
    # The lattice ends at the deadline: ask again up to the slot edge after it.
    whole_s = float(first.edge_s[1]) if len(first.edge_s) > 1 else fleet.slot_s
    steps = np.ceil(max(0.0, first.end_s - whole_s) / fleet.slot_s - 1e-9)
    last_s = whole_s + steps * fleet.slot_s
    cells = lattice(Problem(fleet.now, fleet.now + timedelta(seconds=last_s), 1.0, zones, fleet.slot_s))
    edge_s, g_per_kwh, unknown, renewable = cells.edge_s, cells.g_per_kwh, cells.unknown_share, cells.renewable_percent
    made = Grid(
        fleet.now, fleet.slot_s, tuple(fleet.zones), edge_s, g_per_kwh, unknown, renewable, np.zeros((0, 0), np.int64)
    )
    made = _longer(made, cells, span)
    pools = {(name, part): pool for name, zone in fleet.zones.items() for part, pool in zone.pools.items()}
    limits: list[FleetZone | Pool] = [*fleet.zones.values(), *pools.values()]
    gpus = np.array([_gpus(made, limit) for limit in limits], dtype=np.int64)
    return replace(made, gpus=gpus, pools=tuple(pools))


def _longer(made: Grid, cells: Lattice, end_s: float) -> Grid:
    """The grid with slots of unknown intensity after its end, up to `end_s`."""
    count = int(np.ceil((end_s - made.end_s) / made.slot_s - 1e-9))
    if count <= 0:
        return made
    more_s = made.end_s + made.slot_s * np.arange(1, count + 1)
    shape = (len(made.zones), count)
    tail = np.broadcast_to(cells.tail_g_per_kwh[:, None], shape)
    return replace(
        made,
        edge_s=np.concatenate([made.edge_s, more_s]),
        g_per_kwh=np.concatenate([made.g_per_kwh, tail], axis=1),
        unknown_share=np.concatenate([made.unknown_share, np.ones(shape)], axis=1),
        renewable_percent=np.concatenate([made.renewable_percent, np.full(shape, np.nan)], axis=1),
    )


def _gpus(made: Grid, there: FleetZone | Pool) -> Ints:
    """GPUs by slot: of those that hold in a part of it the least."""
    counts = np.full(made.cells, NO_LIMIT if there.gpus is None else there.gpus, dtype=np.int64)
    for change in there.changes:
        at_s = made.offset_s(change.start)
        before = counts.copy()
        counts[made.edge_s[:-1] >= at_s - 1e-6] = change.gpus
        cut = int(np.searchsorted(made.edge_s, at_s, side="right")) - 1
        if 0 <= cut < made.cells and made.edge_s[cut] < at_s - 1e-6:
            counts[cut] = min(before[cut], change.gpus)
    return counts
