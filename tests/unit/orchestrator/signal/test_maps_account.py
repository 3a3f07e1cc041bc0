"""What an Electricity Maps account may ask: read from /zones, learned from refusals, known to all processes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.faults import SignalOutage, SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.session import Http
from orchestrator.signal.electricity_maps import ElectricityMaps
from orchestrator.signal.forecast import Share
from tests.unit.orchestrator.loopback import Asked, ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import electricity_maps, forecast_of, hour, latest_of, stamp

AHEAD, SHARES = "carbon-intensity/forecast", "renewable-energy/forecast"
HISTORY, PAST = "carbon-intensity/history", "carbon-intensity/past-range"
PLAN = {"error": "Request unauthorized for zoneKey=DE,requestType=forecast,dataType=carbon-intensity."}


class Processes:
    """Sessions on one cache, as processes have them, with a clock that is moved by hand."""

    def __init__(self, folder: Path, url: str):
        self.ahead = timedelta()
        self._folder, self._url = folder, url
        self._sessions: list[Http] = []

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + self.ahead

    def new(self, key: str | None = "key-1", **more: Any) -> ElectricityMaps:
        self._sessions.append(Http(self._folder, self.now))
        return electricity_maps(self._sessions[-1], f"{self._url}/v4", key=key, **more)

    def forecast(self, zone: str = "DE", **more: Any) -> Any:
        return self.new(**more).forecast(zone, self.now())

    def close(self) -> None:
        for session in self._sessions:
            session.close()


@pytest.fixture
def processes(cache_folder: Path, server: ProviderServer) -> Iterator[Processes]:
    processes = Processes(cache_folder, server.url)
    server.on(AHEAD, Reply(forecast_of([100.0 + n for n in range(60)])))
    yield processes
    processes.close()


def listed(server: ProviderServer, *access: str, zone: str = "DE") -> None:
    server.on("zones", Reply({zone: {"zoneName": "a zone", "access": list(access)}}))


def limited_to(server: ProviderServer, hours: int, refused: Reply) -> None:
    """Longer horizons are refused."""
    good = Reply(forecast_of([100.0 + n for n in range(60)]))
    server.replies[AHEAD] = lambda asked: good if int(asked.params["horizonHours"]) <= hours else refused


def horizons(server: ProviderServer) -> list[int]:
    return [int(asked.params["horizonHours"]) for asked in server.asked_of(AHEAD)]


def test_a_zone_without_access_to_forecasts_is_refused_without_being_asked_for(
    processes: Processes, server: ProviderServer
) -> None:
    listed(server, "carbon-intensity/latest", "carbon-intensity/history")
    for _ in range(3):
        with pytest.raises(SignalRefused, match="electricity_maps: zone DE: the key in EM_KEY has no access") as caught:
            processes.forecast()
        assert caught.value.reason == "access"
        assert "(carbon-intensity/forecast; /zones, asked once a day, lists carbon-intensity/latest" in str(
            caught.value
        )
        assert "ask for a plan that covers it, or give the zone another provider" in str(caught.value)
    assert server.count("zones") == 1
    assert server.count(AHEAD) == 0


@pytest.mark.parametrize("access", ["*", "carbon-intensity/*", "carbon-intensity/forecast"])
def test_access_may_be_listed_in_full_or_by_a_star(processes: Processes, server: ProviderServer, access: str) -> None:
    listed(server, access)
    assert processes.forecast().points[0].g_per_kwh == 100


def test_zones_is_asked_with_the_key_once_a_day(processes: Processes, server: ProviderServer) -> None:
    listed(server, "*")
    for _ in range(3):
        processes.forecast()
        processes.ahead += timedelta(hours=7)
    assert server.count("zones") == 1
    assert server.asked_of("zones")[0].headers["auth-token"] == "key-1"
    processes.ahead += timedelta(hours=4)
    processes.forecast()
    assert server.count("zones") == 2


def test_another_key_is_another_account(processes: Processes, server: ProviderServer) -> None:
    listed(server, "carbon-intensity/latest")
    with pytest.raises(SignalRefused):
        processes.forecast()
    listed(server, "*")
    assert processes.forecast(key="key-2").points[0].g_per_kwh == 100


def test_without_a_key_nothing_is_asked_of_zones(processes: Processes, server: ProviderServer) -> None:
    processes.forecast(key=None)
    assert server.count("zones") == 0


@pytest.mark.parametrize(
    "answer",
    [
        Reply({"error": "no"}, 503),
        Reply({"error": "Invalid auth-token"}, 401),
        Reply(body=b"<html>"),
        Reply([]),
        Reply({}),
        Reply({"FR": {"access": []}}),
        Reply({"DE": {"zoneName": "Germany"}}),
        Reply({"DE": {"access": "much"}}),
        Reply({"DE": None}),
    ],
)
def test_where_zones_says_nothing_of_a_zone_its_forecast_is_asked_for(
    processes: Processes, server: ProviderServer, answer: Reply
) -> None:
    server.on("zones", answer)
    for _ in range(2):
        assert processes.forecast().points[0].g_per_kwh == 100
    assert server.count("zones") == 1


def test_zones_that_do_not_answer_hold_nobody_up_again_for_a_while(
    processes: Processes, server: ProviderServer
) -> None:
    server.on("zones", Reply(silence_s=30))
    limits = Limits(connect_s=2, read_s=0.3, total_s=1, failed_s=0)
    processes.forecast(limits=limits)
    processes.forecast(limits=limits)
    assert server.count("zones") == 1
    processes.ahead += timedelta(minutes=16)
    processes.forecast(limits=limits)
    assert server.count("zones") == 2


@pytest.mark.parametrize("refused", [Reply({"error": "Bad horizonHours"}, 400), Reply(PLAN, 401)])
def test_the_horizon_falls_to_what_the_plan_allows_and_that_is_remembered(
    processes: Processes, server: ProviderServer, refused: Reply
) -> None:
    limited_to(server, 24, refused)
    processes.forecast()
    assert horizons(server) == [72, 48, 24]
    processes.forecast()
    processes.ahead += timedelta(hours=2)
    processes.forecast()
    assert horizons(server) == [72, 48, 24, 24]
    processes.ahead += timedelta(hours=23)
    processes.forecast()
    assert horizons(server) == [72, 48, 24, 24, 72, 48, 24]


def test_a_refusal_of_every_horizon_for_the_plans_sake_is_remembered_for_a_while(
    processes: Processes, server: ProviderServer
) -> None:
    limited_to(server, 0, Reply(PLAN, 401))
    for _ in range(3):
        with pytest.raises(SignalRefused, match="zone DE: the key in EM_KEY has no access .*401: Request") as caught:
            processes.forecast()
        assert caught.value.reason == "access"
        assert str(caught.value).count("zone DE: ") == 1
    assert horizons(server) == [72, 48, 24]
    limited_to(server, 72, Reply(PLAN, 401))
    processes.ahead += timedelta(minutes=16)
    assert processes.forecast().points


def test_what_is_no_matter_of_the_horizon_is_asked_once(processes: Processes, server: ProviderServer) -> None:
    limited_to(server, 0, Reply({"error": "Invalid auth-token"}, 401))
    with pytest.raises(SignalRefused, match="is not accepted"):
        processes.forecast()
    assert horizons(server) == [72]


def shares_of(values: list[Any], name: str = "value", key: str = "data") -> Reply:
    rows = [{name: value, "datetime": stamp(hour(n))} for n, value in enumerate(values)]
    return Reply({"zone": "DE", key: rows, "temporalGranularity": "hourly"})


@pytest.mark.parametrize("name", ["value", "renewableEnergy"])
def test_the_renewable_share_comes_with_the_forecast(processes: Processes, server: ProviderServer, name: str) -> None:
    server.on(SHARES, shares_of([60, None, 104.5], name))
    found = [processes.forecast().renewable for _ in range(2)]
    assert (
        found[0]
        == found[1]
        == (
            Share(hour(0), hour(1), 60.0),
            Share(hour(1), hour(2), None),
            Share(hour(2), hour(3), 104.5),
        )
    )
    assert server.count(SHARES) == 1
    assert server.asked_of(SHARES)[0].params["horizonHours"] == "72"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Reply(PLAN, 401),
        lambda: Reply({"error": "no"}, 404),
        lambda: Reply({"error": "no"}, 503),
        lambda: Reply(body=b"no"),
        lambda: Reply(reset=True),
        lambda: Reply({"zone": "FR", "data": []}),
        lambda: shares_of([]),
        lambda: shares_of([-1]),
        lambda: shares_of([1e6]),
        lambda: shares_of(["60"]),
        lambda: shares_of([True]),
        lambda: shares_of([60], name="percent"),
    ],
)
def test_a_share_that_does_not_come_is_no_fault_of_the_forecast_and_is_let_be_for_a_while(
    processes: Processes, server: ProviderServer, answer: Callable[[], Reply], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on(SHARES, answer())
    for _ in range(2):
        forecast = processes.forecast()
        assert forecast.points[0].g_per_kwh == 100
        assert forecast.renewable == ()
    assert server.count(SHARES) == 1
    assert "the renewable share stays unknown" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    server.on(SHARES, shares_of([60.0] * 12))
    processes.ahead += timedelta(hours=6, minutes=1)
    assert processes.forecast().renewable[0].percent == 60


def test_a_share_that_the_account_does_not_list_is_not_asked_for(processes: Processes, server: ProviderServer) -> None:
    listed(server, AHEAD)
    assert processes.forecast().renewable == ()
    assert server.count(SHARES) == 0


def past(offset: int, value: float) -> dict[str, Any]:
    return latest_of(value, at=hour(offset), estimated=False)


def test_a_past_that_the_account_does_not_list_is_not_asked_for(processes: Processes, server: ProviderServer) -> None:
    listed(server, HISTORY)
    server.on(HISTORY, Reply({"zone": "DE", "history": [past(-1, 30)]}))
    assert [p.g_per_kwh for p in processes.new().measured("DE", hour(-40), hour(0))] == [30.0]
    assert server.count(PAST) == 0


def test_a_past_that_was_refused_is_not_asked_for_again_for_a_while(
    processes: Processes, server: ProviderServer
) -> None:
    server.on(HISTORY, Reply({"zone": "DE", "history": [past(-1, 30)]}))
    server.on(PAST, Reply(PLAN, 401))
    for _ in range(3):
        assert [p.g_per_kwh for p in processes.new().measured("DE", hour(-60), hour(0))] == [30.0]
    assert server.count(PAST) == 1


def test_the_last_day_and_what_was_before_it_are_one_past(processes: Processes, server: ProviderServer) -> None:
    server.on(HISTORY, Reply({"zone": "DE", "history": [past(-2, 20), past(-1, 30)]}))
    server.on(PAST, Reply({"zone": "DE", "data": [past(-4, 5), past(-3, 10)]}))
    points = processes.new().measured("DE", hour(-4), hour(0))
    assert [(p.start, p.g_per_kwh) for p in points] == [
        (hour(-4), 5.0),
        (hour(-3), 10.0),
        (hour(-2), 20.0),
        (hour(-1), 30.0),
    ]
    window = server.asked_of(PAST)[0].params
    assert (window["start"], window["end"]) == (iso(hour(-4)), iso(hour(-2)))


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def test_an_outage_of_what_was_before_leaves_the_last_day(processes: Processes, server: ProviderServer) -> None:
    server.on(HISTORY, Reply({"zone": "DE", "history": [past(-1, 30)]}))
    server.on(PAST, Reply({}, 503))
    assert [p.g_per_kwh for p in processes.new().measured("DE", hour(-9), hour(0))] == [30.0]
    server.on(HISTORY, Reply({}, 503))
    processes.ahead += timedelta(hours=1)
    with pytest.raises(SignalOutage):
        processes.new().measured("DE", hour(-9), hour(0))


def test_what_ended_a_day_ago_is_asked_of_the_range_alone(processes: Processes, server: ProviderServer) -> None:
    server.on(PAST, Reply({"zone": "DE", "data": [past(-50, 5)]}))
    assert [p.g_per_kwh for p in processes.new().measured("DE", hour(-50), hour(-30))] == [5.0]
    assert server.count(HISTORY) == 0


def test_granularity_and_factors_are_asked_for(processes: Processes, server: ProviderServer) -> None:
    def reply(asked: Asked) -> Reply:
        document = forecast_of([50] * 40, step_s=300)
        document["temporalGranularity"] = asked.params["temporalGranularity"]
        return Reply(document)

    server.replies[AHEAD] = reply
    forecast = processes.forecast(granularity_s=300.0, factor="direct")
    assert {(p.end - p.start).total_seconds() for p in forecast.points} == {300.0}
    assert forecast.factor == "direct"
    asked = server.asked_of(AHEAD)[0].params
    assert (asked["temporalGranularity"], asked["emissionFactorType"]) == ("5_minutes", "direct")
