"""Rows that come when nothing runs any more: they are taken all the same, and a site at rest is left at rest."""

from __future__ import annotations

from datetime import timedelta

from cluster.api import Cluster, MeterRow, SegmentView
from jobs.spec import Unavailable
from orchestrator.controller import Controller
from orchestrator.store import facts, owed
from orchestrator.store.schema import Segment
from tests.unit.orchestrator.controller.ground import STEPS, T0, Bench

MINUTE = timedelta(minutes=1)


class Site:
    """A bench whose controllers are new ones each minute, as cron makes them, and who count their visits."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.started = self.visited = 0
        self.running = True
        """Whether there is a Ray to visit."""

    def tick(self, length: timedelta = MINUTE, every: timedelta = MINUTE) -> None:
        """Passes for so long."""
        bench = self.bench
        until = bench.now + length
        while bench.now < until:
            bench.now += every
            controller = Controller(bench.store, bench.site, self._start, lambda: bench.now, "here:1:0", self._visit)
            controller.run_pass()
            controller.release()

    def ends(self, ended: str = "done") -> None:
        """The one job runs, and ends."""
        self.bench.submit(carbon={"policy": "now"})
        self.tick()
        self.bench.show("tiny-1", 50, 50.0)
        self.tick()
        self.idle()
        if ended == "lost":
            self.bench.cluster.views["tiny-1"] = SegmentView("tiny-1", "lost", message="its node is gone")
        else:
            self.bench.show("tiny-1", STEPS, 100.0, "done")
        self.tick()
        self.started = self.visited = 0

    def meter(self, start: timedelta, segment: bool, hosts: tuple[str, ...] = ("boot",)) -> None:
        """Meters hold a minute of the segment's worker, or of nobody, on each of these hosts."""
        for host in hosts:
            at = T0 + start
            owner = ("tiny", "tiny-1", 0) if segment else (None, None, None)
            row = MeterRow(
                host, "GPU-0", int(at.timestamp()), "node", at, at + MINUTE, 60.0 * 300, "nvml-counter",
                "train" if segment else "idle", *owner, "GPU-0",
            )  # fmt: skip
            self.bench.cluster.rows.append(row)

    def idle(self) -> None:
        """The job's first rows are taken while it runs."""
        self.meter(timedelta(0), True)

    def owes(self) -> bool:
        with self.bench.store.read() as session:
            return session.get_one(Segment, "tiny-1").rows_due is not None

    def taken(self) -> int:
        with self.bench.store.read() as session:
            return len(facts.rows_of(session, "tiny"))

    def _start(self) -> Cluster:
        self.started += 1
        return self.bench.cluster

    def _visit(self) -> Cluster:
        self.visited += 1
        if not self.running:
            raise Unavailable("the embedded Ray does not run")
        return self.bench.cluster


def test_rows_that_a_late_meter_holds_are_taken_though_nothing_runs(bench: Bench) -> None:
    site = Site(bench)
    site.ends()
    site.meter(2 * MINUTE, True)
    site.meter(3 * MINUTE, False)
    site.tick(3 * MINUTE)
    assert (site.taken(), bench.cluster.rows, site.owes()) == (2, [], False)
    assert (site.started, site.visited) == (0, 1)
    site.tick(24 * 60 * MINUTE, 30 * MINUTE)
    assert (site.started, site.visited) == (0, 1), "whoever was heard is asked no more"


def test_a_host_that_comes_back_with_its_spool_is_waited_for_ever_less_often(bench: Bench) -> None:
    site = Site(bench)
    site.ends()
    site.running = False
    for _ in range(40):
        site.tick(30 * MINUTE, 30 * MINUTE)
    asked = site.visited
    assert 4 <= asked <= 10
    site.running = True
    site.meter(2 * MINUTE, True)
    site.meter(3 * MINUTE, False)
    site.tick(6 * 60 * MINUTE, 30 * MINUTE)
    assert (site.taken(), site.owes(), site.visited) == (2, False, asked + 1)


def test_a_host_that_never_comes_back_is_given_up(bench: Bench) -> None:
    site = Site(bench)
    site.ends()
    site.running = False
    site.tick(owed.GIVEN_UP + timedelta(days=1), timedelta(hours=12))
    assert not site.owes()
    asked = site.visited
    site.tick(timedelta(days=2), timedelta(hours=12))
    assert site.visited == asked


def test_each_of_a_segments_hosts_is_to_be_heard(bench: Bench) -> None:
    site = Site(bench)
    site.meter(timedelta(0), True, ("other",))
    site.ends("lost")
    bench.cluster.rows = []
    site.meter(3 * MINUTE, False)
    with bench.store.write() as session:
        facts.add_rows(session, bench.cluster.rows)
        owed.settle(session, bench.now + MINUTE)
    assert site.owes()
    site.meter(3 * MINUTE, False, ("other",))
    with bench.store.write() as session:
        facts.add_rows(session, bench.cluster.rows)
        owed.settle(session, bench.now + 5 * MINUTE)
    assert not site.owes()


def test_what_runs_takes_the_rows_of_what_ended_before(bench: Bench) -> None:
    site = Site(bench)
    site.ends()
    bench.submit(name="next", carbon={"policy": "now"})
    site.tick()
    site.meter(3 * MINUTE, False)
    site.tick()
    assert (site.owes(), site.visited) == (False, 0)


def test_a_segment_that_the_cluster_never_had_owes_nothing(bench: Bench) -> None:
    site = Site(bench)
    bench.cluster.refuses["tiny"] = "no"
    bench.submit(carbon={"policy": "now"})
    site.tick(4 * MINUTE)
    assert not site.owes()


def test_a_clock_that_was_set_back_does_not_put_the_next_question_off(bench: Bench) -> None:
    site = Site(bench)
    site.ends()
    with bench.store.write() as session:
        session.get_one(Segment, "tiny-1").rows_due = bench.now + timedelta(days=300)
        owed.settle(session, bench.now)
        due = session.get_one(Segment, "tiny-1").rows_due
    assert due is not None and due - bench.now <= owed.LATEST
