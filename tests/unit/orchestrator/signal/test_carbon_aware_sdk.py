"""The Carbon Aware SDK's Web API against a server that answers in its shapes; all numbers are synthetic."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jobs.spec import InputError
from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.carbon_aware_sdk import CarbonAwareSdk, make
from orchestrator.signal.provider import Setup
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import hour

CURRENT, PAST = "emissions/forecasts/current", "emissions/bylocation"


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> CarbonAwareSdk:
    return CarbonAwareSdk(http, server.url, "marginal", QUICK)


def now() -> datetime:
    return datetime.now(timezone.utc)


def stamp(at: datetime) -> str:
    """A time as .NET writes it, with seven digits behind the seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")


def forecasts(
    values: list[Any], step: timedelta = timedelta(hours=1), duration: Any = None, location: str = "eastus", **more: Any
) -> list[dict[str, Any]]:
    """One forecast; its points name the data source's own zone."""
    rows = [{"location": "PJM", "timestamp": stamp(hour() + n * step), "value": v} for n, v in enumerate(values)]
    if duration is not None:
        rows = [{**row, "duration": duration} for row in rows]
    of = {
        "generatedAt": stamp(hour() - timedelta(minutes=4)),
        "requestedAt": stamp(now()),
        "location": location,
        "dataStartAt": stamp(hour()),
        "windowSize": 0,
        "optimalDataPoints": rows[:1],
        "forecastData": rows,
        **more,
    }
    return [{name: value for name, value in of.items() if value is not ...}]


def emissions(values: list[Any], first: int, duration: str | None = "01:00:00") -> list[dict[str, Any]]:
    rows = [{"location": "PJM", "time": stamp(hour(first + n)), "rating": value} for n, value in enumerate(values)]
    return [{**row, "duration": duration} if duration else row for row in rows]


def test_the_forecast_is_the_points_and_says_when_it_was_made(provider: CarbonAwareSdk, server: ProviderServer) -> None:
    server.on(CURRENT, Reply(forecasts([532.1, 448, 0], duration=60)))
    forecast = provider.forecast("eastus", now())
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (hour(0), hour(1), 532.1, "forecast"),
        (hour(1), hour(2), 448.0, "forecast"),
        (hour(2), hour(3), 0.0, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal) == ("eastus", "carbon_aware_sdk", "marginal")
    assert forecast.issued_at == hour() - timedelta(minutes=4)
    assert [(asked.path, asked.params) for asked in server.asked] == [
        ("/emissions/forecasts/current", {"location": "eastus"})
    ]


@pytest.mark.parametrize(
    ("duration", "window", "length"),
    [(5, 0, 5), (10, 30, 10), (0, 30, 30), (None, 20, 20), (0, 0, 30), (None, ..., 30)],
)
def test_a_point_lasts_its_duration_else_the_window_else_the_gap(
    provider: CarbonAwareSdk, server: ProviderServer, duration: Any, window: Any, length: int
) -> None:
    document = forecasts([5] * 4, timedelta(minutes=30), duration, windowSize=window)
    server.on(CURRENT, Reply(document))
    points = provider.forecast("eastus", hour()).points
    assert {point.end - point.start for point in points} == {timedelta(minutes=length)}


def test_windows_that_overlap_end_where_the_next_begins(provider: CarbonAwareSdk, server: ProviderServer) -> None:
    server.on(CURRENT, Reply(forecasts([5, 6, 7], timedelta(minutes=5), duration=30)))
    points = provider.forecast("eastus", hour()).points
    assert [point.end for point in points[:-1]] == [point.start for point in points[1:]]


@pytest.mark.parametrize("told", [..., None, "0001-01-01T00:00:00+00:00"])
def test_a_time_of_issue_that_is_not_told_stays_unknown(
    provider: CarbonAwareSdk, server: ProviderServer, told: Any
) -> None:
    server.on(CURRENT, Reply(forecasts([5, 6], generatedAt=told)))
    assert provider.forecast("eastus", now()).issued_at is None


@pytest.mark.parametrize("reply", [Reply(body=b"", status=204), Reply([])])
def test_no_forecast_names_the_remedy(provider: CarbonAwareSdk, server: ProviderServer, reply: Reply) -> None:
    server.on(CURRENT, reply)
    with pytest.raises(SignalGarbled, match="has no forecast of it; check that the server's data source"):
        provider.forecast("eastus", now())


