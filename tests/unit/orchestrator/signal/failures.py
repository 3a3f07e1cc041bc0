"""What can go wrong with a provider, as a table that every provider is put to, and how each provider speaks.
In: a Speaker, who writes slots as the provider's document. Out: replies of a server, and what must come of them.
test_failures.py puts each provider of CASES to each failure of FAILURES.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from orchestrator.http.faults import Reason, SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.session import Http
from orchestrator.signal.provider import Provider
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import electricity_maps, hour, stamp

LIMITS = Limits(
    connect_s=5, read_s=5, wait_s=2, total_s=10, retries=1, backoff_s=0.01, body_bytes=64 * 1024, failed_s=0
)
SHORT = replace(LIMITS, read_s=0.15, total_s=0.3)
"""For a provider that takes longer than anybody waits."""
COUNT = 6
"""Slots of a good document; their values are 100, 110, and so on, in g/kWh."""


@dataclass(frozen=True)
class Slot:
    """A row before a provider writes it: a text stands for a time that is none, a naive time for one without zone."""

    start: datetime | str
    value: Any


@dataclass(frozen=True)
class Speaker:
    """How one provider speaks."""

    make: Callable[[Http, str, Limits], Provider]
    """The provider that asks a server at an address."""
    zone: str
    """The zone that is asked for, by the provider's own name."""
    path: str
    """The end of the path whose document tells intensities."""
    write: Callable[[list[Slot], str], Any]
    """Slots and a zone as a document, or as bytes; values are in g/kWh, so it converts those that are numbers."""
    slot_s: float = 3600.0
    prepare: Callable[[ProviderServer], None] = lambda server: None
    """Tells the server what else is asked, such as a login."""
    names_zone: bool = True
    """Its answers say for which zone they are."""
    says_offset: bool = True
    """Its contract promises a time zone in every time."""

    def good(self) -> list[Slot]:
        """Slots from the current one on."""
        now = time.time() // self.slot_s * self.slot_s
        first = datetime.fromtimestamp(now, hour().tzinfo)
        return [Slot(first + timedelta(seconds=n * self.slot_s), 100.0 + 10 * n) for n in range(COUNT)]

    def reply(self, slots: list[Slot], zone: str | None = None, **more: Any) -> Reply:
        """An answer with those slots."""
        document = self.write(slots, zone or self.zone)
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return Reply(body=body, **more)


@dataclass(frozen=True)
class Failure:
    """One way to fail: what the server answers, and what must come of it."""

    replies: Callable[[Speaker], list[Reply]]
    fault: type[SignalFault] | None = None
    """The kind of fault that is raised; None where a forecast comes all the same."""
    reason: Reason | None = None
    words: str = ""
    """What the fault's line says, among the rest."""
    values: tuple[float | None, ...] = (100, 110, 120, 130, 140, 150)
    """The intensities of the slots, where a forecast comes; None is unknown."""
    asked: int | None = None
    """How many times the document is asked for."""
    waits_s: float | None = None
    """At least so many seconds are handed on as the provider's wish to be left alone."""
    of: Callable[[Speaker], bool] = lambda speaker: True
    """Which providers it can happen to."""
    limits: Limits = LIMITS


