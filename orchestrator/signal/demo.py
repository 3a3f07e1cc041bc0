"""A generated grid, for a first look without any account: clean at noon, dirty in the evening, every day a little else.
In: times in UTC. Out: intensities that depend on the time and the zone's name alone, and say that they are generated.
The embedded site plans by it, and `lowtide grid` replays it where no trace is given.
"""

from __future__ import annotations

import math
import zlib
from datetime import datetime, timedelta, timezone

from orchestrator.signal.forecast import Forecast, Point, Signal
from orchestrator.signal.provider import Setup

NOTE = "generated for demonstration; no grid's real data"
SLOT_S = 3600.0
AHEAD = timedelta(days=3)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class DemoGrid:
    """The generated grid as a provider; every time and every zone name has a value."""

    name = "demo"
    signal: Signal = "average"

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """Hours from the one that holds `now`, three days ahead, in g/kWh."""
        points = _hours(zone_name, now, now + AHEAD, measured_until=_EPOCH)
        return Forecast(zone_name, self.name, self.signal, points, fetched_at=now, issued_at=None, note=NOTE)

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Hours that begin in [start, end) and have ended by now; they are what the forecast said."""
        now = datetime.now(timezone.utc)
        hours = _hours(zone_name, start, end, measured_until=now)
        return tuple(point for point in hours if point.start >= start and point.end <= now)


def make(setup: Setup) -> DemoGrid:
    """The provider of any zone."""
    return DemoGrid()


def trace(days: int = 7, slot_s: float = SLOT_S, zone_name: str = "DEMO", first: datetime | None = None) -> list[Point]:
    """`days` of the generated grid in slots of `slot_s` seconds, from midnight UTC of `first` (default 2026-03-01)."""
    start = (first or datetime(2026, 3, 1, tzinfo=timezone.utc)).replace(hour=0, minute=0, second=0, microsecond=0)
    length = timedelta(seconds=slot_s)
    starts = [start + n * length for n in range(round(days * 86400 / slot_s))]
    return [Point(at, at + length, intensity_g_per_kwh(at + length / 2, zone_name), "measured") for at in starts]


def intensity_g_per_kwh(at: datetime, zone_name: str = "DEMO") -> float:
    """The generated intensity at a moment: a solar dip around noon, an evening peak, a calm night, varied by day."""
    hour = at.hour + at.minute / 60 + at.second / 3600
    sun = 0.75 + 0.25 * _chance(f"{zone_name} sun {at.date()}")
    wind = 0.90 + 0.20 * _chance(f"{zone_name} wind {at.date()}")
    size = 0.80 + 0.40 * _chance(f"{zone_name} size")
    solar = 260 * sun * math.exp(-(((hour - 12.5) / 3.2) ** 2))
    evening = 140 * math.exp(-(((hour - 19.5) / 2.0) ** 2))
    night = 40 * math.exp(-(((hour - 3.0) / 2.5) ** 2))
    return round(size * (380 * wind - solar + evening - night), 1)


def _hours(zone_name: str, start: datetime, end: datetime, measured_until: datetime) -> tuple[Point, ...]:
    length = timedelta(seconds=SLOT_S)
    at = _EPOCH + (start - _EPOCH) // length * length
    points = []
    while at < end:
        ends = at + length
        value = intensity_g_per_kwh(at + length / 2, zone_name)
        points.append(Point(at, ends, value, "measured" if ends <= measured_until else "forecast"))
        at = ends
    return tuple(points)


def _chance(of: str) -> float:
    """A number in [0, 1) that depends on the text alone, on every machine."""
    return zlib.crc32(of.encode()) / 2**32
