"""Plans a few jobs anew while all the others keep their plans and the worths that were found stay.
In: the FleetPlan before, the fleet as it is now, the ids of what changed. Out: a FleetPlan, its bound still proven.
A full solve follows where a job finds no room so, or zones or the slot have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from jobs.spec import InputError
from orchestrator.fleet.apart import give_back
from orchestrator.fleet.arrange import arrange
from orchestrator.fleet.bound import Relaxation
from orchestrator.fleet.path import desk
from orchestrator.fleet.plans import plans
from orchestrator.fleet.problem import Fleet, FleetJob
from orchestrator.fleet.room import DEARER, improve, insert, uses
from orchestrator.fleet.state import Book, FleetPlan, State
from orchestrator.fleet.table import WITHIN, table
from orchestrator.plan.problem import Plan


def plan_fleet(fleet: Fleet) -> FleetPlan:
    """Plans for all jobs of `fleet`; equal fleets get equal plans. InputError where a job has no way to run."""
    if not fleet.zones:
        raise InputError("zones: the fleet has none; name at least one in the site file")
    state = arrange(fleet)
    return _answer(state, fleet, plans(state, fleet))


def replan(previous: FleetPlan, fleet: Fleet, changed: Collection[str]) -> FleetPlan:
    """`previous` with the jobs `changed` planned anew: new ones, gone ones, and those of which anything differs.

    All other jobs keep their plans, so what they have done since `previous` changes nothing; jobs that `previous` does
    not know count as changed. The worth of GPUs stays, so the bound is as valid as before and may be less near. Where a
    changed job finds no room in time, where the fleet's zones have other curves or GPUs, or where more than a fifth of
    all jobs have changed, everything is planned anew.
    """
    known = previous.state.where
    here = {job.job_id for job in fleet.jobs}
    moved = set(changed) | (here - set(known)) | (set(known) - here)
    if not moved and previous.state.fits(fleet):
        return previous
    if not previous.state.fits(fleet) or 5 * len(moved) > len(fleet.jobs) or not known:
        return plan_fleet(fleet)
    state = previous.state.copy()
    for job in sorted(moved & set(known)):
        _release(state, job)
    jobs = tuple(job for job in fleet.jobs if job.job_id in moved)
    added = _added(state, fleet, jobs)
    if added is None:
        return plan_fleet(fleet)
    kept = {job: plan for job, plan in previous.plans.items() if job in added.where and job not in moved}
    made = kept | plans(added, fleet, only=[job.job_id for job in jobs])
    return _answer(added, fleet, {job.job_id: made[job.job_id] for job in fleet.jobs})


def _release(state: State, job: str) -> None:
    give_back(state, job)
    state.apart.pop(job, None)
    del state.where[job]


def _added(state: State, fleet: Fleet, jobs: tuple[FleetJob, ...]) -> State | None:
    """The state with `jobs` planned in what is left; None where one finds no room in time."""
    if not jobs:
        return state
    cells = state.cells
    if max(cells.offset_s(job.deadline) for job in jobs) > cells.end_s + 1e-6:
        return None
    spares = [job.spare_s for job in jobs]
    added = _inserted(state, fleet, jobs, spares)
    return _inserted(state, fleet, jobs, [0.0] * len(jobs)) if added is None and any(spares) else added


def _inserted(state: State, fleet: Fleet, jobs: tuple[FleetJob, ...], spares: Sequence[float]) -> State | None:
    """`_added` with times to spare; the state's market is changed only where all find room."""
    cells, since = state.cells, state.cells.offset_s(fleet.now)
    given = [_from(job, fleet, since) for job in jobs]
    levels = [WITHIN] * len(jobs)
    found = table(cells, dict(fleet.zones), given, levels, spare_s=spares, now_s=since)
    relaxed = Relaxation(cells, found.rows)
    _, job_g = relaxed.bound(state.market.worth)
    if (job_g < 0.0).any():
        return None
    if any(spares):
        whole = table(cells, dict(fleet.zones), given, levels, now_s=since).rows
        _, job_g = Relaxation(cells, whole).bound(state.market.worth)
    state = state.copy()
    own, space = uses(found.rows), desk(found.rows, len(cells.zones))
    own.step[:] = relaxed.step
    order = np.argsort([-job.priority for job in jobs], kind="stable")
    dearest = DEARER * max(1.0, float(cells.g_per_kwh.max()))
    if insert(found.rows, own, order, state.market, 1.0, dearest, space):
        return None
    improve(found.rows, own, order, state.market, 0.0, dearest, space)
    books = (*state.books, Book(jobs, found, own, job_g, False))
    where = dict(state.where)
    where.update({job.job_id: (len(books) - 1, row) for row, job in enumerate(jobs)})
    return replace(state, books=books, where=where)


def _from(job: FleetJob, fleet: Fleet, since_s: float) -> FleetJob:
    """The job without the part of the grid that has passed."""
    if since_s <= 0.0:
        return job
    begin = fleet.now if job.not_before is None else max(job.not_before, fleet.now)
    return replace(job, not_before=begin)


def _answer(state: State, fleet: Fleet, made: dict[str, Plan]) -> FleetPlan:
    missed = [job for job in fleet.jobs if job.job_id in made and made[job.job_id].misses_deadline]
    missed.sort(key=lambda job: (-job.priority, job.job_id))
    emissions_g = float(np.sum([plan.emissions_g for plan in made.values()]))
    # Sums of many floats differ in their last digits: the bound is never said to be above what was found.
    bound_g = min(emissions_g, state.bound_g * (1 - 1e-12))
    return FleetPlan(made, emissions_g, max(0.0, bound_g), tuple(job.job_id for job in missed), state)
