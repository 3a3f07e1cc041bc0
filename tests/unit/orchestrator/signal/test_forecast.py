"""The normal form: half-open slots, means by overlap, nothing invented."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signal.forecast import Forecast, Kind, Point, Share, from_on, modal_gap_s, ordered, slots, spread

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def point(start: float, end: float, value: float | None) -> Point:
    return Point(at(start), at(end), value)


def forecast(*points: Point) -> Forecast:
    return Forecast("DE", "csv", "average", ordered(points), T0)


@pytest.mark.parametrize(
    ("minute", "expected"),
    [(-1, None), (0, 100.0), (59.9, 100.0), (60, 200.0), (119.9, 200.0), (120, None)],
)
def test_a_slot_holds_its_start_and_not_its_end(minute: float, expected: float | None) -> None:
    assert forecast(point(0, 60, 100), point(60, 120, 200)).at(at(minute)) == expected


def test_the_mean_weighs_by_overlap() -> None:
    mean, known = forecast(point(0, 60, 100), point(60, 120, 200)).mean(at(45), at(105))
    assert mean == pytest.approx((15 * 100 + 45 * 200) / 60)
    assert known == 1.0


def test_the_mean_of_a_part_that_is_unknown_is_that_of_the_known_part_with_its_share() -> None:
    mean, known = forecast(point(0, 60, 100), point(60, 120, None)).mean(at(30), at(150))
    assert mean == 100
    assert known == pytest.approx(0.25)


def test_nothing_known_is_none_and_never_zero() -> None:
    assert forecast(point(0, 60, None)).mean(at(0), at(60)) == (None, 0.0)
    assert forecast().mean(at(0), at(0)) == (None, 0.0)


def test_a_real_zero_is_kept() -> None:
    assert forecast(point(0, 60, 0.0)).mean(at(0), at(60)) == (0.0, 1.0)


def test_ordered_sorts_and_of_one_start_the_last_given_wins() -> None:
    first, second, again = point(0, 60, 1), point(60, 120, 2), point(0, 60, 3)
    assert ordered([second, first, again]) == (again, second)


def test_an_overlap_ends_the_earlier_point() -> None:
    assert ordered([point(0, 90, 1), point(60, 120, 2)]) == (point(0, 60, 1), point(60, 120, 2))


@pytest.mark.parametrize(
    ("minutes", "gap_s"),
    [
        ([0, 60, 120, 300, 360], 3600.0),
        ([120, 0, 60, 60], 3600.0),
        ([0, 5, 10, 70, 130], 300.0),
        ([0], None),
        ([], None),
    ],
)
def test_the_slot_is_the_most_frequent_gap(minutes: list[int], gap_s: float | None) -> None:
    assert modal_gap_s(at(minute) for minute in minutes) == gap_s


def test_spread_leaves_gaps_uncovered() -> None:
    points = spread([(at(0), 1.0, "measured"), (at(120), 2.0, "measured")], 3600)
    assert [(p.start, p.end) for p in points] == [(at(0), at(60)), (at(120), at(180))]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.none() | st.floats(0, 1000)), max_size=30),
    st.sampled_from([300.0, 900.0, 3600.0]),
)
def test_columns_make_the_same_points_as_rows(rows: list[tuple[int, float | None]], slot_s: float) -> None:
    starts = [at(number * 5) for number, _ in rows]
    values = [value for _, value in rows]
    kinds: list[Kind] = ["measured"] * len(rows)
    assert slots(starts, values, slot_s, kinds) == spread(zip(starts, values, kinds, strict=True), slot_s)


def test_shares_are_put_in_order_and_cut_as_points_are() -> None:
    first, second = Share(at(0), at(60), 104.5), Share(at(30), at(90), None)
    assert ordered([second, first]) == (Share(at(0), at(30), 104.5), second)
    assert from_on((first, second), at(60)) == (second,)


def test_from_on_keeps_the_slot_that_holds_the_moment() -> None:
    points = (point(0, 60, 1), point(60, 120, 2))
    assert from_on(points, at(59)) == points
    assert from_on(points, at(60)) == points[1:]


_POINTS = st.lists(
    st.builds(
        lambda start, length, value: point(start, start + length, value),
        st.integers(0, 500),
        st.integers(1, 120),
        st.none() | st.floats(0, 1000),
    ),
    max_size=25,
)


@given(_POINTS)
def test_ordered_points_never_overlap_and_cover_no_more_than_was_given(points: list[Point]) -> None:
    result = ordered(points)
    assert all(before.end <= after.start for before, after in zip(result, result[1:], strict=False))
    assert all(p.start < p.end for p in result)
    assert {p.start for p in result} == {p.start for p in points}
    assert ordered(result) == result


@given(_POINTS, st.integers(0, 600), st.integers(1, 300), st.floats(0.01, 0.99))
def test_the_mean_of_a_span_is_made_of_the_means_of_its_parts(
    points: list[Point], start: int, length: int, share: float
) -> None:
    curve = forecast(*points)
    left, middle, right = at(start), at(start) + share * timedelta(minutes=length), at(start + length)
    whole, known = curve.mean(left, right)
    parts = [(curve.mean(a, b), (b - a).total_seconds()) for a, b in ((left, middle), (middle, right))]
    known_s = sum(share * length_s for (_, share), length_s in parts)
    assert known * length * 60 == pytest.approx(known_s, abs=1e-6)
    if whole is None:
        assert known == 0
    else:
        total = sum(mean * share * length_s for (mean, share), length_s in parts if mean is not None)
        assert whole * known_s == pytest.approx(total, rel=1e-9, abs=1e-6)
        values = [p.g_per_kwh for p in curve.points if p.g_per_kwh is not None]
        assert min(values) - 1e-6 <= whole <= max(values) + 1e-6
