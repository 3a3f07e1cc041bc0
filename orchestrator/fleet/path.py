"""One job's cheapest path through its slots, where each slot costs something and work is worth something: compiled.
In: a job's costs and gains by slot and way, and the worth of a step. Out: the least of cost less worth, and its path.
`price` searches the worth that makes the path do the job's work; `bound` and `room` fill in the costs, `trim` goes on.

States are running (by way) and paused (by the zone last used). Only whole slots are used: cost and work are linear in
each edge of a run, so nothing in between is better; a start costs the work that its time would have made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Ints
from orchestrator.fleet.table import Bytes, Rows

INFINITE = 1e300


class Desk(NamedTuple):
    """Working space for one thread, as long as the longest job."""

    cost: Floats
    """Shape (slots, ways): of all of the slot's open time; INFINITE where it cannot be used."""
    gain: Floats
    """Steps it makes."""
    joins: Bytes
    """1 where a run of this way can come from the slot before without a start."""
    from_s: Floats
    to_s: Floats
    came: Bytes
    """How each way came to run: 0 on, 1 from the very start, 2 + place from a pause."""
    halted: Bytes
    """By slot and place: 0 still paused, 1 + way stopped."""
    low: Ints
    """A path, the way by slot or -1: one that does too little, one that does enough, and the last one."""
    high: Ints
    last: Ints
    low_from: Floats
    low_to: Floats
    high_from: Floats
    high_to: Floats
    value: Floats
    idle: Floats
    fresh: Floats
    """By way, what starts cost: the very first one, one in the zone last used, and one elsewhere."""
    again: Floats
    moved: Floats


def desk(rows: Rows, zones: int) -> Desk:
    """Space for the longest of the jobs."""
    slots = int(rows.slots.max(initial=1))
    ways = int(rows.way_count.max(initial=1))
    shape = (slots, ways)
    return Desk(
        np.empty(shape),
        np.empty(shape),
        np.zeros(shape, np.uint8),
        np.zeros(shape),
        np.zeros(shape),
        np.empty(shape, np.uint8),
        np.empty((slots, zones), np.uint8),
        np.full(slots, -1, np.int64),
        np.full(slots, -1, np.int64),
        np.full(slots, -1, np.int64),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots),
        np.empty(ways),
        np.empty(zones),
        np.empty(ways),
        np.empty(ways),
        np.empty(ways),
    )


@compiled
def walk(rows: Rows, job: int, worth: float, desk: Desk) -> tuple[float, float]:
    """The least of cost - worth x work over all paths; the path becomes `desk.last`. Returns its cost and its work."""
    slots, ways, way_at = rows.slots[job], rows.way_count[job], rows.way_at[job]
    cost, came, value, joins = desk.cost, desk.came, desk.value, desk.joins
    fresh, again, gain = desk.fresh, desk.again, desk.gain
    places = 1
    for k in range(ways):
        steps = worth * rows.way_steps[way_at + k]
        value[k] = INFINITE
        fresh[k] = steps * rows.way_first_s[way_at + k]
        again[k] = steps * rows.resume_s[job]
        desk.moved[k] = steps * (rows.resume_s[job] + rows.move_s[job])
        places = max(places, rows.way_place[way_at + k] + 1)
    desk.idle[:places] = INFINITE
    if rows.current[job] >= 0:
        value[rows.current[job]] = 0.0
    if places > 1:
        return _walk_places(rows, job, worth, desk, places)
    idle = INFINITE
    for t in range(slots):
        stopped, halted = idle, 0
        for k in range(ways):
            best, how = fresh[k], 1
            other = idle + again[k]
            if other < best:
                best, how = other, 2
            other = value[k] if joins[t, k] else INFINITE
            if other <= best:
                best, how = other, 0
            best += cost[t, k] - worth * gain[t, k]
            value[k] = best
            came[t, k] = how
            if best < stopped:
                stopped, halted = best, k + 1
        idle = stopped
        desk.halted[t, 0] = halted
    return _retrace(rows, job, 0 if idle < 0.0 else -1, desk)


