"""The least grams of any plan of a small problem, by a mixed-integer program that knows nothing of the planner.
In: a Problem with equal slots. Out: grams, or None where the deadline cannot be met.
`test_exact` compares plans with it.

In each cell at most one segment starts; it, and whatever runs at the cell's left edge, may use any part of the cell.
That holds an optimum: for a given order of segments grams are linear in every edge while it stays within its cell, so
all but one moment at which something starts, stops or changes can be moved to an edge of a cell.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix

from orchestrator.plan import OperatingPoint, Problem

_GAP = 1e-5

Way = tuple[int, OperatingPoint]
"""A zone's number and a point."""
Owed = tuple[tuple[int, int], int, float]
"""Cell and way of a start, a variable, the steps that it costs."""


@dataclass
class Program:
    """Variables by name, rules as rows; each is `low <= sum <= high`."""

    names: dict[tuple[object, ...], int] = field(default_factory=dict)
    is_whole: list[bool] = field(default_factory=list)
    most: list[float] = field(default_factory=list)
    rows: list[tuple[dict[int, float], float, float]] = field(default_factory=list)

    def number(self, *name: object, most: float = 1.0, whole: bool = True) -> int:
        """A variable from 0 to `most`, made where it is not there yet."""
        if name not in self.names:
            self.names[name] = len(self.names)
            self.is_whole.append(whole)
            self.most.append(most)
        return self.names[name]

    def rule(self, terms: list[tuple[int, float]], low: float = -np.inf, high: float = np.inf) -> None:
        row: dict[int, float] = {}
        for index, factor in terms:
            row[index] = row.get(index, 0.0) + factor
        self.rows.append((row, low, high))

    def least(self, costs: dict[int, float]) -> float | None:
        """The least of the sum of costs, or None where no values keep the rules."""
        entries = [(r, i, f) for r, (row, _, _) in enumerate(self.rows) for i, f in row.items()]
        rows, columns, factors = zip(*entries, strict=True)
        matrix = csr_matrix((factors, (rows, columns)), shape=(len(self.rows), len(self.names)))
        rules = LinearConstraint(matrix, [low for _, low, _ in self.rows], [high for _, _, high in self.rows])
        objective = np.zeros(len(self.names))
        for index, cost in costs.items():
            objective[index] = cost
        unit = max(float(np.abs(objective).max()), 1e-12)
        answer = milp(
            objective / unit,
            constraints=rules,
            integrality=np.array(self.is_whole, dtype=int),
            bounds=Bounds(0, np.array(self.most)),
            options={"mip_rel_gap": _GAP},
        )
        import os

        if os.environ.get("SHOW") and answer.x is not None:
            print({n: round(float(answer.x[i]), 4) for n, i in self.names.items() if answer.x[i] > 1e-6})
        return None if answer.x is None else float(answer.fun) * unit


def least_g(asked: Problem, slot_s: float) -> float | None:
    """Least grams; cells are cut here at the slots' multiples, not by the planner."""
    length_h, prices, is_open = _cells(asked, slot_s)
    ways = [(z, p) for z, zone in enumerate(asked.zones.values()) for p in zone.points]
    names, cells = list(asked.zones), range(len(length_h))
    program = Program()
    runs = {(e, w): program.number("runs", e, w) for e in range(len(length_h) + 1) for w in range(len(ways))}
    starts = {(c, w): program.number("starts", c, w) for c in cells for w in range(len(ways))}
    used = {(c, w): program.number("used", c, w, whole=False) for c in cells for w in range(len(ways))}  # parts of c
    for w, (z, point) in enumerate(ways):
        goes_on = asked.current is not None and (names[z], point.workers) == (asked.current.zone, asked.current.workers)
        program.rule([(runs[0, w], 1)], float(goes_on), float(goes_on))
    for c in cells:
        program.rule([(runs[c + 1, w], 1) for w in range(len(ways))], high=1)
        program.rule([(starts[c, w], 1) for w in range(len(ways))], high=1)
        program.rule([(used[c, w], 1) for w in range(len(ways))], high=1 if is_open[c] else 0)
        for w in range(len(ways)):
            program.rule([(starts[c, w], 1), (runs[c + 1, w], -1), (runs[c, w], 1)], low=0)
            program.rule([(used[c, w], 1), (runs[c, w], -1), (starts[c, w], -1)], high=0)
            program.rule([(used[c, w], 1), (runs[c, w], -1), (runs[c + 1, w], -1)], low=-1)
            if not is_open[c]:
                program.rule([(runs[c, w], 1), (runs[c + 1, w], 1)], high=1)
    owed = _start_costs(asked, program, starts, ways, len(length_h))
    _takes_its_start(program, owed, runs, used, ways, length_h)
    _pauses(asked, program, runs, starts, used, is_open, len(ways))
    work_h = asked.work_steps / 3600
    steps = [(used[c, w], ways[w][1].steps_per_s * length_h[c] / work_h) for c, w in used]
    program.rule([*steps, *((i, -cost / asked.work_steps) for _, i, cost in owed)], low=1)
    costs = {
        used[c, w]: point.power_w / 1000 * asked.zones[names[z]].pue * prices[z][c] * length_h[c]
        for c in cells
        for w, (z, point) in enumerate(ways)
    }
    return program.least(costs)


