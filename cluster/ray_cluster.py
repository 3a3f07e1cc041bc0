"""The Ray side of cluster.api: segments as Ray jobs, desires and progress through the control actor.
In: the calls of a controller. Out: plain values; every failure of Ray or HTTP as one line of Unavailable.
`cluster.segment` is what it submits; `cluster.control` and `cluster.meter` are the actors it talks to.

Submission, status and logs go by HTTP. What needs the GCS or an actor goes through cluster.attachment, which attaches
to Ray (a second, and one more line among the dashboard's jobs) only for an actor.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cluster.api import Desire, Gauge, MeterRow, Node, SegmentOrder, SegmentResult, SegmentView
from cluster.attachment import Attachment
from cluster.labels import ZONE
from cluster.order import ADDRESS, SUBMITTED_AT, VARIABLE, code_path, read_result, result_path, write_order
from jobs.spec.code import place
from jobs.spec.errors import Refused, Unavailable
from jobs.spec.units import iso
from jobs.telling import telling

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray  # noqa: E402  (the mode must be set before)
from ray.dashboard.modules.dashboard_sdk import SubmissionClient  # noqa: E402
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # noqa: E402

ANSWER_TIMEOUT_S = 30.0
STOP_WAIT_S = 300
"""How long Ray lets a stopped segment save before it kills it."""

WORKERS_START_S = 300
"""How long a segment's workers may take to start: its room was seen before it was ordered, but hosts may be busy."""

_ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED}


class JobApi(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client of its job API at exactly this URL (Ray's own lets RAY_ADDRESS win), with a timeout."""

    def __init__(self, url: str) -> None:
        SubmissionClient.__init__(self, address=url)
        self._client_ray_version = ray.__version__
        self._ssl_context: Any = True  # its None is deprecated in aiohttp

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, **{"timeout": ANSWER_TIMEOUT_S, **options})

    def _check_connection_and_version(self, *args: Any, **options: Any) -> None:
        """Nothing: a request that fails says so itself."""


class RayCluster:
    """cluster.api.Cluster on Ray, at a GCS address (`host:port`) or `auto`."""

    def __init__(self, address: str) -> None:
        self._ray = Attachment(address)
        where: tuple[str, str] = self._ray.ask("where")
        self._ray.address, self._dashboard_url = where
        self._jobs = JobApi(self._dashboard_url)

    def close(self) -> None:
        """Detach from Ray now rather than when this object goes."""
        self._ray.close()

    @property
    def address(self) -> str:
        """The GCS address, `host:port`."""
        return self._ray.address

    @property
    def dashboard_url(self) -> str:
        """Address of the Ray dashboard."""
        return self._dashboard_url

    def nodes(self) -> list[Node]:
        """The nodes that are alive now."""
        nodes: list[Node] = self._ray.ask("nodes")
        return nodes

    def start(self, order: SegmentOrder) -> None:
        """Submit the segment as a Ray job; see cluster.api.Cluster."""
        self._ray.ask("control", "desire", order.segment_id, order.desire)
        with self._door("starting a segment"):
            if self._job(order.segment_id) is not None:
                return
        if order.spec.working_dir is not None:
            _place_code(Path(order.spec.working_dir), code_path(order.checkpoints))
        if order.spec.secrets:
            self._ray.ask("control", "keep", order.segment_id, _secrets(order))
        with self._door("starting a segment"):
            try:
                self._submit(order)
            except (RuntimeError, ValueError, TypeError) as fault:
                # Another controller was faster, or Ray will not have this one; what does not answer raises an OSError.
                if "already" not in str(fault):
                    raise Refused(f"Ray at {self.address} refuses it: {_first_line(fault)}") from fault

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Renew or end a segment; see cluster.api.Cluster."""
        self._ray.ask("control", "desire", segment_id, desire)

    def observe(self, segment_ids: Sequence[str]) -> dict[str, SegmentView]:
        """A view of every segment asked for."""
        if not segment_ids:
            return {}
        reports = self._ray.ask("control", "views", list(segment_ids))
        with self._door("observing segments"):
            return {name: self._view(name, reports.get(name)) for name in segment_ids}

    def kill(self, segment_id: str) -> None:
        """End a segment without a checkpoint."""
        self._ray.ask("control", "give_up", segment_id)
        with self._door("killing a segment"):
            if self._job(segment_id) is not None:
                self._jobs.stop_job(segment_id)

    def logs(self, segment_id: str, follow: bool = False) -> Iterator[str]:
        """What the segment wrote, in pieces as they come."""
        with self._door("reading logs"):
            if self._job(segment_id) is None:
                return
            if not follow:
                yield self._jobs.get_job_logs(segment_id)
                return
            logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)  # it tells that it hung up
            yield from _in_step(self._jobs.tail_job_logs(segment_id))

    def collect(self, spool: str) -> list[MeterRow]:
        """Rows that meters hold, oldest first."""
        rows: list[MeterRow] = self._ray.ask("collect", spool)
        return rows

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """Tell the meters that these rows are committed."""
        self._ray.ask("acknowledge", spool, list(rows))

    def publish(self, gauges: Sequence[Gauge]) -> None:
        """Send the figures of this pass to the cluster's metrics."""
        self._ray.ask("control", "publish", list(gauges))

    def _submit(self, order: SegmentOrder) -> None:
        self._jobs.submit_job(
            submission_id=order.segment_id,
            entrypoint=f"exec {sys.executable} -I -m cluster.segment",  # exec: a stop must reach Python, not a shell
            entrypoint_label_selector={ZONE: order.zone},
            runtime_env={"env_vars": {**_environment(order), **self._where}},
            metadata={
                "job": order.job_id,
                "name": order.spec.name,
                "kind": order.spec.job,
                "zone": order.zone,
                "workers": str(order.workers),
                "reason": order.reason,
                "run_until": iso(order.desire.run_until),
                "checkpoints": order.checkpoints,
            },
        )

    @property
    def _where(self) -> dict[str, str]:
        """Variables that name this Ray: on a host that has, or had, others, Ray's own search may find one of these.

        Ray Train's actors then wait for one that is long gone, at the end of every segment.
        """
        return {ADDRESS: self.address, "RAY_API_SERVER_ADDRESS": self.dashboard_url}

    def _job(self, segment_id: str) -> JobDetails | None:
        """What Ray knows of the job; None where it knows none of that name."""
        try:
            return self._jobs.get_job_info(segment_id)
        except RuntimeError as fault:
            # A dashboard that has just started has no such page yet, which says nothing of the job.
            if "status code 404" in str(fault) and "does not exist" in str(fault):
                return None
            raise

    def _view(self, segment_id: str, report: Any) -> SegmentView:
        progress = report.progress if report is not None else None
        result = report.result if report is not None else None
        if result is not None:
            return SegmentView(segment_id, "ended", progress, result, report.why)
        job = self._job(segment_id)
        if job is None:
            return SegmentView(segment_id, "lost", progress, message="Ray does not know this segment")
        message = job.message or ""
        if job.status not in _ENDED:
            status = "pending" if job.status == JobStatus.PENDING else "running"
            return SegmentView(segment_id, status, progress, message=message)  # type: ignore[arg-type]
        try:
            left = read_result(result_path((job.metadata or {}).get("checkpoints", ""), segment_id))
        except Unavailable as fault:  # how it ended is known when the disk answers again
            return SegmentView(segment_id, "running", progress, message=str(fault))
        why = report.why if report is not None else ""
        return SegmentView(segment_id, "ended", progress, left or self._synthesized(job, progress), why)

    def _synthesized(self, job: JobDetails, progress: Any) -> SegmentResult:
        """The result of a job that ended without one: lost, for a job's own fault is told by its driver's result.

        A driver that could not begin (a module that is not there) is tried again, too, but not for ever.
        """
        error_type = str(getattr(job.error_type, "value", job.error_type) or "")
        # A driver that a signal has ended (exit code -9 or 137) has said nothing.
        raised = job.driver_exit_code is None or 0 <= job.driver_exit_code < 128
        raised = raised and error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
        # Ray adds the job's output: of a driver that raised it ends with the cause, of any other it says nothing.
        error = (job.message or "").partition(", last available logs")[0].strip()
        if raised or not error:
            try:
                log = "\n".join(self._jobs.get_job_logs(job.submission_id).splitlines()[-40:])
                error = f"{log}\n{telling(log)}" if raised and not log.endswith(telling(log)) else log or error
            except (RuntimeError, OSError):
                error = error or "its node and its log are gone"
        at_s = (job.end_time or time.time() * 1000) / 1000
        return SegmentResult(
            at=datetime.fromtimestamp(at_s, timezone.utc),
            ended="lost",
            step=progress.step if progress is not None else 0,
            steps=progress.steps if progress is not None else 0,
            metrics={},
            parts_s={},
            checkpoint_bytes=0,
            error=f"Ray job {job.status.value.lower()} without a result: {error}",
        )

    @contextmanager
    def _door(self, doing: str) -> Iterator[None]:
        """Where what Ray's job API and HTTP raise becomes Unavailable."""
        try:
            yield
        except (RuntimeError, ValueError, OSError, TimeoutError) as fault:
            raise Unavailable(f"Ray at {self.address} does not answer ({doing}: {_first_line(fault)})") from fault


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [""])[0][:300]


