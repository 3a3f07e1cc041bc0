"""The generated grid: the same on every machine, clean at noon, and labelled."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from orchestrator.signal.demo import DemoGrid, intensity_g_per_kwh, trace

DAY = datetime(2026, 5, 4, tzinfo=timezone.utc)


def test_noon_is_clean_and_the_evening_is_dirty_every_day() -> None:
    for day in range(365):
        noon, night, evening = (
            intensity_g_per_kwh(DAY + timedelta(days=day, hours=hour)) for hour in (12.5, 3.0, 19.5)
        )
        assert 0 < noon < 0.65 * night < night < evening < 1000


def test_no_two_days_and_no_two_zones_are_the_same() -> None:
    values = {intensity_g_per_kwh(DAY + timedelta(days=day), zone) for day in range(5) for zone in ("DEMO", "DE")}
    assert len(values) == 10


def test_it_is_the_same_wherever_it_runs() -> None:
    assert intensity_g_per_kwh(DAY + timedelta(hours=12.5)) == intensity_g_per_kwh(DAY + timedelta(hours=12.5), "DEMO")
    assert [point.g_per_kwh for point in trace(1)[:3]] == [379.1, 364.4, 352.7]


def test_the_forecast_covers_three_days_from_the_current_hour_and_says_that_it_is_generated() -> None:
    now = datetime.now(timezone.utc)
    forecast = DemoGrid().forecast("DEMO", now)
    assert forecast.mean(now, now + timedelta(days=3))[1] == 1.0
    assert forecast.points[0].start <= now < forecast.points[0].end
    assert forecast.provider == "demo"
    assert "generated" in (forecast.note or "")


def test_what_was_measured_is_what_was_forecast() -> None:
    now = datetime.now(timezone.utc)
    measured = DemoGrid().measured("DEMO", now - timedelta(hours=5), now)
    assert len(measured) == 4
    earlier = DemoGrid().forecast("DEMO", now - timedelta(hours=6))
    assert [earlier.at(point.start) for point in measured] == [point.g_per_kwh for point in measured]
    assert {point.kind for point in measured} == {"measured"}


def test_a_trace_has_every_slot_of_its_days() -> None:
    points = trace(2, slot_s=900)
    assert len(points) == 192
    assert all(before.end == after.start for before, after in zip(points, points[1:], strict=False))
