"""What the fleet planner answers, and keeps, so that one job can change without all being planned again.
In: the arrays of a solve. Out: a FleetPlan, and the Books of jobs with what they use, one Market that they share.
`arrange` makes it, `replan` goes on from a copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from orchestrator.fleet.grid import Floats, Grid
from orchestrator.fleet.problem import Fleet, FleetJob, FleetZone
from orchestrator.fleet.room import Market, Uses
from orchestrator.fleet.table import Table
from orchestrator.plan.problem import Plan


class Taken(NamedTuple):
    """GPUs that count against a limit, for parts of slots [begin, end) numbered through the grid."""

    limit: int
    begin: int
    end: int
    gpus: int


@dataclass(frozen=True)
class Book:
    """Jobs planned together."""

    jobs: Sequence[FleetJob]
    table: Table
    uses: Uses
    job_g: Floats
    """Shape (jobs,): each job's part of the bound, GPUs included; of late jobs their grams."""
    is_late: bool


@dataclass(frozen=True)
class State:
    """A solved fleet."""

    cells: Grid
    market: Market
    """What is left; `worth` is what the bound was proven with."""
    rent_g: float
    """What the bound's worths would earn from all GPUs."""
    books: tuple[Book, ...]
    where: dict[str, tuple[int, int]]
    """From a job's id to its book and its row in it."""
    zones: Mapping[str, FleetZone]
    slot_s: float
    apart: dict[str, tuple[Taken, ...]] = field(default_factory=dict)
    """What jobs take whose plans were made apart, not by the books."""

    def copy(self) -> State:
        """A state that may be changed; the books' own arrays are shared until they are released."""
        of = self.market
        market = of._replace(left=of.left.copy(), least=of.least.copy(), most=of.most.copy())
        return replace(self, market=market, where=dict(self.where), apart=dict(self.apart))

    def fits(self, fleet: Fleet) -> bool:
        """Whether `fleet` has the zones of this state, and its present lies in the first slots of it."""
        return fleet.slot_s == self.slot_s and fleet.now >= self.cells.now and dict(fleet.zones) == dict(self.zones)

    @property
    def bound_g(self) -> float:
        """Of the jobs that `where` knows."""
        parts = [float(self.books[book].job_g[row]) for book, row in self.where.values()]
        return float(np.sum(parts)) - self.rent_g


@dataclass(frozen=True)
class FleetPlan:
    """A Plan for each job, and how far from the least grams they can be at most."""

    plans: Mapping[str, Plan]
    emissions_g: float
    """Of all plans, PUE included."""
    bound_g: float
    """No plans that meet the same deadlines emit less; those of missed jobs are counted as they are."""
    missed: tuple[str, ...]
    """Jobs that miss their deadline, highest priority first; each runs as soon as room allows."""
    state: State = field(repr=False, compare=False)
    """What `replan` goes on from."""

    @property
    def gap_percent(self) -> float:
        """How much more than the bound the plans emit, at most."""
        return 100.0 * (self.emissions_g - self.bound_g) / self.bound_g if self.bound_g > 0 else 0.0
