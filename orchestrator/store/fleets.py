"""Fleets in the store: how jobs that share GPUs were planned together, their plans, and what the zones have for them.
In: what the planner made, what the cluster showed. Out: the same, for passes, commands and the next planner.
The planner writes plans beside the passes; a pass reads them with the jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session

from orchestrator.store.schema import CapacityRow, FleetRow, Job

Kind = Literal["gpus", "cpus"]
"""What jobs share; those without GPUs share CPUs."""
KINDS: tuple[Kind, ...] = ("gpus", "cpus")

_MARK = "fleet"
_LONG = 20


class Alike(NamedTuple):
    """Nodes of a zone that are alike: each one's GPUs and CPUs for jobs of lowtide, and those that it has at all."""

    gpu_kind: str | None
    gpus: float
    cpus: float
    all_gpus: float
    all_cpus: float
    number: int = 1


@dataclass(frozen=True)
class Shown:
    """What a cluster showed of a zone: what its nodes have for jobs of lowtide."""

    gpus: float
    cpus: float
    nodes: tuple[Alike, ...] = ()
    """Empty where they are not known one by one."""


def fleets(session: Session) -> dict[str, FleetRow]:
    """The fleets by kind, as last planned."""
    return {row.kind: row for row in session.scalars(select(FleetRow))}


def figures(jobs: int, emissions_g: float, bound_g: float, missed: Sequence[str]) -> dict[str, Any]:
    """A fleet's figures, as commands show them: grams of all its plans, and how far from the least they can be."""
    gap_percent = 100.0 * (emissions_g - bound_g) / bound_g if bound_g > 0 else 0.0
    return {
        "jobs": jobs,
        "emissions_g": emissions_g,
        "bound_g": bound_g,
        "gap_percent": gap_percent,
        "missed": list(missed),
    }


def figures_of(session: Session, planned_for: str | None) -> dict[str, Any] | None:
    """The figures of the fleet that a plan was made for; None where it was made for the job alone."""
    kind = kind_of(planned_for)
    row = session.get(FleetRow, kind) if kind is not None else None
    return figures(row.jobs, row.emissions_g, row.bound_g, row.missed) if row is not None else None


def keep(session: Session, row: FleetRow) -> None:
    """Put the fleet in place of the one of its kind."""
    session.merge(row)


def forget(session: Session, kind: Kind) -> None:
    """There is no such fleet any more."""
    session.execute(delete(FleetRow).where(FleetRow.kind == kind))


def mark(kind: Kind, made_from: str, made: str) -> str:
    """What `Job.planned_for` says of a plan that was made for a fleet: hashes of what it was made from, and of it."""
    return f"{_MARK}:{kind}:{made_from[:_LONG]}:{made[:_LONG]}"


def is_made_from(planned_for: str | None, kind: Kind, made_from: str) -> bool:
    """Whether a plan was made for the fleet from just this."""
    return (planned_for or "").startswith(f"{_MARK}:{kind}:{made_from[:_LONG]}:")


def kind_of(planned_for: str | None) -> str | None:
    """The kind of the fleet that a plan was made for; None where it was made for the job alone."""
    parts = (planned_for or "").split(":")
    return parts[1] if parts[0] == _MARK and len(parts) == 4 else None


def keep_plans(session: Session, plans: Sequence[tuple[str, dict[str, Any] | None, str | None]]) -> None:
    """Write plans (job, document, `planned_for`) of jobs that have not ended; None drops a plan."""
    if not plans:
        return
    given = [{"job_id": job_id, "new_plan": plan, "new_for": made_for} for job_id, plan, made_for in plans]
    statement = (
        update(Job)
        .where(Job.id == bindparam("job_id"), Job.ended_at.is_(None))
        .values(plan=bindparam("new_plan"), planned_for=bindparam("new_for"))
    )
    session.connection().execute(statement, given)


def capacities(session: Session, since: datetime | None = None) -> dict[str, Shown]:
    """What the zones had for jobs when the cluster was last seen, or since then; zones without nodes are absent."""
    rows = [row for row in session.scalars(select(CapacityRow)) if since is None or row.seen_at >= since]
    return {row.zone: Shown(row.gpus, row.cpus, tuple(Alike(**each) for each in row.nodes)) for row in rows}


def keep_capacities(session: Session, shown: Mapping[str, Shown], now: datetime) -> None:
    """Put what the cluster shows now in place of what it showed before."""
    session.execute(delete(CapacityRow).where(CapacityRow.zone.not_in(list(shown))))
    for zone, has in shown.items():
        nodes = [each._asdict() for each in has.nodes]
        session.merge(CapacityRow(zone=zone, seen_at=now, gpus=has.gpus, cpus=has.cpus, nodes=nodes))
