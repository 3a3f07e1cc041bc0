"""A job of several widths on a stand-in cluster: measured at its ends, then run at the width that the plan chooses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cluster.api import MeterRow, Node, Progress, SegmentResult, SegmentView
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.site import resolve_site
from orchestrator.store import Store, forecasts, jobs
from tests.standin import StandInCluster
from tests.unit.orchestrator.controller.ground import HOUR, T0, Bench

STEP_W = {1: (1.0, 100.0), 2: (1.8, 220.0), 4: (3.2, 400.0)}
"""Steps a second and watts of all workers together, by width."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    zones = {"DE": {"provider": "demo"}}
    site = resolve_site({"zones": zones, "slot": "1h", "renew_within": "30m"}, tmp_path, "test")
    store = Store(site.store_url)
    with store.write() as session:
        points = tuple(Point(T0 + n * HOUR, T0 + (n + 1) * HOUR, 100.0) for n in range(24))
        forecast = Forecast("DE", "electricity_maps", "average", points, fetched_at=T0)
        forecasts.keep(session, "DE", "plan", T0, forecast, None)
    yield Bench(site, store, StandInCluster(free=[node(4)]))
    store.close()


def node(free: int) -> Node:
    return Node("n", "node", "DE", 4, 16, free, 16)


def runs(bench: Bench, segment_id: str, minutes: int) -> None:
    """The segment trains for so long at the speed and watts of its width, and a pass sees it."""
    order = bench.cluster.orders[segment_id]
    steps_per_s, watts = STEP_W[order.workers]
    if order.power_limit_w is not None:
        steps_per_s, watts = steps_per_s * (order.power_limit_w / 400) ** 0.3, watts * order.power_limit_w / 400
    start, bench.now = bench.now, bench.now + timedelta(minutes=minutes)
    length_s = 60.0 * minutes
    step = bench.job().step + round(length_s * steps_per_s)
    progress = Progress(
        bench.now,
        "train",
        step,
        36_000,
        2.5,
        round(length_s * steps_per_s),
        length_s,
        power_limit_refused=bench.cluster.refused,
    )
    bench.cluster.views[segment_id] = SegmentView(segment_id, "running", progress)
    for rank in range(order.workers):
        each_j = watts / order.workers * length_s
        key = int(start.timestamp()) * 10 + rank
        bench.cluster.rows.append(
            MeterRow("boot", f"GPU-{rank}", key, "node", start, bench.now, each_j, "nvml-counter", "train", "tiny",
                     segment_id, rank, f"GPU-{rank}")
        )  # fmt: skip
    bench.controller().run_pass()


def ends(bench: Bench, segment_id: str) -> None:
    """The segment ends as it was told to, and a pass sees it."""
    view = bench.cluster.views[segment_id]
    assert view.progress is not None
    said = SegmentResult(bench.now, bench.cluster.desires[segment_id].ends_as, view.progress.step, 36_000, {}, {}, 1)
    bench.cluster.views[segment_id] = SegmentView(segment_id, "ended", view.progress, said)
    bench.controller().run_pass()


def segments(bench: Bench) -> list[tuple[str, int, str | None]]:
    with bench.store.read() as session:
        return [(s.reason, s.workers, s.ended) for s in jobs.segments_of(session, "tiny")]


def submit(bench: Bench, finish_by: str) -> None:
    training = {"steps": 36_000, "batch_size": 8}
    bench.submit(workers={"count": "1..4", "gpus": 1}, training=training, carbon={"finish_by": finish_by})
    bench.controller().run_pass()


def told_to_end(bench: Bench, segment_id: str) -> datetime:
    return bench.cluster.desires[segment_id].run_until


def test_the_ends_are_measured_and_then_the_plan_chooses_the_width(bench: Bench) -> None:
    submit(bench, "23h")
    runs(bench, "tiny-1", 3)
    assert told_to_end(bench, "tiny-1") == bench.now
    ends(bench, "tiny-1")
    runs(bench, "tiny-2", 3)
    # One worker does the work on least energy, and there is time for it.
    assert segments(bench) == [("calibrate", 4, "resized"), ("calibrate", 1, None)]
    assert told_to_end(bench, "tiny-2") > bench.now


def test_a_deadline_that_one_worker_cannot_meet_is_met_by_more(bench: Bench) -> None:
    submit(bench, "4h")
    runs(bench, "tiny-1", 3)
    ends(bench, "tiny-1")
    runs(bench, "tiny-2", 3)
    assert told_to_end(bench, "tiny-2") == bench.now
    ends(bench, "tiny-2")
    reason, workers, ended = segments(bench)[-1]
    assert (reason, ended) == ("resize", None)
    assert workers in (2, 4)


def test_a_job_is_not_ended_to_grow_into_room_that_others_hold(bench: Bench) -> None:
    bench.cluster.free = [node(1)]
    submit(bench, "4h")
    assert bench.cluster.orders["tiny-1"].workers == 1
    bench.cluster.free = [node(0)]
    runs(bench, "tiny-1", 3)
    runs(bench, "tiny-1", 3)
    assert told_to_end(bench, "tiny-1") > bench.now
    # The others have gone: the job grows, for it is late.
    bench.cluster.free = [node(3)]
    runs(bench, "tiny-1", 3)
    assert (told_to_end(bench, "tiny-1"), bench.cluster.desires["tiny-1"].ends_as) == (bench.now, "resized")


def test_a_power_limit_that_is_refused_is_not_wished_for_again(bench: Bench) -> None:
    workers = {"count": 2, "gpus": 1, "power_limit": [300, 400]}
    bench.submit(workers=workers, training={"steps": 36_000, "batch_size": 8})
    bench.controller().run_pass()
    assert bench.cluster.orders["tiny-1"].power_limit_w == 400
    why = "rank 0: setting a limit needs root"
    bench.cluster.refused = why
    runs(bench, "tiny-1", 3)
    with bench.store.read() as session:
        assert [segment.power_limit_refused for segment in jobs.segments_of(session, "tiny")] == [why]
        assert any(why in event.text for event in jobs.history(session, "tiny"))
    # What it measured is what the GPUs do without a limit, and the job goes on so.
    assert told_to_end(bench, "tiny-1") > bench.now
    plan = bench.job().plan
    assert plan is not None and plan["basis"] == "measured"
    assert all("power_limit_w" not in slot for slot in plan["slots"])


def test_each_power_limit_is_measured_and_the_plan_takes_the_best(bench: Bench) -> None:
    workers = {"count": 2, "gpus": 1, "power_limit": [300, 400]}
    bench.submit(workers=workers, training={"steps": 36_000, "batch_size": 8})
    bench.controller().run_pass()
    runs(bench, "tiny-1", 3)
    ends(bench, "tiny-1")
    assert bench.cluster.orders["tiny-2"].power_limit_w == 300
    runs(bench, "tiny-2", 3)
    plan = bench.job().plan
    assert plan is not None
    assert {slot["power_limit_w"] for slot in plan["slots"]} == {300}
