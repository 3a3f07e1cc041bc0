"""The door: what is measured stays, what is forecast is corrected where that helps, what is open is extended."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.predict import Earlier, improve
from orchestrator.predict.series import FloatArray
from orchestrator.signal.forecast import Forecast, Point
from tests.bench.recorded import points
from tests.unit.orchestrator.predict.shapes import DAY, HOUR, T0, biased, forecast, grid, history

DAYS = 40
NOW = T0 + DAYS * DAY
UNTIL = NOW + 7 * DAY
VALUES = grid(DAYS + 8)
KNOWN = history(VALUES[: DAYS * 24])
SAID = biased(VALUES, 24, 48)
MINUTE = timedelta(minutes=1)


def today(hours: int = 48) -> Forecast:
    return forecast(SAID[DAYS].points[:hours], NOW)


def improved(given_: Forecast, now: datetime = NOW, earlier: list[Earlier] | None = None) -> Forecast:
    return improve(given_, KNOWN, SAID[:DAYS] if earlier is None else earlier, now, UNTIL)


def continuous(found: Forecast) -> bool:
    return all(a.end == b.start for a, b in zip(found.points, found.points[1:], strict=False))


def mape_percent(found: Forecast, actual: FloatArray) -> float:
    said = np.array([point.g_per_kwh for point in found.points[: len(actual)]])
    return float(100 * np.mean(np.abs(said - actual) / actual))


def test_the_provider_is_corrected_and_what_it_said_is_kept() -> None:
    found = improved(today())
    ahead = found.points[:48]
    assert {point.kind for point in ahead} == {"forecast"}
    assert [point.given_g_per_kwh for point in ahead] == [point.g_per_kwh for point in today().points]
    actual = VALUES[DAYS * 24 : DAYS * 24 + 48]
    assert mape_percent(found, actual) < 0.6 * mape_percent(today(), actual)


def test_beyond_the_provider_it_is_extended_to_the_hour_that_was_asked_for() -> None:
    found = improved(today())
    assert {point.kind for point in found.points[48:]} == {"extended"}
    assert found.points[0].start == NOW
    assert found.points[-1].end == UNTIL
    assert continuous(found)
    assert all(point.given_g_per_kwh is None for point in found.points[48:])


def test_every_value_that_was_made_has_an_interval_around_it() -> None:
    for point in improved(today()).points:
        assert point.g_per_kwh is not None
        assert point.low_g_per_kwh is not None
        assert point.high_g_per_kwh is not None
        assert 0 <= point.low_g_per_kwh <= point.g_per_kwh <= point.high_g_per_kwh


def test_a_zone_without_a_forecast_is_extended_from_now() -> None:
    found = improved(forecast((), NOW), now=NOW + 25 * MINUTE, earlier=[])
    assert found.points[0].start == NOW
    assert found.points[-1].end == UNTIL
    assert continuous(found)
    assert {point.kind for point in found.points} == {"extended"}


def test_measured_and_estimated_points_stay_as_they_are() -> None:
    now = NOW + 2 * HOUR
    own = (Point(NOW, NOW + HOUR, 250.0, "measured"), Point(NOW + HOUR, NOW + 2 * HOUR, 260.0, "estimated"))
    current = Point(now, now + HOUR, 270.0, "estimated")
    found = improved(forecast((*own, current, *SAID[DAYS].points[3:]), now), now=now)
    assert found.points[:3] == (*own, current)
    assert found.points[3].given_g_per_kwh is not None


def test_with_too_little_history_nothing_is_said() -> None:
    raw = today()
    assert improve(raw, KNOWN[-47:], SAID[:DAYS], NOW, UNTIL) == raw
    assert improve(raw, (), (), NOW, UNTIL) == raw
    assert improve(forecast((), NOW), KNOWN[-47:], (), NOW, UNTIL).points == ()


def test_without_enough_pairs_the_provider_keeps_its_word() -> None:
    found = improved(today(), earlier=SAID[DAYS - 9 : DAYS])
    assert found.points[:48] == today().points
    assert found.points[48].kind == "extended"


def test_a_good_provider_keeps_its_word_and_gets_an_interval() -> None:
    right = [
        Earlier(T0 + d * DAY, points(T0 + d * DAY, VALUES[24 * d : 24 * d + 48], "forecast")) for d in range(DAYS + 1)
    ]
    found = improved(forecast(right[DAYS].points, NOW), earlier=right[:DAYS])
    for point, said in zip(found.points, right[DAYS].points, strict=False):
        assert point.g_per_kwh == said.g_per_kwh
        assert point.given_g_per_kwh is None
        assert point.low_g_per_kwh is not None


def test_forecasts_and_extensions_in_the_history_teach_nothing() -> None:
    invented = tuple(point._replace(kind="extended", g_per_kwh=9.0) for point in KNOWN)
    assert improve(today(), invented, SAID[:DAYS], NOW, UNTIL) == today()


def test_what_came_after_now_is_not_known() -> None:
    later = history(VALUES)
    assert improve(today(), later, SAID[:DAYS], NOW, UNTIL) == improved(today())


def test_an_unknown_slot_is_filled_from_history_and_says_so() -> None:
    holed = list(today().points)
    holed[5] = holed[5]._replace(g_per_kwh=None)
    del holed[10]
    found = improved(forecast(tuple(holed), NOW))
    assert continuous(found)
    assert [n for n, point in enumerate(found.points[:48]) if point.kind == "extended"] == [5, 10]
    assert found.points[5].g_per_kwh == pytest.approx(VALUES[DAYS * 24 + 5], rel=0.5)


def test_an_unknown_slot_stays_unknown_where_history_knows_nothing_of_its_hour() -> None:
    holed = list(today().points)
    holed[5] = holed[5]._replace(g_per_kwh=None)
    never = tuple(point for point in KNOWN if point.start.hour != 5)
    found = improve(forecast(tuple(holed[:24]), NOW), never, (), NOW, UNTIL)
    assert found.points[5] == holed[5]
    assert not [point for point in found.points[24:] if point.start.hour == 5]


def test_five_minute_slots_keep_their_length_and_share_their_hours_correction() -> None:
    fine = [
        Point(p.start + n * 5 * MINUTE, p.start + (n + 1) * 5 * MINUTE, (p.g_per_kwh or 0.0) * (1 + 0.01 * n))
        for p in today().points
        for n in range(12)
    ][7:-3]
    now = NOW + 37 * MINUTE
    found = improved(forecast(tuple(fine), now), now=now)
    assert [(p.start, p.end) for p in found.points[: len(fine)]] == [(p.start, p.end) for p in fine]
    evening = [p for p in found.points if p.start.hour == 18 and p.kind == "forecast"][:12]
    ratios = [(p.g_per_kwh or 0.0) / (p.given_g_per_kwh or 1.0) for p in evening]
    assert ratios == pytest.approx([1 / 1.3] * 12, rel=0.1)
    assert found.points[len(fine)].end - found.points[len(fine)].start == 15 * MINUTE
    assert continuous(found)


def test_improving_twice_is_improving_once() -> None:
    once = improved(today())
    assert improved(once) == once


def test_a_stale_forecast_is_improved_by_what_was_measured_since() -> None:
    now = NOW + 6 * HOUR
    known = history(VALUES[: DAYS * 24 + 6])
    found = improve(replace(today(), stale=True), known, SAID[:DAYS], now, UNTIL)
    assert found.points[:6] == today().points[:6]
    assert found.points[6].given_g_per_kwh is not None
    assert found.points[-1].end == UNTIL


def test_a_delay_of_the_measured_values_is_borne() -> None:
    found = improve(today(), KNOWN[:-4], SAID[:DAYS], NOW, UNTIL)
    assert found.points[0].start == NOW
    assert found.points[20].given_g_per_kwh is not None
    assert continuous(found)


def test_a_marginal_signal_of_zeros_is_borne() -> None:
    generator = np.random.default_rng(4)
    values = np.where(generator.random(24 * DAYS) < 0.4, 0.0, 500.0)
    earlier = [
        Earlier(T0 + d * DAY, points(T0 + d * DAY, generator.choice([0.0, 480.0], 24), "forecast")) for d in range(DAYS)
    ]
    given_ = replace(forecast(points(NOW, generator.choice([0.0, 480.0], 24), "forecast"), NOW), signal="marginal")
    found = improve(given_, history(values), earlier, NOW, UNTIL)
    assert len(found.points) == 168
    for point in found.points:
        assert point.g_per_kwh is not None
        assert 0 <= point.g_per_kwh < 2000


@settings(max_examples=15)
@given(
    days=st.integers(0, 25),
    level=st.sampled_from([0.0, 30.0, 700.0]),
    holes=st.floats(0, 0.95),
    horizon_h=st.integers(0, 72),
    minutes=st.integers(0, 59),
    seed=st.integers(0, 99),
)
def test_whatever_is_stored_nothing_is_invented(
    days: int, level: float, holes: float, horizon_h: int, minutes: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    now = T0 + days * DAY + minutes * MINUTE
    values = level * np.exp(generator.normal(0, 1, 24 * days))
    values[generator.random(len(values)) < holes] = np.nan
    said = level * np.exp(generator.normal(0, 1, horizon_h))
    said[generator.random(horizon_h) < holes] = np.nan
    earlier = [
        Earlier(T0 + d * DAY, points(T0 + d * DAY, level * np.exp(generator.normal(0, 1, 48)), "forecast"))
        for d in range(days)
    ]
    raw = forecast(points(T0 + days * DAY, said, "forecast"), now)
    found = improve(raw, history(values), earlier, now, now + 4 * DAY)
    assert all(a.end <= b.start for a, b in zip(found.points, found.points[1:], strict=False))
    for point in found.points:
        if point.low_g_per_kwh is not None and point.high_g_per_kwh is not None and point.g_per_kwh is not None:
            assert 0 <= point.low_g_per_kwh <= point.g_per_kwh <= point.high_g_per_kwh
    if np.isfinite(values).sum() < 48:
        assert found == raw
    seen = {n % 24 for known in (values, said) for n in np.flatnonzero(np.isfinite(known))}
    assert {point.start.hour for point in found.points if point.kind == "extended"} <= seen
    assert improve(found, history(values), earlier, now, now + 4 * DAY).points == found.points
