"""The earliest finish, for deadlines that cannot be met and as the fastest thing a plan can do.
In: a Lattice. Out: runs that use every open second at one way to run, past the deadline as far as needed.
`plan` takes it where a policy finds nothing.
"""

from __future__ import annotations

import itertools
import math

from jobs.spec import InputError
from orchestrator.plan.lattice import Lattice, Way, offset_us
from orchestrator.plan.price import Run, price, start_cost_s

_DAY_S = 86400.0


def soonest(lattice: Lattice) -> list[Run]:
    """Runs of the way that finishes first (then the one that emits least), limits ignored, windows kept.

    Windows that end too early are taken to repeat by whole days. InputError where no window lets the work advance.
    """
    plans = [runs for runs in (_at_once(lattice, way) for way in lattice.ways) if runs is not None]
    if not plans:
        raise InputError("carbon.windows: no window is long enough for the job to advance; lengthen or add windows")
    return min(plans, key=lambda runs: (round(runs[-1].end_s, 6), price(lattice, runs).emissions_g))


def _at_once(lattice: Lattice, way: Way) -> list[Run] | None:
    left = lattice.problem.work_steps
    runs: list[Run] = []
    for round_index in itertools.count():
        gained = False
        for start_s, end_s in _open_s(lattice, round_index):
            run = Run(start_s, end_s, way)
            cost_s = start_cost_s(lattice, run, runs[-1] if runs else None)
            gain = way.steps_per_s * (end_s - start_s - cost_s)
            if gain >= left:
                return [*runs, Run(start_s, start_s + cost_s + left / way.steps_per_s, way)]
            if gain > 0:  # a window that the start would eat up is left out
                left -= gain
                runs.append(run)
                gained = True
        if round_index and not gained:  # the first round may be half over, all others are alike
            return None
    raise AssertionError("unreachable")


def _open_s(lattice: Lattice, round_index: int) -> list[tuple[float, float]]:
    """Open intervals from `now` on: the given windows, shifted by as many whole days a round as they span."""
    problem = lattice.problem
    if problem.windows is None:
        return [(0.0, math.inf)] if round_index == 0 else []
    given = [(offset_us(problem, start) / 1e6, offset_us(problem, end) / 1e6) for start, end in problem.windows]
    given = [(max(0.0, start_s), end_s) for start_s, end_s in given if end_s > 0]
    if not given:
        return []
    shift_s = round_index * math.ceil(given[-1][1] / _DAY_S) * _DAY_S
    return [(start_s + shift_s, end_s + shift_s) for start_s, end_s in given]
