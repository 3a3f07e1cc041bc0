"""Time cut into cells in which nothing changes, so that planning is arithmetic on arrays.
In: a Problem. Out: a Lattice (cell edges in seconds from `now`, openness, g/kWh per zone) and the Ways to run.
`price` and every policy read it.

Edges are `now`, the deadline, the UTC multiples of the slot, the edges of the windows and of spans without room. A
curve is averaged over each cell, and the unknown part of a cell, be it all of it, is priced at the zone's worst known
intensity; a zone of which nothing is known is priced at the worst of any zone, and where no zone knows anything every
cell costs 1 g/kWh, so that a plan then acts as `now`. That price is the only reason to prefer known cells: unknown time
is used where even the worst case is cheaper than what is known, and its seconds are counted in `Plan.unknown_s`. A
renewable share is averaged over the known part of each cell, and unknown where nothing of it is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property

import numpy as np
import numpy.typing as npt

from jobs.spec import InputError
from orchestrator.plan.problem import Mode, Problem, Stretch

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_US = timedelta(microseconds=1)
_CELLS = 3_000


@dataclass(frozen=True)
class Way:
    """An operating point in a zone; `zone_index` is the zone's row in the lattice."""

    zone: str
    zone_index: int
    workers: int
    steps_per_s: float
    power_w: float
    pue: float
    power_limit_w: int | None = None

    @property
    def mode(self) -> Mode:
        """Workers and power limit."""
        return self.workers, self.power_limit_w


@dataclass(frozen=True)
class Lattice:
    """Cells from `now` to the deadline; times are seconds from `now`."""

    problem: Problem
    ways: tuple[Way, ...]
    edge_s: Floats
    """Shape (cells + 1,), rising from 0."""
    is_open: Flags
    """Shape (cells,): whether the windows allow the cell."""
    g_per_kwh: Floats
    """Shape (zones, cells), with unknown cells priced by the rule above."""
    unknown_share: Floats
    """Shape (zones, cells): the part of the cell, 0 to 1, of which the curve knows nothing."""
    renewable_percent: Floats
    """Shape (zones, cells); NaN where no share is known."""
    usable: Flags
    """Shape (zones, cells): open, and within what the bounds allow a plan for now; see `bounds`."""
    tail_g_per_kwh: Floats
    """Shape (zones,): the price of unknown time, so of all time after the last edge."""
    spread_g_per_kwh: Floats
    """Shape (zones, cells): half of the 80 % prediction interval; 0 where none is given."""

    @property
    def length_s(self) -> Floats:
        """Length of each cell."""
        return np.diff(self.edge_s)

    @property
    def end_s(self) -> float:
        """The deadline, or 0 where it has passed."""
        return float(self.edge_s[-1])

    @cached_property
    def g_s_per_kwh(self) -> Floats:
        """Intensity summed from `now` to each edge, shape (zones, cells + 1), in g/kWh times s."""
        return _sums(self.g_per_kwh * self.length_s)

    @cached_property
    def unknown_s(self) -> Floats:
        """Unknown seconds from `now` to each edge, shape (zones, cells + 1)."""
        return _sums(self.unknown_share * self.length_s)

    def cell_at(self, at_s: float) -> int:
        """The cell that holds `at_s`; the last one for the time after the lattice."""
        return min(int(np.searchsorted(self.edge_s, at_s, side="right")) - 1, len(self.is_open) - 1)

    def price_at(self, zone_index: int, at_s: float) -> float:
        """g/kWh at `at_s`, as priced."""
        if at_s >= self.end_s:
            return float(self.tail_g_per_kwh[zone_index])
        return float(self.g_per_kwh[zone_index, self.cell_at(at_s)])

    def moment(self, at_s: float) -> datetime:
        """The UTC time `at_s` seconds from `now`, to the microsecond."""
        return self.problem.now + round(at_s * 1e6) * _US

    @property
    def current(self) -> Way | None:
        """The way that runs as the plan is made, where it is still one of the ways."""
        current = self.problem.current
        if current is None:
            return None
        return next((way for way in self.ways if (way.zone, way.mode) == (current.zone, current.mode)), None)


def lattice(problem: Problem) -> Lattice:
    """The cells of `problem`; InputError where no zone has an operating point that makes progress."""
    ways = tuple(
        Way(zone, index, point.workers, point.steps_per_s, point.power_w, option.pue, point.power_limit_w)
        for index, (zone, option) in enumerate(problem.zones.items())
        for point in option.points
        if point.steps_per_s > 0
    )
    if not ways:
        raise InputError("carbon.zones: no zone has an operating point; name a zone of the site whose nodes can run it")
    edge_us = _edges_us(problem)
    edge_s = edge_us / 1e6
    curves = [zone.curve for zone in problem.zones.values()]
    found = [_means(problem.now, curve, [part.g_per_kwh for part in curve], edge_s) for curve in curves]
    means, shares = (np.array(part) for part in zip(*found, strict=True))
    tail = _worst(problem)
    # Six decimals keep equal prices equal.
    g_per_kwh = np.round(np.where(np.isnan(means), 0.0, means) * shares + tail[:, None] * (1.0 - shares), 6)
    renewable = np.array(
        [_means(problem.now, curve, [part.renewable_percent for part in curve], edge_s)[0] for curve in curves],
        dtype=np.float64,
    )
    spreads = [_means(problem.now, curve, [part.spread_g_per_kwh for part in curve], edge_s)[0] for curve in curves]
    is_open = _openness(problem, edge_us)
    usable = np.broadcast_to(is_open, g_per_kwh.shape)
    if any(zone.full for zone in problem.zones.values()):
        usable = usable & ~np.array([_fullness(problem, zone.full, edge_us) for zone in problem.zones.values()])
    return Lattice(
        problem,
        ways,
        edge_s,
        is_open,
        g_per_kwh,
        1.0 - shares,
        np.round(renewable, 6),
        usable,
        tail,
        np.nan_to_num(np.array(spreads, dtype=np.float64)),
    )


