"""The best plan where starts cost nothing: work is taken where it costs least, step by step.
In: a Lattice whose starts are free. Out: runs, or None where the deadline cannot be met.
`optimal` takes it in place of a search.

In a cell, ways mixed by time make any point between theirs of (throughput, grams per second), so the least grams for
each throughput lie on the lower convex hull of the ways, of all zones, with standing still. Along it each further step
costs more than the one before: taking the cheapest steps of all cells first is optimal, and leaves one cell in which
two neighbours on the hull share the time.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.plan.lattice import Lattice, Way
from orchestrator.plan.price import Run, joined

Corner = tuple[float, float, Way | None]
"""Throughput, grams (per any unit of time), and the way; None stands still."""


def mixed(cells: Lattice) -> list[Run] | None:
    """Runs of least grams; of equal steps the earliest are taken."""
    corners = [_corners(cells, cell) for cell in range(len(cells.is_open))]
    length_s = cells.length_s.tolist()
    rises = [
        (round((b[1] - a[1]) / (b[0] - a[0]), 9), cell, rung)
        for cell, found in enumerate(corners)
        for rung, (a, b) in enumerate(zip(found, found[1:], strict=False))
    ]
    left, rungs = cells.problem.work_steps, [0.0] * len(corners)
    fine = 1e-9 * left
    for _, cell, rung in sorted(rises):
        steps = (corners[cell][rung + 1][0] - corners[cell][rung][0]) * length_s[cell]
        rungs[cell] = rung + min(1.0, left / steps)
        left -= steps
        if left <= fine:
            return joined(_runs(cells, corners, rungs))
    return None


def hull(points: Sequence[Corner]) -> list[Corner]:
    """The lower convex hull of the points with standing still, by rising throughput (Andrew's monotone chain)."""
    found: list[Corner] = [(0.0, 0.0, None)]
    for point in sorted(points, key=lambda point: point[:2]):
        if point[0] <= found[-1][0]:  # as fast as the one before, and dearer
            continue
        while len(found) > 1 and _is_above(found[-2], found[-1], point):
            found.pop()
        found.append(point)
    return found


def _is_above(first: Corner, middle: Corner, last: Corner) -> bool:
    rise = (last[1] - first[1]) * (middle[0] - first[0])
    return (middle[1] - first[1]) * (last[0] - first[0]) >= rise * (1 - 1e-12)


def _corners(cells: Lattice, cell: int) -> list[Corner]:
    usable = [way for way in cells.ways if cells.usable[way.zone_index, cell]]
    prices = cells.g_per_kwh[:, cell]
    return hull([(way.steps_per_s, way.power_w * way.pue * float(prices[way.zone_index]), way) for way in usable])


def _runs(cells: Lattice, corners: Sequence[Sequence[Corner]], rungs: Sequence[float]) -> list[Run]:
    """One run a cell, or two where its time is shared: first the way that went before, last the one that follows."""
    runs: list[Run] = []
    for cell, rung in enumerate(rungs):
        start_s, end_s = float(cells.edge_s[cell]), float(cells.edge_s[cell + 1])
        whole, part = int(rung), rung - int(rung)
        low, high = corners[cell][whole][2], corners[cell][min(whole + 1, len(corners[cell]) - 1)][2]
        before = runs[-1].way if runs and runs[-1].end_s == start_s else None
        after = corners[cell + 1][int(rungs[cell + 1])][2] if cell + 1 < len(rungs) else None
        low_first = part > 0 and high != before and (after == high or low is not None and low == before)
        first, first_s = (low, (1 - part) * (end_s - start_s)) if low_first else (high, part * (end_s - start_s))
        second = high if low_first else low
        runs += [
            Run(a, b, way)
            for a, b, way in ((start_s, start_s + first_s, first), (start_s + first_s, end_s, second))
            if way is not None and b > a
        ]
    return runs
