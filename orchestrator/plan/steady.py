"""Keeps what runs running where stopping it would save less than the forecast can tell.
In: a Lattice with prediction intervals, and the runs that a policy chose. Out: those, or runs that go on for now.
`plan` asks it for `optimal`, whose plans follow the newest forecast, so that they do not turn with its noise.

The plan that stops is compared with the best one that goes on for the present slot. It must save more than `PART` of
what the two differ by in uncertain energy: the root of the sum, over the cells that only one of them uses, of the
squared kWh times half the 80 % interval. Without intervals, as with a perfect forecast, any saving is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.plan.lattice import Floats, Lattice
from orchestrator.plan.price import J_PER_KWH, Run, price

PART = 0.5
"""A saving below half of the half-interval is more likely noise than not to last until the next forecast."""


def steady(cells: Lattice, runs: list[Run], choose: Callable[[Lattice], list[Run] | None]) -> list[Run]:
    """`runs`, or the best that go on for the present slot where those save too little to be worth a stop."""
    problem, current = cells.problem, cells.problem.current
    goes_on = bool(runs) and runs[0].start_s <= 0 and runs[0].way == cells.current
    if current is None or cells.current is None or not runs or goes_on or not cells.spread_g_per_kwh.any():
        return runs
    longer = replace(current, go_on_s=float(cells.edge_s[1]))
    staying = choose(replace(cells, problem=replace(problem, current=longer)))
    if staying is None:
        return runs
    saved_g = price(cells, staying).emissions_g - price(cells, runs).emissions_g
    apart_kwh = _kwh(cells, staying) - _kwh(cells, runs)
    noise_g = float(np.sqrt(((apart_kwh * cells.spread_g_per_kwh) ** 2).sum()))
    return staying if saved_g < PART * noise_g else runs


def _kwh(cells: Lattice, runs: Sequence[Run]) -> Floats:
    """Shape (zones, cells): energy of the runs, PUE included."""
    kwh = np.zeros_like(cells.spread_g_per_kwh)
    for run in runs:
        used_s = np.minimum(cells.edge_s[1:], run.end_s) - np.maximum(cells.edge_s[:-1], run.start_s)
        kwh[run.way.zone_index] += np.maximum(0.0, used_s) * run.way.power_w * run.way.pue / J_PER_KWH
    return kwh
