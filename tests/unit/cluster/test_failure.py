"""Whose fault a failed worker group is: machines are retried, the job's own errors are not.
In: the exceptions that Ray Train raises in a segment's driver. Out: nothing.
The fault campaign and the segments' integration test make Ray raise them itself.
"""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError
from ray.train.v2.api.preemption import PreemptionInfo

from cluster.failure import failure_of
from cluster.order import TRACEBACK
from jobs.spec import JobFault, Unavailable

RESET = RuntimeError(
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:10671: "
    "Connection reset by peer. This is typically caused by a remote worker hanging"
)
KILLED = WorkerHealthCheckFailedError("A worker health check failed.\nWorker info: Worker(\n  ...\n)", ActorDiedError())


def group(**failures: Exception) -> WorkerGroupError:
    by_rank = {int(rank.removeprefix("rank")): fault for rank, fault in failures.items()}
    return WorkerGroupError("Training failed due to worker errors:", by_rank)


def raised(fault: Exception) -> Exception:
    """As a worker's exception arrives: with its traceback as an attribute."""
    fault.__dict__[TRACEBACK] = f"Traceback (most recent call last):\n  ...\n{type(fault).__name__}: {fault}\n"
    return fault


@pytest.mark.parametrize(
    "failures",
    [
        {"rank0": KILLED},
        {"rank0": KILLED, "rank1": RESET},
        {"rank0": ActorDiedError(), "rank1": ValueError("whatever a rank says when its peer dies")},
        {"rank1": RESET},
        {"rank0": JobFault("rank 1: RuntimeError: [enforce fail at gloo/transport/tcp/pair.cc] Broken pipe")},
    ],
    ids=["a rank", "a rank and its peer", "an odd peer", "the peer alone", "told by the group"],
)
def test_a_worker_that_is_gone_is_lost_whatever_its_peers_raise(failures: dict[str, Exception]) -> None:
    found = failure_of(group(**failures))
    assert found.ended == "lost"
    assert found.error and "\n" not in found.error


def test_a_controller_of_ray_train_that_fails_is_lost() -> None:
    found = failure_of(ControllerError(RuntimeError("the placement group was not ready within 60 s")))
    assert found.ended == "lost" and "60 s" in found.error


def test_a_node_that_went_before_its_workers_had_saved_is_lost() -> None:
    found = failure_of(PreemptionError(PreemptionInfo(0, {"4fd1": [1]}), drain_timed_out=True))
    assert found.ended == "lost" and "node preemption" in found.error


def test_something_outside_that_does_not_answer_loses_it_with_the_reason() -> None:
    full = raised(Unavailable("the checkpoint of step 8 was not saved (/c: No space left on device); that of 1 stands"))
    found = failure_of(group(rank0=full, rank1=full))
    assert found.ended == "lost"
    assert found.error.endswith("Unavailable: " + str(full))


def test_an_error_of_the_jobs_own_fails_it_with_the_traceback() -> None:
    found = failure_of(group(rank0=raised(RuntimeError("x")), rank1=raised(JobFault("step 7: the loss is not finite"))))
    assert found.ended == "failed"
    assert found.error.startswith("rank 1: Traceback")
    assert found.error.endswith("JobFault: step 7: the loss is not finite")


@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_ran_out_is_the_jobs_own_fault(wrapped: bool) -> None:
    killed = OutOfMemoryError("Task was killed due to the node running low on memory.")
    fault = WorkerHealthCheckFailedError("A worker health check failed.", killed) if wrapped else killed
    found = failure_of(group(rank0=fault, rank1=RESET))
    assert found.ended == "failed" and "low on memory" in found.error
