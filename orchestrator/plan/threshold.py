"""Policy `threshold`: run while the grid is cleaner than 70 % of the coming day, and when the deadline presses.
In: a Lattice. Out: runs at one fixed way, or None where the deadline cannot be met so.
Source: Souza et al., "Ecovisor" (ASPLOS 2023), the suspend-resume baseline that GAIA (ASPLOS 2024) compares with.

A cell is used where its intensity is at most the 30th percentile, by time, of the 24 h that begin with it, as far as
the deadline and the usable cells of the zone reach; so near the deadline the bar rises by itself. Where what lies after
a cell would not suffice for the work left, the cell is used whatever it costs. The zone and width are those whose runs
emit least. Pause costs play no part in the choice, and are paid.
"""

from __future__ import annotations

import numpy as np

from orchestrator.plan.lattice import Flags, Floats, Lattice, Way
from orchestrator.plan.price import Run, price, start_cost_s, until_done

PERCENTILE = 30.0
"""Share of the coming day's time that is at or below the bar."""

_DAY_S = 86400.0


def threshold(cells: Lattice) -> list[Run] | None:
    """Runs below the bar, in the zone and at the width whose runs emit least."""
    clean = {index: _clean(cells, index) for index in {way.zone_index for way in cells.ways}}
    plans = [runs for way in cells.ways if (runs := _runs(cells, way, clean[way.zone_index])) is not None]
    return min(plans, key=lambda runs: price(cells, runs).emissions_g, default=None)


def _clean(cells: Lattice, zone_index: int) -> Flags:
    """Shape (cells,): whether a zone's cell is usable and at most the percentile of the day that begins with it."""
    usable = cells.usable[zone_index]
    order = np.argsort(cells.g_per_kwh[zone_index], kind="stable")
    order = order[usable[order]]
    prices, length_s = cells.g_per_kwh[zone_index, order], cells.length_s[order]
    clean = np.zeros(len(usable), dtype=np.bool_)
    day_ends = np.searchsorted(cells.edge_s, cells.edge_s[:-1] + _DAY_S - 1e-6)
    for cell in np.flatnonzero(usable):
        time_s = np.cumsum(np.where((order >= cell) & (order < day_ends[cell]), length_s, 0.0))
        bar = prices[int(np.searchsorted(time_s, PERCENTILE / 100.0 * time_s[-1] - 1e-6))]
        clean[cell] = cells.g_per_kwh[zone_index, cell] <= bar
    return clean


def _runs(cells: Lattice, way: Way, clean: Flags) -> list[Run] | None:
    """The clean cells, and those without which the work would not be done in time."""
    room = _Room(cells, way)
    left_s = cells.problem.work_steps / way.steps_per_s
    owed_s, running_to, chosen = 0.0, 0 if cells.current == way else -1, list[Run]()
    for cell in np.flatnonzero(cells.usable[way.zone_index]).tolist():
        run = Run(float(cells.edge_s[cell]), float(cells.edge_s[cell + 1]), way)
        later_s = start_cost_s(cells, Run(run.end_s, cells.end_s, way), chosen[-1] if chosen else None)
        if not clean[cell] and room.from_s(cell + 1, later_s) >= left_s * (1 - 1e-9):
            continue
        if running_to != cell:
            owed_s = start_cost_s(cells, run, chosen[-1] if chosen else None)
        gain_s = max(0.0, run.end_s - run.start_s - owed_s)
        owed_s = max(0.0, owed_s - (run.end_s - run.start_s))
        left_s -= gain_s
        chosen.append(run)
        running_to = cell + 1
        if left_s <= 0:
            break
    return until_done(cells, chosen)


class _Room:
    """What progress a way could still make where it ran in every usable cell from one on."""

    def __init__(self, cells: Lattice, way: Way) -> None:
        usable, count = cells.usable[way.zone_index], len(cells.is_open)
        self._edge_s = cells.edge_s
        self._end_s: Floats = np.zeros(count + 1)
        """Where the stretch of usable cells that holds the cell ends; its start where the cell is not usable."""
        self._after_s: Floats = np.zeros(count + 1)
        """Progress in the stretches after that one."""
        self._end_s[count] = cells.edge_s[-1]
        for cell in reversed(range(count)):
            if usable[cell]:
                joins = cell + 1 < count and usable[cell + 1]
                self._end_s[cell] = self._end_s[cell + 1] if joins else cells.edge_s[cell + 1]
                self._after_s[cell] = self._after_s[cell + 1]
            else:
                self._end_s[cell] = cells.edge_s[cell]
                begins = cell + 1 < count and usable[cell + 1]
                opened_s = self._end_s[cell + 1] - cells.edge_s[cell + 1] if begins else 0.0
                self._after_s[cell] = self._after_s[cell + 1] + max(0.0, opened_s - cells.problem.pause.resume_s)

    def from_s(self, cell: int, start_s: float) -> float:
        """Seconds of progress from the start of `cell` on, where a start there takes `start_s`."""
        return max(0.0, float(self._end_s[cell] - self._edge_s[cell]) - start_s) + float(self._after_s[cell])
