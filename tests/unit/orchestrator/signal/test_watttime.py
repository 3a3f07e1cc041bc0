"""WattTime v3 against a server that answers in its shapes: forecasts, the past, and what its plan refuses."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.http.faults import SignalGarbled, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.watttime import WattTime, make
from orchestrator.site import ProviderSite
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.watttime import (
    AHEAD,
    FIVE,
    PAST,
    SCOPE,
    ZONE,
    account,
    answer,
    now,
    provider,
    setup,
    slot,
    tokens,
)

__all__ = ["account", "provider", "tokens"]


def test_the_forecast_is_marginal_in_grams_per_kilowatt_hour_and_says_when_it_was_made(
    provider: WattTime, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply(answer([1000, 870.5, 0])))
    forecast = provider.forecast(ZONE, now())
    assert [(p.start, p.end, p.kind) for p in forecast.points] == [(slot(n), slot(n + 1), "forecast") for n in range(3)]
    assert [p.g_per_kwh for p in forecast.points] == pytest.approx([453.59237, 394.852158, 0])
    assert (forecast.zone, forecast.provider, forecast.signal) == (ZONE, "watttime", "marginal")
    assert (forecast.issued_at, forecast.factor, forecast.note) == (slot(), "direct", None)


def test_asks_for_72_hours_of_the_region_with_the_logins_token(provider: WattTime, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(answer([1000, 900])))
    provider.forecast(ZONE, now())
    assert [asked.path for asked in server.asked] == ["/login", "/v3/forecast"]
    assert server.asked[1].params == {"region": ZONE, "signal_type": "co2_moer", "horizon_hours": "72"}
    assert server.asked[1].headers["Authorization"] == "Bearer token-1"


def test_one_slot_is_one_question_and_one_login(provider: WattTime, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(answer([1000, 900])))
    for _ in range(4):
        provider.forecast(ZONE, now())
    assert (server.count("login"), server.count(AHEAD)) == (1, 1)


def test_another_process_that_finds_the_answer_in_the_cache_needs_no_login(
    cache_folder: Path, server: ProviderServer
) -> None:
    server.on(AHEAD, Reply(answer([1000, 900])))
    for _ in range(3):
        http = Http(cache_folder)
        make(setup(http, server)).forecast(ZONE, now())
        http.close()
    assert (server.count("login"), server.count(AHEAD)) == (1, 1)


def test_average_rates_are_asked_for_by_the_sites_signal_type(http: Http, server: ProviderServer) -> None:
    server.on(AHEAD, Reply(answer([1000, 900], period_s=3600, signal_type="co2_aoer")))
    provider = make(setup(http, server, signal_type="co2_aoer"))
    forecast = provider.forecast(ZONE, now())
    assert (provider.signal, forecast.signal) == ("average", "average")
    assert server.asked[1].params["signal_type"] == "co2_aoer"
    assert forecast.points[0].end - forecast.points[0].start == timedelta(hours=1)


@pytest.mark.parametrize("signal_type", ["health_damage", "percentile"])
def test_what_is_no_intensity_is_refused_in_the_site_file(signal_type: str) -> None:
    with pytest.raises(ValueError, match="signal_type"):
        ProviderSite.model_validate({"signal_type": signal_type})


@pytest.mark.parametrize(
    "refusal",
    [
        Reply({"error": "INVALID_QUERY_PARAMS", "message": "horizon_hours is too long"}, 400),
        Reply({"detail": [{"loc": ["query", "horizon_hours"], "msg": "is too long", "type": "value"}]}, 422),
        Reply({"error": "FORBIDDEN", "message": "Your plan has no access to a horizon beyond 24 h"}, 403),
    ],
)
def test_a_horizon_that_the_plan_refuses_falls_to_24_hours_and_is_not_asked_for_again(
    cache_folder: Path, server: ProviderServer, refusal: Reply
) -> None:
    server.replies[AHEAD] = lambda asked: (
        refusal if asked.params["horizon_hours"] == "72" else Reply(answer([1000, 900]))
    )
    for _ in range(2):  # as two processes
        http = Http(cache_folder)
        provider = make(setup(http, server))
        assert len(provider.forecast(ZONE, now()).points) == 2
        http.close()
    assert [asked.params["horizon_hours"] for asked in server.asked if asked.path == "/v3/forecast"] == ["72", "24"]


def test_the_long_horizon_is_tried_again_after_a_day(tmp_path: Path, server: ProviderServer) -> None:
    clock = [now()]
    http = Http(tmp_path / "cache", clock=lambda: clock[0])
    provider = make(setup(http, server))
    refusal = Reply({"error": "INVALID_QUERY_PARAMS", "message": "horizon_hours"}, 400)
    server.replies[AHEAD] = lambda asked: (
        refusal if asked.params["horizon_hours"] == "72" else Reply(answer([1000] * 500))
    )
    for hours in (0, 10, 20, 25):
        clock[0] = now() + timedelta(hours=hours)
        provider.forecast(ZONE, clock[0])
    http.close()
    asked = [asked.params["horizon_hours"] for asked in server.asked if asked.path == "/v3/forecast"]
    assert asked == ["72", "24", "24", "24", "72", "24"]


def test_a_request_that_is_refused_at_any_horizon_is_a_refusal(provider: WattTime, server: ProviderServer) -> None:
    server.on(AHEAD, Reply({"error": "INVALID_QUERY_PARAMS", "msg": "no"}, 400))
    with pytest.raises(SignalRefused, match="400: INVALID_QUERY_PARAMS; no") as caught:
        provider.forecast(ZONE, now())
    assert caught.value.reason == "request"
    assert [asked.params["horizon_hours"] for asked in server.asked[1:]] == ["72", "24"]


@pytest.mark.parametrize("status", [400, 403])
def test_a_plan_without_the_region_is_told_at_once(provider: WattTime, server: ProviderServer, status: int) -> None:
    server.on(AHEAD, Reply(SCOPE, status))
    with pytest.raises(SignalRefused, match="has no access to this .*Invalid scope") as caught:
        provider.forecast(ZONE, now())
    assert caught.value.reason == "access"
    assert (server.count("login"), server.count(AHEAD)) == (1, 1)


@pytest.mark.parametrize(
    ("status", "document"),
    [
        (400, {"error": "INVALID_REGION", "message": "Invalid region XX", "docs": "https://docs.example.org/"}),
        (404, {"error": "INVALID_REGION", "msg": "no such region"}),
        (422, {"detail": [{"loc": ["query", "region"], "msg": "is none", "type": "value_error"}]}),
    ],
)
def test_an_unknown_region_names_the_remedy(
    provider: WattTime, server: ProviderServer, status: int, document: Any
) -> None:
    server.on(AHEAD, Reply(document, status))
    with pytest.raises(SignalRefused, match="zone XX: .*region.*check the zone's name") as caught:
        provider.forecast("XX", now())
    assert caught.value.reason == "zone"
    assert server.count(AHEAD) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (answer([1, 2], region="PSCO"), "answered with region 'PSCO', not CAISO_NORTH; check the zone's name"),
        (answer([1, 2], region=...), "answered with region 'None'"),
        (answer([1, 2], signal_type="health_damage"), "answered with signal_type 'health_damage', not co2_moer"),
        (answer([1, 2], units="percentile"), "answered with units 'percentile', not lbs_co2_per_mwh"),
        (answer([1, -2]), "sent -2 as the intensity of"),
        (answer([1, 10**6]), "sent 1000000 as the intensity of .* to 5000 g/kWh"),
        (answer([1, 2], generated_at="just now"), "a time that cannot be used"),
        (answer([1, 2], first=-9), "no forecast from now on"),
        ({"data": []}, "no JSON object"),
        ({"meta": answer([])["meta"]}, "no list of data"),
        ({**answer([]), "data": [{"point_time": "2026-01-01T00:00:00+00:00"}]}, "without value"),
    ],
)
def test_an_answer_of_another_region_unit_or_shape_is_refused(
    provider: WattTime, server: ProviderServer, document: Any, words: str
) -> None:
    server.on(AHEAD, Reply(document))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast(ZONE, now())


def test_the_services_warnings_are_passed_on(provider: WattTime, server: ProviderServer) -> None:
    warnings = [{"type": "STALE", "message": "The model\nis old"}, {"type": "OTHER"}]
    server.on(AHEAD, Reply(answer([1, 2], warnings=warnings)))
    assert provider.forecast(ZONE, now()).note == "The model is old; OTHER"


@pytest.mark.parametrize("warnings", [..., None, []])
def test_no_warnings_are_none(provider: WattTime, server: ProviderServer, warnings: Any) -> None:
    server.on(AHEAD, Reply(answer([1, 2], warnings=warnings)))
    assert provider.forecast(ZONE, now()).note is None


def test_measured_is_the_past_in_grams_and_what_was_filled_in_is_estimated(
    provider: WattTime, server: ProviderServer
) -> None:
    document = answer([1000, 2000, None, 500, 600], first=-4, generated_at=...)
    for n, row in enumerate(document["data"]):
        row["imputed_data_used"] = n == 1
    server.on(PAST, Reply(document))
    points = provider.measured(ZONE, slot(-4), slot(0))
    assert [(p.start, round(p.g_per_kwh or 0, 1), p.kind) for p in points] == [
        (slot(-4), 453.6, "measured"),
        (slot(-3), 907.2, "estimated"),
        (slot(-1), 226.8, "measured"),
    ]
    asked = server.asked[1].params
    assert (asked["region"], asked["signal_type"], asked["include_imputed_marker"]) == (ZONE, "co2_moer", "true")
    assert asked["start"] == slot(-4).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert asked["end"] == slot(-1).strftime("%Y-%m-%dT%H:%M:%SZ"), "the service's ends are inclusive"


def test_a_long_past_is_asked_for_in_pieces_that_the_service_allows(provider: WattTime, server: ProviderServer) -> None:
    server.on(PAST, Reply(answer([], generated_at=...)))
    assert provider.measured(ZONE, slot() - timedelta(days=70), slot()) == ()
    spans = [
        tuple(datetime.fromisoformat(asked.params[name].replace("Z", "+00:00")) for name in ("start", "end"))
        for asked in server.asked[1:]
    ]
    assert len(spans) == 3
    assert all(end - start <= timedelta(days=32) for start, end in spans)
    assert [end + FIVE for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
