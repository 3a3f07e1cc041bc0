"""Energy-Charts against a server that answers in its shapes; all numbers are synthetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.faults import SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.energy_charts import DEPRECATED, EnergyCharts, make
from orchestrator.signal.provider import Setup
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply

QUARTER = timedelta(minutes=15)


@pytest.fixture(autouse=True)
def not_at_the_turn_of_a_quarter() -> None:
    """Waits where the quarter-hour is about to end, so that a test's answers lie in one."""
    left_s = 900 - time.time() % 900
    if left_s < 5:
        time.sleep(left_s + 0.01)


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> EnergyCharts:
    return EnergyCharts(http, server.url, QUICK)


def now() -> datetime:
    return datetime.now(timezone.utc)


def quarter(offset: int = 0) -> datetime:
    """The start of the current quarter-hour, or of one so many from it."""
    return datetime.fromtimestamp(time.time() // 900 * 900, timezone.utc) + offset * QUARTER


def seconds(first: int, count: int, step_s: int = 900) -> list[int]:
    return [int(quarter(first).timestamp()) + n * step_s for n in range(count)]


def day(measured: list[Any], forecast: list[Any], first: int = -2, **more: Any) -> dict[str, Any]:
    times = {"unix_seconds": seconds(first, len(measured))}
    return {**times, "co2eq": measured, "co2eq_forecast": forecast, "deprecated": False, **more}


def shares(percents: list[Any], first: int = -2, **more: Any) -> dict[str, Any]:
    return {"unix_seconds": seconds(first, len(percents)), "ren_share": percents, "substitute": False, **more}


def seam() -> dict[str, Any]:
    """Two quarter-hours that have passed, the current one measured, two forecast, the null that fills the day up."""
    return day([60, 61, 62, None, None, None], [None, None, None, 49, 48, None])


def test_what_is_measured_comes_before_what_is_forecast_and_keeps_its_kind(
    provider: EnergyCharts, server: ProviderServer
) -> None:
    server.on("co2eq", Reply(seam()))
    forecast = provider.forecast("DE", now())
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (quarter(0), quarter(1), 62.0, "measured"),
        (quarter(1), quarter(2), 49.0, "forecast"),
        (quarter(2), quarter(3), 48.0, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal) == ("DE", "energy_charts", "average")
    assert (forecast.issued_at, forecast.factor, forecast.note) == (None, None, None)


def test_where_both_are_told_the_measured_value_counts(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(day([60, 61, 62, None], [55, 55, 55, 49])))
    assert [p.g_per_kwh for p in provider.forecast("DE", now()).points] == [62, 49]


def test_nulls_are_unknown_and_never_zero_and_those_at_the_end_are_the_horizon(
    provider: EnergyCharts, server: ProviderServer
) -> None:
    server.on("co2eq", Reply(day([60, None, None, None, None, None], [None, None, None, 0, None, None])))
    forecast = provider.forecast("DE", now())
    assert [p.g_per_kwh for p in forecast.points] == [None, 0]
    assert forecast.points[-1].end == quarter(2)


def test_a_day_of_which_only_the_past_is_told_is_no_forecast(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(day([60, 61, None, None], [None] * 4)))
    with pytest.raises(SignalGarbled, match="sent no forecast from now on; try later"):
        provider.forecast("DE", now())


def test_hours_are_read_as_hours(provider: EnergyCharts, server: ProviderServer) -> None:
    document = day([60, None, None], [None, 50, 40], unix_seconds=seconds(-1, 3, 3600))
    server.on("co2eq", Reply(document))
    points = provider.forecast("DE", now()).points
    assert {point.end - point.start for point in points} == {timedelta(hours=1)}


@pytest.mark.parametrize("zone", ["FR", "fr"])
def test_the_country_is_asked_for_in_small_letters(provider: EnergyCharts, server: ProviderServer, zone: str) -> None:
    server.on("co2eq", Reply(seam()))
    server.on("ren_share_forecast", Reply(shares([1, 2, 3])))
    provider.forecast(zone, now())
    assert [asked.params for asked in server.asked] == [{"country": "fr"}, {"country": "fr"}]


def test_an_unknown_country_is_told_in_the_services_plain_text(provider: EnergyCharts, server: ProviderServer) -> None:
    text = "'xx' is not the code for an available country. Please refer to the API doc"
    server.on("co2eq", Reply(body=text.encode(), status=400, headers={"Content-Type": "text/plain"}))
    with pytest.raises(SignalRefused, match=f"zone XX: .*400: {text}.*check the zone's name") as caught:
        provider.forecast("XX", now())
    assert caught.value.reason == "zone"


def test_an_address_that_the_service_gave_up_names_another_provider_as_the_remedy(
    provider: EnergyCharts, server: ProviderServer
) -> None:
    server.on("co2eq", Reply({"detail": "Not Found"}, 404))
    with pytest.raises(SignalRefused, match="has no /co2eq .*404; give the zone another provider, or check base_url"):
        provider.forecast("DE", now())


def test_the_announced_end_of_the_data_is_told(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply({**seam(), "deprecated": True}))
    for _ in range(2):
        assert provider.forecast("DE", now()).note == DEPRECATED


def test_a_wait_that_is_asked_for_is_handed_on(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(body=b"Too Many Requests", status=429, headers={"Retry-After": "600"}))
    with pytest.raises(SignalOutage, match="asks for fewer questions .*wait 600 s") as caught:
        provider.forecast("DE", now())
    assert caught.value.retry_after_s == 600
    assert server.count("co2eq") == 1


def test_the_service_is_asked_once_in_a_quarter_of_an_hour(tmp_path: Path, server: ProviderServer) -> None:
    clock = [now()]
    http = Http(tmp_path / "cache", clock=lambda: clock[0])
    provider = EnergyCharts(http, server.url, QUICK)
    server.on("co2eq", Reply(day([None] * 12, [100] * 12)))
    server.on("ren_share_forecast", Reply(shares([50] * 12)))
    counts = []
    for minute in (0, 8, 14, 16):
        clock[0] = now() + timedelta(minutes=minute)
        provider.forecast("DE", clock[0])
        counts.append((server.count("co2eq"), server.count("ren_share_forecast")))
    http.close()
    assert counts == [(1, 1), (1, 1), (1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"unix_seconds": None}, "no list of unix_seconds"),
        ({"co2eq": None}, "no list of co2eq"),
        ({"co2eq_forecast": [1]}, "sent 1 values of co2eq_forecast for 6 times"),
        ({"co2eq_forecast": [None, None, None, -1, 2, 3]}, "sent -1 as the intensity of"),
        ({"unix_seconds": ["a", 2, 3, 4, 5, 6]}, "'a' is no number of seconds"),
        ({"unix_seconds": [1, 2, 3, 4, 5, 6]}, "not of this century"),
    ],
)
def test_an_answer_of_another_shape_is_refused(
    provider: EnergyCharts, server: ProviderServer, wrong: dict[str, Any], words: str
) -> None:
    server.on("co2eq", Reply({**seam(), **wrong}))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("DE", now())


