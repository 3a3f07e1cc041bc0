"""Fleets by simulated time: who shares GPUs with whom, by hand.
In: recorded hours as lists of prices. Out: pass or fail.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.spec import InputError
from orchestrator.plan import POLICIES
from orchestrator.simulate import Setting, Task, follow, follow_fleet, simulate
from tests.unit.orchestrator.plan.problems import ONE_KW, at
from tests.unit.orchestrator.simulate.test_follow import TWO, hours, setting, task

PRICES: list[float | None] = [5.0, 4.0, 1.0, 2.0, 9.0, 3.0, 9.0, 9.0]


def shared(gpus: int, told: list[float | None] | None = None) -> Setting:
    made = setting({"A": PRICES}, None if told is None else {"A": told})
    return replace(made, gpus={"A": gpus})


@pytest.mark.parametrize("policy", ["slots", "optimal"])
def test_two_jobs_share_the_clean_hours_of_one_gpu(policy: str) -> None:
    ran = follow_fleet(shared(1), [task(5, 1), task(5, 1)], policy)
    assert sorted(hours(each) for each in ran) == [[(2, 3, "A", 1)], [(3, 4, "A", 1)]]


@pytest.mark.parametrize("policy", ["now", "slots", "optimal"])
def test_who_comes_later_with_a_higher_priority_comes_first(policy: str) -> None:
    urgent = Task(at(1800), at(2.5 * 3600), 2 * 3600.0, (ONE_KW,), priority=1)
    first, second = follow_fleet(shared(1), [task(3, 1), urgent], policy)
    assert hours(second) == [(0.5, 2.5, "A", 1)]
    assert not second.missed_deadline
    assert all(end <= 0.5 or start >= 2.5 for start, end, *_ in hours(first))


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_job_with_room_enough_does_what_it_does_alone(policy: str) -> None:
    asked, alone = shared(2), task(6, 2.5, (ONE_KW, TWO))
    (ran,) = follow_fleet(asked, [alone], policy)
    assert ran.emissions_g == pytest.approx(follow(asked, alone, policy).emissions_g)


@pytest.mark.parametrize("told", [None, [1.0, 9.0, 9.0, 1.0, 1.0, 1.0, 9.0, 9.0]])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_no_moment_has_more_than_the_gpus_and_all_work_is_done(policy: str, told: list[float | None] | None) -> None:
    tasks = [replace(task(5, 2, (ONE_KW, TWO), start_h=i / 2), gpus_per_worker=1 + i % 2) for i in range(4)]
    asked = shared(2, told)
    ran = follow_fleet(asked, tasks, policy)
    for moment in sorted({segment.start for each in ran for segment in each.ran}):
        used = [
            segment.workers * each.task.gpus_per_worker
            for each in ran
            for segment in each.ran
            if segment.start <= moment < segment.end
        ]
        assert sum(used) <= 2
    rate = {1: 1.0, 2: 1.8}
    for each in ran:
        assert each.ran[0].start >= each.task.start
        done_h = sum(rate[workers] * (end - start) for start, end, _, workers in hours(each))
        assert done_h == pytest.approx(2, abs=1e-4)


def test_what_is_too_wide_for_every_zone_is_refused() -> None:
    with pytest.raises(InputError, match="--capacity: no zone has the GPUs"):
        follow_fleet(shared(1), [replace(task(4, 1), gpus_per_worker=2)], "now")


def test_a_bound_is_proven_with_foresight_alone() -> None:
    tasks = [task(5, 1), task(5, 1)]
    proven = simulate(shared(1), tasks, ["now", "optimal"]).fleet
    assert proven is not None and proven.bound_g is not None and proven.gap_percent is not None
    assert proven.bound_g == pytest.approx(3, rel=1e-3)
    assert proven.gap_percent == pytest.approx(0, abs=0.1)
    assert simulate(shared(1), tasks, ["now"]).fleet is None
    assert simulate(shared(1, PRICES), tasks, ["optimal"]).fleet is None
    late = simulate(shared(1), [task(1, 1), task(1, 1)], ["optimal"])
    assert late.rows[0].missed_deadlines == 1
    assert late.to_json()["fleet"] == {"bound_g": None, "gap_percent": None} and "nothing is proven" in late.notes[0]
