"""Energi Data Service against a server that answers in its shapes; all numbers are synthetic."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.http.faults import SignalGarbled, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.energinet import Energinet, make
from orchestrator.signal.provider import Setup
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply

FIVE = timedelta(minutes=5)
FORECAST, MEASURED = "dataset/CO2EmisProg", "dataset/CO2Emis"


@pytest.fixture(autouse=True)
def not_at_the_turn_of_a_slot() -> None:
    """Waits where the five minutes are about to end, so that a test's answers lie in one slot."""
    left_s = 300 - time.time() % 300
    if left_s < 5:
        time.sleep(left_s + 0.01)


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> Energinet:
    return Energinet(http, server.url, QUICK)


def now() -> datetime:
    return datetime.now(timezone.utc)


def slot(offset: int = 0) -> datetime:
    """The start of the current five minutes, or of others so many from it."""
    return datetime.fromtimestamp(time.time() // 300 * 300, timezone.utc) + offset * FIVE


def records(values: list[Any], first: int = 0, area: str = "DK1", **more: Any) -> dict[str, Any]:
    """Times in UTC that do not say so, as the service writes them, beside Danish ones."""
    rows = [
        {
            "Minutes5UTC": (slot(first + n)).strftime("%Y-%m-%dT%H:%M:%S"),
            "Minutes5DK": (slot(first + n) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S"),
            "PriceArea": area,
            "CO2Emission": value,
        }
        for n, value in enumerate(values)
    ]
    return {"total": len(rows), "limit": 0, "dataset": "CO2EmisProg", "records": rows, **more}


def test_the_forecast_is_slots_of_five_minutes_in_utc_from_the_current_one(
    provider: Energinet, server: ProviderServer
) -> None:
    server.on(FORECAST, Reply(records([94, 95, 0.5], first=-1)))
    forecast = provider.forecast("DK1", now())
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (slot(0), slot(1), 95.0, "forecast"),
        (slot(1), slot(2), 0.5, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal) == ("DK1", "energinet", "average")
    assert forecast.issued_at is None


def test_asks_from_the_current_slot_on_in_utc_and_for_all_of_it(provider: Energinet, server: ProviderServer) -> None:
    server.on(FORECAST, Reply(records([94, 95])))
    for _ in range(3):
        provider.forecast("DK1", now())
    (asked,) = server.asked
    assert json.loads(asked.params.pop("filter")) == {"PriceArea": ["DK1"]}
    assert asked.params == {"start": slot().strftime("%Y-%m-%dT%H:%M"), "timezone": "UTC", "limit": "0"}


@pytest.mark.parametrize("zone", ["DK2", "dk2", "DK-DK2"])
def test_the_price_area_is_found_in_the_zones_name(provider: Energinet, server: ProviderServer, zone: str) -> None:
    server.on(FORECAST, Reply(records([94, 95], area="DK2")))
    assert provider.forecast(zone, now()).zone == zone
    assert json.loads(server.asked[0].params["filter"]) == {"PriceArea": ["DK2"]}


@pytest.mark.parametrize("zone", ["DK", "DE", "DK3"])
def test_a_zone_that_is_no_price_area_is_refused_without_asking(
    provider: Energinet, server: ProviderServer, zone: str
) -> None:
    with pytest.raises(SignalRefused, match=f"^energinet: zone {zone}: .*DK1 and DK2 alone; .*`as`") as caught:
        provider.forecast(zone, now())
    assert caught.value.reason == "zone"
    assert server.asked == []


def test_records_in_the_services_order_newest_first_are_put_right(provider: Energinet, server: ProviderServer) -> None:
    document = records([94, 95, None, 97])
    document["records"].reverse()
    server.on(FORECAST, Reply(document))
    assert [p.g_per_kwh for p in provider.forecast("DK1", now()).points] == [94, 95, None, 97]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (records([94, 95], area="DK2"), "answered for price area 'DK2'; DK1 was asked for"),
        (records([94, 95], total=200), "sent 2 of 200 records"),
        (records([94, -5]), "sent -5 as the intensity of"),
        (records([]), "sent no forecast from now on"),
        (records([94, 95], first=-9), "sent no forecast from now on"),
        ({"records": [{"PriceArea": "DK1", "CO2Emission": 5}]}, "without Minutes5UTC"),
        ({"records": [{"Minutes5UTC": "2026-01-01T00:00:00", "CO2Emission": 5}]}, "without PriceArea"),
        ({"message": "no"}, "no list of records"),
    ],
)
def test_an_answer_of_another_shape_or_area_is_refused(
    provider: Energinet, server: ProviderServer, document: Any, words: str
) -> None:
    server.on(FORECAST, Reply(document))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("DK1", now())


def test_a_time_that_says_its_zone_after_all_is_read_by_it(provider: Energinet, server: ProviderServer) -> None:
    document = records([94, 95])
    for row in document["records"]:
        row["Minutes5UTC"] += "Z"
    server.on(FORECAST, Reply(document))
    assert provider.forecast("DK1", now()).points[0].start == slot()


def test_measured_comes_from_the_dataset_of_what_was(provider: Energinet, server: ProviderServer) -> None:
    server.on(MEASURED, Reply(records([90, 91, None, 93], first=-4, dataset="CO2Emis")))
    points = provider.measured("DK-DK1", slot(-3), slot(0))
    assert [(p.start, p.g_per_kwh, p.kind) for p in points] == [
        (slot(-3), 91.0, "measured"),
        (slot(-1), 93.0, "measured"),
    ]
    asked = server.asked[0].params
    assert (asked["start"], asked["end"]) == tuple(slot(n).strftime("%Y-%m-%dT%H:%M") for n in (-3, 0))


def test_a_long_past_is_asked_for_in_pieces(provider: Energinet, server: ProviderServer) -> None:
    server.on(MEASURED, Reply(records([])))
    assert provider.measured("DK1", slot() - timedelta(days=60), slot()) == ()
    spans = [(asked.params["start"], asked.params["end"]) for asked in server.asked]
    assert len(spans) == 2
    assert spans[0][1] == spans[1][0]


def test_the_site_file_makes_it_without_a_key(http: Http) -> None:
    zone = ZoneSite.model_validate({"provider": "energinet", "as": "DK1"})
    assert make(Setup("energinet", "WEST", zone, ProviderSite(), lambda: http)).name == "energinet"
