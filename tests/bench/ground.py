"""The ground that training is measured on: an embedded Ray, one spec, and three ways to run it.
In: a folder. Out: segments under lowtide with their latencies, a bare TorchTrainer beside them, torchrun's ranks.
`tests.bench.turns` lets two of them train in turns; `tests.bench.training` makes figures.

Every way runs the same loop with the same variables, and its workers have the niceness that Ray gives workers.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cluster.api import Desire, Progress, SegmentOrder, SegmentView, connect, start_local, stop_local
from cluster.order import write_order
from cluster.ray_cluster import JobApi, RayCluster, _environment
from jobs.spec import JobSpec
from tests.bench import cores

ZONE = "DE"
WORKERS = 2
WARM_S = 5.0
TORCHRUN_S = 25.0
ONE_STEP_S = 1e-6
START_S = 4.0
"""Training after a bare start, within which its memory is seen."""
WITHIN_S = 240.0
RAY_NICENESS = "15"
BARE = Path(__file__).with_name("bare.py")
FOREVER_S = 1e9
SMALL = {
    "hidden_size": 320,
    "num_hidden_layers": 6,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "intermediate_size": 864,
}
"""A Llama of about 7 million parameters."""


@dataclass(frozen=True)
class Stay:
    """One segment's start and pause, in seconds."""

    to_first_step_s: float
    """From the order to the end of the first step."""
    to_end_s: float
    """From the word to stop to the result's arrival."""
    to_release_s: float
    """From the word to stop to the moment when the workers' CPUs are free."""
    parts_s: Mapping[str, float]
    checkpoint_bytes: int


@dataclass(frozen=True)
class BareStart:
    """A start without lowtide: in a bare trainer, or by torchrun."""

    to_first_step_s: float
    parts_s: Mapping[str, float]
    """As a segment's; by torchrun nothing is submitted, and its launcher stands for the controller."""
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    """By kind of process, once it steps."""


@dataclass(frozen=True)
class Counted:
    """Steps done at a moment, UNIX s."""

    at_s: float
    steps: int