@compiled
def _walk_places(rows: Rows, job: int, worth: float, desk: Desk, places: int) -> tuple[float, float]:
    """`walk` where a start in another zone than the last one costs more."""
    slots, ways, way_at = rows.slots[job], rows.way_count[job], rows.way_at[job]
    value, idle = desk.value, desk.idle
    for t in range(slots):
        nearest = 0
        for p in range(1, places):
            if idle[p] < idle[nearest]:
                nearest = p
        for k in range(ways):
            place = rows.way_place[way_at + k]
            best, how = desk.fresh[k], 1
            if idle[place] + desk.again[k] < best:
                best, how = idle[place] + desk.again[k], 2 + place
            if idle[nearest] + desk.moved[k] < best:
                best, how = idle[nearest] + desk.moved[k], 2 + nearest
            if desk.joins[t, k] and value[k] <= best:
                best, how = value[k], 0
            value[k] = best + desk.cost[t, k] - worth * desk.gain[t, k]
            desk.came[t, k] = how
        for p in range(places):
            desk.halted[t, p] = 0
        for k in range(ways):
            place = rows.way_place[way_at + k]
            if value[k] < idle[place]:
                idle[place] = value[k]
                desk.halted[t, place] = 1 + k
    final, best = -1, 0.0
    for p in range(places):
        if idle[p] < best:
            final, best = p, idle[p]
    return _retrace(rows, job, final, desk)


@compiled
def _retrace(rows: Rows, job: int, place: int, desk: Desk) -> tuple[float, float]:
    """Write the path that ends in a pause at `place` (-1: never started) to `desk.last`; its cost and its work."""
    slots, way_at = rows.slots[job], rows.way_at[job]
    last = desk.last
    last[:slots] = -1
    way, t, cost, made = -1, slots - 1, 0.0, 0.0
    while t >= 0 and (place >= 0 or way >= 0):
        if way < 0:
            if desk.halted[t, place] == 0:
                t -= 1
                continue
            way = desk.halted[t, place] - 1
        last[t] = way
        cost += desk.cost[t, way]
        made += desk.gain[t, way]
        how = desk.came[t, way]
        if how > 0:
            lost_s = rows.resume_s[job]
            if how == 1:
                lost_s = rows.way_first_s[way_at + way]
            elif how - 2 != rows.way_place[way_at + way]:
                lost_s += rows.move_s[job]
            made -= lost_s * rows.way_steps[way_at + way]
            place, way = how - 2, -1
        t -= 1
    return cost, made


@compiled
def price(rows: Rows, job: int, guess: float, near: float, desk: Desk) -> tuple[float, float, float]:
    """The worth of a step at which the cheapest path does the job's work, and what the work costs at least.

    Returns (worth, least cost, share of `desk.high` in the mix with `desk.low` that does just the work). A share of -1
    says that no path does enough. The least cost bounds every way to do the work: it is the greatest value found of
    worth x work + least(cost - worth x work) (Lagrange), `near` of the greatest there is (a share of it).
    """
    work, slots = rows.work[job], rows.slots[job]
    low_cost, low_made, high_cost, high_made = 0.0, 0.0, INFINITE, 0.0
    desk.low[:slots] = -1
    desk.high[:slots] = -1
    if work <= 0.0:
        return 0.0, 0.0, 0.0
    worth = guess if guess > 0.0 else 1e-9
    most, factor = 0.0, 1.04
    for _ in range(200):
        cost, made = walk(rows, job, worth, desk)
        most = max(most, cost + worth * (work - made))
        if made >= work * (1 - 1e-12):
            high_cost, high_made = cost, made
            desk.high[:slots] = desk.last[:slots]
            if made <= work * (1 + 1e-12):
                return worth, most, 1.0
            if low_made <= 0.0 and guess > 0.0 and factor < 4.0:
                worth /= factor
                factor *= factor
                continue
        else:
            if made >= low_made:
                low_cost, low_made = cost, made
                desk.low[:slots] = desk.last[:slots]
            if high_cost >= INFINITE:
                if worth > 1e60:
                    return worth, most, -1.0
                worth *= factor
                factor = min(64.0, factor * factor * factor) if guess > 0.0 else 64.0
                continue
        share = (work - low_made) / (high_made - low_made)
        crossing = (high_cost - low_cost) / (high_made - low_made)
        mixed = share * high_cost + (1.0 - share) * low_cost
        if mixed - most <= near * mixed or abs(crossing - worth) <= 1e-13 * crossing:
            break
        worth = crossing
    return worth, most, (work - low_made) / (high_made - low_made)
