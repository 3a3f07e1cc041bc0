"""Whose fault it is that a segment's workers failed: the job's own, or that of a machine that went away.
In: what Ray Train raised in the segment's driver. Out: `failed` or `lost`, and the text that explains it.
cluster.segment makes the segment's result of it; the controller retries what is lost and never what has failed.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.order import TRACEBACK
from jobs.spec.errors import LowtideError, Unavailable

_PEER_GONE = re.compile(
    r"gloo/transport|connection (was )?(closed|reset) by peer|broken pipe|ncclRemoteError|ncclSystemError"
    r"|remote process exited|failed to (recv|send), got \d+ bytes|TCPStore",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say on the ranks that live on when a peer dies."""


@dataclass(frozen=True)
class Failure:
    """How a segment whose workers failed has ended, and why."""

    ended: Literal["failed", "lost"]
    error: str


def failure_of(fault: Exception) -> Failure:
    """`failed` where a worker raised an error of its own or ran out of memory.

    `lost` where a worker was gone, or something outside did not answer: a disk that is full, a file server.
    """
    from ray.exceptions import OutOfMemoryError
    from ray.train import WorkerGroupError

    failures = fault.worker_failures if isinstance(fault, WorkerGroupError) else {}
    causes: dict[int, Exception] = {rank: _unwrapped(each) for rank, each in failures.items()}
    memory = {rank: each for rank, each in causes.items() if isinstance(each, OutOfMemoryError)}
    if memory:
        return Failure("failed", _told(memory))
    gone = {rank: each for rank, each in causes.items() if _is_machines(each)}
    if gone:  # whatever the others raised then: they lost a peer in the middle of something
        return Failure("lost", "; ".join(f"rank {rank}: {_line(each)}" for rank, each in sorted(gone.items())))
    own = {rank: each for rank, each in causes.items() if not _lost_its_peer(each)}
    if own:
        return Failure("lost" if isinstance(_cause(own)[1], Unavailable) else "failed", _told(own))
    if causes:
        return Failure("lost", "; ".join(f"rank {rank} lost a peer" for rank in sorted(causes)))
    return Failure("lost", _line(fault))


def _unwrapped(fault: Exception) -> Exception:
    """What a failed health check found."""
    found = getattr(fault, "health_check_failure", None)
    return found if isinstance(found, Exception) else fault


def _is_machines(fault: Exception) -> bool:
    """Whether Ray says that the worker, its node or the way to it is gone."""
    from ray.exceptions import RayActorError, RaySystemError, WorkerCrashedError
    from ray.train.v2._internal.exceptions import (
        WorkerGroupStartupFailedError,
        WorkerGroupStartupTimeoutError,
        WorkerHealthCheckFailedError,
        WorkerHealthCheckTimeoutError,
    )

    startup = (WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError)
    health = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)
    return isinstance(fault, (RayActorError, RaySystemError, WorkerCrashedError, *startup, *health))


def _lost_its_peer(fault: Exception) -> bool:
    return bool(_PEER_GONE.search(str(fault)))


def _cause(own: Mapping[int, Exception]) -> tuple[int, Exception]:
    return min(own.items(), key=lambda item: (not isinstance(item[1], LowtideError), item[0]))


def _told(own: Mapping[int, Exception]) -> str:
    """The traceback of the rank that is the cause: an error that lowtide raised itself, else the first rank's."""
    rank, cause = _cause(own)
    text = getattr(cause, TRACEBACK, None) or "".join(traceback.format_exception(cause))
    return f"rank {rank}: {text.strip()}"


def _line(fault: Exception) -> str:
    """The sentence that says what happened; Ray's texts begin with where, and go on with hints."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
    telling = [line for line in lines if "died" in line or "dead" in line or "exit" in line or "not" in line]
    return (telling[-1] if telling else lines[0]).partition(" Some common causes")[0][:300]
