"""Jobs that want more than there is, planned together beside the passes, and passes that act on it.
In: a site with few GPUs on a stand-in cluster. Out: pass or fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cluster.api import MeterRow, Node, Progress, SegmentResult, SegmentView
from jobs.spec import JobSpec
from orchestrator.controller import Controller
from orchestrator.controller.consider import framing_of
from orchestrator.controller.frame import frame
from orchestrator.controller.look import look
from orchestrator.plan.problem import Plan, Problem
from orchestrator.plan.record import read
from orchestrator.planner import Planner, beside
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.site import Site, resolve_site
from orchestrator.status import status
from orchestrator.store import Store, fleets, forecasts, jobs
from orchestrator.store.schema import FleetRow, Job
from tests.standin import StandInCluster

T0 = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
PRICES = [300.0, 100.0, 200.0, 400.0, 500.0, 500.0, 500.0, 500.0] + [600.0] * 20


@dataclass
class Shop:
    """A site of one zone, a stand-in cluster, a controller and its planner, and a clock that the test turns."""

    site: Site
    store: Store
    cluster: StandInCluster
    now: datetime = T0

    def __post_init__(self) -> None:
        self.planner = Planner(self.store, self.site, clock=lambda: self.now)
        self.controller = Controller(
            self.store, self.site, lambda: self.cluster, clock=lambda: self.now, holder="h:1:0"
        )

    def submit(self, name: str, hours: float = 1.0, **changes: Any) -> str:
        """A job that takes somewhat less than so many hours on both GPUs, its start included."""
        document: dict[str, Any] = {
            "name": name,
            "job": "train",
            "model": {"config": {"model_type": "llama"}},
            "data": {"files": ["x.txt"]},
            "training": {"steps": int(hours * 3600) - 100, "batch_size": 8},
            "workers": {"count": 2, "gpus": 1},
            "carbon": {"finish_by": "20h"},
        }
        document["carbon"] |= changes.pop("carbon", {})
        with self.store.write() as session:
            return jobs.submit(session, JobSpec.model_validate({**document, **changes}), self.now).id

    def job(self, job_id: str) -> Job:
        with self.store.read() as session:
            return session.get_one(Job, job_id)

    def plan(self, job_id: str) -> Plan:
        document = self.job(job_id).plan
        assert document is not None
        return read(document)

    def hours(self, job_id: str) -> list[tuple[float, float]]:
        """When the job runs, to a tenth of an hour after T0."""
        return [(round((s.start - T0) / HOUR, 1), round((s.end - T0) / HOUR, 1)) for s in self.plan(job_id).slots]

    def fleet(self) -> FleetRow | None:
        with self.store.read() as session:
            return fleets.fleets(session).get("gpus")

    def bring(self, prices: list[float]) -> None:
        points = tuple(Point(T0 + n * HOUR, T0 + (n + 1) * HOUR, price) for n, price in enumerate(prices))
        with self.store.write() as session:
            made = Forecast("DE", "electricity_maps", "average", points, fetched_at=self.now)
            forecasts.keep(session, "DE", "plan", self.now, made, None)

    def used(self, moment: datetime) -> int:
        """GPUs that plans take at a moment."""
        with self.store.read() as session:
            plans = [read(job.plan) for job in jobs.active_jobs(session) if job.plan is not None]
        return sum(slot.workers for plan in plans if (slot := plan.at(moment)) is not None)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    zones = {"DE": {"provider": "demo", "gpus": 2}}
    site = resolve_site({"zones": zones, "slot": "1h", "renew_within": "30m"}, tmp_path, "test")
    store = Store(site.store_url)
    made = Shop(site, store, StandInCluster(free=[Node("n", "node", "DE", 2, 16, 2, 16)]))
    made.bring(PRICES)
    _measure(made)
    yield made
    store.close()


def _measure(shop: Shop) -> None:
    """An earlier job of the same kind has run for an hour: 1 step/s at 600 W, and a start costs a minute."""
    segment_id = f"{shop.submit('earlier', carbon={'policy': 'now'})}-1"
    shop.controller.run_pass()
    for minutes, steps in ((1, 1), (61, 3600)):
        shop.now = T0 + timedelta(minutes=minutes)
        seen = Progress(shop.now, "train", steps, 3600, 2.5, steps, 60.0 * (minutes - 1))
        shop.cluster.views[segment_id] = SegmentView(segment_id, "running", seen)
        shop.controller.run_pass()
    for rank in (0, 1):
        row = MeterRow(
            "boot", f"GPU-{rank}", 1, "node", T0, T0 + HOUR, 300 * 3600.0, "nvml-counter", "train", "earlier",
            segment_id, rank, f"GPU-{rank}",
        )  # fmt: skip
        shop.cluster.rows.append(row)
    done = SegmentResult(shop.now, "done", 3600, 3600, {"loss": 2.5}, {"checkpoint": 1.0}, 1000)
    shop.cluster.views[segment_id] = SegmentView(segment_id, "ended", seen, done)
    shop.controller.run_pass()
    assert shop.job("earlier").state == "done"
    shop.cluster.orders.clear()
    shop.now = T0


def test_jobs_that_fit_are_left_to_be_planned_alone(shop: Shop) -> None:
    shop.submit("one")
    shop.planner.once()
    assert shop.fleet() is None
    assert shop.job("one").plan is None
    shop.controller.run_pass()
    assert shop.hours("one") == [(1.0, 2.0)]


def test_two_jobs_that_want_the_same_hour_take_turns_and_the_fleet_is_shown(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name)
    shop.planner.once()
    assert sorted([shop.hours("a"), shop.hours("b")]) == [[(1.0, 2.0)], [(2.0, 3.0)]]
    row = shop.fleet()
    assert row is not None
    assert (row.zones, row.jobs, row.missed) == (["DE"], 2, [])
    assert row.emissions_g == pytest.approx(0.6 * (100 + 200), rel=0.02)
    assert row.bound_g <= row.emissions_g


def test_passes_act_on_the_fleets_plan_running_or_not(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name)
    shop.planner.once()
    first, second = sorted(("a", "b"), key=shop.hours)
    for hours, running in ((0.5, None), (1.1, first), (1.6, first)):
        shop.now = T0 + hours * HOUR
        before = {name: shop.job(name).plan for name in (first, second)}
        shop.controller.run_pass()
        assert {name: shop.job(name).plan for name in (first, second)} == before
        assert list(shop.cluster.orders) == ([f"{running}-1"] if running else [])


def test_a_plan_stands_while_nothing_has_changed(shop: Shop) -> None:
    for name in "ab":
        shop.submit(name)
    shop.planner.once()
    before = {name: shop.job(name).plan for name in "ab"}
    for minutes in (5, 10):
        shop.now = T0 + timedelta(minutes=minutes)
        shop.bring(PRICES)
        shop.planner.once()
        Planner(shop.store, shop.site, clock=lambda: shop.now).once()
        assert {name: shop.job(name).plan for name in "ab"} == before
    row = shop.fleet()
    assert row is not None and row.checked_at == shop.now


def test_a_new_job_waits_to_be_planned_with_the_others(shop: Shop) -> None:
    for name in "ab":
        shop.submit(name)
    shop.planner.once()
    shop.submit("c", carbon={"finish_by": "1h"})
    shop.controller.run_pass()
    assert "planned together" in shop.job("c").reason
    assert not shop.cluster.orders
    shop.planner.once()
    assert shop.hours("c") == [(0.0, 1.0)]
    shop.controller.run_pass()
    assert list(shop.cluster.orders) == ["c-1"]


def test_of_many_jobs_one_that_comes_moves_no_other(shop: Shop) -> None:
    names = [f"j{index}" for index in range(6)]
    for name in names:
        shop.submit(name)
    shop.planner.once()
    before = {name: shop.plan(name) for name in names}
    shop.submit("late", 0.5)
    shop.planner.once()
    assert {name: shop.plan(name) for name in names} == before
    assert shop.plan("late").slots
    for minutes in range(0, 12 * 60, 3):
        assert shop.used(T0 + timedelta(minutes=minutes)) <= 2


def test_a_job_that_nobody_plans_with_the_others_is_planned_alone(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name)
    shop.planner.once()
    shop.submit("c")
    shop.now += timedelta(minutes=5)
    shop.controller.run_pass()
    assert shop.hours("c") == [(1.0, 2.0)]


def test_plans_of_a_fleet_to_which_nobody_sees_are_as_none(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name, carbon={"finish_by": "30h"})
    shop.planner.once()
    late = next(name for name in "ab" if shop.hours(name) == [(2.0, 3.0)])
    shop.now = T0 + 2.5 * HOUR
    shop.controller.run_pass()
    assert fleets.kind_of(shop.job(late).planned_for) is None


def test_a_higher_priority_keeps_its_deadline(shop: Shop) -> None:
    shop.submit("low", 2.0, carbon={"finish_by": "2h"})
    shop.submit("high", 2.0, carbon={"finish_by": "2h"}, priority=5)
    shop.planner.once()
    assert shop.hours("high") == [(0.0, 2.0)]
    row = shop.fleet()
    assert row is not None and row.missed == ["low"]
    assert shop.plan("low").misses_deadline
    assert shop.hours("low")[0][0] >= 2.0


def test_more_plans_than_gpus_are_never_made(shop: Shop) -> None:
    shop.submit("now", carbon={"policy": "now"})
    for index in range(4):
        shop.submit(f"j{index}", 0.5 + index / 4)
    shop.controller.run_pass()
    assert "now-1" in shop.cluster.orders
    shop.planner.once()
    for minutes in range(0, 8 * 60, 5):
        assert shop.used(T0 + timedelta(minutes=minutes)) <= 2


def test_rules_that_the_fleet_does_not_know_are_kept(shop: Shop) -> None:
    shop.bring([100.0, 300.0, 100.0, 300.0, 110.0, 300.0] + [600.0] * 20)
    shop.submit("steady", 2.0, carbon={"max_pauses": 0})
    shop.submit("other", 1.0)
    shop.planner.once()
    assert len(shop.plan("steady").slots) == 1
    for minutes in range(0, 8 * 60, 5):
        assert shop.used(T0 + timedelta(minutes=minutes)) <= 2


def test_jobs_on_hold_give_their_room_to_others(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name)
    shop.planner.once()
    first = next(name for name in "ab" if shop.hours(name) == [(1.0, 2.0)])
    other = "b" if first == "a" else "a"
    with shop.store.write() as session:
        jobs.wish(session, session.get_one(Job, first), "hold", shop.now)
    shop.planner.once()
    assert shop.fleet() is None
    shop.controller.run_pass()
    assert shop.hours(other) == [(1.0, 2.0)]


def test_what_the_nodes_have_counts_and_what_others_hold_does_not(shop: Shop) -> None:
    shop.cluster.free = [Node("n", "node", "DE", 4, 16, 2, 16)]
    shop.submit("now", 3.0, carbon={"policy": "now"})
    for _ in range(2):
        shop.controller.run_pass()
        shop.cluster.views["now-1"] = SegmentView("now-1", "running", Progress(shop.now, "train", 1, 9999, 2.0, 1, 1.0))
    with shop.store.read() as session:
        assert fleets.capacities(session)["DE"].gpus == 4
    shop.cluster.free = [Node("n", "node", "DE", 4, 16, 0, 16)]
    for _ in range(2):
        shop.controller.run_pass()
    with shop.store.read() as session:
        assert fleets.capacities(session)["DE"].gpus == 2
    shop.submit("a")
    shop.planner.once()
    assert shop.hours("a")[0][0] >= 3.0


def test_jobs_that_name_the_same_kind_take_turns_though_the_zone_has_room(shop: Shop) -> None:
    shop.cluster.free = [Node("h", "h", "DE", 2, 16, 2, 16, "H100"), Node("a", "a", "DE", 2, 16, 2, 16, "A100")]
    shop.submit("now", 0.2, carbon={"policy": "now"})
    shop.controller.run_pass()
    for name in "ab":
        shop.submit(name, workers={"count": 2, "gpus": 1, "gpu_kind": "A100"})
    shop.planner.once()
    row = shop.fleet()
    assert row is not None and (row.zones, row.jobs) == (["DE"], 2)
    (a,), (b,) = shop.plan("a").slots, shop.plan("b").slots
    assert a.end <= b.start or b.end <= a.start


def test_workers_that_no_node_has_whole_are_not_planned_at_once(shop: Shop) -> None:
    shop.cluster.free = [Node(name, name, "DE", 3, 16, 3, 16) for name in "xy"]
    shop.submit("now", 0.2, carbon={"policy": "now"})
    shop.controller.run_pass()
    for name in "abc":
        shop.submit(name, workers={"count": 1, "gpus": 2})
    shop.planner.once()
    row = shop.fleet()
    assert row is not None and (row.jobs, row.missed) == (3, [])
    for minutes in range(0, 8 * 60, 5):
        assert shop.used(T0 + timedelta(minutes=minutes)) <= 2


def test_a_job_that_fits_on_no_node_says_so_and_is_not_planned(shop: Shop) -> None:
    shop.cluster.free = [Node(name, name, "DE", 4, 16, 1, 16) for name in "xy"]
    shop.submit("now", 0.2, workers={"count": 1, "gpus": 1}, carbon={"policy": "now"})
    shop.controller.run_pass()
    shop.site.zones["DE"] = shop.site.zones["DE"].model_copy(update={"gpus": None})
    shop.submit("wide", workers={"count": 1, "gpus": 8})
    shop.planner.once()
    shop.controller.run_pass()
    assert shop.job("wide").plan is None
    assert shop.job("wide").reason.startswith("waits for larger nodes, or more, in DE: 1 workers of 8 GPU")
    shop.cluster.free.append(Node("z", "z", "DE", 8, 64, 8, 64))
    for _ in range(2):
        shop.controller.run_pass()
    shop.now += HOUR
    shop.controller.run_pass()
    assert shop.plan("wide").slots


def test_a_changed_forecast_replans_all(shop: Shop) -> None:
    for name in ("a", "b"):
        shop.submit(name)
    shop.planner.once()
    shop.now = T0 + timedelta(minutes=1)
    shop.bring([300.0, 400.0, 400.0, 100.0, 200.0] + [600.0] * 20)
    shop.planner.once()
    assert sorted([shop.hours("a"), shop.hours("b")]) == [[(3.0, 4.0)], [(4.0, 5.0)]]


def test_jobs_without_gpus_share_cpus(shop: Shop) -> None:
    shop.cluster.free = [Node("n", "node", "DE", 2, 4, 2, 4)]
    shop.submit("first", 0.2, workers={"count": 1, "gpus": 0, "cpus": 4}, carbon={"policy": "now"})
    shop.controller.run_pass()
    for name in ("a", "b"):
        shop.submit(name, workers={"count": 2, "gpus": 0, "cpus": 2}, carbon={"finish_by": "20h"})
    shop.planner.once()
    with shop.store.read() as session:
        row = fleets.fleets(session)["cpus"]
    assert (row.jobs, row.missed) == (2, [])
    (a,), (b,) = shop.plan("a").slots, shop.plan("b").slots
    assert a.end <= b.start or b.end <= a.start


def test_status_shows_the_fleet_and_a_dry_run_is_made_beside_it(shop: Shop) -> None:
    for name in "ab":
        shop.submit(name)
    shop.planner.once()
    row, before = shop.fleet(), [shop.job(name).plan for name in "ab"]
    assert row is not None
    with shop.store.read() as session:
        shown = status(session, shop.site, session.get_one(Job, "a"), shop.now)["fleet"]
        spec = jobs.spec_of(session.get_one(Job, "a"))
        seen = look(session, shop.site, shop.now)
        framing = framing_of(seen, session.get_one(Job, "a"), spec, shop.site, None)
    assert shown == {
        "jobs": 2,
        "emissions_g": row.emissions_g,
        "bound_g": row.bound_g,
        "gap_percent": pytest.approx(100 * (row.emissions_g / row.bound_g - 1)),
        "missed": [],
    }
    problem = frame(framing, None, shop.site)
    assert isinstance(problem, Problem)
    planned = beside(shop.store, shop.site, spec, problem, shop.now)
    assert planned is not None
    assert planned[1]["jobs"] == 3
    assert planned[1]["emissions_g"] == pytest.approx(0.6 * (100 + 200 + 300), rel=0.05)
    assert [shop.job(name).plan for name in "ab"] == before


def test_a_job_that_runs_otherwise_than_planned_is_planned_anew_at_the_edge_of_a_slot(shop: Shop) -> None:
    for name in "ab":
        shop.submit(name)
    shop.planner.once()
    first = next(name for name in "ab" if shop.hours(name) == [(1.0, 2.0)])
    shop.now = T0 + timedelta(hours=2)
    shop.planner.once()
    assert shop.hours(first)[0][0] >= 2.0