def offset_us(problem: Problem, moment: datetime) -> int:
    """Microseconds from `now` to `moment`: whole numbers, so that equal times are equal edges."""
    return (moment - problem.now) // _US


def _edges_us(problem: Problem) -> npt.NDArray[np.int64]:
    end_us = max(0, offset_us(problem, problem.deadline))
    slot_us = max(1, round(problem.slot_s * 1e6))
    known_us = max((offset_us(problem, part.end) for zone in problem.zones.values() for part in zone.curve), default=0)
    first_us = -((problem.now - _EPOCH) // _US) % slot_us
    # After the last known value prices are constant: where there are very many slots, that time is one cell.
    last_us = end_us if end_us <= _CELLS * slot_us else min(end_us, known_us + slot_us)
    multiples = np.arange(first_us, last_us, slot_us, dtype=np.int64)
    spans = [*(problem.windows or ()), *(span for zone in problem.zones.values() for span in zone.full)]
    edges = [offset_us(problem, edge) for span in spans for edge in span]
    edges.append(end_us - round(problem.spare_s * 1e6))
    marks = np.array([0, end_us, *(edge for edge in edges if 0 < edge < end_us)], dtype=np.int64)
    return np.unique(np.concatenate([marks, multiples]))


def _openness(problem: Problem, edge_us: npt.NDArray[np.int64]) -> Flags:
    if problem.windows is None:
        return np.ones(len(edge_us) - 1, dtype=np.bool_)
    is_open = np.zeros(len(edge_us) - 1, dtype=np.bool_)
    for start, end in problem.windows:
        is_open |= (edge_us[:-1] >= offset_us(problem, start)) & (edge_us[1:] <= offset_us(problem, end))
    return is_open


def _fullness(problem: Problem, full: Sequence[tuple[datetime, datetime]], edge_us: npt.NDArray[np.int64]) -> Flags:
    found = np.zeros(len(edge_us) - 1, dtype=np.bool_)
    for start, end in full:
        found |= (edge_us[:-1] >= offset_us(problem, start)) & (edge_us[1:] <= offset_us(problem, end))
    return found


def _means(
    now: datetime, curve: Sequence[Stretch], given: Sequence[float | None], edge_s: Floats
) -> tuple[Floats, Floats]:
    """Mean of a value `given` for each stretch over the known part of each cell (NaN where none), and that part."""
    length_s = np.diff(edge_s)
    parts = [(part.start, part.end, value) for part, value in zip(curve, given, strict=True) if value is not None]
    if not parts:
        return np.full(len(length_s), np.nan), np.zeros(len(length_s))
    known = sorted(parts, key=lambda part: part[0])
    starts = np.array([(start - now) / timedelta(seconds=1) for start, _, _ in known])
    ends = np.array([(end - now) / timedelta(seconds=1) for _, end, _ in known])
    values = np.array([value for _, _, value in known], dtype=np.float64)
    knots = np.stack([starts, ends], axis=1).ravel()
    known_s = np.diff(np.interp(edge_s, *_ramp(knots, ends - starts)))
    weighted = np.diff(np.interp(edge_s, *_ramp(knots, (ends - starts) * values)))
    # A thousandth of a second is rounding, not knowledge.
    is_known = known_s > np.minimum(1e-3, 0.5 * length_s)
    means: Floats = np.where(is_known, weighted / np.where(is_known, known_s, 1.0), np.nan)
    shares: Floats = np.where(is_known, np.clip(known_s / length_s, 0.0, 1.0), 0.0)
    return means, shares


def _ramp(knots: Floats, amounts: Floats) -> tuple[Floats, Floats]:
    """Knots and running sums of amounts that accrue evenly between each start and end."""
    sums = np.cumsum(np.stack([np.zeros_like(amounts), amounts], axis=1).ravel())
    unique, first = np.unique(knots, return_index=True)
    return unique, sums[first]


def _worst(problem: Problem) -> Floats:
    """Each zone's worst known intensity, by the rule of this module."""
    worst = [
        max((part.g_per_kwh for part in zone.curve if part.g_per_kwh is not None), default=None)
        for zone in problem.zones.values()
    ]
    anywhere = max((value for value in worst if value is not None), default=1.0)
    return np.array([anywhere if value is None else value for value in worst], dtype=np.float64)


def _sums(amounts: Floats) -> Floats:
    return np.concatenate([np.zeros((len(amounts), 1)), np.cumsum(amounts, axis=1)], axis=1)
