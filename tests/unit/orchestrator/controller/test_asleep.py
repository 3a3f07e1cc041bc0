"""Who sleeps through a pass, and what wakes it.
In: glances of jobs by hand, and room. Out: pass or fail.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from cluster.api import Node
from jobs.spec.job import Workers
from orchestrator.controller.asleep import Glance, Rest, Sleepers, Waking, Wants
from orchestrator.controller.learn import Learned
from orchestrator.controller.room import Room
from orchestrator.plan.problem import Mode, OperatingPoint, PauseCost

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
EACH = Workers(gpus=1, cpus=1.0)


def learned(steps_per_s: float = 1.0, widths: tuple[int, ...] = (1,)) -> Learned:
    points: dict[Mode, OperatingPoint] = {
        (workers, None): OperatingPoint(workers, workers * steps_per_s, 300.0) for workers in widths
    }
    return Learned(points, PauseCost(60.0), 15.0)


def glance(name: str, wish: str = "run", state: str = "waiting", step: int = 0) -> Glance:
    return Glance(name, "alike", (wish, state, step))


@pytest.fixture
def sleepers() -> Sleepers:
    """One job, "a", sleeps for an hour."""
    made = Sleepers()
    made.begin({"DE": "1"}, None)
    made.learned_anew({"alike": learned()})
    made.rest(glance("a"), Rest(T0 + HOUR), None)
    return made


def room(*free: float) -> Room:
    return Room(lambda: [Node(str(i), str(i), "DE", gpus, 9, gpus, 9) for i, gpus in enumerate(free)])


def test_who_waits_sleeps_until_its_hour_has_come(sleepers: Sleepers) -> None:
    assert sleepers.awake([glance("a")], T0, ()) == Waking([], [], [])
    assert sleepers.awake([glance("a")], T0 + HOUR, ()) == Waking([], ["a"], [])


@pytest.mark.parametrize(
    ("told", "woken"),
    [
        (glance("a", step=1), Waking([], ["a"], [])),
        (glance("a", wish="cancel"), Waking(["a"], [], [])),
        (glance("a", wish="hold"), Waking(["a"], [], [])),
        (glance("a", state="running"), Waking(["a"], [], [])),
        (glance("b"), Waking([], [], ["b"])),
    ],
)
def test_what_is_told_of_a_job_wakes_it(sleepers: Sleepers, told: Glance, woken: Waking) -> None:
    assert sleepers.awake([told], T0, ()) == woken


def test_a_new_forecast_or_measurement_lets_jobs_be_planned_anew_in_their_turn(sleepers: Sleepers) -> None:
    sleepers.begin({"DE": "1"}, None)
    sleepers.learned_anew({"alike": learned(), "other": learned(5.0)})
    assert sleepers.awake([glance("a")], T0, ()).later == []
    sleepers.learned_anew({"alike": learned(2.0)})
    assert sleepers.awake([glance("a")], T0, ()).later == ["a"]
    sleepers.rest(glance("a"), Rest(T0 + HOUR), None)
    assert sleepers.awake([glance("a")], T0, ()).later == []
    sleepers.begin({"DE": "2"}, None)
    assert sleepers.awake([glance("a")], T0, ()).later == ["a"]


def test_figures_that_move_a_little_wake_nobody_and_are_told_when_they_have_moved_far(sleepers: Sleepers) -> None:
    first = sleepers.learned_anew({"alike": learned(1.0)})
    for steps_per_s in (1.009, 0.991, 1.015, 0.985):
        assert sleepers.learned_anew({"alike": learned(steps_per_s)}) == first
    assert sleepers.awake([glance("a")], T0, ()).later == []
    assert sleepers.learned_anew({"alike": learned(1.03)}) != first
    assert sleepers.awake([glance("a")], T0, ()).later == ["a"]


def test_what_is_planned_with_others_sleeps_until_its_planner_has_another_plan(sleepers: Sleepers) -> None:
    sleepers.rest(glance("a"), Rest(T0 + HOUR), "gpus")
    sleepers.begin({"DE": "2"}, None)
    sleepers.learned_anew({"alike": learned(2.0)})
    assert sleepers.awake([glance("a")], T0, ("gpus",)) == Waking([], [], [])
    sleepers.learned_anew({"alike": learned(2.0, (1, 2))})
    assert sleepers.awake([glance("a")], T0, ("gpus",)).later == ["a"], "another width has been measured"
    sleepers.rest(glance("a"), Rest(T0 + HOUR), "gpus")
    sleepers.begin({"DE": "2", "FR": "1"}, None)
    assert sleepers.awake([glance("a")], T0, ("gpus",)).later == ["a"], "a further zone has a forecast"


def test_a_plan_of_a_fleet_lasts_as_long_as_somebody_sees_to_it(sleepers: Sleepers) -> None:
    sleepers.rest(glance("a"), Rest(T0 + HOUR), "gpus")
    assert sleepers.awake([glance("a")], T0, ("gpus",)).due == []
    assert sleepers.awake([glance("a")], T0, ()).due == ["a"]


def test_room_wakes_no_more_than_it_holds(sleepers: Sleepers) -> None:
    wants = Wants(("DE",), 2, EACH)
    for name in "abc":
        sleepers.rest(glance(name), Rest(T0 + HOUR, wants), None)
    sleepers.rest(glance("wide"), Rest(T0 + HOUR, wants._replace(workers=8)), None)
    sleepers.rest(glance("time"), Rest(T0 + HOUR), None)
    assert sleepers.with_room(room(1)) == []
    assert sleepers.with_room(room(2, 3)) == ["a", "b"]
    free = room(2)
    assert sleepers.with_room(free) == ["a"]
    assert free.take("DE", 2, EACH) == "", "to ask takes nothing"
