"""Fits one job after the other into the GPUs that are left, by grams and by what GPUs are worth: compiled.
In: a Table's rows, GPUs left by zone and slot, worths. Out: Uses: each job's way and seconds by slot.
`arrange` decides the order and what to do where nothing fits.

GPUs are counted by parts of a slot, so that one job can begin where another ends. `trim` makes each job's plan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Grid, Ints
from orchestrator.fleet.limits import least_in_part, least_of, worth_of
from orchestrator.fleet.path import INFINITE, Desk, walk
from orchestrator.fleet.table import TOUCHES, Rows
from orchestrator.fleet.trim import done, fit, whole

DEARER = 1000.0
"""What a slot beyond the user's bounds costs more than the worst intensity, in multiples of it."""
PARTS = 15
"""A slot is shared by parts of it: a job has its GPUs for those that it uses."""


class Uses(NamedTuple):
    """What is planned, by slot of each job as the rows have them."""

    way: Ints
    """The way, or -1."""
    from_s: Floats
    to_s: Floats
    planned: Ints
    """Shape (jobs,): 1 where the job has a plan."""
    step: Floats
    """Shape (jobs,): what a step was worth when the job was last fitted."""


class Market(NamedTuple):
    """What the zones offer by slot; shapes (limits, cells) but for the prices, which are by zone."""

    edge_s: Floats
    """Shape (cells + 1,)."""
    g_per_kwh: Floats
    worth: Floats
    """Grams that a GPU-second is worth."""
    left: Ints
    """Shape (limits, cells, PARTS): GPUs that no job has, by part of a slot."""
    least: Ints
    """Of the parts of each slot."""
    most: Ints


def market(cells: Grid, worth: Floats) -> Market:
    """All GPUs, with no job in them."""
    left = np.repeat(cells.gpus[:, :, None], PARTS, axis=2)
    return Market(cells.edge_s, cells.g_per_kwh, worth, left, cells.gpus.copy(), cells.gpus.copy())


def uses(rows: Rows) -> Uses:
    """Nothing planned."""
    slots, jobs = len(rows.open_s), len(rows.slots)
    return Uses(
        np.full(slots, -1, np.int64), np.zeros(slots), np.zeros(slots), np.zeros(jobs, np.int64), np.zeros(jobs)
    )


@compiled
def _each_s(rows: Rows, job: int, t: int, way: int, market: Market, share: float, dearest: float) -> float:
    """What a second of a way costs: grams, and `share` of what its GPUs are worth."""
    zone, cell = rows.way_zone[way], rows.first[job] + t
    g_per_kwh = market.g_per_kwh[zone, cell]
    if (rows.dear[rows.at[job] + t] >> np.uint64(zone)) & np.uint64(1):
        g_per_kwh += dearest
    return float(rows.way_g[way] * g_per_kwh + share * rows.way_gpus[way] * worth_of(rows, way, cell, market.worth))


@compiled
def _free(rows: Rows, way: int, market: Market, cell: int, open_from: float, open_to: float) -> tuple[float, float]:
    """The longest stretch within [open_from, open_to) of a slot in which a way's GPUs are left."""
    gpus = rows.way_gpus[way]
    if least_of(rows, way, cell, market.least) >= gpus:
        return open_from, open_to
    if least_of(rows, way, cell, market.most) < gpus:
        return open_from, open_from
    begin_s = market.edge_s[cell]
    part_s = (market.edge_s[cell + 1] - begin_s) / PARTS
    best_from, best_to, part = open_from, open_from, 0
    while part < PARTS:
        if least_in_part(rows, way, cell, part, market.left) < gpus:
            part += 1
            continue
        end = part
        while end < PARTS and least_in_part(rows, way, cell, end, market.left) >= gpus:
            end += 1
        from_s = max(open_from, begin_s + part * part_s)
        to_s = open_to if end == PARTS else min(open_to, begin_s + end * part_s)
        if to_s - from_s > best_to - best_from:
            best_from, best_to = from_s, to_s
        part = end
    return best_from, best_to


