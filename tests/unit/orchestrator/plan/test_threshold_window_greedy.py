"""The policies threshold, window and greedy: small cases worked by hand, and what holds for any case.
In: prices of hours. Out: pass or fail.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.spec import InputError
from orchestrator.plan import Current, OperatingPoint, PauseCost, Plan, Problem, plan
from tests.unit.orchestrator.plan.problems import ONE_KW, at, problem

H = 3600.0
NEW = ("threshold", "window", "greedy")
TWO = OperatingPoint(workers=2, steps_per_s=1.8, power_w=2000.0)
THREE = OperatingPoint(workers=3, steps_per_s=2.4, power_w=3000.0)


def hours(planned: Plan) -> list[tuple[float, float, int]]:
    return [
        ((slot.start - at(0)).total_seconds() / H, (slot.end - at(0)).total_seconds() / H, slot.workers)
        for slot in planned.slots
    ]


def made_steps(asked: Problem, planned: Plan) -> float:
    """The work of a plan, added up without the planner's code."""
    done, before = 0.0, None
    for slot in planned.slots:
        point = next(each for each in asked.zones[slot.zone].points if each.workers == slot.workers)
        cost_s = asked.pause.resume_s if before is not None or asked.started else 0.0
        cost_s += asked.pause.move_s if before is not None and before.zone != slot.zone else 0.0
        done += point.steps_per_s * max(0.0, (slot.end - slot.start).total_seconds() - cost_s)
        before = slot
    return done


@pytest.mark.parametrize(
    ("prices", "work_h", "expected"),
    [
        # Ten hours: the bar is the third cheapest of those that are left.
        ([9, 1, 8, 2, 7, 3, 6, 5, 4, 10], 3, [(1, 2, 1), (3, 4, 1), (5, 6, 1)]),
        # The bar rises with time: 4 is not among the best of all ten hours, and among those after hour 6 it is.
        ([9, 1, 8, 2, 7, 3, 6, 5, 4, 10], 4, [(1, 2, 1), (3, 4, 1), (5, 6, 1), (8, 9, 1)]),
        # The deadline presses from hour 2 on: six hours of work are left there, and six hours.
        ([9, 9, 5, 5, 5, 1, 5, 5], 6, [(2, 8, 1)]),
        # The last slot is used in part.
        ([9, 1, 8, 8], 0.5, [(1, 1.5, 1)]),
        # All hours alike are all clean.
        ([5, 5, 5, 5], 2, [(0, 2, 1)]),
    ],
)
def test_threshold_runs_below_the_bar_of_the_coming_day(
    prices: list[float], work_h: float, expected: list[tuple[float, float, int]]
) -> None:
    assert hours(plan(problem({"A": prices}, work_h * H), "threshold")) == expected


def test_threshold_looks_no_further_than_a_day() -> None:
    prices = [5.0] * 12 + [6.0] * 12 + [1.0] * 24
    assert hours(plan(problem({"A": prices}, H), "threshold")) == [(0, 1, 1)]


def test_threshold_counts_time_and_not_slots() -> None:
    """Six minutes below the rest are no third of the day: by slots of unequal length the bar would be them."""
    asked = problem({"A": [9.0, 9.0, 1.0, 5.0, 5.0]}, 2 * H, now_s=0.9 * H)
    assert hours(plan(asked, "threshold")) == [(2, 4, 1)]


def test_threshold_keeps_time_for_the_starts_that_its_pauses_cost() -> None:
    asked = problem({"A": [1, 9, 8, 7, 1, 9]}, 4 * H, pause=(1800.0, 0.0))
    planned = plan(asked, "threshold")
    assert not planned.misses_deadline
    assert hours(planned) == [(0, 1, 1), (2, 5.5, 1)]


