"""The pieces in which a stretch of the past is asked for: on slots, so that all who ask in one slot ask the same.
In: the stretch, the slot's length and the longest piece that a provider gives. Out: its pieces, and its points.
Providers ask for what was measured by it; the session's cache then answers whoever asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone

from orchestrator.signal.forecast import Point


def floor(at: datetime, slot_s: float) -> datetime:
    """The start of the slot that holds a moment, UTC: slots begin at multiples of their length since the epoch."""
    return datetime.fromtimestamp(at.timestamp() // slot_s * slot_s, timezone.utc)


def pieces(start: datetime, end: datetime, slot_s: float, longest: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) widened to whole slots, in half-open pieces no longer than `longest`; none where it is empty."""
    if start >= end:
        return
    begin, last = floor(start, slot_s), floor(end - timedelta.resolution, slot_s) + timedelta(seconds=slot_s)
    while begin < last:
        stop = min(begin + longest, last)
        yield begin, stop
        begin = stop


def known(points: Iterable[Point], start: datetime, end: datetime) -> tuple[Point, ...]:
    """The points that begin in [start, end) and have a value, each once: pieces may tell of their edges twice."""
    found = {point.start: point for point in points if start <= point.start < end and point.g_per_kwh is not None}
    return tuple(found.values())
