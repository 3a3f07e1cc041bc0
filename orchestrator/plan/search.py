"""Dynamic programming over (cell, work left, state): which cells to use, with pause costs, zones and widths.
In: a Lattice. Out: runs that are optimal up to the size of a work quantum, or None where the deadline cannot be met.
`edges` slides their edges to the exact work.

The states are paused (by the zone last used) and running (by way). For fixed runs the grams are linear in each edge, so
an optimum has at most one cell used in part; the program lets any cell be used in part, by whole quanta of work, and in
one way only. A start takes no step of its own: it adds the work that its time would have made to the work left, which
prices it at the power of the way that starts and at the intensity of wherever it falls, be it longer than a cell or
not. What rounding to quanta gives or takes is charged at the marginal price of work, so that its effect is of second
order. Ties go to the earliest start, so that a later plan continues an earlier one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.plan.lattice import Flags, Floats, Lattice
from orchestrator.plan.price import J_PER_KWH, Run

Ints = npt.NDArray[np.int64]

_VALUES = 16_000_000
"""Numbers kept at most: 128 MB."""
_QUANTA = 4_000
_SPARE = 32
"""Quanta by which the work asked for may exceed the job's, where rounding has made a plan too short."""
_PRECISION = 1e9
"""Prices are whole numbers up to this, so that sums are exact in any order and equal plans tie."""


@dataclass(frozen=True)
class Grid:
    """The lattice in quanta of work: shapes (cells,), (ways, cells) and (ways,)."""

    edge_s: Floats
    quantum: float
    quanta: Ints
    """How many a whole cell makes, at least 1 where the cell may be used and 0 where not."""
    price: Floats
    """Of one quantum, a whole number."""
    goal: int
    is_exact: bool
    """Whether nothing had to be rounded to quanta."""
    start_quanta: Ints
    """Shape (2, ways): what a start takes, in the zone last used and in another."""
    start_price: Floats
    """Shape (2, ways): what rounding the start owes."""


