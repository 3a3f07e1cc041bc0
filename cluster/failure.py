"""Whose fault it is that a segment's workers failed: the job's own, or that of a machine that went away.
In: what Ray Train raised in the segment's driver. Out: `failed` or `lost`, and the text that explains it.
cluster.segment makes the segment's result of it; the controller retries what is lost and never what has failed.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.order import TRACEBACK
from jobs.patience import is_outside
from jobs.spec.errors import Fenced, LowtideError, Unavailable
from jobs.telling import telling

_PEER_GONE = re.compile(
    r"gloo/|DistNetworkError|DistStoreError|SocketImpl|TCPStore|failed to (recv|send), got \d+ bytes"
    r"|ncclRemoteError|ncclSystemError|NCCL communicator was aborted|remote process exited"
    r"|Watchdog caught collective operation timeout",
    re.IGNORECASE,
)
"""What gloo, NCCL and torch's store say on the ranks that live on when a peer dies; a socket of the job's own names
none of them."""
_MACHINES = re.compile(
    r"uncorrectable (ECC|NVLink) error|unspecified launch failure|hardware (stack )?error|CUDA error: unknown"
    r"|device\(s\) is/are busy or unavailable|launch timed out|no CUDA-capable device is detected"
    r"|system not yet initialized|GPU is lost|fallen off the bus|\bXid\b",
    re.IGNORECASE,
)
"""What CUDA and NVML say of a GPU, or of its driver, that is broken; an illegal access is the program's own."""
_IN_USE = re.compile(
    r"Memory on the node \(.*?\)(?: where .*? was running)? was (.+?)(?:, which exceeds|$)", re.MULTILINE
)
_ENDED_BY_NOBODY = re.compile(r"died unexpectedly|connection error code|SIGKILL", re.IGNORECASE)
_LINE_CHARS = 400


@dataclass(frozen=True)
class Failure:
    """How a segment whose workers failed has ended, and why: tracebacks, and in the last line the cause."""

    ended: Literal["failed", "lost"]
    error: str


def failure_of(fault: Exception, starved: Callable[[], Mapping[int, bool]] = dict) -> Failure:
    """`failed` where a worker raised an error of its own or ran out of memory.

    `lost` where a worker was gone, its GPU broken, something outside did not answer (a disk that is full, a file
    server), or a later segment of the job has taken over. `starved` tells of ranks whose process is gone whether the
    kernel was killing for want of memory then; of a rank that it leaves out nobody knows.
    """
    from ray.exceptions import OutOfMemoryError
    from ray.train import WorkerGroupError

    failures = fault.worker_failures if isinstance(fault, WorkerGroupError) else {}
    causes: dict[int, Exception] = {rank: _unwrapped(each) for rank, each in failures.items()}
    memory = {rank: _killed_by_ray(each) for rank, each in causes.items() if isinstance(each, OutOfMemoryError)}
    if memory:
        return Failure("failed", _lines(memory))
    gone = {rank: each for rank, each in causes.items() if _is_gone(each)}
    others = {rank: each for rank, each in causes.items() if rank not in gone}
    if gone:  # whatever the others raised then: they lost a peer in the middle of something
        return _of_gone(gone, others, starved())
    broken = {rank: each for rank, each in others.items() if _MACHINES.search(str(each))}
    if broken:
        return Failure("lost", _told(broken))
    own = {rank: each for rank, each in others.items() if not _lost_its_peer(each)}
    if own:
        return Failure("lost" if _is_not_its_own(_cause(own)[1]) else "failed", _told(own))
    if others:
        return Failure("lost", _told(others, "lost a peer: "))
    return Failure("lost", _line(fault))


def _of_gone(gone: Mapping[int, Exception], others: Mapping[int, Exception], starved: Mapping[int, bool]) -> Failure:
    """The end of a segment of which some processes are gone, with what the `others` said to it."""
    odd = {rank: each for rank, each in others.items() if not _lost_its_peer(each)} or others
    said = "".join(f"rank {rank}: {_traceback(cause)}\n" for rank, cause in [_cause(odd)]) if odd else ""
    killed = {rank: "out of memory: the kernel has killed it" for rank in gone if starved.get(rank)}
    if killed:
        return Failure("failed", said + _lines(killed))
    return Failure("lost", said + _lines({rank: _gone(each, rank in starved) for rank, each in gone.items()}))


def _unwrapped(fault: Exception) -> Exception:
    """What a failed health check found."""
    found = getattr(fault, "health_check_failure", None)
    return found if isinstance(found, Exception) else fault


def _is_gone(fault: Exception) -> bool:
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
    return not isinstance(fault, OSError) and bool(_PEER_GONE.search(f"{type(fault).__name__}: {fault}"))


def _is_not_its_own(fault: Exception) -> bool:
    return isinstance(fault, (Unavailable, Fenced)) or is_outside(fault)


def _cause(own: Mapping[int, Exception]) -> tuple[int, Exception]:
    """The rank that is the cause: an error that lowtide raised itself, else the first rank's."""
    return min(own.items(), key=lambda item: (not isinstance(item[1], LowtideError), item[0]))


def _traceback(cause: Exception) -> str:
    text = getattr(cause, TRACEBACK, None) or "".join(traceback.format_exception(cause))
    return str(text).strip()


def _told(own: Mapping[int, Exception], how: str = "") -> str:
    """The traceback of the cause; where that does not end with the line that says why, this once more."""
    rank, cause = _cause(own)
    text = _traceback(cause)
    line = telling(text)
    if text.endswith(line) and not how:
        return f"rank {rank}: {text}"
    return f"rank {rank}: {text}\n" + _lines({rank: how + line})


def _lines(said: Mapping[int, str]) -> str:
    return "; ".join(f"rank {rank}: {text[:_LINE_CHARS]}" for rank, text in sorted(said.items()))


def _killed_by_ray(fault: Exception) -> str:
    found = _IN_USE.search(str(fault))
    return "out of memory: Ray has killed it, for its node ran low" + (f": {found[1]}" if found else "")


def _gone(fault: Exception, is_known: bool) -> str:
    """What Ray says of a process that is gone, and what may have ended it where nobody can tell."""
    line = _line(fault)
    return f"{line} (perhaps out of memory)" if not is_known and _ENDED_BY_NOBODY.search(str(fault)) else line


def _line(fault: Exception) -> str:
    """The sentence that says what happened; Ray's texts begin with where, and go on with hints."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()] or [type(fault).__name__]
    saying = [line for line in lines if "died" in line or "dead" in line or "exit" in line or "not" in line]
    return (saying[-1] if saying else lines[0]).partition(" Some common causes")[0][:300]
