"""The accuracy by lead time, on what is stored."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.predict import METHODS, Accuracy, Backtest, backtest
from orchestrator.predict.backtest import LEADS_H, Method
from tests.unit.orchestrator.predict.shapes import DAY, HOUR, T0, biased, grid, history

DAYS = 40
NOW = T0 + DAYS * DAY + 20 * HOUR / 60
VALUES = grid(DAYS)


@pytest.fixture(scope="module")
def found() -> Backtest:
    return backtest(history(VALUES), biased(VALUES, 24, 48), NOW)


def row(found: Backtest, method: Method, first_h: int) -> Accuracy:
    return next(each for each in found.rows if (each.method, each.first_h) == (method, first_h))


def test_every_method_has_a_row_for_every_lead(found: Backtest) -> None:
    assert [(r.first_h, r.last_h, r.method) for r in found.rows] == [(*h, m) for h in LEADS_H for m in METHODS]


def test_the_correction_is_seen_to_help(found: Backtest) -> None:
    assert found.corrects is True
    for first_h, _ in LEADS_H[:4]:
        said, corrected = row(found, "provider", first_h), row(found, "corrected", first_h)
        assert said.pairs == corrected.pairs > 0
        if said.mape_percent > 5:
            assert corrected.mape_percent < said.mape_percent
    assert row(found, "provider", 13).mean_error_g_per_kwh > 20
    assert abs(row(found, "corrected", 13).mean_error_g_per_kwh) < 10


def test_a_method_says_nothing_beyond_its_horizon(found: Backtest) -> None:
    beyond = row(found, "provider", 49)
    assert (beyond.pairs, beyond.mape_percent, beyond.mean_error_g_per_kwh, beyond.coverage_percent) == (0, *[None] * 3)


def test_intervals_are_given_by_those_who_have_them(found: Backtest) -> None:
    for first_h, _ in LEADS_H:
        assert 60 < row(found, "extended", first_h).coverage_percent <= 100
        assert row(found, "yesterday", first_h).coverage_percent is None
        assert row(found, "last week", first_h).coverage_percent is None
    assert 60 < row(found, "corrected", 1).coverage_percent <= 100


def test_the_naive_methods_repeat_the_last_known_day_and_week() -> None:
    daily = np.tile(np.arange(100.0, 124.0), 30)
    found = backtest(history(daily), [], T0 + 30 * DAY)
    for first_h, _ in LEADS_H:
        assert row(found, "yesterday", first_h).mape_percent == 0
        assert row(found, "last week", first_h).mape_percent == 0
        assert row(found, "extended", first_h).mape_percent == pytest.approx(0, abs=1e-6)
    rising = np.repeat(np.arange(1.0, 31.0), 24)
    found = backtest(history(rising), [], T0 + 30 * DAY)
    assert row(found, "last week", 1).mean_error_g_per_kwh == -7.0


def test_without_forecasts_the_rest_is_scored() -> None:
    found = backtest(history(VALUES), [], NOW)
    assert found.corrects is None
    assert row(found, "provider", 1).pairs == 0
    assert row(found, "extended", 1).pairs > 100


def test_without_history_there_are_no_rows() -> None:
    assert backtest((), biased(VALUES, 24, 48), NOW) == Backtest((), None)
