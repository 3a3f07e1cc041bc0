"""What goes wrong between two passes: lost and failed segments, a controller that stalled, a cluster that is silent."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from cluster.api import Progress, SegmentResult, SegmentView
from jobs.spec import iso
from orchestrator.controller.learn import learn
from orchestrator.controller.settle import MAX_RETRIES, retry_at
from orchestrator.store import facts, jobs, lease
from orchestrator.store.schema import Job
from tests.unit.orchestrator.controller.ground import STEPS, T0, Bench


def test_a_lost_segment_is_retried_after_a_while_and_not_for_ever(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    for attempt in range(1, MAX_RETRIES + 2):
        bench.show(f"tiny-{attempt}", 50, 5.0)
        controller.run_pass()
        bench.cluster.views[f"tiny-{attempt}"] = SegmentView(f"tiny-{attempt}", "lost", message="its node is gone")
        controller.run_pass()
        if bench.job().state == "failed":
            break
        assert bench.job().state in ("waiting", "paused")
        bench.now += timedelta(hours=1)
        controller.run_pass()
        assert bench.cluster.orders[f"tiny-{attempt + 1}"].reason == "retry"
    assert "lost 6 segments in a row, the last: its node is gone" in bench.job().reason


def test_a_job_that_gets_on_between_its_losses_is_retried_for_ever_and_says_why(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    for attempt in range(1, MAX_RETRIES + 4):
        restored, reached = 40 * (attempt - 1), 40 * attempt + 10
        progress = Progress(bench.now, "train", reached, STEPS, 2.5, reached - restored, 5.0)
        bench.cluster.views[f"tiny-{attempt}"] = SegmentView(f"tiny-{attempt}", "running", progress)
        controller.run_pass()
        assert bench.job().step == reached
        bench.cluster.views[f"tiny-{attempt}"] = SegmentView(f"tiny-{attempt}", "lost", message="its node is gone")
        controller.run_pass()
        assert bench.job().step == restored, "what was not saved is not done"
        again = bench.job().not_before
        assert bench.job().reason.startswith("lost its segment (its node is gone); retry 1 of 5, not before 2026-")
        assert again is not None and again - bench.now == timedelta(seconds=10)
        bench.now = again
        controller.run_pass()


@pytest.mark.parametrize("asleep", [True, False])
def test_a_clock_that_is_set_back_makes_no_back_off_longer_than_it_is(bench: Bench, asleep: bool) -> None:
    bench.now += timedelta(hours=4)  # so that there are forecasts for where it is set to
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "running")
    controller.run_pass()
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "lost", message="gone")
    controller.run_pass()
    controller.run_pass()
    assert bench.job().not_before == bench.now + timedelta(seconds=10)
    bench.now -= timedelta(hours=3)
    set_back_at = bench.now
    controller = controller if asleep else bench.controller()  # `tick` is a new process each minute
    controller.run_pass()
    assert bench.job().not_before == set_back_at + timedelta(seconds=10)
    assert bench.job().reason.endswith(f"retry 1 of 5, not before {iso(set_back_at + timedelta(seconds=10))}")
    bench.now += timedelta(seconds=9)
    controller.run_pass()
    assert bench.job().not_before == set_back_at + timedelta(seconds=10), "it is set once, and not put off each pass"
    assert "tiny-2" not in bench.cluster.orders
    bench.now += timedelta(seconds=1)
    controller.run_pass()
    assert bench.cluster.orders["tiny-2"].reason == "retry"


def test_a_segment_that_waits_for_its_workers_place_says_so_and_is_charged_no_start_for_it(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    said = "segment tiny-1 waits for its workers' place since 2026-03-01T12:00:00Z: others took the room"
    waiting = Progress(bench.now, "start", 0, 0, None, 0, 0.0, note=said)
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "running", waiting)
    controller.run_pass()
    assert bench.job().state == "running" and bench.job().reason.endswith(f"; {said}")
    assert bench.job().step == 0
    bench.now += timedelta(seconds=200)
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "running", replace(waiting, note=""))
    controller.run_pass()
    assert "waits" not in bench.job().reason
    bench.now += timedelta(seconds=40)
    bench.show("tiny-1", 1, 1.0)
    controller.run_pass()
    parts_s = {"place": 200.0, "workers": 39.0, "step_end": 0.5}
    result = SegmentResult(bench.now, "done", STEPS, STEPS, {}, parts_s, 1000)
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "ended", None, result)
    controller.run_pass()
    with bench.store.read() as session:
        learned = learn(session, bench.job().likeness)
    assert learned.pause.resume_s == pytest.approx(39.0 + 0.5)


def test_what_the_user_asked_for_is_no_back_off(bench: Bench) -> None:
    tomorrow = bench.now + timedelta(days=1)
    bench.submit(carbon={"policy": "now"}, not_before=tomorrow.isoformat())
    bench.controller().run_pass()
    bench.now -= timedelta(hours=3)
    bench.controller().run_pass()
    assert bench.job().not_before == tomorrow
    assert retry_at(Job(not_before=tomorrow, retries=1), tomorrow, bench.now) == tomorrow


def test_a_segment_that_is_lost_after_its_last_step_is_finished_by_another(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", STEPS, 50.0)
    controller.run_pass()
    bench.show("tiny-1", STEPS, 50.0, "lost", "its driver was killed")
    controller.run_pass()
    assert bench.job().step == 0
    bench.now += timedelta(seconds=10)
    controller.run_pass()
    assert bench.cluster.orders["tiny-2"].reason == "retry"


def test_retries_that_get_nowhere_wait_longer_each_time(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    waits_s = []
    for attempt in range(1, MAX_RETRIES + 1):
        bench.cluster.views[f"tiny-{attempt}"] = SegmentView(f"tiny-{attempt}", "running")
        controller.run_pass()
        bench.cluster.views[f"tiny-{attempt}"] = SegmentView(f"tiny-{attempt}", "lost", message="gone")
        controller.run_pass()
        until = bench.job().not_before
        assert until is not None
        waits_s.append((until - bench.now).total_seconds())
        bench.now = until
        controller.run_pass()
    assert waits_s == [10, 20, 40, 80, 160]


def test_a_checkpoint_older_than_was_known_sets_the_job_back(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 100, 5.0, "paused")
    controller.run_pass()
    controller.run_pass()
    assert bench.job().step == 100
    progress = Progress(bench.now, "train", 65, STEPS, 2.5, 5, 0.5)  # the newest checkpoint was torn
    bench.cluster.views["tiny-2"] = SegmentView("tiny-2", "running", progress)
    controller.run_pass()
    assert bench.job().step == 65


def test_a_preempted_segment_goes_on_at_once_and_its_history_says_why(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now", "max_pauses": 0})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 50, 5.0, "moved")
    view = bench.cluster.views["tiny-1"]
    bench.cluster.views["tiny-1"] = replace(view, message="node 4fd1 is drained by 2026-03-01T12:00:00Z")
    controller.run_pass()
    order = bench.cluster.orders["tiny-2"]
    assert (order.reason, bench.job().state) == ("resume", "running")
    with bench.store.read() as session:
        texts = [event.text for event in jobs.history(session, "tiny")]
    assert any("ended: moved at step 50 (node 4fd1 is drained by" in text for text in texts)


def test_a_controller_that_stalled_in_the_middle_of_a_pass_writes_nothing_when_it_wakes(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    stalled = bench.controller("one:1:0")
    deciding = stalled._decide

    def stall(*given: Any) -> Any:
        bench.now += timedelta(minutes=5)
        assert bench.controller("two:2:0").run_pass()
        return deciding(*given)

    stalled._decide = stall  # type: ignore[method-assign]
    with pytest.raises(lease.Held, match="two:2:0"):
        stalled.run_pass()
    with bench.store.read() as session:
        assert len(jobs.segments_of(session, "tiny")) == 1
    assert bench.cluster.starts == 1


def test_a_job_that_fails_by_its_own_fault_fails_once_with_the_cause(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 50, 5.0, "failed", "Traceback (most recent call last):\n  ...\nValueError: the loss is nan\n")
    controller.run_pass()
    assert (bench.job().state, bench.job().reason) == ("failed", "ValueError: the loss is nan")
    assert not controller.run_pass()


def test_rows_are_taken_once_whatever_is_sent_again(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.meter("tiny-1", T0)
    sent_again = list(bench.cluster.rows)
    bench.show("tiny-1", 50, 5.0)
    controller.run_pass()
    assert bench.cluster.rows == []
    bench.cluster.rows = sent_again
    controller.run_pass()
    with bench.store.read() as session:
        assert sum(row.energy_j or 0 for row in facts.rows_of(session, "tiny")) == 2 * 300 * 3600


def test_a_cluster_that_does_not_answer_is_said_and_nothing_is_lost(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 50, 5.0)
    controller.run_pass()
    bench.cluster.down = True
    controller.run_pass()
    assert (bench.job().state, bench.job().reason) == ("running", "Ray does not answer")
    bench.cluster.down = False
    controller.run_pass()
    assert bench.job().reason != "Ray does not answer"
    assert bench.cluster.starts == 1
