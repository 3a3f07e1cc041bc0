"""Makes room for a job that found none: it takes what it needs, and those that stood there are planned anew.
In: the job, what is planned and what is left. Out: True with all of them planned in time, or all as it was.
`arrange` asks for it where a deadline would be missed.
"""

from __future__ import annotations

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Grid, Ints
from orchestrator.fleet.path import INFINITE, Desk
from orchestrator.fleet.room import Market, Uses, conflicts, fill, insert, keep, market, take
from orchestrator.fleet.table import Rows
from orchestrator.fleet.trim import fit

_MOST_MOVED = 24
_CROWDED = 4.0
"""What a crowded slot costs more, in multiples of the greatest worth."""


def squeeze(
    rows: Rows, uses: Uses, job: int, cells: Grid, there: Market, worth: Floats, dearest: float, desk: Desk
) -> bool:
    """Plan `job` by moving others, none of which then misses its deadline; False where that was not found."""
    begin = rows.way_at[job]
    widest = int(rows.way_gpus[begin : begin + rows.way_count[job]].max())
    scale = _CROWDED * max(float(worth.max()), float(cells.g_per_kwh.max()) * 1e-4)
    empty = market(cells, worth + scale * (there.least < widest))
    fill(rows, job, empty, 1.0, dearest, desk)
    cost, _ = fit(rows, job, uses.step[job], desk)
    if cost >= INFINITE:
        return False
    conflicts(rows, uses, job, there, desk)
    crowded = np.flatnonzero(desk.last[: rows.slots[job]] > 0)
    wanted = [
        ((int(limit), int(rows.first[job] + t)), int(rows.way_gpus[begin + desk.high[t]]))
        for t in crowded
        for limit in rows.way_limits[begin + desk.high[t]]
        if limit >= 0
    ]
    keep(rows, uses, job, desk)
    saved: dict[int, tuple[Ints, Floats, Floats]] = {}
    for place, needed in wanted:
        for other in users(rows, uses, *place).tolist():
            if there.least[place] >= needed:
                break
            if other != job and other not in saved:
                saved[other] = _released(rows, uses, other, there)
        if len(saved) > _MOST_MOVED or there.least[place] < needed:
            break
    is_free = len(saved) <= _MOST_MOVED and all(there.least[place] >= needed for place, needed in wanted)
    if is_free:
        take(rows, uses, job, there, -1)
        order = sorted(saved, key=lambda row: (-int(rows.way_gpus[rows.way_at[row]]), row))
        if not insert(rows, uses, np.array(order, dtype=np.int64), there, 1.0, dearest, desk):
            return True
        take(rows, uses, job, there, 1)
    _restore(rows, uses, job, there, saved)
    return False


def _released(rows: Rows, uses: Uses, job: int, there: Market) -> tuple[Ints, Floats, Floats]:
    take(rows, uses, job, there, 1)
    span = slice(int(rows.at[job]), int(rows.at[job] + rows.slots[job]))
    saved = uses.way[span].copy(), uses.from_s[span].copy(), uses.to_s[span].copy()
    uses.way[span] = -1
    uses.planned[job] = 0
    return saved


def _restore(rows: Rows, uses: Uses, job: int, there: Market, saved: dict[int, tuple[Ints, Floats, Floats]]) -> None:
    uses.way[rows.at[job] : rows.at[job] + rows.slots[job]] = -1
    uses.planned[job] = 0
    for other in saved:
        if uses.planned[other]:
            take(rows, uses, other, there, 1)
    for other, (way, from_s, to_s) in saved.items():
        span = slice(int(rows.at[other]), int(rows.at[other] + rows.slots[other]))
        uses.way[span], uses.from_s[span], uses.to_s[span] = way, from_s, to_s
        uses.planned[other] = 1
        take(rows, uses, other, there, -1)


@compiled
def users(rows: Rows, uses: Uses, limit: int, cell: int) -> Ints:
    """The jobs whose use of a slot counts against a limit."""
    found = np.empty(len(rows.slots), np.int64)
    count = 0
    for job in range(len(rows.slots)):
        t = cell - rows.first[job]
        if uses.planned[job] and 0 <= t < rows.slots[job]:
            k = uses.way[rows.at[job] + t]
            if k < 0:
                continue
            for place in range(rows.way_limits.shape[1]):
                if rows.way_limits[rows.way_at[job] + k, place] == limit:
                    found[count] = job
                    count += 1
                    break
    return found[:count]
