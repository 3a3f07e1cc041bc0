"""Slides the edges of runs until they do exactly the work, at the least cost that sliding can reach.
In: a Lattice and joined runs that do nearly the work. Out: runs that do it, or None where there is no room.
`optimal` prices the result against the other policies.

Within one cell grams and work are linear in an edge, so it is best to lengthen at the cheapest edge and to shorten at
the dearest one, cell by cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.plan.lattice import Flags, Lattice
from orchestrator.plan.price import J_PER_KWH, Run, joined, start_costs_s, work_steps

_ROUNDS = 2_000


@dataclass(frozen=True)
class _Slide:
    """One edge of one run that can move by up to `room_steps` of work at a price."""

    index: int
    at_start: bool
    room_steps: float
    g_per_step: float


def slide(lattice: Lattice, runs: Sequence[Run], usable: Flags) -> list[Run] | None:
    """`runs` slid to the exact work within `usable` cells (zones, cells); None where they cannot be."""
    work = lattice.problem.work_steps
    # Times are kept to the microsecond: what a plan lacks of the work by less than that is not missing.
    fine = max(1e-10 * work, 2e-6 * max(way.steps_per_s for way in lattice.ways))
    result = joined(runs)
    for _ in range(_ROUNDS):
        missing = work - work_steps(lattice, result)
        shorter = max(_movable(_shortenings(lattice, result)), key=lambda found: found.g_per_step, default=None)
        longer = min(_movable(_lengthenings(lattice, result, usable)), key=lambda found: found.g_per_step, default=None)
        if missing > fine:
            if longer is None:
                return None
            result = _moved(result, longer, min(missing, longer.room_steps))
        elif missing < -fine:
            if shorter is None:
                return None
            result = _moved(result, shorter, -min(-missing, shorter.room_steps))
        elif shorter and longer and longer.g_per_step < shorter.g_per_step * (1 - 1e-7):
            amount = min(shorter.room_steps, longer.room_steps)
            result = _moved(_moved(result, shorter, -amount), longer, amount)
        else:
            return result
        result = _useful(lattice, joined(result))
    return result if abs(work - work_steps(lattice, result)) <= fine else None


def _movable(slides: Iterator[_Slide]) -> Iterator[_Slide]:
    return (found for found in slides if found.room_steps > 1e-9)


def _moved(runs: list[Run], move: _Slide, steps: float) -> list[Run]:
    """`runs` with one made longer (shorter below 0) by the time of `steps`."""
    run = runs[move.index]
    moved_s = steps / run.way.steps_per_s
    before_s, after_s = (moved_s, 0.0) if move.at_start else (0.0, moved_s)
    run = Run(run.start_s - before_s, run.end_s + after_s, run.way)
    return [*runs[: move.index], run, *runs[move.index + 1 :]]


def _useful(lattice: Lattice, runs: list[Run]) -> list[Run]:
    """Without runs that are all start cost, unless they spare a later one the move."""
    costs_s = start_costs_s(lattice, runs)
    for index, (run, cost_s) in enumerate(zip(runs, costs_s, strict=True)):
        if run.end_s - run.start_s <= cost_s + 1e-6:
            without = [*runs[:index], *runs[index + 1 :]]
            if work_steps(lattice, without) >= work_steps(lattice, runs) - run.way.steps_per_s * 1e-6:
                return _useful(lattice, without)
    return runs


def _shortenings(lattice: Lattice, runs: Sequence[Run]) -> Iterator[_Slide]:
    costs_s = start_costs_s(lattice, runs)
    for index, (run, cost_s) in enumerate(zip(runs, costs_s, strict=True)):
        spare_s = run.end_s - run.start_s - cost_s
        cell = _cell_before(lattice, run.end_s)
        yield _found(lattice, run, index, False, cell, min(spare_s, run.end_s - float(lattice.edge_s[cell])))
        if index or run.way != lattice.current or run.start_s > 0:  # what goes on cannot also start later
            cell = lattice.cell_at(run.start_s)
            room_s = min(spare_s, float(lattice.edge_s[cell + 1]) - run.start_s)
            yield _found(lattice, run, index, True, cell, room_s)


def _lengthenings(lattice: Lattice, runs: Sequence[Run], usable: Flags) -> Iterator[_Slide]:
    """Into cells that are free, or used by a neighbour that goes the same way: a cell is used in one way only."""
    for index, run in enumerate(runs):
        after = runs[index + 1] if index + 1 < len(runs) else None
        limit_s = after.start_s if after else lattice.end_s
        if run.end_s < limit_s - 1e-6:
            cell = lattice.cell_at(run.end_s)
            cell_end_s = float(lattice.edge_s[cell + 1])
            is_free = after is None or after.way == run.way or cell_end_s <= limit_s + 1e-6
            if is_free and usable[run.way.zone_index, cell]:
                yield _found(lattice, run, index, False, cell, min(limit_s, cell_end_s) - run.end_s)
        before = runs[index - 1] if index else None
        limit_s = before.end_s if before else 0.0
        if run.start_s > limit_s + 1e-6:
            cell = _cell_before(lattice, run.start_s)
            cell_start_s = float(lattice.edge_s[cell])
            is_free = before is None or before.way == run.way or cell_start_s >= limit_s - 1e-6
            if is_free and usable[run.way.zone_index, cell]:
                yield _found(lattice, run, index, True, cell, run.start_s - max(limit_s, cell_start_s))


def _found(lattice: Lattice, run: Run, index: int, at_start: bool, cell: int, room_s: float) -> _Slide:
    way = run.way
    g_per_s = way.power_w * way.pue * float(lattice.g_per_kwh[way.zone_index, cell]) / J_PER_KWH
    return _Slide(index, at_start, room_s * way.steps_per_s, g_per_s / way.steps_per_s)


def _cell_before(lattice: Lattice, at_s: float) -> int:
    """The cell that ends at or holds `at_s`."""
    return max(0, int(np.searchsorted(lattice.edge_s, at_s - 1e-7, side="right")) - 1)
