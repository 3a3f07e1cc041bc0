"""The tables of the store: wishes of users, facts of segments, ledger rows, intensities, the lease.
In: nothing. Out: mapped classes that store.py reads and writes.
Facts are appended; figures (grams, savings) are never stored, the report derives them.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A UTC-aware datetime in and out, also on databases that keep no zone; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC, before it is written."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the store takes no time without a zone")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """With its zone, after it is read."""
        if value is None:
            return None
        return value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)


class Prose(TypeDecorator[str]):
    """Text that others wrote, as a traceback: what a database's text cannot hold is written as its escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """NUL, which PostgreSQL refuses, and halves of a character, which no UTF-8 has, before it is written."""
        if value is None:
            return None
        return value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


class Table(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {
        datetime: UtcTime(),
        dict[str, Any]: JSON,
        list[dict[str, Any]]: JSON,
        list[float | None]: JSON,
        list[str]: JSON,
    }


class SchemaVersion(Table):
    """The one row that says which migrations have run."""

    __tablename__ = "schema_version"
    one: Mapped[int] = mapped_column(Integer, primary_key=True, default=1)
    version: Mapped[int]


class Job(Table):
    """A spec with its state; `wish` is what the user last asked for, the rest is the controller's."""

    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), index=True)
    spec: Mapped[dict[str, Any]]
    likeness: Mapped[str] = mapped_column(String(64), index=True)
    """Hash of what decides speed and power: jobs with the same one learn from each other."""
    submitted_at: Mapped[datetime]
    finish_by: Mapped[datetime | None]
    priority: Mapped[int] = mapped_column(default=0)
    wish: Mapped[str] = mapped_column(String(10), default="run")
    """run, hold or cancel."""
    state: Mapped[str] = mapped_column(String(10), default="queued", index=True)
    reason: Mapped[str] = mapped_column(Prose, default="no controller has seen it yet")
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int | None]
    zone: Mapped[str | None] = mapped_column(String(80))
    """Where its newest checkpoint lies."""
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    retries: Mapped[int] = mapped_column(default=0)
    """Segments lost in a row; a good one sets it back."""
    not_before: Mapped[datetime | None]
    """No start before it: the spec's, or the back-off after a lost segment."""
    ended_at: Mapped[datetime | None] = mapped_column(index=True)
    plan: Mapped[dict[str, Any] | None]
    """The newest plan as `plan --json` shows it."""
    planned_for: Mapped[str | None] = mapped_column(String(64))
    """Hash of what the newest plan was made from: unchanged, the plan stands."""


_RUNS = text("ended IS NULL")
_OWES = text("rows_due IS NOT NULL")


