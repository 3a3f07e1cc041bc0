"""A provider's systematic errors by hour of the day and lead time, learnt from its earlier forecasts and what came.
In: Pairs. Out: a Lesson that corrects a new forecast, with the spread of its errors, or leaves it as it is.
`improve` asks for a lesson; `backtest` shows the rolling corrections that it was judged by.

The error of a forecast in logarithms is regressed on four features (Mincer and Zarnowitz, 1969, for the bias and the
slope of a forecast; Bates and Granger, Operational Research Quarterly 20 (1969), for its combination with another, here
the history's own extension; and the gap at its start). The regression is a ridge drawn to no correction at all, local
in hour and lead (Cleveland, JASA 74 (1979)), with old days fading. It corrects only where a rolling backtest on the
same pairs says that it helps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestrator.predict.pairs import FEATURES, Issue, Pairs, features_of
from orchestrator.predict.profile import DAY_H, IntArray, Profile
from orchestrator.predict.score import LENGTHS_H, ape_percent, saving, tenths
from orchestrator.predict.series import FloatArray

LEARN_DAYS = 10
"""Days with pairs before the first correction that is judged."""
JUDGE_DAYS = 7
"""Days judged before the first correction that is used."""

_HALF_LIFE_DAYS = 25.0
_DRAW_DAYS = np.array([2.0, 5.0, 5.0, 5.0])
"""Strength of the belief in the provider, in days of pairs, by feature: a bias is learnt sooner than the rest."""
LEADS = 9
"""Classes of lead times: see `lead_class`."""
_LIKE_H, _LIKE_LEADS = 1.0, 0.5
_MOST = float(np.log(3.0))
"""No correction multiplies or divides by more than three."""
_SLACK = 1.0
"""Standard errors by which plans may seem worse before a correction is given up."""
_TAIL_ROWS, _TAIL_HALF_LIFE_DAYS, _WIDER = 50, 15.0, 1.1


@dataclass(frozen=True)
class Grade:
    """How the judged forecasts fared."""

    mape_percent: float
    saved_share: float
    """Saving of the plans made by them, as a share of what was possible: the mean over the lengths."""
    shares: FloatArray
    """The parts of that sum by day of issue."""


@dataclass(frozen=True)
class Lesson:
    """What the pairs teach of a provider in a zone."""

    profile: Profile
    weights: FloatArray
    """Shape (hours of the day, classes of lead, features)."""
    tails: FloatArray
    """Shape (classes of lead, 2): the errors' lower and upper tenth, in logarithms."""
    raw: Grade
    corrected: Grade

    @property
    def helps(self) -> bool:
        """Whether the corrections were nearer to what came, and plans by them saved no less."""
        return _helps(self.raw, self.corrected)

    def shift(self, issue: Issue) -> FloatArray:
        """What to add to the logarithm of each hour; zero where there is nothing to go by, or no help in it."""
        if not self.helps:
            return np.zeros(len(issue.g_per_kwh))
        features = features_of(self.profile, issue)
        hours = np.arange(issue.first, issue.first + len(features)) % DAY_H
        shift = _shift(features, self.weights[hours, lead_class(issue.leads_h)])
        return np.where(np.isfinite(shift), shift, 0.0)


