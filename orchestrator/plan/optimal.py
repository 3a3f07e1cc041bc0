"""Policy `optimal`: least grams by the deadline, with pause costs, zones, widths and rules on pauses.
In: a Lattice. Out: the best runs, or None where the deadline cannot be met.
Source: the dynamic program of `search`, made exact by `edges`; `hull` where starts are free and no rule is set.

It is never worse than the simple policies that could be better by what rounding costs a search.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.plan import walk
from orchestrator.plan.edges import slide
from orchestrator.plan.greedy import greedy
from orchestrator.plan.hull import mixed
from orchestrator.plan.lattice import Lattice
from orchestrator.plan.now import now
from orchestrator.plan.price import Run, joined, price
from orchestrator.plan.rules import kept, pauses
from orchestrator.plan.search import Search
from orchestrator.plan.slots import slots
from orchestrator.plan.window import window

_NEAR = (0, -1, -2, -4)
_FAR = (1, 2, 4, 8, 16, 32, -8, -16, -32)


def optimal(cells: Lattice) -> list[Run] | None:
    """The cheapest of the searched runs and the simple policies' ones; ties go to the searched ones."""
    problem = cells.problem
    costs_s = problem.pause.resume_s + problem.pause.move_s
    if costs_s <= 0 and problem.min_run_s <= 0 and problem.max_pauses is None:
        return mixed(cells)
    simple = (runs for policy in (now, slots, window, greedy) if (runs := policy(cells)) and kept(cells, runs))
    return _cheapest(cells, (_within_pauses(cells), *simple))


def _within_pauses(cells: Lattice) -> list[Run] | None:
    """Searched runs: without the limit on pauses where those keep it, which takes a fraction of the time."""
    most = cells.problem.max_pauses
    free = _searched(replace(cells, problem=replace(cells.problem, max_pauses=None)))
    if most is None or free is None or pauses(cells, free) <= most:
        return free
    return _searched(cells)


def _searched(cells: Lattice) -> list[Run] | None:
    """Searched runs slid to the exact work.

    Where quanta are rounded, a plan that just fits may count as a few quanta too short, or have no time left to slide
    into: the same search then answers for a little less or more work, and the cheapest that slides to the exact work
    is taken.
    """
    search = Search(cells)
    near = [_exact(cells, walk.runs(search, spare)) for spare in ((0,) if search.grid.is_exact else _NEAR)]
    best = _cheapest(cells, near)
    if best is not None:
        return best
    return next((runs for spare in _FAR if (runs := _exact(cells, walk.runs(search, spare))) is not None), None)


def _exact(cells: Lattice, runs: list[Run] | None) -> list[Run] | None:
    return slide(cells, joined(runs), cells.usable) if runs else None


def _cheapest(cells: Lattice, plans: Iterable[list[Run] | None]) -> list[Run] | None:
    """The plan of least grams; of equal ones the first."""
    best, best_g = None, float("inf")
    for runs in plans:
        if runs and (emissions_g := price(cells, runs).emissions_g) < best_g * (1 - 1e-9):
            best, best_g = runs, emissions_g
    return best
