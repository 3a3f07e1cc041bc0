"""The Carbon Intensity API of Great Britain against a server that answers in its shapes; all numbers are synthetic."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from orchestrator.http.faults import SignalFault, SignalGarbled, SignalOutage, SignalRefused
from orchestrator.http.session import Http
from orchestrator.signal.provider import Setup
from orchestrator.signal.uk import Uk, make
from orchestrator.site import ProviderSite, ZoneSite
from tests.unit.orchestrator.loopback import QUICK, ProviderServer, Reply

HALF = timedelta(minutes=30)


@pytest.fixture(autouse=True)
def not_at_the_turn_of_a_half_hour() -> None:
    """Waits where the half-hour is about to end, so that a test's answers lie in one."""
    left_s = 1800 - time.time() % 1800
    if left_s < 5:
        time.sleep(left_s + 0.01)


@pytest.fixture
def provider(http: Http, server: ProviderServer) -> Uk:
    return Uk(http, server.url, QUICK)


def now() -> datetime:
    return datetime.now(timezone.utc)


def half(offset: int = 0) -> datetime:
    """The start of the current half-hour, or of one so many half-hours from it."""
    return datetime.fromtimestamp(time.time() // 1800 * 1800, timezone.utc) + offset * HALF


def minute(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%MZ")


def row(offset: int, forecast: Any, **more: Any) -> dict[str, Any]:
    """A half-hour as the service writes it; the word for the intensity is of no use and changes every year."""
    intensity = {"forecast": forecast, "index": "very high"}
    if "actual" in more:
        intensity["actual"] = more.pop("actual")
    return {"from": minute(half(offset)), "to": minute(half(offset + 1)), "intensity": intensity, **more}


def national(values: list[Any], first: int = -1) -> dict[str, Any]:
    """48 hours as asked for on a boundary: the first slot ends where the question begins."""
    return {"data": [row(first + n, value, actual=None) for n, value in enumerate(values)]}


def region(values: list[Any], mix: list[dict[str, Any]] | None = None, **place: Any) -> dict[str, Any]:
    rows = [row(n - 1, value, **({"generationmix": mix} if mix else {})) for n, value in enumerate(values)]
    return {"regionid": 11, "dnoregion": "A", "shortname": "B", **(place or {"postcode": "BS16"}), "data": rows}


def test_the_forecast_is_half_hours_from_the_current_one_without_the_slot_that_has_ended(
    provider: Uk, server: ProviderServer
) -> None:
    server.on("fw48h", Reply(national([150, 146, 0, 139])))
    forecast = provider.forecast("GB", now())
    assert [(p.start, p.end, p.g_per_kwh, p.kind) for p in forecast.points] == [
        (half(0), half(1), 146.0, "forecast"),
        (half(1), half(2), 0.0, "forecast"),
        (half(2), half(3), 139.0, "forecast"),
    ]
    assert (forecast.zone, forecast.provider, forecast.signal, forecast.factor) == ("GB", "uk", "average", "direct")


def test_the_question_begins_on_a_half_hour_so_that_all_ask_the_same(provider: Uk, server: ProviderServer) -> None:
    server.on("fw48h", Reply(national([150, 146])))
    for _ in range(3):
        provider.forecast("GB", now())
    assert [asked.path for asked in server.asked] == [f"/intensity/{minute(half())}/fw48h"]
    assert server.asked[0].params == {}


@pytest.mark.parametrize("count", [96, 97, 49, 30])
def test_as_many_half_hours_as_there_are_are_taken_and_no_more(
    provider: Uk, server: ProviderServer, count: int
) -> None:
    server.on("fw48h", Reply(national([100] * count)))
    points = provider.forecast("GB", now()).points
    assert len(points) == count - 1
    assert points[-1].end == half(count - 1)


def test_an_answer_off_the_boundary_begins_with_the_slot_that_holds_now(provider: Uk, server: ProviderServer) -> None:
    server.on("fw48h", Reply(national([100] * 96, first=0)))
    assert len(provider.forecast("GB", now()).points) == 96


def test_nothing_says_when_a_forecast_was_made(provider: Uk, server: ProviderServer) -> None:
    server.on("fw48h", Reply(national([150, 146])))
    forecast = provider.forecast("GB", now())
    assert forecast.issued_at is None
    assert forecast.renewable == ()


@pytest.mark.parametrize(
    ("zone", "path"),
    [
        ("BS16", "postcode/BS16"),
        ("bs16", "postcode/BS16"),
        ("postcode/BS16", "postcode/BS16"),
        ("BS16 1QY", "postcode/BS16"),
        ("11", "regionid/11"),
        ("regionid/11", "regionid/11"),
    ],
)
@pytest.mark.parametrize("shape", ["object", "list"])
def test_a_region_is_asked_for_by_postcode_or_number_and_answered_as_an_object_or_a_list(
    provider: Uk, server: ProviderServer, zone: str, path: str, shape: str
) -> None:
    found = region([162, 120, 110])
    server.on(path, Reply({"data": found if shape == "object" else [found]}))
    forecast = provider.forecast(zone, now())
    assert server.asked[0].path == f"/regional/intensity/{minute(half())}/fw48h/{path}"
    assert [point.g_per_kwh for point in forecast.points] == [120, 110]


@pytest.mark.parametrize(("name", "number"), [("England", 15), ("scotland", 16), ("WALES", 17)])
def test_the_nations_have_names(provider: Uk, server: ProviderServer, name: str, number: int) -> None:
    server.on(f"regionid/{number}", Reply({"data": region([1, 2], regionid=number)}))
    assert provider.forecast(name, now()).points[0].g_per_kwh == 2


@pytest.mark.parametrize("zone", ["DE", "London", "regionid/south", "GB-SCT", "", "B"])
def test_a_name_that_is_no_place_there_is_refused_without_asking(
    provider: Uk, server: ProviderServer, zone: str
) -> None:
    with pytest.raises(
        SignalRefused, match=rf"^uk: zone {zone}: .*GB.*BS16.*regionid/13; give one with `as`"
    ) as caught:
        provider.forecast(zone, now())
    assert caught.value.reason == "zone"
    assert server.asked == []


@pytest.mark.parametrize(
    ("zone", "answer", "words"),
    [
        ("BS16", region([1, 2], postcode="RG41"), "answered for 'RG41'; BS16 was asked for"),
        ("BS16", region([1, 2], regionid=11), "answered for 'None'; BS16 was asked for"),
        ("11", region([1, 2], regionid=12), "answered for '12'; 11 was asked for"),
        ("11", [region([1, 2]), region([1, 2])], "answered for 2 regions; 11 was asked for"),
        ("11", [row(0, 5)], "answered for 'None'; 11 was asked for"),
        ("11", ["x"], "answered with no JSON object"),
    ],
)
def test_another_place_than_the_one_asked_for_is_refused(
    provider: Uk, server: ProviderServer, zone: str, answer: Any, words: str
) -> None:
    for path in ("postcode/BS16", "regionid/11"):
        server.on(path, Reply({"data": answer}))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast(zone, now())


@pytest.mark.parametrize("document", [{}, {"data": []}, {"data": {}}, {"data": None}])
@pytest.mark.parametrize("zone", ["GB", "ZZ99"])
def test_an_answer_of_nothing_names_both_of_its_causes(
    provider: Uk, server: ProviderServer, zone: str, document: Any
) -> None:
    for path in ("fw48h", "postcode/ZZ99"):
        server.on(path, Reply(document))
    with pytest.raises(SignalGarbled, match="answered with nothing.*check the zone's name or `as`, or try later"):
        provider.forecast(zone, now())


def test_an_answer_of_nothing_is_not_kept(provider: Uk, server: ProviderServer) -> None:
    server.on("fw48h", Reply({}), Reply(national([150, 146])))
    with pytest.raises(SignalGarbled):
        provider.forecast("GB", now())
    assert provider.forecast("GB", now()).points[0].g_per_kwh == 146


@pytest.mark.parametrize(
    ("status", "message", "kind", "reason"),
    [
        (400, "No postcode match can be found.", SignalRefused, "zone"),
        (400, "Please enter a valid region ID i.e. 1-17.", SignalRefused, "zone"),
        (400, "Please enter a valid datetime in ISO8601 format YYYY-MM-DDThh:mmZ", SignalRefused, "request"),
        (500, "Requested resource not found.", SignalOutage, "outage"),
    ],
)
def test_an_error_is_an_object_with_the_services_words(
    provider: Uk, server: ProviderServer, status: int, message: str, kind: type[SignalFault], reason: str
) -> None:
    server.on("postcode/BS16", Reply({"error": {"code": f"{status} No", "message": message}}, status))
    with pytest.raises(kind, match=message) as caught:
        provider.forecast("BS16", now())
    assert caught.value.reason == reason


def test_nulls_are_unknown_and_rows_in_any_order_are_put_right(provider: Uk, server: ProviderServer) -> None:
    document = national([150, 146, None, 139])
    document["data"].reverse()
    server.on("fw48h", Reply(document))
    assert [point.g_per_kwh for point in provider.forecast("GB", now()).points] == [146, None, 139]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"from": "2026-01-01T00:00"}, "says no time zone"),
        ({"to": minute(half(0))}, "ends before it begins"),
        ({"intensity": None}, "without forecast"),
        ({"intensity": {"actual": 5}}, "without forecast"),
    ],
)
def test_a_row_of_another_shape_is_refused(
    provider: Uk, server: ProviderServer, wrong: dict[str, Any], words: str
) -> None:
    document = national([150, 146, 139])
    document["data"][1] |= wrong
    server.on("fw48h", Reply(document))
    with pytest.raises(SignalGarbled, match=words):
        provider.forecast("GB", now())


