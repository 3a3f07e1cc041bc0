"""The Ray side of cluster.api: segments as Ray jobs, desires and progress through the control actor.
In: the calls of a controller. Out: plain values; every failure of Ray or HTTP as one line of Unavailable.
`cluster.segment` is what it submits; `cluster.control` and `cluster.meter` are the actors it talks to.

Submission, status, logs and nodes go by HTTP and the GCS; this process attaches to Ray, which takes a second and shows
as a job in the dashboard, only for what needs an actor.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cluster.api import Desire, Gauge, MeterRow, Node, SegmentOrder, SegmentResult, SegmentView
from cluster.order import SUBMITTED_AT, VARIABLE, read_result, result_path, write_order
from jobs.spec.errors import StaleEpoch, Unavailable
from jobs.spec.units import iso

os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import ray  # noqa: E402  (the mode must be set before)
from ray._private import ray_constants, services  # noqa: E402
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # noqa: E402
from ray.autoscaler.v2.sdk import get_cluster_resource_state  # noqa: E402
from ray.core.generated.autoscaler_pb2 import DEAD  # noqa: E402
from ray.dashboard.modules.dashboard_sdk import SubmissionClient  # noqa: E402
from ray.exceptions import RayError  # noqa: E402
from ray.job_config import JobConfig  # noqa: E402
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient  # noqa: E402

ANSWER_TIMEOUT_S = 30.0
STOP_WAIT_S = 300
"""How long Ray lets a stopped segment save before it kills it."""

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
        self._address = address
        self._control: Any = None
        with self._door("connecting"):
            if address == "auto":
                self._address = services.canonicalize_bootstrap_address_or_die("auto")
            self._gcs = GcsClient(address=self._address)
            where = self._gcs.internal_kv_get(
                ray_constants.DASHBOARD_ADDRESS.encode(),
                namespace=ray_constants.KV_NAMESPACE_DASHBOARD,
                timeout=ANSWER_TIMEOUT_S,
            )
            if where is None:
                raise Unavailable(f"Ray at {self._address} runs without its dashboard; start it with one")
            self._dashboard_url = f"http://{where.decode()}"
            self._jobs = JobApi(self._dashboard_url)

    @property
    def address(self) -> str:
        """The GCS address, `host:port`."""
        return self._address

    @property
    def dashboard_url(self) -> str:
        """Address of the Ray dashboard."""
        return self._dashboard_url

    def nodes(self) -> list[Node]:
        """The nodes that are alive now."""
        with self._door("listing nodes"):
            states = get_cluster_resource_state(self._gcs).node_states
        return [_node(state) for state in states if state.status != DEAD]

    def start(self, order: SegmentOrder) -> None:
        """Submit the segment as a Ray job; see cluster.api.Cluster."""
        self._tell("desire", order.segment_id, order.desire)
        with self._door("starting a segment"):
            if self._job(order.segment_id) is not None:
                return
            try:
                self._submit(order)
            except RuntimeError as fault:
                # Another controller was faster.
                if "already" not in str(fault):
                    raise

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Renew or end a segment; see cluster.api.Cluster."""
        self._tell("desire", segment_id, desire)

    def observe(self, segment_ids: Sequence[str]) -> dict[str, SegmentView]:
        """A view of every segment asked for."""
        if not segment_ids:
            return {}
        reports = self._tell("views", list(segment_ids))
        with self._door("observing segments"):
            return {name: self._view(name, reports.get(name)) for name in segment_ids}

    def kill(self, segment_id: str) -> None:
        """End a segment without a checkpoint."""
        self._tell("give_up", segment_id)
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
            yield from _in_step(self._jobs.tail_job_logs(segment_id))

    def collect(self, spool: str) -> list[MeterRow]:
        """Rows that meters hold, oldest first."""
        from cluster.meter.actor import collect

        self._attach()
        with self._door("collecting meter rows"):
            return list(collect(spool))

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """Tell the meters that these rows are committed."""
        from cluster.meter.actor import acknowledge

        self._attach()
        with self._door("acknowledging meter rows"):
            acknowledge(spool, rows)

    def publish(self, gauges: Sequence[Gauge]) -> None:
        """Send the figures of this pass to the cluster's metrics."""
        self._tell("publish", list(gauges))

    def _submit(self, order: SegmentOrder) -> None:
        self._jobs.submit_job(
            submission_id=order.segment_id,
            entrypoint=f"exec {sys.executable} -I -m cluster.segment",  # exec: a stop must reach Python, not a shell
            entrypoint_label_selector={"carbon-zone": order.zone},
            runtime_env={"env_vars": _environment(order)},
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

    def _job(self, segment_id: str) -> JobDetails | None:
        """What Ray knows of the job; None where it knows none of that name."""
        try:
            return self._jobs.get_job_info(segment_id)
        except RuntimeError as fault:
            if "status code 404" in str(fault):
                return None
            raise

    def _view(self, segment_id: str, report: Any) -> SegmentView:
        progress = report.progress if report is not None else None
        result = report.result if report is not None else None
        if result is not None:
            return SegmentView(segment_id, "ended", progress, result)
        job = self._job(segment_id)
        if job is None:
            return SegmentView(segment_id, "lost", progress, message="Ray does not know this segment")
        message = job.message or ""
        if job.status not in _ENDED:
            status = "pending" if job.status == JobStatus.PENDING else "running"
            return SegmentView(segment_id, status, progress, message=message)  # type: ignore[arg-type]
        left = read_result(result_path((job.metadata or {}).get("checkpoints", ""), segment_id))
        return SegmentView(segment_id, "ended", progress, left or self._synthesized(job, progress), message)

    def _synthesized(self, job: JobDetails, progress: Any) -> SegmentResult:
        """The result of a job that ended without one: by its own fault, or `lost` where Ray or a node took it along."""
        error_type = str(getattr(job.error_type, "value", job.error_type) or "")
        own = job.status == JobStatus.SUCCEEDED or error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
        error = job.message or ""
        if own or not error:
            try:
                error = "\n".join(self._jobs.get_job_logs(job.submission_id).splitlines()[-40:]) or error
            except (RuntimeError, OSError):
                error = error or "its node and its log are gone"
        at_s = (job.end_time or time.time() * 1000) / 1000
        return SegmentResult(
            at=datetime.fromtimestamp(at_s, timezone.utc),
            ended="failed" if own else "lost",
            step=progress.step if progress is not None else 0,
            steps=progress.steps if progress is not None else 0,
            metrics={},
            parts_s={},
            checkpoint_bytes=0,
            error=f"Ray job {job.status.value.lower()} without a result: {error}",
        )

    def _tell(self, method: str, *arguments: Any) -> Any:
        """Call the control actor; once more where the one that this process knew is gone."""
        from cluster.control import control_actor

        self._attach()
        with self._door(f"asking the control actor ({method})"):
            for attempt in (1, 2):
                try:
                    self._control = self._control or control_actor()
                    return ray.get(getattr(self._control, method).remote(*arguments), timeout=ANSWER_TIMEOUT_S)
                except ray.exceptions.RayActorError:
                    self._control = None
                    if attempt == 2:
                        raise
        raise AssertionError("unreachable")

    def _attach(self) -> None:
        """Make this process a Ray driver of this cluster, quietly; nothing where it is one."""
        with self._door("attaching"):
            if ray.is_initialized():
                attached = ray.get_runtime_context().gcs_address
                if attached == self._address:
                    return
                raise Unavailable(f"this process is attached to Ray at {attached}, not at {self._address}")
            states = get_cluster_resource_state(self._gcs).node_states
            # An embedded Ray lives on 127.0.0.1, which Ray would replace by the host's outer address.
            ray_constants.ENABLE_RAY_CLUSTER = not any(state.node_ip_address == "127.0.0.1" for state in states)
            with _own_signals():
                ray.init(
                    address=self._address,
                    namespace="lowtide",
                    log_to_driver=False,
                    logging_level="error",
                    configure_logging=False,
                    job_config=JobConfig(_client_job=True),  # keeps this process's directory off the actors' path
                )
            self._control = None

    @contextmanager
    def _door(self, doing: str) -> Iterator[None]:
        """The one place where what Ray, gRPC and HTTP raise becomes Unavailable."""
        try:
            yield
        except (StaleEpoch, Unavailable) as fault:
            raise _bare(fault) from None
        except (RayError, RuntimeError, ValueError, OSError, TimeoutError) as fault:
            line = (str(fault).strip().splitlines() or [""])[0][:300]
            raise Unavailable(
                f"Ray at {self._address} does not answer ({doing}: {type(fault).__name__}: {line})"
            ) from fault


def _bare(fault: Unavailable) -> Unavailable:
    """The error itself where Ray wrapped it on its way out of an actor."""
    cause = getattr(fault, "cause", None)
    return cause if isinstance(cause, Unavailable) else fault


def _node(state: Any) -> Node:
    total, free, labels = dict(state.total_resources), dict(state.available_resources), dict(state.labels)
    return Node(
        node_id=labels.get("ray.io/node-id", state.node_id.hex()),
        name=state.node_ip_address,
        zone=labels.get("carbon-zone"),
        gpus=total.get("GPU", 0.0),
        cpus=total.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
        free_cpus=free.get("CPU", 0.0),
    )


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
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # so that CUDA and NVML count alike
    }
    if order.spec.workers.gpus == 0:
        defaults["DS_ACCELERATOR"] = "cpu"
    if order.threads is not None:
        defaults["OMP_NUM_THREADS"] = str(order.threads)
    return {**defaults, **order.spec.env, **ours}


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


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's SIGTERM handler, which ray.init replaces by one that exits."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