def learn(profile: Profile, issues: Sequence[Issue], pairs: Pairs) -> Lesson | None:
    """The lesson of the pairs; None where they are too few to judge."""
    known = np.isfinite(pairs.came)
    if len(np.unique(pairs.target[known] // DAY_H)) < LEARN_DAYS + JUDGE_DAYS:
        return None
    lessons = dict(_lessons(pairs, len(profile.log) // DAY_H + 1))
    rolling = _rolling(issues, pairs, lessons)
    judged = known & np.isfinite(rolling)
    if len(np.unique(pairs.target[judged] // DAY_H)) < JUDGE_DAYS:
        return None
    raw = _grade(profile, pairs, pairs.said, judged)
    corrected = _grade(profile, pairs, rolling, judged)
    if raw is None or corrected is None:
        return None
    chosen = rolling if _helps(raw, corrected) else pairs.said
    age_days = (len(profile.log) - pairs.target[judged]) / DAY_H
    tails = tails_of((pairs.came - chosen)[judged], lead_class(pairs.lead_h[judged]), age_days)
    return Lesson(profile, lessons[max(lessons)], tails, raw, corrected)


def roll(issues: Sequence[Issue], pairs: Pairs) -> FloatArray:
    """Each row's forecast as it would have been corrected then, in logarithms; NaN before the tenth day of pairs."""
    last = max((issue.origin // DAY_H for issue in issues), default=0)
    return _rolling(issues, pairs, dict(_lessons(pairs, last)))


def _rolling(issues: Sequence[Issue], pairs: Pairs, lessons: Mapping[int, FloatArray]) -> FloatArray:
    result = np.full(len(pairs.said), np.nan)
    made_day = np.array([issue.origin for issue in issues], dtype=np.int64)[pairs.issue] // DAY_H
    for day, weights in lessons.items():
        rows = np.flatnonzero(made_day == day)
        local = weights[pairs.target[rows] % DAY_H, lead_class(pairs.lead_h[rows])]
        result[rows] = pairs.said[rows] + _shift(pairs.features[rows], local)
    return result


def lead_class(lead_h: IntArray) -> IntArray:
    """Lead times by powers of two: 1, 2-3, 4-7, 8-15 hours and so on."""
    return np.minimum(np.floor(np.log2(np.maximum(lead_h, 1))).astype(np.int64), LEADS - 1)


def _shift(features: FloatArray, weights: FloatArray) -> FloatArray:
    shift: FloatArray = np.clip(np.sum(features * weights, axis=-1), -_MOST, _MOST)
    return shift


def _lessons(pairs: Pairs, until_day: int) -> Iterator[tuple[int, FloatArray]]:
    """For each day the weights learnt from the targets of the days before it, once there are ten such days."""
    moments = _moments(pairs)
    likeness = _likeness()
    faded, days, seen = np.zeros((DAY_H * LEADS, (FEATURES + 1) ** 2)), 0.0, 0
    fade = 0.5 ** (1.0 / _HALF_LIFE_DAYS)
    for day in range(until_day + 1):
        if day - 1 in moments:
            faded, days, seen = faded * fade, days * fade + 1.0, seen + 1
            cells, sums = moments[day - 1]
            faded[cells] += sums
        else:
            faded, days = faded * fade, days * fade
        if seen >= LEARN_DAYS:
            yield day, _solved(likeness @ faded, days)


def _moments(pairs: Pairs) -> dict[int, tuple[IntArray, FloatArray]]:
    """By day of the target: the cells of hour and lead that have pairs, and the sums of products in each."""
    known = np.flatnonzero(np.isfinite(pairs.came))
    cell = pairs.target[known] % DAY_H * LEADS + lead_class(pairs.lead_h[known])
    place = pairs.target[known] // DAY_H * (DAY_H * LEADS) + cell
    order = np.argsort(place, kind="stable")
    known, place = known[order], place[order]
    if not len(known):
        return {}
    rows = np.concatenate([pairs.features[known], (pairs.came - pairs.said)[known, None]], axis=1)
    products = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    places, starts = np.unique(place, return_index=True)
    sums = np.add.reduceat(products, starts, axis=0)
    days, first = np.unique(places // (DAY_H * LEADS), return_index=True)
    bounds = [*first, len(places)]
    return {
        int(day): (places[a:b] % (DAY_H * LEADS), sums[a:b])
        for day, a, b in zip(days, bounds[:-1], bounds[1:], strict=True)
    }


def _likeness() -> FloatArray:
    """How much the pairs of one cell say of another: cells of like hours and like leads."""
    hours = np.subtract.outer(np.arange(DAY_H), np.arange(DAY_H)) % DAY_H
    of_hours = np.exp(-0.5 * (np.minimum(hours, DAY_H - hours) / _LIKE_H) ** 2)
    leads = np.subtract.outer(np.arange(LEADS), np.arange(LEADS))
    return np.kron(of_hours, np.exp(-0.5 * (leads / _LIKE_LEADS) ** 2))


def _solved(sums: FloatArray, days: float) -> FloatArray:
    table = sums.reshape(DAY_H, LEADS, FEATURES + 1, FEATURES + 1)
    gram, target = table[..., :FEATURES, :FEATURES], table[..., :FEATURES, FEATURES]
    diagonal = np.einsum("...ii->...i", gram)
    penalty = np.eye(FEATURES) * (_DRAW_DAYS / days * diagonal + 1e-9)[..., None]
    return np.linalg.solve(gram + penalty, target[..., None])[..., 0]


def _helps(raw: Grade, corrected: Grade) -> bool:
    """Nearer to what came, and by plans no worse than chance has it: one standard error."""
    gain = corrected.shares - raw.shares
    plans_hold = gain.sum() >= -_SLACK * np.sqrt(len(gain)) * np.std(gain)
    return corrected.mape_percent < raw.mape_percent and bool(plans_hold)


def _grade(profile: Profile, pairs: Pairs, forecast_log: FloatArray, judged: npt.NDArray[np.bool_]) -> Grade | None:
    """The grade over the judged rows; None where no plan could be scored."""
    forecast, actual = profile.scale.g_per_kwh(forecast_log), profile.scale.g_per_kwh(pairs.came)
    errors = ape_percent(forecast[judged], actual[judged])
    days = [day[judged[day]] for day in _first_days(pairs)]
    days = [day for day in days if len(day) > max(LENGTHS_H)]
    shares = []
    for length_h in LENGTHS_H:
        found = [saving(forecast[day], actual[day], length_h) for day in days]
        possible = sum(each.possible for each in found)
        if possible > 0:
            shares.append(np.array([each.saved for each in found]) * len(found) / possible)
    if not np.isfinite(errors).any() or not shares:
        return None
    made_day = np.array([pairs.target[day[0]] // DAY_H for day in days])
    by_day = np.bincount(np.unique(made_day, return_inverse=True)[1], np.mean(shares, axis=0)) / len(made_day)
    return Grade(float(np.nanmean(errors)), float(by_day.sum()), by_day)


def _first_days(pairs: Pairs) -> list[IntArray]:
    """The rows of the first day of each issue."""
    starts = np.unique(pairs.issue, return_index=True)[1]
    rows = np.split(np.arange(len(pairs.issue)), starts[1:])
    return [each[pairs.lead_h[each] <= DAY_H] for each in rows]


def tails_of(errors: FloatArray, classes: IntArray, age_days: FloatArray) -> FloatArray:
    """The tenths of the errors by class of lead, shape (classes, 2), old ones fading; of all where a class has few."""
    result = np.empty((LEADS, 2))
    weights = 0.5 ** (age_days / _TAIL_HALF_LIFE_DAYS)
    for number in range(LEADS):
        mine = classes == number
        rows = mine if mine.sum() >= _TAIL_ROWS else np.ones_like(mine)
        result[number] = _WIDER * tenths(errors[rows], weights[rows])
    return result