MIX = [
    {"fuel": fuel, "perc": percent}
    for fuel, percent in {
        "biomass": 0.5,
        "coal": 0,
        "imports": 40,
        "gas": 30,
        "nuclear": 5,
        "other": 0.5,
        "hydro": 1,
        "solar": 3,
        "wind": 20,
    }.items()
]


def test_a_regions_mix_gives_the_share_of_biomass_hydro_solar_and_wind(provider: Uk, server: ProviderServer) -> None:
    server.on("postcode/BS16", Reply({"data": region([162, 120, 110], MIX)}))
    shares = provider.forecast("BS16", now()).renewable
    assert [(share.start, share.end, share.percent) for share in shares] == [
        (half(0), half(1), 24.5),
        (half(1), half(2), 24.5),
    ]


def test_a_mix_without_one_of_the_renewable_fuels_has_an_unknown_share(provider: Uk, server: ProviderServer) -> None:
    document = region([162, 120, 110, 100], MIX)
    document["data"][2]["generationmix"] = [part for part in MIX if part["fuel"] != "wind"]
    document["data"][3]["generationmix"] = None
    server.on("postcode/BS16", Reply({"data": document}))
    assert [share.percent for share in provider.forecast("BS16", now()).renewable] == [24.5, None, None]


def test_a_share_that_is_no_number_is_refused(provider: Uk, server: ProviderServer) -> None:
    server.on("postcode/BS16", Reply({"data": region([162, 120], [*MIX[:-1], {"fuel": "wind", "perc": "a lot"}])}))
    with pytest.raises(SignalGarbled, match="sent 'a lot' as the share of"):
        provider.forecast("BS16", now())


