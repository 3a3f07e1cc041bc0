"""One training run each way: under lowtide, in a bare TorchTrainer in the same Ray, and under torchrun.
In: an embedded Ray and one spec. Out: steps and seconds after the warm-up, cores by process, latencies.
`tests.bench.training` interleaves them and makes figures of them.

Every way runs the same loop with the same variables, and starts its workers with Ray's niceness. While the bare loop
runs, the actors that lowtide left in this Ray are stopped, and the bench is detached.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cluster.api import Desire, Progress, SegmentOrder, SegmentView, connect
from cluster.ray_cluster import JobApi, RayCluster, _environment
from jobs.spec import JobSpec
from tests.bench import cores

ZONE = "DE"
WORKERS = 2
WARM_S = 6.0
"""Training seconds that count for nothing."""
TRAIN_S = 25.0
PASS_EVERY_S = 15.0
"""The controller's rhythm where slots are 15 minutes."""
WITHIN_S = 240.0
RAY_NICENESS = "15"
BARE = Path(__file__).with_name("bare.py")


@dataclass(frozen=True)
class Run:
    """One run: training after its warm-up, and where the time before and after went."""

    steps: int
    duration_s: float
    parts_s: Mapping[str, float] = field(default_factory=dict)
    cores: Mapping[str, float] = field(default_factory=dict)
    to_first_step_s: float = 0.0
    """From the order to the end of the first step."""
    to_end_s: float = 0.0
    """From the word to stop to the result's arrival."""
    to_release_s: float = 0.0
    """From the word to stop to the moment when the workers' CPUs are free."""
    checkpoint_bytes: int = 0

    @property
    def steps_per_s(self) -> float:
        """The throughput."""
        return self.steps / self.duration_s


