"""Fits one job after the other into the GPUs that are left, by grams and by what GPUs are worth: compiled.
In: a Table's rows, GPUs left by zone and slot, worths. Out: Uses: each job's way and seconds by slot.
`arrange` decides the order and what to do where nothing fits.

GPUs are counted by parts of a slot, so that one job can begin where another ends. `path` gives one path that does too
little and one that does enough; the one is lengthened at its cheapest edges, the other cut at its dearest, and the
cheaper is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Grid, Ints
from orchestrator.fleet.path import INFINITE, Desk, price, walk
from orchestrator.fleet.table import TOUCHES, Rows

DEARER = 1000.0
"""What a slot beyond the user's bounds costs more than the worst intensity, in multiples of it."""
_NEAR = 1e-6
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
    """What the zones offer by slot; shapes (zones, cells)."""

    edge_s: Floats
    """Shape (cells + 1,)."""
    g_per_kwh: Floats
    worth: Floats
    """Grams that a GPU-second is worth."""
    left: Ints
    """Shape (zones, cells, PARTS): GPUs that no job has, by part of a slot."""
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
    return float(rows.way_g[way] * g_per_kwh + share * rows.way_gpus[way] * market.worth[zone, cell])


@compiled
def _free(market: Market, zone: int, cell: int, gpus: int, open_from: float, open_to: float) -> tuple[float, float]:
    """The longest stretch within [open_from, open_to) of a slot in which `gpus` are left."""
    if market.least[zone, cell] >= gpus:
        return open_from, open_to
    if market.most[zone, cell] < gpus:
        return open_from, open_from
    begin_s = market.edge_s[cell]
    part_s = (market.edge_s[cell + 1] - begin_s) / PARTS
    best_from, best_to, part = open_from, open_from, 0
    while part < PARTS:
        if market.left[zone, cell, part] < gpus:
            part += 1
            continue
        end = part
        while end < PARTS and market.left[zone, cell, end] >= gpus:
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
                from_s, to_s = _free(market, zone, first + t, rows.way_gpus[way], open_from, open_to)
            desk.from_s[t, k], desk.to_s[t, k] = from_s, to_s
            if to_s - from_s <= 1e-3:
                desk.to_s[t, k] = from_s
                desk.cost[t, k], desk.gain[t, k], desk.joins[t, k] = INFINITE, 0.0, 0
                continue
            desk.cost[t, k] = (to_s - from_s) * _each_s(rows, job, t, way, market, share, dearest)
            desk.gain[t, k] = (to_s - from_s) * rows.way_steps[way]
            joins = rows.joins[at + t] & TOUCHES and from_s <= market.edge_s[first + t] + 1e-6
            desk.joins[t, k] = joins and (t == 0 or desk.to_s[t - 1, k] >= market.edge_s[first + t] - 1e-6)


@compiled
def take(rows: Rows, uses: Uses, job: int, market: Market, sign: int) -> None:
    """Give back (1) or take (-1) the GPUs of a job's plan, by whole parts of slots."""
    at, way_at, first = rows.at[job], rows.way_at[job], rows.first[job]
    for t in range(rows.slots[job]):
        k = uses.way[at + t]
        if k < 0:
            continue
        zone, cell = rows.way_zone[way_at + k], first + t
        begin_s = market.edge_s[cell]
        part_s = (market.edge_s[cell + 1] - begin_s) / PARTS
        begin = int(np.floor((uses.from_s[at + t] - begin_s) / part_s + 1e-6))
        end = int(np.ceil((uses.to_s[at + t] - begin_s) / part_s - 1e-6))
        for part in range(max(0, begin), min(PARTS, end)):
            market.left[zone, cell, part] += sign * rows.way_gpus[way_at + k]
        least = most = market.left[zone, cell, 0]
        for part in range(1, PARTS):
            least = min(least, market.left[zone, cell, part])
            most = max(most, market.left[zone, cell, part])
        market.least[zone, cell], market.most[zone, cell] = least, most


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
def _lost_s(rows: Rows, job: int, way: int, before: int, is_on: bool) -> float:
    """What the start of a run costs, after a run of the way `before` (-1: none); nothing where it just goes on."""
    if is_on:
        return 0.0
    way_at = rows.way_at[job]
    if before < 0:
        return float(rows.way_first_s[way_at + way])
    moves = rows.way_zone[way_at + before] != rows.way_zone[way_at + way]
    return float(rows.resume_s[job] + (rows.move_s[job] if moves else 0.0))


