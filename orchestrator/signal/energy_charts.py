"""Energy-Charts of Fraunhofer ISE: average intensity of European countries, measured and then forecast, no key.
In: a country's code. Out: a Forecast as far as the service sees, with renewable shares, or measured points.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jobs.spec import iso
from orchestrator.http.faults import Reason, SignalFault, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker
from orchestrator.signal.forecast import Forecast, Kind, Point, Share, Signal, from_on, modal_gap_s, ordered, slots
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading
from orchestrator.signal.window import known, pieces

if TYPE_CHECKING:
    from orchestrator.http.session import Answer, Http

log = logging.getLogger(__name__)

BASE_URL = "https://api.energy-charts.info"
FRESH = timedelta(minutes=15)
"""The service turns away who asks more often, and an answer holds the whole day."""
DEPRECATED = "Energy-Charts announces the end of this data; give the zone a second provider"

Value = TypeVar("Value")

_RANGE = timedelta(days=31)
_USUAL_SLOT_S = 900.0


class EnergyCharts:
    """The service; it asks for no key. It says nowhere when a forecast was made, nor which country it answers for."""

    name = "energy_charts"
    signal: Signal = "average"
    has_renewable = True

    def __init__(self, http: Http, base_url: str = BASE_URL, limits: Limits | None = None):
        self._http = http
        self._base = base_url.rstrip("/")
        self._limits = limits or Limits()

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh: what is measured already, then what is forecast.

        It reaches to the end of the day at most, some 19 hours ahead. Raises SignalRefused for an unknown country.
        """
        reading = Reading(self.name, zone_name)

        def read(document: Any) -> _Day:
            day = _Reader(reading).day(document)
            return day._replace(points=reading.ahead(day.points, now))

        day = self._ask("co2eq", zone_name, {}, read)
        return Forecast(
            zone=zone_name,
            provider=self.name,
            signal=self.signal,
            points=day.value.points,
            fetched_at=day.fetched_at,
            note=DEPRECATED if day.value.is_deprecated else None,
            renewable=from_on(self._shares(zone_name, now), now),
        )

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """The points in [start, end) that are measured, in g/kWh; the service has them within an hour or two."""
        reader, found = _Reader(Reading(self.name, zone_name)), list[Point]()
        for begin, stop in pieces(start, end, _USUAL_SLOT_S, _RANGE):
            window = {"start": iso(begin), "end": iso(stop)}
            points = self._ask("co2eq", zone_name, window, reader.day).value.points
            found += (point for point in points if point.kind == "measured")
        return known(found, start, end)

    def _shares(self, zone_name: str, now: datetime) -> tuple[Share, ...]:
        """Renewable shares of load in percent; none where they cannot be had, which is no fault of the forecast."""
        failed = f"{self.name} {self._base} {zone_name.lower()} shares"
        if self._http.notes.find(failed, now) is not None:
            return ()
        reader, once = _Reader(Reading(self.name, zone_name)), replace(self._limits, retries=0)
        try:
            return self._ask("ren_share_forecast", zone_name, {}, reader.shares, once).value
        except SignalFault as fault:
            log.info("%s; the forecast goes without renewable shares", fault)
            self._http.notes.put(failed, {}, now, now + FRESH)
            return ()

    def _ask(
        self,
        what: str,
        zone_name: str,
        more: Mapping[str, str],
        read: Callable[[Any], Value],
        limits: Limits | None = None,
    ) -> Answer[Value]:
        try:
            return self._http.get(
                f"{self._base}/{what}",
                {"country": zone_name.lower(), **more},
                lambda document: (read(document), self._http.now() + FRESH),
                Asker(self.name, zone_name),
                limits=limits or self._limits,
                explain=_explain,
            )
        except SignalRefused as refused:
            if refused.reason != "coverage":
                raise
        text = f"the provider has no /{what} (any more): 404; give the zone another provider, or check base_url"
        raise SignalRefused(self.name, zone_name, text, "request")


def make(setup: Setup) -> EnergyCharts:
    """The provider of one zone, whose name is a country's code."""
    return EnergyCharts(setup.http(), setup.base_url(BASE_URL), setup.limits)


def _explain(status: int, said: str) -> Reason | None:
    """An unknown country is 400 and told in plain text; 404 is an address that the service has given up."""
    if status == 400 and "country" in said.lower():
        return "zone"
    return "coverage" if status == 404 else None


class _Day(NamedTuple):
    points: tuple[Point, ...]
    is_deprecated: bool


@dataclass(frozen=True)
class _Reader:
    """Reads one answer: columns of equal length, with null where there is nothing."""

    reading: Reading

    def day(self, document: Any) -> _Day:
        """Points of what was asked for, without the nulls that fill the day up; SignalGarbled on what is none."""
        document = self.reading.mapping(document)
        starts = self._starts(document)
        known = self.reading.intensities(self._column(document, "co2eq", starts), starts)
        ahead = self.reading.intensities(self._column(document, "co2eq_forecast", starts), starts)
        values = [after if was is None else was for was, after in zip(known, ahead, strict=True)]
        kinds: list[Kind] = ["forecast" if was is None else "measured" for was in known]
        while values and values[-1] is None:
            values.pop()
        slot_s = modal_gap_s(starts) or _USUAL_SLOT_S
        points = slots(starts[: len(values)], values, slot_s, kinds)
        return _Day(points, document.get("deprecated") is True)

    def shares(self, document: Any) -> tuple[Share, ...]:
        """Renewable shares of load in percent; SignalGarbled on what is none."""
        document = self.reading.mapping(document)
        starts = self._starts(document)
        percents = self.reading.percents(self._column(document, "ren_share", starts), starts)
        length = timedelta(seconds=modal_gap_s(starts) or _USUAL_SLOT_S)
        return ordered(Share(start, start + length, percent) for start, percent in zip(starts, percents, strict=True))

    def _starts(self, document: dict[str, Any]) -> list[datetime]:
        return self.reading.epoch_times(self.reading.rows(document.get("unix_seconds"), "unix_seconds"))

    def _column(self, document: dict[str, Any], name: str, starts: list[datetime]) -> list[Any]:
        column = self.reading.rows(document.get(name), name)
        if len(column) != len(starts):
            raise self.reading.garbled(f"sent {len(column)} values of {name} for {len(starts)} times; try later")
        return column
