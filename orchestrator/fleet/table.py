"""The jobs of a fleet as flat arrays, so that compiled code can plan thousands of them.
In: a Grid and jobs. Out: a Table: where each job is open, its ways to run, and what its first start costs.
`path` finds the cheapest way through it, `bound` prices it, `room` fits it into what is left.

A job's slots lie in one row after the other's; `first`, `slots` and `at` say where. A job's ways to run do likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from jobs.spec import InputError
from orchestrator.fleet.grid import Floats, Grid, Ints
from orchestrator.fleet.problem import FleetJob, FleetZone
from orchestrator.plan.lattice import Way
from orchestrator.plan.price import J_PER_KWH

Bytes = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.generic)

TOUCHES, MAY_TOUCH = 1, 2
"""Bits of `joins`: time runs on from the slot before; it may, for all that the bound knows."""
WITHIN, UNKNOWN, OUTSIDE = 0, 1, 2
"""How far a job may leave the bounds that its user set; see `orchestrator.plan.bounds`."""
MOST_ZONES = 63

_DAY_S = 86400.0


class Rows(NamedTuple):
    """What compiled code reads; shapes are (jobs,), (slots of all jobs,) or (ways of all jobs,)."""

    first: Ints
    slots: Ints
    at: Ints
    open_s: Floats
    """All open time of the slot."""
    from_s: Floats
    """The longest open stretch of the slot."""
    to_s: Floats
    joins: Bytes
    shut: Masks
    """By slot, a bit a zone: the job may not run there."""
    dear: Masks
    """By slot, a bit a zone: beyond what the user wants, used as little as possible."""
    way_at: Ints
    way_count: Ints
    way_zone: Ints
    way_limits: Ints
    """Shape (ways of all jobs, most): limits that it counts against, its zone's first; -1 is none."""
    way_place: Ints
    """The zone again where moving costs something, else 0."""
    way_g: Floats
    """Grams per second at 1 g/kWh, PUE included."""
    way_gpus: Ints
    way_steps: Floats
    """Steps per second."""
    way_first_s: Floats
    """What the very first start costs."""
    resume_s: Floats
    move_s: Floats
    work: Floats
    current: Ints
    """The way that runs at the present, which is where the job's first slot begins, or -1."""


@dataclass(frozen=True)
class Table:
    """The rows, and the Ways in the order of the arrays."""

    rows: Rows
    ways: tuple[tuple[Way, ...], ...]


@dataclass(frozen=True)
class _Line:
    """One job's part of the table."""

    first: int
    from_s: Floats
    to_s: Floats
    open_s: Floats
    shut: Masks
    dear: Masks
    ways: tuple[Way, ...]
    limits: list[tuple[int, ...]]
    gpus: Ints
    first_s: Floats
    places: Ints
    current: int


def table(
    cells: Grid,
    zones: dict[str, FleetZone],
    jobs: Sequence[FleetJob],
    levels: Sequence[int],
    late: bool = False,
    spare_s: Sequence[float] | None = None,
    now_s: float = 0.0,
) -> Table:
    """The table of `jobs`, each within the bounds to its level; with `late` to the end of the grid.

    `spare_s` is how long before its deadline each is done; nothing without it. `now_s` is the present, to which what
    runs goes on. Raises InputError that names `carbon.zones` where a job has no way to run.
    """
    spares = [0.0] * len(jobs) if spare_s is None else spare_s
    lines = [
        _line(cells, zones, job, level, spare, late, now_s)
        for job, level, spare in zip(jobs, levels, spares, strict=True)
    ]
    counts = np.array([len(line.from_s) for line in lines], dtype=np.int64)
    way_counts = np.array([len(line.ways) for line in lines], dtype=np.int64)
    ways = [way for line in lines for way in line.ways]
    rows = Rows(
        first=np.array([line.first for line in lines], dtype=np.int64),
        slots=counts,
        at=_starts(counts),
        open_s=_flat([line.open_s for line in lines], np.float64),
        from_s=_flat([line.from_s for line in lines], np.float64),
        to_s=_flat([line.to_s for line in lines], np.float64),
        joins=_flat([_joins(cells, line) for line in lines], np.uint8),
        shut=_flat([line.shut for line in lines], np.uint64),
        dear=_flat([line.dear for line in lines], np.uint64),
        way_at=_starts(way_counts),
        way_count=way_counts,
        way_zone=np.array([way.zone_index for way in ways], dtype=np.int64),
        way_limits=_limits([limits for line in lines for limits in line.limits]),
        way_place=_flat([line.places for line in lines], np.int64),
        way_g=np.array([way.power_w * way.pue / J_PER_KWH for way in ways], dtype=np.float64),
        way_gpus=_flat([line.gpus for line in lines], np.int64),
        way_steps=np.array([way.steps_per_s for way in ways], dtype=np.float64),
        way_first_s=_flat([line.first_s for line in lines], np.float64),
        resume_s=np.array([job.pause.resume_s for job in jobs], dtype=np.float64),
        move_s=np.array([job.pause.move_s for job in jobs], dtype=np.float64),
        work=np.array([max(0.0, job.work_steps) for job in jobs], dtype=np.float64),
        current=np.array([line.current for line in lines], dtype=np.int64),
    )
    return Table(rows, tuple(line.ways for line in lines))


