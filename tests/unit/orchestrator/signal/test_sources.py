"""The chain of a zone's providers: order, outages, the last good answer, refusals, and what the site file names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jobs.spec import InputError, Unavailable
from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http, Limits
from orchestrator.signal.provider import Setup
from orchestrator.signal.sources import Signals
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.conftest import forecast_of, hour, latest_of, stamp

KEY = "key-5b1d0c"


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EM_KEY", KEY)
    yield


def now() -> datetime:
    return datetime.now(timezone.utc)


def signals(folder: Path, server: ProviderServer, zone: dict[str, Any] | None = None, **more: float) -> Signals:
    """A site with the zone DE on the server, failing providers asked again at once."""
    return Signals(
        {"DE": ZoneSite.model_validate(zone or {"provider": "electricity_maps"})},
        {"electricity_maps": ProviderSite(base_url=f"{server.url}/v4", token_env="EM_KEY")},
        folder,
        **{"hold_off_s": 0.0, **more},
    )


def answering(server: ProviderServer, values: list[Any], zone: str = "DE") -> None:
    server.on("forecast", Reply(forecast_of(values, zone)))
    server.on("latest", Reply(latest_of(values[0], zone=zone)))


def failing(server: ProviderServer) -> None:
    """Out of order in a way that no retry is tried on, to keep the test short."""
    server.on("forecast", Reply({"error": "maintenance"}, 408))


def lab_csv(folder: Path, values: list[float]) -> Path:
    path = folder / "lab.csv"
    rows = "".join(f"{stamp(hour(n))},{value}\n" for n, value in enumerate(values))
    path.write_text("start_utc,g_per_kwh\n" + rows)
    return path


def test_the_forecast_carries_the_sites_name_of_the_zone(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200], zone="DK-DK2")
    forecast = signals(cache_folder, server, {"provider": "electricity_maps", "as": "DK-DK2"}).forecast("DE")
    assert forecast.zone == "DE"
    assert server.asked_of("carbon-intensity/forecast")[0].params["zone"] == "DK-DK2"
    assert server.asked[0].headers["auth-token"] == KEY


def test_one_slot_is_one_request_through_the_whole_chain(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200])
    found = signals(cache_folder, server)
    assert len({found.forecast("DE").points for _ in range(5)}) == 1
    assert server.count("carbon-intensity/forecast") == 1


def test_the_second_provider_answers_where_the_first_does_not(
    cache_folder: Path, tmp_path: Path, server: ProviderServer
) -> None:
    failing(server)
    zone = {"provider": ["electricity_maps", "csv"], "file": str(lab_csv(tmp_path, [1, 2, 3]))}
    forecast = signals(cache_folder, server, zone).forecast("DE")
    assert (forecast.provider, forecast.stale, forecast.at(now())) == ("csv", False, 1.0)


def test_a_refusal_of_the_first_does_not_hide_the_second(
    cache_folder: Path, tmp_path: Path, server: ProviderServer
) -> None:
    server.on("forecast", Reply({"error": "Invalid auth-token"}, 401))
    zone = {"provider": ["electricity_maps", "csv"], "file": str(lab_csv(tmp_path, [1, 2, 3]))}
    assert signals(cache_folder, server, zone).forecast("DE").provider == "csv"


def test_in_an_outage_the_last_good_answer_is_used_and_marked_stale(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200, 300])
    good = signals(cache_folder, server).forecast("DE")
    failing(server)
    later = hour(1) + timedelta(minutes=1)
    kept = LaterSignals(cache_folder, server).forecast(later)
    assert kept.stale is True
    assert kept.points == good.points
    assert kept.fetched_at == good.fetched_at
    assert kept.at(later) == 200


class LaterSignals:
    """A new process after the slot has ended: nothing in memory, and no fresh answer in the cache."""

    def __init__(self, folder: Path, server: ProviderServer, **more: float):
        self._folder = folder / "later"
        self._folder.mkdir()
        (folder / "forecasts").rename(self._folder / "forecasts")
        self._signals = signals(self._folder, server, **more)

    def forecast(self, at: datetime) -> Any:
        return self._signals.forecast("DE", at)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>maintenance</html>"),
        Reply(forecast_of([float("nan"), 1])),
        Reply(forecast_of([1, 2], zone="FR")),
        Reply({}, 408),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_an_outage_too(
    cache_folder: Path, server: ProviderServer, reply: Reply
) -> None:
    answering(server, [100, 200])
    signals(cache_folder, server).forecast("DE")
    server.on("forecast", reply)
    assert LaterSignals(cache_folder, server).forecast(now()).stale is True


def test_where_the_network_is_gone_the_last_good_answer_bridges_it(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200])
    signals(cache_folder, server).forecast("DE")
    server.stop()
    assert LaterSignals(cache_folder, server).forecast(now()).stale is True


def test_an_answer_that_is_too_old_is_not_used(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100] * 48)
    signals(cache_folder, server).forecast("DE")
    failing(server)
    with pytest.raises(SignalOutage, match="maintenance"):
        LaterSignals(cache_folder, server).forecast(now() + timedelta(hours=25))


def test_an_answer_that_ends_before_now_is_not_used(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200])
    signals(cache_folder, server).forecast("DE")
    failing(server)
    with pytest.raises(SignalOutage):
        LaterSignals(cache_folder, server).forecast(hour(3))


def test_a_key_that_is_refused_is_told_even_where_an_earlier_answer_is_kept(
    cache_folder: Path, server: ProviderServer
) -> None:
    answering(server, [100, 200])
    signals(cache_folder, server).forecast("DE")
    server.on("forecast", Reply({"error": "Invalid auth-token"}, 401))
    with pytest.raises(SignalRefused, match="key in EM_KEY is not accepted"):
        LaterSignals(cache_folder, server).forecast(now())


def test_another_sources_answer_is_never_passed_off_as_this_ones(
    cache_folder: Path, tmp_path: Path, server: ProviderServer
) -> None:
    zone = {"provider": "csv", "file": str(lab_csv(tmp_path, [1, 2, 3]))}
    signals(cache_folder, server, zone).forecast("DE")
    failing(server)
    with pytest.raises(SignalOutage):
        signals(cache_folder, server).forecast("DE")


def test_a_damaged_last_answer_is_as_none(cache_folder: Path, server: ProviderServer) -> None:
    answering(server, [100, 200])
    signals(cache_folder, server).forecast("DE")
    for path in (cache_folder / "forecasts").iterdir():
        path.write_text('{"zone": "DE"')
    failing(server)
    with pytest.raises(SignalOutage):
        LaterSignals(cache_folder, server).forecast(now())


def test_a_provider_that_failed_is_left_alone_for_a_while(cache_folder: Path, server: ProviderServer) -> None:
    failing(server)
    found = signals(cache_folder, server, hold_off_s=60.0)
    for _ in range(3):
        with pytest.raises(SignalOutage):
            found.forecast("DE")
    assert server.count("carbon-intensity/forecast") == 1


def test_where_all_fail_each_is_named(cache_folder: Path, tmp_path: Path, server: ProviderServer) -> None:
    failing(server)
    path = tmp_path / "lab.csv"
    path.write_text("start_utc,g_per_kwh\n2020-01-01T00:00:00Z,5\n2020-01-01T01:00:00Z,6\n")
    found = signals(cache_folder, server, {"provider": ["csv", "electricity_maps"], "file": str(path)})
    with pytest.raises(
        SignalFault, match=r"^electricity_maps: zone DE: .*maintenance.*csv: zone DE: .*ends at"
    ) as caught:
        found.forecast("DE")
    assert isinstance(caught.value, Unavailable)
    assert "\n" not in str(caught.value)


def test_measured_values_come_from_the_first_provider_that_has_any(
    cache_folder: Path, tmp_path: Path, server: ProviderServer
) -> None:
    path = tmp_path / "lab.csv"
    path.write_text(f"start_utc,g_per_kwh\n{stamp(hour(-2))},5\n{stamp(hour(-1))},6\n")
    server.on("past-range", Reply({"zone": "DE", "data": []}))
    found = signals(cache_folder, server, {"provider": ["electricity_maps", "csv"], "file": str(path)})
    measured = found.measured("DE", hour(-2), hour(0))
    assert measured is not None
    assert (measured.zone, measured.provider, measured.signal) == ("DE", "csv", "average")
    assert [point.g_per_kwh for point in measured.points] == [5.0, 6.0]
    server.on("past-range", Reply({"error": "no"}, 408))
    with pytest.raises(SignalOutage):
        signals(cache_folder, server).measured("DE", hour(-2), hour(-1))


def test_no_file_and_no_message_holds_the_key(cache_folder: Path, server: ProviderServer, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    answering(server, [100, 200])
    found = signals(cache_folder, server)
    found.forecast("DE")
    server.on("past-range", Reply({"error": f"unknown token {KEY}"}, 401))
    with pytest.raises(SignalRefused) as caught:
        found.measured("DE", hour(-2), hour(0))
    assert KEY not in str(caught.value)
    assert KEY not in caplog.text
    files = [path for path in cache_folder.rglob("*") if path.is_file()]
    assert any(path.name == "http.sqlite" for path in files)
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_the_demo_grid_needs_nothing(tmp_path: Path) -> None:
    forecast = Signals({"DEMO": ZoneSite(provider=["demo"])}, {}, tmp_path / "cache").forecast("DEMO")
    assert forecast.at(now()) is not None
    assert "generated" in (forecast.note or "")


def test_what_a_provider_says_of_its_forecast_holds_for_what_it_measured(tmp_path: Path) -> None:
    found = Signals({"DEMO": ZoneSite(provider=["demo"])}, {}, tmp_path / "cache")
    forecast, measured = found.forecast("DEMO"), found.measured("DEMO", hour(-3), hour())
    assert measured is not None and measured.note == forecast.note


@pytest.mark.parametrize(
    ("zone", "settings", "words"),
    [
        ({"provider": "wattime"}, {}, "zones.DE.provider: 'wattime' is not a provider; choose from"),
        (
            {"provider": "electricity_maps"},
            {},
            "providers.electricity_maps.token_env: is missing; name the",
        ),
        ({"provider": "electricity_maps"}, {"token_env": "NO_SUCH"}, "token_env: NO_SUCH is not set; export it"),
        ({"provider": "electricity_maps"}, {"base_url": "example.org"}, "base_url: 'example.org' is no address"),
        ({"provider": "electricity_maps"}, {"base_url": "https://u:p@h/v4"}, "base_url: holds a user or a query"),
    ],
)
def test_a_wrong_site_is_the_users_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: dict[str, Any], settings: dict[str, Any], words: str
) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    providers = {"electricity_maps": ProviderSite.model_validate(settings)}
    found = Signals({"DE": ZoneSite.model_validate(zone)}, providers, tmp_path)
    for ask in (found.check, lambda: found.forecast("DE")):
        with pytest.raises(InputError, match=words):
            ask()


@pytest.mark.parametrize(
    ("providers", "zone", "words"),
    [
        ({"electricty_maps": {}}, {}, "providers.electricty_maps: is not a provider; choose from electricity_maps, "),
        ({"uk": {"token_env": "A"}}, {}, "providers.uk.token_env: uk takes base_url, timeout; remove it"),
        ({"watttime": {"granularity": "5m"}}, {}, "providers.watttime.granularity: watttime takes base_url, timeout, "),
        ({"electricity_maps": {"user_env": "A"}}, {}, "electricity_maps takes .*factors, granularity, token_env; "),
        ({"energinet": {"signal": "average"}}, {}, "providers.energinet.signal: energinet takes base_url, timeout; "),
        ({}, {"file": "a.csv"}, "zones.DE.file: demo reads no file; add csv, or remove it"),
    ],
)
def test_what_would_be_ignored_is_refused(
    tmp_path: Path, providers: dict[str, Any], zone: dict[str, Any], words: str
) -> None:
    settings = {name: ProviderSite.model_validate(each) for name, each in providers.items()}
    with pytest.raises(InputError, match=words):
        Signals({"DE": ZoneSite.model_validate({"provider": "demo", **zone})}, settings, tmp_path).check()


def test_options_that_providers_take_pass(tmp_path: Path) -> None:
    given = {
        "electricity_maps": {"base_url": "http://h", "timeout": "9s", "token_env": "A", "granularity": "5m"},
        "watttime": {"user_env": "A", "password_env": "B", "signal_type": "co2_aoer"},
        "carbon_aware_sdk": {"base_url": "http://h", "signal": "marginal"},
        **{name: {"base_url": "http://h", "timeout": "9s"} for name in ("uk", "energy_charts", "energinet", "csv")},
    }
    settings = {name: ProviderSite.model_validate(each) for name, each in given.items()}
    Signals({"DE": ZoneSite(provider=["demo"])}, settings, tmp_path).check()


def test_an_unknown_zone_lists_the_sites(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="zone FR is not in the site file; its zones are DEMO"):
        Signals({"DEMO": ZoneSite(provider=["demo"])}, {}, tmp_path).forecast("FR")


def test_the_sites_timeout_bounds_the_question(http: Http) -> None:
    def limits(timeout: str) -> Limits:
        settings = ProviderSite.model_validate({"timeout": timeout})
        return Setup("electricity_maps", "DE", ZoneSite(provider=["electricity_maps"]), settings, lambda: http).limits

    assert limits("2s").read_s == 2
    assert limits("2s").connect_s == 2
    slow = limits("90s")
    assert slow.read_s == 90
    assert slow.total_s > 90


def test_faults_are_told_apart_by_what_mends_them() -> None:
    assert not issubclass(SignalRefused, SignalOutage)
    assert not issubclass(SignalGarbled, SignalRefused)
