"""A day in which a controller and a command beside it ask every minute: one request a slot, zone and path."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.session import Http
from tests.unit.orchestrator.loopback import Asked, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import electricity_maps, hour, stamp

MINUTE = timedelta(minutes=1)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at: datetime):
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def rows(clock: Clock, slot_s: int, name: str, offsets: range) -> list[dict[str, Any]]:
    """Rows of slots around the clock's, with a value that tells when each begins."""
    now = datetime.fromtimestamp(clock().timestamp() // slot_s * slot_s, timezone.utc)
    starts = [now + timedelta(seconds=n * slot_s) for n in offsets]
    return [{name: start.hour * 4 + start.minute // 15, "datetime": stamp(start)} for start in starts]


def answering(server: ProviderServer, clock: Clock, slot_s: int) -> None:
    """The provider at the clock's time, whatever the zone."""

    def on(path: str, key: str, name: str, offsets: range) -> None:
        def reply(asked: Asked) -> Reply:
            return Reply({"zone": asked.params["zone"], key: rows(clock, slot_s, name, offsets)})

        server.replies[path] = reply

    on("carbon-intensity/forecast", "forecast", "carbonIntensity", range(10))
    on("renewable-energy/forecast", "data", "value", range(10))
    on("carbon-intensity/history", "history", "carbonIntensity", range(-(24 * 3600 // slot_s) + 1, 1))
    access = ["carbon-intensity/forecast", "renewable-energy/*", "carbon-intensity/history"]
    server.on("zones", Reply({zone: {"access": access} for zone in ("DE", "FR")}))


@pytest.mark.parametrize(("slot_s", "slots"), [(3600, 24), (900, 96)])
def test_a_day_of_questions_every_minute_is_one_request_a_slot(
    cache_folder: Path, server: ProviderServer, slot_s: int, slots: int
) -> None:
    clock = Clock(hour() - timedelta(hours=hour().hour))
    answering(server, clock, slot_s)
    sessions = [Http(cache_folder, clock), Http(cache_folder, clock)]  # as two processes have them
    providers = [electricity_maps(http, f"{server.url}/v4", granularity_s=slot_s) for http in sessions]
    wrong = []
    for minute in range(24 * 60):
        now = clock()
        forecast = providers[minute % 2].forecast("DE", now)
        share = forecast.renewable[0].percent
        if {forecast.at(now), share} != {(now.hour * 4 + now.minute // 15) // (slot_s // 900) * (slot_s // 900)}:
            wrong.append(now)
        clock.at += MINUTE
    for http in sessions:
        http.close()
    assert wrong == []
    assert server.count("carbon-intensity/forecast") == slots
    assert server.count("renewable-energy/forecast") == slots
    assert server.count("zones") == 1
    assert len(server.asked) == 2 * slots + 1


def test_each_zone_is_asked_for_by_itself(cache_folder: Path, server: ProviderServer) -> None:
    clock = Clock(hour())
    answering(server, clock, 3600)
    http = Http(cache_folder, clock)
    provider = electricity_maps(http, f"{server.url}/v4")
    for _ in range(120):
        for zone in ("DE", "FR"):
            provider.forecast(zone, clock())
        clock.at += MINUTE
    http.close()
    assert server.count("carbon-intensity/forecast") == 2 * 2
    assert server.count("zones") == 1


def test_the_past_day_is_asked_for_once_a_slot(cache_folder: Path, server: ProviderServer) -> None:
    clock = Clock(hour())
    answering(server, clock, 3600)
    http = Http(cache_folder, clock)
    provider = electricity_maps(http, f"{server.url}/v4")
    for _ in range(120):
        now = clock()
        points = provider.measured("DE", now - timedelta(hours=5), now)
        assert len(points) == 5
        assert points[-1].start < now <= points[-1].end
        clock.at += MINUTE
    http.close()
    assert server.count("carbon-intensity/history") == 2
    assert server.count("carbon-intensity/past-range") == 0


def test_questions_about_a_range_begin_and_end_with_slots(cache_folder: Path, server: ProviderServer) -> None:
    server.on("carbon-intensity/past-range", Reply({"zone": "DE", "data": []}))
    clock = Clock(hour())
    answering(server, clock, 3600)
    server.on("zones", Reply({"DE": {"access": ["*"]}}))
    http = Http(cache_folder, clock)
    provider = electricity_maps(http, f"{server.url}/v4")
    for _ in range(120):
        provider.measured("DE", clock() - timedelta(hours=30), clock())
        clock.at += MINUTE
    http.close()
    asked = [(one.params["start"], one.params["end"]) for one in server.asked_of("carbon-intensity/past-range")]
    assert len(asked) == 2
    assert all(moment.endswith(":00:00Z") for pair in asked for moment in pair)