@pytest.mark.parametrize(
    ("prices", "work_h", "expected"),
    [
        ([5, 1, 9, 2, 2, 9], 1, [(1, 2, 1)]),
        ([5, 1, 9, 2, 2, 9], 2, [(3, 5, 1)]),
        ([5, 1, 1, 5], 2, [(1, 3, 1)]),
        # Half an hour more is cheapest at the end that costs 4.
        ([5, 1, 1, 4], 2.5, [(1, 3.5, 1)]),
        # And here before the cheap hours, so that the stretch begins within an hour.
        ([4, 1, 1, 5], 2.5, [(0.5, 3, 1)]),
        ([3, 3, 3], 1, [(0, 1, 1)]),
    ],
)
def test_window_is_the_best_single_stretch(
    prices: list[float], work_h: float, expected: list[tuple[float, float, int]]
) -> None:
    assert hours(plan(problem({"A": prices}, work_h * H), "window")) == expected


def test_window_takes_the_best_zone() -> None:
    asked = problem({"A": [5.0, 3.0, 3.0], "B": [4.0, 1.0, 4.0]}, 2 * H)
    assert [(slot.zone, slot.start) for slot in plan(asked, "window").slots] == [("B", at(0))]
    assert [slot.zone for slot in plan(problem({"A": [5, 2, 2], "B": [4, 1, 4]}, 2 * H), "window").slots] == ["A"]


def test_window_goes_on_once_it_runs() -> None:
    asked = problem({"A": [5, 1, 1]}, H, started=True, pause=(600.0, 0.0))
    assert hours(plan(asked, "window")) == [(1, pytest.approx(2 + 1 / 6), 1)]
    assert hours(plan(replace(asked, current=Current("A", 1)), "window")) == [(0, 1, 1)]


def test_window_is_cut_only_by_windows_that_are_too_short() -> None:
    asked = problem({"A": [5, 1, 5, 1, 5, 5]}, 2 * H, windows_s=[(0, 2 * H), (3 * H, 4.5 * H)])
    assert hours(plan(asked, "window")) == [(0, 2, 1)]
    longer = replace(asked, work_steps=2.5 * H)
    assert hours(plan(longer, "window")) == [(1, 2, 1), (3, 4.5, 1)]


def test_greedy_adds_workers_where_they_bring_most_per_gram() -> None:
    # Grams per hour of work at 1 and 3 g/kWh: the first worker 1 and 3, the second 1/0.8 and 3.75, the third 1/0.6.
    points = (ONE_KW, TWO, THREE)
    assert hours(plan(problem({"A": [3, 1, 3]}, 1.8 * H, points=points), "greedy")) == [(1, 2, 2)]
    assert hours(plan(problem({"A": [3, 1, 3]}, 2.4 * H, points=points), "greedy")) == [(1, 2, 3)]
    assert hours(plan(problem({"A": [3, 1, 3]}, 3.2 * H, points=points), "greedy")) == [
        (0, 1, 1),
        (1, pytest.approx(1 + 2.2 / 2.4), 3),
    ]


def test_greedy_passes_a_width_that_brings_nothing_on_the_way_to_one_that_does() -> None:
    idle = OperatingPoint(workers=2, steps_per_s=1.0, power_w=1500.0)
    asked = problem({"A": [1.0, 1.0]}, 4 * H, points=(ONE_KW, idle, THREE))
    planned = plan(asked, "greedy")
    assert not planned.misses_deadline
    assert {slot.workers for slot in planned.slots} <= {1, 3}


def test_greedy_at_one_width_is_slots() -> None:
    asked = problem({"A": [4.0, 2.0, 9.0, 1.0], "B": [5.0, 1.0, 8.0, 2.0]}, 2.5 * H, pause=(600.0, 60.0))
    assert plan(asked, "greedy").slots == plan(asked, "slots").slots


@pytest.mark.parametrize("policy", NEW)
def test_hours_above_the_limit_or_outside_the_windows_are_not_used(policy: str) -> None:
    asked = problem({"A": [1, 500, 500, 100, 100]}, 2 * H, max_g_per_kwh=300.0, windows_s=[(H, 5 * H)])
    assert hours(plan(asked, policy)) == [(3, 5, 1)]
    more = plan(replace(asked, work_steps=3 * H), policy)
    assert not more.misses_deadline
    assert "the deadline asks for more than 300 g/kWh" in more.reason
    assert hours(more)[0][0] >= 1


