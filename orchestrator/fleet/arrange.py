"""Plans a whole fleet: worths first, then every job whole, then each anew where that is less; the late ones last.
In: a Fleet. Out: a State, in which every job has its slots or is known to be late.
`plans` makes Plans of it.

Where everyone's deadline can be met the order of settling is for grams alone: wide jobs with little slack first, as
they are the hardest to fit. Where it cannot, jobs are settled by priority and then by how long they have waited, and
none later in that order takes anything from one before it; those who are in time so are then settled for grams again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from orchestrator.fleet.bound import Relaxation
from orchestrator.fleet.grid import NO_LIMIT, Floats, Grid, Ints, grid
from orchestrator.fleet.path import Desk, desk
from orchestrator.fleet.problem import Fleet, FleetJob, FleetZone, Pool
from orchestrator.fleet.room import DEARER, PARTS, Market, Uses, all_grams, improve, market, soonest, uses
from orchestrator.fleet.settle import settle
from orchestrator.fleet.squeeze import squeeze
from orchestrator.fleet.state import Book, State
from orchestrator.fleet.table import OUTSIDE, WITHIN, Table, table

_ROUNDS = 100
"""Of answers, before worths are taken to be good; each costs what the bound costs once."""
_FEWER_ROUNDS = 30
"""Where worths are there to begin with."""
_ATTEMPTS = ((3.0, 0.06), (2.5, 0.04), (3.0, 0.1))
"""How much width counts in the order of settling, and the share of GPUs spared while it goes on."""
_JOBS_SETTLED = 20_000
"""In all attempts together; small fleets, which are harder to fill evenly, are tried more often."""
_GOOD = 0.005
"""A gap with which no further attempt is made."""
_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""How much GPUs' worths count as jobs are planned anew: first they spare what others want, in the end only grams."""
_SQUEEZES = 100
"""How often room is made for one job, in all."""
_FEW = 20
"""So many jobs without room may yet find some by others making it; with more the GPUs do not suffice."""
_LONGEST = 5
"""How often the grid is doubled for late jobs before one is said to find no room at all."""


def arrange(fleet: Fleet) -> State:
    """Every job of `fleet` planned; InputError where one has no way to run."""
    cells = grid(fleet, max((job.deadline for job in fleet.jobs), default=fleet.now))
    levels = [WITHIN] * len(fleet.jobs)
    spares = [job.spare_s for job in fleet.jobs]
    worth: Floats | None = None
    while True:
        solve = Solve(fleet, cells, levels, spares, worth)
        late = solve.plan()
        closer = [job for job in late if spares[job] > 0]
        if late and not closer and any(spares):
            # Somebody may be late for another's time to spare.
            bare = [0.0] * len(spares)
            other = Solve(fleet, cells, levels, bare, solve.worth)
            if len(still := other.plan()) < len(late):
                solve, late, spares = other, still, bare
        higher = [job for job in late if levels[job] < OUTSIDE and _has_bounds(fleet.jobs[job]) and spares[job] <= 0]
        if not closer and not higher:
            return solve.state(late)
        for job in closer:
            spares[job] = 0.0
        for job in higher:  # the deadline asks for what the user would rather not use
            levels[job] += 1
        worth = solve.worth


