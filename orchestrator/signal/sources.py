"""The chain of each zone's providers: the first that answers, else the last good answer, marked stale.
In: the site's zones and providers. Out: a Forecast for a zone, or SignalFault with what every provider said.
The controller plans and charges by it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jobs.spec import InputError, iso
from orchestrator.signal.catalogue import made
from orchestrator.signal.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.signal.http import shared
from orchestrator.signal.last_good import LastGood
from orchestrator.signal.provider import Provider, Setup
from orchestrator.site import ProviderSite, ZoneSite

log = logging.getLogger(__name__)

MAX_STALE_S = 24 * 3600.0
HOLD_OFF_S = 15.0
"""How long a provider that failed is left alone when it does not say how long."""


_LOCAL = frozenset({"csv", "demo"})
"""Providers on this machine: they have no outage that an earlier answer could bridge."""


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
        self._chains: dict[str, tuple[tuple[str, Provider], ...]] = {}
        self._common: dict[Hashable, Any] = {}
        self._last_good = LastGood(cache_folder / "forecasts", max_stale_s)
        self._hold_off_s = hold_off_s
        self._held: dict[str, tuple[float, SignalFault]] = {}
        self._kept_at: dict[str, datetime] = {}

    def check(self) -> None:
        """Make every zone's providers; InputError names the first field that is wrong. Asks nobody."""
        for zone in self._zones:
            self._chain(zone)

    def forecast(self, zone: str, now: datetime | None = None) -> Forecast:
        """The slot that holds now and those after it, from the first provider of the zone that answers.

        Where none does and waiting may mend it, the last good answer (at most a day old), with `stale` set.
        Raises SignalFault with the words of every provider where there is none.
        """
        now = now or datetime.now(timezone.utc)
        faults: list[SignalFault] = []
        for source, provider in self._chain(zone):
            try:
                found = self._asked(zone, source, provider, now)
            except SignalFault as fault:
                faults.append(fault)
                continue
            if provider.name not in _LOCAL and self._kept_at.get(source) != found.fetched_at:
                self._last_good.keep(source, found)
                self._kept_at[source] = found.fetched_at
            return found
        if any(not isinstance(fault, SignalRefused) for fault in faults):
            for source, _ in self._chain(zone):
                if (kept := self._last_good.find(source, now)) is not None:
                    log.warning("%s; planning by the answer of %s", _together(faults), iso(kept.fetched_at))
                    return kept
        raise _one(faults)

    def measured(self, zone: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points of the past in [start, end), from the first provider of the zone that has any; else empty.

        Raises SignalFault where no provider answers.
        """
        faults: list[SignalFault] = []
        for _, provider in self._chain(zone):
            try:
                if points := provider.measured(self._name(zone), start, end):
                    return points
            except SignalFault as fault:
                faults.append(fault)
        if faults:
            raise _one(faults)
        return ()

    def _chain(self, zone: str) -> tuple[tuple[str, Provider], ...]:
        if zone not in self._zones:
            raise InputError(f"zone {zone} is not in the site file; its zones are {', '.join(self._zones)}")
        if zone not in self._chains:
            self._chains[zone] = tuple(self._source(zone, name) for name in self._zones[zone].provider)
        return self._chains[zone]

    def _source(self, zone: str, name: str) -> tuple[str, Provider]:
        """A provider and the text that tells it from every other source."""
        settings = self._providers.get(name, ProviderSite())
        setup = Setup(name, zone, self._zones[zone], settings, lambda: shared(self._cache_folder), self._common)
        where = self._zones[zone].file if name == "csv" else settings.base_url
        return f"{zone} {name} {setup.zone_name} {where or ''}", made(setup)

    def _name(self, zone: str) -> str:
        return self._zones[zone].as_name or zone

    def _asked(self, zone: str, source: str, provider: Provider, now: datetime) -> Forecast:
        """The provider's forecast; one that failed a moment ago is not asked again yet."""
        until, held = self._held.get(source, (0.0, None))
        if held is not None and time.monotonic() < until:
            raise held.with_traceback(None)
        try:
            found = provider.forecast(self._name(zone), now)
        except SignalFault as fault:
            self._held[source] = (time.monotonic() + (fault.retry_after_s or self._hold_off_s), fault)
            raise
        self._held.pop(source, None)
        return replace(found, zone=zone)


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
