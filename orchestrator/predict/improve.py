"""The one door for the product: a provider's forecast made better by the zone's own past.
In: a Forecast, what was measured, and earlier forecasts as they were given. Out: the same Forecast, corrected where
that helps and extended, with intervals. The refresher keeps it; the planner plans by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np

from orchestrator.predict.correct import Lesson, lead_class, learn
from orchestrator.predict.extend import LEAST_H, MOST_DAYS, Curve, Said, extend
from orchestrator.predict.pairs import Earlier, Issue, issue_of, pairs_of
from orchestrator.predict.profile import profile_of
from orchestrator.predict.series import Series, series_of
from orchestrator.signal.forecast import Forecast, Point

HOUR = timedelta(hours=1)


def improve(
    forecast: Forecast, history: Sequence[Point], earlier: Sequence[Earlier], now: datetime, until: datetime
) -> Forecast:
    """The forecast, corrected where the zone's own backtest says that it helps, and extended to `until`.

    `history` is of the same zone and signal; of it and of the forecast only measured and estimated points teach.
    Measured and estimated points stay as they are. With fewer than 48 known hours the forecast stays as it was given.
    """
    given = _given(forecast.points)
    past = past_of([*history, *given], now)
    if past is None:
        return replace(forecast, points=given)
    raw = replace(forecast, points=given)
    lesson = _lesson(past, earlier, now)
    points, tails = _corrected(raw, past, lesson, now) if lesson is not None else (given, None)
    return replace(forecast, points=_continued(points, tails, past, now, until))


def past_of(points: Sequence[Point], now: datetime) -> Series | None:
    """What was measured of the last sixty days until the hour of `now`; None where that is too little."""
    since = now - timedelta(days=MOST_DAYS)
    known = [p for p in points if p.kind in {"measured", "estimated"} and p.end > since and p.start < now]
    series = series_of(known)
    if series is None:
        return None
    past = series.between(max(series.start, since), _hour(now)).to_last_known()
    return past if past.known >= LEAST_H else None


def issues_of(past: Series, earlier: Sequence[Earlier], now: datetime) -> list[Issue]:
    """The earlier forecasts on the grid of `past`, as late to know what was measured as one would be now."""
    lag_h = past.index(now) - len(past)
    found = (issue_of(past, past.index(each.fetched_at) - lag_h, each.fetched_at, each.points) for each in earlier)
    return [issue for issue in found if issue is not None]


def _lesson(past: Series, earlier: Sequence[Earlier], now: datetime) -> Lesson | None:
    issues = issues_of(past, earlier, now)
    profile = profile_of(past)
    return learn(profile, issues, pairs_of(profile, issues))


def _given(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points as the provider gave them."""
    return tuple(
        Point(p.start, p.end, p.g_per_kwh if p.given_g_per_kwh is None else p.given_g_per_kwh, p.kind)
        for p in points
        if p.kind != "extended"
    )


def _corrected(
    raw: Forecast, past: Series, lesson: Lesson, now: datetime
) -> tuple[tuple[Point, ...], tuple[float, float] | None]:
    """The points with their intervals, and the interval of the last one as logarithms of ratios."""
    ahead = [point for point in raw.points if point.end > now]
    issue = issue_of(past, len(past), raw.fetched_at, ahead)
    if issue is None:
        return raw.points, None
    shifts = lesson.shift(issue)
    tails = lesson.tails[lead_class(issue.leads_h)]
    scale = lesson.profile.scale
    result = []
    for point in raw.points:
        hour = past.index(point.start + (point.end - point.start) / 2) - issue.first
        if point.kind != "forecast" or point.end <= now or point.g_per_kwh is None or not 0 <= hour < len(shifts):
            result.append(point)
            continue
        log = scale.log(np.array([point.g_per_kwh])) + shifts[hour]
        low, high = (float(end) for end in scale.g_per_kwh(log + tails[hour]))
        value = float(scale.g_per_kwh(log)[0]) if shifts[hour] else point.g_per_kwh
        said = point.g_per_kwh if shifts[hour] else None
        result.append(Point(point.start, point.end, value, "forecast", min(low, value), max(high, value), said))
    return tuple(result), (float(tails[-1, 0]), float(tails[-1, 1]))


def _continued(
    points: tuple[Point, ...], tails: tuple[float, float] | None, past: Series, now: datetime, until: datetime
) -> tuple[Point, ...]:
    """The points, and what the history says of the slots from now to `until` that have no value."""
    known = [p for p in points if p.g_per_kwh is not None or p.end <= now]
    first = min((p.start for p in points), default=now)
    begin = max(_hour(now), first) if first < now else _hour(now)
    slots = [*(p for p in points if p.g_per_kwh is None and p.end > now), *_open(points, begin, until)]
    told = series_of([p for p in known if p.end > past.end])
    # The hour in which the provider's last slot ends is said in part only: the extension begins with it.
    last = max((_hour(p.end) for p in known if p.g_per_kwh is not None and p.end > past.end), default=past.end)
    said = Said(told.between(past.end, last).g_per_kwh, tails) if told is not None and last > past.end else None
    after = extend(past, _hours(last, max((p.end for p in slots), default=last)), said)
    before = extend(past, _hours(past.end, last)) if any(p.start < last for p in slots) else None
    filled = [_filled(slot, after if slot.start >= last else before) for slot in slots]
    return tuple(sorted([*known, *(p for p in filled if p is not None)], key=lambda point: point.start))


def _open(points: Sequence[Point], begin: datetime, until: datetime) -> Iterator[Point]:
    """The time from `begin` to `until` that no point covers, cut at the hours."""
    at = begin
    for start, end in [*((p.start, p.end) for p in sorted(points)), (until, until)]:
        while at < min(start, until):
            stop = min(_hour(at) + HOUR, start, until)
            yield Point(at, stop, None, "extended")
            at = stop
        at = max(at, end)


def _filled(slot: Point, curve: Curve | None) -> Point | None:
    """The slot with a value. Where the history says nothing a provider's slot stays, unknown, and no other is made."""
    found = curve.at(slot.start) if curve is not None else None
    if found is None:
        return slot if slot.kind != "extended" else None
    value, low, high = found
    return Point(slot.start, slot.end, value, "extended", low, high)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hours(start: datetime, end: datetime) -> int:
    """Whole hours that reach from one to the other."""
    return max(0, -((start - end) // HOUR))
