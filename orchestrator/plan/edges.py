"""Slides the edges of runs until they do exactly the work, at the least cost that sliding can reach.
In: a Lattice and joined runs that do nearly the work. Out: runs that do it, or None where there is no room.
`optimal` prices the result against the other policies.

Within one cell grams and work are linear in an edge, so it is best to lengthen at the cheapest edge and to shorten at
the dearest one, cell by cell. Where one run goes on as another, the moment between them slides as one. No slide opens a
gap, nor makes a run shorter than `rules` let it be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from orchestrator.plan.lattice import Flags, Lattice
from orchestrator.plan.price import J_PER_KWH, Run, joined, start_costs_s, work_steps
from orchestrator.plan.rules import least_run_s

_ROUNDS = 2_000


@dataclass(frozen=True)
class _Slide:
    """A moment that can move, and with it up to `room_steps` of work come or go, at a price."""

    moved: tuple[tuple[int, bool, float], ...]
    """Of each run concerned: its index, whether its start moves (else its end), by how many seconds for each step."""
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
        less, more = list(_shortenings(lattice, result)), list(_lengthenings(lattice, result, usable))
        for found, gained in _handovers(lattice, result, usable):
            (more if gained > 0 else less).append(found)
        shorter = max(_movable(less), key=lambda found: found.g_per_step, default=None)
        longer = min(_movable(more), key=lambda found: found.g_per_step, default=None)
        if missing > fine:
            if longer is None:
                return None
            result = _moved(result, longer, min(missing, longer.room_steps))
        elif missing < -fine:
            if shorter is None:
                return None
            result = _moved(result, shorter, min(-missing, shorter.room_steps))
        elif shorter and longer and longer.g_per_step < shorter.g_per_step * (1 - 1e-7):
            amount = min(shorter.room_steps, longer.room_steps)
            result = _moved(_moved(result, shorter, amount), longer, amount)
        else:
            return result
        result = _useful(lattice, joined(result))
    return result if abs(work - work_steps(lattice, result)) <= fine else None


def _movable(slides: Iterable[_Slide]) -> Iterator[_Slide]:
    return (found for found in slides if found.room_steps > 1e-9)


def _moved(runs: list[Run], move: _Slide, steps: float) -> list[Run]:
    """`runs` with a moment moved by the time of `steps`."""
    result = list(runs)
    for index, at_start, s_per_step in move.moved:
        run, moved_s = result[index], steps * s_per_step
        result[index] = (
            Run(run.start_s + moved_s, run.end_s, run.way)
            if at_start
            else Run(run.start_s, run.end_s + moved_s, run.way)
        )
    return result


def _useful(lattice: Lattice, runs: list[Run]) -> list[Run]:
    """Without runs that are all start cost, unless they spare a later one the move; and without those that are less."""
    costs_s = start_costs_s(lattice, runs)
    for index, (run, cost_s) in enumerate(zip(runs, costs_s, strict=True)):
        if run.end_s - run.start_s <= cost_s + 1e-6:
            without = [*runs[:index], *runs[index + 1 :]]
            is_less = run.end_s - run.start_s < cost_s - 1e-3
            lost = work_steps(lattice, runs) - work_steps(lattice, without)
            if is_less or lost <= run.way.steps_per_s * 1e-6:
                return _useful(lattice, without)
    return runs


def _spare_s(lattice: Lattice, runs: Sequence[Run]) -> list[float]:
    """How much shorter each run may become: its start takes its time, and `min_run` is kept but by the last."""
    spare = []
    for index, (run, cost_s) in enumerate(zip(runs, start_costs_s(lattice, runs), strict=True)):
        least_s = max(cost_s, least_run_s(lattice, run)) if index + 1 < len(runs) else cost_s
        spare.append(max(0.0, run.end_s - run.start_s - least_s))
    return spare


def _touch(first: Run, second: Run) -> bool:
    return second.start_s - first.end_s <= 1e-6


def _shortenings(lattice: Lattice, runs: Sequence[Run]) -> Iterator[_Slide]:
    """Later starts and earlier ends; not where another run goes on, for no pause may come of it."""
    for index, (run, spare_s) in enumerate(zip(runs, _spare_s(lattice, runs), strict=True)):
        if index + 1 == len(runs) or not _touch(run, runs[index + 1]):
            cell = _cell_before(lattice, run.end_s)
            room_s = min(spare_s, run.end_s - float(lattice.edge_s[cell]))
            yield _found(lattice, run, index, False, cell, room_s, -1.0)
        runs_now = lattice.problem.current is not None and run.start_s <= 0
        if not (_touch(runs[index - 1], run) if index else runs_now):
            cell = lattice.cell_at(run.start_s)
            room_s = min(spare_s, float(lattice.edge_s[cell + 1]) - run.start_s)
            yield _found(lattice, run, index, True, cell, room_s, 1.0)


def _lengthenings(lattice: Lattice, runs: Sequence[Run], usable: Flags) -> Iterator[_Slide]:
    """Earlier starts and later ends, up to the next run or edge."""
    for index, run in enumerate(runs):
        limit_s = runs[index + 1].start_s if index + 1 < len(runs) else lattice.end_s
        if run.end_s < limit_s - 1e-6:
            cell = lattice.cell_at(run.end_s)
            if usable[run.way.zone_index, cell]:
                room_s = min(limit_s, float(lattice.edge_s[cell + 1])) - run.end_s
                yield _found(lattice, run, index, False, cell, room_s, 1.0)
        limit_s = runs[index - 1].end_s if index else 0.0
        if run.start_s > limit_s + 1e-6:
            cell = _cell_before(lattice, run.start_s)
            if usable[run.way.zone_index, cell]:
                room_s = run.start_s - max(limit_s, float(lattice.edge_s[cell]))
                yield _found(lattice, run, index, True, cell, room_s, -1.0)


def _handovers(lattice: Lattice, runs: Sequence[Run], usable: Flags) -> Iterator[tuple[_Slide, float]]:
    """The moments at which one run goes on as another, later and earlier, and the steps per second gained so."""
    spare_s = _spare_s(lattice, runs)
    for index, (first, second) in enumerate(pairwise(runs)):
        if not _touch(first, second):
            continue
        for later in (True, False):
            cell = lattice.cell_at(first.end_s) if later else _cell_before(lattice, first.end_s)
            longer, shorter = (first, second) if later else (second, first)
            gained = longer.way.steps_per_s - shorter.way.steps_per_s
            if abs(gained) < 1e-9 * shorter.way.steps_per_s or not usable[longer.way.zone_index, cell]:
                continue
            cell_s = abs(float(lattice.edge_s[cell + 1 if later else cell]) - first.end_s)
            room_s = min(cell_s, spare_s[index + 1 if later else index])
            g_per_step = (_g_per_s(lattice, longer, cell) - _g_per_s(lattice, shorter, cell)) / gained
            shift = (1.0 if later else -1.0) / abs(gained)
            yield _Slide(((index, False, shift), (index + 1, True, shift)), room_s * abs(gained), g_per_step), gained


def _g_per_s(lattice: Lattice, run: Run, cell: int) -> float:
    way = run.way
    return way.power_w * way.pue * float(lattice.g_per_kwh[way.zone_index, cell]) / J_PER_KWH


def _found(
    lattice: Lattice, run: Run, index: int, at_start: bool, cell: int, room_s: float, direction: float
) -> _Slide:
    rate = run.way.steps_per_s
    return _Slide(((index, at_start, direction / rate),), room_s * rate, _g_per_s(lattice, run, cell) / rate)


def _cell_before(lattice: Lattice, at_s: float) -> int:
    """The cell that ends at or holds `at_s`."""
    return max(0, int(np.searchsorted(lattice.edge_s, at_s - 1e-7, side="right")) - 1)