@compiled
def _next_run(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, begin: int) -> tuple[int, int]:
    """The first and last slot of the next run at or after slot `begin`; (-1, -1) where there is none."""
    slots = rows.slots[job]
    a = begin
    while a < slots and path[a] < 0:
        a += 1
    if a >= slots:
        return -1, -1
    b = a
    while b + 1 < slots and path[b + 1] == path[a] and to_s[b] >= from_s[b + 1] - 1e-6:
        b += 1
    return a, b


@compiled
def _is_on(rows: Rows, job: int, path: Ints, from_s: Floats, a: int) -> bool:
    """Whether a run that begins in slot `a` goes on with what runs at `now`."""
    return bool(a == 0 and rows.current[job] == path[0] and from_s[0] <= 1e-6)


@compiled
def done(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats) -> float:
    """Steps that a path makes."""
    made, before, way_at = 0.0, -1, rows.way_at[job]
    a, b = _next_run(rows, job, path, from_s, to_s, 0)
    while a >= 0:
        way, span_s = path[a], 0.0
        for t in range(a, b + 1):
            span_s += to_s[t] - from_s[t]
        lost_s = _lost_s(rows, job, way, before, _is_on(rows, job, path, from_s, a))
        made += rows.way_steps[way_at + way] * max(0.0, span_s - lost_s)
        before = way
        a, b = _next_run(rows, job, path, from_s, to_s, b + 1)
    return made


@compiled
def _cut(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, desk: Desk) -> bool:
    """Shorten a path that does enough, at its dearest edges, to just the work; runs not worth their start go whole."""
    way_at, work = rows.way_at[job], rows.work[job]
    for _ in range(4 * rows.slots[job] + 8):
        surplus = done(rows, job, path, from_s, to_s) - work
        if surplus <= 1e-9 * work:
            return bool(surplus >= -1e-9 * work)
        best, edge, first, last, amount_s = -1.0, 0, -1, -1, 0.0
        before = -1
        a, b = _next_run(rows, job, path, from_s, to_s, 0)
        while a >= 0:
            way = path[a]
            steps = rows.way_steps[way_at + way]
            is_on = _is_on(rows, job, path, from_s, a)
            span_s, cost = 0.0, 0.0
            for t in range(a, b + 1):
                here_s = to_s[t] - from_s[t]
                span_s += here_s
                cost += desk.cost[t, way] * here_s / (desk.to_s[t, way] - desk.from_s[t, way])
            makes = steps * max(0.0, span_s - _lost_s(rows, job, way, before, is_on))
            if makes <= surplus * (1 + 1e-12):
                rate = cost / max(makes, 1e-12 * work)
                if rate > best:
                    best, edge, first, last = rate, 0, a, b
            for side in range(2):
                t = b if side == 0 else a
                if side == 1 and is_on:
                    continue
                here_s = to_s[t] - from_s[t]
                off_s = min(surplus / steps, here_s)
                if off_s * steps >= makes * (1 - 1e-12):
                    continue
                rate = desk.cost[t, way] / desk.gain[t, way]
                if rate > best:
                    best, edge, first, last, amount_s = rate, 1 + side, t, t, off_s
            before = way
            a, b = _next_run(rows, job, path, from_s, to_s, b + 1)
        if first < 0:
            return False
        if edge == 0:
            path[first : last + 1] = -1
        elif edge == 1:
            to_s[first] -= amount_s
        else:
            from_s[first] += amount_s
        if edge > 0 and to_s[first] - from_s[first] <= 1e-6:
            path[first] = -1
    return False


