"""How good a zone's forecasts have been, by lead time, on what is stored.
In: what was measured, and earlier forecasts as they were given. Out: a Backtest: rows of accuracy by lead and method.
`lowtide forecast ZONE --backtest` prints it.

Every method answers at the same moments, a little more than a day apart: when earlier forecasts were made, those of
them for which a correction could be learnt where there are any, or any hours where there are no forecasts. Each knows
only what was measured then, and is scored on the hours that have been measured since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from orchestrator.predict.correct import LEARN_DAYS, lead_class, learn, roll, tails_of
from orchestrator.predict.extend import LEAST_H, extend
from orchestrator.predict.improve import issues_of, past_of
from orchestrator.predict.pairs import Earlier, Issue, Pairs, pairs_of
from orchestrator.predict.profile import DAY_H, Profile, profile_of
from orchestrator.predict.score import ape_percent
from orchestrator.predict.series import FloatArray, Series
from orchestrator.signal.forecast import Point

Method = Literal["provider", "corrected", "extended", "yesterday", "last week"]
METHODS: tuple[Method, ...] = ("provider", "corrected", "extended", "yesterday", "last week")
LEADS_H = ((1, 6), (7, 12), (13, 24), (25, 48), (49, 72), (73, 168))
"""First and last lead time of each row, in hours; 1 is the hour that the forecast was made in."""

_APART_H = 25
_AHEAD_H = LEADS_H[-1][1]


@dataclass(frozen=True)
class Accuracy:
    """One method at some lead times; None where it says nothing so far ahead, or nothing has been measured yet."""

    method: Method
    first_h: int
    last_h: int
    pairs: int
    """Hours that were forecast and then measured."""
    mape_percent: float | None
    mean_error_g_per_kwh: float | None
    """Forecast less actual."""
    coverage_percent: float | None
    """Share of the hours that came within the 80 % interval; None for a method that gives none."""


@dataclass(frozen=True)
class Backtest:
    """The rows, by lead time and then by method."""

    rows: tuple[Accuracy, ...]
    corrects: bool | None
    """Whether forecasts are corrected now; None where the pairs are too few to judge."""


_FEWEST = 4


@dataclass(frozen=True)
class _Answers:
    """What one method said at each moment, shape (moments, 168), and its interval; NaN where it says nothing."""

    g_per_kwh: FloatArray
    low_g_per_kwh: FloatArray
    high_g_per_kwh: FloatArray


def backtest(history: Sequence[Point], earlier: Sequence[Earlier], now: datetime) -> Backtest:
    """The accuracy of what was forecast before `now`; no rows where fewer than 48 hours were measured."""
    past = past_of(history, now)
    if past is None:
        return Backtest((), None)
    issues = issues_of(past, earlier, now)
    profile = profile_of(past)
    pairs = pairs_of(profile, issues)
    rolling = roll(issues, pairs)
    moments = _moments(past, issues, pairs, rolling)
    answers: dict[Method, _Answers] = {
        "provider": _provider(profile, issues, pairs, pairs.said, moments),
        "corrected": _provider(profile, issues, pairs, rolling, moments),
        "extended": _extended(past, moments),
        "yesterday": _repeated(past, moments, DAY_H),
        "last week": _repeated(past, moments, 7 * DAY_H),
    }
    came = np.array([_after(past, issue.made) for issue in moments]).reshape(-1, _AHEAD_H)
    rows = tuple(_accuracy(method, answers[method], came, *leads) for leads in LEADS_H for method in METHODS)
    lesson = learn(profile, issues, pairs)
    return Backtest(rows, lesson.helps if lesson is not None else None)


def _moments(past: Series, issues: Sequence[Issue], pairs: Pairs, rolling: FloatArray) -> list[Issue]:
    """When the methods are asked; an issue without values stands for an hour in which no forecast was made."""
    corrected = {int(number) for number in pairs.issue[np.isfinite(rolling)]}
    chosen = [issue for number, issue in enumerate(issues) if not corrected or number in corrected]
    if sum(issue.made + DAY_H <= len(past) for issue in issues) < _FEWEST:
        # Too few forecasts have come true: the history answers for the methods that need none.
        chosen = [Issue(hour, hour, hour, np.zeros(0)) for hour in range(LEAST_H, len(past))]
    moments: list[Issue] = []
    for issue in sorted(chosen, key=lambda issue: issue.made):
        if not moments or issue.made >= moments[-1].made + _APART_H:
            moments.append(issue)
    return moments


def _provider(
    profile: Profile, issues: Sequence[Issue], pairs: Pairs, logs: FloatArray, moments: Sequence[Issue]
) -> _Answers:
    """What was said or corrected, with the intervals that the errors known on that day give."""
    places = {id(issue): place for place, issue in enumerate(moments)}
    table = np.full((3, len(moments), _AHEAD_H), np.nan)
    classes, errors = lead_class(pairs.lead_h), pairs.came - logs
    for number, issue in enumerate(issues):
        if id(issue) not in places:
            continue
        today = issue.origin // DAY_H
        rows = np.flatnonzero((pairs.issue == number) & (pairs.lead_h <= _AHEAD_H))
        before = np.isfinite(errors) & (pairs.target < today * DAY_H)
        tails = np.full((len(rows), 2), np.nan)
        if len(np.unique(pairs.target[before] // DAY_H)) >= LEARN_DAYS:
            age_days = today - pairs.target[before] / DAY_H
            tails = tails_of(errors[before], classes[before], age_days)[classes[rows]]
        said = np.stack([logs[rows], logs[rows] + tails[:, 0], logs[rows] + tails[:, 1]])
        table[:, places[id(issue)], pairs.lead_h[rows] - 1] = profile.scale.g_per_kwh(said)
    return _Answers(*table)


def _extended(past: Series, moments: Sequence[Issue]) -> _Answers:
    table = np.full((3, len(moments), _AHEAD_H), np.nan)
    for place, issue in enumerate(moments):
        known = past.between(past.start, past.time(issue.origin)).to_last_known()
        curve = extend(known, issue.made + _AHEAD_H - len(known))
        if curve is not None:
            said = (curve.g_per_kwh, curve.low_g_per_kwh, curve.high_g_per_kwh)
            table[:, place] = [values[-_AHEAD_H:] for values in said]
    return _Answers(*table)


def _repeated(past: Series, moments: Sequence[Issue], period_h: int) -> _Answers:
    """The same hour of the last day, or week, of which it is known."""
    table = np.full((len(moments), _AHEAD_H), np.nan)
    for place, issue in enumerate(moments):
        hours = np.arange(issue.made, issue.made + _AHEAD_H)
        same = hours - period_h * (1 + (hours - issue.origin) // period_h)
        table[place] = np.where(same >= 0, past.g_per_kwh[np.clip(same, 0, len(past) - 1)], np.nan)
    nothing = np.full_like(table, np.nan)
    return _Answers(table, nothing, nothing)


def _after(past: Series, made: int) -> FloatArray:
    return past.between(past.time(made), past.time(made + _AHEAD_H)).g_per_kwh


def _accuracy(method: Method, said: _Answers, came: FloatArray, first_h: int, last_h: int) -> Accuracy:
    leads = slice(first_h - 1, last_h)
    forecast, actual = said.g_per_kwh[:, leads], came[:, leads]
    low, high = said.low_g_per_kwh[:, leads], said.high_g_per_kwh[:, leads]
    both = np.isfinite(forecast) & np.isfinite(actual)
    bounded = both & np.isfinite(low) & np.isfinite(high)
    errors = ape_percent(forecast[both], actual[both])
    inside = (low[bounded] <= actual[bounded]) & (actual[bounded] <= high[bounded])
    return Accuracy(
        method=method,
        first_h=first_h,
        last_h=last_h,
        pairs=int(both.sum()),
        mape_percent=_mean(errors[np.isfinite(errors)]),
        mean_error_g_per_kwh=_mean(forecast[both] - actual[both]),
        coverage_percent=_mean(np.where(inside, 100.0, 0.0)),
    )


def _mean(values: FloatArray) -> float | None:
    return float(values.mean()) if len(values) else None