def _cells(asked: Problem, slot_s: float) -> tuple[list[float], list[list[float]], list[bool]]:
    """Lengths in hours, prices by zone and whether the windows allow each cell."""
    epoch = next(iter(asked.zones.values())).curve[0].start
    now_s, end_s = ((moment - epoch).total_seconds() for moment in (asked.now, asked.deadline))
    marks = [k * slot_s for k in range(1, int(end_s // slot_s) + 1)]
    edges = [now_s, *(mark for mark in marks if now_s < mark < end_s), end_s]
    cells = list(itertools.pairwise(edges))
    known = [
        [(((part.start - epoch).total_seconds()), part.g_per_kwh or 0.0) for part in zone.curve]
        for zone in asked.zones.values()
    ]
    prices = [[max(part for part in parts if part[0] <= a + 1e-6)[1] for a, _ in cells] for parts in known]
    spans = [((a - epoch).total_seconds(), (b - epoch).total_seconds()) for a, b in asked.windows or ()]
    is_open = [asked.windows is None or any(a >= s and b <= e for s, e in spans) for a, b in cells]
    # A first cell of no length: what starts at once and gives over to another in the first slot starts there.
    return [0.0, *((b - a) / 3600 for a, b in cells)], [[0.0, *row] for row in prices], [True, *is_open]


def _start_costs(
    asked: Problem, program: Program, starts: dict[tuple[int, int], int], ways: list[Way], cells: int
) -> list[Owed]:
    """Steps that starts cost."""
    names, owed = list(asked.zones), list[Owed]()
    is_paid = asked.started or asked.current is not None
    last = asked.current.zone if asked.current is not None else asked.last_zone
    zones = range(len(names))
    lies = {(e, z): program.number("lies", e, z) for e in range(cells + 1) for z in zones}
    for z in zones:
        program.rule([(lies[0, z], 1)], float(names[z] == last), float(names[z] == last))
    for c in range(cells):
        all_starts = [(starts[c, w], 1.0) for w in range(len(ways))]
        program.rule([(lies[c + 1, z], 1) for z in zones], high=1)
        for z in zones:
            there = [(starts[c, w], -1.0) for w in range(len(ways)) if ways[w][0] == z]
            program.rule([(lies[c + 1, z], 1), *there], low=0)
            program.rule([(lies[c + 1, z], 1), (lies[c, z], -1), *all_starts], low=0)
        for w, (z, point) in enumerate(ways):
            rate = point.steps_per_s
            owed.append(((c, w), starts[c, w], asked.pause.resume_s * rate))
            moves = program.number("moves", c, w, whole=False)
            elsewhere = [(lies[c, other], -1.0) for other in zones if other != z]
            for term in elsewhere:
                program.rule([(moves, 1), (starts[c, w], -1), term], low=-1)
            owed.append(((c, w), moves, asked.pause.move_s * rate))
            if not is_paid:
                free = program.number("free", c, w)
                program.rule([(free, 1), (starts[c, w], -1)], high=0)
                for earlier in range(c):
                    program.rule([(free, 1), *((starts[earlier, v], 1.0) for v in range(len(ways)))], high=1)
                owed.append(((c, w), free, -asked.pause.resume_s * rate))
    return owed


def _takes_its_start(
    program: Program,
    owed: list[Owed],
    runs: dict[tuple[int, int], int],
    used: dict[tuple[int, int], int],
    ways: list[Way],
    length_h: list[float],
) -> None:
    """A segment lasts as long as its start, unless it ends the job: one that ends before moves nothing."""
    for (c, w), length in used.items():
        terms = [(i, -cost / ways[w][1].steps_per_s / 3600) for at, i, cost in owed if at == (c, w)]
        most_h = sum(max(0.0, -cost_h) for _, cost_h in terms)
        program.rule([(length, length_h[c]), (runs[c + 1, w], most_h), *terms], low=0)
        if (c + 1, w) in used:
            after = [(used[c + 1, w], length_h[c + 1]), (runs[c + 2, w], most_h)]
            program.rule([(length, length_h[c]), *after, *terms], low=0)


def _pauses(
    asked: Problem,
    program: Program,
    runs: dict[tuple[int, int], int],
    starts: dict[tuple[int, int], int],
    used: dict[tuple[int, int], int],
    is_open: list[bool],
    ways: int,
) -> None:
    """At most `max_pauses` starts that do not follow at once on what ran, but for the first where nothing runs."""
    most = getattr(asked, "max_pauses", None)
    if most is None:
        return
    counted: list[tuple[int, float]] = []
    for c in range(len(is_open)):
        counted += [(starts[c, w], 1.0) for w in range(ways)]
        at_once = program.number("at once", c)
        counted.append((at_once, -1.0))
        program.rule([(at_once, 1), *((starts[c, w], -1.0) for w in range(ways))], high=0)
        program.rule([(at_once, 1), *((used[c, w], -1.0) for w in range(ways))], high=0)
        program.rule([(at_once, 1), *((runs[c, w], -1.0) for w in range(ways))], high=0)
    program.rule(counted, high=most + (0 if asked.current is not None else 1))
