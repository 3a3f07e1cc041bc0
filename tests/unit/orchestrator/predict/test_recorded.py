"""Recorded grids are forecast better than their providers and naive rules do, and read without inventing an hour.
In: the recorded grids (LOWTIDE_SHARED_DATA, else ../shared/data beside the repository). Out: pass or fail.

Samples of what `python -m tests.bench forecasts` measures whole.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from orchestrator.predict import series_of
from orchestrator.predict.score import LENGTHS_H
from tests.bench.recorded import DAY_H, day_ahead, hourly, live
from tests.bench.rolling import HISTORY_H, WEEK_H, days_of, difference, mape_percent, weeks_of

DATA = Path(os.environ.get("LOWTIDE_SHARED_DATA", Path(__file__).parents[4].parent / "shared" / "data"))


def recorded(folder: str) -> pytest.MarkDecorator:
    reason = f"the recorded grids ({folder}) are not here; set LOWTIDE_SHARED_DATA"
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=reason)


@recorded("live-2022")
@pytest.mark.parametrize("zone", ["DE", "GB", "US-CAL-CISO"])
def test_an_irregular_record_is_read_without_inventing_an_hour(zone: str) -> None:
    records = live(DATA, zone)
    series = series_of(records)
    assert series is not None
    recorded_at = {point.start for point in records}
    known = {series.time(int(hour)) for hour in np.flatnonzero(np.isfinite(series.g_per_kwh))}
    assert known == recorded_at
    assert len(series) > len(recorded_at)
    last_said = {point.start: point.g_per_kwh for point in records}
    assert all(series.g_per_kwh[series.index(start)] == value for start, value in last_said.items())


@recorded("day-ahead-2021")
@pytest.mark.parametrize("grid", ["CISO", "DE", "ERCO"])
def test_the_correction_is_nearer_to_what_came_and_plans_no_worse(grid: str) -> None:
    days = days_of(day_ahead(DATA, grid), range(62, 184, 3))
    assert mape_percent(days.improved, days.actual) < mape_percent(days.provider, days.actual)
    for length_h in LENGTHS_H:
        for other in (days.provider, days.yesterday):
            assert difference(days.improved, other, days.actual, length_h).high >= 0


@recorded("hourly-2022")
@pytest.mark.parametrize("zone", ["AU-SA", "CA-ON", "DE", "FR", "GB", "PL", "SE-SE3", "US-CAL-CISO", "US-TEX-ERCO"])
def test_extension_is_nearer_than_yesterday_and_last_week(zone: str) -> None:
    year = hourly(DATA, zone)
    weeks = weeks_of(year, range(HISTORY_H, len(year) - WEEK_H, 331))
    for ahead_h in (DAY_H, WEEK_H):
        came = weeks.actual[:, :ahead_h]
        own = mape_percent(weeks.extended[:, :ahead_h], came)
        assert own < mape_percent(weeks.yesterday[:, :ahead_h], came)
        assert own < mape_percent(weeks.last_week[:, :ahead_h], came)
    assert 0.7 < weeks.inside.mean() < 0.9
