"""Policy `greedy`: worker by worker, each time where one more brings most work per gram.
In: a Lattice. Out: runs of changing width in the chosen slots, or None where the deadline cannot be met so.
Source: Hanafy et al., "CarbonScaler" (Proc. ACM Meas. Anal. Comput. Syst. 7, 2023), its greedy scaling algorithm.

The next worker goes to the slot where its marginal throughput, per marginal watt and intensity, is highest; a slot's
k-th only after its (k-1)th (where the points leave counts out, the next larger count). A slot is used in the zone where
its first workers bring most per gram. Pause costs play no part in the choice; they are paid all the same, and workers
are added until the work is done. The job ends when it is, so its last slot may be used in part.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from orchestrator.plan.lattice import Lattice, Way
from orchestrator.plan.price import Run, joined, until_done, work_steps


def greedy(cells: Lattice) -> list[Run] | None:
    """Runs that grow worker by worker until the work is done."""
    places = _places(cells)
    rungs = [-1] * len(places)
    # A worker more also spares at most the starts of its slot, of the next one, and the first: 3 of them.
    pause, fastest = cells.problem.pause, max(way.steps_per_s for way in cells.ways)
    spared = 3.0 * (pause.resume_s + pause.move_s) * fastest
    missing = cells.problem.work_steps * (1 - 1e-9)
    for cell in _additions(cells, places):
        rungs[cell] += 1
        missing -= _gained(places[cell], rungs[cell]) * float(cells.length_s[cell]) + spared
        if missing <= 0:
            runs = [
                Run(float(cells.edge_s[at]), float(cells.edge_s[at + 1]), places[at][rung])
                for at, rung in enumerate(rungs)
                if rung >= 0
            ]
            if (done := until_done(cells, runs)) is not None:
                return done
            missing = cells.problem.work_steps - work_steps(cells, joined(runs))
    return None


def _places(cells: Lattice) -> list[list[Way]]:
    """For each cell the ways, by worker count, of the zone where the first costs least; none where none may be used."""
    zones = range(len(cells.problem.zones))
    ladders = [_ladder([way for way in cells.ways if way.zone_index == zone]) for zone in zones]
    first_g = np.full(cells.g_per_kwh.shape, np.inf)
    for zone, ladder in enumerate(ladders):
        if ladder:
            kw_s_per_step = ladder[0].power_w * ladder[0].pue / ladder[0].steps_per_s
            first_g[zone] = np.where(cells.usable[zone], cells.g_per_kwh[zone] * kw_s_per_step, np.inf)
    best = first_g.argmin(axis=0).tolist()
    return [ladders[zone] if np.isfinite(first_g[zone, cell]) else [] for cell, zone in enumerate(best)]


def _ladder(ways: Sequence[Way]) -> list[Way]:
    """By worker count; of several power limits at one count the one that does most work per joule."""
    best: dict[int, Way] = {}
    for way in sorted(ways, key=lambda way: way.power_w / way.steps_per_s, reverse=True):
        best[way.workers] = way
    return [best[workers] for workers in sorted(best)]


def _additions(cells: Lattice, places: Sequence[list[Way]]) -> Iterator[int]:
    """Cells in the order in which they get their next worker; of equal ones the earliest."""
    heap = [(_marginal(cells, ladder, cell, 0), cell, 0) for cell, ladder in enumerate(places) if ladder]
    heapq.heapify(heap)
    while heap:
        _, cell, rung = heapq.heappop(heap)
        yield cell
        if rung + 1 < len(places[cell]):
            heapq.heappush(heap, (_marginal(cells, places[cell], cell, rung + 1), cell, rung + 1))


def _marginal(cells: Lattice, ladder: Sequence[Way], cell: int, rung: int) -> tuple[bool, float]:
    """What orders the rungs, least first: marginal watts by intensity, over marginal throughput.

    One that makes the job no faster comes last of all: it is only the way to a higher one.
    """
    way, gained = ladder[rung], _gained(ladder, rung)
    if gained <= 0:
        return True, 0.0
    more_w = way.power_w - (ladder[rung - 1].power_w if rung else 0.0)
    return False, round(more_w * way.pue * float(cells.g_per_kwh[way.zone_index, cell]) / gained, 9)


def _gained(ladder: Sequence[Way], rung: int) -> float:
    """Marginal throughput in steps per second."""
    return ladder[rung].steps_per_s - (ladder[rung - 1].steps_per_s if rung else 0.0)
