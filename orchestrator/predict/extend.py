"""A forecast from a zone's own history alone: the usual shape, anchored to the last known hours, with an interval.
In: an hourly Series of what was measured, and what a provider says of the hours after it. Out: a Curve from there on.
`improve` continues a provider's forecast with it, or replaces one that there is not.

Each hour ahead is the usual value of its hour of the day plus a few damped departures: that of the last known hour, of
the same hour a day ago, and of the month (damped seasonal smoothing in spirit; Gardner, Int. J. Forecasting 22 (2006)).
The zone's own past refines the weights: for each lead time a ridge regression (Hoerl and Kennard, Technometrics 12
(1970)) that is drawn to the damping weights instead of to zero, the more so the less it has seen; rows of like hours of
the day count most. The 80 % interval is the spread of what the regression left unexplained, blended with a damped
spread where few days are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from orchestrator.predict.profile import DAY_H, USUAL_DAYS, IntArray, Profile, damping, profile_of
from orchestrator.predict.score import tenths
from orchestrator.predict.series import FloatArray, Series

LEAST_H = 48
"""With fewer known hours nothing is said."""
MOST_DAYS = 60
"""Older history is left out."""
LONGEST_H = 14 * DAY_H
"""Nothing is said of hours further from the last known one."""

_NORMAL_TAIL = 1.2816
_DRAW_DAYS = 20.0
"""Strength of the damping weights, in days of history for each day of lead."""
_LIKE_H, _UNLIKE = 4.0, 0.2
_SPREAD_RUNS = 2.0
_WIDER = 1.2
_PERSISTS_H = 20.0


@dataclass(frozen=True)
class Curve:
    """Hours from `start` on; NaN where the history says nothing of that hour of the day."""

    start: datetime
    g_per_kwh: FloatArray
    low_g_per_kwh: FloatArray
    high_g_per_kwh: FloatArray

    def at(self, moment: datetime) -> tuple[float, float, float] | None:
        """Value, low and high of the hour that holds `moment`; None where unknown."""
        index = (moment - self.start) // timedelta(hours=1)
        if not 0 <= index < len(self.g_per_kwh) or np.isnan(self.g_per_kwh[index]):
            return None
        return float(self.g_per_kwh[index]), float(self.low_g_per_kwh[index]), float(self.high_g_per_kwh[index])


@dataclass(frozen=True)
class Said:
    """What a provider says of the hours right after the last known one (NaN where it does not), and how surely."""

    g_per_kwh: FloatArray
    tails: tuple[float, float] | None = None
    """The interval of its last hour, as logarithms of ratios to the value; None where its errors are not known."""


def extend(history: Series, hours: int, said: Said | None = None) -> Curve | None:
    """The `hours` after the last one that is known or said; None where fewer than 48 hours of `history` are known."""
    past = recent(history)
    if past.known < LEAST_H or hours <= 0:
        return None
    told = said.g_per_kwh if said is not None else np.zeros(0)
    series = Series(past.start, past.step_s, np.concatenate([past.g_per_kwh, told]))
    rows = _Rows(profile_of(series), len(past))
    logs = np.full((hours, 3), np.nan)
    for lead_h in range(1, min(hours, LONGEST_H - len(told)) + 1):
        value, tails = rows.ahead(lead_h)
        if said is not None:
            tails = rows.tails(lead_h + len(told)) if said.tails is None else _added(tails, said.tails, lead_h)
        logs[lead_h - 1] = value, value + tails[0], value + tails[1]
    return Curve(series.end, *_within(rows.profile, logs))


def recent(history: Series) -> Series:
    """The last sixty days up to the last known hour."""
    past = history.to_last_known()
    return past.between(past.end - timedelta(days=MOST_DAYS), past.end) if len(past) > MOST_DAYS * DAY_H else past


class _Rows:
    """The origins of a zone's past, each a row of the regressions; only measured hours are regressed to."""

    def __init__(self, profile: Profile, known_h: int):
        self.profile = profile
        self._end = len(profile.log)
        first = DAY_H * min(USUAL_DAYS + 1, max(2, known_h // (2 * DAY_H)))
        self._origins: IntArray = np.arange(min(first, known_h), known_h + 1)
        apart = (self._origins - self._end) % DAY_H
        self._alike = np.exp(-0.5 * (np.minimum(apart, DAY_H - apart) / _LIKE_H) ** 2) + _UNLIKE
        self._spread = float(np.sqrt(np.mean(profile.departure[DAY_H:known_h] ** 2)))

    def ahead(self, lead_h: int) -> tuple[float, FloatArray]:
        """The hour `lead_h` ahead of the end in logarithms, and the ends of its interval relative to it."""
        weights, tails = self._learnt(lead_h)
        end = np.array([self._end])
        usual, terms = self.profile.usual_at(end, lead_h), self.profile.terms_at(end, lead_h)
        return float(usual[0] + terms[0] @ weights), tails

    def tails(self, lead_h: int) -> FloatArray:
        """The ends of the interval `lead_h` ahead, relative to the value."""
        return self._learnt(lead_h)[1]

    def _learnt(self, lead_h: int) -> tuple[FloatArray, FloatArray]:
        weights = damping(np.array(float(lead_h)))
        wide = _WIDER * _NORMAL_TAIL * self._spread * np.sqrt(1.0 - np.exp(-2.0 * lead_h / _PERSISTS_H))
        tails = np.array([-wide, wide])
        origins = self._origins[: max(0, len(self._origins) - lead_h)]
        terms = self.profile.terms_at(origins, lead_h)
        targets = self.profile.log[origins + lead_h - 1] - self.profile.usual_at(origins, lead_h)
        good = np.isfinite(targets) & np.isfinite(terms).all(axis=1)
        days = good.sum() / DAY_H
        if days < 1:
            return weights, tails
        terms, targets, alike = terms[good], targets[good], self._alike[: len(good)][good]
        weighted = terms.T * alike
        gram = weighted @ terms
        # Errors of neighbouring origins are one error: so many days are worth only `runs` independent ones.
        runs = days / (1.0 + lead_h / DAY_H)
        penalty = np.diag(_DRAW_DAYS / runs * np.diag(gram) + 1e-9 * alike.sum())
        weights = weights + np.linalg.solve(gram + penalty, weighted @ (targets - terms @ weights))
        left = tenths(targets - terms @ weights) * np.sqrt(1.0 + 2.0 / runs)
        return weights, (runs * left + _SPREAD_RUNS * tails) / (runs + _SPREAD_RUNS)


def _added(tails: FloatArray, doubt: tuple[float, float], lead_h: int) -> FloatArray:
    """The error of the hours that were only said dies away like any departure, and adds to that of the extension."""
    lasting = np.array(doubt) * np.exp(-lead_h / _PERSISTS_H)
    wider: FloatArray = np.sign(tails) * np.hypot(tails, lasting)
    return wider


def _within(profile: Profile, logs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Value, low and high in g/kWh: values that the history has seen, and an interval around each, not far outside."""
    least, most = np.nanmin(profile.log), np.nanmax(profile.log)
    room = 0.5 * (most - least)
    value = np.clip(logs[:, 0], least, most)
    low = np.minimum(np.maximum(logs[:, 1], least - room), value)
    high = np.maximum(np.minimum(logs[:, 2], most + room), value)
    to_g = profile.scale.g_per_kwh
    return to_g(value), to_g(low), to_g(high)
