"""Policy `slots`: the cheapest separate slots before the deadline, at one width.
In: a Lattice. Out: runs in the chosen slots, or None where the deadline cannot be met so.
Source: Wiesner et al., "Let's Wait Awhile" (Middleware 2021), interrupting; GAIA (ASPLOS 2024), suspend-resume.

Pause costs play no part in the choice. They are paid all the same: as they eat into the chosen slots, the next cheapest
are added until the work is done.
"""

from __future__ import annotations

import numpy as np

from orchestrator.plan.lattice import Lattice
from orchestrator.plan.price import Run, price, until_done
from orchestrator.plan.problem import Mode


def slots(cells: Lattice) -> list[Run] | None:
    """Runs in the cheapest slots, at the width (and power limit) whose choice emits least."""
    modes = dict.fromkeys(way.mode for way in cells.ways)
    plans = [runs for mode in modes if (runs := _at(cells, mode)) is not None]
    return min(plans, key=lambda runs: price(cells, runs).emissions_g, default=None)


def _at(cells: Lattice, mode: Mode) -> list[Run] | None:
    ways = [way for way in cells.ways if way.mode == mode]
    zones = [way.zone_index for way in ways]
    g_per_kwh_step = np.array([way.power_w * way.pue / way.steps_per_s for way in ways])[:, None]
    costs = np.where(cells.usable[zones], cells.g_per_kwh[zones] * g_per_kwh_step, np.inf)
    best, cost = costs.argmin(axis=0), costs.min(axis=0)
    order = np.argsort(cost, kind="stable")  # stable: of equal slots the earliest
    order = order[: int(np.isfinite(cost).sum())]
    steps_per_s = np.array([way.steps_per_s for way in ways])
    steps = np.cumsum(cells.length_s[order] * steps_per_s[best[order]])
    count = int(np.searchsorted(steps, cells.problem.work_steps * (1 - 1e-9))) + 1
    while count <= len(order):
        chosen = np.sort(order[:count])
        done = until_done(
            cells, (Run(float(cells.edge_s[i]), float(cells.edge_s[i + 1]), ways[best[i]]) for i in chosen)
        )
        if done is not None:
            return done
        count += 1
    return None