class Search:
    """The values to go, kept for every edge, and the walk along the best decisions."""

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        self.ways = lattice.ways
        # Without move costs nothing depends on the zone last used.
        moves = lattice.problem.pause.move_s > 0 and len({way.zone for way in self.ways}) > 1
        self.place = [way.zone_index if moves else 0 for way in self.ways]
        self.places = len(lattice.problem.zones) if moves else 1
        self.grid = _grid(lattice, lattice.usable, len(self.ways) + self.places + 1)
        cells, size = (
            len(self.grid.edge_s) - 1,
            self.grid.goal + _SPARE + int(self.grid.start_quanta.max(initial=0)) + 1,
        )
        self.running = np.full((cells + 1, len(self.ways), size), np.inf)
        self.paused = np.full((cells + 1, self.places, size), np.inf)
        self.unstarted = np.full((cells + 1, size), np.inf)
        for values in (self.running, self.paused, self.unstarted):
            values[..., 0] = 0.0
        for cell in reversed(range(cells)):
            self._step(cell)

    def _step(self, cell: int) -> None:
        """Values at the start of `cell` from those at its end."""
        grid = self.grid
        paused, running = self.paused[cell], self.running[cell]
        paused[:] = self.paused[cell + 1]
        self.unstarted[cell] = self.unstarted[cell + 1]
        usable = [index for index in range(len(self.ways)) if grid.quanta[index, cell]]
        for index in usable:
            quanta, price = int(grid.quanta[index, cell]), grid.price[index, cell]
            begin = _used(self.running[cell + 1, index], quanta, price)
            np.minimum(self.unstarted[cell], begin, out=self.unstarted[cell])
            for place in range(self.places):
                elsewhere = int(place != self.place[index])
                taken = int(grid.start_quanta[elsewhere, index])
                reach = len(begin) - taken
                costly = begin[taken:] + grid.start_price[elsewhere, index]
                np.minimum(paused[place, :reach], costly, out=paused[place, :reach])
        paused[:, 0] = 0.0
        self.unstarted[cell, 0] = 0.0
        running[:] = paused[self.place]
        for index in usable:
            quanta, price = int(grid.quanta[index, cell]), grid.price[index, cell]
            stop = _used(self.paused[cell + 1, self.place[index]], quanta, price)
            if quanta < len(stop):
                on = self.running[cell + 1, index, : len(stop) - quanta] + quanta * price
                np.minimum(stop[quanta:], on, out=stop[quanta:])
            np.minimum(running[index], stop, out=running[index])
        running[:, 0] = 0.0

    def runs(self, spare: int = 0) -> list[Run] | None:
        """The best runs for the work and `spare` quanta more, or None where no decisions end it by the deadline."""
        left = self.grid.goal + spare
        if left <= 0:
            return None
        state, value = self._first(left)
        if not np.isfinite(value):
            return None
        cell, found = 0, list[Run]()
        while left > 0:
            if isinstance(state, int):
                index, used = state, self._going_on(cell, state, left)
                if not used:
                    state = ("paused", self.place[state])
                    continue
                early = True
            else:
                index, used, taken = self._beginning(cell, state, left)
                if not used:
                    cell += 1
                    continue
                left += taken
                # A start in mid-cell that does not go on may as well come at once.
                early = left == used or not self._going_on(cell + 1, index, left - used)
            found.append(self._run(cell, index, used, early))
            left -= used
            full = used == self.grid.quanta[index, cell] or not early
            state = index if full else ("paused", self.place[index])
            cell += 1
        return found

    def _first(self, goal: int) -> tuple[int | tuple[str, int], float]:
        problem, current = self.lattice.problem, self.lattice.current
        if current is not None:
            index = self.ways.index(current)
            return index, float(self.running[0, index, goal])
        if problem.current is None and not problem.started:
            return ("unstarted", 0), float(self.unstarted[0, goal])
        last_zone = problem.current.zone if problem.current is not None else problem.last_zone
        names = list(problem.zones)
        if self.places == 1:
            place = 0
        elif last_zone in names:
            place = names.index(last_zone)
        else:
            place = int(self.paused[0, :, goal].argmin())
        return ("paused", place), float(self.paused[0, place, goal])

    def _going_on(self, cell: int, index: int, left: int) -> int:
        """Quanta that a running job uses of `cell` before it stops; 0 where it stops at its start."""
        if cell == len(self.grid.edge_s) - 1:
            return 0
        quanta, price = int(self.grid.quanta[index, cell]), self.grid.price[index, cell]
        value = self.running[cell, index, left]
        if quanta <= left and quanta * price + self.running[cell + 1, index, left - quanta] == value:
            return quanta
        return _most(self.paused[cell + 1, self.place[index]], min(quanta, left), left, price, 0.0, value)

    def _beginning(self, cell: int, state: tuple[str, int], left: int) -> tuple[int, int, int]:
        """Way, quanta used of `cell` and quanta that the start takes; quanta 0 where the job waits."""
        kind, place = state
        value = self.unstarted[cell, left] if kind == "unstarted" else self.paused[cell, place, left]
        for index in range(len(self.ways)):
            elsewhere = int(place != self.place[index])
            taken, owed = int(self.grid.start_quanta[elsewhere, index]), self.grid.start_price[elsewhere, index]
            if kind == "unstarted":
                taken, owed = 0, 0.0
            if left + taken >= self.running.shape[2]:
                continue
            most, price = min(int(self.grid.quanta[index, cell]), left + taken), self.grid.price[index, cell]
            if used := _most(self.running[cell + 1, index], most, left + taken, price, owed, value):
                return index, used, taken
        return 0, 0, 0

    def _run(self, cell: int, index: int, used: int, early: bool) -> Run:
        start_s, end_s = float(self.grid.edge_s[cell]), float(self.grid.edge_s[cell + 1])
        if used < self.grid.quanta[index, cell]:
            used_s = min(end_s - start_s, used * self.grid.quantum / self.ways[index].steps_per_s)
            start_s, end_s = (start_s, start_s + used_s) if early else (end_s - used_s, end_s)
        return Run(start_s, end_s, self.ways[index])


def _most(after: Floats, most: int, left: int, price: float, owed: float, value: float) -> int:
    """The most quanta, up to `most` of the `left`, whose use is worth exactly `value`; 0 where none is."""
    used = np.arange(most, 0, -1)
    found = np.flatnonzero(used * price + after[left - used] + owed == value)
    return int(used[found[0]]) if len(found) else 0


def _used(after: Floats, most: int, price: float) -> Floats:
    """For each work left w, the least of x * price + after[w - x] over x in 1..most."""
    worth = price * np.arange(len(after))
    window = after - worth
    span = min(most, len(after) - 1)
    reach = 1  # how many earlier entries `window` covers, itself included; doubled until it is all of them
    while reach < span:
        shift = min(reach, span - reach)
        window[shift:] = np.minimum(window[shift:], window[:-shift])
        reach += shift
    result = np.empty_like(after)
    result[0] = np.inf
    np.add(window[:-1], worth[1:], out=result[1:])
    return result