class Segment(Table):
    """One stretch of a job: written before it is ordered, so that a pass that dies is finished by the next."""

    __tablename__ = "segments"
    id: Mapped[str] = mapped_column(String(140), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    n: Mapped[int]
    zone: Mapped[str] = mapped_column(String(80))
    workers: Mapped[int]
    gpus: Mapped[int]
    reason: Mapped[str] = mapped_column(String(10))
    restore_from: Mapped[str | None] = mapped_column(Text)
    run_until: Mapped[datetime]
    ends_as: Mapped[str] = mapped_column(String(10))
    ordered_at: Mapped[datetime]
    known: Mapped[bool] = mapped_column(default=False)
    """True once the cluster has shown it."""
    start_step: Mapped[int]
    step: Mapped[int]
    trained_steps: Mapped[int] = mapped_column(default=0)
    trained_s: Mapped[float] = mapped_column(Float, default=0.0)
    first_step_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ended: Mapped[str | None] = mapped_column(String(10))
    parts_s: Mapped[dict[str, Any]] = mapped_column(default=dict)
    checkpoint_bytes: Mapped[int | None] = mapped_column(BigInteger)
    moved_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Bytes read from elsewhere for the checkpoint that it began with; None where it did not tell."""
    moved_from: Mapped[str | None] = mapped_column(Prose)
    """The folder or URL that they came from."""
    note: Mapped[str | None] = mapped_column(Prose)
    """What its workers last said that the user shall know, such as that a checkpoint could not be saved."""
    error: Mapped[str | None] = mapped_column(Prose)
    power_limit_w: Mapped[int | None]
    """W per GPU, as ordered; None is no limit of ours."""
    power_limit_refused: Mapped[str | None] = mapped_column(Prose)
    """Why the limit could not be set: the segment then ran without it."""
    phase: Mapped[str | None] = mapped_column(String(16))
    """What its workers last said that they do; None before their first word."""
    looked_at: Mapped[datetime | None]
    """When a pass last saw it."""
    quiet_s: Mapped[float] = mapped_column(Float, default=0.0)
    """Seconds without another step or phase, as passes saw them; once it is to end, since then."""
    hung: Mapped[str | None] = mapped_column(Prose)
    """Why it is killed; None where it is not."""
    refusals: Mapped[int] = mapped_column(default=0)
    """How often the cluster has refused to start it."""
    rows_due: Mapped[datetime | None]
    """When the meters of its hosts shall be asked for rows again: it has ended, and some were silent since."""
    __table_args__ = (
        Index("segments_that_run", "job_id", sqlite_where=_RUNS, postgresql_where=_RUNS),
        Index("segments_that_owe_rows", "rows_due", sqlite_where=_OWES, postgresql_where=_OWES),
    )

    @property
    def mode(self) -> tuple[int, int | None]:
        """Workers and power limit, as ordered."""
        return self.workers, self.power_limit_w

    @property
    def holds_room(self) -> bool:
        """Whether its workers hold their GPUs and CPUs, so that the cluster shows them as taken."""
        return self.phase is not None or self.first_step_at is not None

    @property
    def ran_as(self) -> tuple[int, int | None]:
        """Workers and power limit as it runs, or ran: without a limit that was refused."""
        return self.workers, None if self.power_limit_refused else self.power_limit_w


class LedgerRow(Table):
    """A MeterRow; its key is the meter's own, so that a row taken twice is one row."""

    __tablename__ = "ledger_rows"
    host_boot: Mapped[str] = mapped_column(String(64), primary_key=True)
    device: Mapped[str] = mapped_column(String(80), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    node: Mapped[str] = mapped_column(String(255))
    start: Mapped[datetime]
    end: Mapped[datetime]
    energy_j: Mapped[float | None] = mapped_column(Float)
    source: Mapped[str] = mapped_column(String(16))
    phase: Mapped[str] = mapped_column(String(16))
    job_id: Mapped[str | None] = mapped_column(String(120), index=True)
    segment_id: Mapped[str | None] = mapped_column(String(140), index=True)
    rank: Mapped[int | None]
    uuid: Mapped[str | None] = mapped_column(String(80))
    place: Mapped[int | None] = mapped_column(BigInteger)
    """Its number in the chain, from 1 on; None where something else than lowtide wrote it."""
    link: Mapped[str | None] = mapped_column(String(64))
    """Hash of the link before and of this row: see chain.py."""
    __table_args__ = (
        Index("ledger_rows_by_place", "place", unique=True),
        Index("ledger_rows_by_uuid_and_start", "uuid", "start"),
    )


class Draw(Table):
    """Running sums of the ledger rows of one rank and device in a segment, for passes over many jobs: see draws.py."""

    __tablename__ = "draws"
    segment_id: Mapped[str] = mapped_column(String(140), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(String(80), primary_key=True)
    job_id: Mapped[str] = mapped_column(String(120), index=True)
    energy_j: Mapped[float] = mapped_column(Float)
    train_j: Mapped[float] = mapped_column(Float)
    train_s: Mapped[float] = mapped_column(Float)
    """Metered seconds of phase `train`."""
    last_start: Mapped[datetime]
    last_end: Mapped[datetime]
    last_j: Mapped[float | None] = mapped_column(Float)
    """Of the newest row; None is unmetered."""


class IntensityRow(Table):
    """What a provider said of one slot of the past; a revision is a further row with a later `fetched_at`."""

    __tablename__ = "intensities"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    zone: Mapped[str] = mapped_column(String(80))
    provider: Mapped[str] = mapped_column(String(80))
    signal: Mapped[str] = mapped_column(String(10))
    start: Mapped[datetime]
    end: Mapped[datetime]
    g_per_kwh: Mapped[float | None] = mapped_column(Float)
    kind: Mapped[str] = mapped_column(String(10))
    note: Mapped[str | None] = mapped_column(Prose)
    """The provider's own remark, such as that the grid is generated."""
    fetched_at: Mapped[datetime]
    place: Mapped[int | None] = mapped_column(BigInteger)
    """Its number in the chain, as a ledger row's."""
    link: Mapped[str | None] = mapped_column(String(64))
    __table_args__ = (
        Index("intensities_by_zone_and_start", "zone", "start"),
        Index("intensities_by_place", "place", unique=True),
    )


class ChainEnd(Table):
    """Where the chain of one table ends: how many rows it has and the link of the last, so that a cut end shows."""

    __tablename__ = "chain_ends"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    link: Mapped[str] = mapped_column(String(64))


class ForecastRow(Table):
    """The newest forecast of a zone for a purpose (to plan or to charge by), or why there is none."""

    __tablename__ = "forecasts"
    zone: Mapped[str] = mapped_column(String(80), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(10), primary_key=True)
    tried_at: Mapped[datetime]
    fault: Mapped[str | None] = mapped_column(Prose)
    forecast: Mapped[dict[str, Any] | None]
    measured_at: Mapped[datetime | None]
    """When what was measured was last asked for, whatever came."""


class EarlierForecast(Table):
    """A forecast as its provider gave it, in hourly means: what actuals are compared with later."""

    __tablename__ = "earlier_forecasts"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    zone: Mapped[str] = mapped_column(String(80))
    provider: Mapped[str] = mapped_column(String(80))
    fetched_at: Mapped[datetime]
    start: Mapped[datetime]
    hourly_g_per_kwh: Mapped[list[float | None]]
    """One value an hour from `start` on; None is unknown."""
    __table_args__ = (Index("earlier_forecasts_by_zone", "zone", "provider", "fetched_at"),)


class FleetRow(Table):
    """How the jobs that share GPUs (or CPUs) were last planned together."""

    __tablename__ = "fleets"
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    """What is shared: gpus or cpus."""
    checked_at: Mapped[datetime]
    """When the plans were last found to be what they should be, or made."""
    made_from: Mapped[str] = mapped_column(String(64))
    """Hash of what they were made from."""
    zones: Mapped[list[str]]
    """Where more is asked for than there is."""
    jobs: Mapped[int]
    emissions_g: Mapped[float] = mapped_column(Float)
    bound_g: Mapped[float] = mapped_column(Float)
    missed: Mapped[list[str]]
    """Jobs that miss their deadline, the more important first."""


class CapacityRow(Table):
    """What a zone's nodes have for jobs of lowtide, as the cluster last showed them."""

    __tablename__ = "capacities"
    zone: Mapped[str] = mapped_column(String(80), primary_key=True)
    seen_at: Mapped[datetime]
    gpus: Mapped[float] = mapped_column(Float)
    cpus: Mapped[float] = mapped_column(Float)
    nodes: Mapped[list[dict[str, Any]]]
    """The nodes, those that are alike as one: see fleets.Alike."""


class Lease(Table):
    """The one row that says which controller may act; a change of holder raises the epoch."""

    __tablename__ = "lease"
    one: Mapped[int] = mapped_column(Integer, primary_key=True, default=1)
    holder: Mapped[str] = mapped_column(String(255))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]


class ProgressRow(Table):
    """A job's loss at a moment, a thin series: see progress.py."""

    __tablename__ = "progress"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True)
    step: Mapped[int]
    loss: Mapped[float] = mapped_column(Float)


class Event(Table):
    """One line of a job's history, for `logs` and the report."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    at: Mapped[datetime]
    text: Mapped[str] = mapped_column(Prose)