def _status(status: int, document: Any = None, **headers: str) -> Callable[[Speaker], list[Reply]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda speaker: [Reply({"error": "no"} if document is None else document, status, named)]


def _then_good(first: Callable[[Speaker], list[Reply]]) -> Callable[[Speaker], list[Reply]]:
    return lambda speaker: [*first(speaker), speaker.reply(speaker.good())]


def _body(body: bytes, **more: Any) -> Callable[[Speaker], list[Reply]]:
    return lambda speaker: [Reply(body=body, **more)]


def _good(**more: Any) -> Callable[[Speaker], list[Reply]]:
    return lambda speaker: [speaker.reply(speaker.good(), **more)]


def _spoiled(spoil: Callable[[list[Slot]], list[Slot]]) -> Callable[[Speaker], list[Reply]]:
    return lambda speaker: [speaker.reply(spoil(speaker.good()))]


def _value(value: Any) -> Callable[[Speaker], list[Reply]]:
    """The second slot's value is that."""
    return _spoiled(lambda slots: [slots[0], replace(slots[1], value=value), *slots[2:]])


def _naive(slots: list[Slot]) -> list[Slot]:
    return [replace(slot, start=slot.start.replace(tzinfo=None)) for slot in slots if isinstance(slot.start, datetime)]


_LATER = email.utils.formatdate(time.time() + 7200, usegmt=True)
_RESET = Reply(reset=True)

FAILURES: dict[str, Failure] = {
    "nothing": Failure(_good(), asked=1),
    "silence": Failure(_good(silence_s=9), SignalOutage, "outage", "did not answer in time", limits=SHORT),
    "slow body": Failure(_good(drip_s=0.05), SignalOutage, "outage", "did not answer in time", limits=SHORT),
    "reset": Failure(lambda speaker: [_RESET], SignalOutage, "outage", "is not reachable", asked=2),
    "reset once": Failure(_then_good(lambda speaker: [_RESET]), asked=2),
    "reset in the body": Failure(_good(cut_after=20), SignalOutage, "outage"),
    "partial body": Failure(_body(b'{"a":', headers={"Content-Length": "100"}), SignalOutage, "outage"),
    "401": Failure(_status(401), SignalRefused, "key"),
    "403": Failure(_status(403), SignalRefused, "access"),
    "404": Failure(_status(404), SignalRefused, "zone", "check the zone's name"),
    "redirect": Failure(_status(302, Location="/elsewhere"), SignalRefused, "request", asked=1),
    "429": Failure(_status(429), SignalOutage, "outage", "asks for fewer questions", asked=2),
    "429 once": Failure(_then_good(_status(429)), asked=2),
    "429 for an hour": Failure(_status(429, Retry_After="3600"), SignalOutage, "outage", asked=1, waits_s=3600),
    "429 until a date": Failure(_status(429, Retry_After=_LATER), SignalOutage, "outage", asked=1, waits_s=3600),
    "500": Failure(_status(500), SignalOutage, "outage", "is out of order", asked=2),
    "502 as a page": Failure(_body(b"<html>Bad gateway</html>", status=502), SignalOutage, "outage", "502"),
    "503 once": Failure(_then_good(_status(503)), asked=2),
    "503 for an hour": Failure(_status(503, Retry_After="3600"), SignalOutage, "outage", asked=1, waits_s=3600),
    "empty body": Failure(_body(b""), SignalGarbled, "garbled"),
    "no content": Failure(_body(b"", status=204), SignalFault),
    "a page": Failure(_body(b"<html>log in</html>", headers={"Content-Type": "text/html"}), SignalGarbled, "garbled"),
    "malformed": Failure(_body(b'{"a": [1, 2'), SignalGarbled, "garbled"),
    "not text": Failure(_body(b"\xff\xfe\x00"), SignalGarbled, "garbled"),
    "nested without end": Failure(_body(b"[" * 50_000), SignalGarbled, "garbled"),
    "too large": Failure(_body(b"[" + b" " * 100_000), SignalGarbled, "garbled", "sends more than"),
    "empty object": Failure(_body(b"{}"), SignalFault),
    "null": Failure(_body(b"null"), SignalGarbled, "garbled"),
    "no slots": Failure(_spoiled(lambda slots: []), SignalFault),
    "past slots only": Failure(
        _spoiled(lambda slots: [replace(s, start=s.start - timedelta(days=3)) for s in slots]),  # type: ignore[operator]
        SignalFault,
    ),
    "wrong zone": Failure(
        lambda speaker: [speaker.reply(speaker.good(), zone="XX")],
        SignalGarbled,
        "garbled",
        of=lambda speaker: speaker.names_zone,
    ),
    "wrong order": Failure(_spoiled(lambda slots: slots[::-1])),
    "duplicates": Failure(_spoiled(lambda slots: [*slots, *slots[2:4]])),
    "gap": Failure(_spoiled(lambda slots: slots[:2] + slots[3:]), values=(100, 110, None, 130, 140, 150)),
    "null value": Failure(_value(None), values=(100, None, 120, 130, 140, 150)),
    "zero": Failure(_value(0), values=(100, 0, 120, 130, 140, 150)),
    "negative": Failure(_value(-1), SignalGarbled, "garbled"),
    "NaN": Failure(_value(float("nan")), SignalGarbled, "garbled"),
    "Infinity": Failure(_value(float("inf")), SignalGarbled, "garbled"),
    "text": Failure(_value("much"), SignalGarbled, "garbled"),
    "boolean": Failure(_value(True), SignalGarbled, "garbled"),
    "list": Failure(_value([100]), SignalGarbled, "garbled"),
    "impossible": Failure(_value(1e9), SignalGarbled, "garbled"),
    "time without zone": Failure(_spoiled(_naive), SignalGarbled, "garbled", of=lambda speaker: speaker.says_offset),
    "time that is none": Failure(
        _spoiled(lambda slots: [slots[0], replace(slots[1], start="yesterday"), *slots[2:]]), SignalGarbled, "garbled"
    ),
}


def _electricity_maps(slots: list[Slot], zone: str) -> dict[str, Any]:
    rows = [{"carbonIntensity": slot.value, "datetime": written(slot.start)} for slot in slots]
    return {"zone": zone, "forecast": rows, "updatedAt": stamp(hour()), "temporalGranularity": "hourly"}


def written(start: datetime | str) -> str:
    """A time as Electricity Maps writes it; without its Z where it has no zone, and as it is where it is none."""
    return stamp(start) if isinstance(start, datetime) else start


CASES: dict[str, Speaker] = {
    "electricity_maps v4": Speaker(
        lambda http, url, limits: electricity_maps(http, f"{url}/v4", limits=limits),
        zone="DE",
        path="carbon-intensity/forecast",
        write=_electricity_maps,
    ),
    "electricity_maps v3": Speaker(
        lambda http, url, limits: electricity_maps(http, f"{url}/v3", limits=limits),
        zone="DE",
        path="carbon-intensity/forecast",
        write=lambda slots, zone: {
            name: value for name, value in _electricity_maps(slots, zone).items() if name != "temporalGranularity"
        },
    ),
}
"""Each provider, and each of its ways to be asked, with how it speaks."""