@compiled
def fill(rows: Rows, job: int, market: Market, share: float, dearest: float, desk: Desk) -> None:
    """Costs and gains by slot where and while enough GPUs are left."""
    at, way_at, first = rows.at[job], rows.way_at[job], rows.first[job]
    for t in range(rows.slots[job]):
        open_from, open_to = rows.from_s[at + t], rows.to_s[at + t]
        for k in range(rows.way_count[job]):
            way = way_at + k
            zone = rows.way_zone[way]
            from_s, to_s = open_from, open_from
            if open_to > open_from and not (rows.shut[at + t] >> np.uint64(zone)) & np.uint64(1):
                from_s, to_s = _free(rows, way, market, first + t, open_from, open_to)
            desk.from_s[t, k], desk.to_s[t, k] = from_s, to_s
            if to_s - from_s <= 1e-3:
                desk.to_s[t, k] = from_s
                desk.cost[t, k], desk.gain[t, k], desk.joins[t, k] = INFINITE, 0.0, 0
                continue
            desk.cost[t, k] = (to_s - from_s) * _each_s(rows, job, t, way, market, share, dearest)
            desk.gain[t, k] = (to_s - from_s) * rows.way_steps[way]
            begin_s = open_from if t == 0 else market.edge_s[first + t]
            joins = rows.joins[at + t] & TOUCHES and from_s <= begin_s + 1e-6
            desk.joins[t, k] = joins and (t == 0 or desk.to_s[t - 1, k] >= market.edge_s[first + t] - 1e-6)


@compiled
def take(rows: Rows, uses: Uses, job: int, market: Market, sign: int) -> None:
    """Give back (1) or take (-1) the GPUs of a job's plan, by whole parts of slots."""
    at, way_at, first = rows.at[job], rows.way_at[job], rows.first[job]
    for t in range(rows.slots[job]):
        k = uses.way[at + t]
        if k < 0:
            continue
        cell = first + t
        begin_s = market.edge_s[cell]
        part_s = (market.edge_s[cell + 1] - begin_s) / PARTS
        begin = max(0, int(np.floor((uses.from_s[at + t] - begin_s) / part_s + 1e-6)))
        end = min(PARTS, int(np.ceil((uses.to_s[at + t] - begin_s) / part_s - 1e-6)))
        for place in range(rows.way_limits.shape[1]):
            if rows.way_limits[way_at + k, place] >= 0:
                _add(market, rows.way_limits[way_at + k, place], cell, begin, end, sign * rows.way_gpus[way_at + k])


@compiled
def _add(market: Market, limit: int, cell: int, begin: int, end: int, gpus: int) -> None:
    """Add GPUs to what is left in the parts [begin, end) of a slot."""
    for part in range(begin, end):
        market.left[limit, cell, part] += gpus
    least = most = market.left[limit, cell, 0]
    for part in range(1, PARTS):
        least = min(least, market.left[limit, cell, part])
        most = max(most, market.left[limit, cell, part])
    market.least[limit, cell], market.most[limit, cell] = least, most


@compiled
def used_cost(rows: Rows, uses: Uses, job: int, market: Market, share: float, dearest: float) -> float:
    """What the job's plan costs, as `fill` has it."""
    at, cost = rows.at[job], 0.0
    for t in range(rows.slots[job]):
        k = uses.way[at + t]
        if k >= 0:
            each_s = _each_s(rows, job, t, rows.way_at[job] + k, market, share, dearest)
            cost += each_s * (uses.to_s[at + t] - uses.from_s[at + t])
    return cost


@compiled
def keep(rows: Rows, uses: Uses, job: int, desk: Desk) -> None:
    """Make what `fit` found the job's plan."""
    at = rows.at[job]
    for t in range(rows.slots[job]):
        uses.way[at + t] = desk.high[t]
        uses.from_s[at + t], uses.to_s[at + t] = desk.high_from[t], desk.high_to[t]
    uses.planned[job] = 1


