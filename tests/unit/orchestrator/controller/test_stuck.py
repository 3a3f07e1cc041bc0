"""Segments that hang: killed and retried, whoever makes the passes; and what only takes its time is let be."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.api import Phase, Progress, SegmentView
from orchestrator.site import Site
from orchestrator.store import forecasts, jobs
from orchestrator.store.schema import Job, Segment
from tests.unit.orchestrator.controller.ground import CLEAN, HOUR, STEPS, T0, Bench, grid
from tests.unit.orchestrator.controller.test_blind_scripts import blind

MINUTE = timedelta(minutes=1)


@pytest.fixture
def hour_long(bench: Bench) -> Bench:
    """A forecast that reaches far, and segments that end by themselves soon after a controller falls silent."""
    bench.site = Site.model_validate({**bench.site.model_dump(by_alias=True), "renew_within": "2m"})
    with bench.store.write() as session:
        forecasts.keep(session, "DE", "plan", T0, grid([CLEAN] * 72), None)
    return bench


def ticks(
    bench: Bench, length: timedelta, every: timedelta = 2 * MINUTE, see: Callable[[], None] = lambda: None
) -> None:
    """Passes as cron makes them: a new controller each time."""
    until = bench.now + length
    while bench.now < until:
        bench.now += every
        see()
        controller = bench.controller()
        controller.run_pass()
        controller.release()


def tells(bench: Bench, segment_id: str, phase: Phase, trained_steps: int = 0, trained_s: float = 0.0) -> None:
    progress = Progress(bench.now, phase, trained_steps, STEPS, 2.5, trained_steps, trained_s)
    bench.cluster.views[segment_id] = SegmentView(segment_id, "running", progress)


def begun(bench: Bench, phase: Phase, trained_steps: int = 0, trained_s: float = 0.0) -> None:
    bench.submit(carbon={"policy": "now"})
    ticks(bench, MINUTE)
    tells(bench, "tiny-1", phase, trained_steps, trained_s)
    ticks(bench, MINUTE)


def wish(bench: Bench, wanted: str) -> None:
    with bench.store.write() as session:
        jobs.wish(session, session.get_one(Job, "tiny"), wanted, bench.now)


def test_one_that_hangs_before_its_first_step_is_killed_after_an_hour_and_retried(hour_long: Bench) -> None:
    begun(hour_long, "restore")
    ticks(hour_long, 59 * MINUTE)
    assert (hour_long.cluster.kills, hour_long.job().state) == ([], "running")
    ticks(hour_long, 4 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]
    with hour_long.store.read() as session:
        first = jobs.segments_of(session, "tiny")[0]
        texts = [event.text for event in jobs.history(session, "tiny")]
    assert first.ended == "lost" and first.error is not None
    assert re.fullmatch("no further step, and no phase but 'restore', for 6[12] min; .* stuck_after", first.error)
    assert any(text.startswith("segment 1 is killed: no further step") for text in texts)
    ticks(hour_long, MINUTE)
    assert hour_long.cluster.orders["tiny-2"].reason == "retry"


def test_a_worker_that_never_says_a_word_is_not_waited_for_for_ever(hour_long: Bench) -> None:
    hour_long.submit(carbon={"policy": "now"})
    ticks(hour_long, MINUTE)
    hour_long.cluster.views["tiny-1"] = SegmentView("tiny-1", "running")
    ticks(hour_long, 66 * MINUTE)
    with hour_long.store.read() as session:
        assert (jobs.segments_of(session, "tiny")[0].error or "").startswith("its workers said nothing for 6")


def test_one_that_hangs_between_two_steps_is_killed_sooner(hour_long: Bench) -> None:
    begun(hour_long, "train", 50, 50.0)
    ticks(hour_long, 9 * MINUTE)
    assert hour_long.cluster.kills == []
    ticks(hour_long, 4 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]


def test_one_that_only_cannot_be_heard_is_let_save_and_end_by_itself(hour_long: Bench) -> None:
    hour_long.site = Site.model_validate({**hour_long.site.model_dump(by_alias=True), "renew_within": "20m"})
    begun(hour_long, "train", 50, 50.0)
    ticks(hour_long, 18 * MINUTE)
    assert hour_long.cluster.kills == []
    ticks(hour_long, 6 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]


def test_slow_steps_are_waited_for(hour_long: Bench) -> None:
    begun(hour_long, "train", 2, 2 * 60.0)
    ticks(hour_long, 19 * MINUTE)
    assert hour_long.cluster.kills == []
    ticks(hour_long, 4 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]


def test_phases_that_take_their_time_are_let_be(hour_long: Bench) -> None:
    begun(hour_long, "train", 50, 50.0)
    for phase in ("checkpoint", "evaluate", "checkpoint", "stop"):
        tells(hour_long, "tiny-1", phase, 50, 50.0)
        ticks(hour_long, 50 * MINUTE)
    tells(hour_long, "tiny-1", "train", STEPS, STEPS * 1.0)  # its last checkpoint is being written
    ticks(hour_long, 50 * MINUTE)
    assert hour_long.cluster.kills == []


def test_who_gets_on_is_never_killed(hour_long: Bench) -> None:
    begun(hour_long, "train", 1, 1.0)

    def step() -> None:
        done = int((hour_long.now - T0).total_seconds() / 60)
        tells(hour_long, "tiny-1", "train", done, done * 1.0)

    ticks(hour_long, 2 * HOUR, 3 * MINUTE, step)
    assert (hour_long.cluster.kills, hour_long.cluster.starts) == ([], 1)


def test_neither_a_clock_that_is_set_nor_a_controller_that_was_away_makes_a_segment_hang(hour_long: Bench) -> None:
    begun(hour_long, "evaluate", 50, 50.0)
    for _ in range(3):
        hour_long.now += 6 * HOUR
        ticks(hour_long, 2 * MINUTE)
        hour_long.now -= 2 * HOUR
        ticks(hour_long, 2 * MINUTE)
    assert hour_long.cluster.kills == []


def test_one_that_does_not_end_when_told_to_is_killed_and_its_job_cancelled(hour_long: Bench) -> None:
    begun(hour_long, "train", 50, 50.0)
    wish(hour_long, "cancel")
    trained = iter(range(51, 1000))

    def step() -> None:
        if "tiny-1" not in hour_long.cluster.kills:
            tells(hour_long, "tiny-1", "train", next(trained), 60.0)  # it goes on as if nobody had spoken

    ticks(hour_long, 59 * MINUTE, see=step)
    assert (hour_long.job().state, hour_long.cluster.kills) == ("pausing", [])
    ticks(hour_long, 8 * MINUTE, see=step)
    assert hour_long.cluster.kills == ["tiny-1"]
    assert hour_long.job().state == "cancelled"


def test_how_long_it_was_quiet_before_plays_no_part_in_how_long_it_may_take_to_end(hour_long: Bench) -> None:
    begun(hour_long, "restore")
    ticks(hour_long, 55 * MINUTE)
    wish(hour_long, "hold")
    ticks(hour_long, 55 * MINUTE)
    assert (hour_long.job().state, hour_long.cluster.kills) == ("pausing", [])


def test_a_script_that_never_tells_a_step_is_let_be_until_it_is_to_end(hour_long: Bench) -> None:
    blind(hour_long, policy="now")
    ticks(hour_long, MINUTE)
    hour_long.cluster.views["tiny-1"] = SegmentView("tiny-1", "running", Progress(T0, "train", 0, 0, None, 0, 0.0))
    ticks(hour_long, 2 * HOUR)
    assert hour_long.cluster.kills == []
    wish(hour_long, "hold")
    ticks(hour_long, 66 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]
    assert hour_long.job().state == "paused"


def test_what_is_killed_and_shows_all_the_same_is_lost_in_the_end(hour_long: Bench) -> None:
    begun(hour_long, "restore")
    hour_long.cluster.undying = True
    ticks(hour_long, 70 * MINUTE)
    assert set(hour_long.cluster.kills) == {"tiny-1"} and len(hour_long.cluster.kills) > 2, "each pass tries again"
    assert (hour_long.job().state, hour_long.job().reason[:16]) == ("pausing", "is being killed:")
    ticks(hour_long, 10 * MINUTE)
    with hour_long.store.read() as session:
        first = jobs.segments_of(session, "tiny")[0]
    assert first.ended == "lost" and first.error is not None and first.error.endswith("; nor does it end")
    assert "tiny-2" in hour_long.cluster.orders


def test_one_that_dies_of_the_kill_with_a_traceback_has_not_failed_by_its_own_fault(hour_long: Bench) -> None:
    begun(hour_long, "restore")
    hour_long.cluster.undying = True
    ticks(hour_long, 62 * MINUTE)
    hour_long.show("tiny-1", 0, 0.0, "failed", "Traceback (most recent call last):\nKeyboardInterrupt")
    ticks(hour_long, MINUTE)
    assert hour_long.job().reason.startswith("lost its segment (no further step, and no phase but 'restore', for 6")
    with hour_long.store.read() as session:
        error = jobs.segments_of(session, "tiny")[0].error
    assert error is not None and "KeyboardInterrupt" in error


def test_the_site_says_how_patient_its_controller_is(hour_long: Bench) -> None:
    hour_long.site = Site.model_validate({**hour_long.site.model_dump(by_alias=True), "stuck_after": "3h"})
    begun(hour_long, "restore")
    ticks(hour_long, 170 * MINUTE)
    assert hour_long.cluster.kills == []
    ticks(hour_long, 15 * MINUTE)
    assert hour_long.cluster.kills == ["tiny-1"]


def test_a_segment_that_holds_its_workers_takes_no_room_from_others(hour_long: Bench) -> None:
    (node,) = hour_long.cluster.free
    hour_long.cluster.free = [replace(node, free_gpus=4.0)]
    begun(hour_long, "start")
    hour_long.cluster.free = [replace(node, free_gpus=2.0)]  # its two are shown as taken, long before its first step
    hour_long.submit(name="other", carbon={"policy": "now"})
    ticks(hour_long, MINUTE)
    assert "other-1" in hour_long.cluster.orders


def test_a_segment_whose_workers_are_not_there_yet_keeps_its_room(hour_long: Bench) -> None:
    (node,) = hour_long.cluster.free
    hour_long.cluster.free = [replace(node, free_gpus=2.0)]
    hour_long.submit(carbon={"policy": "now"})
    ticks(hour_long, MINUTE)
    hour_long.submit(name="other", carbon={"policy": "now"})
    hour_long.cluster.views["tiny-1"] = SegmentView("tiny-1", "pending")
    ticks(hour_long, MINUTE)
    assert (hour_long.cluster.starts, hour_long.job("other").state) == (1, "waiting")
    with hour_long.store.read() as session:
        assert not session.get_one(Segment, "tiny-1").holds_room
