"""Recorded grids forecast as they would have been: at each origin only the past is known.
In: a recorded grid. Out: the product's forecasts and the naive ones beside what came; errors, and what plans save.
`tests.bench.forecasts` prints them; the unit tests judge a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.predict import Earlier, Series, improve
from orchestrator.predict.extend import extend
from orchestrator.predict.score import saving
from orchestrator.predict.series import FloatArray
from orchestrator.signal.forecast import Forecast
from tests.bench.recorded import DAY_H, HOUR, DayAhead, points

WEEK_H = 7 * DAY_H
HISTORY_H = 6 * WEEK_H
KEPT_DAYS = 60
"""Days of earlier forecasts that the product keeps."""
_BLOCK_DAYS = 7
_RESAMPLES = 2000


@dataclass(frozen=True)
class Days:
    """Forecasts of whole days, each array of shape (days, 24)."""

    actual: FloatArray
    provider: FloatArray
    improved: FloatArray
    yesterday: FloatArray
    inside_percent: float
    """Share of the hours that came within the intervals."""
    corrected_days: int
    """Days on which the zone's own backtest let the correction be used."""


@dataclass(frozen=True)
class Weeks:
    """Forecasts of weeks, each array of shape (origins, 168)."""

    actual: FloatArray
    extended: FloatArray
    yesterday: FloatArray
    last_week: FloatArray
    inside: FloatArray
    """1 where the hour came within the interval, else 0."""


@dataclass(frozen=True)
class Difference:
    """A plan's share of the oracle's saving less that of the plan it is compared with, and its 95 % interval."""

    mean: float
    low: float
    high: float


def days_of(grid: DayAhead, numbers: Sequence[int]) -> Days:
    """The days of these numbers, each forecast at the midnight at which it begins."""
    measured = points(grid.start, grid.actual, "measured")
    table = grid.forecast.reshape(-1, DAY_H)
    said = [
        Earlier(at, points(at, table[day], "forecast"))
        for day, at in ((day, grid.start + day * DAY_H * HOUR) for day in range(grid.days))
    ]
    improved, inside, corrected = [], [], 0
    for day in numbers:
        issue = said[day]
        given = Forecast(grid.grid, "recorded", "average", issue.points, issue.fetched_at)
        known, before = measured[: day * DAY_H], said[max(0, day - KEPT_DAYS) : day]
        better = improve(given, known, before, issue.fetched_at, issue.fetched_at + DAY_H * HOUR)
        improved.append([point.g_per_kwh for point in better.points])
        corrected += any(point.given_g_per_kwh is not None for point in better.points)
        came = grid.actual[day * DAY_H :]
        bounds = [(p.low_g_per_kwh, p.high_g_per_kwh, g) for p, g in zip(better.points, came, strict=False)]
        inside += [low <= g <= high for low, high, g in bounds if low is not None and high is not None]
    actual = grid.actual.reshape(-1, DAY_H)
    chosen = np.array(numbers)
    return Days(
        actual=actual[chosen],
        provider=table[chosen],
        improved=np.array(improved),
        yesterday=actual[chosen - 1],
        inside_percent=100.0 * float(np.mean(inside)),
        corrected_days=corrected,
    )


def weeks_of(zone: Series, origins: Sequence[int]) -> Weeks:
    """The weeks that begin at these hours, forecast from the six weeks before each."""
    known = zone.g_per_kwh
    extended, inside = [], []
    for origin in origins:
        curve = extend(zone.between(zone.time(origin - HISTORY_H), zone.time(origin)), WEEK_H)
        assert curve is not None
        came = known[origin : origin + WEEK_H]
        extended.append(curve.g_per_kwh)
        inside.append((curve.low_g_per_kwh <= came) & (came <= curve.high_g_per_kwh))
    hours = np.array(origins)[:, None] + np.arange(WEEK_H)
    ahead = np.arange(WEEK_H)
    return Weeks(
        actual=known[hours],
        extended=np.array(extended),
        yesterday=known[hours - DAY_H * (1 + ahead // DAY_H)],
        last_week=known[hours - WEEK_H],
        inside=np.array(inside, dtype=np.float64),
    )


def mape_percent(forecast: FloatArray, actual: FloatArray) -> float:
    """Mean absolute percentage error over all hours."""
    return float(100.0 * np.mean(np.abs(forecast - actual) / actual))


def savings(forecast: FloatArray, actual: FloatArray, length_h: int) -> tuple[FloatArray, FloatArray]:
    """For each day what a job in the forecast's cheapest hours saves against its first hours, and the most it could."""
    found = [saving(said, came, length_h) for said, came in zip(forecast, actual, strict=True)]
    return np.array([each.saved for each in found]), np.array([each.possible for each in found])


def share(forecast: FloatArray, actual: FloatArray, length_h: int) -> float:
    """The plans' saving of all days as a share of the oracle's."""
    saved, possible = savings(forecast, actual, length_h)
    return float(saved.sum() / possible.sum())


def difference(forecast: FloatArray, other: FloatArray, actual: FloatArray, length_h: int) -> Difference:
    """The share kept by one forecast less that by another.

    The interval is of a circular block bootstrap over days (Politis and Romano, 1992), in blocks of a week.
    """
    saved, possible = savings(forecast, actual, length_h)
    gain = saved - savings(other, actual, length_h)[0]
    days = len(gain)
    generator = np.random.default_rng(0)
    starts = generator.integers(0, days, (_RESAMPLES, -(-days // _BLOCK_DAYS)))
    drawn = ((starts[:, :, None] + np.arange(_BLOCK_DAYS)) % days).reshape(_RESAMPLES, -1)[:, :days]
    resampled = gain[drawn].sum(axis=1) / possible[drawn].sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Difference(float(gain.sum() / possible.sum()), float(low), float(high))