@compiled
def insert(rows: Rows, uses: Uses, order: Ints, market: Market, share: float, dearest: float, desk: Desk) -> int:
    """Plan the jobs of `order` that have no plan, one after the other, into what is left; how many found no room."""
    failed = 0
    for i in range(len(order)):
        job = order[i]
        if uses.planned[job]:
            continue
        fill(rows, job, market, share, dearest, desk)
        cost, worth = fit(rows, job, uses.step[job], desk)
        if cost >= INFINITE:
            failed += 1
            continue
        uses.step[job] = worth
        keep(rows, uses, job, desk)
        take(rows, uses, job, market, -1)
    return failed


@compiled
def improve(rows: Rows, uses: Uses, order: Ints, market: Market, share: float, dearest: float, desk: Desk) -> float:
    """Plan each job of `order` anew where that costs less than its plan; the sum of what it saves."""
    saved = 0.0
    for i in range(len(order)):
        job = order[i]
        if not uses.planned[job]:
            continue
        take(rows, uses, job, market, 1)
        fill(rows, job, market, share, dearest, desk)
        before = used_cost(rows, uses, job, market, share, dearest)
        cost, worth = fit(rows, job, uses.step[job], desk)
        if cost < before * (1 - 1e-9):
            saved += before - cost
            uses.step[job] = worth
            keep(rows, uses, job, desk)
        take(rows, uses, job, market, -1)
    return saved


@compiled
def grams(rows: Rows, uses: Uses, job: int, g_per_kwh: Floats) -> float:
    """Grams of the job's plan."""
    at, way_at, first, total = rows.at[job], rows.way_at[job], rows.first[job], 0.0
    for t in range(rows.slots[job]):
        k = uses.way[at + t]
        if k >= 0:
            each_s = rows.way_g[way_at + k] * g_per_kwh[rows.way_zone[way_at + k], first + t]
            total += each_s * (uses.to_s[at + t] - uses.from_s[at + t])
    return total


@compiled
def all_grams(rows: Rows, uses: Uses, g_per_kwh: Floats) -> Floats:
    """Grams of each job's plan."""
    found = np.zeros(len(rows.slots))
    for job in range(len(rows.slots)):
        found[job] = grams(rows, uses, job, g_per_kwh)
    return found


@compiled
def soonest(rows: Rows, uses: Uses, job: int, market: Market, desk: Desk) -> bool:
    """Plan a job to finish as early as what is left allows; False where it does not even by the end of its slots."""
    fill(rows, job, market, 0.0, 0.0, desk)
    slots, way_at, work = rows.slots[job], rows.way_at[job], rows.work[job]
    dearest = 1e-300
    for t in range(slots):
        for k in range(rows.way_count[job]):
            if desk.cost[t, k] < INFINITE:
                dearest = max(dearest, desk.cost[t, k] / desk.gain[t, k])
    # Of equally early plans the one of fewer grams: grams weigh next to nothing.
    worth = dearest * 1e6
    few, many = 0, slots + 1
    while many - few > 1:
        half = (few + many) // 2
        rows.slots[job] = half
        _, made = walk(rows, job, worth, desk)
        if made >= work * (1 - 1e-12):
            many = half
        else:
            few = half
    rows.slots[job] = min(many, slots)
    if many <= slots:
        walk(rows, job, worth, desk)
    rows.slots[job] = slots
    if many > slots:
        return False
    desk.high[:slots] = -1
    desk.high[:many] = desk.last[:many]
    whole(rows, job, desk.high, desk.high_from, desk.high_to, desk)
    surplus = done(rows, job, desk.high, desk.high_from, desk.high_to) - work
    last = many - 1
    if surplus > 0.0 and desk.high[last] >= 0:
        desk.high_to[last] -= surplus / rows.way_steps[way_at + desk.high[last]]
    keep(rows, uses, job, desk)
    take(rows, uses, job, market, -1)
    return True


@compiled
def conflicts(rows: Rows, uses: Uses, job: int, market: Market, desk: Desk) -> int:
    """Mark in `desk.last` (1 or -1) the slots in which what `fit` found for the job asks for more than is left."""
    way_at, first, found = rows.way_at[job], rows.first[job], 0
    for t in range(rows.slots[job]):
        k = desk.high[t]
        desk.last[t] = -1
        if k >= 0 and least_of(rows, way_at + k, first + t, market.least) < rows.way_gpus[way_at + k]:
            desk.last[t] = 1
            found += 1
    return found
