"""Policy `now`: start at once and never pause, whatever the grid does.
In: a Lattice. Out: runs at one fixed way, or None where the deadline cannot be met so.
The baseline of the carbon-aware scheduling literature; `run_now` is the counterfactual that savings are against.

The way is the zone and width that emits least and still meets the deadline. Windows and bounds are the user's own:
only they interrupt a run.
"""

from __future__ import annotations

import numpy as np

from orchestrator.plan.lattice import Lattice, Way, lattice
from orchestrator.plan.price import Run, price, run_g, until_done
from orchestrator.plan.problem import Problem


def now(cells: Lattice) -> list[Run] | None:
    """Runs at the best fixed way; what runs already goes on where it can, as one way is kept to the end."""
    if cells.current is not None and (going_on := _fixed(cells, cells.current)) is not None:
        return going_on
    plans = [runs for way in cells.ways if (runs := _fixed(cells, way)) is not None]
    return min(plans, key=lambda runs: price(cells, runs).emissions_g, default=None)


def run_now(problem: Problem) -> float:
    """Grams of the fixed zone and width that emits least when started at `problem.now` and never paused.

    Windows, limits, deadline and pauses are ignored, so that it is the hardest fair baseline; the one start that any
    run from now on would pay, it pays too.
    """
    return run_now_g(lattice(problem))


def run_now_g(cells: Lattice) -> float:
    """`run_now` where the lattice is there already."""
    problem = cells.problem
    start_s = problem.pause.resume_s if problem.started and problem.current is None else 0.0
    work = max(0.0, problem.work_steps)
    return min(run_g(cells, Run(0.0, start_s + work / way.steps_per_s, way)) for way in cells.ways)


def _fixed(cells: Lattice, way: Way) -> list[Run] | None:
    usable = np.flatnonzero(cells.usable[way.zone_index])
    return until_done(cells, (Run(float(cells.edge_s[i]), float(cells.edge_s[i + 1]), way) for i in usable))