class Runs:
    """Runs of one spec in one embedded Ray; `folder` holds their checkpoints and reports."""

    def __init__(self, folder: Path, corpus: Path) -> None:
        self._folder = folder
        self._spec = spec(corpus)
        self._count = 0
        self._cluster: RayCluster | None = None
        self._head_pid = 0

    def attach(self, address: str, head_pid: int) -> None:
        """Use this Ray."""
        cluster = connect(address)
        assert isinstance(cluster, RayCluster)
        self._cluster, self._head_pid = cluster, head_pid

    def under_lowtide(self) -> Run:
        """A segment that goes on from the one before, watched as a controller does, and paused."""
        cluster, order = self._ray(), self._order("job")
        ordered_s, ordered_at_s = time.monotonic(), time.time()
        cluster.start(order)
        first = self._progress(order, lambda progress: progress.trained_steps > 0, every_s=0.2)
        warm = self._progress(order, lambda progress: progress.trained_s >= WARM_S, every_s=1.0)
        before = cores.look(self._head_pid)
        until_s = time.monotonic() + TRAIN_S
        while time.monotonic() < until_s:
            time.sleep(min(PASS_EVERY_S, until_s - time.monotonic()))
            self._pass(order)
        used = cores.cores(before, cores.look(self._head_pid))
        last = self._progress(order, lambda _: True, every_s=1.0)
        asked_s = time.monotonic()
        cluster.desire(order.segment_id, Desire(_now(), "paused", 1))
        result = self._view(order, lambda view: view.status == "ended", every_s=0.1).result
        ended_s = time.monotonic()
        assert result is not None and result.ended == "paused", result
        self._wait(lambda: cluster.nodes()[0].free_cpus == cluster.nodes()[0].cpus, "the workers' CPUs are not free")
        first_step_at_s = first.at.timestamp() - (first.trained_s - result.parts_s["first_step"])
        print(f"  under lowtide: start {time.monotonic() - ordered_s:.0f} s in all", file=sys.stderr)
        return Run(
            steps=last.trained_steps - warm.trained_steps,
            duration_s=last.trained_s - warm.trained_s,
            parts_s=result.parts_s,
            cores=used,
            to_first_step_s=first_step_at_s - ordered_at_s,
            to_end_s=ended_s - asked_s,
            to_release_s=time.monotonic() - asked_s,
            checkpoint_bytes=result.checkpoint_bytes,
        )

    def in_bare_trainer(self) -> Run:
        """The loop in a TorchTrainer, submitted as a Ray job as segments are."""
        order = self._order("bare")
        task, report = self._task(order)
        cluster = self._ray()
        jobs = JobApi(cluster.dashboard_url)
        cluster.close()
        with self._held_still():
            jobs.submit_job(
                submission_id=order.segment_id,
                entrypoint=f"exec {sys.executable} -I {BARE} {task}",
                entrypoint_label_selector={"carbon-zone": ZONE},
                runtime_env={"env_vars": _environment(order)},
            )
            self._wait(report.with_suffix(".warm").exists, lambda: jobs.get_job_logs(order.segment_id))
            before = cores.look(self._head_pid)
            time.sleep(TRAIN_S)
            used = cores.cores(before, cores.look(self._head_pid))
            self._wait(
                lambda: str(jobs.get_job_status(order.segment_id)) in ("SUCCEEDED", "FAILED", "STOPPED"),
                "the bare trainer does not end",
            )
        if not report.exists():
            raise RuntimeError(f"the bare trainer failed: {jobs.get_job_logs(order.segment_id)[-2000:]}")
        return replace(_read(report), cores=used)

    def under_torchrun(self) -> Run:
        """The loop in torchrun's ranks, with no Ray needed."""
        order = self._order("torchrun")
        task, report = self._task(order)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["nice", "-n", RAY_NICENESS, sys.executable, "-m", "torch.distributed.run"]
        command += [f"--nproc-per-node={WORKERS}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        variables = _environment(order)
        variables["PATH"] = variables["PATH"].replace("${PATH}", os.environ.get("PATH", os.defpath))
        done = subprocess.run(
            [*command, str(BARE), str(task)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            cwd=self._folder,
        )
        if done.returncode != 0:
            raise RuntimeError(f"torchrun failed: {done.stderr[-2000:]}")
        return _read(report)

    def _ray(self) -> RayCluster:
        assert self._cluster is not None, "attach first"
        return self._cluster

    def _order(self, job: str) -> SegmentOrder:
        """The next segment; only lowtide's go on from one another."""
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
            checkpoints=str(self._folder / (job if job == "job" else name)),
            restore_from=None,
            spool=str(self._folder / "spool"),
            threads=1,
        )

    def _task(self, order: SegmentOrder) -> tuple[Path, Path]:
        """What bare.py reads, and where it reports."""
        from cluster.order import write_order

        Path(order.checkpoints).mkdir(parents=True)
        task = self._folder / f"{order.segment_id}.task.json"
        report = self._folder / f"{order.segment_id}.report.json"
        # A bare run tells its warm-up when it is over; the processes are looked at for TRAIN_S from then.
        document = {"warm_s": WARM_S, "train_s": TRAIN_S + 2.0, "report": str(report), "order": write_order(order)}
        task.write_text(json.dumps(document))
        return task, report

    def _pass(self, order: SegmentOrder) -> None:
        """What a controller's pass asks of the cluster for a segment that runs."""
        cluster = self._ray()
        cluster.observe([order.segment_id])
        cluster.acknowledge(order.spool, cluster.collect(order.spool))
        cluster.desire(order.segment_id, _renewed())
        cluster.publish([])

    def _progress(self, order: SegmentOrder, enough: Callable[[Progress], bool], every_s: float) -> Progress:
        view = self._view(order, lambda view: view.progress is not None and enough(view.progress), every_s)
        assert view.progress is not None
        return view.progress

    def _view(self, order: SegmentOrder, until: Callable[[SegmentView], bool], every_s: float) -> SegmentView:
        deadline_s = time.monotonic() + WITHIN_S
        while True:
            view = self._ray().observe([order.segment_id])[order.segment_id]
            if until(view):
                return view
            if view.status in ("ended", "lost") or time.monotonic() > deadline_s:
                raise RuntimeError(f"{order.segment_id} went another way: {view}")
            time.sleep(every_s)

    def _wait(self, until: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
        deadline_s = time.monotonic() + WITHIN_S
        while not until():
            if time.monotonic() > deadline_s:
                raise RuntimeError(otherwise if isinstance(otherwise, str) else otherwise()[-2000:])
            time.sleep(0.2)

    @contextmanager
    def _held_still(self) -> Iterator[None]:
        """Stop lowtide's own actors, which outlive their segment, for as long as the bare loop runs."""
        actors = cores.of_kind(self._head_pid, "meter", "control actor")
        for each in actors:
            each.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for each in actors:
                each.send_signal(signal.SIGCONT)


def spec(corpus: Path) -> JobSpec:
    """A Llama of about 7 million parameters on bytes, in steps of a few hundred milliseconds on two cores."""
    llama = {
        "model_type": "llama",
        "hidden_size": 320,
        "num_hidden_layers": 6,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "intermediate_size": 864,
    }
    document: dict[str, Any] = {
        "name": "bench",
        "job": "train",
        "model": {"config": llama},
        "data": {"files": [str(corpus)], "sequence_length": 128},
        "training": {"steps": 1_000_000, "batch_size": 4, "micro_batch_size": 2},
        "deepspeed": {"zero_optimization": {"stage": 2}},
        "workers": {"count": WORKERS, "gpus": 0, "cpus": 1},
        "checkpoint": {"every": "1h", "keep": 1},
    }
    return JobSpec.model_validate(document)


def _renewed() -> Desire:
    return Desire(_now() + timedelta(hours=1), "expired", 1)


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _read(report: Path) -> Run:
    return Run(**json.loads(report.read_text()))
