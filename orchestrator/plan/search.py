"""Dynamic programming over (cell, state, work left): which cells to use, with pause costs, zones, widths and rules.
In: a Lattice. Out: runs that are optimal up to the size of a work quantum, or None where none meet the deadline.
`walk` reads the runs back from the values kept here; `edges` slides them to the exact work.

For a given order of runs the grams are linear in each edge while it stays within its cell, so an optimum has at most
one moment off the cells' edges: where a run begins, ends, or gives over to another. The program lets any cell be used
in part by one way, or by two in turn, in whole quanta of work. A start takes no step of its own: it adds the work that
its time would have made to the work left, which prices it at the power of the way that starts and at the intensity of
wherever it falls, be it longer than a cell or not. Ties go to the earliest start, so that a later plan continues an
earlier one.

The states at an edge, each by how many pauses are left where they are limited:

    first      nothing has run; the first start is free
    idle       paused, by the zone last used
    shut       stopped by the end of a window, which is no pause while it goes on in the next one at once
    running    by way; it may go on or stop
    stay       by way; it goes on
    turn       starts here and now, by the zone last used
    begin      started here and now, by way and by how long it must run at least

A run keeps `min_run`. Where moves cost it is at least as long as its start besides, or it would move nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from orchestrator.plan.hull import hull
from orchestrator.plan.lattice import Flags, Floats, Lattice
from orchestrator.plan.quanta import SPARE, Ints, grid

SAME, ELSEWHERE, FREE = 0, 1, 2
"""Kinds of start: in the zone last used, in another, the first one where it costs nothing."""

_CHANGES = 2_500
"""Changes within a cell that are looked at, at most: where there are more cells, one matters less."""


class Search:
    """The values to go, kept for every edge."""

    def __init__(self, lattice: Lattice) -> None:
        problem = lattice.problem
        self.lattice, self.ways = lattice, lattice.ways
        # Without move costs nothing depends on the zone last used.
        moves = problem.pause.move_s > 0 and len({way.zone for way in self.ways}) > 1
        self.place = [way.zone_index if moves else 0 for way in self.ways]
        self.places = len(problem.zones) if moves else 1
        self.is_limited = problem.max_pauses is not None
        self.layers = 1 if problem.max_pauses is None else problem.max_pauses + 1
        start_s = (problem.pause.resume_s, problem.pause.resume_s + problem.pause.move_s, 0.0)
        self.least_s = tuple(max(problem.min_run_s, cost_s if moves else 0.0) for cost_s in start_s)
        """How long a run lasts at least that does not end the job, by kind of start."""
        self.kinds = [FREE] if problem.current is None and not problem.started else []
        fresh = {least_s for least_s in self.least_s if least_s > 0}
        values = 2 * self.places + 2 * len(self.ways) + self.places + len(fresh) * len(self.ways) + 1
        self.grid = grid(lattice, self.layers * values)
        self.length_s = np.diff(self.grid.edge_s)
        self.ends = _ends(self.grid.quanta > 0)
        self.total = _sums(self.grid.quanta)
        self.total_price = _sums(self.grid.quanta * self.grid.price)
        # Two starts may be owed before anything is made: of a way, and of another in the same cell.
        self.size = self.grid.goal + SPARE + 2 * int(self.grid.start_quanta.max(initial=0)) + 1
        self.idle, self.turn = self._kept(self.places), self._kept(self.places)
        self.stay, self.running = self._kept(len(self.ways)), self._kept(len(self.ways))
        self.first = self._kept(1)
        self.shut = self._kept(self.places) if self.is_limited else self.idle
        self.begin = {least_s: self._kept(len(self.ways)) for least_s in fresh} | {0.0: self.stay}
        self.changes = self._changes()
        for cell in reversed(range(self.grid.cells)):
            self._step(cell)
        self.owed_s = problem.owed_s
        if self.owed_s > 0 and (current := lattice.current) is not None:
            self.begin.setdefault(self.owed_s, self._kept(len(self.ways)))
            self._begin(0, self.ways.index(current), self.owed_s, self.begin[self.owed_s])

    def _kept(self, states: int) -> Floats:
        """Shape (edges, layers, states, quanta left)."""
        values = np.full((self.grid.cells + 1, self.layers, states, self.size), np.inf)
        values[..., 0] = 0.0
        return values

    def _step(self, cell: int) -> None:
        """Values at the start of `cell` from those at its end."""
        usable = [index for index in range(len(self.ways)) if self.grid.quanta[index, cell]]
        for index in usable:
            self._stay(cell, index)
        for least_s, begin in self.begin.items():
            if least_s > 0:
                for index in usable:
                    self._begin(cell, index, least_s, begin)
        idle, turn, first = self.idle[cell], self.turn[cell], self.first[cell]
        idle[:], first[:] = self.idle[cell + 1], self.first[cell + 1]
        for kind, starts in self._starts(cell, usable).items():
            for index, (at_edge, late) in starts.items():
                if kind == FREE:
                    np.minimum(first[:, 0], np.minimum(at_edge, late), out=first[:, 0])
                    continue
                taken, owed = self.grid.start_quanta[kind, index], self.grid.start_price[kind, index]
                for place in range(self.places):
                    if (place == self.place[index]) == (kind == SAME):
                        _lower(turn[:, place], at_edge[:, taken:] + owed)
                        _lower(idle[:, place], late[:, taken:] + owed)
        np.minimum(idle, turn, out=idle)
        for values in (idle, turn, first):
            values[..., 0] = 0.0
        stop = self._stop(cell)
        np.minimum(self.stay[cell], stop[:, self.place], out=self.running[cell])

    def _stop(self, cell: int) -> Floats:
        """What a run may do that does not go on, by its place: be shut out, pause, or give over at once."""
        idle: Floats = self.idle[cell]
        turn: Floats = self.turn[cell]
        if not self.is_limited:
            return idle
        shut: Floats = self.shut[cell]
        shut[:] = self.shut[cell + 1] if not self.grid.is_open[cell] else turn
        if self.grid.is_open[cell]:
            _lower(shut[1:], idle[:-1])
        return shut

    def _stay(self, cell: int, index: int) -> None:
        """Going on: to the end of the cell, to the end of the job, or until it stops or another way goes on."""
        grid, place, stay = self.grid, self.place[index], self.stay[cell, :, index]
        quanta, price = int(grid.quanta[index, cell]), float(grid.price[index, cell])
        stay[:, quanta:] = self.running[cell + 1, :, index, : max(0, self.size - quanta)] + quanta * price
        _lower(stay, _ending(quanta, price))
        drop = int(self.is_limited)
        if quanta > 1:
            part = used(self.idle[cell + 1, : self.layers - drop, place], 1, quanta - 1, price)
            np.minimum(stay[drop:], part, out=stay[drop:])
        for other in self.changes.get(index, ()):
            for after, taken, low, high, base, slope in self.change(cell, index, other):
                _lower(stay, used(after, low, high, slope)[:, taken:] + base)
        stay[:, 0] = 0.0

    def change(
        self, cell: int, index: int, other: int, share: float = 0.0
    ) -> Iterator[tuple[Floats, int, int, int, float, float]]:
        """What follows where `other` goes on within the cell; quanta of its start, least and most of both, their price.

        The way before has `share` of the cell at least. The price is the base plus the slope for each quantum; more of
        the quanta are the faster way's.
        """
        grid = self.grid
        mine, others = int(grid.quanta[index, cell]), int(grid.quanta[other, cell])
        if abs(mine - others) < 2 or not others:
            return
        kind = SAME if self.place[index] == self.place[other] else ELSEWHERE
        taken, owed = int(grid.start_quanta[kind, other]), float(grid.start_price[kind, other])
        others_price = others * float(grid.price[other, cell])
        slope = float(np.rint((mine * float(grid.price[index, cell]) - others_price) / (mine - others)))
        base = others_price - others * slope + owed
        least_s = self.least_s[kind]
        # A second way that has not run long enough by the end of the cell must go on.
        until = 1.0 - least_s / float(self.length_s[cell])
        for after, most in (
            (self.running[cell + 1, :, other], until),
            (self.begin[least_s][cell + 1, :, other], 1.0),
        ):
            edges = sorted(others + (mine - others) * part for part in (share, most))
            low = max(int(np.ceil(edges[0] - 1e-9)), min(mine, others) + 1)
            high = min(int(np.floor(edges[1] + 1e-9)), max(mine, others) - 1)
            if low <= high and share <= most:
                yield after, taken, low, high, base, slope
            if least_s <= 0:
                return

    def _begin(self, cell: int, index: int, least_s: float, begin: Floats) -> None:
        """Started at the edge: it runs `least_s`, unless the job ends before, or the window that opened here does."""
        target, drop = begin[cell, :, index], int(self.is_limited)
        first, last, until = self.block(cell, index, least_s)
        for at in range(cell, last):
            base, base_price = self.between(index, cell, at)
            quanta, price = int(self.grid.quanta[index, at]), float(self.grid.price[index, at])
            _lower(target[:, base:], _ending(quanta, price) + base_price)
        if until:
            base, base_price = self.between(index, cell, last)
            after = self.running[last, :, index] if until == "running" else self.shut[last, :, self.place[index]]
            _lower(target[:, base:], after[:, : max(0, self.size - base)] + base_price)
        if until == "running" and first < int(self.grid.quanta[index, last - 1]):
            base, base_price = self.between(index, cell, last - 1)
            quanta, price = int(self.grid.quanta[index, last - 1]), float(self.grid.price[index, last - 1])
            part = used(self.idle[last, : self.layers - drop, self.place[index]], first, quanta - 1, price)
            _lower(target[drop:, base:], part[:, : max(0, self.size - base)] + base_price)
        if until == "running":
            base, base_price = self.between(index, cell, last - 1)
            share = first / int(self.grid.quanta[index, last - 1])
            for other in self.changes.get(index, ()):
                for after, taken, low, high, fixed, slope in self.change(last - 1, index, other, share):
                    both = used(after, low, high, slope)[:, taken:] + (fixed + base_price)
                    _lower(target[:, base:], both[:, : max(0, self.size - base)])
        target[:, 0] = 0.0

    def block(self, cell: int, index: int, least_s: float) -> tuple[int, int, str]:
        """The cells that a run from this edge fills: least quanta of the last, the edge after it, what it then is.

        That is "running" where it may go on, "shut" where its whole window was shorter, "" where it may only end.
        """
        edge_s, end = self.grid.edge_s, int(self.ends[index, cell])
        last = int(np.searchsorted(edge_s, edge_s[cell] + least_s - 1e-6))
        last = max(last, cell + 1)
        if last <= end:
            rest_s = max(0.0, least_s - float(edge_s[last - 1] - edge_s[cell]))
            share = rest_s / float(self.length_s[last - 1])
            return max(1, int(np.ceil(share * int(self.grid.quanta[index, last - 1]) - 1e-9))), last, "running"
        opens = cell == 0 and self.lattice.current is not None or cell > 0 and not self.grid.is_open[cell - 1]
        is_shut = end < self.grid.cells and not self.grid.is_open[end] and opens
        return 0, end, "shut" if is_shut else ""

    def between(self, index: int, first: int, last: int) -> tuple[int, float]:
        """Quanta and price of whole cells."""
        quanta = self.total[index, last] - self.total[index, first]
        return int(quanta), float(self.total_price[index, last] - self.total_price[index, first])

    def _starts(self, cell: int, usable: list[int]) -> dict[int, dict[int, tuple[Floats, Floats]]]:
        """By kind of start and way: values of starting at the edge, and within the cell; the start not yet paid."""
        kinds = [*([SAME, ELSEWHERE] if self.places > 1 else [SAME]), *self.kinds]
        made: dict[tuple[float, int], tuple[Floats, Floats]] = {}
        for least_s in {self.least_s[kind] for kind in kinds}:
            for index in usable:
                price, late = float(self.grid.price[index, cell]), np.full((self.layers, self.size), np.inf)
                for after, low, high in self.late(cell, index, least_s):
                    np.minimum(late, used(after, low, high, price), out=late)
                made[least_s, index] = (self.begin[least_s][cell, :, index], late)
        return {kind: {index: made[self.least_s[kind], index] for index in usable} for kind in kinds}

    def late(self, cell: int, index: int, least_s: float) -> Iterator[tuple[Floats, int, int]]:
        """What follows a start within the cell, and the least and most quanta of the cell that it then makes."""
        quanta = int(self.grid.quanta[index, cell])
        low = max(1, int(np.ceil(least_s / float(self.length_s[cell]) * quanta - 1e-9)))
        if low < quanta:
            yield self.running[cell + 1, :, index], low, quanta - 1
        if least_s > 0 and quanta > 1:
            yield self.begin[least_s][cell + 1, :, index], 1, quanta - 1

    def _changes(self) -> dict[int, list[int]]:
        """From each way to those that may go on within a cell: all of them, else the next ones on the zone's hull."""
        count = len(self.ways)
        every = {index: [other for other in range(count) if other != index] for index in range(count)}
        if self.grid.cells * count * (count - 1) <= _CHANGES:
            return every
        near: dict[int, list[int]] = {}
        for zone in {way.zone_index for way in self.ways}:
            ways = [way for way in self.ways if way.zone_index == zone]
            corners = hull([(way.steps_per_s, way.power_w, way) for way in ways])[1:]
            indexes = [self.ways.index(way) for _, _, way in corners if way is not None]
            for first, second in pairwise(indexes):
                near.setdefault(first, []).append(second)
                near.setdefault(second, []).append(first)
        return near if self.grid.cells * sum(map(len, near.values())) <= _CHANGES else {}


