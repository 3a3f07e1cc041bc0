"""A lower bound on the grams of a fleet, and what GPUs are worth by zone and slot, by Lagrangian relaxation.
In: a Grid and a Table's rows. Out: a Relaxation: worths of GPU-seconds, each job's share of its slots, and the bound.
`settle` plans by the worths; the bound is what the plans are held against.

Charging for GPUs instead of rationing them takes the jobs apart: each then finds its cheapest path alone, and the sum
of their costs, less what the GPUs there are would earn, is a bound whatever the worths are. Good worths are found by
the method of multipliers (Bertsekas 1982): too much use of a slot costs a penalty that rises with it, the jobs answer
one after the other with a part of their best path (block-coordinate Frank-Wolfe, Lacoste-Julien et al., ICML 2013), and
after each round of them the penalties become the worths. Answering in turn keeps jobs that are alike from all moving
to the same slot at once, which is what makes plain subgradients slow here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Grid, Ints
from orchestrator.fleet.limits import least_of, worth_of
from orchestrator.fleet.path import INFINITE, Desk, desk, price
from orchestrator.fleet.table import MAY_TOUCH, Rows

_PARTS = 8
"""Jobs are summed in so many parts, whatever the number of threads, so that equal input gives equal sums."""
_THREADS = 2
_NEARER = 1e-7
"""How near its least cost each job is priced for the bound."""
_STIFFNESS = 0.6
"""What all of a slot too much costs, in multiples of what a GPU emits in it."""


@compiled
def fill(rows: Rows, job: int, gpus: Ints, g_per_kwh: Floats, worth: Floats, desk: Desk) -> None:
    """Costs and gains of a job's slots where every GPU that the zone has can be had for its worth."""
    at, way_at, first = rows.at[job], rows.way_at[job], rows.first[job]
    for t in range(rows.slots[job]):
        open_s = rows.open_s[at + t]
        for k in range(rows.way_count[job]):
            way = way_at + k
            zone = rows.way_zone[way]
            is_shut = (rows.shut[at + t] >> np.uint64(zone)) & np.uint64(1)
            if open_s <= 0.0 or is_shut or least_of(rows, way, first + t, gpus) < rows.way_gpus[way]:
                desk.cost[t, k], desk.gain[t, k], desk.joins[t, k] = INFINITE, 0.0, 0
                continue
            each_s = rows.way_g[way] * g_per_kwh[zone, first + t]
            each_s += rows.way_gpus[way] * worth_of(rows, way, first + t, worth)
            desk.cost[t, k] = open_s * each_s
            desk.gain[t, k] = open_s * rows.way_steps[way]
            desk.joins[t, k] = rows.joins[at + t] & MAY_TOUCH


@compiled
def _relax(
    rows: Rows,
    begin: int,
    end: int,
    gpus: Ints,
    g_per_kwh: Floats,
    worth: Floats,
    near: float,
    step: Floats,
    job_g: Floats,
    desk: Desk,
) -> None:
    """Price the jobs [begin, end): the least grams of each, GPUs included; -1 where it cannot meet its deadline."""
    for job in range(begin, end):
        fill(rows, job, gpus, g_per_kwh, worth, desk)
        step[job], job_g[job], share = price(rows, job, step[job], near, desk)
        if share < 0.0:
            step[job], job_g[job] = 0.0, -1.0


@compiled
def _goal(desk: Desk, mix: float, t: int, k: int) -> float:
    """How much of a slot the mix of the job's two paths uses."""
    goal = mix if desk.high[t] == k else 0.0
    return goal + 1.0 - mix if desk.low[t] == k else goal


@compiled
def use(
    rows: Rows,
    way: int,
    cell: int,
    added_s: float,
    base: Floats,
    stiff: Floats,
    use_s: Floats,
    room_s: Floats,
    worth: Floats,
) -> None:
    """Add GPU-seconds to what is used of a way's limits in a slot; what they are worth follows."""
    for place in range(rows.way_limits.shape[1]):
        limit = rows.way_limits[way, place]
        if limit >= 0:
            use_s[limit, cell] += added_s
            found = base[limit, cell] + stiff[limit, cell] * (use_s[limit, cell] - room_s[limit, cell])
            worth[limit, cell] = found if found > 0.0 else 0.0


