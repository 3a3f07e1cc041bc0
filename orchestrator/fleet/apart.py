"""Jobs of a fleet that are planned one by one after all, by rules that the fleet does not know.
In: a FleetPlan and one of its jobs. Out: when its zones have no room for it beside the others; the FleetPlan with it.
The fleet first plans such a job as if it had no rules, so that it gets its share; `orchestrator.plan` then keeps them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import numpy as np

from orchestrator.fleet.grid import Grid, Ints
from orchestrator.fleet.problem import FleetJob
from orchestrator.fleet.room import PARTS, Market, take
from orchestrator.fleet.state import FleetPlan, State, Taken
from orchestrator.plan.problem import Plan

_EVER = timedelta(days=3650)
Spans = tuple[tuple[datetime, datetime], ...]


class Apart:
    """The room of a planned fleet, from which one job after the other is taken out and put back with another plan."""

    def __init__(self, planned: FleetPlan, jobs: Collection[FleetJob]) -> None:
        self._planned, self._state = planned, planned.state.copy()
        self._jobs = {job.job_id: job for job in jobs}
        self._made: dict[str, Plan] = {}

    def full(self, job_id: str) -> dict[int, dict[str, Spans]]:
        """By worker count and zone, when too few GPUs are left for it; the job's own are free."""
        job, state = self._jobs[job_id], self._state
        give_back(state, job_id)
        widths = sorted({point.workers for points in job.points.values() for point in points}, reverse=True)
        found = {width: _full(state, job, width * job.gpus_per_worker) for width in widths}
        _take_again(state, job_id)
        return found

    def put(self, job_id: str, plan: Plan) -> None:
        """Let `plan` be the job's."""
        state = self._state
        give_back(state, job_id)
        state.apart[job_id] = _taken(state, plan, self._jobs[job_id])
        _change(state.market, state.apart[job_id], -1)
        self._made[job_id] = plan

    @property
    def result(self) -> FleetPlan:
        """The fleet with the plans that were put."""
        plans = {**self._planned.plans, **self._made}
        emissions_g = float(np.sum([plan.emissions_g for plan in plans.values()]))
        missed = [name for name, plan in plans.items() if plan.misses_deadline]
        missed.sort(key=lambda name: (-self._jobs[name].priority if name in self._jobs else 0, name))
        bound_g = min(self._planned.bound_g, emissions_g)
        return FleetPlan(plans, emissions_g, bound_g, tuple(missed), self._state)


def give_back(state: State, job_id: str) -> None:
    """The job's GPUs become free, whoever planned it."""
    if job_id in state.apart:
        _change(state.market, state.apart[job_id], 1)
        return
    book, row = state.where[job_id]
    if state.books[book].uses.planned[row]:
        take(state.books[book].table.rows, state.books[book].uses, row, state.market, 1)


def _take_again(state: State, job_id: str) -> None:
    if job_id in state.apart:
        _change(state.market, state.apart[job_id], -1)
        return
    book, row = state.where[job_id]
    if state.books[book].uses.planned[row]:
        take(state.books[book].table.rows, state.books[book].uses, row, state.market, -1)


def _full(state: State, job: FleetJob, gpus: int) -> dict[str, Spans]:
    cells, found = state.cells, dict[str, Spans]()
    for zone in cells.zones:
        if zone in job.points:
            limits = list(cells.limits(job, zone))
            lacks = (state.market.left[limits].min(axis=0).reshape(-1) < gpus).astype(np.int8)
            edges = np.flatnonzero(np.diff(lacks, prepend=0, append=0))
            moments = [cells.moment(_part_s(cells, int(edge))) for edge in edges]
            found[zone] = tuple(zip(moments[::2], moments[1::2], strict=True))
            if cells.gpus[limits, -1].min() < gpus:  # and nobody knows of more that are to come
                found[zone] += ((cells.moment(cells.end_s), cells.moment(cells.end_s) + _EVER),)
    return found


def _part_s(cells: Grid, part: int) -> float:
    """Seconds from the grid's beginning to that of a part of a slot."""
    cell, rest = divmod(part, PARTS)
    if cell >= cells.cells:
        return cells.end_s
    begin_s = float(cells.edge_s[cell])
    return begin_s + rest * (float(cells.edge_s[cell + 1]) - begin_s) / PARTS


def _taken(state: State, plan: Plan, job: FleetJob) -> tuple[Taken, ...]:
    """What the plan's slots take, by whole parts of slots."""
    cells, found = state.cells, []
    knots = np.append(np.interp(np.arange(cells.cells * PARTS) / PARTS, np.arange(cells.cells + 1), cells.edge_s), 0.0)
    knots[-1] = cells.end_s
    for slot in plan.slots:
        from_s, to_s = cells.offset_s(slot.start), cells.offset_s(slot.end)
        begin = max(0, int(np.searchsorted(knots, from_s + 1e-3, side="right")) - 1)
        end = min(len(knots) - 1, int(np.searchsorted(knots, to_s - 1e-3)))
        if end > begin:
            gpus = slot.workers * job.gpus_per_worker
            found += [Taken(limit, begin, end, gpus) for limit in cells.limits(job, slot.zone)]
    return tuple(found)


def _change(market: Market, taken: tuple[Taken, ...], sign: int) -> None:
    """Give back (1) or take (-1)."""
    for limit, begin, end, gpus in taken:
        left: Ints = market.left[limit].reshape(-1)
        left[begin:end] += sign * gpus
        cut = slice(begin // PARTS, -(-end // PARTS))
        market.least[limit, cut] = market.left[limit, cut].min(axis=1)
        market.most[limit, cut] = market.left[limit, cut].max(axis=1)
