"""A stretch of the past in the pieces in which it is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.signal.forecast import Point
from orchestrator.signal.window import floor, known, pieces

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
WEST = timezone(timedelta(hours=-7))


@given(
    first=st.integers(0, 10_000),
    length=st.integers(1, 100_000),
    slot_s=st.sampled_from([300.0, 900.0, 1800.0, 3600.0]),
    longest=st.integers(1, 31),
)
def test_pieces_are_whole_slots_that_cover_the_stretch_without_gap_or_overlap(
    first: int, length: int, slot_s: float, longest: int
) -> None:
    start = T0 + first * timedelta(seconds=77)
    end = start + length * timedelta(seconds=77)
    found = list(pieces(start, end, slot_s, longest * DAY))
    assert found[0][0] == floor(start, slot_s)
    assert end <= found[-1][1] < end + timedelta(seconds=slot_s)
    assert all(before[1] == after[0] for before, after in zip(found, found[1:], strict=False))
    assert all(timedelta() < stop - begin <= longest * DAY for begin, stop in found)
    assert all(floor(edge, slot_s) == edge for piece in found for edge in piece)


def test_an_empty_stretch_has_no_pieces() -> None:
    assert list(pieces(T0, T0, 300, DAY)) == []
    assert list(pieces(T0 + MINUTE, T0, 300, DAY)) == []


def test_all_who_ask_in_one_slot_ask_the_same_in_utc() -> None:
    asked = {tuple(pieces(T0 + n * MINUTE, T0 + DAY - n * MINUTE, 900, 7 * DAY)) for n in range(15)}
    assert asked == {((T0, T0 + DAY),)}
    assert list(pieces(T0.astimezone(WEST), T0 + MINUTE, 300, DAY))[0][0].tzinfo is timezone.utc


def test_points_without_a_value_or_outside_are_left_out_and_each_counts_once() -> None:
    points = [Point(T0 + n * MINUTE, T0 + (n + 1) * MINUTE, value) for n, value in enumerate([1, 2, None, 4, 5])]
    found = known([*points, points[3]], T0 + MINUTE, T0 + 4 * MINUTE)
    assert [point.g_per_kwh for point in found] == [2, 4]
