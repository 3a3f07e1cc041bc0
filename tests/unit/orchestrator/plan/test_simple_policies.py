"""What every policy does with windows, limits, unknown hours and deadlines that cannot be met, and what it says.
In: small problems whose answer is plain. Out: pass or fail.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.spec import InputError
from orchestrator.plan import POLICIES, Current, OperatingPoint, plan
from tests.unit.orchestrator.plan.problems import ONE_KW, at, problem

H = 3600.0
FAST = OperatingPoint(workers=4, steps_per_s=3.0, power_w=4000.0)


def hours_of(asked: object, policy: str) -> list[tuple[float, float, str, int]]:
    slots = plan(asked, policy).slots  # type: ignore[arg-type]
    return [
        ((slot.start - at(0)).total_seconds() / H, (slot.end - at(0)).total_seconds() / H, slot.zone, slot.workers)
        for slot in slots
    ]


def test_now_starts_at_once_in_the_zone_that_emits_least_over_the_whole_run() -> None:
    asked = problem({"A": [100.0, 900.0, 900.0, 100.0], "B": [400.0] * 4}, 2.5 * H)
    assert hours_of(asked, "now") == [(0.0, 2.5, "B", 1)]
    assert plan(asked, "now").emissions_g == pytest.approx(1000.0)
    assert plan(asked, "observe").slots == plan(asked, "now").slots


def test_now_takes_the_width_that_meets_the_deadline_and_keeps_what_runs() -> None:
    asked = problem({"A": [100.0] * 4}, 6 * H, points=(ONE_KW, FAST))
    assert hours_of(asked, "now") == [(0.0, 2.0, "A", 4)]
    easy = replace(asked, work_steps=3 * H, started=True, current=Current("A", 4))
    assert hours_of(easy, "now") == [(0.0, 1.0, "A", 4)]


def test_slots_takes_the_cheapest_hours_and_pays_for_its_pauses_afterwards() -> None:
    asked = problem({"A": [100.0, 500.0, 110.0, 500.0, 120.0, 500.0]}, 2 * H)
    assert hours_of(asked, "slots") == [(0.0, 1.0, "A", 1), (2.0, 3.0, "A", 1)]
    dear = replace(asked, pause=type(asked.pause)(resume_s=900.0))
    assert hours_of(dear, "slots") == [(0.0, 1.0, "A", 1), (2.0, 3.0, "A", 1), (4.0, 4.5, "A", 1)]
    assert plan(dear, "slots").emissions_g == pytest.approx(100.0 + 110.0 + 60.0)


def test_a_pause_that_costs_more_than_it_saves_is_not_made() -> None:
    asked = problem({"A": [100.0, 130.0, 100.0]}, 2 * H, pause=(1800.0, 0.0))
    assert hours_of(asked, "optimal") == [(0.0, 2.0, "A", 1)]
    assert len(hours_of(replace(asked, pause=type(asked.pause)(resume_s=60.0)), "optimal")) == 2


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_no_policy_leaves_the_windows(policy: str) -> None:
    asked = problem({"A": [100.0] * 6}, 2 * H, windows_s=[(H, 2 * H), (3.5 * H, 6 * H)])
    for start, end, _, _ in hours_of(asked, policy):
        assert (start >= 1 and end <= 2) or (start >= 3.5 and end <= 6)


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_hours_above_the_limit_are_used_only_for_the_deadline(policy: str) -> None:
    asked = problem({"A": [500.0, 100.0, 500.0, 100.0]}, 2 * H, max_g_per_kwh=300.0)
    planned = plan(asked, policy)
    assert hours_of(asked, policy) == [(1.0, 2.0, "A", 1), (3.0, 4.0, "A", 1)]
    assert "deadline" not in planned.reason
    more = plan(replace(asked, work_steps=2.5 * H), policy)
    assert not more.misses_deadline
    assert "the deadline asks for more than 300 g/kWh" in more.reason


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_a_deadline_that_cannot_be_met_gives_the_earliest_finish(policy: str) -> None:
    asked = problem({"A": [100.0] * 2, "B": [50.0] * 2}, 9 * H, points=(ONE_KW, FAST))
    planned = plan(asked, policy)
    assert planned.misses_deadline
    assert hours_of(asked, policy) == [(0.0, 3.0, "B", 4)]
    assert planned.unknown_s == pytest.approx(H)
    assert planned.reason.endswith("no plan meets the deadline, earliest finish 03:00Z")


def test_a_deadline_in_the_past_gives_the_earliest_finish() -> None:
    planned = plan(problem({"A": [100.0] * 2}, H, now_s=3 * H, deadline_s=2 * H), "optimal")
    assert planned.misses_deadline
    assert planned.finish_at == at(4 * H)


def test_windows_that_end_too_early_are_taken_to_come_again_daily() -> None:
    asked = problem({"A": [100.0] * 6}, 3 * H, windows_s=[(H, 3 * H)])
    assert hours_of(asked, "optimal") == [(1.0, 3.0, "A", 1), (25.0, 26.0, "A", 1)]


def test_windows_in_which_no_start_fits_are_refused() -> None:
    asked = problem({"A": [100.0] * 6}, 3 * H, windows_s=[(H, 2 * H)], pause=(H, 0.0), started=True)
    with pytest.raises(InputError, match=r"carbon\.windows: .*lengthen"):
        plan(asked, "optimal")


def test_unknown_hours_are_priced_at_the_worst_known_and_counted() -> None:
    asked = problem({"A": [300.0, None, 400.0, 100.0]}, 2 * H)
    planned = plan(asked, "optimal")
    assert [slot.start for slot in planned.slots] == [at(0), at(3 * H)]
    assert planned.unknown_s == 0.0
    assert plan(replace(asked, work_steps=4 * H), "optimal").unknown_s == pytest.approx(H)


@pytest.mark.parametrize("policy", ["slots", "optimal"])
@pytest.mark.parametrize(
    ("prices", "work_h", "hours", "unknown_h"),
    [
        ([None, 300.0, 100.0], 1, [(2, 3)], 0),  # at the start: not run only because nothing is known of it
        ([300.0, None, 100.0, 200.0], 2, [(2, 4)], 0),  # in the middle: passed over for any cleaner hour
        ([300.0, 100.0, None, None], 1, [(1, 2)], 0),  # at the end
        ([None, 300.0, 100.0], 3, [(0, 3)], 1),  # used where the work needs it, and counted
        ([100.0, 200.0, None, None], 3, [(0, 3)], 1),
    ],
)
def test_unknown_hours_are_never_preferred_over_known_cleaner_ones(
    policy: str, prices: list[float | None], work_h: int, hours: list[tuple[float, float]], unknown_h: int
) -> None:
    asked = problem({"A": prices}, work_h * H)
    assert [(start, end) for start, end, _, _ in hours_of(asked, policy)] == hours
    assert plan(asked, policy).unknown_s == pytest.approx(unknown_h * H)


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_a_zone_of_which_nothing_is_known_costs_the_worst_of_any_zone(policy: str) -> None:
    asked = problem({"A": [None] * 3, "B": [300.0, 100.0, 400.0]}, 2 * H)
    planned = plan(asked, policy)
    assert (planned.unknown_s, {slot.zone for slot in planned.slots}) == (0.0, {"B"})


def test_a_slot_that_is_known_for_a_minute_only_is_no_bargain() -> None:
    """A forecast that ends within a slot tells nothing of the rest of it, which costs the worst."""
    asked = problem({"A": [50.0, *[None] * 59, *[120.0] * 60, *[200.0] * 60]}, H, slot_s=60.0)
    assert hours_of(replace(asked, slot_s=H), "optimal") == [(1.0, 2.0, "A", 1)]


def test_the_plan_says_that_it_was_made_by_a_stale_forecast() -> None:
    asked = problem({"A": [300.0, 100.0]}, H)
    zone = replace(asked.zones["A"], stale_since=at(-2 * H))
    planned = plan(replace(asked, zones={"A": zone}), "optimal")
    assert planned.reason == (
        "waits until 01:00Z: 100 g/kWh then, 300 now; by a stale forecast, fetched 2022-02-28 22:00Z"
    )


def test_where_nothing_is_known_every_policy_runs_at_once() -> None:
    asked = problem({"A": [None] * 4, "B": []}, 2 * H)
    for policy in POLICIES:
        planned = plan(asked, policy)
        assert hours_of(asked, policy) == [(0.0, 2.0, "A", 1)]
        assert planned.unknown_s == pytest.approx(2 * H)


def test_grams_count_the_pue_and_joules_do_not() -> None:
    asked = problem({"A": [100.0] * 2}, H)
    zone = replace(asked.zones["A"], pue=1.5)
    planned = plan(replace(asked, zones={"A": zone}), "optimal")
    assert planned.emissions_g == pytest.approx(150.0)
    assert planned.energy_j == pytest.approx(3.6e6)
    assert planned.run_now_emissions_g == pytest.approx(150.0)
    assert planned.saved_percent == pytest.approx(0.0)


def test_no_work_is_an_empty_plan() -> None:
    planned = plan(problem({"A": [100.0] * 2}, 0.0), "optimal")
    assert (planned.slots, planned.emissions_g, planned.finish_at) == ((), 0.0, at(0))


@pytest.mark.parametrize(
    ("prices", "more", "expected"),
    [
        ([95.0, 200.0, 300.0], {}, "runs: 95 g/kWh, cleanest of the next 3 h"),
        ([95.0, 200.0, 90.0], {}, "runs: 95 g/kWh, cleanest of the next 2 h"),
        ([412.0, 300.0, 118.0], {}, "waits until 02:00Z: 118 g/kWh then, 412 now"),
        ([100.0, 100.0, 100.0], {"windows_s": [(H, 3 * H)]}, "waits until 01:00Z: outside its windows"),
    ],
)
def test_the_reason_says_why_the_job_runs_or_waits(prices: list[float], more: dict[str, object], expected: str) -> None:
    assert plan(problem({"A": prices}, 0.9 * H if prices[2] != 90.0 else 1.9 * H, **more), "optimal").reason == expected  # type: ignore[arg-type]


def test_a_policy_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"carbon\.policy: 'cheapest' .*observe, now, .*, greedy, optimal"):
        plan(problem({"A": [1.0]}, 60.0), "cheapest")


def test_no_operating_point_is_refused() -> None:
    with pytest.raises(InputError, match=r"carbon\.zones"):
        plan(problem({"A": [1.0]}, 60.0, points=()), "optimal")