def beyond(cells: Grid, job: FleetJob) -> npt.NDArray[np.int8]:
    """Shape (zones, cells): WITHIN the user's bounds, UNKNOWN whether it is, or OUTSIDE."""
    found = np.zeros(cells.g_per_kwh.shape, dtype=np.int8)
    if job.max_g_per_kwh is not None:
        above = np.where(cells.unknown_share >= 1.0, UNKNOWN, OUTSIDE)
        found = np.maximum(found, np.where(cells.g_per_kwh > job.max_g_per_kwh, above, WITHIN).astype(np.int8))
    if job.min_renewable_percent is not None:
        share = cells.renewable_percent
        below = np.where(share < job.min_renewable_percent, OUTSIDE, WITHIN)
        found = np.maximum(found, np.where(np.isnan(share), UNKNOWN, below).astype(np.int8))
    return found


def _line(
    cells: Grid,
    zones: dict[str, FleetZone],
    job: FleetJob,
    level: int,
    spare_s: float,
    late: bool,
    now_s: float,
) -> _Line:
    ways = _ways(cells, zones, job)
    end_s = cells.end_s if late else min(cells.end_s, cells.offset_s(job.deadline) - spare_s)
    first, from_s, to_s, open_s = _open(cells, _spans(cells, job, end_s, late))
    last = first + len(from_s)
    shut, dear = np.zeros(cells.cells, np.uint64), np.zeros(cells.cells, np.uint64)
    if job.max_g_per_kwh is not None or job.min_renewable_percent is not None:
        standing = beyond(cells, job)
        bits = (np.uint64(1) << np.arange(len(cells.zones), dtype=np.uint64))[:, None]
        shut = np.where(standing > level, bits, np.uint64(0)).sum(axis=0, dtype=np.uint64)
        dear = np.where((standing == level) & (level > WITHIN), bits, np.uint64(0)).sum(axis=0, dtype=np.uint64)
    moves = job.pause.move_s > 0 and len({way.zone for way in ways}) > 1
    current = job.current
    going = [i for i, way in enumerate(ways) if current and (way.zone, way.mode) == (current.zone, current.mode)]
    return _Line(
        first,
        from_s,
        to_s,
        open_s,
        shut[first:last],
        dear[first:last],
        ways,
        [cells.limits(job, way.zone) for way in ways],
        np.array([way.workers * job.gpus_per_worker for way in ways], dtype=np.int64),
        np.array([_first_s(job, way) for way in ways]),
        np.array([way.zone_index if moves else 0 for way in ways], dtype=np.int64),
        going[0] if going and len(from_s) and from_s[0] <= now_s + 1e-6 else -1,
    )


