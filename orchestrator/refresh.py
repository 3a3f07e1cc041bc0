"""Forecasts and actuals, brought into the store beside the controller's passes.
In: the site's signals. Out: the newest forecast of every zone, made better by its history, and what really was.
Passes read the store and never wait for a provider; the store says what was asked when, whatever process asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from sqlalchemy import func, select

from jobs.spec import InputError, LowtideError, Unavailable
from orchestrator.controller import utcnow
from orchestrator.http.faults import SignalFault
from orchestrator.predict import improve
from orchestrator.signal.chain import Purpose
from orchestrator.signal.forecast import Forecast, modal_gap_s
from orchestrator.signal.sources import Signals
from orchestrator.site import Site
from orchestrator.store import Store, facts, forecasts
from orchestrator.store.schema import Job

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Zones that are asked for at the same time."""
HISTORY = timedelta(days=42)
"""How much of a zone's past is fetched and learned from: six of each day of the week."""
AHEAD = timedelta(days=7)
"""How far a forecast is extended from the zone's history."""
REVISED = timedelta(hours=24)
"""How far back measured values are asked for again: most providers revise within a day."""
SQUEEZED_S = 300.0
"""Slots shorter than this are a replay in quick motion, which has no history to learn from."""


class Refresher:
    """Keeps the store's signals fresh; every zone is asked at most once a slot, by whatever process."""

    def __init__(self, store: Store, site: Site) -> None:
        self._store, self._site = store, site
        self._signals = Signals.of(site)
        self._signals.check()

    def once(self, zones: Iterable[str] | None = None) -> dict[str, LowtideError]:
        """Ask for every zone of the site, or for some, that its slot has not been asked for yet.

        Returns the faults by zone: a zone whose provider or file is wrong keeps no other from its forecast.
        """
        asked = list(self._site.zones if zones is None else zones)
        with ThreadPoolExecutor(AT_ONCE, "refresh") as pool:
            faults = dict(zip(asked, pool.map(self._refresh, asked), strict=True))
        return {zone: fault for zone, fault in faults.items() if fault is not None}

    def forever(self, stop: threading.Event, every_s: float) -> None:
        """Go on until `stop` is set; a fault is kept in the store and the next round tries again."""
        while not stop.is_set():
            try:
                self.once()
            except LowtideError as fault:
                log.warning("%s", fault)
            except Exception as fault:  # the thread's edge: without it no forecast would come any more
                log.exception("refreshing failed (%s: %s); it is tried again", type(fault).__name__, fault)
            stop.wait(every_s)

    def _refresh(self, zone: str) -> LowtideError | None:
        """Ask for one zone; the first fault of its purposes."""
        faults = []
        purposes: tuple[Purpose, ...] = ("plan", "charge") if self._site.zones[zone].charges_apart else ("plan",)
        for purpose in purposes:
            now = utcnow()
            if self._due(zone, purpose, now):
                faults.append(self._ask(zone, purpose, now))
        return next(filter(None, faults), None)

    def _due(self, zone: str, purpose: Purpose, now: datetime) -> bool:
        """True where this slot was not asked for yet, or others were asked, or the answer was a fault.

        Whoever failed is held off below.
        """
        with self._store.read() as session:
            row = forecasts.tried(session, zone, purpose)
            return (
                row is None
                or row.fault is not None
                or not forecasts.is_of(row, self._source(zone, purpose))
                or self._site.slot_start(row.tried_at) < self._site.slot_start(now)
            )

    def _source(self, zone: str, purpose: Purpose) -> str:
        return self._signals.chain(zone, purpose).source

    def _ask(self, zone: str, purpose: Purpose, now: datetime) -> LowtideError | None:
        try:
            given = self._signals.forecast(zone, now, purpose)
        except (SignalFault, InputError) as fault:
            log.warning("%s", fault)
            with self._store.write() as session:
                forecasts.keep(session, zone, purpose, now, None, str(fault), self._source(zone, purpose))
            return fault
        self._measured(zone, purpose, given, now)
        better = self._improved(given, now) if purpose == "plan" else given
        with self._store.write() as session:
            forecasts.keep(session, zone, purpose, now, better, given.fault, self._source(zone, purpose))
            if not given.stale:
                forecasts.keep_earlier(session, given)
            # Also of what is planned by: a report shows it beside what charges, and an account leaves it out.
            facts.add_current(session, given, now)
        return None

    def _improved(self, given: Forecast, now: datetime) -> Forecast:
        with self._store.read() as session:
            past = forecasts.history(session, given.zone, self._names(given.zone, "plan"), now - HISTORY)
            before = forecasts.earlier(session, given.zone, given.provider)
        return improve(given, past, before, now, now + AHEAD)

    def _names(self, zone: str, purpose: Purpose) -> list[str]:
        """The zone's providers: the one that measures may be another than the one that forecasts."""
        return [link.name for link in self._signals.chain(zone, purpose).links]

    def _measured(self, zone: str, purpose: Purpose, given: Forecast, now: datetime) -> None:
        """Ask what really was, once a slot of the provider's: the ledger charges by it, forecasts learn from it."""
        slot_s = modal_gap_s(point.start for point in given.points) or self._site.slot_s
        began = datetime.fromtimestamp(now.timestamp() // slot_s * slot_s, now.tzinfo)
        with self._store.read() as session:
            row = forecasts.tried(session, zone, purpose)
            if row is not None and row.measured_at is not None and row.measured_at >= began:
                return
            known = forecasts.latest_start(session, zone, self._names(zone, purpose))
            start = now - HISTORY
            if slot_s < SQUEEZED_S:
                ended = func.coalesce(Job.ended_at, now)
                first = session.scalar(select(func.min(Job.submitted_at)).where(ended > now - REVISED))
                if first is None:
                    return
                start = max(first, now - REVISED) - timedelta(seconds=3600)
        start = max(start, known - REVISED) if known else start
        try:
            # Up to the end of the slot in progress: what a provider has of it already is asked for with the rest.
            found = self._signals.measured(zone, start, began + timedelta(seconds=slot_s), purpose)
        except (Unavailable, InputError) as fault:
            log.info("%s", fault)
            found = None
        with self._store.write() as session:
            forecasts.asked_measured(session, zone, purpose, now)
            if found is not None:
                facts.add_intensities(session, found)


def fetch(store: Store, site: Site) -> dict[str, Forecast]:
    """Ask every zone once; returns the forecasts that are then known."""
    Refresher(store, site).once()
    with store.read() as session:
        return forecasts.newest(session)
