"""Passes on a stand-in cluster: idempotent, level-triggered, and finished by the next one when they die half-way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cluster.api import Desire, Ended, MeterRow, Node, Phase, Progress, SegmentResult, SegmentView
from jobs.spec import JobSpec, StaleEpoch, Unavailable
from orchestrator.controller import Controller
from orchestrator.controller.settle import MAX_RETRIES
from orchestrator.signal.forecast import Forecast, Point, Share
from orchestrator.site import Site, resolve_site
from orchestrator.store import Store, facts, forecasts, jobs, lease
from orchestrator.store.schema import Job, Segment
from tests.standin import StandInCluster

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
CLEAN, DIRTY = 100.0, 500.0
STEPS = 7000
"""At 1 step/s a little less than the two clean hours, so that a start of a minute fits into the second."""


@dataclass
class Bench:
    """One site with its store, a stand-in cluster and a clock that the test turns."""

    site: Site
    store: Store
    cluster: StandInCluster
    now: datetime = T0

    def controller(self, holder: str = "here:1:0") -> Controller:
        return Controller(self.store, self.site, lambda: self.cluster, clock=lambda: self.now, holder=holder)

    def submit(self, **changes: Any) -> str:
        document: dict[str, Any] = {
            "name": "tiny",
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["x.txt"]},
            "training": {"steps": STEPS, "batch_size": 8},
            "workers": {"count": 2, "gpus": 1},
            "carbon": {"finish_by": "23h"},
        }
        with self.store.write() as session:
            return jobs.submit(session, JobSpec.model_validate({**document, **changes}), self.now).id

    def job(self, job_id: str = "tiny") -> Job:
        with self.store.read() as session:
            return session.get_one(Job, job_id)

    def show(self, segment_id: str, step: int, trained_s: float, ended: Ended | None = None, error: str = "") -> None:
        """The cluster shows this of a segment from now on."""
        with self.store.read() as session:
            segment = next(s for s in jobs.segments_of(session, segment_id.rsplit("-", 1)[0]) if s.id == segment_id)
        progress = Progress(self.now, "train", step, STEPS, 2.5, step - segment.start_step, trained_s)
        result = None
        if ended is not None:
            parts = {"step_end": 0.5, "checkpoint": 1.0, "publish": 0.5}
            result = SegmentResult(self.now, ended, step, STEPS, {"loss": 2.5}, parts, 1000, error or None)
        status = "running" if ended is None else "ended"
        self.cluster.views[segment_id] = SegmentView(segment_id, status, progress, result)

    def meter(self, segment_id: str, start: datetime, watts: float = 300.0, phase: Phase = "train") -> None:
        """The meters hold an hour of this segment's two workers."""
        for rank in (0, 1):
            row = MeterRow(
                "boot", f"GPU-{rank}", int(start.timestamp()), "node", start, start + HOUR, watts * 3600,
                "nvml-counter", phase, segment_id.rsplit("-", 1)[0], segment_id, rank, f"GPU-{rank}",
            )  # fmt: skip
            self.cluster.rows.append(row)


def grid(values: list[float]) -> Forecast:
    points = tuple(Point(T0 + n * HOUR, T0 + (n + 1) * HOUR, value) for n, value in enumerate(values))
    return Forecast("DE", "electricity_maps", "average", points, fetched_at=T0)


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    zones = {"DE": {"provider": "demo", "gpus": 4}}
    site = resolve_site({"zones": zones, "slot": "1h", "renew_within": "30m", "database": database}, tmp_path, "test")
    store = Store(site.store_url)
    with store.write() as session:
        forecasts.keep(session, "DE", "plan", T0, grid([CLEAN, DIRTY, DIRTY, DIRTY, CLEAN] + [DIRTY] * 20), None)
    yield Bench(site, store, StandInCluster(free=[Node("n", "node", "DE", 4, 16, 4, 16)]))
    store.close()


def measured(bench: Bench) -> None:
    """An earlier job of the same kind has run for an hour: 1 step/s at 600 W, and a start costs a minute."""
    job_id = bench.submit(name="earlier", training={"steps": 3600, "batch_size": 8}, carbon={"policy": "now"})
    bench.controller().run_pass()
    bench.cluster.views[f"{job_id}-1"] = SegmentView(f"{job_id}-1", "running")
    bench.now = T0 + timedelta(minutes=1)
    progress = Progress(bench.now, "train", 1, 3600, 2.5, 1, 0.0)
    bench.cluster.views[f"{job_id}-1"] = SegmentView(f"{job_id}-1", "running", progress)
    bench.controller().run_pass()
    bench.meter(f"{job_id}-1", T0)
    bench.show(f"{job_id}-1", 3600, 3600.0, "done")
    bench.controller().run_pass()
    assert bench.job(job_id).state == "done"
    bench.now = T0


