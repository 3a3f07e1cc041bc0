"""A forecast from history alone: anchored, reverting, honest about what it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.predict.extend import Curve, Said, extend
from orchestrator.predict.series import FloatArray
from tests.unit.orchestrator.predict.shapes import HOUR, T0, grid, series

WEEK_H = 168


def extended(values: FloatArray, hours: int = WEEK_H, said: Said | None = None) -> Curve:
    curve = extend(series(values), hours, said)
    assert curve is not None
    return curve


def mape_percent(forecast: FloatArray, actual: FloatArray) -> float:
    return float(100 * np.mean(np.abs(forecast - actual) / actual))


def test_it_begins_with_the_first_unknown_hour() -> None:
    values = grid(10)
    values[-3:] = np.nan
    assert extended(values).start == T0 + (240 - 3) * HOUR


def test_too_little_history_says_nothing() -> None:
    assert extend(series(grid(1)), WEEK_H) is None
    sparse = np.full(240, np.nan)
    sparse[:47] = 100.0
    assert extend(series(sparse), WEEK_H) is None


def test_two_days_are_enough() -> None:
    curve = extended(grid(2))
    assert np.isfinite(curve.g_per_kwh).all()


def test_an_hour_of_the_day_never_seen_stays_unknown() -> None:
    values = grid(20)
    values[7::24] = np.nan
    curve = extended(values)
    unknown = np.isnan(curve.g_per_kwh)
    assert unknown[7::24].all()
    assert unknown.sum() == len(unknown[7::24])
    assert curve.at(curve.start + 7 * HOUR) is None
    assert curve.at(curve.start + 8 * HOUR) is not None


def test_it_starts_where_the_last_hour_was_and_returns_to_the_usual() -> None:
    usual = np.tile(300.0 + 100.0 * np.sin(2 * np.pi * np.arange(24) / 24), 30) + np.random.default_rng(0).normal(
        0, 5, 720
    )
    windy = usual.copy()
    windy[-6:] *= 0.5
    calm, windy_curve = extended(usual), extended(windy)
    assert windy_curve.g_per_kwh[0] < 0.65 * calm.g_per_kwh[0]
    assert windy_curve.g_per_kwh[120:].mean() > 0.85 * calm.g_per_kwh[120:].mean()


def test_it_beats_yesterday_and_last_week() -> None:
    values = grid(150)
    errors = {"extended": [], "yesterday": [], "last week": []}
    for origin in range(42 * 24, 142 * 24, 65):
        came = values[origin : origin + WEEK_H]
        ahead = np.arange(WEEK_H)
        curve = extended(values[origin - 42 * 24 : origin])
        errors["extended"].append(mape_percent(curve.g_per_kwh, came))
        errors["yesterday"].append(mape_percent(values[origin - 24 + ahead % 24], came))
        errors["last week"].append(mape_percent(values[origin - WEEK_H + ahead], came))
    means = {name: np.mean(found) for name, found in errors.items()}
    assert means["extended"] < 0.9 * min(means["yesterday"], means["last week"])


@pytest.mark.parametrize("history_days", [5, 42])
def test_about_four_in_five_hours_come_within_the_interval(history_days: int) -> None:
    values = grid(150, seed=3)
    inside = []
    for origin in range(42 * 24, 142 * 24, 65):
        curve = extended(values[origin - history_days * 24 : origin])
        came = values[origin : origin + WEEK_H]
        inside.append((curve.low_g_per_kwh <= came) & (came <= curve.high_g_per_kwh))
    assert 0.68 < np.mean(inside) < 0.92


def test_intervals_widen_with_the_lead() -> None:
    curve = extended(grid(42))
    width = curve.high_g_per_kwh - curve.low_g_per_kwh
    assert width[:3].mean() < 0.6 * width[24:48].mean()


@pytest.mark.parametrize("level", [0.0, 42.0])
def test_what_never_changes_is_expected_to_stay(level: float) -> None:
    curve = extended(np.full(240, level))
    for values in (curve.g_per_kwh, curve.low_g_per_kwh, curve.high_g_per_kwh):
        assert values == pytest.approx(level, abs=1e-9)


def test_a_marginal_signal_that_jumps_to_zero_stays_within_what_was_seen() -> None:
    generator = np.random.default_rng(5)
    values = np.where(generator.random(40 * 24) < 0.3, 0.0, generator.choice([430.0, 520.0], 40 * 24))
    curve = extended(values)
    assert (curve.g_per_kwh >= 0).all()
    assert (curve.g_per_kwh <= 520.0 + 1e-6).all()
    assert (curve.low_g_per_kwh < 50).mean() > 0.8


def test_it_goes_on_from_what_the_provider_says() -> None:
    values = grid(42)
    said = extended(values, 48).g_per_kwh * 2.0
    curve = extended(values, 72, Said(said, (-0.1, 0.1)))
    plain = extended(values, 120)
    assert curve.start == T0 + (42 * 24 + 48) * HOUR
    assert curve.g_per_kwh[0] > 1.3 * plain.g_per_kwh[48]
    unsure = extended(values, 72, Said(said))
    assert unsure.g_per_kwh == pytest.approx(curve.g_per_kwh)
    assert unsure.high_g_per_kwh[0] > curve.high_g_per_kwh[0]


def test_only_the_last_two_months_count() -> None:
    values = grid(90)
    old = values.copy()
    old[: 24 * 30] = 5.0
    assert extended(old).g_per_kwh.tolist() == extended(values).g_per_kwh.tolist()


def test_the_distant_future_stays_unknown() -> None:
    curve = extended(grid(30), 20 * 24)
    assert np.isnan(curve.g_per_kwh[14 * 24 :]).all()


@settings(max_examples=40)
@given(
    days=st.integers(2, 12),
    level=st.sampled_from([0.0, 1e-3, 20.0, 900.0]),
    spread=st.floats(0, 3),
    holes=st.floats(0, 0.9),
    zeros=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_never_negative_and_always_within_its_interval(
    days: int, level: float, spread: float, holes: float, zeros: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    values = level * np.exp(generator.normal(0, spread, 24 * days))
    values[generator.random(len(values)) < zeros] = 0.0
    values[generator.random(len(values)) < holes] = np.nan
    curve = extend(series(values), 72)
    known = np.isfinite(values)
    if known.sum() < 48:
        assert curve is None
        return
    assert curve is not None
    said = np.isfinite(curve.g_per_kwh)
    value, low, high = (v[said] for v in (curve.g_per_kwh, curve.low_g_per_kwh, curve.high_g_per_kwh))
    assert (low >= 0).all()
    assert (low <= value).all()
    assert (value <= high).all()
    assert (value <= values[known].max() * (1 + 1e-9) + 1e-9).all()
    seen = {int(hour) % 24 for hour in np.flatnonzero(known)}
    first = int(np.flatnonzero(known)[-1]) + 1
    assert {(first + int(lead)) % 24 for lead in np.flatnonzero(said)} <= seen