@compiled
def _answer(
    rows: Rows,
    order: Ints,
    gpus: Ints,
    g_per_kwh: Floats,
    base: Floats,
    stiff: Floats,
    room_s: Floats,
    use_s: Floats,
    worth: Floats,
    share: Floats,
    share_at: Ints,
    step: Floats,
    desk: Desk,
) -> None:
    """Move each job of `order` a part of the way to its cheapest path, as far as that lowers cost and penalty."""
    for i in range(len(order)):
        job = order[i]
        at, way_at, first, ways = rows.at[job], rows.way_at[job], rows.first[job], rows.way_count[job]
        fill(rows, job, gpus, g_per_kwh, worth, desk)
        step[job], _, mix = price(rows, job, step[job], 1e-3, desk)
        if mix < 0.0:
            continue
        gain, curve, is_new = 0.0, 0.0, True
        for t in range(rows.slots[job]):
            for k in range(ways):
                had = share[share_at[job] + t * ways + k]
                is_new = is_new and had == 0.0
                move = _goal(desk, mix, t, k) - had
                if move == 0.0:
                    continue
                cell = first + t
                gain -= move * desk.cost[t, k]
                move_s = move * rows.way_gpus[way_at + k] * rows.open_s[at + t]
                for place in range(rows.way_limits.shape[1]):
                    limit = rows.way_limits[way_at + k, place]
                    if limit < 0:
                        continue
                    if worth[limit, cell] > 0.0 or use_s[limit, cell] + move_s > room_s[limit, cell]:
                        curve += stiff[limit, cell] * move_s * move_s
        if not is_new and gain <= 0.0:
            continue
        far = 1.0 if is_new or curve <= gain else gain / curve
        for t in range(rows.slots[job]):
            for k in range(ways):
                had = share_at[job] + t * ways + k
                move = far * (_goal(desk, mix, t, k) - share[had])
                if move != 0.0:
                    share[had] += move
                    added_s = move * rows.way_gpus[way_at + k] * rows.open_s[at + t]
                    use(rows, way_at + k, first + t, added_s, base, stiff, use_s, room_s, worth)


class Relaxation:
    """Jobs that share their slots in parts, and the worths by which they do."""

    def __init__(self, cells: Grid, rows: Rows, worth: Floats | None = None) -> None:
        self.cells, self.rows = cells, rows
        self.room_s: Floats = cells.gpus * np.diff(cells.edge_s)
        self.stiff: Floats = _stiffness(cells, rows) / np.maximum(self.room_s, np.diff(cells.edge_s))
        self.base: Floats = np.zeros(cells.gpus.shape) if worth is None else worth.copy()
        self.worth: Floats = self.base.copy()
        self.use_s: Floats = np.zeros(cells.gpus.shape)
        sizes = rows.slots * rows.way_count
        self.share_at: Ints = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        self.share: Floats = np.zeros(int(self.share_at[-1]))
        self.step: Floats = np.zeros(len(rows.slots))
        self._desk = desk(rows, len(cells.zones))

    def copy(self) -> Relaxation:
        """One that may go another way from here."""
        other = copy(self)
        for name in ("base", "worth", "use_s", "share", "step"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def answer(self, order: Ints) -> None:
        """One round of answers by the jobs of `order`, penalties staying what they are."""
        _answer(
            self.rows,
            order,
            self.cells.gpus,
            self.cells.g_per_kwh,
            self.base,
            self.stiff,
            self.room_s,
            self.use_s,
            self.worth,
            self.share,
            self.share_at,
            self.step,
            self._desk,
        )

    def learn(self) -> None:
        """Penalties become worths."""
        self.base[:] = self.worth
        self.worth[:] = np.maximum(0.0, self.base + self.stiff * (self.use_s - self.room_s))

    def bound(self, worth: Floats) -> tuple[float, Floats]:
        """The bound that `worth` proves, and each job's part of it; -1 for jobs that no plan brings to the deadline."""
        jobs = len(self.rows.slots)
        cuts = np.linspace(0, jobs, min(_PARTS, max(1, jobs)) + 1).astype(int)
        job_g = np.zeros(jobs)

        def part(begin: int, end: int) -> None:
            own: Desk = desk(self.rows, len(self.cells.zones))
            given = (self.cells.gpus, self.cells.g_per_kwh, worth, _NEARER, self.step, job_g, own)
            _relax(self.rows, begin, end, *given)

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(part, cuts[:-1], cuts[1:]))
        return float(job_g[job_g > 0].sum()) - self.rent(worth), job_g

    def rent(self, worth: Floats) -> float:
        """What all GPUs would earn."""
        return float((worth * self.room_s)[worth > 0].sum())


def _stiffness(cells: Grid, rows: Rows) -> float:
    """Grams per GPU-second, of the size that worths have."""
    on_gpus = rows.way_gpus > 0
    if not on_gpus.any():
        return 1.0
    each_g = float(np.median(rows.way_g[on_gpus] / rows.way_gpus[on_gpus]))
    return max(1e-12, _STIFFNESS * each_g * float(np.median(cells.g_per_kwh)))