def test_a_pass_run_twice_does_nothing_new(bench: Bench) -> None:
    bench.submit()
    controller = bench.controller()
    for _ in range(3):
        assert controller.run_pass()
    assert bench.cluster.starts == 1
    with bench.store.read() as session:
        assert len(jobs.segments_of(session, "tiny")) == 1


def test_an_unmeasured_job_is_calibrated_at_once(bench: Bench) -> None:
    bench.submit()
    bench.controller().run_pass()
    assert bench.cluster.orders["tiny-1"].reason == "calibrate"
    assert bench.job().plan is not None
    assert bench.job().plan["basis"] == "assumed"  # type: ignore[index]


def test_a_pass_that_died_before_it_acted_is_finished_by_the_next(bench: Bench) -> None:
    bench.submit()
    bench.cluster.down = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.cluster, "nodes", lambda: bench.cluster.free)
        bench.controller().run_pass()
    assert bench.cluster.starts == 0
    bench.cluster.down = False
    bench.controller().run_pass()
    assert list(bench.cluster.orders) == ["tiny-1"]


def followed(bench: Bench, hours: float = 8) -> tuple[list[str], list[Segment]]:
    """The states after each pass of the job, until it ends or so long; and its segments."""
    controller, controlled = bench.controller(), []
    while bench.now < T0 + hours * HOUR and bench.job().state not in jobs.ENDED_STATES:
        controller.run_pass()
        controlled.append(bench.job().state)
        with bench.store.read() as session:
            running = jobs.running_segment(session, "tiny")
        bench.now += timedelta(minutes=10)
        if running is not None:
            desire = bench.cluster.desires[running.id]
            trained_s = (min(bench.now, desire.run_until) - running.ordered_at).total_seconds() - 60
            step = running.start_step + max(0, int(trained_s))
            stops = "done" if step >= STEPS else desire.ends_as if bench.now >= desire.run_until else None
            bench.show(running.id, min(step, STEPS), max(trained_s, 0.1), stops)
    with bench.store.read() as session:
        return controlled, list(jobs.segments_of(session, "tiny"))


def test_a_measured_job_runs_in_the_clean_hours_and_pauses_between(bench: Bench) -> None:
    measured(bench)
    bench.submit()
    controlled, segments = followed(bench)
    assert [segment.reason for segment in segments] == ["start", "resume"]
    assert [segment.ended for segment in segments] == ["paused", "done"]
    assert segments[0].ended_at is not None and segments[0].ended_at <= T0 + HOUR + timedelta(minutes=10)
    assert segments[1].ordered_at >= T0 + 4 * HOUR - timedelta(minutes=1)
    assert "paused" in controlled


def test_a_job_that_may_not_pause_runs_in_one_piece(bench: Bench) -> None:
    measured(bench)
    bench.submit(carbon={"finish_by": "23h", "max_pauses": 0})
    assert [segment.ended for segment in followed(bench, 24)[1]] == ["done"]


def test_a_segment_is_not_stopped_before_its_least_time(bench: Bench) -> None:
    measured(bench)
    bench.submit(carbon={"finish_by": "23h", "min_run": "90m"})
    lengths = [
        segment.ended_at - segment.ordered_at for segment in followed(bench, 24)[1] if segment.ended_at is not None
    ]
    assert lengths and min(lengths[:-1], default=2 * HOUR) >= timedelta(minutes=90)


def test_a_job_whose_budget_is_spent_is_held_and_says_what_it_would_take(bench: Bench) -> None:
    measured(bench)
    bench.submit(carbon={"finish_by": "23h", "budget": "1 g"})
    assert set(followed(bench, 1)[0]) == {"waiting"}
    assert bench.job().reason.startswith("held by carbon.budget: the rest would emit ")
    with bench.store.write() as session:
        jobs.wish(session, session.get_one(Job, "tiny"), "cancel", bench.now)
    bench.controller().run_pass()
    assert bench.job().state == "cancelled"


