"""Whose fault a failed worker group is: machines are retried, the job's own errors are not.
In: the exceptions that Ray Train raises in a segment's driver. Out: nothing.
The fault campaign and the segments' integration test make Ray raise them itself.
"""

from __future__ import annotations

import errno
import os

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, PreemptionError
from ray.train.v2.api.preemption import PreemptionInfo

from cluster.failure import failure_of
from cluster.order import TRACEBACK
from jobs.group import _portable
from jobs.spec import JobFault, Unavailable
from orchestrator.controller.settle import cause_of

RESET = RuntimeError(
    "[/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:10671: "
    "Connection reset by peer. This is typically caused by a remote worker hanging"
)
HINTS = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
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
    ("failures", "why"),
    [
        ({"rank0": KILLED}, "rank 0: The actor died"),
        ({"rank0": KILLED, "rank1": RESET}, "rank 0: The actor died"),
        ({"rank0": ActorDiedError(), "rank1": ValueError("said when a peer dies")}, "rank 0: The actor died"),
        ({"rank1": RESET}, "rank 1: lost a peer: RuntimeError: [/__w/pytorch"),
        (
            {"rank0": JobFault("rank 1: RuntimeError: [enforce fail at gloo/transport/tcp/pair.cc] Broken pipe")},
            "rank 0: lost a peer: jobs.spec.errors.JobFault: rank 1: RuntimeError: [enforce fail",
        ),
        (
            {"rank0": RuntimeError("NCCL communicator was aborted on rank 0.")},
            "rank 0: lost a peer: RuntimeError: NCCL",
        ),
    ],
    ids=["a rank", "a rank and its peer", "an odd peer", "the peer alone", "told by the group", "NCCL"],
)
def test_a_worker_that_is_gone_is_lost_whatever_its_peers_raise(failures: dict[str, Exception], why: str) -> None:
    found = failure_of(group(**failures))
    assert found.ended == "lost"
    assert cause_of(found.error).startswith(why)


def test_what_the_peers_of_a_worker_that_is_gone_raised_is_kept() -> None:
    found = failure_of(group(rank0=KILLED, rank1=raised(RESET), rank2=raised(ValueError("an odd end"))))
    assert "rank 2: Traceback" in found.error and "ValueError: an odd end" in found.error


@pytest.mark.parametrize("fault", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Connection reset")])
def test_a_broken_pipe_of_the_jobs_own_is_its_own(fault: Exception) -> None:
    found = failure_of(group(rank0=raised(fault), rank1=RESET))
    assert found.ended == "failed"
    assert found.error.startswith("rank 0: Traceback") and cause_of(found.error) == f"{type(fault).__name__}: {fault}"


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        ("uncorrectable ECC error encountered", "lost"),
        ("uncorrectable NVLink error detected during the execution", "lost"),
        ("unspecified launch failure", "lost"),
        ("hardware stack error", "lost"),
        ("CUDA-capable device(s) is/are busy or unavailable", "lost"),
        ("unknown error", "lost"),
        ("an illegal memory access was encountered", "failed"),
        ("device-side assert triggered", "failed"),
        ("misaligned address", "failed"),
        ("out of memory", "failed"),
    ],
)
@pytest.mark.parametrize("told_by_the_group", [False, True])
def test_a_broken_gpu_is_the_machines_and_a_wrong_program_the_jobs(
    said: str, ended: str, told_by_the_group: bool
) -> None:
    text = f"CUDA error: {said}\n" + HINTS
    fault = JobFault(f"rank 1: RuntimeError: {text}") if told_by_the_group else RuntimeError(text)
    aborted = raised(RuntimeError("NCCL communicator was aborted on rank 1. Original reason for failure was: NCCL"))
    found = failure_of(group(rank0=raised(fault), rank1=aborted))
    assert found.ended == ended
    assert cause_of(found.error).endswith(f"RuntimeError: CUDA error: {said}")
    assert "Compile with" in found.error, "all that was said is kept"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ESTALE, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_or_gone_is_not_the_jobs_fault(code: int) -> None:
    fault = OSError(code, os.strerror(code), "/mnt/nfs/x")
    alone = failure_of(group(rank0=raised(fault)))
    told = failure_of(group(rank0=raised(fault), rank1=raised(_portable(fault, 0))))
    assert (alone.ended, told.ended) == ("lost", "lost")
    assert all(os.strerror(code) in cause_of(found.error) for found in (alone, told))


def test_a_file_that_is_not_there_is_the_jobs_fault() -> None:
    assert failure_of(group(rank0=raised(FileNotFoundError(2, "No such file", "/x")))).ended == "failed"


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
@pytest.mark.parametrize(
    ("memory", "told"),
    [
        (
            "Memory on the node (IP: 1, ID: 2) was 30.1GB used / 31GB limit (0.97)",
            "30.1GB used / 31GB limit (0.97)",
        ),
        (
            "Memory on the node (IP: 1, ID: 2) where the task (x) was running was 30.1GB / 31GB (0.97), which exceeds "
            "the memory usage threshold of 0.95. It was killed.",
            "30.1GB / 31GB (0.97)",
        ),
    ],
    ids=["Ray 2.56", "earlier ones"],
)
def test_memory_that_ran_out_is_the_jobs_own_fault(wrapped: bool, memory: str, told: str) -> None:
    hint = "Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/x."
    killed = OutOfMemoryError(f"Task was killed due to the node running low on memory.\n{memory}\n{hint}")
    fault = WorkerHealthCheckFailedError("A worker health check failed.", killed) if wrapped else killed
    found = failure_of(group(rank0=fault, rank1=RESET))
    assert found.ended == "failed"
    assert cause_of(found.error) == f"rank 0: out of memory: Ray has killed it, for its node ran low: {told}"


@pytest.mark.parametrize(
    ("starved", "ended", "why"),
    [
        ({0: True}, "failed", "rank 0: out of memory: the kernel has killed it"),
        ({0: False}, "lost", "rank 0: The actor died unexpectedly before finishing this task."),
        ({1: True}, "lost", "(perhaps out of memory)"),
        ({}, "lost", "(perhaps out of memory)"),
    ],
    ids=["it was killed for memory", "it was not", "another was", "nobody knows"],
)
def test_a_process_that_the_kernel_killed_for_memory_has_failed(starved: dict[int, bool], ended: str, why: str) -> None:
    found = failure_of(group(rank0=KILLED, rank1=raised(RESET)), lambda: starved)
    assert found.ended == ended and cause_of(found.error).endswith(why)
    assert "Connection reset by peer" in found.error


def test_a_node_that_died_is_not_said_to_have_run_out_of_memory() -> None:
    found = failure_of(group(rank0=RayActorError(error_msg="The actor died because its node has died. Node Id: 4fd1")))
    assert found.ended == "lost" and "memory" not in found.error
