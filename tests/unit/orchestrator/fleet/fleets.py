"""Small fleets to plan, what their plans must always keep to, and the exact optimum they are held against.
In: prices by zone, jobs, GPUs. Out: Fleets; a count of GPUs used at every moment; the least grams by HiGHS.
The tests beside it use them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_matrix

from orchestrator.fleet import Fleet, FleetJob, FleetPlan, FleetZone, Pool
from orchestrator.plan import OperatingPoint, PauseCost, Plan, Stretch

T0 = datetime(2022, 3, 1, tzinfo=timezone.utc)
HOUR_S = 3600.0


def at(duration_s: float) -> datetime:
    return T0 + timedelta(seconds=duration_s)


def zone(prices: Sequence[float], gpus: int | None, pue: float = 1.0, **pools: int) -> FleetZone:
    """A zone with one price an hour from T0 on, and the GPUs of parts of it."""
    curve = tuple(Stretch(at(i * HOUR_S), at((i + 1) * HOUR_S), price) for i, price in enumerate(prices))
    return FleetZone(curve, pue, gpus, pools={name: Pool(count) for name, count in pools.items()})


def job(
    name: str,
    zones: Sequence[str],
    work_h: float,
    deadline_h: float,
    *,
    gpus: int = 1,
    start_h: float = 0.0,
    pause_s: float = 0.0,
    move_s: float = 0.0,
    points: tuple[OperatingPoint, ...] | None = None,
    **more: object,
) -> FleetJob:
    """A job of `work_h` hours at one worker; a kilowatt for each GPU."""
    ways = points if points is not None else (OperatingPoint(1, 1.0, 1000.0 * gpus),)
    return FleetJob(
        name,
        at(deadline_h * HOUR_S),
        work_h * HOUR_S,
        dict.fromkeys(zones, ways),
        gpus,
        pause=PauseCost(pause_s, move_s),
        not_before=at(start_h * HOUR_S),
        **more,  # type: ignore[arg-type]
    )


def fleet(zones: dict[str, FleetZone], jobs: Sequence[FleetJob], slot_s: float = HOUR_S) -> Fleet:
    return Fleet(T0, zones, tuple(jobs), slot_s)


def most_used(asked: Fleet, planned: FleetPlan, name: str, pool: str | None = None) -> int:
    """The most GPUs of a zone that are used at any moment, or those of them by the jobs of a part of it."""
    by_id = {each.job_id: each for each in asked.jobs}
    changes: list[tuple[datetime, int]] = []
    for job_id, plan in planned.plans.items():
        if pool is not None and pool not in by_id[job_id].pools.get(name, ()):
            continue
        for slot in plan.slots:
            if slot.zone == name:
                gpus = slot.workers * by_id[job_id].gpus_per_worker
                changes += [(slot.start, gpus), (slot.end, -gpus)]
    used = most = 0
    for _, change in sorted(changes):  # of equal moments what ends comes first
        used += change
        most = max(most, used)
    return most


def work_done(asked: FleetJob, plan: Plan) -> float:
    """Steps that a plan makes, written without the planner's code."""
    total, before = 0.0, None
    for slot in plan.slots:
        point = next(point for point in asked.points[slot.zone] if point.workers == slot.workers)
        goes_on = asked.current is not None and slot.start <= T0 and before is None
        goes_on = goes_on and (asked.current.zone, asked.current.workers) == (slot.zone, slot.workers)  # type: ignore[union-attr]
        last = before if before is not None else asked.current.zone if asked.current else asked.last_zone
        lost_s = asked.pause.resume_s + (asked.pause.move_s if last not in (None, slot.zone) else 0.0)
        if goes_on or (before is None and asked.current is None and not asked.started):
            lost_s = 0.0
        total += point.steps_per_s * max(0.0, (slot.end - slot.start).total_seconds() - lost_s)
        before = slot.zone
    return total


def least_g(asked: Fleet) -> float | None:
    """The least grams of jobs of one way a zone without pause costs, whole GPUs by slot; None where none fit.

    Time is shared freely within a slot, so it is a bound for real plans too; and where work is whole hours the
    assignment of whole slots that it finds is one of them.
    """
    hours = max(int((each.deadline - T0).total_seconds() // HOUR_S) for each in asked.jobs)
    names = list(asked.zones)
    cells = [(j, z, t) for j in range(len(asked.jobs)) for z in names for t in range(hours)]
    index = {cell: i for i, cell in enumerate(cells)}
    cost, most = np.zeros(len(cells)), np.zeros(len(cells))
    for (j, z, t), i in index.items():
        each = asked.jobs[j]
        assert each.not_before is not None
        is_open = z in each.points and each.not_before <= at(t * HOUR_S) and at((t + 1) * HOUR_S) <= each.deadline
        most[i] = float(is_open)
        if is_open:
            price = asked.zones[z].curve[t].g_per_kwh
            assert price is not None
            cost[i] = each.points[z][0].power_w * asked.zones[z].pue * price / 1000.0
    rows: list[tuple[dict[int, float], float, float]] = []
    for j, each in enumerate(asked.jobs):
        work_h = each.work_steps / HOUR_S
        rows.append(({index[j, z, t]: 1.0 for z in names for t in range(hours)}, work_h, work_h))
        rows += [({index[j, z, t]: 1.0 for z in names}, 0.0, 1.0) for t in range(hours)]
    for z in names:
        limits: dict[str | None, int | None] = {None: asked.zones[z].gpus}
        limits |= {pool: there.gpus for pool, there in asked.zones[z].pools.items()}
        for pool, limit in limits.items():
            within = {j for j, each in enumerate(asked.jobs) if pool is None or pool in each.pools.get(z, ())}
            for t in range(hours):
                uses = {index[j, z, t]: float(asked.jobs[j].gpus_per_worker) for j in within}
                rows.append((uses, 0.0, np.inf if limit is None else float(limit)))
    matrix = lil_matrix((len(rows), len(cells)))
    for row, (entries, _, _) in enumerate(rows):
        for column, value in entries.items():
            matrix[row, column] = value
    sums = LinearConstraint(matrix.tocsr(), [low for _, low, _ in rows], [high for _, _, high in rows])
    found = milp(cost, constraints=sums, bounds=Bounds(0.0, most), integrality=np.ones(len(cells)))
    return float(found.fun) if found.success else None
