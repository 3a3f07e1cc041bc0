"""One site with its store, a stand-in cluster and a clock that a test turns.
In: jobs, what the cluster shows of their segments, rows. Out: what passes make of it.
The tests of passes begin here; conftest has it as a fixture.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from cluster.api import Ended, MeterRow, Phase, Progress, SegmentResult, SegmentView
from jobs.spec import JobSpec
from orchestrator.controller import Controller
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.site import Site
from orchestrator.store import Store, jobs
from orchestrator.store.schema import Job
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
