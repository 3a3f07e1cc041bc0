"""Earlier forecasts beside what came, with what was known as each was made.
In: an hourly history and earlier forecasts. Out: Pairs, one row for each hour of each forecast.
`correct` learns from them; `backtest` counts by them.

What was known is judged by the present: if the newest measured hour is two hours old now, it was then. So nothing is
learnt from hours that a live forecast would not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from orchestrator.predict.profile import DAY_H, IntArray, Profile, damping
from orchestrator.predict.series import FloatArray, Series, series_of
from orchestrator.signal.forecast import Point

FEATURES = 4
LONGEST_H = 8 * DAY_H
"""Hours further ahead are not learnt from."""
_NEAR_H = 3


@dataclass(frozen=True)
class Earlier:
    """A forecast as it was given, before any correction."""

    fetched_at: datetime
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Issue:
    """One forecast on the grid of a history; indices are hours since the history's start."""

    made: int
    """The hour it was fetched in."""
    origin: int
    """The first hour that was not measured then."""
    first: int
    """The hour of its first value."""
    g_per_kwh: FloatArray

    @property
    def leads_h(self) -> IntArray:
        """Lead times of its values, 1 for the hour it was fetched in."""
        return np.arange(self.first, self.first + len(self.g_per_kwh)) - self.made + 1


@dataclass(frozen=True)
class Pairs:
    """Rows of all issues; logarithms are those of the profile's scale."""

    issue: IntArray
    target: IntArray
    lead_h: IntArray
    said: FloatArray
    """Logarithm of the forecast."""
    features: FloatArray
    """Shape (rows, 4), as `features_of` gives them; NaN where the history says nothing of the hour."""
    came: FloatArray
    """Logarithm of what was measured; NaN where it is not known."""


def issue_of(history: Series, origin: int, fetched_at: datetime, points: Sequence[Point]) -> Issue | None:
    """The hourly means of a forecast, from the hour of its fetch on and of what was not measured; None without any."""
    given = series_of([point for point in points if point.kind == "forecast" and point.end > fetched_at])
    if given is None:
        return None
    made, first = history.index(fetched_at), history.index(given.start)
    begin = max(made, origin, first)
    values = given.g_per_kwh[begin - first : max(begin, made + LONGEST_H) - first]
    return Issue(made, origin, begin, values) if len(values) else None


def features_of(profile: Profile, issue: Issue) -> FloatArray:
    """What may betray a forecast's error, shape (hours, 4), in logarithms; NaN where the history is too short.

    One; how far the forecast is from the usual; how far the history's own extension is from it; and how far the
    forecast's first hours are from where the last measured hour would lead.
    """
    hours = np.arange(issue.first, issue.first + len(issue.g_per_kwh))
    if not DAY_H < issue.origin <= len(profile.log) or not len(hours):
        return np.full((len(hours), FEATURES), np.nan)
    origins = np.full(len(hours), issue.origin)
    leads_h = hours - issue.origin + 1
    usual = profile.usual_at(origins, leads_h)
    departs = profile.scale.log(issue.g_per_kwh) - usual
    own = np.sum(profile.terms_at(origins, leads_h) * damping(leads_h.astype(np.float64)), axis=1)
    near = departs[:_NEAR_H][np.isfinite(departs[:_NEAR_H])]
    gap = float(near[0] - profile.departure[issue.origin - 1]) if near.size else 0.0
    return np.stack([np.ones_like(departs), departs, own - departs, np.full_like(departs, gap)], axis=-1)


def pairs_of(profile: Profile, issues: Sequence[Issue]) -> Pairs:
    """The rows of all issues whose forecast and features are known."""
    columns: list[tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray, FloatArray]] = []
    padded = np.concatenate([profile.log, [np.nan]])
    for number, issue in enumerate(issues):
        features = features_of(profile, issue)
        good = np.isfinite(features).all(axis=1)
        target = np.arange(issue.first, issue.first + len(issue.g_per_kwh))[good]
        came = padded[np.minimum(target, len(profile.log))]
        said = profile.scale.log(issue.g_per_kwh[good])
        columns.append((np.full(len(target), number), target, issue.leads_h[good], said, features[good], came))
    if not columns:
        none, empty = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Pairs(none, none, none, empty, np.zeros((0, FEATURES)), empty)
    issue_, target, lead, said, features, came = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Pairs(issue_, target, lead, said, features, came)
