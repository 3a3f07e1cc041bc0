"""Policy `optimal`: least grams by the deadline, with pause costs, zones and widths.
In: a Lattice. Out: the best runs, or None where the deadline cannot be met.
Source: the dynamic program of `search`, made exact by `edges`; it is never worse than the simple policies.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.plan.edges import slide
from orchestrator.plan.lattice import Lattice
from orchestrator.plan.now import now
from orchestrator.plan.price import Run, joined, price
from orchestrator.plan.search import Search
from orchestrator.plan.slots import slots

_NEAR = (0, -1, -2, -4)
_FAR = (1, 2, 4, 8, 16, 32, -8, -16, -32)


def optimal(cells: Lattice) -> list[Run] | None:
    """The cheapest of the searched runs and the simple policies' ones; ties go to the searched ones."""
    return _cheapest(cells, (_searched(cells), now(cells), slots(cells)))


def _searched(cells: Lattice) -> list[Run] | None:
    """Searched runs slid to the exact work.

    Where quanta are rounded, a plan that just fits may count as a few quanta too short, or have no time left to slide
    into: the same search then answers for a little less or more work, and the cheapest that slides to the exact work
    is taken.
    """
    search = Search(cells)
    near = [_exact(cells, search.runs(spare)) for spare in ((0,) if search.grid.is_exact else _NEAR)]
    best = _cheapest(cells, near)
    if best is not None:
        return best
    return next((runs for spare in _FAR if (runs := _exact(cells, search.runs(spare))) is not None), None)


def _exact(cells: Lattice, runs: list[Run] | None) -> list[Run] | None:
    return slide(cells, joined(runs), cells.usable) if runs else None


def _cheapest(cells: Lattice, plans: Iterable[list[Run] | None]) -> list[Run] | None:
    """The plan of least grams; of equal ones the first."""
    best, best_g = None, float("inf")
    for runs in plans:
        if runs and (emissions_g := price(cells, runs).emissions_g) < best_g * (1 - 1e-9):
            best, best_g = runs, emissions_g
    return best
