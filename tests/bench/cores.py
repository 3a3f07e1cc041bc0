"""Which processes of the embedded Ray, and of the bench beside it, used how much of a core.
In: the head's process id, and two looks at the processes with a while between them. Out: cores by kind of process.
`tests.bench.training` shows them, so that a lost percent of throughput has a name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

OTHERS = "dashboard, agents"
_KINDS = (
    ("RayTrainWorker", "workers"),
    ("MeterActor", "meter"),
    ("ray::Control", "control actor"),
    ("TrainController", "Train's controller"),
    ("cluster.segment", "segment's driver"),
    ("bare.py", "bare driver"),
    ("cluster.attachment", "attachment"),
    ("JobSupervisor", "job supervisor"),
    ("raylet/raylet", "raylet"),
    ("gcs_server", "GCS"),
    ("SynchronizationActor", "Train's barrier"),
    ("DatasetManager", "Train's dataset manager"),
    ("PlacementGroupCleaner", "Train's cleaner"),
    ("TrainStateActor", "Train's state"),
    ("AutoscalingCoordinator", "Train's autoscaling"),
    ("ray::DashboardAgent", OTHERS),
    ("ray::RuntimeEnvAgent", OTHERS),
    ("ray::IDLE", "idle workers"),
    ("ray::", "other actors"),
)


@dataclass(frozen=True)
class Seen:
    """CPU seconds of every process at one moment."""

    at_s: float
    cpu_s: Mapping[tuple[int, float], tuple[str, float]]
    """By process id and start: its kind and CPU seconds."""


def look(head_pid: int) -> Seen:
    """The CPU seconds of Ray's processes, and of this process and its children."""
    cpu_s = {}
    for process in own(head_pid):
        with suppress(psutil.Error):  # it ended just now
            times = process.cpu_times()
            cpu_s[process.pid, process.create_time()] = (_kind(process), times.user + times.system)
    return Seen(time.monotonic(), cpu_s)


def cores(before: Seen, after: Seen) -> dict[str, float]:
    """Cores used between two looks, by kind of process."""
    used: dict[str, float] = {}
    for key, (kind, cpu_s) in after.cpu_s.items():
        used[kind] = used.get(kind, 0.0) + cpu_s - before.cpu_s.get(key, (kind, 0.0))[1]
    return {kind: cpu_s / (after.at_s - before.at_s) for kind, cpu_s in used.items()}


def own(head_pid: int) -> list[psutil.Process]:
    """The processes of the Ray whose head this is, this process and its children."""
    roots = [psutil.Process(head_pid), psutil.Process()]
    return list({each.pid: each for root in roots for each in (root, *root.children(recursive=True))}.values())


def of_kind(head_pid: int, *kinds: str) -> list[psutil.Process]:
    """Those of the processes that are of these kinds."""
    found = []
    for process in own(head_pid):
        with suppress(psutil.Error):
            if _kind(process) in kinds:
                found.append(process)
    return found


def memory_mb(head_pid: int) -> dict[str, float]:
    """Megabytes of the processes by kind: each page shared among n of them counts as one nth (PSS)."""
    found: dict[str, float] = {}
    for process in own(head_pid):
        with suppress(psutil.Error):
            kind = _kind(process)
            found[kind] = found.get(kind, 0.0) + process.memory_full_info().pss / 1e6
    return found


def _kind(process: psutil.Process) -> str:
    if process.pid == psutil.Process().pid:
        return "this bench"
    command = " ".join(process.cmdline())
    return next((kind for part, kind in _KINDS if part in command), OTHERS)
