"""One job by simulated time: what runs when, what its starts take, and that the bill is by what came.
In: recorded hours as lists of prices. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan import POLICIES, OperatingPoint, PauseCost, Stretch
from orchestrator.simulate import Outcome, Recorded, Setting, Task, follow, simulate, tasks_each
from tests.unit.orchestrator.plan.problems import ONE_KW, at, curve

H = 3600.0
TWO = OperatingPoint(workers=2, steps_per_s=1.8, power_w=2000.0)


def setting(
    came: dict[str, Sequence[float | None]],
    told: dict[str, Sequence[float | None]] | None = None,
    pause: tuple[float, float] = (0.0, 0.0),
    slot_s: float = H,
) -> Setting:
    forecasts: dict[str, tuple[Stretch, ...] | None] = dict.fromkeys(came)
    forecasts |= {zone: curve(prices) for zone, prices in (told or {}).items()}
    zones = {zone: Recorded(zone, curve(prices), forecasts[zone]) for zone, prices in came.items()}
    return Setting(zones, slot_s, PauseCost(*pause))


def task(due_h: float, work_h: float, points: tuple[OperatingPoint, ...] = (ONE_KW,), start_h: float = 0.0) -> Task:
    return Task(at(start_h * H), at(due_h * H), work_h * H, points)


def hours(outcome: Outcome) -> list[tuple[float, float, str, int]]:
    return [
        (
            round((run.start - at(0)).total_seconds() / H, 6),
            round((run.end - at(0)).total_seconds() / H, 6),
            run.zone,
            run.workers,
        )
        for run in outcome.ran
    ]


def test_with_foresight_the_plan_is_what_happens() -> None:
    outcome = follow(setting({"A": [9, 1, 9, 2]}), task(4, 1.5), "slots")
    assert hours(outcome) == [(1, 2, "A", 1), (3, 3.5, "A", 1)]
    assert outcome.emissions_g == pytest.approx(1 + 1)
    assert outcome.energy_j == pytest.approx(1.5 * 3.6e6)
    assert (outcome.wait_s, outcome.switches, outcome.missed_deadline) == (2 * H, 1, False)


def test_a_forecast_is_planned_by_and_what_came_is_charged() -> None:
    outcome = follow(setting({"A": [5, 7, 3]}, {"A": [5, 1, 9]}), task(3, 1), "optimal")
    assert hours(outcome) == [(1, 2, "A", 1)]
    assert outcome.emissions_g == pytest.approx(7)


def test_starts_after_the_first_take_time_at_the_power_and_price_of_where_they_fall() -> None:
    outcome = follow(setting({"A": [1, 9, 2, 9]}, pause=(900.0, 0.0)), task(4, 1.5), "slots")
    assert hours(outcome) == [(0, 1, "A", 1), (2, 2.75, "A", 1)]
    assert outcome.emissions_g == pytest.approx(1 + 0.75 * 2)


@pytest.mark.parametrize("told", [None, {"A": [1, 9, 9, 1, 1], "B": [9, 1, 9, 9, 9]}])
def test_a_move_takes_its_time_on_top_of_the_start(told: dict[str, Sequence[float | None]] | None) -> None:
    asked = setting({"A": [1, 9, 9, 1, 1], "B": [9, 1, 9, 9, 9]}, told, pause=(600.0, 300.0))
    outcome = follow(asked, task(5, 2.5), "slots")
    assert hours(outcome) == [(0, 1, "A", 1), (1, 2, "B", 1), (3, 4, "A", 1)]
    assert outcome.emissions_g == pytest.approx(3)


def test_a_start_that_is_longer_than_a_slot_goes_on_in_the_next() -> None:
    """Planned anew half-way through a start, the job has still to finish it."""
    prices = [1.0, 9.0, 1.0, 1.0, 1.0, 9.0]
    asked = setting({"A": prices}, {"A": prices}, pause=(1.5 * H, 0.0))
    outcome = follow(asked, task(6, 2), "slots")
    assert hours(outcome) == [(0, 1, "A", 1), (2, 4.5, "A", 1)]


def test_a_deadline_that_cannot_be_met_is_missed_as_little_as_can_be() -> None:
    for told in (None, {"A": [5, 4, 3, 2, 1]}):
        outcome = follow(setting({"A": [5, 4, 3, 2, 1]}, told), task(2, 3), "optimal")
        assert hours(outcome) == [(0, 3, "A", 1)]
        assert outcome.missed_deadline
        assert outcome.emissions_g == pytest.approx(12)


def test_hours_that_are_missing_are_charged_at_the_worst_and_told() -> None:
    asked = setting({"A": [3, None, 4, 2]})
    outcome = follow(asked, task(4, 4), "now")
    assert outcome.emissions_g == pytest.approx(3 + 4 + 4 + 2)
    assert outcome.unknown_s == pytest.approx(H)
    assert "no intensity" in simulate(asked, [task(4, 4)], ["now"]).notes[0]


def test_starts_count_whose_deadline_lies_within_the_record() -> None:
    asked = setting({"A": [1.0] * 10, "B": [1.0] * 9})
    starts = [each.start for each in tasks_each(asked, H, 3 * H, 2 * H, (ONE_KW,))]
    assert starts == [at(0), at(2 * H), at(4 * H), at(6 * H)]
    assert tasks_each(asked, H, 10 * H, H, (ONE_KW,)) == []


def test_rows_sum_the_runs_and_save_against_now_with_foresight() -> None:
    asked = setting({"A": [4, 2, 4, 1]}, {"A": [4, 1, 4, 2]})
    result = simulate(asked, [task(2, 1), task(4, 1, start_h=2.0)], ["now", "optimal"])
    now, optimal = result.rows
    assert (now.runs, now.emissions_g, now.saved_percent, now.mean_wait_h) == (2, pytest.approx(8), 0, 0)
    assert optimal.emissions_g == pytest.approx(3)
    assert optimal.saved_percent == pytest.approx(62.5)
    assert optimal.mean_wait_h == pytest.approx(1)


def test_now_is_the_fixed_count_that_emits_least_and_meets_the_deadline() -> None:
    asked = setting({"A": [2.0] * 4})
    assert hours(follow(asked, task(4, 3, (ONE_KW, TWO)), "now")) == [(0, 3, "A", 1)]
    assert [run.workers for run in follow(asked, task(2, 3, (ONE_KW, TWO)), "now").ran] == [2]


PRICES = st.lists(st.integers(0, 9).map(float), min_size=6, max_size=6)


@settings(max_examples=60)
@given(PRICES, PRICES, st.integers(5, 50), st.sampled_from([0.0, 300.0, 2700.0]), st.sampled_from(sorted(POLICIES)))
def test_planned_anew_each_slot_the_work_is_done_and_in_time(
    came: list[float], told: list[float], tenths: int, pause_s: float, policy: str
) -> None:
    asked = setting({"A": came}, {"A": told}, pause=(pause_s, 0.0), slot_s=1800.0)
    outcome = follow(asked, task(6, tenths / 10), policy)
    ran_h = sum(end - start for start, end, *_ in hours(outcome))
    assert ran_h == pytest.approx(tenths / 10 + outcome.switches * pause_s / H, abs=1e-5) or pause_s > 1800
    assert ran_h * 3.6e6 == pytest.approx(outcome.energy_j, abs=10)
    assert all(a.end <= b.start for a, b in zip(outcome.ran, outcome.ran[1:], strict=False))
    assert not outcome.missed_deadline
