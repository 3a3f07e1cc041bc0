"""Electricity Maps, v3 and v4: average intensity, flow-traced, of some 350 zones.
In: a zone's name there, a base URL and a key. Out: a Forecast, or measured points.
The HTTP session carries the questions; the chain of a zone's providers asks them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from jobs.spec import InputError, iso, utc
from orchestrator.signal.faults import Reason, SignalFault, SignalGarbled, SignalRefused
from orchestrator.signal.forecast import Forecast, Kind, Point, Signal, from_on, modal_gap_s, spread
from orchestrator.signal.http import Answer, Http, Limits
from orchestrator.signal.provider import Setup
from orchestrator.signal.refusal import Asker, Secret

log = logging.getLogger(__name__)

BASE_URL = "https://api.electricitymaps.com/v4"

Row = tuple[datetime, float | None, Kind]

_GRANULARITY_S = {"5_minutes": 300.0, "15_minutes": 900.0, "hourly": 3600.0}
_RANGE = timedelta(days=10)
_FRESH_AT_MOST = timedelta(hours=1)


class ElectricityMaps:
    """One account, or none where `token` is None (a server of one's own that asks for no key)."""

    name = "electricity_maps"
    signal: Signal = "average"

    def __init__(
        self,
        http: Http,
        base_url: str = BASE_URL,
        token: Secret | None = None,
        token_env: str | None = None,
        limits: Limits | None = None,
        horizon_h: int = 72,
        granularity: str = "hourly",
        factor: Literal["lifecycle", "direct"] = "lifecycle",
    ):
        self._http = http
        base = base_url.rstrip("/")
        self._base = base if base.rsplit("/", 1)[-1] in {"v3", "v4"} else f"{base}/v4"
        self._secrets = {"auth-token": token} if token else {}
        self._token_env = token_env
        self._limits = limits or Limits()
        self._horizon_h = horizon_h
        self._granularity = granularity
        self._factor: Literal["lifecycle", "direct"] = factor

    def forecast(self, zone_name: str, now: datetime) -> Forecast:
        """The current slot as the provider estimates or measures it, and its forecast, in g/kWh.

        `updatedAt` is about the request and not about the model, so `issued_at` stays None.
        """
        reader = _Envelope(zone_name, "forecast", self._factor)
        ahead = self._ask("forecast", zone_name, {"horizonHours": str(self._horizon_h)}, reader)
        slot_s = reader.slot_s
        points = from_on(spread([*ahead.value, *self._latest(zone_name, slot_s)], slot_s), now)
        if not points:
            raise SignalGarbled(self.name, zone_name, "the provider sent a forecast that ends before now; try later")
        return Forecast(
            zone=zone_name,
            provider=self.name,
            signal=self.signal,
            points=points,
            fetched_at=ahead.fetched_at,
            factor=self._factor,
            note=reader.disclaimer,
        )

    def measured(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        """Points of the past in [start, end): any range where the plan has past-range, else the last 24 hours."""
        try:
            points = self._past(zone_name, start, end)
        except SignalRefused as refused:
            if refused.reason not in {"access", "zone"}:
                raise
            log.info("%s; asking for the last 24 hours instead", refused)
            points = self._history(zone_name)
        return tuple(point for point in points if start <= point.start < end)

    def _past(self, zone_name: str, start: datetime, end: datetime) -> tuple[Point, ...]:
        rows: list[Row] = []
        slot_s = _GRANULARITY_S[self._granularity]
        while start < end:
            stop = min(end, start + _RANGE)
            reader = _Envelope(zone_name, "measured", self._factor, slot_s)
            window = {"start": iso(start), "end": iso(stop)}
            rows += self._ask("past-range", zone_name, window, reader).value
            start = stop
        gap_s = modal_gap_s(row[0] for row in rows)
        return spread(rows, gap_s or slot_s)

    def _history(self, zone_name: str) -> tuple[Point, ...]:
        reader = _Envelope(zone_name, "measured", self._factor, _GRANULARITY_S[self._granularity])
        try:
            rows = self._ask("history", zone_name, {}, reader).value
        except SignalRefused as refused:
            if refused.reason not in {"access", "zone"}:
                raise
            log.warning("%s; what was measured there stays unknown", refused)
            return ()
        return spread(rows, reader.slot_s)

    def _latest(self, zone_name: str, slot_s: float) -> list[Row]:
        """The newest value that is no forecast; none where the plan or the zone has none."""
        reader = _Envelope(zone_name, "measured", self._factor, slot_s)
        try:
            return self._ask("latest", zone_name, {}, reader, replace(self._limits, retries=0)).value
        except SignalFault as fault:  # the forecast has the current slot too: less exact, and enough
            log.info("%s; the current slot is the forecast's", fault)
            return []

    def _ask(
        self,
        what: str,
        zone_name: str,
        more: Mapping[str, str],
        reader: _Envelope,
        limits: Limits | None = None,
    ) -> Answer[list[Row]]:
        params = {
            "zone": zone_name,
            "disableCallerLookup": "true",  # else an unknown zone is silently that of the caller's address
            "emissionFactorType": self._factor,
            "temporalGranularity": self._granularity,
            **more,
        }
        return self._http.get(
            f"{self._base}/carbon-intensity/{what}",
            params,
            reader.read,
            Asker(self.name, zone_name, self._token_env),
            secrets=self._secrets,
            limits=limits or self._limits,
            explain=_explain,
        )


def make(setup: Setup) -> ElectricityMaps:
    """The provider of one zone; a server of one's own, named by base_url, may need no key."""
    base_url = setup.base_url(BASE_URL)
    if setup.settings.token_env is None and setup.settings.base_url is None:
        raise InputError(f"{setup.field}.token_env: is missing; name the environment variable that holds your key")
    return ElectricityMaps(setup.http(), base_url, setup.secret("token_env"), setup.settings.token_env, setup.limits)


def _explain(status: int, said: str) -> Reason | None:
    """401 is also what a plan without the zone or the path gets; only its words tell."""
    plan = "unauthorized for zone" in said.lower() or "do not have access" in said.lower()
    return "access" if status in {401, 403} and plan else None


class _Envelope:
    """Reads one answer: rows of (start, g/kWh, kind), until when they are fresh, and the slot's length."""

    def __init__(self, zone_name: str, kind: Kind, factor: str, slot_s: float = 3600.0):
        self._zone_name = zone_name
        self._kind: Kind = kind
        self._factor = factor
        self.slot_s = slot_s
        self.disclaimer: str | None = None

    def read(self, document: Any) -> tuple[list[Row], datetime]:
        """Rows of a forecast, history, past-range or latest answer; SignalGarbled on what is no intensity."""
        if not isinstance(document, dict):
            raise self._garbled("answered with no JSON object")
        if document.get("zone") != self._zone_name:
            raise self._garbled(f"answered for zone {str(document.get('zone'))[:40]!r}; check the zone's name")
        found = [document[name] for name in ("forecast", "history", "data") if isinstance(document.get(name), list)]
        rows = [self._row(row) for row in (found[0] if found else [document])]
        if not rows and self._kind == "forecast":
            raise self._garbled("sent an empty forecast")
        self.slot_s = self._slot_s(rows, document)
        said = document.get("_disclaimer")
        self.disclaimer = str(said)[:200] if said else None
        return rows, self._fresh_until()

    def _slot_s(self, rows: list[Row], document: dict[str, Any]) -> float:
        said = str(document.get("temporalGranularity"))
        return modal_gap_s(row[0] for row in rows) or (
            self.slot_s if len(rows) == 1 and self._kind != "forecast" else _GRANULARITY_S.get(said, self.slot_s)
        )

    def _row(self, row: Any) -> Row:
        if not isinstance(row, dict) or "datetime" not in row or "carbonIntensity" not in row:
            raise self._garbled("sent a row without datetime or carbonIntensity")
        try:
            start = utc(row["datetime"])
        except ValueError as fault:
            raise self._garbled(f"sent a time that cannot be used: {fault}") from None
        if row.get("emissionFactorType", self._factor) != self._factor:
            raise self._garbled(f"sent {str(row['emissionFactorType'])[:40]!r} factors; {self._factor!r} was asked for")
        kind: Kind = "estimated" if row.get("isEstimated") and self._kind == "measured" else self._kind
        return start, self._intensity(row["carbonIntensity"], start), kind

    def _intensity(self, value: Any, start: datetime) -> float | None:
        """g/kWh; None where the provider has none, which is not zero."""
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise self._garbled(f"sent {str(value)[:40]!r} as the intensity of {iso(start)}; it must be 0 or more")
        return float(value)

    def _fresh_until(self) -> datetime:
        """The end of the slot that holds now: slots begin at multiples of their length since the epoch, UTC."""
        edge = (datetime.now(timezone.utc).timestamp() // self.slot_s + 1) * self.slot_s
        return min(datetime.fromtimestamp(edge, timezone.utc), datetime.now(timezone.utc) + _FRESH_AT_MOST)

    def _garbled(self, text: str) -> SignalGarbled:
        return SignalGarbled(ElectricityMaps.name, self._zone_name, f"the provider {text}")
