"""Slots by the arrays of a solve become the Plans that the controller acts on.
In: a State. Out: a Plan for each job, with its grams, joules, run-now and reason.
`plan_fleet` and `replan` hand them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from orchestrator.fleet.compiled import compiled
from orchestrator.fleet.grid import Floats, Grid
from orchestrator.fleet.problem import Fleet, FleetJob
from orchestrator.fleet.room import all_grams
from orchestrator.fleet.state import Book, State
from orchestrator.fleet.table import Rows
from orchestrator.plan.problem import Plan, PlannedSlot

Run = tuple[float, float, int]
"""From and to in seconds from the grid's `now`, and the way."""

POLICY = "optimal"


def plans(state: State, fleet: Fleet, only: Sequence[str] | None = None) -> dict[str, Plan]:
    """The Plans of all jobs that the state knows, or of `only` these."""
    found: dict[str, Plan] = {}
    wanted = set(state.where if only is None else only)
    for index, book in enumerate(state.books):
        rows = [row for job, (at, row) in state.where.items() if at == index and job in wanted]
        if rows:
            found.update(_of(book, rows, state, fleet))
    return found if only is not None else {job.job_id: found[job.job_id] for job in fleet.jobs}


def _of(book: Book, rows: Sequence[int], state: State, fleet: Fleet) -> Iterator[tuple[str, Plan]]:
    cells = state.cells
    grams = all_grams(book.table.rows, book.uses, cells.g_per_kwh)
    sums = _sums(cells.g_per_kwh, cells)
    unknown = _sums(cells.unknown_share, cells)
    now_s = cells.offset_s(fleet.now)
    now_g = _run_now(book.table.rows, cells.edge_s, sums, cells.g_per_kwh[:, -1].copy(), now_s)
    for row in rows:
        job, runs = book.jobs[row], list(_runs(book, row))
        ways = book.table.ways[row]
        slots = tuple(
            PlannedSlot(cells.moment(a), cells.moment(b), ways[way].zone, *ways[way].mode) for a, b, way in runs
        )
        finish_at = slots[-1].end if slots else fleet.now if job.work_steps <= 0 else cells.moment(cells.end_s)
        is_late = book.is_late or finish_at > job.deadline
        yield (
            job.job_id,
            Plan(
                policy=POLICY,
                basis=job.basis,
                slots=slots,
                finish_at=finish_at,
                emissions_g=float(grams[row]),
                energy_j=sum(ways[way].power_w * (b - a) for a, b, way in runs),
                run_now_emissions_g=float(now_g[row]),
                misses_deadline=is_late and job.work_steps > 0,
                unknown_s=sum(_between(cells, unknown[ways[way].zone_index], a, b) for a, b, way in runs),
                reason=_reason(job, slots, fleet, cells, is_late),
            ),
        )


def _runs(book: Book, row: int) -> Iterator[Run]:
    """Runs in order; slots that touch and go the same way are one."""
    rows, uses = book.table.rows, book.uses
    span = slice(int(rows.at[row]), int(rows.at[row] + rows.slots[row]))
    run: Run | None = None
    used = np.flatnonzero(uses.way[span] >= 0)
    parts = zip(uses.from_s[span][used], uses.to_s[span][used], uses.way[span][used], strict=True)
    for from_s, to_s, way in ((float(a), float(b), int(k)) for a, b, k in parts):
        if run is not None and run[2] == way and from_s - run[1] <= 1e-6:
            run = (run[0], to_s, way)
            continue
        if run is not None:
            yield run
        run = (from_s, to_s, way)
    if run is not None:
        yield run


def _sums(amounts: Floats, cells: Grid) -> Floats:
    """What accrues from the grid's `now` to each edge, by zone."""
    return np.concatenate(
        [np.zeros((len(amounts), 1)), np.cumsum(amounts * np.diff(cells.edge_s), axis=1)], axis=1
    ).copy()


def _between(cells: Grid, sums: Floats, from_s: float, to_s: float) -> float:
    a, b = np.interp((from_s, to_s), cells.edge_s, sums)
    return float(b - a)


@compiled
def _run_now(rows: Rows, edge_s: Floats, sums: Floats, tail: Floats, now_s: float) -> Floats:
    """Grams of each job at its best way, started at `now_s` and never paused, as `plan.now.run_now_g` has it."""
    found = np.zeros(len(rows.slots))
    for job in range(len(rows.slots)):
        best = np.inf
        for k in range(rows.way_count[job]):
            way = rows.way_at[job] + k
            zone = rows.way_zone[way]
            start_s = rows.resume_s[job] if rows.way_first_s[way] > 0.0 and rows.current[job] < 0 else 0.0
            end_s = now_s + start_s + rows.work[job] / rows.way_steps[way]
            begin, end = np.interp(np.array([now_s, end_s]), edge_s, sums[zone])
            total = end - begin + max(0.0, end_s - edge_s[-1]) * tail[zone]
            best = min(best, rows.way_g[way] * total)
        found[job] = best
    return found


def _reason(job: FleetJob, slots: tuple[PlannedSlot, ...], fleet: Fleet, cells: Grid, is_late: bool) -> str:
    """Why the job runs or waits at `fleet.now`, in one line."""
    if job.work_steps <= 0:
        return "no work is left"
    if not slots:
        return "waits for room: no zone has the GPUs that it needs"
    now_s, first = cells.offset_s(fleet.now), slots[0]
    here = _price(cells, first.zone, cells.offset_s(max(first.start, fleet.now)))
    if first.start <= fleet.now:
        text = f"runs: {here:.0f} g/kWh in {first.zone}"
    else:
        present = min(_price(cells, zone, now_s) for zone in job.points if zone in cells.zones)
        text = f"waits until {_clock(first.start, fleet.now)}: {here:.0f} g/kWh then, {present:.0f} now"
        if not _is_open(job, fleet.now):
            text = f"waits until {_clock(first.start, fleet.now)}: outside its windows"
        elif here >= present:
            text = f"waits until {_clock(first.start, fleet.now)}: others take the room until then"
    if is_late:
        text += f"; no plan meets the deadline, earliest finish {_clock(slots[-1].end, fleet.now)}"
    stale_since = fleet.zones[first.zone].stale_since
    return f"{text}; by a stale forecast, fetched {_clock(stale_since, fleet.now)}" if stale_since else text


def _is_open(job: FleetJob, moment: datetime) -> bool:
    if job.not_before is not None and moment < job.not_before:
        return False
    return job.windows is None or any(start <= moment < end for start, end in job.windows)


def _price(cells: Grid, zone: str, at_s: float) -> float:
    cell = min(int(np.searchsorted(cells.edge_s, at_s, side="right")) - 1, cells.cells - 1)
    return float(cells.g_per_kwh[cells.zones.index(zone), cell])


def _clock(moment: datetime, now: datetime) -> str:
    text = moment.strftime("%H:%MZ")
    return text if moment.date() == now.date() else f"{moment:%Y-%m-%d} {text}"
