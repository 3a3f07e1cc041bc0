"""The checks that every reader makes: what passes, what is refused, and by which words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.http.faults import SignalGarbled
from orchestrator.http.nothing import NO_CONTENT
from orchestrator.signal.reading import G_PER_KWH_AT_MOST, Reading, fresh_until

READING = Reading("watttime", "CAISO_NORTH")
T0 = datetime(2026, 8, 22, 17, tzinfo=timezone.utc)
STARTS = [T0 + timedelta(hours=n) for n in range(4)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-08-22T17:00:00.000Z", T0),
        ("2026-08-22T17:00:00Z", T0),
        ("2026-08-22T17:00Z", T0),
        ("2026-08-22 17:00:00+00:00", T0),
        ("2026-08-22T19:00:00+02:00", T0),
        ("2026-08-22T19:00:00+0200", T0),
        ("2026-08-22T13:00:00-04", T0),
        ("2026-08-22T17:00:00.5092741+00:00", T0.replace(microsecond=509274)),
        ("2026-08-22T17:00:00.5Z", T0.replace(microsecond=500000)),
        ("2026-08-22T17:00:00.123456789Z", T0.replace(microsecond=123456)),
    ],
)
def test_a_time_with_a_zone_is_read_as_utc(text: str, expected: datetime) -> None:
    assert READING.times([text]) == [expected] == [READING.time(text)]
    assert READING.times([text])[0].tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-08-22T17:00:00", "says no time zone"),
        ("yesterday", "is not ISO 8601"),
        ("", "is not ISO 8601"),
        ("2026-08-22", "is not ISO 8601"),
        ("2026-02-30T00:00:00Z", "is on no calendar"),
        ("2026-08-22T25:00:00Z", "is on no calendar"),
        ("1970-01-01T00:00:00Z", "is not of this century"),
        ("9999-12-31T23:59:59-08:00", "is on no calendar"),
        (None, "is not ISO 8601"),
        (1766000000, "is not ISO 8601"),
        (True, "is not ISO 8601"),
        (["2026-08-22T17:00:00Z"], "is not ISO 8601"),
        ("x" * 5000, "is not ISO 8601"),
    ],
)
def test_a_time_that_cannot_be_placed_is_refused(value: Any, words: str) -> None:
    with pytest.raises(SignalGarbled, match="^watttime: zone CAISO_NORTH: the provider sent a time that") as caught:
        READING.times(["2026-08-22T17:00:00Z", value])
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_provider_of_utc_without_saying_so_is_read_by_its_contract() -> None:
    assert READING.utc_times(["2026-08-22T17:00:00", "2026-08-22T19:00:00+02:00"]) == [T0, T0]
    with pytest.raises(SignalGarbled, match="is not ISO 8601"):
        READING.utc_times(["soon"])


def test_seconds_since_1970_are_times() -> None:
    assert READING.epoch_times([T0.timestamp(), int(T0.timestamp())]) == [T0, T0]


@pytest.mark.parametrize(
    "value", [None, "1766000000", True, float("nan"), float("inf"), -1, 0, 10**400, 1766000000000, [1]]
)
def test_seconds_that_are_no_time_are_refused(value: Any) -> None:
    with pytest.raises(SignalGarbled, match="sent a time that cannot be used"):
        READING.epoch_times([value])


def test_intensities_are_numbers_and_null_stays_unknown() -> None:
    assert READING.intensities([0, 77, None, 80.5], STARTS) == [0.0, 77.0, None, 80.5]
    assert READING.intensities([], []) == []


def test_intensities_in_another_unit_are_converted_and_bounded_in_ours() -> None:
    assert READING.intensities([1000], STARTS[:1], g_per_kwh=0.45359237) == [453.59237]
    assert READING.intensities([11_000], STARTS[:1], g_per_kwh=0.45359237)[0] == pytest.approx(4989.51607)
    with pytest.raises(SignalGarbled, match="5000 g/kWh"):
        READING.intensities([11_100], STARTS[:1], g_per_kwh=0.45359237)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.001,
        float("nan"),
        float("inf"),
        -float("inf"),
        True,
        False,
        "77",
        "",
        [7],
        {"v": 1},
        10**400,
        G_PER_KWH_AT_MOST + 1,
    ],
)
def test_what_is_no_intensity_is_refused_with_its_start(value: Any) -> None:
    words = "^watttime: zone CAISO_NORTH: the provider sent .* as the intensity of 2026-08-22T18:00:00Z; it must be"
    with pytest.raises(SignalGarbled, match=words) as caught:
        READING.intensities([77, value], STARTS[:2])
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("value", "expected"), [("77", 77.0), ("80.5", 80.5), (None, None), (3, 3.0)])
def test_numbers_in_strings_are_read_where_a_provider_promises_strings(value: Any, expected: float | None) -> None:
    assert READING.intensities([value], STARTS[:1], text=True) == [expected]


@pytest.mark.parametrize("value", ["much", "", "nan", "inf", "-1", "1e9", True])
def test_strings_that_are_no_intensity_are_refused_even_then(value: Any) -> None:
    with pytest.raises(SignalGarbled, match="as the intensity of"):
        READING.intensities([value], STARTS[:1], text=True)


def test_a_share_may_exceed_100_percent_and_not_1000() -> None:
    assert READING.percents([0, 104.5, None], STARTS[:3]) == [0.0, 104.5, None]
    with pytest.raises(SignalGarbled, match="as the share of .* 1000 percent"):
        READING.percents([1001], STARTS[:1])


@pytest.mark.parametrize("rows", [[{"a": 1}, {"b": 2}], [{"a": 1}, "a"], [{"a": 1}, None], [{"a": 1}, 5], [["a"]]])
def test_a_row_without_a_column_is_refused(rows: list[Any]) -> None:
    with pytest.raises(SignalGarbled, match="sent a row without a$"):
        READING.column(rows, "a")


@pytest.mark.parametrize("document", [None, [], "text", 5, NO_CONTENT])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(SignalGarbled, match="no JSON object; check base_url"):
        READING.mapping(document)


@pytest.mark.parametrize("value", [None, {}, "text", NO_CONTENT])
def test_what_is_no_list_is_refused(value: Any) -> None:
    with pytest.raises(SignalGarbled, match="sent no list of records"):
        READING.rows(value, "records")


@pytest.mark.parametrize(
    ("slot_s", "expected"),
    [
        (3600, T0 + timedelta(hours=1)),
        (900, T0 + timedelta(minutes=15)),
        (300, T0 + timedelta(minutes=5)),
        (86_400, T0 + timedelta(minutes=2, hours=1)),
    ],
)
def test_an_answer_is_fresh_until_the_slot_of_now_ends_and_an_hour_at_most(slot_s: float, expected: datetime) -> None:
    assert fresh_until(T0 + timedelta(minutes=2), slot_s) == expected


def test_at_the_edge_of_a_slot_it_is_fresh_for_a_whole_one() -> None:
    assert fresh_until(T0, 900) == T0 + timedelta(minutes=15)


@given(st.lists(st.none() | st.floats(0, G_PER_KWH_AT_MOST) | st.integers(0, 5000), max_size=30))
def test_every_possible_intensity_is_read_as_it_is(values: list[Any]) -> None:
    starts = [T0 + timedelta(minutes=5 * n) for n in range(len(values))]
    assert READING.intensities(values, starts) == values


@given(st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30)), st.integers(-14, 14))
def test_every_time_of_this_century_is_read_in_any_zone(local: datetime, offset_h: int) -> None:
    at = local.replace(tzinfo=timezone(timedelta(hours=offset_h)))
    assert READING.times([at.isoformat()]) == [at]
    assert READING.time(at.isoformat()) == at