class Ground:
    """An embedded Ray with room for two groups of workers; `close` ends it."""

    def __init__(self, folder: Path, llama: Mapping[str, int] = SMALL) -> None:
        self.folder = folder
        self._state = folder / "state"
        corpus = folder / "corpus.txt"
        corpus.write_text("The tide goes out by night and comes in by day, whatever the grid may say.\n" * 4000)
        self._spec = spec(corpus, llama)
        self._count = 0
        self._cluster: RayCluster | None = None

    def open(self) -> None:
        """Start Ray and attach."""
        cluster = connect(start_local(str(self._state), ZONE, 2 * WORKERS))
        assert isinstance(cluster, RayCluster)
        self._cluster = cluster

    def close(self) -> None:
        """End Ray."""
        stop_local(str(self._state))

    @property
    def cluster(self) -> RayCluster:
        """The door to the Ray that was opened."""
        assert self._cluster is not None, "open the ground first"
        return self._cluster

    @property
    def head_pid(self) -> int:
        """The process that all of this Ray descends from."""
        return int(json.loads((self._state / "ray.json").read_text())["pid"])

    def torchrun_steps_per_s(self) -> float:
        """Steps/s of the loop in torchrun's ranks, after WARM_S."""
        order = self._order("torchrun")
        with self._torchrun(order, WARM_S + TORCHRUN_S) as (running, counts):
            time.sleep(WARM_S)
            warm = count(counts)
            self._ended(running, order)
            last = count(counts)
        return (last.steps - warm.steps) / (last.at_s - warm.at_s)

    def torchrun_start(self) -> BareStart:
        """Ranks of torchrun, from a copy of the segments' newest checkpoint; ended once they have taken a step."""
        order = self._order("torchrun")
        self._copy_checkpoint(order)
        began_s = time.time()
        with self._torchrun(order, ONE_STEP_S) as (running, counts):
            self._ended(running, order)
        return _bare_start(counts, began_s)

    @contextmanager
    def _torchrun(self, order: SegmentOrder, train_s: float) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """The launcher, and where its rank 0 counts, once it steps."""
        task, counts = self._task(order, train_s)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["nice", "-n", RAY_NICENESS, sys.executable, "-m", "torch.distributed.run"]
        command += [f"--nproc-per-node={WORKERS}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        variables = _environment(order)
        variables["PATH"] = variables["PATH"].replace("${PATH}", os.environ.get("PATH", os.defpath))
        with self._log(order).open("w") as output:
            running = subprocess.Popen(
                [*command, str(BARE), str(task)],
                env={**os.environ, **variables},
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait(lambda: has_steps(counts) or running.poll() is not None, "torchrun does not start")
            if not has_steps(counts):
                self._ended(running, order)
            yield running, counts
        finally:
            running.terminate()
            running.wait()

    def _ended(self, running: subprocess.Popen[bytes], order: SegmentOrder) -> None:
        if running.wait(WITHIN_S) != 0:
            raise RuntimeError(f"torchrun failed: {self._log(order).read_text()[-2000:]}")

    def _log(self, order: SegmentOrder) -> Path:
        return self.folder / f"{order.segment_id}.log"

    def bare(self) -> tuple[str, Path]:
        """Start the loop in a TorchTrainer, as a Ray job as segments are; its id and counts, once it steps."""
        order = self._order("bare")
        self._submit_bare(order)
        return order.segment_id, self.folder / f"{order.segment_id}.counts"

    def bare_start(self) -> BareStart:
        """The same, from a copy of the segments' newest checkpoint; it ends soon after it has taken a step."""
        order = self._order("bare")
        self._copy_checkpoint(order)
        submitted_at_s = time.time()
        jobs = self._submit_bare(order, START_S)
        memory_mb = cores.memory_mb(self.head_pid)
        wait(lambda: jobs.get_job_status(order.segment_id).is_terminal(), "the bare trainer does not end")
        free = self.cluster.nodes()[0].cpus
        wait(lambda: self.cluster.nodes()[0].free_cpus >= free, "the bare trainer's CPUs are not freed")
        return _bare_start(self.folder / f"{order.segment_id}.counts", submitted_at_s, memory_mb)

    def _copy_checkpoint(self, order: SegmentOrder) -> None:
        shutil.copytree(self.folder / "job", order.checkpoints, ignore=shutil.ignore_patterns("ray", "segments"))

    def _submit_bare(self, order: SegmentOrder, train_s: float = FOREVER_S) -> JobApi:
        task, counts = self._task(order, train_s)
        jobs = JobApi(self.cluster.dashboard_url)
        jobs.submit_job(
            submission_id=order.segment_id,
            entrypoint=f"exec {sys.executable} -I {BARE} {task}",
            entrypoint_label_selector={"carbon-zone": ZONE},
            runtime_env={"env_vars": _environment(order)},
        )
        wait(
            lambda: has_steps(counts),
            lambda: f"the bare trainer does not start: {jobs.get_job_logs(order.segment_id)[-2000:]}",
        )
        return jobs

    def start(self) -> Segment:
        """Order a segment that goes on from the one before; returns once it has taken a step."""
        return Segment(self.cluster, self._order("job"))

    def _order(self, job: str) -> SegmentOrder:
        self._count += 1
        name = f"{job}-{self._count}"
        return SegmentOrder(
            segment_id=name,
            job_id=job,
            reason="start",
            zone=ZONE,
            workers=WORKERS,
            spec=self._spec,
            desire=_renewed(),
            slot_s=900.0,
            checkpoints=str(self.folder / (job if job == "job" else name)),
            restore_from=None,
            spool=str(self.folder / "spool"),
            threads=1,
        )

    def _task(self, order: SegmentOrder, train_s: float) -> tuple[Path, Path]:
        """What bare.py reads, and where it counts."""
        Path(order.checkpoints).mkdir(parents=True, exist_ok=True)
        task = self.folder / f"{order.segment_id}.json"
        counts = self.folder / f"{order.segment_id}.counts"
        task.write_text(json.dumps({"train_s": train_s, "counts": str(counts), "order": write_order(order)}))
        return task, counts


class Segment:
    """A segment that was ordered and has taken its first step."""

    def __init__(self, cluster: RayCluster, order: SegmentOrder) -> None:
        self._cluster, self._order = cluster, order
        self.segment_id = order.segment_id
        self._ordered_at_s = time.time()
        cluster.start(order)
        self._first = self._progress(lambda progress: progress.trained_steps > 0)

    def look(self) -> Counted:
        """What a controller's pass asks of the cluster for a segment that runs; the steps that it shows."""
        counted = self._progress(lambda _: True)
        self._cluster.acknowledge(self._order.spool, self._cluster.collect(self._order.spool))
        self._cluster.desire(self.segment_id, _renewed())
        self._cluster.publish([])
        return Counted(counted.at.timestamp(), counted.trained_steps)

    def pause(self) -> Stay:
        """Ask it to end, and wait until its CPUs are free."""
        free_before = self._cluster.nodes()[0].free_cpus
        asked_s = time.monotonic()
        self._cluster.desire(self.segment_id, Desire(_now(), "paused", 1))
        result = self._view(lambda view: view.status == "ended", every_s=0.1).result
        ended_s = time.monotonic()
        if result is None or result.ended != "paused":
            raise RuntimeError(f"{self.segment_id} went another way: {result}")
        wait(lambda: self._cluster.nodes()[0].free_cpus >= free_before + WORKERS, "the workers' CPUs are not freed")
        first_step_at_s = self._first.at.timestamp() - (self._first.trained_s - result.parts_s["first_step"])
        return Stay(
            first_step_at_s - self._ordered_at_s,
            ended_s - asked_s,
            time.monotonic() - asked_s,
            result.parts_s,
            result.checkpoint_bytes,
        )

    def _progress(self, enough: Callable[[Progress], bool]) -> Progress:
        view = self._view(lambda view: view.progress is not None and enough(view.progress), every_s=0.2)
        assert view.progress is not None
        return view.progress

    def _view(self, until: Callable[[SegmentView], bool], every_s: float) -> SegmentView:
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            view = self._cluster.observe([self.segment_id])[self.segment_id]
            if until(view):
                return view
            if view.status in ("ended", "lost") or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.segment_id} went another way: {view}")
            time.sleep(every_s)


def spec(corpus: Path, llama: Mapping[str, int] = SMALL) -> JobSpec:
    """A Llama on bytes, the small one in steps of a few hundred milliseconds on two cores."""
    document: dict[str, Any] = {
        "name": "bench",
        "job": "train",
        "model": {"config": {"model_type": "llama", **llama}},
        "data": {"files": [str(corpus)], "sequence_length": 128},
        "training": {"steps": 1_000_000, "batch_size": 4, "micro_batch_size": 2},
        "deepspeed": {"zero_optimization": {"stage": 2}},
        "workers": {"count": WORKERS, "gpus": 0, "cpus": 1},
        "checkpoint": {"every": "1h", "keep": 1},
    }
    return JobSpec.model_validate(document)


def has_steps(counts: Path) -> bool:
    """Whether a Counter has written to the file."""
    return counts.exists() and counts.stat().st_size > 0


def count(counts: Path) -> Counted:
    """The newest of what a Counter wrote."""
    at_s, steps, _ = struct.unpack("ddd", counts.read_bytes())
    return Counted(at_s, int(steps))


def first_step_at_s(counts: Path) -> float:
    """When the first step ended, UNIX s."""
    return float(struct.unpack("ddd", counts.read_bytes())[2])


def _bare_start(counts: Path, began_s: float, memory_mb: Mapping[str, float] | None = None) -> BareStart:
    """What bare.py left of a start that began at `began_s`, UNIX s."""
    left = json.loads(counts.with_suffix(".parts").read_text())
    times = {name: left.pop(name) for name in list(left) if name.endswith("_at_s")}
    parts_s = {**left, "workers": times["entered_at_s"] - times["began_at_s"]}
    if "fit_at_s" in times:
        parts_s["submit"] = times["driver_at_s"] - began_s
        parts_s["driver"] = times["fit_at_s"] - times["driver_at_s"]
        parts_s["controller"] = times["began_at_s"] - times["fit_at_s"]
    else:
        parts_s["controller"] = times["began_at_s"] - began_s
    return BareStart(first_step_at_s(counts) - began_s, parts_s, memory_mb or {})


def wait(until: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
    """Return once `until` holds; RuntimeError after WITHIN_S."""
    deadline_s = time.monotonic() + WITHIN_S
    while not until():
        if time.monotonic() > deadline_s:
            raise RuntimeError(otherwise if isinstance(otherwise, str) else otherwise())
        time.sleep(0.2)


def _renewed() -> Desire:
    return Desire(_now() + timedelta(hours=1), "expired", 1)


def _now() -> datetime:
    return datetime.now(timezone.utc)
