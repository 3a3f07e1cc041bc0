"""The Carbon Intensity API of Great Britain's system operator: average intensity in half-hours, no key.
In: `GB`, an outward postcode or a region's number. Out: a Forecast of 48 hours, and what was measured nationally.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.http.faults import Reason, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker
from orchestrator.signal.forecast import Forecast, Kind, Point, Share, Signal, from_on, ordered
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading, fresh_until
from orchestrator.signal.window import floor, known, pieces

if TYPE_CHECKING:
    from orchestrator.http.session import Answer, Http

BASE_URL = "https://api.carbonintensity.org.uk"
SLOT_S = 1800.0
RENEWABLE = ("biomass", "hydro", "solar", "wind")
"""The fuels that count in a region's mix; what renewables are in `imports` and `other` is not known and does not."""

Series = tuple[tuple[Point, ...], tuple[Share, ...]]

_RANGE = timedelta(days=14)
_NATIONS = {"ENGLAND": "15", "SCOTLAND": "16", "WALES": "17"}
_REGION = re.compile(r"(?:REGIONID/)?(\d{1,2})")
_POSTCODE = re.compile(r"(?:POSTCODE/)?([A-Z]{1,2}\d[A-Z\d]?)(?: +\d[A-Z]{2})?")
_NOTHING = (
    "answered with nothing, as it does for a postcode or region that it does not know and when it is out of order; "
    "check the zone's name or `as`, or try later"
)


class Uk:
    """The service; it asks for no key. It says nowhere when it made a forecast, and rewrites those that have passed."""

    name = "uk"
    signal: Signal = "average"
    factor: Literal["direct"] = "direct"
    """Wind, sun and nuclear count as 0 g/kWh."""

    def __init__(self, http: Http, base_url: str = BASE_URL, limits: Limits | None = None, has_renewable: bool = False):
        self._http = http
        self.has_renewable = has_renewable
        self._base = base_url.rstrip("/")
        self._limits = limits or Limits()

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The half-hour that holds `now` and those after it, in g/kWh; of a region with its renewable share.

        Raises SignalRefused where the zone's name is neither GB nor a postcode nor a region.
        """
        place = _place(zone_name)
        path = f"{place.root}/{_minute(floor(now, SLOT_S))}/fw48h{place.path}"
        reading = Reading(self.name, zone_name)
        body = _Body(reading, place, "forecast")

        def read(document: Any) -> Series:
            points, shares = body.read(document)
            return reading.ahead(points, now), from_on(shares, now)  # the first slot ends where the question begins

        answer = self._ask(path, zone_name, read)
        points, shares = answer.value
        return Forecast(
            zone=zone_name,
            provider=self.name,
            signal=self.signal,
            points=points,
            fetched_at=answer.fetched_at,
            factor=self.factor,
            renewable=shares,
        )

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Half-hours that begin in [start, end) and whose actual intensity is known; none of a region: it has none."""
        place = _place(zone_name)
        if not place.is_national:
            return ()
        body, found = _Body(Reading(self.name, zone_name), place, "measured"), list[Point]()
        for begin, stop in pieces(start, end, SLOT_S, _RANGE):
            found += self._ask(f"{place.root}/{_minute(begin)}/{_minute(stop)}", zone_name, body.read).value[0]
        return known(found, start, end)

    def _ask(self, path: str, zone_name: str, read: Callable[[Any], Series]) -> Answer[Series]:
        return self._http.get(
            f"{self._base}{path}",
            {},
            lambda document: (read(document), fresh_until(self._http.now(), SLOT_S)),
            Asker(self.name, zone_name),
            limits=self._limits,
            explain=_explain,
        )


def make(setup: Setup) -> Uk:
    """The provider of one zone, whose name is GB, a postcode or a region."""
    is_region = setup.zone_name.strip().upper() != "GB"
    return Uk(setup.http(), setup.base_url(BASE_URL), setup.limits, has_renewable=is_region)