def _place_code(archive: Path, target: Path) -> None:
    """Put the job's code where its workers find it; Refused where it cannot be."""
    try:
        place(archive, target)
    except OSError as fault:
        raise Refused(f"working_dir: its copy {archive} cannot be put to {target} ({fault.strerror})") from fault


def _secrets(order: SegmentOrder) -> dict[str, str]:
    """The secrets that the spec names, from this process's environment; Refused names one that is not there."""
    missing = [name for name in order.spec.secrets if name not in os.environ]
    if missing:
        raise Refused(f"secrets: {missing[0]} is not in the controller's environment; set it there")
    return {name: os.environ[name] for name in order.spec.secrets}


def _environment(order: SegmentOrder) -> dict[str, str]:
    """The variables of the segment's driver and workers; the user's own win where they touch no name of lowtide's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "${PATH}"])  # ninja, which compiles DeepSpeed's ops
    ours = {
        VARIABLE: write_order(order),
        SUBMITTED_AT: str(time.time()),
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
    }
    defaults = {
        "PATH": path,
        "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # cluster.drain watches without an actor for each segment
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(WORKERS_START_S),
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # its 2 s have GPUs wait for somebody to see that their workers ended
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that CUDA and NVML count alike
    }
    if order.spec.workers.gpus == 0:
        defaults["DS_ACCELERATOR"] = "cpu"
    if order.threads is not None:
        defaults["OMP_NUM_THREADS"] = str(order.threads)
    given = dict(order.spec.env)
    if order.spec.job == "script":
        given.pop("PYTHONPATH", None)  # it is the script's; a worker that reads it may find modules that shadow ours
    return {**defaults, **given, **ours}


def _in_step(pieces: Any) -> Iterator[str]:
    """An asynchronous iterator, one piece at a time."""
    loop = asyncio.new_event_loop()
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(pieces))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(pieces.aclose())
        loop.close()
