"""Policy `window`: the best single stretch before the deadline, in the best zone and at the best width.
In: a Lattice. Out: one run, or None where the deadline cannot be met so.
Source: Wiesner et al., "Let's Wait Awhile" (Middleware 2021), non-interrupting; GAIA (ASPLOS 2024), lowest window.

A job that runs goes on where it can, for a stretch is not left half-way. Where no opening of the user's windows is long
enough, the stretch is interrupted by those (and by the bounds) alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orchestrator.plan.lattice import Lattice, Way
from orchestrator.plan.price import Run, price, start_cost_s, until_done

Opening = tuple[float, float]


def window(cells: Lattice) -> list[Run] | None:
    """The stretch that emits least; of equal ones the earliest."""
    openings = [_openings(cells, index) for index in range(len(cells.problem.zones))]
    if (current := cells.current) is not None and (first := next(iter(openings[current.zone_index]), None)):
        going_on = _from(cells, current, 0.0, openings[current.zone_index]) if first[0] <= 0 else None
        if going_on is not None:
            return going_on
    whole = [run for way in cells.ways for run in _whole(cells, way, openings[way.zone_index])]
    plans = [[run] for run in whole]
    if not plans:
        parts = (part for way in cells.ways for part in _in_parts(cells, way, openings[way.zone_index]))
        plans = [runs for runs in parts if runs is not None]
    return min(plans, key=lambda runs: price(cells, runs).emissions_g, default=None)


def _openings(cells: Lattice, zone_index: int) -> list[Opening]:
    """Stretches of usable cells, in seconds from `now`."""
    flags = np.concatenate([[False], cells.usable[zone_index], [False]])
    changes = np.flatnonzero(flags[1:] != flags[:-1])
    return [
        (float(cells.edge_s[first]), float(cells.edge_s[last]))
        for first, last in zip(changes[::2], changes[1::2], strict=True)
    ]


def _whole(cells: Lattice, way: Way, openings: list[Opening]) -> Iterator[Run]:
    """The best run of the whole work in each opening that is long enough.

    Grams are linear between edges, so the best one starts or ends at an edge.
    """
    work_s = cells.problem.work_steps / way.steps_per_s
    for open_s, close_s in openings:
        if open_s <= 0 and (at_once_s := start_cost_s(cells, Run(0.0, close_s, way), None) + work_s) <= close_s + 1e-6:
            yield Run(0.0, min(at_once_s, close_s), way)
        length_s = start_cost_s(cells, Run(max(open_s, 1.0), close_s, way), None) + work_s
        if length_s > close_s - open_s + 1e-6:
            continue
        last_s = max(open_s, close_s - length_s)
        starts_s = np.concatenate([cells.edge_s, cells.edge_s - length_s, [last_s]])
        starts_s = np.unique(starts_s[(starts_s >= open_s) & (starts_s <= last_s)])
        sums = cells.g_s_per_kwh[way.zone_index]
        ends_s = np.minimum(starts_s + length_s, close_s)
        weights = np.interp(ends_s, cells.edge_s, sums) - np.interp(starts_s, cells.edge_s, sums)
        best = int(np.round(weights, 6).argmin())
        yield Run(float(starts_s[best]), float(ends_s[best]), way)


def _in_parts(cells: Lattice, way: Way, openings: list[Opening]) -> Iterator[list[Run] | None]:
    """From each usable cell on without a pause of its own, through as many openings as the work needs."""
    for cell in np.flatnonzero(cells.usable[way.zone_index]):
        yield _from(cells, way, float(cells.edge_s[cell]), openings)


def _from(cells: Lattice, way: Way, start_s: float, openings: list[Opening]) -> list[Run] | None:
    later = [(max(start_s, open_s), close_s) for open_s, close_s in openings if close_s > start_s]
    return until_done(cells, (Run(open_s, close_s, way) for open_s, close_s in later))
