"""Passes on a stand-in cluster: idempotent, level-triggered, and finished by the next one when they die half-way."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cluster.api import Desire, Node, SegmentView
from jobs.spec import StaleEpoch, Unavailable
from orchestrator.controller.effort import Effort
from orchestrator.signal.forecast import Share
from orchestrator.site import resolve_site
from orchestrator.store import Store, forecasts, jobs, lease
from orchestrator.store.schema import Job, Segment
from tests.unit.orchestrator.controller.ground import CLEAN, DIRTY, HOUR, STEPS, T0, Bench, grid, measured


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


def test_running_jobs_are_planned_anew_in_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(bench)
    monkeypatch.setattr(Effort, "spent", property(lambda effort: effort.planned > 0))
    bench.cluster.free = [Node("n", "n", "DE", 8, 16, 8, 16)]
    long = {"steps": 10 * 3600, "batch_size": 8}
    ids = {bench.submit(name=f"job-{n}", training=long, carbon={"policy": "now"}) for n in range(4)}
    controller = bench.controller()
    for _ in ids:
        controller.run_pass()
    bench.cluster.views |= {f"{job_id}-1": SegmentView(f"{job_id}-1", "running") for job_id in ids}
    planned_anew = []
    for _ in ids:
        before = {job_id: bench.job(job_id).planned_for for job_id in ids}
        bench.now += HOUR
        controller.run_pass()
        planned_anew.append([job_id for job_id in ids if bench.job(job_id).planned_for != before[job_id]])
    assert sorted(planned_anew) == [[job_id] for job_id in sorted(ids)], "one in each slot, and nobody twice"


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
    assert bench.cluster.orders[f"{urgent}-1"].nodes == ("n",)
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