def used(after: Floats, least: int, most: int, price: float) -> Floats:
    """For each work left w, the least of x * price + after[..., w - x] over x in least..most."""
    size = after.shape[-1]
    result = np.full_like(after, np.inf)
    if least >= size or least > most or not after.shape[0]:
        return result
    worth = price * np.arange(size)
    window = after - worth
    span = min(most - least + 1, size)
    reach = 1  # how many earlier entries `window` covers, itself included; doubled until it is all of them
    while reach < span:
        shift = min(reach, span - reach)
        window[..., shift:] = np.minimum(window[..., shift:], window[..., :-shift])
        reach += shift
    np.add(window[..., : size - least], worth[least:], out=result[..., least:])
    return result


def _lower(target: Floats, values: Floats) -> None:
    """Take the lesser of both where `values` reaches."""
    reach = min(target.shape[-1], values.shape[-1])
    part = target[..., :reach]
    np.minimum(part, values[..., :reach], out=part)


def _ending(quanta: int, price: float) -> Floats:
    """For each work left up to `quanta`, the price of ending the job with it."""
    return price * np.arange(quanta + 1, dtype=np.float64)[None, :]


def _ends(usable: Flags) -> Ints:
    """Shape (ways, cells): the first cell at or after each that the way cannot use."""
    ways, cells = usable.shape
    ends = np.full((ways, cells + 1), cells, dtype=np.int64)
    for cell in reversed(range(cells)):
        ends[:, cell] = np.where(usable[:, cell], ends[:, cell + 1], cell)
    return ends


def _sums(amounts: Floats | Ints) -> Floats:
    return np.concatenate([np.zeros((len(amounts), 1)), np.cumsum(amounts, axis=1, dtype=np.float64)], axis=1)
