"""The normal form of a carbon signal: half-open UTC slots with g/kWh, where they came from, how old they are.
In: points in any order and of any length. Out: a Forecast that answers by overlap, and never with an invented number.
Providers make it; the planner and the ledger read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from operator import sub
from typing import Literal, NamedTuple, TypeVar

Signal = Literal["average", "marginal"]
Kind = Literal["measured", "estimated", "forecast", "extended"]


class Point(NamedTuple):
    """Intensity in [start, end), UTC; `g_per_kwh` is None where the provider has no value (unknown, never zero).

    A tuple, since a site reads tens of thousands of them at once.
    """

    start: datetime
    end: datetime
    g_per_kwh: float | None
    kind: Kind = "forecast"
    low_g_per_kwh: float | None = None
    high_g_per_kwh: float | None = None
    """The 80 % prediction interval, where lowtide extended or corrected the forecast."""
    given_g_per_kwh: float | None = None
    """What the provider said of the slot, where lowtide corrected it."""


class Share(NamedTuple):
    """Renewable share of the electricity in [start, end), in percent; None is unknown. May exceed 100 (exports)."""

    start: datetime
    end: datetime
    percent: float | None


Slot = TypeVar("Slot", Point, Share)


@dataclass(frozen=True)
class Forecast:
    """Points of one zone, sorted and without overlap, from one provider."""

    zone: str
    provider: str
    signal: Signal
    points: tuple[Point, ...]
    fetched_at: datetime
    issued_at: datetime | None = None
    """Only where the provider really says when the forecast was made."""
    factor: Literal["lifecycle", "direct"] | None = None
    stale: bool = False
    """True where the provider failed and this is an earlier answer."""
    fault: str | None = None
    """What its providers said instead of a new one, where it is stale."""
    note: str | None = None
    """What readers must know of the numbers, such as that they are generated."""
    renewable: tuple[Share, ...] = ()
    """Sorted and without overlap; empty where the provider has no share."""

    def at(self, moment: datetime) -> float | None:
        """Intensity in g/kWh at a moment; None where unknown."""
        for point in self.points:
            if point.start <= moment < point.end:
                return point.g_per_kwh
        return None

    def mean(self, start: datetime, end: datetime) -> tuple[float | None, float]:
        """Mean g/kWh over the known part of [start, end), and the share (0 to 1) of it that is known."""
        # Lengths are summed as timedeltas, whole microseconds: a span that is known throughout is known to exactly 1.
        weighted, known = 0.0, timedelta()
        for point in self.points:
            overlap = min(end, point.end) - max(start, point.start)
            if overlap > timedelta() and point.g_per_kwh is not None:
                weighted += point.g_per_kwh * overlap.total_seconds()
                known += overlap
        return (weighted / known.total_seconds() if known else None), (known / (end - start) if end > start else 0.0)


def ordered(points: Iterable[Slot]) -> tuple[Slot, ...]:
    """Sorted by start, without overlap: of those with one start the last given wins, an overlap ends the earlier."""
    given = tuple(points)
    if all(map(_ends_by, given, given[1:])):
        return given
    latest = {point.start: point for point in given}
    result: list[Slot] = []
    for start in sorted(latest):
        point = latest[start]
        if result and result[-1].end > start:
            before = result.pop()
            result.append(before._replace(end=start))
        result.append(point)
    return tuple(result)


def modal_gap_s(starts: Iterable[datetime]) -> float | None:
    """The most frequent gap between neighbouring starts in seconds (the shortest of equals); None below two starts."""
    edges = sorted(set(starts))
    gaps = Counter(map(sub, edges[1:], edges))
    return min(gaps, key=lambda gap: (-gaps[gap], gap)).total_seconds() if gaps else None


def spread(rows: Iterable[tuple[datetime, float | None, Kind]], slot_s: float) -> tuple[Point, ...]:
    """Rows of (start, g/kWh, kind) as points of `slot_s` seconds; what no row covers stays uncovered."""
    length = timedelta(seconds=slot_s)
    return ordered(Point(start, start + length, g_per_kwh, kind) for start, g_per_kwh, kind in rows)


def slots(
    starts: Sequence[datetime], g_per_kwh: Iterable[float | None], slot_s: float, kinds: Iterable[Kind]
) -> tuple[Point, ...]:
    """Columns of one length as points of `slot_s` seconds, as `spread` makes them; fast where they are in order."""
    length = timedelta(seconds=slot_s)
    ends = [after if after - start == length else start + length for start, after in pairwise(starts)]
    ends += [start + length for start in starts[-1:]]
    return ordered(map(Point, starts, ends, g_per_kwh, kinds))


def from_on(points: Iterable[Slot], moment: datetime) -> tuple[Slot, ...]:
    """The points or shares that have not ended at `moment`."""
    return tuple(point for point in points if point.end > moment)


def _ends_by(before: Slot, after: Slot) -> bool:
    return before.end <= after.start
