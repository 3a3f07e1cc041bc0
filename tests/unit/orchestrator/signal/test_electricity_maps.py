"""Electricity Maps against a server that answers in its shapes, right and wrong; all numbers are synthetic."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from orchestrator.http.faults import SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.electricity_maps import ElectricityMaps
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import electricity_maps, forecast_of, hour, latest_of, stamp

AHEAD = "carbon-intensity/forecast"
SHARES = "renewable-energy/forecast"

PLAN_401 = {
    "error": "Request unauthorized for zoneKey=DE,requestType=forecast,dataType=carbon-intensity.",
    "message": "You do not have access to this specific endpoint for this specific zone. Please visit us",
}


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> ElectricityMaps:
    """A v4 account whose key is `key-1`."""
    server.on("latest", Reply({"error": 'No recent data for zone "DE"'}, 404))
    return electricity_maps(http, f"{server.url}/v4")


def now() -> datetime:
    return datetime.now(timezone.utc)


def test_the_forecast_is_half_open_hours_from_the_current_one(
    provider: ElectricityMaps, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80.5, 0])))
    forecast = provider.forecast("DE", now())
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (hour(0), hour(1), 77.0, "forecast"),
        (hour(1), hour(2), 80.5, "forecast"),
        (hour(2), hour(3), 0.0, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal) == ("DE", "electricity_maps", "average")
    assert forecast.factor == "lifecycle"
    assert forecast.stale is False


def test_updated_at_is_not_taken_for_the_time_of_issue(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80])))
    assert provider.forecast("DE", now()).issued_at is None


def test_asks_for_the_zone_and_never_for_the_callers_place(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80])))
    provider.forecast("DE", now())
    asked = server.asked_of(AHEAD)[0]
    assert asked.path == "/v4/carbon-intensity/forecast"
    assert asked.params == {
        "zone": "DE",
        "disableCallerLookup": "true",
        "emissionFactorType": "lifecycle",
        "temporalGranularity": "hourly",
        "horizonHours": "72",
    }
    assert asked.headers["auth-token"] == "key-1"


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("/v3", "/v3/carbon-intensity/forecast"),
        ("/v4/", "/v4/carbon-intensity/forecast"),
        ("", "/v4/carbon-intensity/forecast"),
    ],
)
def test_speaks_v3_and_v4(http: Http, server: ProviderServer, base: str, path: str) -> None:
    document = forecast_of([77, 80])
    del document["temporalGranularity"]
    server.on(AHEAD, Reply(document))
    electricity_maps(http, server.url + base, key=None).forecast("DE", now())
    assert server.asked[0].path == path
    assert "auth-token" not in server.asked[0].headers


def test_a_forecast_that_holds_the_current_slot_needs_no_second_question(
    provider: ElectricityMaps, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80])))
    provider.forecast("DE", now())
    assert server.count("latest") == 0


@pytest.mark.parametrize(("estimated", "kind"), [(True, "estimated"), (False, "measured")])
def test_where_the_forecast_begins_later_the_latest_value_is_the_current_slots(
    provider: ElectricityMaps, server: ProviderServer, estimated: bool, kind: str
) -> None:
    server.on(AHEAD, Reply(forecast_of([..., 80, 90])))
    server.on("latest", Reply(latest_of(70, estimated=estimated)))
    first, second, _ = provider.forecast("DE", now()).points
    assert (first.start, first.end, first.g_per_kwh, first.kind) == (hour(0), hour(1), 70.0, kind)
    assert (second.g_per_kwh, second.kind) == (80.0, "forecast")


def test_a_late_latest_value_does_not_pass_for_the_current_slot(
    provider: ElectricityMaps, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply(forecast_of([..., 80, 90])))
    server.on("latest", Reply(latest_of(70, at=hour(-2))))
    assert [p.g_per_kwh for p in provider.forecast("DE", now()).points] == [80.0, 90.0]


@pytest.mark.parametrize(
    "latest", [Reply(PLAN_401, 401), Reply({}, 503), Reply(latest_of(float("nan"))), Reply(latest_of(5, zone="FR"))]
)
def test_without_a_usable_latest_value_the_current_slot_stays_unknown(
    provider: ElectricityMaps, server: ProviderServer, latest: Reply
) -> None:
    server.on(AHEAD, Reply(forecast_of([..., 80, 90])))
    server.on("latest", latest)
    forecast = provider.forecast("DE", now())
    assert forecast.at(now()) is None
    assert forecast.at(hour(1)) == 80
    assert server.count("latest") == 1


def test_many_questions_in_one_slot_are_one_request(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80])))
    answers = [provider.forecast("DE", now()) for _ in range(4)]
    assert server.count(AHEAD) == 1
    assert {answer.points for answer in answers} == {answers[0].points}


def test_nulls_and_missing_rows_are_unknown_and_not_zero(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(forecast_of([77, None, 80, ..., 90, 95])))
    forecast = provider.forecast("DE", now())
    assert forecast.at(hour(1)) is None
    assert forecast.at(hour(3)) is None
    assert forecast.at(hour(4)) == 90
    assert forecast.mean(hour(0), hour(6))[1] == pytest.approx(4 / 6)


def test_rows_in_any_order_and_twice_are_put_right(provider: ElectricityMaps, server: ProviderServer) -> None:
    document = forecast_of([77, 80, 90])
    document["forecast"] = [*reversed(document["forecast"]), document["forecast"][1]]
    server.on(AHEAD, Reply(document))
    assert [p.g_per_kwh for p in provider.forecast("DE", now()).points] == [77.0, 80.0, 90.0]


@pytest.mark.parametrize("step_s", [300.0, 900.0])
def test_the_slot_is_the_gap_of_the_rows_whatever_the_answer_calls_it(
    provider: ElectricityMaps, server: ProviderServer, step_s: float
) -> None:
    server.on(AHEAD, Reply(forecast_of([50] * 40, step_s=step_s)))
    assert {(p.end - p.start).total_seconds() for p in provider.forecast("DE", now()).points} == {step_s}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "77", True, [7], {"v": 1}])
def test_a_value_that_is_no_intensity_is_refused_by_name(
    provider: ElectricityMaps, server: ProviderServer, value: Any
) -> None:
    server.on(AHEAD, Reply(forecast_of([77, value])))
    words = f"electricity_maps: zone DE: the provider sent .* as the intensity of {stamp(hour(1)).replace('.000', '')}"
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("DE", now())


@pytest.mark.parametrize("when", ["2026-08-22T17:00:00", "yesterday", None, 5])
def test_a_time_that_cannot_be_placed_is_refused(provider: ElectricityMaps, server: ProviderServer, when: Any) -> None:
    document = forecast_of([77, 80])
    document["forecast"][1]["datetime"] = when
    server.on(AHEAD, Reply(document))
    with pytest.raises(SignalGarbled, match="a time that cannot be used"):
        provider.forecast("DE", now())


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (forecast_of([77, 80], zone="FR"), "answered for zone 'FR'; check the zone's name"),
        ({"forecast": []}, "answered for zone 'None'"),
        ({"zone": "DE", "forecast": []}, "an empty forecast"),
        ({"zone": "DE", "forecast": [{"datetime": "2026-08-22T17:00:00Z"}]}, "a row without carbonIntensity"),
        ({"zone": "DE", "forecast": ["x"]}, "a row without datetime"),
        ({"zone": "DE"}, "a row without datetime"),
        ([1], "no JSON object"),
        ("text", "no JSON object"),
    ],
)
def test_an_answer_of_another_shape_is_refused(
    provider: ElectricityMaps, server: ProviderServer, document: Any, words: str
) -> None:
    server.on(AHEAD, Reply(document))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("DE", now())


def test_factors_that_were_not_asked_for_are_refused(provider: ElectricityMaps, server: ProviderServer) -> None:
    document = forecast_of([77, 80])
    document["forecast"][0]["emissionFactorType"] = "direct"
    server.on(AHEAD, Reply(document))
    with pytest.raises(SignalGarbled, match="'direct' factors"):
        provider.forecast("DE", now())


def test_a_forecast_that_has_passed_is_none(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(forecast_of([77, 80])))
    with pytest.raises(SignalGarbled, match="a forecast that ends before now"):
        provider.forecast("DE", hour(5))


def test_a_bad_key_and_a_plan_without_the_zone_are_told_apart(
    provider: ElectricityMaps, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply({"error": "Invalid auth-token"}, 401), Reply(PLAN_401, 401))
    with pytest.raises(SignalRefused, match="key in EM_KEY is not accepted") as bad_key:
        provider.forecast("DE", now())
    with pytest.raises(SignalRefused, match="key in EM_KEY has no access to this") as no_plan:
        provider.forecast("DE", now())
    assert (bad_key.value.reason, no_plan.value.reason) == ("key", "access")


def test_an_unknown_zone_names_the_remedy(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply({"message": "Zone XX does not exist"}, 404))
    with pytest.raises(SignalRefused, match="zone XX: .*check the zone's name, or give the provider's own with `as`"):
        provider.forecast("XX", now())


def past_row(offset: int, value: Any, estimated: bool = False) -> dict[str, Any]:
    return {**latest_of(value, at=hour(offset), estimated=estimated), "zone": "DE"}


def test_measured_values_come_from_the_past_range_in_pieces_that_the_provider_allows(
    provider: ElectricityMaps, server: ProviderServer
) -> None:
    rows = [past_row(-3, 10), past_row(-2, 20), past_row(-1, 30, estimated=True), past_row(0, 40)]
    server.on("past-range", Reply({"zone": "DE", "data": []}), Reply({"zone": "DE", "data": rows}))
    points = provider.measured("DE", hour(-300), hour(0))
    assert [(p.start, p.g_per_kwh, p.kind) for p in points] == [
        (hour(-3), 10.0, "measured"),
        (hour(-2), 20.0, "measured"),
        (hour(-1), 30.0, "estimated"),
    ]
    spans = [(asked.params["start"], asked.params["end"]) for asked in server.asked_of("past-range")]
    assert [a for a, _ in spans][1:] == [b for _, b in spans][:-1]
    assert len(spans) == 2


def test_without_access_to_the_past_the_last_day_is_used(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on("past-range", Reply(PLAN_401, 401))
    server.on("history", Reply({"zone": "DE", "history": [past_row(-2, 20), past_row(-1, 30)]}))
    assert [p.g_per_kwh for p in provider.measured("DE", hour(-1), hour(0))] == [30.0]


def test_without_any_access_to_the_past_nothing_is_measured(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on("past-range", Reply(PLAN_401, 401))
    server.on("history", Reply(PLAN_401, 401))
    assert provider.measured("DE", hour(-1), hour(0)) == ()


def test_an_outage_of_the_past_is_no_empty_past(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on("past-range", Reply({}, 503))
    with pytest.raises(SignalOutage):
        provider.measured("DE", hour(-1), hour(0))


def test_what_an_answer_says_of_itself_is_passed_on(provider: ElectricityMaps, server: ProviderServer) -> None:
    server.on(AHEAD, Reply({**forecast_of([77, 80]), "_disclaimer": "replayed trace, not live data"}))
    assert provider.forecast("DE", now()).note == "replayed trace, not live data"
