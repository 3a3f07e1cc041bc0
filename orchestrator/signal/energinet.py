"""Energi Data Service of Energinet: average intensity of the two Danish price areas, in slots of 5 minutes, no key.
In: a price area, DK1 or DK2. Out: a Forecast from CO2EmisProg, or measured points from CO2Emis.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import repeat
from typing import TYPE_CHECKING, Any

from orchestrator.http.faults import SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker
from orchestrator.signal.forecast import Forecast, Kind, Point, Signal, slots
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading, fresh_until
from orchestrator.signal.window import floor, known, pieces

if TYPE_CHECKING:
    from orchestrator.http.session import Answer, Http

BASE_URL = "https://api.energidataservice.dk"
SLOT_S = 300.0
AREAS = ("DK1", "DK2")

_RANGE = timedelta(days=31)
"""Of one question about the past: some 9,000 records of 100 bytes."""


class Energinet:
    """The service; it asks for no key. It says nowhere when a forecast was made."""

    name = "energinet"
    signal: Signal = "average"

    def __init__(self, http: Http, base_url: str = BASE_URL, limits: Limits | None = None):
        self._http = http
        self._base = base_url.rstrip("/")
        self._limits = limits or Limits()

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh, to the end of the day that the service has reached.

        Raises SignalRefused where the zone is no price area.
        """
        area, reading = _area(zone_name), Reading(self.name, zone_name)
        answer = self._ask(
            "CO2EmisProg",
            zone_name,
            _window(area, floor(now, SLOT_S)),
            lambda document: reading.ahead(_points(document, reading, area, "forecast"), now),
        )
        return Forecast(zone_name, self.name, self.signal, answer.value, answer.fetched_at)

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """What the service measured in [start, end), in g/kWh; it has the last slot within minutes."""
        area, reading, found = _area(zone_name), Reading(self.name, zone_name), list[Point]()
        for begin, stop in pieces(start, end, SLOT_S, _RANGE):
            found += self._ask(
                "CO2Emis",
                zone_name,
                _window(area, begin, stop),
                lambda document: _points(document, reading, area, "measured"),
            ).value
        return known(found, start, end)

    def _ask(
        self, dataset: str, zone_name: str, params: dict[str, str], read: Callable[[Any], tuple[Point, ...]]
    ) -> Answer[tuple[Point, ...]]:
        return self._http.get(
            f"{self._base}/dataset/{dataset}",
            params,
            lambda document: (read(document), fresh_until(self._http.now(), SLOT_S)),
            Asker(self.name, zone_name),
            limits=self._limits,
        )


def make(setup: Setup) -> Energinet:
    """The provider of one zone, whose name is its price area."""
    return Energinet(setup.http(), setup.base_url(BASE_URL), setup.limits)


def _area(zone_name: str) -> str:
    """The price area in a zone's name: DK1, dk1 and DK-DK1 are one."""
    area = zone_name.upper().removeprefix("DK-")
    if area not in AREAS:
        text = f"the provider covers {' and '.join(AREAS)} alone; give one with `as`, or the zone another provider"
        raise SignalRefused(Energinet.name, zone_name, text, "zone")
    return area


def _window(area: str, start: datetime, end: datetime | None = None) -> dict[str, str]:
    """The question for an area's records that begin in [start, end), or from start on."""
    params = {
        "filter": json.dumps({"PriceArea": [area]}, separators=(",", ":")),
        "start": _minute(start),
        "timezone": "UTC",  # else the times of the question are Danish ones
        "limit": "0",  # else a hundred records, the last ones
    }
    return params if end is None else {**params, "end": _minute(end)}


def _minute(at: datetime) -> str:
    """A time in UTC as the service reads it: to the minute, without a zone."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M")


def _points(document: Any, reading: Reading, area: str, kind: Kind) -> tuple[Point, ...]:
    """The points of an answer, whatever the order of its records; its times are UTC and do not say so."""
    document = reading.mapping(document)
    records = reading.rows(document.get("records"), "records")
    total = document.get("total")
    if isinstance(total, int) and total > len(records):
        raise reading.garbled(f"sent {len(records)} of {total} records; try later")
    for found in reading.column(records, "PriceArea"):
        if found != area:
            raise reading.garbled(f"answered for price area {str(found)[:40]!r}; {area} was asked for")
    starts = reading.utc_times(reading.column(records, "Minutes5UTC"))
    values = reading.intensities(reading.column(records, "CO2Emission"), starts)
    return slots(starts, values, SLOT_S, repeat(kind))
