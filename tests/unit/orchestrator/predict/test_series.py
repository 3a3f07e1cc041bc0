"""A regular grid by overlap: means are kept, holes stay holes."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.predict import series_of
from orchestrator.signal.forecast import Point
from tests.unit.orchestrator.predict.shapes import HOUR, T0, series

MINUTE = timedelta(minutes=1)


def point(start_min: float, end_min: float, value: float | None) -> Point:
    return Point(T0 + start_min * MINUTE, T0 + end_min * MINUTE, value, "measured")


def means(*points: Point) -> list[float]:
    found = series_of(points)
    assert found is not None
    return [float(value) for value in found.g_per_kwh]


def test_slots_of_all_lengths_make_the_mean_of_their_hour() -> None:
    slots = [point(0, 30, 100), point(30, 45, 200), point(45, 60, 400), point(60, 120, 50)]
    assert means(*slots) == [pytest.approx((30 * 100 + 15 * 200 + 15 * 400) / 60), 50]


def test_a_slot_across_hours_counts_in_each() -> None:
    assert means(point(30, 150, 100)) == [100, 100, 100]
    assert means(point(0, 60, 100), point(60, 150, 200))[1:] == [200, 200]


def test_an_hour_that_no_record_covers_stays_unknown() -> None:
    found = means(point(0, 60, 100), point(180, 240, 200))
    assert found[0] == 100
    assert found[3] == 200
    assert np.isnan(found[1:3]).all()


def test_an_hour_known_by_less_than_half_is_unknown() -> None:
    assert np.isnan(means(point(0, 25, 100), point(60, 120, 200))[0])
    assert means(point(0, 30, 100), point(60, 120, 200))[0] == 100


def test_a_slot_without_a_value_is_unknown_and_a_zero_is_zero() -> None:
    found = means(point(0, 60, 0.0), point(60, 120, None), point(120, 180, 5.0))
    assert found[0] == 0.0
    assert np.isnan(found[1])


def test_of_duplicates_the_last_counts_whatever_the_order() -> None:
    assert means(point(60, 120, 7), point(0, 60, 1), point(60, 120, 9)) == [1, 9]


def test_nothing_known_is_no_series() -> None:
    assert series_of([]) is None
    assert series_of([point(0, 60, None)]) is None


def test_steps_begin_at_multiples_of_their_length() -> None:
    found = series_of([point(40, 100, 10)])
    assert found is not None
    assert found.start == T0
    finer = series_of([point(40, 100, 10)], 900.0)
    assert finer is not None
    assert finer.start == T0 + 30 * MINUTE
    assert np.isnan(finer.g_per_kwh[0])


def test_a_part_reaches_beyond_the_series_as_unknown() -> None:
    part = series(np.array([1.0, 2.0, 3.0])).between(T0 + HOUR, T0 + 5 * HOUR)
    assert part.start == T0 + HOUR
    assert part.g_per_kwh[:2].tolist() == [2.0, 3.0]
    assert np.isnan(part.g_per_kwh[2:]).all()
    before = series(np.array([1.0])).between(T0 - 2 * HOUR, T0 + HOUR)
    assert np.isnan(before.g_per_kwh[:2]).all()
    assert before.g_per_kwh[2] == 1.0


def test_trailing_unknown_hours_are_cut() -> None:
    assert len(series(np.array([np.nan, 1.0, np.nan, np.nan])).to_last_known()) == 2
    assert len(series(np.array([np.nan])).to_last_known()) == 0


@given(
    st.lists(st.tuples(st.sampled_from([5, 15, 30, 60]), st.floats(0, 2000)), min_size=1, max_size=60),
    st.integers(0, 59),
)
def test_the_mean_over_all_time_is_kept(slots: list[tuple[int, float]], offset_min: int) -> None:
    points, at = [], offset_min
    for length, value in slots:
        points.append(point(at, at + length, value))
        at += length
    finest = series_of(points, 60.0)
    assert finest is not None
    total = sum(length * value for length, value in slots)
    assert np.nansum(finest.g_per_kwh) == pytest.approx(total, abs=1e-6)
    hourly = series_of([*points, point(at, at + 60 - at % 60, 0.0), point(0, offset_min, 0.0)])
    assert hourly is not None
    assert np.sum(hourly.g_per_kwh) * 60 == pytest.approx(total, abs=1e-6)
