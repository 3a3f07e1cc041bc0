"""What an Electricity Maps account may ask, as its `/zones` tells it and as it was refused before.
In: the account's key. Out: for each zone and path whether it is open, and what is remembered, in all processes.
The provider electricity_maps looks before it asks; all zones of a site share one account.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.http.faults import SignalFault, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Asker, Secret, no_access
from orchestrator.http.session import Http
from orchestrator.signal.reading import Reading

log = logging.getLogger(__name__)

_FRESH = timedelta(days=1)
_AGAIN = timedelta(minutes=15)
_ZONES_S_AT_MOST = 10.0
_SAMPLE = 4


class Account:
    """One key at one address, v4 where it names no version; a server of one's own may have no key: all is open."""

    name = "electricity_maps"

    def __init__(
        self,
        http: Http,
        base_url: str,
        token: Secret | None = None,
        token_env: str | None = None,
        limits: Limits | None = None,
    ):
        limits = limits or Limits()
        self._http = http
        base = base_url.rstrip("/")
        self.base_url = base if base.rsplit("/", 1)[-1] in {"v3", "v4"} else f"{base}/v4"
        self.secrets = {"auth-token": token} if token else {}
        self._mark = token.mark if token else ""
        self._token_env = token_env
        self._limits = replace(limits, retries=0, total_s=min(limits.total_s, _ZONES_S_AT_MOST))
        self._access: tuple[datetime, Mapping[str, Any]] | None = None

    def asker(self, zone_name: str) -> Asker:
        """For whom a question about a zone is put."""
        return Asker(self.name, zone_name, self._token_env)

    def check(self, zone_name: str, path: str) -> None:
        """SignalRefused with reason `access` where the account cannot ask that path of that zone."""
        if self.may(zone_name, path) is False:
            known = self._paths(zone_name) or ["nothing for it"]
            listed = ", ".join(known[:_SAMPLE]) + (", ..." if len(known) > _SAMPLE else "")
            raise no_access(self.asker(zone_name), f"{path}; /zones, asked once a day, lists {listed}")
        if (noted := self.recall(zone_name, path)) is not None:
            raise SignalRefused(self.name, zone_name, str(noted.get("text")), "access")

    def may(self, zone_name: str, path: str) -> bool | None:
        """Whether the account may ask a path, such as `carbon-intensity/forecast`; None where nobody says."""
        paths = self._paths(zone_name)
        if paths is None:
            return None
        signal = path.split("/", 1)[0]
        return bool({"*", path, f"{signal}/*"} & set(paths))

    def is_open(self, zone_name: str, path: str) -> bool:
        """Whether a path is worth asking: nobody says that it is closed, and it was not refused a while ago."""
        return self.may(zone_name, path) is not False and self.recall(zone_name, path) is None

    def close(self, zone_name: str, path: str, fault: SignalFault, span: timedelta = _AGAIN) -> None:
        """Remember for a while that a path is closed to the account, so that it is not asked for in vain."""
        self.remember(zone_name, path, {"text": str(fault).removeprefix(f"{self.name}: zone {zone_name}: ")}, span)

    def remember(self, zone_name: str, what: str, values: dict[str, Any], span: timedelta) -> None:
        """Let all processes know something of a zone for a span of time."""
        now = self._http.now()
        self._http.notes.put(self._key(zone_name, what), values, now, now + span)

    def recall(self, zone_name: str, what: str) -> dict[str, Any] | None:
        """What was remembered of a zone, while its time lasts."""
        return self._http.notes.find(self._key(zone_name, what), self._http.now())

    def _key(self, zone_name: str, what: str) -> str:
        return f"{self.base_url} {self._mark} {zone_name} {what}"

    def _paths(self, zone_name: str) -> list[str] | None:
        """The paths that `/zones` lists for a zone; None where it does not say."""
        listed = self._zones(zone_name).get(zone_name)
        paths = listed.get("access") if isinstance(listed, dict) else None
        return [str(path) for path in paths] if isinstance(paths, list) else None

    def _zones(self, zone_name: str) -> Mapping[str, Any]:
        """What `/zones` answers, once a day; nothing where there is no key or the question fails."""
        now = self._http.now()
        if not self.secrets:
            return {}
        if self._access is not None and now < self._access[0]:
            return self._access[1]
        fresh = _AGAIN
        found: Mapping[str, Any] = {}
        if self.recall("", "zones") is None:
            try:
                found = self._ask_zones(zone_name)
                fresh = _FRESH
            except SignalFault as fault:
                log.info("%s; what the plan covers shows when it is asked", fault)
                self.remember("", "zones", {}, _AGAIN)
        self._access = now + fresh, found
        return found

    def _ask_zones(self, zone_name: str) -> Mapping[str, Any]:
        def read(document: Any) -> tuple[Mapping[str, Any], datetime]:
            return Reading(self.name, zone_name).mapping(document), self._http.now() + _FRESH

        url, asker = f"{self.base_url}/zones", self.asker(zone_name)
        return self._http.get(url, {}, read, asker, secrets=self.secrets, limits=self._limits, whose=self._mark).value