def test_a_data_source_without_forecasts_is_refused_at_once(provider: CarbonAwareSdk, server: ProviderServer) -> None:
    server.on(CURRENT, Reply({"title": "NotImplemented", "status": 501}, 501))
    with pytest.raises(SignalRefused, match=r"cannot tell /emissions/forecasts/current \(501\); .*another provider"):
        provider.forecast("eastus", now())
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "document", "kind", "reason", "words"),
    [
        (
            400,
            {"title": "ArgumentException", "status": 400, "detail": "Unknown location: 'x'", "traceId": "00-1"},
            SignalRefused,
            "zone",
            "400: ArgumentException; Unknown location: 'x'",
        ),
        (
            400,
            {"title": "ArgumentException", "detail": "Invalid", "errors": {"dataStartAt": ["is too early"]}},
            SignalRefused,
            "request",
            "400: ArgumentException; Invalid; is too early",
        ),
        (500, {"title": "InternalServerError", "status": 500}, SignalOutage, "outage", "500: InternalServerError"),
        (401, {"title": "Unauthorized"}, SignalRefused, "key", "401: Unauthorized"),
        (429, {"title": "TooMany"}, SignalOutage, "outage", "asks for fewer questions"),
    ],
)
def test_errors_are_told_in_the_servers_words(
    provider: CarbonAwareSdk,
    server: ProviderServer,
    status: int,
    document: Any,
    kind: type[SignalFault],
    reason: str,
    words: str,
) -> None:
    server.on(CURRENT, Reply(document, status))
    with pytest.raises(kind, match=words) as caught:
        provider.forecast("x", now())
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (forecasts([5, 6], location="westus"), "answered for 'westus'; check the zone's name"),
        (forecasts([5, 6]) * 2, "answered for 2 locations"),
        (forecasts([5, 6], forecastData=None), "no list of forecastData"),
        (forecasts([5, 6], forecastData=["x", "y"]), "no JSON object"),
        (forecasts([5]), "a single value and does not say how long it lasts"),
        (forecasts([5, 6], duration=10**9), "lasts 6e.10 s; it must be from a minute to a day"),
        (forecasts([5, "6"]), "sent '6' as the intensity of"),
        (forecasts([5, 6], generatedAt="soon"), "a time that cannot be used"),
        ({"location": "eastus"}, "no list of forecasts"),
        (["x"], "no JSON object"),
    ],
)
def test_an_answer_of_another_shape_or_place_is_refused(
    provider: CarbonAwareSdk, server: ProviderServer, document: Any, words: str
) -> None:
    server.on(CURRENT, Reply(document))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("eastus", now())


def test_a_location_is_the_same_in_any_case(provider: CarbonAwareSdk, server: ProviderServer) -> None:
    server.on(CURRENT, Reply(forecasts([5, 6], location="EastUS")))
    assert provider.forecast("eastus", now()).points


@pytest.mark.parametrize("duration", ["01:00:00", "00:60:00.0000000", None])
def test_measured_is_what_has_ended_between_two_times(
    provider: CarbonAwareSdk, server: ProviderServer, duration: str | None
) -> None:
    server.on(PAST, Reply(emissions([70, 71, None, 73, 74], -4, duration)))
    points = provider.measured("eastus", hour(-3), hour(1))
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in points] == [
        (hour(-3), hour(-2), 71.0, "measured"),
        (hour(-1), hour(0), 73.0, "measured"),
    ]
    assert server.asked[0].params["location"] == "eastus"
    assert {"time", "toTime"} <= set(server.asked[0].params)


@pytest.mark.parametrize("reply", [Reply(body=b"", status=204), Reply([])])
def test_nothing_measured_is_nothing(provider: CarbonAwareSdk, server: ProviderServer, reply: Reply) -> None:
    server.on(PAST, reply)
    assert provider.measured("eastus", hour(-3), hour(0)) == ()


def test_values_of_several_places_are_refused(provider: CarbonAwareSdk, server: ProviderServer) -> None:
    rows = emissions([70, 71], -3)
    rows[1]["location"] = "MISO"
    server.on(PAST, Reply(rows))
    with pytest.raises(SignalGarbled, match="answered for 2 locations"):
        provider.measured("eastus", hour(-3), hour(0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"signal": "average"}, "providers.carbon_aware_sdk.base_url: is missing; give the address of your server"),
        ({"base_url": "http://h:8080"}, "providers.carbon_aware_sdk.signal: is missing; write marginal where"),
        ({"base_url": "h:8080", "signal": "average"}, "base_url: 'h:8080' is no address"),
    ],
)
def test_a_site_file_that_does_not_say_where_and_what_is_refused(
    http: Http, settings: dict[str, Any], words: str
) -> None:
    zone = ZoneSite(provider=["carbon_aware_sdk"])
    with pytest.raises(InputError, match=words):
        make(Setup("carbon_aware_sdk", "US", zone, ProviderSite.model_validate(settings), lambda: http))


def test_the_site_file_says_what_kind_of_signal_it_is(http: Http) -> None:
    settings = ProviderSite(base_url="http://h:8080", signal="average")
    made = make(Setup("carbon_aware_sdk", "US", ZoneSite(provider=["carbon_aware_sdk"]), settings, lambda: http))
    assert made.signal == "average"
