"""The facts of one job that its report is made from, as plain values.
In: what the store holds. Out: an Account.
`ledger` adds it up; `run_now` compares it; the report shows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cluster.api import Ended, MeterRow, Reason
from orchestrator.accounting.pue import Pue
from orchestrator.plan.problem import Observed, PlannedSlot
from orchestrator.signal.forecast import Kind, Signal


@dataclass(frozen=True, slots=True)
class Intensity:
    """gCO2eq/kWh of a zone's grid in [start, end); None is unknown. Overlaps are allowed: see `charge.Curve.of`."""

    zone: str
    start: datetime
    end: datetime
    g_per_kwh: float | None
    kind: Kind = "measured"
    provider: str = ""
    signal: Signal = "average"
    fetched_at: datetime | None = None
    """Of two of one kind the later fetched one charges: a revision revises the report."""


@dataclass(frozen=True, slots=True)
class ZoneFacts:
    """What the site file says of a zone; None is not given, which is not zero."""

    pue: Pue = 1.0
    """A number, or a series by time."""
    embodied_g_per_gpu_hour: float | None = None
    transfer_j_per_byte: float | None = None
    charged_by: tuple[str, ...] = ()
    """The providers that it is charged by, the first choice first; any other one comes after them."""
    mix: bool = False
    """Whether marginal intensities fill in where an average one is missing."""
    wue_l_per_kwh: float | None = None
    """Litres of water at the site by kWh of the computers' energy."""
    node_overhead_w: float | None = None
    """What a node draws beside what is metered: fans, network, disks."""


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """One stretch of a job; `ended_at` and `ended` are None while it runs."""

    segment_id: str
    n: int
    zone: str
    workers: int
    reason: Reason
    started_at: datetime
    ended_at: datetime | None = None
    ended: Ended | None = None
    start_step: int = 0
    end_step: int = 0
    """The newest step it told of, also while it runs."""
    gpus: int = 0
    """Of all its workers together."""
    trained_s: float | None = None
    """Seconds its steps took, as the workers timed them; None where they did not tell."""
    first_step_s: float | None = None
    """Of these the first step's, which warms up: run-now has it once, every resume has it again."""
    step_parts_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of `trained_s` by part of a step, as the workers sampled them; empty where they did not tell."""
    parts_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds of starting and stopping by part; empty where it has not told."""
    power_limit_w: int | None = None
    """W per GPU that it ran under; None is no limit of ours."""
    silent_hosts: frozenset[str] = frozenset()
    """Boots of hosts that have written nothing since it was lost: their meters died with them."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A checkpoint that moved between zones, charged where it came from."""

    at: datetime
    zone: str
    moved_bytes: int | None
    """As they went, compressed or not; None is not known."""
    to_zone: str = ""
    duration_s: float | None = None
    """How long it took; None is not known."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another job on a host of this one's in [start, end)."""

    host_boot: str
    job_id: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Beside:
    """What another job drew on a host of this one's from `start` on, by its rows; None is what nobody held."""

    host_boot: str
    job_id: str | None
    start: datetime
    energy_j: float


@dataclass(frozen=True, slots=True)
class LossAt:
    """The newest loss that a running job told, and its step."""

    at: datetime
    step: int
    loss: float


@dataclass(frozen=True)
class Account:
    """All facts that a report on one job is made from; `at` is the moment of the report."""

    job_id: str
    name: str
    state: str
    at: datetime
    submitted_at: datetime
    zones: Mapping[str, ZoneFacts]
    """The zones that the job may run in, and any others where it did."""
    allowed: tuple[str, ...]
    """The zones that the job may run in: run-now chooses among them."""
    step: int = 0
    steps: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    segments: Sequence[SegmentFacts] = ()
    rows: Sequence[MeterRow] = ()
    """In any order; a row given twice counts once, and rows of other jobs or of none are left out."""
    intensities: Sequence[Intensity] = ()
    transfers: Sequence[Transfer] = ()
    planned: Sequence[PlannedSlot] = ()
    """The newest plan, for the picture."""
    observed: Observed | None = None
    """What a plan would have done, where the policy is `observe`."""
    neighbours: Sequence[Neighbour] = ()
    """Other jobs on its hosts, where a zone gives `node_overhead_w`."""
    beside: Sequence[Beside] = ()
    """What they drew there, and what nobody did, likewise."""
    left_rows: Sequence[MeterRow] = ()
    """Rows of the GPUs that it held, idle or of other jobs', from its first segment on."""
    marginal: Sequence[Intensity] = ()
    """What is known of marginal intensities, whatever charges."""
    average: Sequence[Intensity] = ()
    """What is known of average intensities, whatever charges."""
    losses: Sequence[LossAt] = ()
    """Oldest first, a thin series: for loggers alone."""
    batch_size: int | None = None
    sequence_length: int | None = None
    project: str | None = None
    user: str | None = None
    generated_grid: bool = False
    """True where the intensities are made up for a demonstration; provider `demo` says so by itself."""


def end_of(segment: SegmentFacts, facts: Account) -> datetime:
    """When the segment ended, or the moment of the report while it runs."""
    return segment.ended_at if segment.ended_at is not None else max(facts.at, segment.started_at)


def gpu_hours(segment: SegmentFacts, facts: Account) -> float:
    """GPUs x hours that the segment held them."""
    return segment.gpus * (end_of(segment, facts) - segment.started_at).total_seconds() / 3600


def own_rows(facts: Account) -> list[MeterRow]:
    """The job's rows in order of time, each key once."""
    rows = {(row.host_boot, row.device, row.seq): row for row in facts.rows if row.job_id == facts.job_id}
    return sorted(rows.values(), key=lambda row: (row.start, row.end, row.host_boot, row.device, row.seq))
