"""Rows that meters still hold: of segments that have ended, on hosts that were not heard since.
In: segments that end, the ledger. Out: when the meters shall be asked again.
A pass with nothing to run attaches to the cluster only then: a host that comes back with its spool is taken in all the
same, and a site at rest is left at rest.

A host was heard when the ledger has a row of it that ended after the segment did: meters hand out the oldest first.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.store.schema import LedgerRow, Segment

FIRST = timedelta(seconds=65)
"""A meter cuts a row every 60 s at the latest: by then a host that is there has said something."""
LATEST = timedelta(hours=6)
"""The longest time between two questions."""
GIVEN_UP = timedelta(days=30)
"""A host that was silent for so long does not come back."""


def owe(segment: Segment) -> None:
    """The segment has ended: its hosts are to be heard once more."""
    segment.rows_due = segment.ended_at


def due(session: Session, now: datetime) -> bool:
    """Whether meters are to be asked for rows though nothing runs."""
    return session.scalar(select(Segment.id).where(Segment.rows_due <= now).limit(1)) is not None


def settle(session: Session, now: datetime) -> None:
    """The meters have been asked, or could not be: who was heard owes nothing any more, the others are asked later.

    The longer a host has been silent, the longer it is until it is asked again.
    """
    for segment in session.scalars(select(Segment).where(Segment.rows_due.is_not(None))):
        assert segment.ended_at is not None
        silent = now - segment.ended_at
        if silent > GIVEN_UP or (silent > timedelta(0) and _is_heard(session, segment.id, segment.ended_at)):
            segment.rows_due = None
        elif segment.rows_due is None or segment.rows_due <= now or segment.rows_due > now + LATEST:
            # Later than that it was written before the clock was set back.
            segment.rows_due = now + min(max(silent, FIRST), LATEST)


def _is_heard(session: Session, segment_id: str, ended_at: datetime) -> bool:
    """Whether each host that has rows of the segment has later ones, too; without rows nobody knows its hosts."""
    metered = select(LedgerRow.host_boot, LedgerRow.device).where(LedgerRow.segment_id == segment_id).distinct()
    newest: dict[str, datetime] = {}
    for host, device in session.execute(metered):
        own = select(LedgerRow.end).where(LedgerRow.host_boot == host, LedgerRow.device == device)
        last = session.scalar(own.order_by(LedgerRow.seq.desc()).limit(1))
        assert last is not None
        newest[host] = max(newest.get(host, last), last)
    return bool(newest) and min(newest.values()) > ended_at
