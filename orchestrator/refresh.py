"""Forecasts and measured intensities, brought into the store beside the controller's passes.
In: the site's signals. Out: the newest forecast of every zone, and what applied in the slots that have passed.
Passes read the store and never wait for a provider.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from sqlalchemy import func, select

from jobs.spec import LowtideError, Unavailable
from orchestrator.controller import utcnow
from orchestrator.signal.faults import SignalFault
from orchestrator.signal.forecast import Forecast
from orchestrator.signal.sources import Signals
from orchestrator.site import Site
from orchestrator.store import Store, facts
from orchestrator.store.schema import Job

log = logging.getLogger(__name__)

_LOOK_BACK = timedelta(hours=24)
"""How far back measured values are asked for: most providers revise within a day."""


class Refresher:
    """Keeps the store's signals fresh; every zone is asked at most once a slot, for the answers are cached."""

    def __init__(self, store: Store, site: Site) -> None:
        self._store, self._site = store, site
        self._signals = Signals(site.zones, site.providers, site.state / "cache")
        self._signals.check()
        self._asked_slot: dict[str, datetime] = {}

    def once(self) -> None:
        """Ask for every zone of the site that the slot has not been asked for yet."""
        for zone in self._site.zones:
            now = utcnow()
            slot = self._site.slot_start(now)
            if self._asked_slot.get(zone) == slot:
                continue
            if self._forecast(zone, now):
                self._asked_slot[zone] = slot
                self._measured(zone, now)

    def forever(self, stop: threading.Event, every_s: float) -> None:
        """Go on until `stop` is set; a fault is kept in the store and the next round tries again."""
        while not stop.is_set():
            try:
                self.once()
            except LowtideError as fault:
                log.warning("%s", fault)
            stop.wait(every_s)

    def _forecast(self, zone: str, now: datetime) -> bool:
        found: Forecast | None = None
        text: str | None = None
        try:
            found = self._signals.forecast(zone, now)
        except SignalFault as fault:
            log.warning("%s", fault)
            text = str(fault)
        with self._store.write() as session:
            facts.keep_forecast(session, zone, now, found, text)
        return found is not None and not found.stale

    def _measured(self, zone: str, now: datetime) -> None:
        """Ask what really was, for the time that jobs may be charged for."""
        with self._store.read() as session:
            known = facts.forecasts(session)[zone]
            ended = func.coalesce(Job.ended_at, now)
            first = session.scalar(select(func.min(Job.submitted_at)).where(ended > now - _LOOK_BACK))
        if first is None:
            return
        try:
            points = self._signals.measured(zone, max(first, now - _LOOK_BACK) - timedelta(seconds=3600), now)
        except Unavailable as fault:
            log.info("%s", fault)
            return
        with self._store.write() as session:
            facts.add_intensities(session, known, points)


def fetch(store: Store, site: Site) -> dict[str, Forecast]:
    """Ask every zone once; returns the forecasts that are then known."""
    Refresher(store, site).once()
    with store.read() as session:
        return facts.forecasts(session)
