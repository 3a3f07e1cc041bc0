"""Policy `optimal`: least grams by the deadline, with pause costs, zones and widths.
In: a Lattice. Out: the best runs, or None where the deadline cannot be met.
Source: the dynamic program of `search`, made exact by `edges`; it is never worse than the simple policies.
"""

from __future__ import annotations

from orchestrator.plan.edges import slide
from orchestrator.plan.lattice import Lattice
from orchestrator.plan.now import now
from orchestrator.plan.price import Run, joined, price
from orchestrator.plan.search import Search
from orchestrator.plan.slots import slots

_SPARES = (0, 1, 2, 4, 8, 16, 32, -1, -2, -4, -8, -16, -32)


def optimal(cells: Lattice, limited: bool) -> list[Run] | None:
    """The cheapest of the searched runs and the simple policies' ones; ties go to the searched ones."""
    best, best_g = None, float("inf")
    for runs in (_searched(cells, limited), now(cells, limited), slots(cells, limited)):
        if runs and (emissions_g := price(cells, runs).emissions_g) < best_g * (1 - 1e-9):
            best, best_g = runs, emissions_g
    return best


def _searched(cells: Lattice, limited: bool) -> list[Run] | None:
    """Searched runs slid to the exact work; where there is no time left to slide into, those of a little more work."""
    usable, search = cells.usable(limited), Search(cells, limited)
    for spare in _SPARES:
        runs = search.runs(spare)
        exact = slide(cells, joined(runs), usable) if runs else None
        if exact is not None:
            return exact
    return None
