"""A lattice in whole quanta of work, as the search counts it.
In: a Lattice. Out: a Grid: how many quanta each way makes of each cell, and what one costs, in whole numbers.
`search` runs its dynamic program on it.

What rounding to quanta gives or takes is charged at the marginal price of work, so that its effect is of second order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.plan.lattice import Flags, Floats, Lattice
from orchestrator.plan.price import J_PER_KWH

Ints = npt.NDArray[np.int64]

SPARE = 32
"""Quanta by which the work asked for may exceed the job's, where rounding has made a plan too short."""

_VALUES = 16_000_000
"""Numbers kept at most: 128 MB."""
_QUANTA = 4_000
_PRECISION = 1e9
"""Prices are whole numbers up to this, so that sums are exact in any order and equal plans tie."""


@dataclass(frozen=True)
class Grid:
    """The lattice in quanta of work: shapes (cells,), (ways, cells) and (ways,)."""

    edge_s: Floats
    is_open: Flags
    quantum: float
    quanta: Ints
    """How many a whole cell makes, at least 1 where the cell may be used and 0 where not."""
    price: Floats
    """Of one quantum, a whole number."""
    goal: int
    is_exact: bool
    """Whether nothing had to be rounded to quanta."""
    start_quanta: Ints
    """Shape (3, ways): what a start takes, in the zone last used, in another, and where the first one is free."""
    start_price: Floats
    """Shape (3, ways): what rounding the start owes."""

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return len(self.edge_s) - 1


def grid(lattice: Lattice, values_per_quantum: int) -> Grid:
    """The grid on which a search that keeps so many values a cell and quantum fits into memory."""
    edge_s, is_open, usable, g_per_kwh = _merged(lattice)
    ways, problem = lattice.ways, lattice.problem
    zones = [way.zone_index for way in ways]
    rates = np.array([way.steps_per_s for way in ways])
    watts = np.array([way.power_w * way.pue for way in ways])
    steps = rates[:, None] * np.diff(edge_s)
    g_per_step = g_per_kwh[zones] * (watts / rates)[:, None] / J_PER_KWH
    may_use = usable[zones]
    starts_s = np.array([problem.pause.resume_s, problem.pause.resume_s + problem.pause.move_s, 0.0])
    start_steps = starts_s[:, None] * rates
    quantum, is_exact = _quantum(lattice, steps, start_steps, values_per_quantum * len(edge_s))
    origin_s = float(lattice.edge_s[1]) if len(lattice.edge_s) > 1 else 0.0  # counting from an edge: equal slots,
    marks = np.floor(rates[:, None] * (edge_s - origin_s) / quantum + 0.5).astype(np.int64)  # equal quanta
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
    return Grid(edge_s, is_open, quantum, quanta, price, goal, is_exact, start_quanta, start_price)


def _merged(lattice: Lattice) -> tuple[Floats, Flags, Flags, Floats]:
    """Edges, openness, use and prices with neighbouring cells made one where neither differs in any zone.

    With unequal speeds cells that can be used stay apart: changing the way between two equal ones can be worth it.
    """
    g_per_kwh, usable = lattice.g_per_kwh, lattice.usable
    same = (usable[:, 1:] == usable[:, :-1]).all(axis=0) & (lattice.is_open[1:] == lattice.is_open[:-1])
    same &= ((g_per_kwh[:, 1:] == g_per_kwh[:, :-1]) | ~usable[:, 1:]).all(axis=0)
    if len({way.steps_per_s for way in lattice.ways}) > 1:
        same &= ~usable[:, 1:].any(axis=0)
    first = np.concatenate([[True], ~same]) if usable.shape[1] else np.zeros(0, dtype=np.bool_)
    edge_s = np.concatenate([lattice.edge_s[:-1][first], lattice.edge_s[-1:]])
    return edge_s, lattice.is_open[first], usable[:, first], g_per_kwh[:, first]


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