def test_what_a_job_has_emitted_counts_toward_its_budget(bench: Bench) -> None:
    measured(bench)
    bench.submit(carbon={"policy": "now", "finish_by": "23h", "budget": "5 kg"})
    bench.controller().run_pass()
    bench.meter("tiny-1", T0 + timedelta(seconds=1), watts=1e6)  # two workers' MWh: more than the budget
    bench.now += timedelta(minutes=10)
    bench.show("tiny-1", 540, 540.0)
    bench.controller().run_pass()
    assert bench.job().state == "pausing"
    assert bench.job().reason.endswith("0 g are left")


def test_an_observing_job_runs_at_once_and_keeps_what_a_plan_would_have_saved(bench: Bench) -> None:
    measured(bench)
    bench.submit(carbon={"policy": "observe", "finish_by": "23h"})
    bench.controller().run_pass()
    first = bench.job().plan
    assert first is not None and first["observed"]["saved_percent"] > 10
    assert "; a plan would save " in bench.job().reason
    _, segments = followed(bench)
    assert [segment.ended for segment in segments] == ["done"]
    kept = bench.job().plan
    assert kept is not None and (kept["observed"], kept["slots"]) == (first["observed"], [])


def test_a_running_segment_is_renewed_before_it_has_less_than_four_fifths_of_its_time(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    told = []
    for minutes in (0, 5, 10, 15):
        bench.now = T0 + timedelta(minutes=minutes)
        controller.run_pass()
        bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "running")
        told.append(bench.cluster.desires["tiny-1"].run_until - T0)
    assert told == [timedelta(minutes=minutes) for minutes in (30, 35, 35, 45)]


def test_a_renewal_that_did_not_reach_the_segment_is_sent_again_in_time(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "running")
    controller.run_pass()
    told = bench.cluster.desires["tiny-1"].run_until
    for minutes in range(7, 30, 2):
        bench.now = T0 + timedelta(minutes=minutes)
        with pytest.MonkeyPatch.context() as patch:
            if minutes == 7:
                patch.setattr(bench.cluster, "desire", _refuse)
            controller.run_pass()
        assert bench.cluster.desires["tiny-1"].run_until > bench.now
    assert bench.cluster.desires["tiny-1"].run_until > told


def _refuse(segment_id: str, desire: Desire) -> None:
    raise Unavailable("the control actor does not answer")


def test_pause_resume_and_cancel_are_obeyed(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 100, 100.0)
    _wish(bench, "hold")
    controller.run_pass()
    assert bench.cluster.desires["tiny-1"].run_until == T0
    assert bench.job().state == "pausing"
    bench.show("tiny-1", 101, 101.0, "paused")
    controller.run_pass()
    assert bench.job().state == "paused"
    _wish(bench, "run")
    controller.run_pass()
    assert bench.cluster.orders["tiny-2"].reason == "resume"
    _wish(bench, "cancel")
    bench.show("tiny-2", 101, 0.0)
    controller.run_pass()
    bench.show("tiny-2", 102, 1.0, "paused")
    controller.run_pass()
    assert bench.job().state == "cancelled"
    assert not controller.run_pass()


def _wish(bench: Bench, wanted: str) -> None:
    with bench.store.write() as session:
        jobs.wish(session, session.get_one(Job, "tiny"), wanted, bench.now)


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


def test_what_does_not_fit_waits_with_its_reason(bench: Bench) -> None:
    bench.cluster.free = [replace(bench.cluster.free[0], free_gpus=1)]
    bench.submit(carbon={"policy": "now"})
    bench.controller().run_pass()
    assert bench.job().state == "waiting"
    assert bench.job().reason == "waits for room in DE: 2 workers of 1 GPU needed, 1 fit now"
    assert bench.cluster.starts == 0


def test_two_jobs_do_not_take_the_same_gpus_and_the_more_important_goes_first(bench: Bench) -> None:
    bench.cluster.free = [replace(bench.cluster.free[0], free_gpus=2)]
    bench.submit(carbon={"policy": "now"})
    urgent = bench.submit(name="urgent", priority=5, carbon={"policy": "now"})
    bench.controller().run_pass()
    assert list(bench.cluster.orders) == [f"{urgent}-1"]
    assert "waits for room" in bench.job().reason


