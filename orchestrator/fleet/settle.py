"""From shares of slots to whole plans: jobs are settled one after the other while the rest re-price what is left.
In: a Relaxation, Market, Uses and an order. Out: Uses with a plan for each job that found room.
`arrange` decides the order; `room` fits each job.

What a settled job takes, the worths show to those that come after it, at once and again when the unsettled ones answer.
"""

from __future__ import annotations

import numpy as np

from orchestrator.fleet.bound import Relaxation, use
from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Ints
from orchestrator.fleet.path import INFINITE, Desk
from orchestrator.fleet.room import Market, Uses, fill, keep, take
from orchestrator.fleet.table import Rows
from orchestrator.fleet.trim import fit

_BATCHES = 100
_SOFTER = 0.3
"""How stiff penalties are while jobs settle, in parts of what they were."""


def settle(
    relaxed: Relaxation, uses: Uses, order: Ints, market: Market, spare: float, dearest: float, desk: Desk
) -> int:
    """Plan the jobs in order within what is left, `market.worth` following; how many found no room.

    Worths are those of a market with a share `spare` of the GPUs less: whole jobs never fill all of it.
    """
    rows, failed = relaxed.rows, 0
    stiff, room_s = relaxed.stiff, relaxed.room_s
    relaxed.stiff, relaxed.room_s = _SOFTER * stiff, room_s * (1 - spare)
    relaxed.worth = market.worth
    relaxed.worth[:] = np.maximum(0.0, relaxed.base + relaxed.stiff * (relaxed.use_s - relaxed.room_s))
    batches = np.array_split(order, min(_BATCHES, max(1, len(order))))
    settled = 0
    for batch in batches:
        failed += _settle(
            rows,
            uses,
            batch,
            market,
            dearest,
            relaxed.base,
            relaxed.stiff,
            relaxed.room_s,
            relaxed.use_s,
            relaxed.share,
            relaxed.share_at,
            desk,
        )
        settled += len(batch)
        if settled < len(order):
            relaxed.answer(order[settled:])
    relaxed.stiff, relaxed.room_s = stiff, room_s
    return failed


@compiled
def _settle(
    rows: Rows,
    uses: Uses,
    order: Ints,
    market: Market,
    dearest: float,
    base: Floats,
    stiff: Floats,
    room_s: Floats,
    use_s: Floats,
    share: Floats,
    share_at: Ints,
    desk: Desk,
) -> int:
    failed = 0
    for i in range(len(order)):
        job = order[i]
        at, way_at, first, ways = rows.at[job], rows.way_at[job], rows.first[job], rows.way_count[job]
        for t in range(rows.slots[job]):
            for k in range(ways):
                had = share[share_at[job] + t * ways + k]
                if had > 0.0:
                    share[share_at[job] + t * ways + k] = 0.0
                    added_s = -had * rows.way_gpus[way_at + k] * rows.open_s[at + t]
                    use(rows, way_at + k, first + t, added_s, base, stiff, use_s, room_s, market.worth)
        fill(rows, job, market, 1.0, dearest, desk)
        cost, step = fit(rows, job, uses.step[job], desk)
        if cost >= INFINITE:
            failed += 1
            continue
        uses.step[job] = step
        keep(rows, uses, job, desk)
        take(rows, uses, job, market, -1)
        for t in range(rows.slots[job]):
            k = uses.way[at + t]
            if k >= 0:
                added_s = rows.way_gpus[way_at + k] * (uses.to_s[at + t] - uses.from_s[at + t])
                use(rows, way_at + k, first + t, added_s, base, stiff, use_s, room_s, market.worth)
    return failed
