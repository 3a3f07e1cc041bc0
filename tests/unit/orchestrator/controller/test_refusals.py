"""Starts that the cluster refuses: said, retried with back-off and not for ever, and nobody else waits for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cluster.api import SegmentOrder
from jobs.spec import Unavailable
from orchestrator.controller.settle import MAX_RETRIES, MOST_REFUSALS
from orchestrator.store import jobs
from tests.unit.orchestrator.controller.ground import T0, Bench

WHY = "working_dir: its copy /x/code.tar.gz cannot be put to /nfs/tiny (Permission denied)"
PASS = timedelta(seconds=15)


def test_a_refused_start_says_why_and_is_lost_after_a_few_tries(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    bench.cluster.refuses["tiny"] = WHY
    controller = bench.controller()
    for tried in range(1, MOST_REFUSALS):
        controller.run_pass()
        assert bench.job().reason == f"cannot be started: {WHY}; tried {tried} of {MOST_REFUSALS} times"
        bench.now += PASS
    controller.run_pass()
    assert (bench.job().state, bench.job().retries) == ("waiting", 1)
    assert bench.job().reason.startswith(f"lost its segment (cannot be started: {WHY}); retry 1 of 5")
    bench.cluster.refuses.clear()
    bench.now += PASS
    controller.run_pass()
    assert bench.cluster.orders["tiny-2"].reason == "retry"


def test_it_is_not_retried_for_ever(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    bench.cluster.refuses["tiny"] = WHY
    controller = bench.controller()
    while controller.run_pass():
        bench.now += timedelta(minutes=1)
        assert bench.now < T0 + timedelta(hours=1)
    assert bench.job().state == "failed"
    assert bench.job().reason == f"lost {MAX_RETRIES + 1} segments in a row, the last: cannot be started: {WHY}"
    with bench.store.read() as session:
        assert len(jobs.segments_of(session, "tiny")) == MAX_RETRIES + 1


def test_its_room_is_others_while_it_waits_and_the_attachment_stays(bench: Bench) -> None:
    bench.cluster.free = [replace(bench.cluster.free[0], free_gpus=2.0)]
    bench.submit(carbon={"policy": "now"})
    bench.cluster.refuses["tiny"] = WHY
    attached = 0
    controller = bench.controller()

    def attach() -> object:
        nonlocal attached
        attached += 1
        return bench.cluster

    controller._reach._attach = attach  # type: ignore[assignment]
    for _ in range(MOST_REFUSALS):
        controller.run_pass()
        bench.now += PASS / 3
    bench.submit(name="other", carbon={"policy": "now"})
    controller.run_pass()
    assert (list(bench.cluster.orders), attached) == (["other-1"], 1)


def test_one_that_is_cancelled_while_it_is_refused_ends(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    bench.cluster.refuses["tiny"] = WHY
    controller = bench.controller()
    controller.run_pass()
    with bench.store.write() as session:
        jobs.wish(session, jobs.find(session, "tiny"), "cancel", bench.now)
    for _ in range(2):
        controller.run_pass()
    assert bench.job().state == "cancelled"


def test_a_cluster_that_does_not_answer_costs_no_retry(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    with monkeypatch.context() as patch:
        patch.setattr(bench.cluster, "nodes", lambda: bench.cluster.free)
        bench.cluster.down = True
        controller.run_pass()
        assert bench.job().reason == "cannot be started yet: Ray does not answer"
        for _ in range(2 * MOST_REFUSALS):
            bench.now += PASS
            controller.run_pass()
    bench.cluster.down = False
    controller.run_pass()
    assert (list(bench.cluster.orders), bench.job().retries) == (["tiny-1"], 0)


def test_a_cluster_that_answers_to_all_but_one_start_refuses_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(carbon={"policy": "now"})

    def silent(order: SegmentOrder) -> None:
        raise Unavailable("the disk of its working_dir has not answered for 60 s")

    monkeypatch.setattr(bench.cluster, "start", silent)
    controller = bench.controller()
    for _ in range(MOST_REFUSALS):
        controller.run_pass()
        bench.now += PASS
    assert bench.job().reason.startswith("lost its segment (cannot be started: the disk of its working_dir")
