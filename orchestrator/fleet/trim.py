"""Makes of the paths that do too little or too much a plan that does just the work: compiled.
In: a job whose costs and gains lie on the desk. Out: the cheapest plan found, by way and seconds of each slot.
`room` says what each slot costs, and keeps what is found.

`price` gives one path that does too little and one that does enough: the one is lengthened at its cheapest edges, the
other cut at its dearest, and the cheaper is taken.
"""

from __future__ import annotations

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Ints
from orchestrator.fleet.path import INFINITE, Desk, price
from orchestrator.fleet.table import Rows

_NEAR = 1e-6


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
    """Whether a run that begins in slot `a` goes on with what runs at the present."""
    return bool(a == 0 and rows.current[job] == path[0] and from_s[0] <= rows.from_s[rows.at[job]] + 1e-6)


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
def _grow(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, beyond: float, desk: Desk) -> bool:
    """Lengthen a path at its cheapest edges until it does the work and `beyond` more; False where it cannot."""
    way_at, work, slots = rows.way_at[job], rows.work[job], rows.slots[job]
    for _ in range(2 * slots + 8):
        missing = work + beyond - done(rows, job, path, from_s, to_s)
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
def whole(rows: Rows, job: int, path: Ints, from_s: Floats, to_s: Floats, desk: Desk) -> None:
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
    whole(rows, job, desk.high, desk.high_from, desk.high_to, desk)
    if _cut(rows, job, desk.high, desk.high_from, desk.high_to, desk):
        best = _path_cost(rows, job, desk.high, desk.high_from, desk.high_to, desk)
    whole(rows, job, desk.low, desk.low_from, desk.low_to, desk)
    is_enough = share < 1.0 and _grow(rows, job, desk.low, desk.low_from, desk.low_to, 0.0, desk)
    if is_enough and _cut(rows, job, desk.low, desk.low_from, desk.low_to, desk):
        other = _path_cost(rows, job, desk.low, desk.low_from, desk.low_to, desk)
    if other < best:
        best = other
        _copy(slots, desk.low, desk.low_from, desk.low_to, desk.high, desk.high_from, desk.high_to)
    if best >= INFINITE:
        return INFINITE, guess
    return _shifted(rows, job, best, desk), worth


@compiled
def _shifted(rows: Rows, job: int, best: float, desk: Desk) -> float:
    """The plan in `desk.high` made a little too long where that is cheap, then cut where it is dear, if that pays."""
    slots = rows.slots[job]
    longest = 0.0
    for t in range(slots):
        if desk.high[t] >= 0:
            longest = max(longest, desk.gain[t, desk.high[t]])
    for many in (1, 2, 4):
        _copy(slots, desk.high, desk.high_from, desk.high_to, desk.low, desk.low_from, desk.low_to)
        if not _grow(rows, job, desk.low, desk.low_from, desk.low_to, many * longest, desk):
            return best
        if not _cut(rows, job, desk.low, desk.low_from, desk.low_to, desk):
            return best
        cost = _path_cost(rows, job, desk.low, desk.low_from, desk.low_to, desk)
        if cost < best:
            best = cost
            _copy(slots, desk.low, desk.low_from, desk.low_to, desk.high, desk.high_from, desk.high_to)
    return best


@compiled
def _copy(
    slots: int, way: Ints, from_s: Floats, to_s: Floats, into_way: Ints, into_from_s: Floats, into_to_s: Floats
) -> None:
    into_way[:slots] = way[:slots]
    into_from_s[:slots] = from_s[:slots]
    into_to_s[:slots] = to_s[:slots]
