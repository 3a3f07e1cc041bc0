"""The replay server over real HTTP: Electricity Maps' shapes, its refusals, and our own client against it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from jobs.spec import Unavailable, iso, utc
from orchestrator.grid import GridServer, start
from orchestrator.http.session import shared
from orchestrator.replay import Replay, Trace, demo_trace
from orchestrator.signal.sources import Signals
from orchestrator.site import ProviderSite, ZoneSite

COUNTING = Trace(
    3600.0, tuple(float(n) for n in range(48)), tuple(100.0 + n for n in range(48)), "replayed trace t.csv"
)
HOLED = Trace(3600.0, (1.0, None), (1.0, None), "replayed trace t.csv")
SHARED = Trace(3600.0, (1.0, 2.0), (1.0, 2.0), "replayed trace t.csv", (70.0, 60.0))


def now() -> datetime:
    return datetime.now(timezone.utc)


@pytest.fixture(scope="module")
def grid() -> Iterator[GridServer]:
    """Zones at real speed: XA counts, XB has a gap where now is, XC has a renewable share."""
    zones = {
        "XA": Replay.begin(COUNTING, now(), start_s=10 * 3600),
        "XB": Replay.begin(HOLED, now(), start_s=3600),
        "XC": Replay.begin(SHARED, now()),
    }
    with start(zones, token="open-sesame") as server:
        yield server


def get(
    grid: GridServer, path: str, token: str | None = "open-sesame", **params: str
) -> tuple[int, Any, dict[str, str]]:
    place = urlsplit(grid.url)
    link = http.client.HTTPConnection(str(place.hostname), place.port, timeout=10)
    try:
        link.request("GET", f"{path}?{urlencode(params)}", headers={"auth-token": token} if token else {})
        answer = link.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.getheaders())
    finally:
        link.close()


@pytest.mark.parametrize("version", ["v3", "v4"])
def test_latest_is_the_current_slot(grid: GridServer, version: str) -> None:
    status, body, _ = get(grid, f"/{version}/carbon-intensity/latest", zone="XA")
    assert status == 200
    assert (body["zone"], body["carbonIntensity"], body["isEstimated"]) == ("XA", 10.0, False)
    assert body["_disclaimer"] == "replayed trace t.csv"
    assert utc(body["datetime"]) <= now() < utc(body["datetime"]) + timedelta(hours=1)


@pytest.mark.parametrize(("hours", "rows"), [("24", 25), ("72", 73), ("6", 7)])
def test_a_forecast_has_a_row_more_than_its_hours(grid: GridServer, hours: str, rows: int) -> None:
    _, body, _ = get(grid, "/v4/carbon-intensity/forecast", zone="XA", horizonHours=hours)
    assert len(body["forecast"]) == rows
    assert body["forecast"][0]["carbonIntensity"] == 110.0
    assert body["forecast"][0]["datetime"].endswith(":00:00.000Z")
    assert body["temporalGranularity"] == "hourly"


def test_history_is_the_last_day_oldest_first(grid: GridServer) -> None:
    _, body, _ = get(grid, "/v4/carbon-intensity/history", zone="XA")
    assert [row["carbonIntensity"] for row in body["history"]] == [float((n - 13) % 48) for n in range(24)]


def test_a_past_range_is_what_was_asked_for(grid: GridServer) -> None:
    end = now().replace(minute=0, second=0, microsecond=0)
    span = {"start": iso(end - timedelta(hours=3)), "end": iso(end)}
    _, body, _ = get(grid, "/v4/carbon-intensity/past-range", zone="XA", **span)
    assert [row["carbonIntensity"] for row in body["data"]] == [7.0, 8.0, 9.0]


def test_a_gap_of_the_trace_is_no_recent_data(grid: GridServer) -> None:
    status, body, _ = get(grid, "/v4/carbon-intensity/latest", zone="XB")
    assert (status, body) == (404, {"error": 'No recent data for zone "XB"'})


def test_the_renewable_share_is_served_where_the_trace_has_one(grid: GridServer) -> None:
    _, latest, _ = get(grid, "/v4/renewable-energy/latest", zone="XC")
    assert (latest["zone"], latest["unit"], latest["value"]) == ("XC", "%", 70.0)
    assert "carbonIntensity" not in latest
    _, ahead, _ = get(grid, "/v4/renewable-energy/forecast", zone="XC", horizonHours="3")
    assert [row["value"] for row in ahead["data"]] == [70.0, 60.0, 70.0, 60.0]
    assert ahead["_disclaimer"] == "replayed trace t.csv"


def test_a_trace_without_shares_has_none_and_its_zone_does_not_list_them(grid: GridServer) -> None:
    for what in ("latest", "forecast"):
        status, body, _ = get(grid, f"/v4/renewable-energy/{what}", zone="XA")
        assert (status, body) == (404, {"error": 'No recent data for zone "XA"'})
    _, zones, _ = get(grid, "/v4/zones")
    assert "renewable-energy/forecast" in zones["XC"]["access"]
    assert "renewable-energy/forecast" not in zones["XA"]["access"]


@pytest.mark.parametrize(
    ("path", "params", "status", "words"),
    [
        (
            "/v4/carbon-intensity/latest",
            {"zone": "XX"},
            404,
            'Zone "XX" does not exist; this server replays XA, XB, XC',
        ),
        ("/v4/carbon-intensity/latest", {}, 400, 'Missing parameter "zone"'),
        ("/v4/renewable-energy/history", {"zone": "XA"}, 404, "Expected one of latest, forecast"),
        ("/v4/carbon-intensity/best", {"zone": "XA"}, 404, "Expected one of latest, forecast, history, past-range"),
        ("/v4/carbon-intensity/forecast", {"zone": "XA", "horizonHours": "many"}, 400, "horizonHours"),
        ("/v4/carbon-intensity/forecast", {"zone": "XA", "horizonHours": "999"}, 400, "horizonHours"),
        ("/v4/carbon-intensity/forecast", {"zone": "XA", "horizonHours": "nan"}, 400, "horizonHours"),
        ("/v4/carbon-intensity/past-range", {"zone": "XA"}, 400, 'Missing or invalid date parameter "start"'),
        (
            "/v4/carbon-intensity/past-range",
            {"zone": "XA", "start": "0001-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
            400,
            "at most",
        ),
        ("/v9/carbon-intensity/latest", {"zone": "XA"}, 404, "no Route matched"),
        ("/v4/power-breakdown/latest", {"zone": "XA"}, 404, "no Route matched"),
        ("/", {}, 404, "no Route matched"),
    ],
)
def test_a_wrong_question_is_refused_in_the_providers_envelope(
    grid: GridServer, path: str, params: dict[str, str], status: int, words: str
) -> None:
    found, body, _ = get(grid, path, **params)
    assert found == status
    assert words in (body.get("error") or body["message"])


@pytest.mark.parametrize("token", [None, "wrong", "öpen"])
def test_a_wrong_key_is_refused(grid: GridServer, token: str | None) -> None:
    status, body, _ = get(grid, "/v4/carbon-intensity/latest", token=token, zone="XA")
    assert (status, body) == (401, {"error": "Invalid auth-token"})


def test_zones_and_health_need_no_key_and_say_what_is_replayed(grid: GridServer) -> None:
    _, zones, _ = get(grid, "/v3/zones", token=None)
    assert "carbon-intensity/forecast" in zones["XA"]["access"]
    _, health, _ = get(grid, "/health", token=None)
    assert health["status"] == "ok"
    assert health["zones"]["XA"] == {"slot_s": 3600, "speed": 1.0}


def test_an_answer_is_fresh_until_its_slot_ends(grid: GridServer) -> None:
    _, _, headers = get(grid, "/v4/carbon-intensity/latest", zone="XA")
    assert 0 <= int(headers["cache-control"].removeprefix("max-age=")) < 3600


def test_our_client_reads_a_day_squeezed_into_four_minutes(tmp_path: Path) -> None:
    replay = Replay.begin(demo_trace(), now(), speed=360)
    with start({"XA": replay}) as grid:
        site = {"electricity_maps": ProviderSite(base_url=grid.url)}
        found = Signals({"HERE": ZoneSite.model_validate({"provider": "electricity_maps", "as": "XA"})}, site, tmp_path)
        forecast = found.forecast("HERE")
        before = now()
        measured = found.measured("HERE", before - timedelta(minutes=2), before)
    shared(tmp_path).close()
    assert {(point.end - point.start).total_seconds() for point in forecast.points} == {10.0}
    assert forecast.mean(before, before + timedelta(minutes=11))[1] == 1.0
    assert "not live data" in (forecast.note or "")
    assert [share.start for share in forecast.renewable] == [point.start for point in forecast.points]
    assert all(0 <= (share.percent or 0.0) <= 100 for share in forecast.renewable)
    own = dict(replay.past(before - timedelta(minutes=2), before, before))
    assert measured is not None
    assert {point.start: point.g_per_kwh for point in measured.points} == own
    assert len(own) == 12


def test_a_port_that_is_taken_is_told(grid: GridServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}.*choose another --port"):
            start({}, port=port)


def test_a_stopped_server_frees_its_port() -> None:
    with start({"XA": Replay.begin(COUNTING, now())}) as first:
        port = urlsplit(first.url).port
    first.stop()
    with start({"XA": Replay.begin(COUNTING, now())}, port=port or 0) as second:
        assert second.url == first.url
