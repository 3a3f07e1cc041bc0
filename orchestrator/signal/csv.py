"""Intensities in a CSV file with `start_utc,g_per_kwh`: measured before now, a forecast from now on.
In: a file's path. Out: its points, a Forecast, or InputError that names file, line and fix.
It is a provider for grids that no service covers, and the trace that `lowtide grid` replays.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

from jobs.spec import InputError, iso, utc
from orchestrator.signal.faults import SignalRefused
from orchestrator.signal.forecast import Forecast, Point, Signal, from_on, modal_gap_s, spread
from orchestrator.signal.provider import Setup

TIME_COLUMN = "start_utc"
VALUE_COLUMN = "g_per_kwh"
AHEAD = timedelta(days=14)
"""How far a forecast from a file looks: a plan needs no more, and a year of hours would slow it."""


class CsvFile:
    """One file, read anew for each question, so that whoever writes it needs no restart of lowtide."""

    name = "csv"
    signal: Signal = "average"

    def __init__(self, path: Path):
        self._path = path

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The file's slots from the one that holds `now`, up to 14 days, in g/kWh.

        Raises InputError for a wrong row, SignalRefused where the file ends before `now`.
        """
        points = read_points(self._path)
        ahead = tuple(point for point in from_on(points, now) if point.start < now + AHEAD)
        if not ahead:
            text = (
                f"{self._path} ends at {iso(points[-1].end)} or begins beyond 14 days, and says nothing of now; add "
                "rows, or replay it with `lowtide grid`"
            )
            raise SignalRefused(self.name, zone_name, text, "coverage")
        return Forecast(zone_name, self.name, self.signal, ahead, datetime.now(timezone.utc))

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """The file's slots that begin in [start, end) and have ended by now."""
        now = datetime.now(timezone.utc)
        return tuple(
            Point(point.start, point.end, point.g_per_kwh, "measured")
            for point in read_points(self._path)
            if start <= point.start < end and point.end <= now
        )


def make(setup: Setup) -> CsvFile:
    """The provider of one zone, from the file that the zone names, or from the zone's file in the folder that it names.

    InputError where there is none.
    """
    field = f"zones.{setup.zone}.file"
    if setup.of.file is None:
        raise InputError(f"zones.{setup.zone}.provider: csv needs {field}; give the path of a CSV")
    path = Path(setup.of.file)
    return CsvFile(_in_folder(path, setup.zone_name, field) if path.is_dir() else path)


def _in_folder(folder: Path, zone_name: str, field: str) -> Path:
    path = folder / f"{zone_name}.csv"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.csv"))[:20]) or "none"
        raise InputError(f"{field}: {folder} has no {path.name}; add it, or give one with `as` (there are: {there})")
    return path


def read_points(path: Path, column: str = VALUE_COLUMN) -> tuple[Point, ...]:
    """The points of a file, sorted, each as long as the modal gap; an empty value is unknown.

    Raises InputError that names file, line and fix.
    """
    rows = list(_rows(path, column))
    slot_s = modal_gap_s(start for start, _ in rows)
    if slot_s is None:
        raise InputError(f"{path}: holds fewer than two rows, so no slot length; add rows of {TIME_COLUMN},{column}")
    return spread(((start, g_per_kwh, "forecast") for start, g_per_kwh in rows), slot_s)


def _rows(path: Path, column: str) -> Iterator[tuple[datetime, float | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            for needed in (TIME_COLUMN, column):
                if needed not in header:
                    raise InputError(f"{path}: line 1: has no column {needed}; its columns are {', '.join(header)}")
            for row in reader:
                yield _row(row, column, f"{path}: line {reader.line_num}")
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"{path}: is no CSV in UTF-8 ({fault}); export it as one") from None


def _row(row: dict[str, str | None], column: str, place: str) -> tuple[datetime, float | None]:
    try:
        start = utc(row[TIME_COLUMN] or "")
    except ValueError as fault:
        raise InputError(f"{place}: {TIME_COLUMN}: {fault}") from None
    text = (row[column] or "").strip()
    if not text:
        return start, None
    try:
        g_per_kwh = float(text)
    except ValueError:
        g_per_kwh = math.nan
    if not math.isfinite(g_per_kwh) or g_per_kwh < 0:
        raise InputError(f"{place}: {column}: {text!r} is no intensity; write g/kWh of 0 or more, or leave it empty")
    return start, g_per_kwh