@dataclass(frozen=True)
class _Place:
    """What a zone's name means to the service: the whole of Great Britain, or a part of it."""

    regionid: str | None = None
    postcode: str | None = None

    @property
    def is_national(self) -> bool:
        return self.regionid is None and self.postcode is None

    @property
    def root(self) -> str:
        return "/intensity" if self.is_national else "/regional/intensity"

    @property
    def path(self) -> str:
        if self.postcode is not None:
            return f"/postcode/{self.postcode}"
        return "" if self.regionid is None else f"/regionid/{self.regionid}"


def _place(zone_name: str) -> _Place:
    """GB; `BS16` or a whole postcode; `13`, `regionid/13`, England, Scotland or Wales. SignalRefused for the rest."""
    name = zone_name.strip().upper()
    if name == "GB":
        return _Place()
    if found := _REGION.fullmatch(_NATIONS.get(name, name)):
        return _Place(regionid=found[1])
    if found := _POSTCODE.fullmatch(name):
        return _Place(postcode=found[1])
    text = "the provider covers GB, outward postcodes such as BS16 and regions such as regionid/13; give one with `as`"
    raise SignalRefused(Uk.name, zone_name, text, "zone")


def _explain(status: int, said: str) -> Reason | None:
    """An unknown postcode or region is 400, as is a wrong time; only the words tell."""
    names_place = "postcode" in said.lower() or "region" in said.lower()
    return "zone" if status == 400 and names_place else None


def _minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%MZ")


@dataclass(frozen=True)
class _Body:
    """Reads one answer: half-hours of the forecast or of the actual intensity, and a region's renewable shares."""

    reading: Reading
    place: _Place
    kind: Kind

    def read(self, document: Any) -> Series:
        """The points and shares of an answer; SignalGarbled on what is none."""
        data = self.reading.mapping(document).get("data")
        if not data and (data is None or self.kind == "forecast"):
            raise self.reading.garbled(_NOTHING)
        rows = self.reading.rows(data if self.place.is_national else self._regions(data), "half-hours")
        if not rows and self.kind == "forecast":
            raise self.reading.garbled(_NOTHING)
        starts = self.reading.times(self.reading.column(rows, "from"))
        ends = self.reading.times(self.reading.column(rows, "to"))
        if any(end <= start for start, end in zip(starts, ends, strict=True)):
            raise self.reading.garbled("sent a half-hour that ends before it begins")
        figure = "actual" if self.kind == "measured" else "forecast"
        given = self.reading.column(self.reading.column(rows, "intensity"), figure)
        values = self.reading.intensities(given, starts)
        points = ordered(
            Point(start, end, value, self.kind) for start, end, value in zip(starts, ends, values, strict=True)
        )
        return points, self._shares(rows, starts, ends)

    def _regions(self, data: Any) -> Any:
        """The half-hours of the one region in an answer, which is an object or a list with that object."""
        regions = data if isinstance(data, list) else [data]
        region = self.reading.mapping(regions[0])
        asked, told = (
            (self.place.postcode, region.get("postcode"))
            if self.place.postcode is not None
            else (self.place.regionid, region.get("regionid"))
        )
        if len(regions) > 1 or str(told).upper() != asked:
            found = f"{len(regions)} regions" if len(regions) > 1 else repr(str(told)[:40])
            raise self.reading.garbled(f"answered for {found}; {asked} was asked for")
        return region.get("data")

    def _shares(self, rows: list[Any], starts: list[datetime], ends: list[datetime]) -> tuple[Share, ...]:
        """The renewable share of each half-hour; unknown where the mix lacks a renewable fuel, () without any mix."""
        mixes = [row["generationmix"] if isinstance(row.get("generationmix"), list) else [] for row in rows]
        if not any(mixes):
            return ()
        fuels = [self.reading.percents([_percent(mix, fuel) for mix in mixes], starts) for fuel in RENEWABLE]
        return ordered(Share(start, end, _sum(parts)) for start, end, *parts in zip(starts, ends, *fuels, strict=True))


def _percent(mix: list[Any], fuel: str) -> Any:
    found = [part.get("perc") for part in mix if isinstance(part, dict) and part.get("fuel") == fuel]
    return found[0] if found else None


def _sum(parts: Iterable[float | None]) -> float | None:
    """The sum, unknown where a part of it is."""
    total = 0.0
    for part in parts:
        if part is None:
            return None
        total += part
    return total
