"""A recorded grid mapped onto real time: the trace of a day may pass in four minutes, in slots of whole seconds.
In: a trace and the length of one of its slots in real seconds. Out: rows with real UTC times and the trace's values.
The grid server serves them; the trace loops when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from jobs.spec import InputError
from orchestrator.signal import csv, demo
from orchestrator.signal.forecast import Point, modal_gap_s

SHARE_COLUMN = "renewable_percent"

_FOSSIL_G_PER_KWH = 700.0
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Trace:
    """Values of consecutive slots in g/kWh; None where the record has a gap."""

    slot_s: float
    actual_g_per_kwh: tuple[float | None, ...]
    forecast_g_per_kwh: tuple[float | None, ...]
    """What was forecast for each slot; the actual values where the record has no forecast."""
    note: str
    """Where the numbers come from, for whoever reads an answer."""
    renewable_percent: tuple[float | None, ...] = ()
    """The renewable share of each slot, ahead as it then was; empty where the record has none."""


def read_trace(path: Path, column: str = csv.VALUE_COLUMN, forecast_column: str | None = None) -> Trace:
    """The trace in a CSV; `forecast_column` names a column of forecasts beside the actual values.

    A column `renewable_percent` is the renewable share. Raises InputError that names file, line and fix.
    """
    actual = csv.read_points(path, column)
    ahead = csv.read_points(path, forecast_column) if forecast_column else actual
    shares = csv.read_points(path, SHARE_COLUMN) if SHARE_COLUMN in _header(path) else ()
    return _trace(actual, ahead, shares, f"replayed trace {path.name}, not live data")


def demo_trace(zone: str = "DEMO", days: int = 7) -> Trace:
    """The generated demo grid as a trace of hours; its renewable share is generated from its intensities."""
    points = demo.trace(days, zone_name=zone)
    shares = [point._replace(g_per_kwh=_generated_percent(point.g_per_kwh)) for point in points]
    return _trace(points, points, shares, f"replayed trace, not live data: {demo.NOTE}")


def _generated_percent(g_per_kwh: float | None) -> float | None:
    """A share for show: 0 % where the generated grid is as dirty as burning coal and gas alone."""
    return None if g_per_kwh is None else round(max(0.0, 100 * (1 - g_per_kwh / _FOSSIL_G_PER_KWH)), 1)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig") as file:
        return [name.strip() for name in file.readline().split(",")]


def _trace(actual: Iterable[Point], ahead: Iterable[Point], shares: Iterable[Point], note: str) -> Trace:
    known = {point.start: point.g_per_kwh for point in actual}
    slot_s = modal_gap_s(known)
    if slot_s is None:
        raise InputError("a trace needs at least two slots; give a longer one")
    first, last = min(known), max(known)
    length = timedelta(seconds=slot_s)
    starts = [first + n * length for n in range((last - first) // length + 1)]
    forecast = {point.start: point.g_per_kwh for point in ahead}
    percent = {point.start: point.g_per_kwh for point in shares}
    return Trace(
        slot_s,
        tuple(known.get(at) for at in starts),
        tuple(forecast.get(at) for at in starts),
        note,
        tuple(percent.get(at) for at in starts) if percent else (),
    )


@dataclass(frozen=True)
class Replay:
    """A trace in real time: slot number n since the epoch shows slot n - `anchor` of the trace, round and round."""

    trace: Trace
    slot_s: int
    """Real seconds of one slot of the trace."""
    anchor: int
    """Number, since the epoch, of the real slot that shows the trace's first."""

    @classmethod
    def begin(cls, trace: Trace, now: datetime, speed: float = 1.0, start_s: float = 0.0) -> Replay:
        """A replay in which `now` shows the slot `start_s` seconds into the trace, at `speed` times real time.

        A slot's real length is rounded to whole seconds, at least one, so that its edges are multiples of it since
        the epoch, as a planner's slots are. Raises InputError for a speed or start that cannot be.
        """
        if not speed > 0:
            raise InputError(f"speed: {speed:g} is not above zero; 360 replays a day in four minutes")
        count = len(trace.actual_g_per_kwh)
        if not 0 <= start_s < count * trace.slot_s:
            raise InputError(f"start: {start_s:g} s is not within the trace, which is {count * trace.slot_s:g} s long")
        slot_s = max(1, round(trace.slot_s / speed))
        return cls(trace, slot_s, _number(now, slot_s) - int(start_s // trace.slot_s))

    @property
    def speed(self) -> float:
        """Seconds of the trace that pass in one real second."""
        return self.trace.slot_s / self.slot_s

    def current(self, now: datetime) -> tuple[datetime, float | None]:
        """Start and actual value of the slot that holds `now`."""
        number = _number(now, self.slot_s)
        return self._start(number), self._value(self.trace.actual_g_per_kwh, number)

    def ahead(self, now: datetime, trace_hours: float) -> Iterator[tuple[datetime, float]]:
        """The forecast from the slot that holds `now` for so many hours of the trace, and one row more; no gaps."""
        return self._from(now, trace_hours, self.trace.forecast_g_per_kwh)

    def shares(self, now: datetime, trace_hours: float) -> Iterator[tuple[datetime, float]]:
        """The renewable share in percent, as `ahead`; nothing where the trace has none."""
        return self._from(now, trace_hours, self.trace.renewable_percent)

    def past(self, start: datetime, end: datetime, now: datetime) -> Iterator[tuple[datetime, float]]:
        """Actual values of the slots that begin in [start, end) and not after `now`; no gaps."""
        last = min(_number(end - timedelta(microseconds=1), self.slot_s), _number(now, self.slot_s))
        first = -((_EPOCH - start) // timedelta(seconds=self.slot_s))  # rounded up
        for number in range(first, last + 1):
            if (value := self._value(self.trace.actual_g_per_kwh, number)) is not None:
                yield self._start(number), value

    def history(self, now: datetime, trace_hours: float = 24) -> Iterator[tuple[datetime, float]]:
        """Actual values of the last hours of the trace, the slot that holds `now` included; no gaps."""
        slots = round(trace_hours * 3600 / self.trace.slot_s)
        current = self._start(_number(now, self.slot_s))
        return self.past(current - timedelta(seconds=(slots - 1) * self.slot_s), now, now)

    def _from(
        self, now: datetime, trace_hours: float, values: tuple[float | None, ...]
    ) -> Iterator[tuple[datetime, float]]:
        first = _number(now, self.slot_s)
        for number in range(first, first + round(trace_hours * 3600 / self.trace.slot_s) + 1) if values else ():
            if (value := self._value(values, number)) is not None:
                yield self._start(number), value

    def _value(self, values: tuple[float | None, ...], number: int) -> float | None:
        return values[(number - self.anchor) % len(values)]

    def _start(self, number: int) -> datetime:
        return _EPOCH + timedelta(seconds=number * self.slot_s)


def _number(moment: datetime, slot_s: int) -> int:
    """The number since the epoch of the slot that holds a moment."""
    return int((moment - _EPOCH) // timedelta(seconds=slot_s))
