"""Running sums of the ledger's rows: what each rank of a segment drew of each device, and its newest row.
In: rows that are new to the ledger, in the transaction that appends them. Out: joules by job, watts by rank.
A pass asks for them; reports add up the rows themselves, and a test holds that both say the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Insert, Table, case, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from cluster.api import MeterRow
from orchestrator.store.schema import Draw

_AT_ONCE = 500
"""Ids in one question: SQLite takes some thousands."""
_TABLE = cast(Table, Draw.__table__)
_SUMS = ("energy_j", "train_j", "train_s")
_NEWEST = ("last_start", "last_end", "last_j")


@dataclass
class _Sum:
    """What rows of one rank and device add; None is unmetered."""

    job_id: str
    energy_j: float
    train_j: float
    train_s: float
    last_start: datetime
    last_end: datetime
    last_j: float | None


def add(session: Session, rows: Iterable[MeterRow]) -> None:
    """Add rows that the ledger did not have; those of the idle account are nobody's."""
    sums: dict[tuple[str, int, str], _Sum] = {}
    for row in rows:
        if row.segment_id is None or row.job_id is None or row.rank is None:
            continue
        key = (row.segment_id, row.rank, row.device)
        known = sums.get(key)
        if known is None:
            known = sums[key] = _Sum(row.job_id, 0.0, 0.0, 0.0, row.start, row.end, row.energy_j)
        elif row.end > known.last_end:
            known.last_start, known.last_end, known.last_j = row.start, row.end, row.energy_j
        if row.energy_j is not None:
            known.energy_j += row.energy_j
            if row.phase == "train":
                known.train_j += row.energy_j
                known.train_s += (row.end - row.start).total_seconds()
    if sums:
        values = [
            {"segment_id": segment_id, "rank": rank, "device": device, **vars(each)}
            for (segment_id, rank, device), each in sums.items()
        ]
        session.execute(_upsert(session), values)


def _upsert(session: Session) -> Insert:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    wanted = insert(_TABLE)
    new, old = wanted.excluded, _TABLE.c
    update: dict[str, Any] = {name: old[name] + new[name] for name in _SUMS}
    update |= {name: case((new.last_end > old.last_end, new[name]), else_=old[name]) for name in _NEWEST}
    return wanted.on_conflict_do_update(index_elements=["segment_id", "rank", "device"], set_=update)


def energy_j(session: Session, job_ids: Collection[str]) -> dict[str, float]:
    """Joules of all rows of each job; jobs without any are absent."""
    found: dict[str, float] = {}
    for some in _chunks(job_ids):
        query = select(Draw.job_id, func.sum(Draw.energy_j)).where(Draw.job_id.in_(some)).group_by(Draw.job_id)
        found |= {job_id: total_j for job_id, total_j in session.execute(query)}
    return found


def power_w(session: Session, segment_ids: Collection[str], since: datetime) -> dict[str, dict[int, float]]:
    """Watts of each rank of these segments, by segment: the means of its devices' newest rows, where they end later."""
    found: dict[str, dict[int, float]] = {}
    for some in _chunks(segment_ids):
        query = select(Draw.segment_id, Draw.rank, Draw.last_start, Draw.last_end, Draw.last_j).where(
            Draw.segment_id.in_(some), Draw.last_end > since, Draw.last_j.is_not(None)
        )
        for segment_id, rank, start, end, last_j in session.execute(query):
            if last_j is not None and end > start:
                ranks = found.setdefault(segment_id, {})
                ranks[rank] = ranks.get(rank, 0.0) + last_j / (end - start).total_seconds()
    return found


def trained(session: Session, segment_ids: Collection[str]) -> dict[str, tuple[float, float]]:
    """Joules of all workers in training and the seconds of the one that was metered longest, by segment.

    Ranks train at the same time, and each on several devices: their seconds are not added.
    """
    found: dict[str, tuple[float, float]] = {}
    for some in _chunks(segment_ids):
        query = (
            select(Draw.segment_id, func.sum(Draw.train_j), func.max(Draw.train_s))
            .where(Draw.segment_id.in_(some), Draw.rank >= 0)
            .group_by(Draw.segment_id)
        )
        found |= {segment_id: (total_j, longest_s) for segment_id, total_j, longest_s in session.execute(query)}
    return found


def _chunks(ids: Collection[str]) -> Iterator[Sequence[str]]:
    wanted = sorted(ids)
    for first in range(0, len(wanted), _AT_ONCE):
        yield wanted[first : first + _AT_ONCE]
