"""The checks that every provider's reader makes of an answer, by whole columns, so that many rows cost little.
In: the parsed document, and for whom it is read. Out: times in UTC, values in g/kWh or percent; SignalGarbled else.
Providers read their documents with it; forecast.py makes points of what it returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from jobs.spec import iso
from orchestrator.http.faults import SignalGarbled
from orchestrator.signal.forecast import Point, from_on

Row = TypeVar("Row")

G_PER_KWH_AT_MOST = 5_000.0
"""Above it no grid is: a plant that burns lignite at 20 % emits some 2,000 g/kWh."""
PERCENT_AT_MOST = 1_000.0
"""Above it no share is: the renewable share of load passes 100 % where a zone exports."""
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=timezone.utc), datetime(2100, 1, 1, tzinfo=timezone.utc)
"""Times outside are some other unit or a mistake."""

FRESH_AT_MOST = timedelta(hours=1)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s*(Z|z|[+-]\d\d:?\d\d|[+-]\d\d)?", re.ASCII
)
_NUMBERS = frozenset({int, float, type(None)})
_SHOWN = 40


@dataclass(frozen=True)
class Reading:
    """One answer being read: every fault names its provider and zone."""

    provider: str
    zone: str

    def garbled(self, text: str) -> SignalGarbled:
        """The fault that says what `the provider` did, such as `sent an empty forecast`; the caller raises it."""
        return SignalGarbled(self.provider, self.zone, f"the provider {text}")

    def mapping(self, document: Any) -> dict[str, Any]:
        """A JSON object, or SignalGarbled."""
        if not isinstance(document, dict):
            raise self.garbled("answered with no JSON object; check base_url")
        return document

    def rows(self, value: Any, what: str) -> list[Any]:
        """A JSON list, or SignalGarbled that calls it `what`."""
        if not isinstance(value, list):
            raise self.garbled(f"sent no list of {what}; check base_url")
        return value

    def column(self, rows: Sequence[Any], name: str) -> list[Any]:
        """The value under `name` in each row; SignalGarbled where a row is no object or lacks it."""
        try:
            return [row[name] for row in rows]
        except (KeyError, TypeError, IndexError):
            raise self.garbled(f"sent a row without {name}") from None

    def intensities(
        self, values: Sequence[Any], starts: Sequence[datetime], *, g_per_kwh: float = 1.0, text: bool = False
    ) -> list[float | None]:
        """Intensities in g/kWh; None stays None, which is not zero.

        `g_per_kwh` converts one unit of theirs; `text` reads numbers in strings where the provider promises strings.
        SignalGarbled for booleans, what is no number, not finite, below 0 or above 5,000 g/kWh, with its start.
        """
        return self._within(values, starts, "intensity", "g/kWh", G_PER_KWH_AT_MOST, g_per_kwh, text)

    def percents(self, values: Sequence[Any], starts: Sequence[datetime], *, text: bool = False) -> list[float | None]:
        """Shares in percent, as `intensities` reads; they may exceed 100 where a zone exports, and not 1,000."""
        return self._within(values, starts, "share", "percent", PERCENT_AT_MOST, 1.0, text)

    def ahead(self, points: Sequence[Point], now: datetime) -> tuple[Point, ...]:
        """The points that have not ended; SignalGarbled where none of them has a value.

        Called while an answer is read, so that one that says nothing of now is not kept for the rest of the slot.
        """
        found = from_on(points, now)
        if not any(point.g_per_kwh is not None for point in found):
            raise self.garbled("sent no forecast from now on; try later")
        return found

    def times(self, values: Sequence[Any]) -> list[datetime]:
        """UTC times from ISO 8601 text; SignalGarbled where one is none or says no time zone."""
        try:
            moments = list(map(datetime.fromisoformat, values))
        except (ValueError, TypeError):  # Python 3.10 knows neither Z nor seven digits; or it is no time at all
            return [self.time(value) for value in values]
        if all([moment.tzinfo is timezone.utc for moment in moments]) and _plausible(moments):
            return moments
        return [self.time(value) for value in values]

    def utc_times(self, values: Sequence[Any]) -> list[datetime]:
        """As `times`, for a provider whose contract is UTC without saying so: a time without a zone is UTC."""
        return [self.time(value, usual=timezone.utc) for value in values]

    def epoch_times(self, values: Sequence[Any]) -> list[datetime]:
        """UTC times from seconds since 1970; SignalGarbled where one is none."""
        return [self._epoch_time(value) for value in values]

    def time(self, value: Any, usual: timezone | None = None) -> datetime:
        """One UTC time from ISO 8601 text of up to nine fractional digits; `usual` is the zone of one that says none.

        SignalGarbled where it is none, says no time zone that the contract promises, or is not of this century.
        """
        found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} is not ISO 8601")
        day, clock, fraction, offset = found.groups()
        if offset is None and usual is None:
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} says no time zone")
        clock = clock if len(clock) == 8 else f"{clock}:00"
        try:
            micros = (fraction or "")[:6].ljust(6, "0")
            moment = datetime.fromisoformat(f"{day}T{clock}.{micros}{_offset(offset)}")
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=usual)).astimezone(timezone.utc)
        except (ValueError, OverflowError):
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} is on no calendar") from None
        if not EARLIEST <= moment < LATEST:
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} is not of this century")
        return moment

    def _epoch_time(self, value: Any) -> datetime:
        if type(value) not in {int, float} or value != value:
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} is no number of seconds")
        try:
            moment = _EPOCH + timedelta(seconds=value)
        except OverflowError:
            moment = _EPOCH  # refused with those of other centuries
        if not EARLIEST <= moment < LATEST:
            raise self.garbled(f"sent a time that cannot be used: {_short(value)} s since 1970 is not of this century")
        return moment

    def _within(
        self,
        values: Sequence[Any],
        starts: Sequence[datetime],
        what: str,
        unit: str,
        at_most: float,
        scale: float,
        text: bool,
    ) -> list[float | None]:
        if text:
            values = [_number_in(value) for value in values]
        bound = at_most / scale  # no product of a number that may be too large for one
        if not set(map(type, values)) <= _NUMBERS or not all([each is None or 0 <= each <= bound for each in values]):
            wrong, start = next(
                (each, start)
                for each, start in zip(values, starts, strict=True)
                if type(each) not in _NUMBERS or not (each is None or 0 <= each <= bound)
            )
            raise self.garbled(
                f"sent {_short(wrong)} as the {what} of {iso(start)}; "
                f"it must be a number that makes 0 to {at_most:g} {unit}, or null"
            )
        return [None if each is None else each * scale for each in values]


def fresh_until(now: datetime, slot_s: float, at_most: timedelta = FRESH_AT_MOST) -> datetime:
    """The end of the slot that holds `now`, but no later than `at_most` from it.

    Slots begin at multiples of their length since the epoch, UTC: until it ends, the same answer serves whoever asks.
    """
    edge_s = (now.timestamp() // slot_s + 1) * slot_s
    return min(datetime.fromtimestamp(edge_s, timezone.utc), now + at_most)


def _number_in(value: Any) -> Any:
    """The number in a string that a provider promises; anything else as it is, for the check to refuse."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _plausible(moments: Iterable[datetime]) -> bool:
    return all([EARLIEST <= moment < LATEST for moment in moments])


def _offset(text: str | None) -> str:
    """An offset as every Python reads it: with hours, colon and minutes."""
    if text is None:
        return ""
    if text in "Zz":
        return "+00:00"
    return f"{text[:3]}:{text[-2:] if len(text) > 3 else '00'}"


def _short(value: Any) -> str:
    return repr(value if not isinstance(value, str) else value[:_SHOWN])[: _SHOWN + 2]
