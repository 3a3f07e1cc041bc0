"""Electricity Maps, v3 and v4: average intensity, flow-traced, and the renewable share, of some 350 zones.
In: a zone's name there, and an account. Out: a Forecast, or measured points.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from jobs.spec import InputError, iso
from orchestrator.http.faults import Reason, SignalFault, SignalGarbled, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.session import Answer, Http, Reader
from orchestrator.signal.forecast import Forecast, Point, Share, Signal, from_on, ordered
from orchestrator.signal.maps_account import Account
from orchestrator.signal.maps_document import GRANULARITIES, Document, Rows
from orchestrator.signal.provider import Setup
from orchestrator.signal.reading import Reading
from orchestrator.signal.window import pieces

log = logging.getLogger(__name__)

BASE_URL = "https://api.electricitymaps.com/v4"
HORIZONS_H = (72, 48, 24)
"""What is asked for, one after the other, until the account is allowed it; then that is remembered for a day."""

_INTENSITY, _RENEWABLE = "carbon-intensity", "renewable-energy"
_RANGE = timedelta(days=10)
_DAY = timedelta(days=1)
_SHORTER = frozenset({400, 422})
"""What a horizon beyond the plan's may be refused with, beside 401 in words that name the plan."""
_SOON, _LATER = timedelta(minutes=15), timedelta(hours=6)