def test_renewable_shares_come_beside_and_may_exceed_a_hundred(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(seam()))
    server.on("ren_share_forecast", Reply(shares([50, 51, 104.5, None, 60], solar_share=[0] * 5)))
    found = provider.forecast("DE", now()).renewable
    assert [(share.start, share.end, share.percent) for share in found] == [
        (quarter(0), quarter(1), 104.5),
        (quarter(1), quarter(2), None),
        (quarter(2), quarter(3), 60.0),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        lambda: Reply({}, 503),
        lambda: Reply({"detail": "Not Found"}, 404),
        lambda: Reply(body=b"<html>"),
        lambda: Reply({"unix_seconds": []}),
        lambda: Reply(shares([50, "much"])),
        lambda: Reply({}, 429, {"Retry-After": "3600"}),
    ],
)
def test_shares_that_cannot_be_had_are_no_fault_of_the_forecast_and_asked_for_once(
    provider: EnergyCharts, server: ProviderServer, reply: Callable[[], Reply]
) -> None:
    server.on("co2eq", Reply(seam()))
    server.on("ren_share_forecast", reply())
    for _ in range(3):
        forecast = provider.forecast("DE", now())
        assert len(forecast.points) == 3
        assert forecast.renewable == ()
    assert server.count("ren_share_forecast") == 1


def test_a_failed_forecast_does_not_ask_for_shares(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply({}))
    with pytest.raises(SignalGarbled):
        provider.forecast("DE", now())
    assert server.count("ren_share_forecast") == 0


def test_measured_is_what_was_measured_between_two_times(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(day([60, None, 62, 63, None], [50, 51, 52, 53, 54], first=-4)))
    points = provider.measured("DE", quarter(-4), quarter(-1))
    assert [(p.start, p.g_per_kwh, p.kind) for p in points] == [
        (quarter(-4), 60.0, "measured"),
        (quarter(-2), 62.0, "measured"),
    ]
    assert server.asked[0].params == {
        "country": "de",
        "start": quarter(-4).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end": quarter(-1).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def test_a_long_past_is_asked_for_in_pieces(provider: EnergyCharts, server: ProviderServer) -> None:
    server.on("co2eq", Reply(day([], [])))
    assert provider.measured("DE", now() - timedelta(days=60), now()) == ()
    spans = [(asked.params["start"], asked.params["end"]) for asked in server.asked]
    assert len(spans) == 2
    assert spans[0][1][:16] == spans[1][0][:16]


def test_the_site_file_makes_it_without_a_key(http: Http) -> None:
    setup = Setup("energy_charts", "DE", ZoneSite(provider=["energy_charts"]), ProviderSite(), lambda: http)
    assert make(setup).has_renewable is True
