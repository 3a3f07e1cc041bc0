"""The recorded grids as arrays and points, read where they lie.
In: the folder of the recorded grids. Out: hourly intensities in g/kWh, day-ahead forecasts beside them, live records.
`tests.bench.rolling` forecasts them; the unit tests read a part.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from orchestrator.predict import Series
from orchestrator.predict.series import FloatArray
from orchestrator.signal.forecast import Kind, Point

HOUR = timedelta(hours=1)
DAY_H = 24


@dataclass(frozen=True)
class DayAhead:
    """One grid, whole days from midnight UTC: what came, and what had been forecast of each day before it began."""

    grid: str
    start: datetime
    actual: FloatArray
    forecast: FloatArray

    @property
    def days(self) -> int:
        return len(self.actual) // DAY_H


def zones(folder: Path) -> list[str]:
    """The zones that are recorded hour by hour."""
    return sorted(path.stem for path in (folder / "hourly-2022").glob("*.csv") if path.stem != "oracle")


def hourly(folder: Path, zone: str) -> Series:
    """A zone's year."""
    rows = _rows(folder / "hourly-2022" / f"{zone}.csv")
    return Series(_utc(rows[0]["start_utc"]), 3600.0, _column(rows, "g_per_kwh"))


def grids(folder: Path) -> list[str]:
    """The grids with recorded day-ahead forecasts."""
    return sorted(path.stem for path in (folder / "day-ahead-2021").glob("*.csv"))


def day_ahead(folder: Path, grid: str) -> DayAhead:
    """A grid's half year."""
    rows = _rows(folder / "day-ahead-2021" / f"{grid}.csv")
    actual, forecast = _column(rows, "actual_g_per_kwh"), _column(rows, "day_ahead_g_per_kwh")
    return DayAhead(grid, _utc(rows[0]["start_utc"]), actual, forecast)


def live(folder: Path, zone: str) -> list[Point]:
    """What a poller wrote down of a zone, in its order, duplicates and all."""
    rows = _rows(folder / "live-2022" / f"{zone}.csv")
    starts = [(_utc(row["zone_datetime"]), float(row["carbon_intensity_avg"])) for row in rows]
    return [Point(start, start + HOUR, value, "measured") for start, value in starts]


def points(start: datetime, g_per_kwh: FloatArray, kind: Kind) -> tuple[Point, ...]:
    """Hours from `start` on; NaN becomes unknown."""
    values = (None if np.isnan(value) else float(value) for value in g_per_kwh)
    return tuple(Point(start + n * HOUR, start + (n + 1) * HOUR, value, kind) for n, value in enumerate(values))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _column(rows: list[dict[str, str]], name: str) -> FloatArray:
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
