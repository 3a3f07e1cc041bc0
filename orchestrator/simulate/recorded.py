"""One zone as it was recorded: the intensities that came, and those that were forecast of the same time.
In: a CSV with `start_utc` and a column of g/kWh, perhaps a second one of forecasts. Out: a Recorded zone.
`follow` plans by it and charges by it. An empty value is unknown, never zero.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from orchestrator.plan import Stretch
from orchestrator.signal.csv import VALUE_COLUMN, read_points
from orchestrator.signal.forecast import Point


@dataclass(frozen=True)
class Recorded:
    """Stretches in order and without overlap."""

    zone: str
    actual: tuple[Stretch, ...]
    forecast: tuple[Stretch, ...] | None = None
    """What was said beforehand of the same time; None where plans are made by what came."""

    @property
    def start(self) -> datetime:
        """When the record of what came begins."""
        return self.actual[0].start

    @property
    def end(self) -> datetime:
        """When it ends."""
        return self.actual[-1].end

    def came(self, start: datetime, end: datetime) -> tuple[Stretch, ...]:
        """The actual stretches that overlap [start, end)."""
        return _between(self.actual, self._actual_starts, start, end)

    def told(self, start: datetime, end: datetime) -> tuple[Stretch, ...]:
        """What a plan at `start` knows of [start, end): the forecast, or what comes where there is none."""
        if self.forecast is None:
            return self.came(start, end)
        return _between(self.forecast, self._forecast_starts, start, end)

    @cached_property
    def _actual_starts(self) -> list[datetime]:
        return [part.start for part in self.actual]

    @cached_property
    def _forecast_starts(self) -> list[datetime]:
        return [part.start for part in self.forecast or ()]


def read_recorded(
    zone: str, path: Path, actual_column: str = VALUE_COLUMN, forecast_column: str | None = None
) -> Recorded:
    """The zone in a CSV; InputError that names file, line and fix where it cannot be read."""
    forecast = None if forecast_column is None else _stretches(read_points(path, forecast_column))
    return Recorded(zone, _stretches(read_points(path, actual_column)), forecast)


def _stretches(points: Iterable[Point]) -> tuple[Stretch, ...]:
    return tuple(Stretch(point.start, point.end, point.g_per_kwh) for point in points)


def _between(
    stretches: tuple[Stretch, ...], starts: list[datetime], start: datetime, end: datetime
) -> tuple[Stretch, ...]:
    first = bisect_right(starts, start) - 1
    if first < 0 or stretches[first].end <= start:
        first += 1
    return stretches[first : bisect_left(starts, end)]
