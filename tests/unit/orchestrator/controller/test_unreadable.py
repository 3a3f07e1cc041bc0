"""One job that nobody can read, or decide for, holds up no other; and what goes wrong in a thread does not end it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from jobs.spec import InputError
from orchestrator.controller import controller as passes
from orchestrator.planner import Planner
from orchestrator.refresh import Refresher
from orchestrator.store import jobs
from orchestrator.store.schema import Job
from tests.unit.orchestrator.controller.ground import HOUR, Bench

WHY = "the stored spec of bad: gone_key: unknown key; "


def spoil(bench: Bench, **changes: Any) -> None:
    """Another lowtide wrote the job `bad`."""
    with bench.store.write() as session:
        job = session.get_one(Job, "bad")
        job.spec = {**job.spec, "gone_key": 1, **changes}


def wish(bench: Bench, wanted: str) -> None:
    with bench.store.write() as session:
        jobs.wish(session, session.get_one(Job, "bad"), wanted, bench.now)


def test_a_spec_is_read_through_one_door_that_names_the_job(bench: Bench) -> None:
    bench.submit(name="bad")
    spoil(bench)
    with pytest.raises(InputError, match=f"^{WHY}"):
        jobs.spec_of(bench.job("bad"))


@pytest.mark.parametrize("carbon", [{"policy": "now"}, None, "none"])
def test_a_job_that_cannot_be_read_waits_with_its_reason_and_others_go_on(bench: Bench, carbon: Any) -> None:
    bench.submit(name="bad", carbon={"policy": "now", "budget": "5 kg"}, priority=5)
    spoil(bench, **({} if isinstance(carbon, dict) else {"carbon": carbon}))
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    for _ in range(2):
        assert controller.run_pass()
    assert list(bench.cluster.orders) == ["tiny-1"]
    assert bench.job("bad").state == "waiting"
    assert bench.job("bad").reason.startswith("the stored spec of bad: ")
    with bench.store.read() as session:
        events = [event.text for event in jobs.history(session, "bad")]
    assert len(events) == 2, "it is said once"


def test_it_can_be_cancelled(bench: Bench) -> None:
    bench.submit(name="bad")
    spoil(bench)
    controller = bench.controller()
    controller.run_pass()
    wish(bench, "cancel")
    controller.run_pass()
    assert bench.job("bad").state == "cancelled"
    assert not controller.run_pass()


def test_it_goes_on_as_soon_as_it_can_be_read(bench: Bench) -> None:
    bench.submit(name="bad", carbon={"policy": "now"})
    whole = bench.job("bad").spec
    spoil(bench)
    controller = bench.controller()
    controller.run_pass()
    with bench.store.write() as session:
        session.get_one(Job, "bad").spec = whole
    controller.run_pass()
    assert list(bench.cluster.orders) == ["bad-1"]


def test_one_that_runs_is_renewed_no_more_and_keeps_its_last_word(bench: Bench) -> None:
    bench.submit(name="bad", carbon={"policy": "now"})
    bench.controller().run_pass()
    bench.show("bad-1", 10, 10.0)
    bench.controller().run_pass()
    spoil(bench)
    until = bench.cluster.desires["bad-1"].run_until
    bench.now += HOUR / 2
    for _ in range(2):
        bench.controller().run_pass()
    assert (bench.job("bad").state, bench.cluster.desires["bad-1"].run_until) == ("running", until)
    assert bench.job("bad").reason.startswith(WHY)
    assert any(gauge.labels.get("job") == "bad" for gauge in bench.cluster.gauges)
    bench.show("bad-1", 20, 20.0, "expired")
    for _ in range(2):
        bench.controller().run_pass()
    assert (bench.job("bad").state, bench.job("bad").step) == ("paused", 20)
    assert bench.job("bad").reason.startswith(WHY)


def test_a_bug_that_one_job_strikes_holds_up_no_other_and_is_in_the_log_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.submit(name="bad", carbon={"policy": "now"}, priority=5)
    bench.submit(carbon={"policy": "now"})
    consider = passes.consider

    def struck(look: Any, job: Job, *others: Any) -> Any:
        if job.id == "bad":
            raise KeyError("x")
        return consider(look, job, *others)

    monkeypatch.setattr(passes, "consider", struck)
    controller = bench.controller()
    for _ in range(3):
        controller.run_pass()
    assert list(bench.cluster.orders) == ["tiny-1"]
    assert bench.job("bad").reason == "nothing can be decided for it (KeyError: 'x'); the controller's log has more"
    assert [record.exc_info is not None for record in caplog.records if "KeyError" in record.message] == [True]
    monkeypatch.setattr(passes, "consider", consider)
    bench.cluster.views.pop("tiny-1")
    controller.run_pass()
    assert "bad-1" in bench.cluster.orders


def test_planning_leaves_a_job_that_cannot_be_read_out(bench: Bench) -> None:
    for name in ("bad", "one", "two"):
        bench.submit(name=name, carbon={"finish_by": "23h"})
    spoil(bench)
    planner = Planner(bench.store, bench.site, clock=lambda: bench.now)
    planner.once()
    assert set(planner._specs) == {"one", "two"}


def _planner(bench: Bench) -> tuple[Any, Callable[[], None]]:
    planner = Planner(bench.store, bench.site)
    return planner, planner.wake


def _refresher(bench: Bench) -> tuple[Any, Callable[[], None]]:
    return Refresher(bench.store, bench.site), lambda: None


@pytest.mark.parametrize("made", [_planner, _refresher])
def test_a_thread_beside_the_passes_outlives_a_bug_and_shows_it(
    bench: Bench,
    made: Callable[[Bench], tuple[Any, Callable[[], None]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    beside, wake = made(bench)
    stop, again = threading.Event(), threading.Event()
    calls = 0

    def once() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            again.set()
        raise KeyError("x")

    monkeypatch.setattr(beside, "once", once)
    with caplog.at_level(logging.ERROR):
        thread = threading.Thread(target=beside.forever, args=(stop, 0.01), daemon=True)
        thread.start()
        while not again.is_set():
            wake()
            again.wait(0.05)
        stop.set()
        wake()
        thread.join(30)
    assert not thread.is_alive()
    record = caplog.records[0]
    assert "failed (KeyError: 'x')" in record.message and record.exc_info is not None