def _ways(cells: Grid, zones: dict[str, FleetZone], job: FleetJob) -> tuple[Way, ...]:
    ways = tuple(
        Way(zone, index, point.workers, point.steps_per_s, point.power_w, zones[zone].pue, point.power_limit_w)
        for index, zone in enumerate(cells.zones)
        for point in job.points.get(zone, ())
        if point.steps_per_s > 0
    )
    if not ways:
        raise InputError(f"{job.job_id}: carbon.zones: no zone has an operating point; name a zone whose nodes run it")
    return ways


def _first_s(job: FleetJob, way: Way) -> float:
    """What a start costs while the job has not run under this plan, as `price.start_cost_s` has it."""
    if job.current is None and not job.started:
        return 0.0
    last_zone = job.current.zone if job.current is not None else job.last_zone
    return job.pause.resume_s + (job.pause.move_s if last_zone is not None and last_zone != way.zone else 0.0)


def _spans(cells: Grid, job: FleetJob, end_s: float, late: bool) -> list[tuple[float, float]]:
    """Open time in order; windows that end before a late job can are taken to repeat by whole days, as `soonest`."""
    begin_s = max(0.0, cells.offset_s(job.not_before)) if job.not_before is not None else 0.0
    if job.windows is None:
        return [(begin_s, end_s)] if end_s - begin_s > 1e-6 else []
    given = [(cells.offset_s(a), cells.offset_s(b)) for a, b in job.windows]
    spans = [(max(0.0, a), min(b, end_s)) for a, b in given]
    if late and given:
        shift_s = max(1, ceil(given[-1][1] / _DAY_S)) * _DAY_S
        rounds = range(1, ceil(end_s / shift_s) + 1)
        again = [(max(0.0, a) + r * shift_s, min(b + r * shift_s, end_s)) for r in rounds for a, b in given if b > 0]
        spans += again
    spans = [(max(a, begin_s), b) for a, b in spans]
    return [(a, b) for a, b in spans if b - a > 1e-6]


def _open(cells: Grid, spans: list[tuple[float, float]]) -> tuple[int, Floats, Floats, Floats]:
    """The first slot that is open, then by slot the longest open stretch (from, to) and all open time."""
    if not spans:
        return 0, np.zeros(0), np.zeros(0), np.zeros(0)
    edge_s = cells.edge_s
    first = int(np.searchsorted(edge_s, spans[0][0] + 1e-6, side="right")) - 1
    last = int(np.searchsorted(edge_s, spans[-1][1] - 1e-6))
    starts, ends = edge_s[first:last], edge_s[first + 1 : last + 1]
    from_s, to_s, open_s = starts.copy(), starts.copy(), np.zeros(last - first)
    for a, b in spans:
        low, high = np.maximum(starts, a), np.minimum(ends, b)
        span_s = np.maximum(0.0, high - low)
        longer = span_s > to_s - from_s
        from_s, to_s = np.where(longer, low, from_s), np.where(longer, high, to_s)
        open_s += span_s
    return first, from_s, to_s, open_s


def _joins(cells: Grid, line: _Line) -> Bytes:
    joins = np.zeros(len(line.from_s), np.uint8)
    edges = cells.edge_s[line.first + 1 : line.first + len(line.from_s)]
    is_open = line.to_s > line.from_s
    both = is_open[1:] & is_open[:-1]
    touch = both & (line.to_s[:-1] >= edges - 1e-6) & (line.from_s[1:] <= edges + 1e-6)
    joins[1:] = TOUCHES * touch + MAY_TOUCH * both
    if len(joins) and line.current >= 0:
        joins[0] = TOUCHES | MAY_TOUCH  # what runs goes on
    return joins


def _limits(each: list[tuple[int, ...]]) -> Ints:
    most = max((len(limits) for limits in each), default=1)
    padded = [limits + (-1,) * (most - len(limits)) for limits in each]
    return np.array(padded, dtype=np.int64).reshape(len(each), most)


def _starts(counts: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)[:-1]]) if len(counts) else counts


def _flat(parts: Sequence[npt.NDArray[Any]], kind: type[Number]) -> npt.NDArray[Number]:
    return np.concatenate(parts).astype(kind) if parts else np.zeros(0, kind)
