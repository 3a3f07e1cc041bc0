"""A segment's driver: the entrypoint of one Ray job, `python -I -m cluster.segment`.
In: the order, in the variable LOWTIDE_ORDER. Out: a SegmentResult, at the control actor and beside the checkpoints.
It starts `cluster.worker` on the segment's workers and waits; it stays light, with no model and no DeepSpeed.

`-I` keeps the working directory and PYTHONPATH off the module path, where a user's own `cluster/` may lie.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from typing import Any

from cluster.api import SegmentOrder, SegmentResult
from cluster.began import began_at_s
from cluster.cap import with_cap
from cluster.drain import DrainWatch
from cluster.failure import failure_of
from cluster.order import ADDRESS, SUBMITTED_AT, VARIABLE, leave_result, read_order, result_path

DRIVER_RANK = -1


def main() -> int:
    """Run the segment; 0 unless it failed or was lost.

    The job's own fault is told by a result alone. What this raises, or ends by, is Ray's, a disk's or the driver's own
    (Ray ends a driver with exit code 1 that loses its head): who finds no result takes the segment for lost.
    """
    started_at_s = began_at_s()
    order = read_order(os.environ[VARIABLE])
    _attach()
    _on_sigterm(order)
    DrainWatch(order.segment_id, order.desire).open()
    from cluster.worker import register, release

    meter = register(order, DRIVER_RANK)
    try:
        result = _fit(order, started_at_s)
        if meter is not None:
            meter.mark(order.segment_id, DRIVER_RANK, "stop")
    finally:
        release(meter, order, DRIVER_RANK)
    result = with_cap(order, result)
    _hand_back(order, result)
    return 1 if result.ended in ("failed", "lost") else 0


def _attach() -> None:
    import ray
    from ray.job_config import JobConfig

    from cluster.control import NAMESPACE

    # Where a host has several Rays, the RAY_ADDRESS that Ray gives its jobs may be another one's.
    address = os.environ.get(ADDRESS)
    # As a client's job, Ray does not put the working directory on the workers' module path.
    ray.init(address, namespace=NAMESPACE, job_config=JobConfig(_client_job=True), logging_level="warning")


def _on_sigterm(order: SegmentOrder) -> None:
    """`ray job stop`, or a host that shuts down: checkpoint at the next step boundary, then end; at once if killed."""

    def halt() -> None:
        import ray

        from cluster.control import control_actor

        if ray.get(control_actor().halt.remote(order.segment_id, order.desire, "paused")):
            os._exit(137)  # the controller gave it up: Ray ends the workers of a driver that is gone

    def on_signal(_number: int, _frame: Any) -> None:
        threading.Thread(target=halt, name="lowtide-halt", daemon=True).start()

    signal.signal(signal.SIGTERM, on_signal)


def _fit(order: SegmentOrder, started_at_s: float) -> SegmentResult:
    import ray
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    from cluster.placing import PlaceWatch
    from cluster.trainer import trainer

    run = trainer(order)
    fit_at_s = time.time()
    place = PlaceWatch(order.segment_id, order.desire, ray.get_runtime_context().get_job_id())
    place.open()
    try:
        report = run.fit().return_value
    except (TrainingFailedError, RayError) as fault:
        return _failed(order, fault)
    finally:
        place.close()
    submitted_at_s = float(os.environ.get(SUBMITTED_AT, started_at_s))
    # These cross processes, so they are differences of UTC clocks; on two hosts these may disagree.
    parts_s = {
        "submit": max(0.0, started_at_s - submitted_at_s),
        "driver": fit_at_s - started_at_s,
        "controller": max(0.0, report["began_at_s"] - fit_at_s - place.waited_s),
        "place": place.waited_s,
        "workers": report["entered_at_s"] - max(report["began_at_s"], fit_at_s + place.waited_s),
        "end": max(0.0, time.time() - report["left_at_s"]),
    }
    return SegmentResult(
        at=datetime.now(timezone.utc),
        ended=report["ended"],
        step=report["step"],
        steps=report["steps"],
        metrics=report["metrics"],
        parts_s={**report["parts_s"], **parts_s},
        checkpoint_bytes=report["checkpoint_bytes"],
        moved_bytes=report["moved_bytes"],
        moved_from=report["moved_from"],
    )


def _failed(order: SegmentOrder, fault: Exception) -> SegmentResult:
    """The result of a segment whose workers failed: by the job's own fault, or `lost` where a worker was gone."""
    from cluster.meter.actor import starved

    failure = failure_of(fault, lambda: starved(order.spool, order.segment_id))
    return SegmentResult(
        at=datetime.now(timezone.utc),
        ended=failure.ended,
        step=0,
        steps=0,
        metrics={},
        parts_s={},
        checkpoint_bytes=0,
        error=failure.error,
    )


def _hand_back(order: SegmentOrder, result: SegmentResult) -> None:
    """Log the result, leave it beside the checkpoints, and tell the control actor."""
    import ray
    from ray.exceptions import RayError

    from cluster.control import control_actor

    left = leave_result(result_path(order.checkpoints, order.segment_id), result)
    print(f"lowtide: segment {order.segment_id} ended as {result.ended} at step {result.step} of {result.steps}")
    parts = ", ".join(f"{part} {duration_s:.2f} s" for part, duration_s in result.parts_s.items())
    print(f"lowtide: {parts or result.error}", flush=True)
    try:
        ray.get(control_actor().finish.remote(order.segment_id, order.desire, result), timeout=30)
    except RayError as fault:
        if not left:
            raise
        print(f"lowtide: the control actor did not take the result, which lies beside the checkpoints: {fault}")


if __name__ == "__main__":
    sys.exit(main())
