"""The signals of a site's zones: the first provider of a chain that answers, else the last good answer, marked stale.
In: the site's zones and providers. Out: a Forecast or what was Measured, each with who said it, or SignalFault.
`refresh` brings both into the store: plans are made by the one, jobs are charged by the other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.spec import InputError, iso
from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.signal.catalogue import OWN, check, made
from orchestrator.signal.chain import Chain, Link, Purpose, chained, factor_of
from orchestrator.signal.forecast import Forecast
from orchestrator.signal.last_good import LastGood
from orchestrator.signal.measured import Measured
from orchestrator.signal.provider import Setup
from orchestrator.site import ProviderSite, Site, ZoneSite

if TYPE_CHECKING:
    from orchestrator.http.session import Http

log = logging.getLogger(__name__)

MAX_STALE_S = 24 * 3600.0
HOLD_OFF_S = 15.0
"""How long a provider that failed is left alone when it does not say how long."""


class Signals:
    """Forecasts and measured values of a site's zones; a zone's providers are made when it is first asked for."""

    def __init__(
        self,
        zones: Mapping[str, ZoneSite],
        providers: Mapping[str, ProviderSite],
        cache_folder: Path,
        max_stale_s: float = MAX_STALE_S,
        hold_off_s: float = HOLD_OFF_S,
    ):
        self._zones = zones
        self._providers = providers
        self._cache_folder = cache_folder
        self._making = threading.Lock()
        """Zones are asked in threads of their own; what their providers share is made once."""
        self._links: dict[tuple[str, str], Link] = {}
        self._chains: dict[tuple[str, Purpose], Chain] = {}
        self._common: dict[Hashable, Any] = {}
        self._last_good = LastGood(cache_folder / "forecasts", max_stale_s)
        self._hold_off_s = hold_off_s
        self._held: dict[str, tuple[float, SignalFault]] = {}
        self._notes: dict[str, str | None] = {}
        """What each source last said of its forecast: it holds for what it measured too."""
        self._kept_at: dict[str, datetime] = {}

    @classmethod
    def of(cls, site: Site) -> Signals:
        """The signals of a site, with its `stale_for` and answers kept in its state folder."""
        return cls(site.zones, site.providers, site.state / "cache", max_stale_s=site.stale_for_s)

    def check(self) -> None:
        """Make every zone's providers; InputError names the first field that is wrong. Asks nobody."""
        for zone, of in self._zones.items():
            if of.file is not None and "csv" not in of.names and set(of.names) <= set(OWN):
                raise InputError(f"zones.{zone}.file: {', '.join(of.names)} reads no file; add csv, or remove it")
            self.chain(zone, "plan")
            self.chain(zone, "charge")
        check(self._providers)

    def chain(self, zone: str, purpose: Purpose = "plan") -> Chain:
        """The zone's providers for a purpose, and what they give; asks nobody. InputError where the site is wrong."""
        if zone not in self._zones:
            raise InputError(f"zone {zone} is not in the site file; its zones are {', '.join(self._zones)}")
        with self._making:
            if (zone, purpose) not in self._chains:
                of = self._zones[zone]
                self._chains[zone, purpose] = chained(zone, of, purpose, lambda name: self._link(zone, name))
            return self._chains[zone, purpose]

    def forecast(self, zone: str, now: datetime | None = None, purpose: Purpose = "plan") -> Forecast:
        """The slot that holds now and those after it, from the first provider of the purpose's chain that answers.

        A forecast of nothing but the present slot counts only where no provider has more. Where none answers and
        waiting may mend it: the last good answer, while it is young enough, with `stale` set. Raises SignalFault with
        the words of every provider where there is none.
        """
        now = now or datetime.now(timezone.utc)
        links, faults = self.chain(zone, purpose).links, list[SignalFault]()
        scant: Forecast | None = None
        for link in links:
            try:
                found = self._asked(zone, link, now)
            except SignalFault as fault:
                faults.append(fault)
                continue
            if _looks_ahead(found, now):
                self._keep(link, found)
                return found
            scant = scant or found
        if scant is not None:
            return scant
        if any(not isinstance(fault, SignalRefused) for fault in faults):
            for link in links:
                if (kept := self._last_good.find(link.source, now)) is not None:
                    why = _together(faults)
                    log.warning("%s; planning by the answer of %s", why, iso(kept.fetched_at))
                    return replace(kept, fault=why)
        raise _one(faults)

    def measured(self, zone: str, start: datetime, end: datetime, purpose: Purpose = "charge") -> Measured | None:
        """What was in [start, end), from the first provider of the purpose's chain that knows any of it; else None.

        Raises SignalFault where some provider does not answer and no other knows.
        """
        faults: list[SignalFault] = []
        for link in self.chain(zone, purpose).links:
            try:
                if isinstance(held := self._holding(link), SignalOutage):
                    raise held.with_traceback(None)
                points = link.provider.measured(link.zone_name, start, end)
            except SignalFault as fault:
                faults.append(fault)
                continue
            if any(point.g_per_kwh is not None for point in points):
                signal, factor, note = link.provider.signal, factor_of(link.provider), self._notes.get(link.source)
                return Measured(zone, link.name, signal, points, datetime.now(timezone.utc), factor, note)
        if faults:
            raise _one(faults)
        return None

    def _http(self) -> Http:
        """The process's session, whose libraries take a while to import: files and the demo grid need none."""
        from orchestrator.http.session import shared

        return shared(self._cache_folder)

    def _link(self, zone: str, name: str) -> Link:
        if (zone, name) not in self._links:
            of, settings = self._zones[zone], self._providers.get(name, ProviderSite())
            setup = Setup(name, zone, of, settings, self._http, self._common)
            where = (of.file if name == "csv" else settings.base_url) or ""
            source = f"{zone} {name} {setup.zone_name} {where}"
            is_local = name == "demo" or (name == "csv" and "://" not in where)
            self._links[zone, name] = Link(name, source, setup.zone_name, made(setup), is_local)
        return self._links[zone, name]

    def _asked(self, zone: str, link: Link, now: datetime) -> Forecast:
        """The provider's forecast; one that failed a moment ago is not asked again yet."""
        if (held := self._holding(link)) is not None:
            raise held.with_traceback(None)
        try:
            found = link.provider.forecast(link.zone_name, now)
        except SignalFault as fault:
            self._held[link.source] = (time.monotonic() + (fault.retry_after_s or self._hold_off_s), fault)
            raise
        self._held.pop(link.source, None)
        self._notes[link.source] = found.note
        return replace(found, zone=zone, provider=link.name)

    def _holding(self, link: Link) -> SignalFault | None:
        """What the provider said a moment ago, while it is to be left alone for it."""
        until, held = self._held.get(link.source, (0.0, None))
        return held if time.monotonic() < until else None

    def _keep(self, link: Link, found: Forecast) -> None:
        if not link.is_local and self._kept_at.get(link.source) != found.fetched_at:
            self._last_good.keep(link.source, found)
            self._kept_at[link.source] = found.fetched_at


def _looks_ahead(found: Forecast, now: datetime) -> bool:
    """Whether it knows anything beyond the slot that holds now."""
    return any(point.start > now and point.g_per_kwh is not None for point in found.points)


def _together(faults: list[SignalFault]) -> str:
    return "; then ".join(str(fault) for fault in faults)


def _one(faults: list[SignalFault]) -> SignalFault:
    """One fault of a zone's providers: the only one, or the last good hope's kind with the words of all."""
    if len(faults) == 1:
        return faults[0]
    worst = next((fault for fault in faults if not isinstance(fault, SignalRefused)), faults[0])
    first, rest = worst, [str(fault) for fault in faults if fault is not worst]
    text = f"{str(first).split(': ', 2)[2]}; and {'; and '.join(rest)}"
    if isinstance(first, SignalGarbled):
        return SignalGarbled(first.provider, first.zone, text)
    if isinstance(first, SignalRefused):
        return SignalRefused(first.provider, first.zone, text, first.reason)
    return SignalOutage(first.provider, first.zone, text, first.retry_after_s)
