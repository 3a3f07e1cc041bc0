"""What a plan emits: the one place where runs become grams, joules and work.
In: a Lattice and runs (when, which way). Out: a Bill.
Every policy compares by it, and the Plan's figures are its.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.plan.lattice import Floats, Lattice, Way

J_PER_KWH = 3_600_000


@dataclass(frozen=True)
class Run:
    """One segment of a plan: [start_s, end_s) in seconds from `now`, its pause cost inside it."""

    start_s: float
    end_s: float
    way: Way


@dataclass(frozen=True)
class Bill:
    """What runs cost and bring; grams include the PUE, joules are those of the workers."""

    emissions_g: float
    energy_j: float
    work_steps: float
    finish_s: float
    unknown_s: float


def joined(runs: Iterable[Run]) -> list[Run]:
    """Runs in order, with those joined that touch and go the same way."""
    result: list[Run] = []
    for run in sorted(runs, key=lambda run: run.start_s):
        if run.end_s <= run.start_s:
            continue
        if result and result[-1].way == run.way and run.start_s - result[-1].end_s <= 1e-6:
            result[-1] = Run(result[-1].start_s, run.end_s, run.way)
        else:
            result.append(run)
    return result


def start_cost_s(lattice: Lattice, run: Run, before: Run | None) -> float:
    """Seconds without progress at the start of `run`, which follows `before` (None where it is the first)."""
    problem = lattice.problem
    if before is not None:
        last_zone: str | None = before.way.zone
    else:
        if run.way == lattice.current and run.start_s <= 0:
            return 0.0
        if problem.current is None and not problem.started:
            return 0.0
        last_zone = problem.current.zone if problem.current is not None else problem.last_zone
    moves = last_zone is not None and last_zone != run.way.zone
    return problem.pause.resume_s + (problem.pause.move_s if moves else 0.0)


def start_costs_s(lattice: Lattice, runs: Sequence[Run]) -> list[float]:
    """`start_cost_s` of each of the joined `runs`."""
    return [start_cost_s(lattice, run, runs[index - 1] if index else None) for index, run in enumerate(runs)]


def work_steps(lattice: Lattice, runs: Sequence[Run]) -> float:
    """Steps that joined `runs` make: throughput by the time left after each start."""
    costs_s = start_costs_s(lattice, runs)
    return sum(
        run.way.steps_per_s * max(0.0, run.end_s - run.start_s - cost_s)
        for run, cost_s in zip(runs, costs_s, strict=True)
    )


def price(lattice: Lattice, runs: Sequence[Run]) -> Bill:
    """The bill of joined `runs`: grams = power x PUE x intensity x time, start costs included."""
    emissions_g = sum(run_g(lattice, run) for run in runs)
    energy_j = sum(run.way.power_w * (run.end_s - run.start_s) for run in runs)
    unknown_s = sum(_unknown_s(lattice, run) for run in runs)
    finish_s = runs[-1].end_s if runs else 0.0
    return Bill(emissions_g, energy_j, work_steps(lattice, runs), finish_s, unknown_s)


def run_g(lattice: Lattice, run: Run) -> float:
    """Grams of one run."""
    zone = run.way.zone_index
    tail = float(lattice.tail_g_per_kwh[zone])
    weighted = _between(lattice, lattice.g_s_per_kwh[zone], run, tail)
    return run.way.power_w * run.way.pue * weighted / J_PER_KWH


def until_done(lattice: Lattice, runs: Iterable[Run]) -> list[Run] | None:
    """Joined runs, cut where the work is done; None where they do not suffice."""
    left = lattice.problem.work_steps
    result: list[Run] = []
    for run in joined(runs):
        cost_s = start_cost_s(lattice, run, result[-1] if result else None)
        gain = run.way.steps_per_s * (run.end_s - run.start_s - cost_s)
        # A billionth of the job is rounding; a run that is all start cost still happens.
        if gain >= left * (1 - 1e-9):
            end_s = min(run.end_s, run.start_s + cost_s + left / run.way.steps_per_s)
            return [*result, Run(run.start_s, end_s, run.way)]
        left -= max(0.0, gain)
        result.append(run)
    return None


def _unknown_s(lattice: Lattice, run: Run) -> float:
    return _between(lattice, lattice.unknown_s[run.way.zone_index], run, 1.0)


def _between(lattice: Lattice, sums: Floats, run: Run, tail: float) -> float:
    """What accrues during `run`, by its running sums at the edges and the rate after the last one."""
    start, end = np.interp((run.start_s, run.end_s), lattice.edge_s, sums)
    beyond_s = max(0.0, run.end_s - lattice.end_s) - max(0.0, run.start_s - lattice.end_s)
    return float(end - start) + tail * beyond_s
