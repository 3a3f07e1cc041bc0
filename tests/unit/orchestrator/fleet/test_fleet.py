"""Plans of fleets: capacity, deadlines, priorities, and grams against the exact optimum.
In: small and random fleets. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.fleet import Capacity, Fleet, FleetJob, FleetPlan, Pool, plan_fleet, replan, reserved, ruled
from orchestrator.fleet.reserve import SHARE, busy
from orchestrator.plan import Current, OperatingPoint, plan
from tests.unit.orchestrator.fleet.fleets import HOUR_S, T0, at, fleet, job, least_g, most_used, work_done, zone

ZONES = ("A", "B")
PRICES = st.lists(st.integers(10, 500).map(float), min_size=12, max_size=12)
SHORT = settings(max_examples=40)


@st.composite
def fleets(draw: st.DrawFn, *, pause_s: float = 0.0, whole: bool = True, most: int = 5) -> Fleet:
    zones = {name: zone(draw(PRICES), draw(st.integers(1, 4)), draw(st.sampled_from([1.0, 1.3]))) for name in ZONES}
    parts = {name: draw(st.integers(0, 3)) for name in draw(st.sampled_from([(), ("x",), ("x", "y")]))}
    zones["A"] = replace(zones["A"], pools={name: Pool(count) for name, count in parts.items()})
    jobs = []
    for index in range(draw(st.integers(1, most))):
        start_h = draw(st.integers(0, 6))
        work_h = draw(st.integers(1, 4)) if whole else draw(st.floats(0.3, 4.0))
        deadline_h = min(12, start_h + draw(st.integers(1, 9)))
        names = draw(st.sampled_from([("A",), ("B",), ZONES]))
        gpus, priority = draw(st.integers(1, 3)), draw(st.integers(0, 2))
        within = draw(st.sampled_from([(), *((name,) for name in parts), tuple(parts)]))
        made = job(
            f"j{index}", names, work_h, deadline_h, gpus=gpus, start_h=start_h, pause_s=pause_s, priority=priority
        )
        jobs.append(replace(made, pools={"A": within} if "A" in names else {}))
    return fleet(zones, jobs)


def keeps_its_word(asked: Fleet, planned: FleetPlan) -> None:
    """What every answer must keep to."""
    assert list(planned.plans) == [each.job_id for each in asked.jobs]
    for name, there in asked.zones.items():
        assert there.gpus is None or most_used(asked, planned, name) <= there.gpus
        assert all(most_used(asked, planned, name, pool) <= part.gpus for pool, part in there.pools.items())
    for each in asked.jobs:
        made = planned.plans[each.job_id]
        for before, after in zip(made.slots, made.slots[1:], strict=False):
            assert before.end <= after.start
        assert all(slot.start < slot.end and slot.zone in each.points for slot in made.slots)
        if each.job_id not in planned.missed:
            assert work_done(each, made) == pytest.approx(each.work_steps, rel=1e-6, abs=1e-3)
            assert made.finish_at <= each.deadline
            for slot in made.slots:
                assert any(a <= slot.start and slot.end <= b for a, b in each.windows or ((T0, each.deadline),))
        elif made.slots:
            assert work_done(each, made) == pytest.approx(each.work_steps, rel=1e-6, abs=1e-3)
    assert planned.emissions_g == pytest.approx(sum(made.emissions_g for made in planned.plans.values()))
    assert planned.bound_g <= planned.emissions_g


@SHORT
@given(fleets(pause_s=120.0, whole=False))
def test_slots_sum_to_the_work_within_windows_and_gpus(asked: Fleet) -> None:
    keeps_its_word(asked, plan_fleet(asked))


@SHORT
@given(fleets())
def test_the_optimum_lies_between_the_bound_and_the_plans(asked: Fleet) -> None:
    planned, exact_g = plan_fleet(asked), least_g(asked)
    if planned.missed:
        return
    assert exact_g is not None, "the plans meet every deadline, so the exact search must"
    assert planned.bound_g <= exact_g * (1 + 1e-9)


@SHORT
@given(fleets(), st.sampled_from(["gpus", "zone", "deadline"]))
def test_more_room_never_raises_the_bound(asked: Fleet, what: str) -> None:
    if what == "gpus":
        wider = {
            name: replace(
                each,
                gpus=(each.gpus or 0) + 2,
                pools={pool: Pool(part.gpus + 2) for pool, part in each.pools.items()},
            )
            for name, each in asked.zones.items()
        }
        more = replace(asked, zones=wider)
    elif what == "zone":
        extra = replace(asked.zones["A"], gpus=8)
        jobs = tuple(
            replace(each, points={**each.points, "C": next(iter(each.points.values()))}) for each in asked.jobs
        )
        more = replace(asked, zones={**asked.zones, "C": extra}, jobs=jobs)
    else:
        jobs = tuple(replace(each, deadline=at(12 * HOUR_S), windows=None) for each in asked.jobs)
        more = replace(asked, jobs=jobs)
    before, after = plan_fleet(asked), plan_fleet(more)
    if not before.missed:
        assert not after.missed
        assert after.bound_g <= before.emissions_g * (1 + 1e-9)


def test_a_job_alone_costs_what_the_planner_of_one_job_finds() -> None:
    prices = [300.0, 120.0, 410.0, 90.0, 95.0, 400.0, 80.0, 300.0, 210.0, 60.0, 300.0, 300.0]
    points = (OperatingPoint(1, 1.0, 1000.0), OperatingPoint(2, 1.7, 2100.0))
    asked = fleet(
        {"A": zone(prices, 2), "B": zone(prices[::-1], 2, 1.1)},
        [job("one", ZONES, 5.3, 12.0, pause_s=300.0, move_s=200.0, points=points)],
    )
    planned, alone = plan_fleet(asked), plan(asked.problem(asked.jobs[0]), "optimal")
    keeps_its_word(asked, planned)
    assert planned.bound_g <= alone.emissions_g * (1 + 1e-9)
    assert planned.emissions_g <= alone.emissions_g * 1.02


def test_two_jobs_that_want_the_same_clean_hour_take_turns() -> None:
    asked = fleet({"A": zone([300.0, 50.0, 100.0, 300.0], 1)}, [job(name, ["A"], 1.0, 4.0) for name in "ab"])
    planned = plan_fleet(asked)
    keeps_its_word(asked, planned)
    assert planned.emissions_g == pytest.approx(150.0)
    assert planned.gap_percent < 0.1


def test_a_part_of_a_zone_limits_who_needs_it_and_nobody_else() -> None:
    prices = [50.0, 100.0, 200.0, 300.0]
    jobs = [job(name, ["A"], 1.0, 4.0, pools={"A": ("x",)}) for name in "ab"]
    asked = fleet({"A": zone(prices, None, x=1)}, [*jobs, *(job(name, ["A"], 1.0, 4.0) for name in "cd")])
    planned = plan_fleet(asked)
    keeps_its_word(asked, planned)
    assert planned.emissions_g == pytest.approx(50.0 * 3 + 100.0)
    assert planned.gap_percent < 0.1
    later = replan(planned, replace(asked, jobs=(*asked.jobs, job("e", ["A"], 1.0, 4.0, pools={"A": ("x",)}))), ["e"])
    assert later.emissions_g == pytest.approx(50.0 * 3 + 100.0 + 200.0)


def test_of_equal_jobs_the_longest_waiting_comes_first() -> None:
    jobs = [job(name, ["A"], 1.0, 2.0, waiting_since=at(-since)) for name, since in (("young", 5.0), ("old", 50.0))]
    planned = plan_fleet(fleet({"A": zone([100.0, 100.0], 1)}, jobs))
    assert planned.plans["old"].slots[0].start < planned.plans["young"].slots[0].start


@pytest.mark.parametrize("priorities", [(0, 1), (1, 0)])
def test_where_one_must_miss_its_deadline_it_is_the_lower_priority(priorities: Sequence[int]) -> None:
    jobs = [job(f"j{priority}", ["A"], 2.0, 2.0, priority=priority) for priority in priorities]
    planned = plan_fleet(fleet({"A": zone([100.0] * 8, 1)}, jobs))
    assert planned.missed == ("j0",)
    late = planned.plans["j0"]
    assert late.misses_deadline
    assert "no plan meets the deadline" in late.reason
    assert (late.slots[0].start, late.finish_at) == (at(2 * HOUR_S), at(4 * HOUR_S))


@SHORT
@given(fleets(most=6))
def test_lower_priorities_take_nothing_from_higher_ones(asked: Fleet) -> None:
    planned = plan_fleet(asked)
    for level in {each.priority for each in asked.jobs}:
        above = tuple(each for each in asked.jobs if each.priority >= level)
        missed = {each.job_id for each in above} & set(planned.missed)
        assert missed <= set(plan_fleet(replace(asked, jobs=above)).missed)


def test_a_running_job_goes_on_without_a_start() -> None:
    here = job("on", ["A"], 2.0, 2.0, pause_s=600.0, current=Current("A", 1), started=True)
    planned = plan_fleet(fleet({"A": zone([100.0, 100.0, 10.0], 1)}, [here]))
    assert not planned.missed
    assert planned.plans["on"].slots[0].start == T0


def test_gpus_that_leave_are_not_used_any_more() -> None:
    shrinking = replace(
        zone([10.0, 10.0, 10.0, 100.0], 2), changes=(Capacity(at(HOUR_S), 0), Capacity(at(3 * HOUR_S), 2))
    )
    asked = fleet({"A": shrinking}, [job(name, ["A"], 1.5, 4.0) for name in "ab"])
    planned = plan_fleet(asked)
    assert not planned.missed
    for made in planned.plans.values():
        assert all(slot.end <= at(HOUR_S) or slot.start >= at(3 * HOUR_S) for slot in made.slots)


def test_a_job_too_wide_for_every_zone_says_so() -> None:
    planned = plan_fleet(
        fleet({"A": zone([10.0] * 4, 2)}, [job("wide", ["A"], 1.0, 3.0, gpus=4), job("ok", ["A"], 1, 3)])
    )
    assert planned.missed == ("wide",)
    assert planned.plans["wide"].slots == ()
    assert "room" in planned.plans["wide"].reason


def test_the_users_bounds_are_left_only_where_the_deadline_asks_for_it() -> None:
    prices = [100.0, 300.0, 100.0, 300.0]
    for work_h, most in ((2.0, 100.0), (3.0, 300.0)):
        asked = fleet({"A": zone(prices, 1)}, [job("j", ["A"], work_h, 4.0, max_g_per_kwh=200.0)])
        made = plan_fleet(asked).plans["j"]
        used = [
            prices[hour]
            for hour in range(4)
            if any(s.start < at((hour + 1) * HOUR_S) and s.end > at(hour * HOUR_S) for s in made.slots)
        ]
        assert max(used) == most
        assert not made.misses_deadline


@SHORT
@given(fleets(pause_s=120.0, whole=False), st.floats(0.5, 1.2))
def test_one_job_planned_anew_keeps_all_promises(asked: Fleet, share: float) -> None:
    planned, before = plan_fleet(asked), asked.jobs[0]
    job_now: FleetJob = replace(before, work_steps=before.work_steps * share)
    now = replace(asked, jobs=(job_now, *asked.jobs[1:]))
    again = replan(planned, now, [before.job_id])
    keeps_its_word(now, again)
    assert share > 1.0 or len(again.missed) <= len(planned.missed)


def test_a_job_that_leaves_frees_its_gpus_for_one_that_comes() -> None:
    asked = fleet({"A": zone([10.0, 100.0], 1)}, [job("gone", ["A"], 1.0, 2.0)])
    planned = plan_fleet(asked)
    now = replace(asked, jobs=(job("new", ["A"], 1.0, 2.0),))
    again = replan(planned, now, ["gone"])
    assert list(again.plans) == ["new"]
    assert again.plans["new"].slots[0].start == T0


@SHORT
@given(fleets(pause_s=120.0, whole=False))
def test_equal_fleets_get_equal_plans(asked: Fleet) -> None:
    first, second = plan_fleet(asked), plan_fleet(asked)
    assert first.plans == second.plans
    assert (first.bound_g, first.missed) == (second.bound_g, second.missed)


def test_a_late_job_goes_on_in_its_next_window() -> None:
    windows = ((at(0.0), at(1.5 * HOUR_S)),)
    late = replace(job("late", ["A"], 4.0, 12.0, pause_s=120.0), windows=windows)
    made = plan_fleet(fleet({"A": zone([10.0] * 12, 1)}, [late])).plans["late"]
    assert made.misses_deadline
    assert all(slot.start < slot.end for slot in made.slots)
    assert [slot.start.day for slot in made.slots] == [1, 2, 3]
    assert work_done(late, made) == pytest.approx(4 * HOUR_S)


def test_a_busy_fleet_is_done_before_its_deadlines_where_it_can_be() -> None:
    asked = fleet({"A": zone([300.0, 200.0, 300.0, 100.0], 1)}, [job(name, ["A"], 1.0, 4.0) for name in "abc"])
    assert busy(asked) == pytest.approx(0.75)
    plain, early = plan_fleet(asked), plan_fleet(reserved(asked))
    assert max(made.finish_at for made in plain.plans.values()) == at(4 * HOUR_S)
    assert max(made.finish_at for made in early.plans.values()) <= at(4 * HOUR_S - SHARE * 3 * HOUR_S)
    assert early.bound_g <= plain.emissions_g, "the bound is that of plans which use all the time there is"
    full = replace(asked, jobs=tuple(replace(each, work_steps=4 / 3 * HOUR_S) for each in asked.jobs))
    assert not plan_fleet(reserved(full)).missed, "time to spare yields to a deadline"
    half = replace(asked, jobs=asked.jobs[:2])
    assert reserved(half) == half, "who has room enough waits for the cleanest hour"
    ways = {zone: asked.jobs[0].points["A"] for zone in "AB"}
    free = replace(asked, zones={**asked.zones, "B": replace(asked.zones["A"], gpus=None)})
    free = replace(free, jobs=tuple(replace(each, points=ways) for each in asked.jobs))
    assert busy(free) == 0 and reserved(free) == free


@SHORT
@given(fleets(pause_s=120.0, whole=False), st.floats(0.0, 0.5))
def test_time_to_spare_breaks_no_promise(asked: Fleet, share: float) -> None:
    spare = tuple(replace(each, spare_s=share * HOUR_S * 3) for each in asked.jobs)
    planned = plan_fleet(replace(asked, jobs=spare))
    keeps_its_word(asked, planned)
    assert len(planned.missed) <= len(plan_fleet(asked).missed)


def test_power_limits_are_points_like_any_other() -> None:
    points = (OperatingPoint(1, 1.0, 400.0), OperatingPoint(1, 0.9, 300.0, 250))
    asked = fleet({"A": zone([100.0] * 6, 1)}, [job("slow", ["A"], 1.0, 6.0, points=points)])
    assert [slot.mode for slot in plan_fleet(asked).plans["slow"].slots] == [(1, 250)]
    hasty = fleet({"A": zone([100.0] * 6, 1)}, [job("fast", ["A"], 1.0, 1.0, points=points)])
    assert [slot.mode for slot in plan_fleet(hasty).plans["fast"].slots] == [(1, None)]


def test_what_runs_goes_on_without_a_start_when_it_is_planned_anew_between_edges() -> None:
    jobs = [job(f"j{i}", ["A"], 1.0, 9.0, pause_s=600.0, started=True) for i in range(6)]
    planned = plan_fleet(fleet({"A": zone([100.0] * 12, 1)}, jobs))
    first = min(jobs, key=lambda each: planned.plans[each.job_id].slots[0].start)
    now = replace(
        fleet({"A": zone([100.0] * 12, 1)}, jobs),
        now=at(0.5 * HOUR_S),
        jobs=tuple(
            replace(each, current=Current("A", 1), work_steps=0.6 * HOUR_S, not_before=None) if each is first else each
            for each in jobs
        ),
    )
    made = replan(planned, now, [first.job_id]).plans[first.job_id]
    assert made.slots[0].start == now.now
    assert made.finish_at == at(1.1 * HOUR_S)


@SHORT
@given(fleets(pause_s=120.0, whole=False, most=6))
def test_rules_of_single_jobs_are_kept_within_what_is_left(asked: Fleet) -> None:
    problems = {each.job_id: replace(asked.problem(each), max_pauses=0, min_run_s=1800.0) for each in asked.jobs[::2]}
    problems |= {each.job_id: asked.problem(each) for each in asked.jobs[1::2]}
    plain = plan_fleet(asked)
    planned = ruled(plain, asked.jobs, problems, set(problems))
    for name, there in asked.zones.items():
        assert there.gpus is None or most_used(asked, planned, name) <= there.gpus
        assert all(most_used(asked, planned, name, pool) <= part.gpus for pool, part in there.pools.items())
    for each in asked.jobs:
        made = planned.plans[each.job_id]
        if problems[each.job_id].max_pauses == 0 and made is not plain.plans[each.job_id]:
            assert all(a.end == b.start for a, b in zip(made.slots, made.slots[1:], strict=False))
        if made.slots:
            assert work_done(each, made) >= each.work_steps * (1 - 1e-6) - 1e-3
    again = replan(planned, asked, [asked.jobs[0].job_id])
    for name, there in asked.zones.items():
        assert there.gpus is None or most_used(asked, again, name) <= there.gpus