@pytest.mark.parametrize("policy", NEW)
def test_a_deadline_that_cannot_be_met_gives_the_earliest_finish(policy: str) -> None:
    planned = plan(problem({"A": [100.0] * 2, "B": [50.0] * 2}, 5.4 * H, points=(ONE_KW, TWO)), policy)
    assert planned.misses_deadline
    assert hours(planned) == [(0, 3, 2)]


PRICES = st.lists(st.integers(0, 9).map(float), min_size=2, max_size=8)


@st.composite
def cases(draw: st.DrawFn) -> Problem:
    """Up to eight hours in two zones, some of them closed, with the work to fill a part of them."""
    prices = draw(PRICES)
    zones = {"A": prices}
    if draw(st.booleans()):
        zones["B"] = draw(st.permutations(prices))
    length_h = len(prices)
    edges = draw(st.sets(st.sampled_from([n / 2 for n in range(2 * length_h + 1)]), min_size=2, max_size=4))
    times = sorted(edges)
    spans = [(times[n] * H, times[n + 1] * H) for n in range(0, len(times) - 1, 2)]
    pause = draw(st.sampled_from([(0.0, 0.0), (300.0, 0.0), (1200.0, 600.0)]))
    return problem(
        zones,
        draw(st.integers(1, 10 * length_h)) / 10 * H,
        points=draw(st.sampled_from([(ONE_KW,), (ONE_KW, TWO), (ONE_KW, TWO, THREE)])),
        pause=pause,
        windows_s=draw(st.sampled_from([None, spans])),
        started=draw(st.booleans()),
    )


@settings(max_examples=150)
@given(cases(), st.sampled_from(NEW))
def test_slots_do_the_work_within_the_windows_in_order_and_in_time(asked: Problem, policy: str) -> None:
    try:
        planned = plan(asked, policy)
    except InputError as fault:  # windows in which no start fits
        assert "carbon.windows" in str(fault)
        return
    assert made_steps(asked, planned) == pytest.approx(asked.work_steps, abs=1e-3)
    ends = [slot.end for slot in planned.slots]
    assert all(end <= slot.start for end, slot in zip(ends, planned.slots[1:], strict=False))
    assert all(slot.start < slot.end for slot in planned.slots)
    if asked.windows is not None and not planned.misses_deadline:
        assert all(any(a <= slot.start and slot.end <= b for a, b in asked.windows) for slot in planned.slots)
    assert planned.misses_deadline == (ends[-1] > asked.deadline)


@settings(max_examples=100)
@given(cases(), st.sampled_from(NEW))
def test_a_deadline_that_can_be_met_is_met_where_pausing_costs_nothing(asked: Problem, policy: str) -> None:
    free = replace(asked, pause=PauseCost(), started=False)
    assert plan(free, policy).misses_deadline == plan(free, "optimal").misses_deadline


@settings(max_examples=60)
@given(cases())
def test_a_deadline_that_running_at_once_meets_is_met(asked: Problem) -> None:
    always = replace(asked, windows=None)
    if not plan(always, "now").misses_deadline:
        for policy in NEW:
            assert not plan(always, policy).misses_deadline


@settings(max_examples=60)
@given(PRICES, st.integers(1, 40))
def test_window_is_no_dearer_than_any_stretch_on_a_fine_grid(prices: list[float], tenths: int) -> None:
    work_h = min(tenths / 10, len(prices))

    def cost(start_h: float) -> float:
        return sum(
            price * max(0.0, min(hour + 1, start_h + work_h) - max(hour, start_h)) for hour, price in enumerate(prices)
        )

    best = min(cost(n / 20) for n in range(round(20 * (len(prices) - work_h)) + 1))
    assert plan(problem({"A": prices}, work_h * H), "window").emissions_g == pytest.approx(best, abs=1e-6)
