"""What a provider gets wrong is learnt where its own record says that this helps, and from the past alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.predict import Earlier
from orchestrator.predict.correct import LEARN_DAYS, Lesson, lead_class, learn, roll
from orchestrator.predict.pairs import Issue, Pairs, issue_of, pairs_of
from orchestrator.predict.profile import profile_of
from orchestrator.predict.series import FloatArray
from tests.bench.recorded import points
from tests.unit.orchestrator.predict.shapes import HOUR, T0, biased, grid, series


def issues(values: FloatArray, earlier: Sequence[Earlier], lag_h: int = 0) -> list[Issue]:
    past = series(values)
    found = [issue_of(past, past.index(e.fetched_at) - lag_h, e.fetched_at, e.points) for e in earlier]
    return [issue for issue in found if issue is not None]


def taught(values: FloatArray, earlier: Sequence[Earlier]) -> tuple[Lesson | None, Pairs]:
    found = issues(values, earlier)
    profile = profile_of(series(values))
    pairs = pairs_of(profile, found)
    return learn(profile, found, pairs), pairs


def test_a_bias_by_hour_is_learnt() -> None:
    values = grid(41)
    lesson, _ = taught(values[: 40 * 24], biased(values, 24, 24)[:40])
    assert lesson is not None
    assert lesson.helps
    assert lesson.corrected.mape_percent < 0.6 * lesson.raw.mape_percent
    today = biased(values, 24, 24)[40]
    (issue,) = issues(values[: 40 * 24], [today])
    ratio = np.exp(lesson.shift(issue))
    assert ratio[17:23].mean() == pytest.approx(1 / 1.3, rel=0.1)
    assert ratio[1:5].mean() == pytest.approx(1 / 0.9, rel=0.06)
    assert ratio[8:14].mean() == pytest.approx(1.0, rel=0.06)


def test_a_bias_by_lead_is_learnt() -> None:
    values = grid(42)
    earlier = []
    for made in range(0, 41 * 24, 6):
        said = values[made : made + 48] * np.linspace(1.0, 1.5, 48)[: len(values) - made]
        earlier.append(Earlier(T0 + made * HOUR, points(T0 + made * HOUR, said, "forecast")))
    lesson, _ = taught(values[: 40 * 24], [e for e in earlier if e.fetched_at < T0 + 40 * 24 * HOUR])
    assert lesson is not None
    (issue,) = issues(values[: 40 * 24], earlier[160:161])
    ratio = np.exp(lesson.shift(issue))
    assert ratio[:4].mean() == pytest.approx(1.0, abs=0.06)
    assert ratio[36:].mean() == pytest.approx(1 / 1.45, rel=0.1)


def test_a_provider_without_errors_is_left_alone() -> None:
    values = grid(40)
    earlier = [
        Earlier(T0 + d * 24 * HOUR, points(T0 + d * 24 * HOUR, values[24 * d : 24 * d + 24], "forecast"))
        for d in range(40)
    ]
    lesson, _ = taught(values, earlier)
    assert lesson is not None
    assert not lesson.helps
    (issue,) = issues(values, earlier[-1:])
    assert not lesson.shift(issue).any()


def test_errors_without_a_pattern_are_not_made_worse() -> None:
    values = grid(60)
    generator = np.random.default_rng(2)
    earlier = []
    for day in range(60):
        said = values[24 * day : 24 * day + 24] * np.exp(generator.normal(0, 0.1, 24))
        earlier.append(Earlier(T0 + day * 24 * HOUR, points(T0 + day * 24 * HOUR, said, "forecast")))
    lesson, _ = taught(values, earlier)
    assert lesson is not None
    if lesson.helps:
        assert lesson.corrected.mape_percent < lesson.raw.mape_percent


def test_a_correction_that_plans_worse_is_not_used() -> None:
    values = grid(50)
    lesson, _ = taught(values, biased(values, 24, 24))
    assert lesson is not None
    worse = Lesson(lesson.profile, lesson.weights, lesson.tails, lesson.corrected, lesson.raw)
    assert lesson.helps
    assert not worse.helps
    shares = lesson.raw.shares - 0.5 / len(lesson.raw.shares)
    bad_plans = type(lesson.raw)(lesson.corrected.mape_percent, float(shares.sum()), shares)
    assert not Lesson(lesson.profile, lesson.weights, lesson.tails, lesson.raw, bad_plans).helps


@pytest.mark.parametrize("days", [0, 5, LEARN_DAYS + 5])
def test_few_pairs_teach_nothing(days: int) -> None:
    values = grid(40)
    lesson, _ = taught(values, biased(values, 24, 24)[:days])
    assert lesson is None


def test_a_short_horizon_is_no_plan_to_judge_by() -> None:
    values = grid(40)
    lesson, _ = taught(values, biased(values, 6, 6))
    assert lesson is None


def test_corrections_of_the_past_know_nothing_of_what_came_after() -> None:
    values = grid(50)
    changed = np.concatenate([values[: 30 * 24], values[30 * 24 :][::-1]])
    earlier = biased(values, 24, 48)
    rolled = []
    for came in (values, changed):
        found = issues(came, earlier)
        pairs = pairs_of(profile_of(series(came)), found)
        rolled.append((roll(found, pairs), pairs.issue <= 30))
    (first, known), (second, known_too) = rolled
    assert np.isfinite(first[known]).sum() > 15 * 24
    assert first[known] == pytest.approx(second[known_too], nan_ok=True)
    assert not np.allclose(first[~known], second[~known_too], equal_nan=True)


def test_what_was_measured_late_is_not_known_early() -> None:
    values = grid(12)
    (issue,) = issues(values, [Earlier(T0 + 240 * HOUR, points(T0 + 240 * HOUR, values[240:264], "forecast"))], lag_h=5)
    pairs = pairs_of(profile_of(series(values)), [issue])
    lost = values.copy()
    lost[235:240] = lost[235:240][::-1]
    assert pairs_of(profile_of(series(lost)), [issue]).features == pytest.approx(pairs.features)


def test_lead_times_fall_into_classes_by_powers_of_two() -> None:
    leads = np.array([1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 5000])
    assert lead_class(leads).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 8]
