"""The way back through a search: from the values that it keeps to the runs that they stand for.
In: a Search. Out: runs in order, cut at cells and where a cell is used in part; None where there are none.
`optimal` slides them to the exact work.

At each edge the walk takes the first decision that is worth exactly the value kept: values are sums of whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from orchestrator.plan.lattice import Floats
from orchestrator.plan.price import Run
from orchestrator.plan.search import ELSEWHERE, FREE, SAME, Search


def runs(search: Search, spare: int = 0) -> list[Run] | None:
    """The best runs for the work and `spare` quanta more, or None where no decisions end it by the deadline."""
    left = search.grid.goal + spare
    if left <= 0:
        return None
    walk = _Walk(search, left)
    return walk.found if walk.go() else None


@dataclass
class _Walk:
    """Where the walk stands: at the edge `cell`, in a state, with pauses (`layer`) and quanta left."""

    search: Search
    left: int
    cell: int = 0
    state: str = "idle"
    index: int = 0
    """The way, or the place of a state that has no way."""
    least_s: float = 0.0
    """How long what has begun must run."""

    def __post_init__(self) -> None:
        self.found: list[Run] = []
        self.layer = self.search.layers - 1
        self.grid = self.search.grid

    def go(self) -> bool:
        """Walk to the end of the work; False where there is no way."""
        if not np.isfinite(self._begin_walk()):
            return False
        steps = {
            "idle": self._idle,
            "shut": self._shut,
            "running": self._running,
            "stay": self._stay,
            "begin": self._begun,
        }
        while self.left > 0:
            steps["idle" if self.state == "first" else self.state]()
        return True

    def _begin_walk(self) -> float:
        search, problem, current = self.search, self.search.lattice.problem, self.search.lattice.current
        names = list(problem.zones)
        if current is not None:
            self.state, self.index = "running", search.ways.index(current)
            if search.owed_s > 0:
                self.state, self.least_s = "begin", search.owed_s
                return float(search.begin[search.owed_s][0, self.layer, self.index, self.left])
            return float(search.running[0, self.layer, self.index, self.left])
        if problem.current is None and not problem.started:
            self.state = "first"
            return float(search.first[0, self.layer, 0, self.left])
        last_zone = problem.current.zone if problem.current is not None else problem.last_zone or ""
        if search.places > 1:
            best = int(search.idle[0, self.layer, :, self.left].argmin())
            self.index = names.index(last_zone) if last_zone in names else best
        return float(search.idle[0, self.layer, self.index, self.left])

    def _idle(self) -> None:
        """Start now, else within the cell, else wait."""
        kept = self.search.first if self.state == "first" else self.search.idle
        value = float(kept[self.cell, self.layer, self.index, self.left])
        if self._turn(value):
            return
        for kind, index, taken, owed in self._starts():
            price = float(self.grid.price[index, self.cell])
            for after, low, high in self.search.late(self.cell, index, self.search.least_s[kind]):
                if quanta := self._most(after, low, high, price, owed, value, taken):
                    self._piece(index, quanta, is_late=True)
                    self._after(after, index, kind, self.left + taken - quanta)
                    return
        self.cell += 1

    def _turn(self, value: float) -> bool:
        """Whether a start here and now is worth `value`; it is then made."""
        for kind, index, taken, owed in self._starts():
            if not self.grid.quanta[index, self.cell] or self.left + taken >= self.search.size:
                continue
            begun = self.search.begin[self.search.least_s[kind]][self.cell, self.layer, index, self.left + taken]
            if begun + owed == value:
                self.state, self.index, self.least_s = "begin", index, self.search.least_s[kind]
                self.left += taken
                return True
        return False

    def _starts(self) -> list[tuple[int, int, int, float]]:
        """Kind, way, quanta and price of every start from here."""
        if self.cell >= self.grid.cells:
            return []
        found = []
        for index, place in enumerate(self.search.place):
            kind = FREE if self.state == "first" else SAME if place == self.index else ELSEWHERE
            taken, owed = int(self.grid.start_quanta[kind, index]), float(self.grid.start_price[kind, index])
            found.append((kind, index, taken, owed))
        return found

    def _after(self, after: Floats, index: int, kind: int, left: int) -> None:
        """To the next edge, where the way goes on, or has begun and must run its least time."""
        self.cell, self.index, self.left = self.cell + 1, index, left
        least_s = self.search.least_s[kind]
        is_begun = least_s > 0 and np.shares_memory(after, self.search.begin[least_s])
        self.state, self.least_s = ("begin", least_s) if is_begun else ("running", 0.0)

    def _running(self) -> None:
        """Go on, else stop."""
        value = float(self.search.running[self.cell, self.layer, self.index, self.left])
        if self.search.stay[self.cell, self.layer, self.index, self.left] == value:
            self.state = "stay"
            return
        self.index = self.search.place[self.index]
        self._stopped(value)

    def _stopped(self, value: float) -> None:
        """Shut out, else over to what starts at once, else paused."""
        if not self.search.is_limited:
            self.state = "idle"
        elif self.cell < self.grid.cells and not self.grid.is_open[self.cell]:
            self.state, self.cell = "shut", self.cell + 1
        elif not self._turn(value):
            self.state, self.layer = "idle", self.layer - 1

    def _shut(self) -> None:
        self._stopped(float(self.search.shut[self.cell, self.layer, self.index, self.left]))

    def _stay(self) -> None:
        """Through the cell, to the end of the job, up to a stop, or over to another way within the cell."""
        search, index, cell, layer = self.search, self.index, self.cell, self.layer
        quanta, price = int(self.grid.quanta[index, cell]), float(self.grid.price[index, cell])
        value = float(search.stay[cell, layer, index, self.left])
        if self.left <= quanta and self.left * price == value:
            self._piece(index, self.left)
            self.left = 0
        elif self._goes_through(quanta, price, value):
            self._piece(index, quanta)
            self.state, self.cell, self.left = "running", cell + 1, self.left - quanta
        elif not self._stops(value) and not self._changes(value):
            raise AssertionError("no decision is worth the value of going on")

    def _goes_through(self, quanta: int, price: float, value: float) -> bool:
        if self.left < quanta:
            return False
        after = self.search.running[self.cell + 1, self.layer, self.index, self.left - quanta]
        return bool(after + quanta * price == value)

    def _stops(self, value: float) -> bool:
        index, drop = self.index, int(self.search.is_limited)
        if self.layer < drop:
            return False
        place = self.search.place[index]
        quanta, price = int(self.grid.quanta[index, self.cell]), float(self.grid.price[index, self.cell])
        after = self.search.idle[self.cell + 1, :, place]
        part = self._most(after, 1, quanta - 1, price, 0.0, value, 0, self.layer - drop)
        if part:
            self._piece(index, part)
            self.state, self.index, self.cell = "idle", place, self.cell + 1
            self.left, self.layer = self.left - part, self.layer - drop
        return bool(part)

    def _changes(self, value: float, share: float = 0.0) -> bool:
        for other in self.search.changes.get(self.index, ()):
            kind = SAME if self.search.place[self.index] == self.search.place[other] else ELSEWHERE
            for after, taken, low, high, base, slope in self.search.change(self.cell, self.index, other, share):
                both = self._most(after, low, high, slope, base, value, taken)
                if both:
                    mine, others = (int(self.grid.quanta[i, self.cell]) for i in (self.index, other))
                    start_s, end_s = self._edges_s(self.cell)
                    middle_s = start_s + (end_s - start_s) * (both - others) / (mine - others)
                    ways = self.search.ways
                    self.found += [Run(start_s, middle_s, ways[self.index]), Run(middle_s, end_s, ways[other])]
                    self._after(after, other, kind, self.left + taken - both)
                    return True
        return False

    def _begun(self) -> None:
        """Through the cells that it must run at least, or to the end of the job before."""
        if self.least_s <= 0:
            self.state = "stay"
            return
        search, index, cell, drop = self.search, self.index, self.cell, int(self.search.is_limited)
        value = float(search.begin[self.least_s][cell, self.layer, index, self.left])
        first, last, until = search.block(cell, index, self.least_s)
        for at in range(cell, last):
            base, base_price = search.between(index, cell, at)
            rest = self.left - base
            price = float(self.grid.price[index, at])
            if 0 < rest <= self.grid.quanta[index, at] and base_price + rest * price == value:
                self._through(at)
                self._piece(index, rest)
                self.left = 0
                return
        whole, whole_price = search.between(index, cell, last)
        after = search.running[last, :, index] if until == "running" else search.shut[last, :, search.place[index]]
        if until and self.left >= whole and after[self.layer, self.left - whole] + whole_price == value:
            self._through(last)
            self.left -= whole
            self.state, self.index = (until, index) if until == "running" else (until, search.place[index])
            if until == "shut" and not search.is_limited:
                self.state = "idle"
            return
        base, base_price = search.between(index, cell, last - 1)
        quanta, price = int(self.grid.quanta[index, last - 1]), float(self.grid.price[index, last - 1])
        self._through(last - 1)
        self.left -= base
        after = search.idle[last, :, search.place[index]]
        layer = self.layer - drop
        part = self._most(after, first, quanta - 1, price, base_price, value, 0, layer) if layer >= 0 else 0
        if part:
            self._piece(index, part)
            self.state, self.index, self.cell = "idle", search.place[index], last
            self.left, self.layer = self.left - part, layer
        elif not self._changes(value - base_price, first / quanta):
            raise AssertionError("no decision is worth the value of having begun")

    def _through(self, last: int) -> None:
        """Whole cells up to the edge `last`."""
        while self.cell < last:
            self._piece(self.index, int(self.grid.quanta[self.index, self.cell]))
            self.cell += 1

    def _most(
        self,
        after: Floats,
        least: int,
        most: int,
        price: float,
        owed: float,
        value: float,
        taken: int,
        layer: int | None = None,
    ) -> int:
        """The most quanta, of least..most, whose use is worth exactly `value`; 0 where none is."""
        left = self.left + taken
        values = np.arange(min(most, left), least - 1, -1)
        values = values[left - values < after.shape[-1]]
        rest = after[self.layer if layer is None else layer, left - values]
        found = np.flatnonzero(values * price + rest + owed == value)
        return int(values[found[0]]) if len(found) else 0

    def _piece(self, index: int, quanta: int, is_late: bool = False) -> None:
        """Use so much of the cell, at its beginning or at its end."""
        start_s, end_s = self._edges_s(self.cell)
        used_s = (end_s - start_s) * quanta / int(self.grid.quanta[index, self.cell])
        span = (end_s - used_s, end_s) if is_late else (start_s, start_s + used_s)
        self.found.append(Run(*span, self.search.ways[index]))

    def _edges_s(self, cell: int) -> tuple[float, float]:
        return float(self.grid.edge_s[cell]), float(self.grid.edge_s[cell + 1])
