"""The bounds that a user set on when a job may run, cell by cell: intensity not above, renewable share not below.
In: a Lattice. Out: what each cell is by the bounds, and Lattices to plan on, the strictest first.
`plan` takes the first on which its policy meets the deadline; `reason` says what that asked for.

An unknown share may be anything, so time with one does not count as within the bound: whoever asks for 60 % does not
expect to run in hours of which nobody knows. It is used before time that is known to be outside. Unknown intensity is
judged by its price, the zone's worst: where even that is within the bound, the time is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from orchestrator.plan.lattice import Flags, Lattice
from orchestrator.plan.price import Run

Standing = npt.NDArray[np.int8]

WITHIN, UNKNOWN, OUTSIDE = 0, 1, 2

_DEARER = (0.0, 30.0, 1000.0)
"""What a cell of each standing costs more than the worst intensity, in multiples of it: less of it is then cheaper."""


def standing(cells: Lattice) -> Standing:
    """Shape (zones, cells): WITHIN the bounds, UNKNOWN whether it is, or OUTSIDE."""
    return np.maximum(_by_intensity(cells), _by_share(cells))


def bounded(cells: Lattice) -> Iterator[Lattice]:
    """The lattice with what is WITHIN alone, then with what is UNKNOWN too, then with all that is open."""
    if cells.problem.max_g_per_kwh is None and cells.problem.min_renewable_percent is None:
        yield cells
        return
    stands = standing(cells)
    worst_g_per_kwh = max(1.0, float(cells.g_per_kwh.max(initial=0.0)))
    for allowed in (WITHIN, UNKNOWN, OUTSIDE):
        if allowed == WITHIN or (stands == allowed).any():
            may = stands <= allowed
            dearer = np.where(may, np.array(_DEARER)[stands] * worst_g_per_kwh, 0.0)
            yield replace(cells, usable=cells.usable & may, g_per_kwh=cells.g_per_kwh + dearer)


def asked_for(cells: Lattice, runs: Sequence[Run]) -> str:
    """What the runs need beyond the bounds, as `the deadline asks for ...`; empty where they stay within."""
    problem = cells.problem
    intensity, share = _used(cells, runs, _by_intensity(cells)), _used(cells, runs, _by_share(cells))
    over = []
    if OUTSIDE in intensity:
        over.append(f"more than {problem.max_g_per_kwh:g} g/kWh")
    if OUTSIDE in share:
        over.append(f"less than {problem.min_renewable_percent:g} % renewable")
    unknown = [name for name, stands in (("intensity", intensity), ("renewable share", share)) if UNKNOWN in stands]
    if unknown:
        over.append(f"hours of unknown {' and '.join(unknown)}")
    return f"the deadline asks for {' and '.join(over)}" if over else ""


def _by_intensity(cells: Lattice) -> Standing:
    most = cells.problem.max_g_per_kwh
    if most is None:
        return np.zeros(cells.g_per_kwh.shape, dtype=np.int8)
    above: Flags = cells.g_per_kwh > most
    return np.where(above, np.where(cells.unknown_share >= 1.0, UNKNOWN, OUTSIDE), WITHIN).astype(np.int8)


def _by_share(cells: Lattice) -> Standing:
    least = cells.problem.min_renewable_percent
    if least is None:
        return np.zeros(cells.g_per_kwh.shape, dtype=np.int8)
    share = cells.renewable_percent
    return np.where(np.isnan(share), UNKNOWN, np.where(share < least, OUTSIDE, WITHIN)).astype(np.int8)


def _used(cells: Lattice, runs: Sequence[Run], stands: Standing) -> set[int]:
    """The standings of the cells that the runs use."""
    used: set[int] = set()
    for run in runs:
        first = cells.cell_at(run.start_s + 1e-6)
        last = int(np.searchsorted(cells.edge_s, run.end_s - 1e-6))
        used.update(stands[run.way.zone_index, first:last].tolist())
    return used
