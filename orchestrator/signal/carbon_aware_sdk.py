"""The Web API of the Green Software Foundation's Carbon Aware SDK: a server of one's own before another data source.
In: a location that the server knows, the server's address, and the kind of its data source. Out: a Forecast, or points.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobs.spec import InputError, iso
from orchestrator.http.faults import Reason, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.nothing import NO_CONTENT
from orchestrator.http.refusal import Asker
from orchestrator.signal.forecast import Forecast, Kind, Point, Signal, modal_gap_s, ordered
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading, fresh_until
from orchestrator.signal.window import known, pieces

if TYPE_CHECKING:
    from orchestrator.http.session import Answer, Http

_RANGE = timedelta(days=7)
_USUAL_SLOT_S = 300.0
_SHORTEST_S, _LONGEST_S = 60.0, 86400.0
_REMEDY = "check that the server's data source has it for the zone, or give the zone another provider"
_SPAN = re.compile(r"(?:(\d{1,3})\.)?(\d\d):(\d\d):(\d\d)(?:\.\d+)?")


class CarbonAwareSdk:
    """One server. What its intensities are, average or marginal, no answer tells: the site file does."""

    name = "carbon_aware_sdk"

    def __init__(self, http: Http, base_url: str, signal: Signal, limits: Limits | None = None):
        self._http = http
        self._base = base_url.rstrip("/")
        self.signal: Signal = signal
        self._limits = limits or Limits()

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh, as far as the data source sees.

        Raises SignalRefused where the data source has no forecasts, or the server does not know the location.
        """
        reading = Reading(self.name, zone_name)

        def read(document: Any) -> _Series:
            points, issued_at = _Reader(reading).forecast(document)
            return reading.ahead(points, now), issued_at

        answer = self._ask("forecasts/current", {"location": zone_name}, zone_name, read)
        points, issued_at = answer.value
        return Forecast(zone_name, self.name, self.signal, points, answer.fetched_at, issued_at)

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """What the data source says of what has ended in [start, end), in g/kWh; whether it estimated is not told."""
        reader, found = _Reader(Reading(self.name, zone_name)), list[Point]()
        for begin, stop in pieces(start, end, _USUAL_SLOT_S, _RANGE):
            window = {"location": zone_name, "time": iso(begin), "toTime": iso(stop)}
            points, _ = self._ask("bylocation", window, zone_name, reader.past).value
            found += (point for point in points if point.end <= self._http.now())
        return known(found, start, end)

    def _ask(
        self, what: str, params: Mapping[str, str], zone_name: str, read: Callable[[Any], _Series]
    ) -> Answer[_Series]:
        def reader(document: Any) -> tuple[_Series, datetime]:
            series = read(document)
            slot_s = modal_gap_s(point.start for point in series[0]) or _SHORTEST_S
            return series, fresh_until(self._http.now(), max(slot_s, _SHORTEST_S))

        try:
            return self._http.get(
                f"{self._base}/emissions/{what}",
                params,
                reader,
                Asker(self.name, zone_name),
                limits=self._limits,
                explain=_explain,
            )
        except SignalRefused as refused:
            if refused.reason != "coverage":
                raise
        raise SignalRefused(
            self.name, zone_name, f"the provider cannot tell /emissions/{what} (501); {_REMEDY}", "access"
        )


def make(setup: Setup) -> CarbonAwareSdk:
    """The provider of one zone; InputError where the site file does not say where the server is or what it tells."""
    example = "http://localhost:8080"
    if setup.settings.base_url is None:
        raise InputError(f"{setup.field}.base_url: is missing; give the address of your server, e.g. {example}")
    if setup.settings.signal is None:
        raise InputError(
            f"{setup.field}.signal: is missing; write marginal where the server's data source is WattTime, and average "
            "where it is Electricity Maps"
        )
    return CarbonAwareSdk(setup.http(), setup.base_url(example), setup.settings.signal, setup.limits)


def _explain(status: int, said: str) -> Reason | None:
    """501 is a data source without what is asked; an unknown location is 400 as wrong times are, and the words tell."""
    if status == 501:
        return "coverage"
    return "zone" if status == 400 and "location" in said.lower() else None


_Series = tuple[tuple[Point, ...], datetime | None]
"""Points, and when they were forecast where an answer says so."""


@dataclass(frozen=True)
class _Reader:
    """Reads one answer; SignalGarbled on what is none."""

    reading: Reading

    def forecast(self, document: Any) -> _Series:
        """The forecast of the one location that was asked for, and when it was made."""
        if document is NO_CONTENT or document == []:
            raise self.reading.garbled(f"has no forecast of it; {_REMEDY}")
        of = self.reading.mapping(self.reading.rows(document, "forecasts")[0])
        if len(document) > 1 or str(of.get("location")).lower() != self.reading.zone.lower():
            told = f"{len(document)} locations" if len(document) > 1 else repr(str(of.get("location"))[:40])
            raise self.reading.garbled(f"answered for {told}; check the zone's name")
        rows = self.reading.rows(of.get("forecastData"), "forecastData")
        window = of.get("windowSize")
        spans = [_minutes(row.get("duration")) or _minutes(window) for row in self._mappings(rows)]
        points = self._points(rows, "timestamp", "value", spans, "forecast")
        made = of.get("generatedAt")
        is_told = made is not None and not str(made).startswith("0001-")  # .NET's time of nothing
        return points, self.reading.time(made) if is_told else None

    def past(self, document: Any) -> _Series:
        """The values of one location; none where the server answers that it has none."""
        rows = [] if document is NO_CONTENT else self._mappings(self.reading.rows(document, "emissions"))
        places = {str(row.get("location")) for row in rows}
        if len(places) > 1:
            raise self.reading.garbled(f"answered for {len(places)} locations; check the zone's name")
        spans = [_span(row.get("duration")) for row in rows]
        return self._points(rows, "time", "rating", spans, "measured"), None

    def _points(
        self, rows: Sequence[Any], time: str, value: str, spans: Sequence[float | None], kind: Kind
    ) -> tuple[Point, ...]:
        starts = self.reading.times(self.reading.column(rows, time))
        values = self.reading.intensities(self.reading.column(rows, value), starts)
        gap_s = modal_gap_s(starts)
        lengths = [timedelta(seconds=self._length_s(span_s or gap_s)) for span_s in spans]
        return ordered(
            Point(start, start + length, value, kind)
            for start, length, value in zip(starts, lengths, values, strict=True)
        )

    def _length_s(self, told_s: float | None) -> float:
        if told_s is None:
            raise self.reading.garbled("sent a single value and does not say how long it lasts; try later")
        if not _SHORTEST_S <= told_s <= _LONGEST_S:
            raise self.reading.garbled(f"sent a value that lasts {told_s:g} s; it must be from a minute to a day")
        return told_s

    def _mappings(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [self.reading.mapping(row) for row in rows]


def _minutes(told: Any) -> float | None:
    """Seconds of a number of minutes; None where it is not told: 0 stands for that."""
    return told * 60.0 if type(told) in {int, float} and told > 0 else None


def _span(told: Any) -> float | None:
    """Seconds of a .NET time span such as 00:05:00 or 1.00:00:00; None where it is not told."""
    found = _SPAN.fullmatch(told) if isinstance(told, str) else None
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 86400.0 + hours * 3600 + minutes * 60 + seconds) or None