def test_without_a_forecast_a_job_waits_and_says_so(bench: Bench, tmp_path: Path) -> None:
    site = resolve_site({"zones": {"FR": {"provider": "demo"}}, "state": "other"}, tmp_path, "test")
    other = Bench(site, Store(site.store_url), bench.cluster)
    other.submit()
    other.controller().run_pass()
    assert other.job().reason == "waits for a forecast of FR: none has come yet"
    other.store.close()


def test_a_job_waits_for_the_renewable_share_that_it_asks_for(bench: Bench) -> None:
    measured(bench)
    shares = tuple(Share(T0 + n * HOUR, T0 + (n + 1) * HOUR, 75.0 if n == 3 else 41.0) for n in range(24))
    with bench.store.write() as session:
        shared = replace(grid([CLEAN] + [DIRTY] * 23), renewable=shares)
        forecasts.keep(session, "DE", "plan", T0, shared, None)
    bench.submit(training={"steps": 1800, "batch_size": 8}, carbon={"finish_by": "23h", "min_renewable_percent": 60})
    bench.controller().run_pass()
    assert bench.job().reason == "waits until 15:00Z: renewable share 41 % is below 60 %"
    bench.now = T0 + 3 * HOUR
    bench.controller().run_pass()
    assert bench.job().state == "running"


def test_a_job_says_that_it_is_planned_by_a_stale_forecast(bench: Bench) -> None:
    measured(bench)
    bench.submit()
    bench.now = T0 + HOUR
    bench.controller().run_pass()
    assert "stale" not in bench.job().reason
    with bench.store.write() as session:
        forecasts.keep(session, "DE", "plan", bench.now, None, "electricity_maps: zone DE: no answer")
    bench.controller().run_pass()
    assert bench.job().reason.endswith("; by a stale forecast, fetched 12:00Z")


def test_a_window_bounds_what_runs_in_it(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    closes = T0 + timedelta(minutes=20)
    controller.run_pass(closes)
    desire = bench.cluster.desires["tiny-1"]
    assert desire.ends_as == "window"
    assert T0 < desire.run_until < closes
    bench.show("tiny-1", 50, 5.0)
    bench.now = closes
    controller.run_pass(closes)
    assert bench.cluster.desires["tiny-1"].run_until <= closes
    bench.show("tiny-1", 51, 6.0, "window")
    controller.run_pass(closes)
    assert bench.job().state == "paused"
    controller.run_pass(closes)
    assert bench.cluster.starts == 1


def test_a_segment_ends_with_its_window_also_when_no_plan_can_be_made(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.show("tiny-1", 50, 5.0)
    controller.run_pass(T0 - HOUR)
    assert (bench.job().state, bench.job().reason) == ("pausing", "its window has closed")


def test_a_second_controller_is_kept_out_and_a_stale_one_refused(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    first, second = bench.controller("a:1:0"), bench.controller("b:2:0")
    first.run_pass()
    with pytest.raises(lease.Held):
        second.run_pass()
    bench.now += timedelta(seconds=lease.LEASE_S + 1)
    second.run_pass()
    bench.show("tiny-1", 50, 5.0)
    second.run_pass()
    order = bench.cluster.orders["tiny-1"]
    with pytest.raises(StaleEpoch):
        bench.cluster.desire("tiny-1", order.desire)


def test_the_metrics_are_those_of_the_contract(bench: Bench) -> None:
    bench.submit(carbon={"policy": "now"})
    controller = bench.controller()
    controller.run_pass()
    bench.meter("tiny-1", T0)
    bench.now = T0 + HOUR
    bench.show("tiny-1", 3000, 3600.0)
    controller.run_pass()
    found = {(gauge.name, gauge.labels.get("rank")): gauge.value for gauge in bench.cluster.gauges}
    assert found["lowtide_job_energy_j_total", None] == pytest.approx(2 * 300 * 3600)
    assert found["lowtide_job_power_w", None] == pytest.approx(600)
    assert found["lowtide_worker_power_w", "1"] == pytest.approx(300)
    assert found["lowtide_job_emissions_g_total", None] == pytest.approx(0.6 * CLEAN)
    assert found["lowtide_job_step", None] == 3000
    assert found["lowtide_job_workers", None] == 2
    assert found["lowtide_grid_intensity_g_per_kwh", None] == DIRTY
    assert found["lowtide_forecast_age_s", None] == 3600