class ElectricityMaps:
    """The provider, for one account."""

    name = "electricity_maps"
    signal: Signal = "average"
    has_renewable = True

    def __init__(
        self,
        http: Http,
        account: Account,
        limits: Limits | None = None,
        granularity_s: float = 3600.0,
        factor: Literal["lifecycle", "direct"] = "lifecycle",
    ):
        self._http = http
        self._account = account
        self._limits = limits or Limits()
        self._slot_s = granularity_s
        self.factor: Literal["lifecycle", "direct"] = factor

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The slot that holds `now` and those after it, in g/kWh, with the renewable share where the plan has it.

        `updatedAt` is about the request and not about the model, so `issued_at` stays None.
        """
        self._account.check(zone_name, f"{_INTENSITY}/forecast")
        ahead, horizon_h = self._ahead(zone_name)
        rows = ahead.value
        points = from_on(rows.points(), now)
        if not points or points[0].start > now:
            points = from_on(ordered([*self._latest(zone_name, rows.slot_s), *points]), now)
        if not points:
            raise SignalGarbled(self.name, zone_name, "the provider sent a forecast that ends before now; try later")
        return Forecast(
            zone=zone_name,
            provider=self.name,
            signal=self.signal,
            points=points,
            fetched_at=ahead.fetched_at,
            factor=self.factor,
            note=rows.note,
            renewable=from_on(self._renewable(zone_name, horizon_h), now),
        )

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points of the past in [start, end): the last 24 hours, and any earlier range where the plan has past-range.

        Questions begin and end with slots, so that all who ask in one slot ask the same.
        """
        recent = self._history(zone_name) if end > self._http.now() - _DAY else ()
        until = min((point.start for point in recent), default=end)
        earlier: tuple[Point, ...] = ()
        if start < until:
            try:
                earlier = self._past(zone_name, start, until)
            except SignalFault as fault:
                if not recent:
                    raise
                log.info("%s; what was measured before %s stays unknown", fault, iso(until))
        return tuple(point for point in ordered([*earlier, *recent]) if start <= point.start < end)

    def _ahead(self, zone_name: str) -> tuple[Answer[Rows], int]:
        """The longest forecast that the account may have, and its hours, which are remembered for a day."""
        path, read = f"{_INTENSITY}/forecast", self._document(zone_name).forecast
        noted = self._account.recall(zone_name, "horizon") or {}
        horizons = [each for each in HORIZONS_H if each <= noted.get("hours", HORIZONS_H[0])] or HORIZONS_H[-1:]
        for horizon_h in horizons:
            try:
                found = self._ask(path, zone_name, {"horizonHours": str(horizon_h)}, read)
            except SignalRefused as refused:
                is_plan = _is_plan(str(refused))
                if horizon_h != horizons[-1] and (is_plan or refused.status in _SHORTER):
                    log.info("%s; asking for less than %d hours", refused, horizon_h)
                    continue
                if is_plan:
                    self._account.close(zone_name, path, refused)
                raise
            if horizon_h != horizons[0]:
                self._account.remember(zone_name, "horizon", {"hours": horizon_h}, _DAY)
            return found, horizon_h
        raise AssertionError("the shortest horizon is answered or refused")

    def _latest(self, zone_name: str, slot_s: float) -> tuple[Point, ...]:
        """The newest value that is no forecast, for a forecast that begins later than now; none where there is none."""
        limits = replace(self._limits, retries=0)
        try:
            rows = self._ask(f"{_INTENSITY}/latest", zone_name, {}, self._document(zone_name).measured, limits).value
        except SignalFault as fault:
            log.info("%s; the current slot stays unknown", fault)
            return ()
        return replace(rows, slot_s=slot_s).points()

    def _renewable(self, zone_name: str, horizon_h: int) -> tuple[Share, ...]:
        """The renewable share ahead; none where the plan has none or the question fails, which is no fault here."""
        path = f"{_RENEWABLE}/forecast"
        if not self._account.is_open(zone_name, path):
            return ()
        horizon = {"horizonHours": str(horizon_h)}
        limits = replace(self._limits, retries=0)
        try:
            return self._ask(path, zone_name, horizon, self._document(zone_name).shares, limits).value.shares()
        except SignalFault as fault:
            log.info("%s; the renewable share stays unknown", fault)
            self._account.close(zone_name, path, fault, _LATER if isinstance(fault, SignalRefused) else _SOON)
            return ()

    def _history(self, zone_name: str) -> tuple[Point, ...]:
        """The last 24 hours; empty where the plan or the zone has none."""
        path = f"{_INTENSITY}/history"
        return self._measured(zone_name, path, {})

    def _past(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Any range, in pieces that the provider allows; empty where the plan or the zone has none."""
        points: list[Point] = []
        for begin, stop in pieces(start, end, self._slot_s, _RANGE):
            window = {"start": iso(begin), "end": iso(stop)}
            points += self._measured(zone_name, f"{_INTENSITY}/past-range", window)
        return ordered(points)

    def _measured(self, zone_name: str, path: str, window: Mapping[str, str]) -> tuple[Point, ...]:
        if not self._account.is_open(zone_name, path):
            return ()
        try:
            return self._ask(path, zone_name, window, self._document(zone_name).measured).value.points()
        except SignalRefused as refused:
            if refused.reason not in {"access", "zone"}:
                raise
            log.info("%s; what was measured there stays unknown", refused)
            if refused.reason == "access":
                self._account.close(zone_name, path, refused, _LATER)
            return ()

    def _document(self, zone_name: str) -> Document:
        return Document(Reading(self.name, zone_name), self.factor, self._slot_s, self._http.now)

    def _ask(
        self, path: str, zone_name: str, more: Mapping[str, str], read: Reader[Rows], limits: Limits | None = None
    ) -> Answer[Rows]:
        params = {
            "zone": zone_name,
            "disableCallerLookup": "true",  # else an unknown zone is silently that of the caller's address
            "emissionFactorType": self.factor,
            "temporalGranularity": GRANULARITIES[self._slot_s],
            **more,
        }
        return self._http.get(
            f"{self._account.base_url}/{path}",
            params,
            read,
            self._account.asker(zone_name),
            secrets=self._account.secrets,
            limits=limits or self._limits,
            explain=_explain,
        )


def make(setup: Setup) -> ElectricityMaps:
    """The provider of one zone; a server of one's own, named by base_url, may need no key."""
    base_url, settings = setup.base_url(BASE_URL), setup.settings
    if settings.token_env is None and settings.base_url is None:
        raise InputError(f"{setup.field}.token_env: is missing; name the environment variable that holds your key")
    token, http = setup.secret("token_env"), setup.http()
    account = setup.once(
        (setup.name, base_url, settings.token_env),
        lambda: Account(http, base_url, token, settings.token_env, setup.limits),
    )
    return ElectricityMaps(http, account, setup.limits, settings.granularity_s or 3600.0, settings.factors)


def _is_plan(said: str) -> bool:
    return "unauthorized for zone" in said.lower() or "do not have access" in said.lower()


def _explain(status: int, said: str) -> Reason | None:
    """401 is also what a plan without the zone or the path gets; only its words tell."""
    return "access" if status in {401, 403} and _is_plan(said) else None
