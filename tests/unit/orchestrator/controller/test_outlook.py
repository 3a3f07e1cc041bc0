"""Forecasts as the planner reads them: one curve of intensity and share, one kind of intensity, stale or not."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.outlook import Outlook, curves_of, of_one_kind
from orchestrator.plan.problem import Stretch
from orchestrator.signal.forecast import Forecast, Point, Share, Signal

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def forecast(
    points: list[tuple[float, float, float | None]], shares: list[tuple[float, float, float | None]]
) -> Forecast:
    return Forecast(
        "DE",
        "energy_charts",
        "average",
        tuple(Point(at(start), at(end), value) for start, end, value in points),
        T0,
        renewable=tuple(Share(at(start), at(end), percent) for start, end, percent in shares),
    )


def curve(found: Forecast) -> list[tuple[float, float, float | None, float | None]]:
    stretches = curves_of({"DE": found})["DE"].curve
    minute = timedelta(minutes=1)
    return [((s.start - T0) / minute, (s.end - T0) / minute, s.g_per_kwh, s.renewable_percent) for s in stretches]


@pytest.mark.parametrize(
    ("points", "shares", "expected"),
    [
        ([(0, 60, 100.0)], [], [(0, 60, 100.0, None)]),
        ([(0, 60, 100.0)], [(0, 60, 40.0)], [(0, 60, 100.0, 40.0)]),
        ([(0, 60, 100.0)], [(15, 30, 40.0)], [(0, 15, 100.0, None), (15, 30, 100.0, 40.0), (30, 60, 100.0, None)]),
        ([(0, 30, 100.0), (30, 60, None)], [(0, 60, 40.0)], [(0, 30, 100.0, 40.0), (30, 60, None, 40.0)]),
        ([(0, 30, 100.0)], [(60, 90, 40.0)], [(0, 30, 100.0, None), (60, 90, None, 40.0)]),  # a gap stays one
        ([(0, 30, 100.0)], [(0, 30, None)], [(0, 30, 100.0, None)]),
    ],
)
def test_points_and_shares_of_other_lengths_make_one_curve(
    points: list[tuple[float, float, float | None]],
    shares: list[tuple[float, float, float | None]],
    expected: list[tuple[float, float, float | None, float | None]],
) -> None:
    assert curve(forecast(points, shares)) == expected


Slots = st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(
    lambda edges: list(pairwise(sorted(edges)))
)


@given(Slots, Slots, st.data())
def test_every_minute_keeps_its_intensity_and_its_share(
    points: list[tuple[int, int]], shares: list[tuple[int, int]], data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points)))
    given_points = [(a, b, float(a)) for (a, b), keep in zip(points, kept, strict=True) if keep]
    found = curve(forecast(given_points, [(a, b, float(b)) for a, b in shares]))
    for minute in range(41):
        value = next((v for a, b, v in given_points if a <= minute < b), None)
        percent = next((float(b) for a, b in shares if a <= minute < b), None)
        assert next(((g, p) for a, b, g, p in found if a <= minute < b), (None, None)) == (value, percent)
    assert all(before[1] <= after[0] for before, after in pairwise(found))


def outlooks(**signals: Signal) -> dict[str, Outlook]:
    return {zone: Outlook((Stretch(T0, at(60), 100.0),), signal) for zone, signal in signals.items()}


@pytest.mark.parametrize(
    ("given_kinds", "here", "kept"),
    [
        ({"DE": "average", "FR": "average"}, None, ["DE", "FR"]),
        ({"DE": "marginal"}, None, ["DE"]),
        ({"DE": "average", "FR": "marginal"}, None, ["DE"]),  # FR has fallen back to another kind
        ({"DE": "average", "FR": "marginal"}, "FR", ["FR"]),  # and the job runs there
        ({"DE": "average", "FR": "marginal"}, "ES", ["DE"]),
    ],
)
def test_average_and_marginal_are_never_planned_among(
    given_kinds: dict[str, Signal], here: str | None, kept: list[str]
) -> None:
    assert list(of_one_kind(outlooks(**given_kinds), here)) == kept


def test_a_stale_forecast_tells_since_when() -> None:
    found = forecast([(0, 60, 100.0)], [])
    assert curves_of({"DE": found})["DE"].stale_since is None
    stale = Forecast("DE", "uk", "average", found.points, T0, stale=True)
    assert curves_of({"DE": stale})["DE"].stale_since == T0