def _grid(lattice: Lattice, usable: Flags, states: int) -> Grid:
    edge_s, usable, g_per_kwh = _merged(lattice, usable)
    ways, problem = lattice.ways, lattice.problem
    zones = [way.zone_index for way in ways]
    rates = np.array([way.steps_per_s for way in ways])
    watts = np.array([way.power_w * way.pue for way in ways])
    steps = rates[:, None] * np.diff(edge_s)
    g_per_step = g_per_kwh[zones] * (watts / rates)[:, None] / J_PER_KWH
    may_use = usable[zones]
    starts_s = np.array([problem.pause.resume_s, problem.pause.resume_s + problem.pause.move_s])
    start_steps = starts_s[:, None] * rates
    quantum, is_exact = _quantum(lattice, steps, start_steps, states * len(edge_s))
    origin_s = _origin_s(lattice)
    marks = np.floor(rates[:, None] * (edge_s - origin_s) / quantum + 0.5).astype(np.int64)
    # A cell too short for a quantum gets one all the same, so that a run can pass through it.
    quanta = np.where(may_use, np.maximum(1, np.diff(marks, axis=1)), 0)
    marginal = _marginal_g_per_step(problem.work_steps, steps, np.where(may_use, g_per_step, np.inf))
    owed = marginal * (quanta * quantum - steps)
    g_per_quantum = np.where(quanta > 0, (g_per_step * steps + owed) / np.maximum(quanta, 1), 0.0)
    unit = max(float(np.abs(g_per_quantum).max(initial=0.0)), 1e-300) / _PRECISION
    start_quanta = np.floor(start_steps / quantum + 0.5).astype(np.int64)
    start_owed = marginal * (start_steps - start_quanta * quantum)
    goal = max(1, int(np.ceil(problem.work_steps / quantum - 1e-6)))
    price, start_price = np.rint(g_per_quantum / unit), np.rint(start_owed / unit)
    return Grid(edge_s, quantum, quanta, price, goal, is_exact, start_quanta, start_price)


def _merged(lattice: Lattice, usable: Flags) -> tuple[Floats, Flags, Floats]:
    """Edges, use and prices with neighbouring cells made one where neither differs in any zone.

    With unequal speeds cells that can be used stay apart: changing the way between two equal ones can be worth it.
    """
    g_per_kwh = lattice.g_per_kwh
    same = (usable[:, 1:] == usable[:, :-1]).all(axis=0)
    same &= ((g_per_kwh[:, 1:] == g_per_kwh[:, :-1]) | ~usable[:, 1:]).all(axis=0)
    if len({way.steps_per_s for way in lattice.ways}) > 1:
        same &= ~usable[:, 1:].any(axis=0)
    first = np.concatenate([[True], ~same]) if usable.shape[1] else np.zeros(0, dtype=np.bool_)
    edge_s = np.concatenate([lattice.edge_s[:-1][first], lattice.edge_s[-1:]])
    return edge_s, usable[:, first], g_per_kwh[:, first]


def _origin_s(lattice: Lattice) -> float:
    """A regular slot edge: counting quanta from it makes equal slots of equal quanta."""
    return float(lattice.edge_s[1]) if len(lattice.edge_s) > 1 else 0.0


def _quantum(lattice: Lattice, steps: Floats, start_steps: Floats, values_per_quantum: int) -> tuple[float, bool]:
    """Steps in a quantum: the largest part of a slot that divides all lengths (then True), else the smallest."""
    work, rate = lattice.problem.work_steps, lattice.ways[0].steps_per_s
    slot_steps = rate * lattice.problem.slot_s
    longest = work + float(start_steps.max(initial=0.0))
    affordable = max(200, min(_QUANTA, _VALUES // max(1, values_per_quantum)))
    most = max(1, int(affordable * slot_steps / longest))
    amounts = np.unique(np.concatenate([steps.ravel(), start_steps.ravel(), [work]]).round(9)) / slot_steps
    if len(amounts) <= 64:
        parts = np.arange(1, most + 1)
        counts = amounts[:, None] * parts
        whole = (np.abs(counts - np.rint(counts)) < 1e-6).all(axis=0)
        if whole.any():
            return float(slot_steps / parts[int(whole.argmax())]), True
    # Of the last moments of a job a start is nearly the whole price: finer quanta would cost memory and tell nothing.
    return max(min(slot_steps / most, work), longest / (4 * affordable)), False


def _marginal_g_per_step(work: float, steps: Floats, g_per_step: Floats) -> float:
    """The price of the last step where cells are used in their best way, then in faster ones, cheapest steps first."""
    if not steps.size:
        return 0.0
    best = g_per_step.argmin(axis=0)
    columns = np.arange(steps.shape[1])
    grams = np.where(np.isfinite(g_per_step), g_per_step * steps, np.inf)
    cost, made = [g_per_step[best, columns]], [steps[best, columns]]
    now_g, now_steps = grams[best, columns], steps[best, columns]
    for index in np.argsort(steps.sum(axis=1), kind="stable"):
        faster = (steps[index] > now_steps) & np.isfinite(grams[index])
        more_steps = np.where(faster, steps[index] - now_steps, 0.0)
        more_g = np.where(faster, grams[index], 0.0) - np.where(faster, now_g, 0.0)
        cost.append(np.where(faster, more_g / np.where(faster, more_steps, 1.0), np.inf))
        made.append(more_steps)
        now_g, now_steps = np.where(faster, grams[index], now_g), np.where(faster, steps[index], now_steps)
    costs, steps_made = np.concatenate(cost), np.concatenate(made)
    order = np.argsort(costs, kind="stable")
    reached = int(np.searchsorted(np.cumsum(steps_made[order]), work))
    finite = costs[order][: reached + 1]
    finite = finite[np.isfinite(finite)]
    return float(finite[-1]) if len(finite) else 0.0