class Solve:
    """One solve at given levels of the users' bounds and times to spare, from worths that an earlier one found."""

    def __init__(
        self,
        fleet: Fleet,
        cells: Grid,
        levels: Sequence[int],
        spares: Sequence[float],
        worth: Floats | None,
    ) -> None:
        self.fleet, self.cells, self.levels, self.spares = fleet, cells, levels, spares
        self.table: Table = table(cells, dict(fleet.zones), fleet.jobs, levels, spare_s=spares)
        self.rows = self.table.rows
        self.desk: Desk = desk(self.rows, len(cells.zones))
        self.dearest = DEARER * max(1.0, float(cells.g_per_kwh.max(initial=0.0)))
        self.random = np.random.default_rng(0)
        self.uses: Uses = uses(self.rows)
        self.market: Market = market(cells, np.zeros(cells.gpus.shape))
        self.rounds = _ROUNDS if worth is None else _FEWER_ROUNDS
        self.worth: Floats = np.zeros(cells.gpus.shape) if worth is None else worth
        self.job_g: Floats = np.zeros(len(fleet.jobs))
        self.rent_g = 0.0
        self.squeezes = _SQUEEZES

    def plan(self) -> list[int]:
        """Plan all jobs that can meet their deadline; the rows of the others."""
        _, alone_g = Relaxation(self.cells, self.rows).bound(self.worth)
        able: Ints = np.flatnonzero(alone_g >= 0.0)
        relaxed = self._relaxed(able)
        if not self._all_in_time(relaxed, able):
            self._settled_by_priority(able)
            able = np.flatnonzero(self.uses.planned)
            kept = self.uses, self.market
            # Now that it is settled who is in time, their order is for grams alone, too, where that leaves nobody over.
            if not self._all_in_time(self._relaxed(able), able):
                self.uses, self.market = kept
                self._improve(able)
        return [job for job in range(len(self.fleet.jobs)) if not self.uses.planned[job]]

    def _all_in_time(self, relaxed: Relaxation, able: Ints) -> bool:
        """The best of a few ways to settle all jobs by their deadlines; False where none does."""
        bound_g = float(self.job_g[able].sum()) - self.rent_g
        best, best_g = None, float("inf")
        for power, spare in _ATTEMPTS[: max(1, min(len(_ATTEMPTS), _JOBS_SETTLED // max(1, len(able))))]:
            self.uses, self.market = uses(self.rows), market(self.cells, self.worth.copy())
            if not self._settled(relaxed.copy(), self._hardest_first(able, power), spare):
                break  # where one way leaves jobs over, time is better spent on who is to be late
            self._improve(able)
            emissions_g = float(all_grams(self.rows, self.uses, self.cells.g_per_kwh).sum())
            if emissions_g < best_g:
                best, best_g = (self.uses, self.market), emissions_g
            if best_g <= bound_g * (1 + _GOOD):
                break
        if best is None:
            return False
        self.uses, self.market = best
        return True

    def _improve(self, able: Ints) -> None:
        for share in _SHARES:  # of what GPUs are worth now that all are settled
            improve(self.rows, self.uses, self.random.permutation(able), self.market, share, self.dearest, self.desk)

    def _relaxed(self, able: Ints) -> Relaxation:
        """The shares and worths of the jobs that can meet their deadlines; the bound with them."""
        relaxed = Relaxation(self.cells, self.rows, self.worth)
        for _ in range(self.rounds):
            relaxed.answer(self.random.permutation(able))
            relaxed.learn()
        self.worth = relaxed.base.copy()
        _, self.job_g = relaxed.bound(self.worth)
        self.rent_g = relaxed.rent(self.worth)
        return relaxed

    def _hardest_first(self, able: Ints, power: float) -> Ints:
        """Many GPUs (to a power) and little slack first, then how long they have waited."""
        jobs = self.fleet.jobs

        def key(row: int) -> tuple[float, float, str]:
            begin, at = self.rows.way_at[row], self.rows.at[row]
            ways = slice(begin, begin + self.rows.way_count[row])
            open_s = self.rows.open_s[at : at + self.rows.slots[row]].sum()
            slack = float(open_s * self.rows.way_steps[ways].max() / max(self.rows.work[row], 1e-12)) - 1.0
            hard = float(self.rows.way_gpus[ways].max()) ** power / max(slack, 1e-3)
            return -round(hard, 6), _since(jobs[row]), jobs[row].job_id

        return np.array(sorted(able.tolist(), key=key), dtype=np.int64)

    def _settled(self, relaxed: Relaxation, order: Ints, spare: float) -> bool:
        """Whether all found room."""
        self.uses.step[:] = relaxed.step
        failed = settle(relaxed, self.uses, order, self.market, spare, self.dearest, self.desk)
        return not failed or (failed <= _FEW and self._squeezed(order) == 0)

    def _settled_by_priority(self, able: Ints) -> None:
        """From nothing again, in an order in which none takes from one before it."""
        jobs = self.fleet.jobs
        self.uses = uses(self.rows)
        self.market = market(self.cells, self.worth.copy())
        for priority in sorted({jobs[row].priority for row in able}, reverse=True):
            rows = [row for row in able.tolist() if jobs[row].priority == priority]
            rows.sort(key=lambda row: (_since(jobs[row]), jobs[row].job_id))
            relaxed = Relaxation(self.cells, self.rows, self.worth)
            order = np.array(rows, dtype=np.int64)
            if settle(relaxed, self.uses, order, self.market, 0.0, self.dearest, self.desk):
                self._squeezed(order)

    def _squeezed(self, order: Ints) -> int:
        """Make room for the jobs that found none by moving others, no deadline missed; how many are left."""
        left = [int(row) for row in order if not self.uses.planned[row]]
        for row in left[: self.squeezes]:
            self.squeezes -= 1
            squeeze(self.rows, self.uses, row, self.cells, self.market, self.worth, self.dearest, self.desk)
        return sum(1 for row in left if not self.uses.planned[row])

    def state(self, late: Sequence[int]) -> State:
        """The books of those in time and of the late ones."""
        jobs = self.fleet.jobs
        if any(self.spares):  # the bound is for plans that are done by the deadlines themselves
            whole = table(self.cells, dict(self.fleet.zones), jobs, self.levels).rows
            _, self.job_g = Relaxation(self.cells, whole).bound(self.worth)
        self.market.worth[:] = self.worth  # with which the bound is proven
        book = Book(jobs, self.table, self.uses, np.maximum(self.job_g, 0.0), False)
        where = {job.job_id: (0, row) for row, job in enumerate(jobs)}
        fleet = self.fleet
        made = State(self.cells, self.market, self.rent_g, (book,), where, fleet.zones, fleet.slot_s)
        return with_late(made, fleet, [jobs[row] for row in late])


def with_late(state: State, fleet: Fleet, jobs: Sequence[FleetJob]) -> State:
    """`state` with `jobs` planned to finish as soon as what is left allows, past their deadlines."""
    if not jobs:
        return state
    jobs = sorted(jobs, key=lambda job: (-job.priority, _since(job), job.job_id))
    for doubled in range(_LONGEST + 1):
        longer = _longer(state, fleet, jobs, doubled)
        found = table(longer.cells, dict(fleet.zones), jobs, [OUTSIDE] * len(jobs), late=True)
        own, space = uses(found.rows), desk(found.rows, len(longer.cells.zones))
        fits = [soonest(found.rows, own, row, longer.market, space) for row in range(len(jobs))]
        if all(fit or not _could(fleet, job) for fit, job in zip(fits, jobs, strict=True)):
            break
    job_g = all_grams(found.rows, own, longer.cells.g_per_kwh)
    books = (*longer.books, Book(jobs, found, own, job_g, True))
    where = dict(longer.where)
    where.update({job.job_id: (len(books) - 1, row) for row, job in enumerate(jobs)})
    return replace(longer, books=books, where=where)


def _longer(state: State, fleet: Fleet, jobs: Sequence[FleetJob], doubled: int) -> State:
    """The state on a grid that goes on for the late jobs, a copy of its market with it."""
    slowest = max(job.work_steps / _fastest(job) for job in jobs)
    end = state.cells.now + timedelta(seconds=(state.cells.end_s + slowest) * 2**doubled)
    cells = grid(replace(fleet, now=state.cells.now), end)
    cells = cells if cells.cells > state.cells.cells else state.cells
    new, old = cells.gpus[:, state.cells.cells :], state.market
    added = Market(
        cells.edge_s,
        cells.g_per_kwh,
        np.concatenate([old.worth, np.zeros(new.shape)], axis=1),
        np.concatenate([old.left, np.repeat(new[:, :, None], PARTS, axis=2)], axis=1),
        np.concatenate([old.least, new], axis=1),
        np.concatenate([old.most, new], axis=1),
    )
    return replace(state, cells=cells, market=added)


def _could(fleet: Fleet, job: FleetJob) -> bool:
    """Whether the job is narrow enough for a zone, now or once it has changed."""
    for zone, points in job.points.items():
        limits: list[FleetZone | Pool] = [
            fleet.zones[zone],
            *(fleet.zones[zone].pools[name] for name in job.pools.get(zone, ())),
        ]
        most = min(_most(limit) for limit in limits)
        if any(point.workers * job.gpus_per_worker <= most for point in points):
            return True
    return False


def _most(limit: FleetZone | Pool) -> int:
    """GPUs that there ever are."""
    counts = [limit.gpus, *(change.gpus for change in limit.changes)]
    return max(NO_LIMIT if count is None else count for count in counts)


def _fastest(job: FleetJob) -> float:
    return max((point.steps_per_s for points in job.points.values() for point in points), default=1.0)


def _has_bounds(job: FleetJob) -> bool:
    return job.max_g_per_kwh is not None or job.min_renewable_percent is not None


def _since(job: FleetJob) -> float:
    moment: datetime | None = job.waiting_since
    return moment.timestamp() if moment is not None else float("inf")
