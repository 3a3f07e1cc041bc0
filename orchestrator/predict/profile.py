"""The usual shape of a zone: what its recent days say of each hour, and by how much the last hours depart from it.
In: an hourly Series. Out: a Profile that gives, for any origin and lead time, the usual value and three terms.
`extend` and `correct` regress on the terms; all of them are of the past of their origin.

All is in logarithms of intensity plus a small floor: errors are relative, as MAPE counts them, nothing comes out
negative, and an hour of zero stays finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.predict.series import FloatArray, Series

DAY_H = 24
USUAL_DAYS = 7
MONTH_DAYS = 28
_FLOOR_SHARE = 0.05

IntArray = npt.NDArray[np.int64]

TERMS = 3
"""How far the last known hour, the same hour of the last known day, and the month depart from the usual value."""


@dataclass(frozen=True)
class Scale:
    """Logarithm of intensity plus a floor, and back; in g/kWh."""

    floor_g_per_kwh: float

    def log(self, g_per_kwh: FloatArray) -> FloatArray:
        """NaN stays NaN; what is below zero counts as zero."""
        return np.log(np.maximum(g_per_kwh, 0.0) + self.floor_g_per_kwh)

    def g_per_kwh(self, log: FloatArray) -> FloatArray:
        """Never negative."""
        return np.maximum(np.exp(log) - self.floor_g_per_kwh, 0.0)


@dataclass(frozen=True)
class Profile:
    """Arrays by hour of the series, in logarithms; an entry knows its own hour and those before it."""

    scale: Scale
    log: FloatArray
    """The series itself."""
    filled: FloatArray
    """The same with holes bridged by the usual shape: to regress on, never to regress to or to show."""
    usual: FloatArray
    """Mean of the same hour of the last seven days that have it."""
    month: FloatArray
    """Mean of the same hour of the last 28 days that have it."""
    departure: FloatArray
    """The hour less what was usual a day before."""

    def usual_at(self, origins: IntArray, lead_h: int | IntArray) -> FloatArray:
        """The usual value of the hour `lead_h` hours ahead (1 is the origin itself) as known before the origin."""
        return self.usual[_latest(origins, lead_h)]

    def terms_at(self, origins: IntArray, lead_h: int | IntArray) -> FloatArray:
        """The three terms, shape (origins, 3); NaN where the hour of the day was never seen before."""
        same = _latest(origins, lead_h)
        usual = self.usual[same]
        terms = (self.departure[origins - 1], self.filled[same] - usual, self.month[same] - usual)
        return np.stack(np.broadcast_arrays(*terms), axis=-1)


def profile_of(series: Series) -> Profile:
    """The usual shape of an hourly series of at least one day.

    Same-hour means are the plain seasonal profile of classical decomposition (Hyndman and Athanasopoulos, Forecasting:
    Principles and Practice, 3rd ed., 3.4), over the past only.
    """
    scale = scale_of(series.g_per_kwh)
    log = scale.log(series.g_per_kwh)
    month = _same_hour_mean(log, MONTH_DAYS)
    usual = _same_hour_mean(log, USUAL_DAYS)
    expected = _day_later(np.where(np.isnan(usual), month, usual))
    departure = _bridged(log - expected)
    filled = np.where(np.isnan(log), expected + departure, log)
    month = _same_hour_mean(filled, MONTH_DAYS)
    usual = _same_hour_mean(filled, USUAL_DAYS)
    return Profile(scale, log, filled, np.where(np.isnan(usual), month, usual), month, departure)


def scale_of(g_per_kwh: FloatArray) -> Scale:
    """The scale of a zone with these intensities."""
    known = g_per_kwh[np.isfinite(g_per_kwh)]
    level = float(np.median(known)) or float(np.mean(known))
    return Scale(_FLOOR_SHARE * level if level > 0 else 1.0)


def damping(lead_h: FloatArray) -> FloatArray:
    """Weights of the three terms by lead time, shape (leads, 3), before a zone has taught its own.

    A departure dies away, most of it within a day and the rest over weeks; the month gains weight from day to day.
    """
    last = 0.8 * np.exp(-lead_h / 20.0) + 0.2 * np.exp(-lead_h / 200.0)
    yesterday = np.where((lead_h >= 8) & (lead_h <= DAY_H), 0.25, 0.05)
    month = np.minimum(0.25 + 0.04 * ((lead_h - 1) // DAY_H), 0.5)
    return np.stack([last, yesterday, month], axis=-1)


def _latest(origins: IntArray, lead_h: int | IntArray) -> IntArray:
    """Index of the last known hour with the hour of the day that is `lead_h` hours ahead."""
    same = origins + lead_h - 1 - DAY_H * -(-lead_h // DAY_H)
    return np.where(same < 0, same % DAY_H, same)


def _same_hour_mean(values: FloatArray, days: int) -> FloatArray:
    """Mean of each hour and the same hour of the days before it, `days` in all, over those that are known."""
    before = -len(values) % DAY_H
    table = np.concatenate([np.full(before, np.nan), values]).reshape(-1, DAY_H)
    known = np.isfinite(table)
    nothing = np.zeros((1, DAY_H))
    sums = np.concatenate([nothing, np.cumsum(np.where(known, table, 0.0), axis=0)])
    counts = np.concatenate([nothing, np.cumsum(known, axis=0)])
    last = np.arange(1, len(sums))
    first = np.maximum(0, last - days)
    number = counts[last] - counts[first]
    means = np.where(number > 0, (sums[last] - sums[first]) / np.maximum(number, 1.0), np.nan)
    return means.ravel()[before:]


def _day_later(values: FloatArray) -> FloatArray:
    return np.concatenate([np.full(DAY_H, np.nan), values])[: len(values)]


def _bridged(values: FloatArray) -> FloatArray:
    """Holes filled along a line between their neighbours; all zero where nothing is known."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return np.zeros_like(values)
    return np.interp(np.arange(len(values)), known, values[known])