def test_measured_is_the_national_actual_and_never_a_forecast(provider: Uk, server: ProviderServer) -> None:
    rows = [row(-4, 90, actual=91), row(-3, 95, actual=96), row(-2, 99, actual=0), row(-1, 100, actual=None)]
    path = f"{minute(half(-3))}/{minute(half(0))}"
    server.on(path, Reply({"data": rows}))
    points = provider.measured("GB", half(-3), half(0))
    assert [(p.start, p.g_per_kwh, p.kind) for p in points] == [
        (half(-3), 96.0, "measured"),
        (half(-2), 0.0, "measured"),
    ]
    assert server.asked[0].path == f"/intensity/{path}"


def test_the_past_is_asked_for_in_pieces_of_two_weeks_on_half_hours(provider: Uk, server: ProviderServer) -> None:
    start, end = half(-48 * 20) + timedelta(minutes=7), half(0) - timedelta(minutes=7)
    middle = half(-48 * 20) + timedelta(days=14)
    server.on(f"{minute(half(-48 * 20))}/{minute(middle)}", Reply({"data": []}))
    server.on(f"{minute(middle)}/{minute(half(0))}", Reply({"data": [row(-2, 5, actual=7), row(-1, 5, actual=8)]}))
    assert [point.g_per_kwh for point in provider.measured("GB", start, end)] == [7, 8]
    assert len(server.asked) == 2


def test_a_region_has_nothing_measured_and_is_not_asked(provider: Uk, server: ProviderServer) -> None:
    assert provider.measured("BS16", half(-4), half(0)) == ()
    assert server.asked == []


def test_the_site_file_makes_it_without_a_key(http: Http) -> None:
    def made(zone: str, **of: Any) -> Uk:
        return make(Setup("uk", zone, ZoneSite.model_validate({"provider": "uk", **of}), ProviderSite(), lambda: http))

    assert made("GB").has_renewable is False
    assert made("BRISTOL", **{"as": "BS16"}).has_renewable is True
