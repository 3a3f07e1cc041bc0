"""The hash chain of what is appended to the store, so that a later change of it shows.
In: a session and the contents of new rows, in order. Out: their places and links; later, what does not fit any more.
`facts` links what it appends; `lowtide report --verify` walks the chains.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from orchestrator.store.schema import ChainEnd, IntensityRow, LedgerRow

FIRST_LINK = "0" * 64
"""What the first row of a chain is linked to."""
_NO_CONTENT = frozenset({"id", "place", "link"})
_AT_ONCE = 1000
Linked = type[LedgerRow] | type[IntensityRow]


@dataclass(frozen=True)
class Audit:
    """What a walk along both chains found; `fault` names the first row that does not fit, None where all do."""

    rows: int
    intensities: int
    fault: str | None
    ends: Mapping[str, str]
    """The last link of each chain: whoever keeps it elsewhere also notices a chain that was written anew."""


def link(before: str, content: Mapping[Any, Any]) -> str:
    """SHA-256, in hex, of the link before and of what is known of a row.

    Unknown values are left out, so that a column that is added later changes no earlier link; numbers are floats and
    times are UTC, whatever the database makes of them.
    """
    known = {name: _plain(value) for name, value in content.items() if value is not None and name not in _NO_CONTENT}
    return hashlib.sha256((before + json.dumps(known, sort_keys=True, ensure_ascii=True)).encode()).hexdigest()


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        aware = value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc).isoformat(timespec="microseconds")
    return repr(float(value) + 0.0) if isinstance(value, (int, float)) else str(value)


def append(session: Session, table: Linked, contents: Iterable[dict[str, Any]]) -> None:
    """Write rows at the end of their table's chain; two that append at once wait for each other."""
    name = table.__tablename__
    end = session.get(ChainEnd, name, with_for_update=True, populate_existing=True)
    if end is None:
        end = ChainEnd(name=name, length=0, link=FIRST_LINK)
        session.add(end)
    linked: list[dict[str, Any]] = []
    last = end.link
    for place, content in enumerate(contents, end.length + 1):
        last = link(last, content)
        linked.append({**content, "place": place, "link": last})
    end.link, end.length = last, end.length + len(linked)
    if linked:
        session.execute(insert(table.__table__), linked)  # type: ignore[arg-type]  # a declarative class has a Table
    session.flush()


def audit(session: Session, job_id: str | None = None) -> Audit:
    """Walk both chains from their first rows; `rows` counts those of one job where `job_id` is given.

    Every row is checked whoever's it is: one that was moved to another job, or removed, was this job's before.
    """
    fault = _first_fault(session, LedgerRow) or _first_fault(session, IntensityRow)
    of_job = select(func.count()).select_from(LedgerRow)
    if job_id is not None:
        of_job = of_job.where(LedgerRow.job_id == job_id)
    return Audit(
        rows=session.scalar(of_job) or 0,
        intensities=session.scalar(select(func.count()).select_from(IntensityRow)) or 0,
        fault=fault,
        ends={end.name: end.link for end in session.scalars(select(ChainEnd).order_by(ChainEnd.name))},
    )


def _first_fault(session: Session, table: Linked) -> str | None:
    columns = table.__table__.columns
    stray = session.execute(select(*columns).where(table.place.is_(None)).limit(1)).mappings().first()
    if stray is not None:
        return f"{_named(table, stray)} was not written by lowtide: it has no place in the chain"
    before, length = FIRST_LINK, 0
    query = select(*columns).where(table.place.is_not(None)).order_by(table.place)
    with session.execute(query.execution_options(yield_per=_AT_ONCE)) as found:
        for row in found.mappings():
            missing = row["place"] - length - 1
            if missing:
                return f"{_named(table, row)} does not follow row {length}: {missing} before it are missing"
            if row["link"] != link(before, row):
                return f"{_named(table, row)} does not fit: it, or the link before it, was changed after it was written"
            before, length = row["link"], row["place"]
    end = session.get(ChainEnd, table.__tablename__)
    if (end.length, end.link) != (length, before) if end is not None else length > 0:
        return (
            f"{table.__tablename__} does not end as it was written: {length} rows are there, the last ones are missing"
        )
    return None


def _named(table: Linked, row: Mapping[Any, Any]) -> str:
    where = f"from {_plain(row['start'])}"
    if table is LedgerRow:
        key = f"{row['host_boot']}, {row['device']}, {row['seq']}"
        return f"ledger row {row['place'] or '?'} ({key}; job {row['job_id'] or 'none'}, {where})"
    return f"intensity {row['place'] or '?'} ({row['zone']} by {row['provider']}, {where})"
