"""The one door between deciding and doing: what a controller may ask of a cluster, as plain values.
In: segment orders, desires and acknowledgements. Out: nodes, views of segments, metered rows.
`connect` returns the Ray implementation; nothing here imports Ray, so that the orchestrator starts fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from jobs.spec import JobSpec

Reason = Literal["start", "calibrate", "resume", "resize", "move", "retry"]
Ended = Literal["done", "paused", "resized", "moved", "window", "expired", "failed", "lost"]
Phase = Literal["start", "restore", "train", "evaluate", "checkpoint", "stop", "idle"]
Source = Literal["nvml-counter", "nvml-power", "rapl", "apportioned", "estimated"]


@dataclass(frozen=True)
class Node:
    """A host as the cluster sees it now; `zone` is its label `carbon-zone`, None where it has none."""

    node_id: str
    name: str
    zone: str | None
    gpus: float
    cpus: float
    free_gpus: float
    free_cpus: float
    gpu_kind: str | None = None
    """As Ray names it, e.g. `H100`; None where it tells none."""


@dataclass(frozen=True)
class Desire:
    """What the controller wants of a running segment: to train until `run_until`, then end as `ends_as`.

    A stop is a desire whose `run_until` has come. `epoch` is the lease's: an older one is refused.
    """

    run_until: datetime
    ends_as: Ended
    epoch: int


@dataclass(frozen=True)
class SegmentOrder:
    """One segment to start. Ordering it again with the same `segment_id` changes nothing."""

    segment_id: str
    job_id: str
    reason: Reason
    zone: str
    workers: int
    spec: JobSpec
    desire: Desire
    slot_s: float
    """Length of the site's slots: meters cut their rows at its edges (UTC)."""
    checkpoints: str
    """Folder of the job's checkpoints in this zone."""
    restore_from: str | None
    """Folder or URL that holds the newest checkpoint where that is another one (after a move); else None."""
    spool: str
    """Folder on each host where its meter keeps rows until they are acknowledged."""
    threads: int | None = None
    """OMP_NUM_THREADS of each worker; None lets Ray choose by the worker's CPUs."""
    power_limit_w: int | None = None
    """W that each of the segment's GPUs may draw; None is the limit that it has by itself."""
    also_at: tuple[str, ...] = ()
    """Other folders and URLs where a checkpoint as new or newer may lie, as after a segment that was lost."""
    mirror: str | None = None
    """URL where the zone keeps what is published in `checkpoints`; None where the folder is its own place."""
    start_step: int = 0
    """Where the job's newest checkpoint stands, as far as the controller knows."""
    nodes: tuple[str, ...] = ()
    """Ids of the nodes that the controller chose for the workers; where they have no room any more, any of the zone."""


@dataclass(frozen=True)
class Progress:
    """The newest word of a running segment, from rank 0."""

    at: datetime
    phase: Phase
    step: int
    steps: int
    loss: float | None
    trained_steps: int
    """Steps done in this segment."""
    trained_s: float
    """Seconds those steps took, without start, restore, evaluation and checkpoints."""
    power_limit_w: int | None = None
    """The limit that holds on all of the segment's GPUs since it began, where it wished for one; else None."""
    power_limit_refused: str | None = None
    """Why that is not the one that it wished for."""
    note: str = ""
    """What the user shall know though training goes on; empty where all is well."""


@dataclass(frozen=True)
class SegmentResult:
    """How a segment ended, in its own words."""

    at: datetime
    ended: Ended
    step: int
    steps: int
    metrics: Mapping[str, float]
    """Last known: loss, holdout_loss, samples, tokens."""
    parts_s: Mapping[str, float]
    """Measured seconds by part: driver, workers, imports, restore, first_step, train, step_end, checkpoint, publish."""
    checkpoint_bytes: int
    error: str | None = None
    """The worker's traceback where `ended` is failed, also where lost if there is one; the last line says why."""
    power_limit_w: int | None = None
    """The limit that held on all of the segment's GPUs from beginning to end, where it wished for one; else None."""
    power_limit_refused: str | None = None
    """Why that is not the one that it wished for."""
    moved_bytes: int | None = None
    """Bytes read from elsewhere for the checkpoint that it began with, as they came; None where it did not tell."""
    moved_from: str | None = None
    """The folder or URL that they came from."""