@compiled
def _grow(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, desk: Desk) -> bool:
    """Lengthen a path that does too little, at its cheapest edges, until it does enough; False where it cannot."""
    way_at, work, slots = rows.way_at[job], rows.work[job], rows.slots[job]
    for _ in range(2 * slots + 8):
        missing = work - done(rows, job, path, from_s, to_s)
        if missing <= 1e-9 * work:
            return True
        best, slot, side_of, like = INFINITE, -1, 0, -1
        a, b = _next_run(rows, job, path, from_s, to_s, 0)
        while a >= 0:
            way = path[a]
            for side in range(2):
                if side == 0:
                    t = b
                    if to_s[t] >= desk.to_s[t, way] - 1e-6:
                        t += 1
                        if t >= slots or path[t] >= 0 or not desk.joins[t, way]:
                            continue
                else:
                    t = a
                    if from_s[t] <= desk.from_s[t, way] + 1e-6:
                        if t == 0 or path[t - 1] >= 0 or not desk.joins[t, way]:
                            continue
                        t -= 1
                if desk.cost[t, way] >= INFINITE:
                    continue
                rate = desk.cost[t, way] / desk.gain[t, way]
                if rate < best:
                    best, slot, side_of, like = rate, t, side, way
            a, b = _next_run(rows, job, path, from_s, to_s, b + 1)
        if slot < 0:
            return False
        add_s = missing / rows.way_steps[way_at + like]
        is_new = path[slot] < 0
        path[slot] = like
        if side_of == 0:
            if is_new:
                from_s[slot] = desk.from_s[slot, like]
                to_s[slot] = from_s[slot]
            to_s[slot] = min(desk.to_s[slot, like], to_s[slot] + add_s)
        else:
            if is_new:
                to_s[slot] = desk.to_s[slot, like]
                from_s[slot] = to_s[slot]
            from_s[slot] = max(desk.from_s[slot, like], from_s[slot] - add_s)
    return False


@compiled
def _path_cost(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, desk: Desk) -> float:
    cost = 0.0
    for t in range(rows.slots[job]):
        k = path[t]
        if k >= 0:
            cost += desk.cost[t, k] * (to_s[t] - from_s[t]) / (desk.to_s[t, k] - desk.from_s[t, k])
    return cost


@compiled
def _whole(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, desk: Desk) -> None:
    """The seconds of a path that uses all there is of each of its slots."""
    for t in range(rows.slots[job]):
        if path[t] >= 0:
            from_s[t], to_s[t] = desk.from_s[t, path[t]], desk.to_s[t, path[t]]


@compiled
def fit(rows: Rows, job: int, guess: float, desk: Desk) -> tuple[float, float]:
    """The cheapest plan found at the desk's costs, left in `desk.high` and its seconds; (cost, worth of a step)."""
    slots = rows.slots[job]
    worth, _, share = price(rows, job, guess, _NEAR, desk)
    if share < 0.0:
        return INFINITE, guess
    best, other = INFINITE, INFINITE
    _whole(rows, job, desk.high, desk.high_from, desk.high_to, desk)
    if _cut(rows, job, desk.high, desk.high_from, desk.high_to, desk):
        best = _path_cost(rows, job, desk.high, desk.high_from, desk.high_to, desk)
    _whole(rows, job, desk.low, desk.low_from, desk.low_to, desk)
    is_enough = share < 1.0 and _grow(rows, job, desk.low, desk.low_from, desk.low_to, desk)
    if is_enough and _cut(rows, job, desk.low, desk.low_from, desk.low_to, desk):
        other = _path_cost(rows, job, desk.low, desk.low_from, desk.low_to, desk)
    if other < best:
        best = other
        desk.high[:slots] = desk.low[:slots]
        desk.high_from[:slots] = desk.low_from[:slots]
        desk.high_to[:slots] = desk.low_to[:slots]
    return best, worth


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
    _whole(rows, job, desk.high, desk.high_from, desk.high_to, desk)
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
        if k >= 0:
            zone, gpus = rows.way_zone[way_at + k], rows.way_gpus[way_at + k]
            if market.least[zone, first + t] < gpus:
                desk.last[t] = 1
                found += 1
    return found
