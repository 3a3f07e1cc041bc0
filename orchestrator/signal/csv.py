"""Intensities in a CSV with `start_utc,g_per_kwh`: measured before now, a forecast from now on.
In: a file, a folder with a file for each zone, or an address. Out: points, a Forecast, or a fault with line and fix.
It is a provider for grids that no service covers, and the trace that `lowtide grid` replays.
"""

from __future__ import annotations

import csv
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.spec import InputError, iso, utc
from orchestrator.http.faults import SignalGarbled, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.nothing import NO_CONTENT
from orchestrator.http.refusal import Asker, shown
from orchestrator.signal.forecast import Forecast, Point, Signal, from_on, modal_gap_s, spread
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import G_PER_KWH_AT_MOST, fresh_until

if TYPE_CHECKING:
    from orchestrator.http.session import Http

TIME_COLUMN = "start_utc"
VALUE_COLUMN = "g_per_kwh"
AHEAD = timedelta(days=14)
"""How far a forecast from a file looks: a plan needs no more, and a year of hours would slow it."""


class _Csv(ABC):
    """A CSV wherever it is: what has passed was measured, the rest is a forecast of whoever writes it."""

    name = "csv"
    signal: Signal = "average"

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slots from the one that holds `now`, up to 14 days, in g/kWh.

        Raises SignalRefused where it ends before `now`; for a wrong row InputError of a file, SignalGarbled of an
        address.
        """
        points, read_at = self._read(zone_name, now)
        ahead = tuple(point for point in from_on(points, now) if point.start < now + AHEAD)
        if not ahead:
            raise SignalRefused(self.name, zone_name, self._over(points), "coverage")
        return Forecast(zone_name, self.name, self.signal, ahead, read_at)

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """The slots that begin in [start, end) and have ended by now."""
        points, _ = self._read(zone_name, None)
        now = datetime.now(timezone.utc)
        return tuple(
            Point(point.start, point.end, point.g_per_kwh, "measured")
            for point in points
            if start <= point.start < end and point.end <= now
        )

    @property
    @abstractmethod
    def _place(self) -> str:
        """Where it is, fit for people."""

    @abstractmethod
    def _read(self, zone_name: str, now: datetime | None) -> tuple[tuple[Point, ...], datetime]:
        """Its points, and when they were read; `now` is for whom only what is ahead counts."""

    def _over(self, points: tuple[Point, ...]) -> str:
        return (
            f"{self._place} ends at {iso(points[-1].end)} or begins beyond 14 days, and says nothing of now; add "
            "rows, or replay it with `lowtide grid`"
        )


class CsvFile(_Csv):
    """One file, read anew for each question, so that whoever writes it needs no restart of lowtide."""

    def __init__(self, path: Path):
        self._path = path

    @property
    def _place(self) -> str:
        return str(self._path)

    def _read(self, zone_name: str, now: datetime | None) -> tuple[tuple[Point, ...], datetime]:
        return read_points(self._path), datetime.now(timezone.utc)


class CsvAddress(_Csv):
    """One file at an http(s) address, fetched once in a slot."""

    def __init__(self, http: Http, url: str, limits: Limits | None = None):
        self._http = http
        self._url = url
        self._limits = limits or Limits()

    @property
    def _place(self) -> str:
        return shown(self._url)

    def _read(self, zone_name: str, now: datetime | None) -> tuple[tuple[Point, ...], datetime]:
        def read(document: Any) -> tuple[tuple[Point, ...], datetime]:
            try:
                points = _points(b"" if document is NO_CONTENT else document, VALUE_COLUMN, self._place)
            except InputError as fault:
                raise SignalGarbled(self.name, zone_name, str(fault)) from None
            if now is not None and points[-1].end <= now:  # not kept: whoever writes it may be late
                raise SignalGarbled(self.name, zone_name, self._over(points))
            slot_s = (points[0].end - points[0].start).total_seconds()
            return points, fresh_until(self._http.now(), slot_s)

        asker = Asker(self.name, zone_name)
        answer = self._http.get(self._url, {}, read, asker, limits=self._limits, as_bytes=True, accept="text/csv")
        return answer.value, answer.fetched_at


def make(setup: Setup) -> CsvFile | CsvAddress:
    """The provider of one zone, from the file that the zone names, or from the zone's file in the folder that it names.

    InputError where there is none.
    """
    field, given = f"zones.{setup.zone}.file", setup.of.file
    if given is None:
        raise InputError(f"zones.{setup.zone}.provider: csv needs {field}; give the path or address of a CSV")
    if "://" not in given:
        path = Path(given)
        return CsvFile(_in_folder(path, setup.zone_name, field) if path.is_dir() else path)
    if not given.startswith(("http://", "https://")):
        raise InputError(f"{field}: {shown(given)} is no http or https address; give one, or a path")
    if "@" in given.split("/")[2]:
        raise InputError(f"{field}: holds a user; give an address that needs none")
    return CsvAddress(setup.http(), given, setup.limits)


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
    try:
        body = path.read_bytes()
    except OSError as fault:
        raise InputError(f"{path}: cannot be read ({fault.strerror or fault}); check the path") from None
    return _points(body, column, str(path))


def _points(body: bytes, column: str, place: str) -> tuple[Point, ...]:
    rows = list(_rows(body, column, place))
    slot_s = modal_gap_s(start for start, _ in rows)
    if slot_s is None:
        raise InputError(f"{place}: holds fewer than two rows, so no slot length; add rows of {TIME_COLUMN},{column}")
    return spread(((start, g_per_kwh, "forecast") for start, g_per_kwh in rows), slot_s)


def _rows(body: bytes, column: str, place: str) -> Iterator[tuple[datetime, float | None]]:
    try:
        reader = csv.DictReader(io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline=""))
        header = reader.fieldnames or []
        for needed in (TIME_COLUMN, column):
            if needed not in header:
                there = ", ".join(header)[:80]
                raise InputError(f"{place}: line 1: has no column {needed}; its columns are {there}")
        for row in reader:
            yield _row(row, column, f"{place}: line {reader.line_num}")
    except (UnicodeDecodeError, csv.Error) as fault:
        raise InputError(f"{place}: is no CSV in UTF-8 ({str(fault)[:80]}); export it as one") from None


def _row(row: dict[str, str | None], column: str, place: str) -> tuple[datetime, float | None]:
    try:
        start = utc((row[TIME_COLUMN] or "")[:40])
    except ValueError as fault:
        raise InputError(f"{place}: {TIME_COLUMN}: {fault}") from None
    text = (row[column] or "").strip()
    if not text:
        return start, None
    try:
        g_per_kwh = float(text)
    except ValueError:
        g_per_kwh = math.nan
    if not 0 <= g_per_kwh <= G_PER_KWH_AT_MOST:
        raise InputError(
            f"{place}: {column}: {text[:40]!r} is no intensity; write g/kWh from 0 to {G_PER_KWH_AT_MOST:g}, or leave "
            "it empty"
        )
    return start, g_per_kwh
