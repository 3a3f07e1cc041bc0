"""A trace in real time: aligned slots, exact values, loops, gaps, and recorded grids."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import InputError
from orchestrator.replay import Replay, Trace, demo_trace, read_trace

NOW = datetime(2026, 11, 22, 2, 34, 17, 250_000, tzinfo=timezone.utc)
COUNTING = Trace(3600.0, tuple(float(n) for n in range(48)), tuple(100.0 + n for n in range(48)), "test")
SHARED_DATA = Path(
    os.environ.get("LOWTIDE_SHARED_DATA", str(Path(__file__).resolve().parents[3].parent / "shared" / "data"))
)


def test_a_day_in_four_minutes_has_slots_of_ten_seconds_on_multiples_of_ten() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=360)
    assert (replay.slot_s, replay.speed) == (10, 360.0)
    rows = list(replay.ahead(NOW, 24))
    assert len(rows) == 25
    assert rows[0] == (datetime(2026, 11, 22, 2, 34, 10, tzinfo=timezone.utc), 100.0)
    assert [value for _, value in rows] == [100.0 + n for n in range(25)]
    assert all(at.timestamp() % 10 == 0 for at, _ in rows)


def test_the_start_chooses_where_in_the_trace_now_is() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=360, start_s=10 * 3600)
    assert replay.current(NOW)[1] == 10.0
    assert replay.current(NOW + timedelta(seconds=10))[1] == 11.0


def test_the_trace_loops_in_both_directions() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=360)
    assert replay.current(NOW + timedelta(seconds=480))[1] == 0.0
    assert replay.current(NOW - timedelta(seconds=10))[1] == 47.0
    assert [value for _, value in replay.history(NOW, 3)] == [46.0, 47.0, 0.0]


def test_measured_values_are_the_traces_own_and_none_lies_ahead() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=360, start_s=5 * 3600)
    rows = list(replay.past(NOW - timedelta(seconds=30), NOW + timedelta(hours=1), NOW))
    assert [value for _, value in rows] == [3.0, 4.0, 5.0]
    assert rows[-1][0] <= NOW


def test_a_range_is_half_open() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=360, start_s=20 * 3600)
    slot = replay.current(NOW)[0]
    back = timedelta(seconds=10)
    assert [at for at, _ in replay.past(slot - 3 * back, slot, NOW)] == [slot - 3 * back, slot - 2 * back, slot - back]
    assert list(replay.past(slot, slot, NOW)) == []


def test_a_gap_in_the_record_is_a_gap_in_the_answers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "start_utc,g_per_kwh\n2026-01-01T00:00Z,1\n2026-01-01T01:00Z,2\n2026-01-01T02:00Z,\n2026-01-01T04:00Z,5\n"
    )
    trace = read_trace(path)
    assert trace.actual_g_per_kwh == (1.0, 2.0, None, None, 5.0)
    replay = Replay.begin(trace, NOW, speed=3600)
    assert [value for _, value in replay.ahead(NOW, 4)] == [1.0, 2.0, 5.0]
    assert replay.current(NOW + timedelta(seconds=2))[1] is None


def test_a_column_of_renewable_shares_is_replayed_beside_the_intensities(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = ("2026-01-01T00:00Z,1,40", "2026-01-01T01:00Z,2,", "2026-01-01T02:00Z,3,104.5")
    path.write_text("\n".join(["start_utc,g_per_kwh,renewable_percent", *rows]))
    replay = Replay.begin(read_trace(path), NOW, speed=3600)
    slot, second = replay.current(NOW)[0], timedelta(seconds=1)
    assert list(replay.shares(NOW, 2)) == [(slot, 40.0), (slot + 2 * second, 104.5)]


def test_a_record_without_shares_replays_none() -> None:
    assert list(Replay.begin(COUNTING, NOW).shares(NOW, 24)) == []


def test_at_real_speed_hours_are_hours() -> None:
    replay = Replay.begin(COUNTING, NOW)
    assert replay.slot_s == 3600
    assert replay.current(NOW)[0] == NOW.replace(minute=0, second=0, microsecond=0)


def test_a_slot_is_whole_seconds_and_the_speed_that_results_is_told() -> None:
    replay = Replay.begin(COUNTING, NOW, speed=1000)
    assert (replay.slot_s, replay.speed) == (4, 900.0)
    assert Replay.begin(COUNTING, NOW, speed=1e9).slot_s == 1


@pytest.mark.parametrize(("speed", "start_s"), [(0, 0), (-1, 0), (float("nan"), 0), (1, -1), (1, 48 * 3600)])
def test_a_speed_or_start_that_cannot_be_is_refused(speed: float, start_s: float) -> None:
    with pytest.raises(InputError, match="speed:|start:"):
        Replay.begin(COUNTING, NOW, speed, start_s)


@given(st.floats(1, 7200), st.integers(0, 47), st.floats(0, 1e6))
def test_forecast_and_later_measurement_agree_on_where_each_slot_lies(speed: float, start_h: int, later: float) -> None:
    replay = Replay.begin(COUNTING, NOW, speed, start_h * 3600.0)
    then = NOW + timedelta(seconds=later)
    ahead = dict(replay.ahead(NOW, 48))
    behind = dict(replay.history(then, 24))
    for at in ahead.keys() & behind.keys():
        assert behind[at] == ahead[at] - 100.0
    start, value = replay.current(then)
    assert start <= then < start + timedelta(seconds=replay.slot_s)
    assert behind[start] == value


def test_the_demo_trace_says_that_it_is_generated() -> None:
    trace = demo_trace()
    assert len(trace.actual_g_per_kwh) == 7 * 24
    assert "generated" in trace.note
    assert "not live data" in trace.note
    assert len(trace.renewable_percent) == 7 * 24


def test_a_recorded_year_and_a_day_ahead_forecast_are_read() -> None:
    if not SHARED_DATA.is_dir():
        pytest.skip("no recorded grids: set LOWTIDE_SHARED_DATA to their folder")
    year = read_trace(SHARED_DATA / "hourly-2022" / "DE.csv")
    assert (year.slot_s, len(year.actual_g_per_kwh)) == (3600.0, 8759)
    both = read_trace(SHARED_DATA / "day-ahead-2021" / "DE.csv", "actual_g_per_kwh", "day_ahead_g_per_kwh")
    assert both.actual_g_per_kwh[0] == 334.8
    assert both.forecast_g_per_kwh[0] == 289.74
