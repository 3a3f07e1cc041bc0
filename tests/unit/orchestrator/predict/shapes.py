"""Synthetic zones: a daily wave, weather that lasts for hours, and a provider that errs in known ways.
In: a seed and a length. Out: hourly arrays, points and earlier forecasts.
The tests of `orchestrator.predict` forecast them.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np

from orchestrator.predict import Earlier, Series
from orchestrator.predict.series import FloatArray
from orchestrator.signal.forecast import Forecast, Point
from tests.bench.recorded import points

T0 = datetime(2026, 1, 5, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def grid(days: int, seed: int = 0, persists: float = 0.95) -> FloatArray:
    """Intensities of a zone, hour by hour, in g/kWh."""
    generator = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    weather = np.zeros(len(hours))
    for hour in hours[1:]:
        weather[hour] = persists * weather[hour - 1] + generator.normal(0.0, 0.06)
    return 300.0 * np.exp(0.3 * np.sin(2 * np.pi * hours / 24) + weather)


def history(values: FloatArray) -> tuple[Point, ...]:
    """Measured hours from T0 on."""
    return points(T0, values, "measured")


def series(values: FloatArray) -> Series:
    return Series(T0, 3600.0, values)


def biased(values: FloatArray, every_h: int, ahead_h: int, seed: int = 1) -> list[Earlier]:
    """Forecasts that say 30 % too much in the evening and a tenth too little at night, with some noise."""
    generator = np.random.default_rng(seed)
    hours = np.arange(len(values)) % 24
    factor = np.where(hours >= 16, 1.3, np.where(hours < 6, 0.9, 1.0))
    found = []
    for made in range(0, len(values), every_h):
        part = slice(made, made + ahead_h)
        said = values[part] * factor[part] * np.exp(generator.normal(0.0, 0.02, len(values[part])))
        found.append(Earlier(T0 + made * HOUR, points(T0 + made * HOUR, said, "forecast")))
    return found


def forecast(given: tuple[Point, ...], fetched_at: datetime) -> Forecast:
    return Forecast("DE", "a provider", "average", given, fetched_at)