@dataclass(frozen=True)
class SegmentView:
    """A segment as the cluster shows it: `lost` where the cluster no longer knows it and it left no result."""

    segment_id: str
    status: Literal["pending", "running", "ended", "lost"]
    progress: Progress | None = None
    result: SegmentResult | None = None
    message: str = ""


@dataclass(frozen=True)
class MeterRow:
    """Joules that one device drew for one owner in the half-open interval [start, end).

    (host_boot, device, seq) is the key: taking a row twice changes nothing. `energy_j` is None where the meter could
    not read: those seconds are unmetered, never zero. Rows with no job are the host's idle account.
    """

    host_boot: str
    device: str
    seq: int
    node: str
    start: datetime
    end: datetime
    energy_j: float | None
    source: Source
    phase: Phase
    job_id: str | None = None
    segment_id: str | None = None
    rank: int | None = None
    """The worker's rank; -1 is the segment's driver; None with no job."""
    uuid: str | None = None
    """The GPU's UUID; None for CPUs."""


@dataclass(frozen=True)
class Gauge:
    """One sample for the cluster's metrics; `name` as in the README, without Ray's prefix."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing that training needs of a machine: there, or missing with the way to mend it."""

    what: str
    ok: bool
    text: str


class Cluster(Protocol):
    """What the controller needs of a cluster. Every method raises Unavailable where the cluster does not answer."""

    @property
    def dashboard_url(self) -> str:
        """Address of the Ray dashboard."""

    def nodes(self) -> list[Node]:
        """The nodes that are alive now."""

    def start(self, order: SegmentOrder) -> None:
        """Start a segment; a no-op where its id is known already.

        StaleEpoch where the epoch is old, Refused where the cluster answers and this segment cannot be started.
        """

    def desire(self, segment_id: str, desire: Desire) -> None:
        """Renew or end a segment. StaleEpoch where the epoch is old; a no-op for a segment that ended."""

    def observe(self, segment_ids: Sequence[str]) -> dict[str, SegmentView]:
        """A view of every segment asked for."""

    def kill(self, segment_id: str) -> None:
        """End a segment without a checkpoint; for one that does not answer any more."""

    def logs(self, segment_id: str, follow: bool = False) -> Iterator[str]:
        """What the segment wrote, in pieces as they come."""

    def collect(self, spool: str) -> list[MeterRow]:
        """Rows that meters hold, oldest first; they stay with the meters until acknowledged."""

    def acknowledge(self, spool: str, rows: Sequence[MeterRow]) -> None:
        """Tell the meters that these rows are committed."""

    def publish(self, gauges: Sequence[Gauge]) -> None:
        """Send the figures of this pass to the cluster's metrics."""


def connect(address: str) -> Cluster:
    """The cluster at a Ray GCS address (`host:port`, or `auto`); Unavailable where none answers."""
    from cluster.ray_cluster import RayCluster

    return RayCluster(address)


def diagnose() -> list[Finding]:
    """What training needs of this machine: compiler, Ray, torch, DeepSpeed, NVML."""
    from cluster.diagnose import diagnose as look

    return look()


def reach(place: str) -> str:
    """Try out a folder or URL for checkpoints from here; Unavailable or InputError where it will not do."""
    from jobs.checkpoints.target import reach as attempt

    return attempt(place)


def prepare() -> None:
    """Build what DeepSpeed compiles on its first run on CPUs, so that no segment waits for it; JobFault if it fails."""
    from jobs.compiler import build

    build()


def start_local(state: str, zone: str, cpus: int | None = None) -> str:
    """Start (or find) the embedded Ray of a state folder, detached, on loopback; returns its address."""
    from cluster.local import start

    return start(state, zone, cpus)


def find_local(state: str) -> str | None:
    """The address of the embedded Ray of a state folder; None where none runs."""
    from cluster.local import find

    return find(state)


def stop_local(state: str) -> bool:
    """End the embedded Ray of a state folder by its own process ids; False where none runs."""
    from cluster.local import stop

    return stop(state)
