"""Facts in the store: ledger rows and intensities, appended once, linked into a chain and never changed.
In: a session with metered rows or a provider's answer. Out: the same facts, by job or by zone and time.
The ledger and the report derive every figure from them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import TextClause, func, or_, select, text
from sqlalchemy.orm import Session

from cluster.api import MeterRow
from orchestrator.accounting.account import Beside
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.signal.measured import Measured
from orchestrator.store import chain, draws
from orchestrator.store.schema import IntensityRow, LedgerRow, Segment

_FIELDS = tuple(MeterRow.__dataclass_fields__)
_BATCH = 500
_SIZES = (1, 10, 100, _BATCH)
_Key = tuple[str, str, int]
_LOOK_BACK = timedelta(days=2)


def add_rows(session: Session, rows: Sequence[MeterRow]) -> int:
    """Append the rows that the ledger does not have yet; returns how many were new."""
    sent = {(row.host_boot, row.device, row.seq): row for row in rows}
    known = _known(session, list(sent))
    fresh = [row for at, row in sent.items() if at not in known]
    chain.append(session, LedgerRow, [vars(row) for row in fresh])
    draws.add(session, fresh)
    return len(fresh)


def _known(session: Session, keys: Sequence[_Key]) -> set[_Key]:
    """Those of the keys that the ledger has: each is looked up by the index, which `IN` on a tuple would not use."""
    found: set[_Key] = set()
    for first in range(0, len(keys), _BATCH):
        batch = list(keys[first : first + _BATCH])
        # Few sizes, so that the question is compiled a few times only: the last key is asked for again.
        batch += [batch[-1]] * (next(size for size in _SIZES if size >= len(batch)) - len(batch))
        bound = {f"{part}{n}": value for n, key in enumerate(batch) for part, value in zip("hds", key, strict=True)}
        found.update(tuple(row) for row in session.execute(_look_up(len(batch)), bound))
    return found


@lru_cache(maxsize=len(_SIZES))
def _look_up(count: int) -> TextClause:
    keys = ", ".join(f"(:h{n}, :d{n}, :s{n})" for n in range(count))
    on = "l.host_boot = k.column1 AND l.device = k.column2 AND l.seq = k.column3"
    return text(f"SELECT l.host_boot, l.device, l.seq FROM (VALUES {keys}) AS k JOIN ledger_rows AS l ON {on}")


def rows_of(session: Session, job_id: str) -> list[MeterRow]:
    """The job's rows, oldest first."""
    query = select(LedgerRow).where(LedgerRow.job_id == job_id).order_by(LedgerRow.start, LedgerRow.seq)
    return [_meter_row(row) for row in session.scalars(query)]


@dataclass(frozen=True, slots=True)
class Drawn:
    """Joules of all rows of a segment that are of the same time; None is of no segment."""

    segment_id: str | None
    start: datetime
    end: datetime
    energy_j: float


def drawn_by_time(session: Session, job_ids: Collection[str]) -> dict[str, list[Drawn]]:
    """What each of these jobs drew, as far as it was metered, by time; jobs without any rows are absent."""
    wanted, found = sorted(job_ids), dict[str, list[Drawn]]()
    for first in range(0, len(wanted), _BATCH):
        times = (LedgerRow.job_id, LedgerRow.segment_id, LedgerRow.start, LedgerRow.end)
        query = (
            select(*times, func.sum(LedgerRow.energy_j))
            .where(LedgerRow.job_id.in_(wanted[first : first + _BATCH]), LedgerRow.energy_j.is_not(None))
            .group_by(*times)
        )
        for job_id, segment_id, start, end, energy_j in session.execute(query):
            found.setdefault(job_id or "", []).append(Drawn(segment_id, start, end, energy_j or 0.0))
    return found


def silent_hosts(session: Session, rows: Sequence[MeterRow], since: datetime) -> frozenset[str]:
    """Of the hosts of these rows, by boot, those of which the ledger has nothing that ended after `since`."""
    hosts = {row.host_boot for row in rows}
    heard = {
        host
        for host in hosts
        if session.scalar(select(LedgerRow.seq).where(LedgerRow.host_boot == host, LedgerRow.end > since).limit(1))
        is not None
    }
    return frozenset(hosts - heard)


def left_rows(session: Session, job_id: str, own: Sequence[MeterRow]) -> list[MeterRow]:
    """What the GPUs of these rows of a job drew for others or for nobody, from the first of the rows on."""
    uuids = {row.uuid for row in own if row.uuid is not None}
    if not uuids:
        return []
    query = select(LedgerRow).where(LedgerRow.uuid.in_(uuids), LedgerRow.start >= min(row.start for row in own))
    foreign = or_(LedgerRow.job_id.is_(None), LedgerRow.job_id != job_id)
    return [_meter_row(row) for row in session.scalars(query.where(foreign).order_by(LedgerRow.start, LedgerRow.seq))]


def idle_j(session: Session, start: datetime, end: datetime) -> float | None:
    """Joules of the site's idle account in rows that begin in [start, end); None where there is none."""
    query = select(func.sum(LedgerRow.energy_j)).where(LedgerRow.job_id.is_(None))
    return session.scalar(query.where(LedgerRow.start >= start, LedgerRow.start < end))


def segments_beside(session: Session, job_id: str, own: Sequence[MeterRow]) -> list[tuple[str, Segment]]:
    """The segments of other jobs that were metered on the hosts of these rows while the rows were made, by host."""
    hosts = {row.host_boot for row in own}
    start, end = min(row.start for row in own), max(row.end for row in own)
    metered = (
        select(LedgerRow.host_boot, LedgerRow.segment_id)
        .where(LedgerRow.host_boot.in_(hosts), LedgerRow.end > start, LedgerRow.start < end)
        .where(LedgerRow.job_id.is_not(None), LedgerRow.job_id != job_id)
        .distinct()
        .subquery()
    )
    query = select(metered.c.host_boot, Segment).join(Segment, Segment.id == metered.c.segment_id)
    return [(host, segment) for host, segment in session.execute(query.order_by(metered.c.host_boot, Segment.id))]


def drawn_beside(session: Session, job_id: str, own: Sequence[MeterRow]) -> list[Beside]:
    """What others drew, and what nobody did, on the hosts of these rows of a job while they were made."""
    hosts = {row.host_boot for row in own}
    start, end = min(row.start for row in own), max(row.end for row in own)
    query = (
        select(LedgerRow.host_boot, LedgerRow.job_id, LedgerRow.start, func.sum(LedgerRow.energy_j))
        .where(LedgerRow.host_boot.in_(hosts), LedgerRow.start >= start, LedgerRow.start < end)
        .where(or_(LedgerRow.job_id.is_(None), LedgerRow.job_id != job_id), LedgerRow.energy_j.is_not(None))
        .group_by(LedgerRow.host_boot, LedgerRow.job_id, LedgerRow.start)
        .order_by(LedgerRow.host_boot, LedgerRow.start)
    )
    return [Beside(host, other, at, energy_j or 0.0) for host, other, at, energy_j in session.execute(query)]


def _meter_row(row: LedgerRow) -> MeterRow:
    return MeterRow(**{name: getattr(row, name) for name in _FIELDS})


def add_intensities(session: Session, said: Forecast | Measured, points: Sequence[Point] | None = None) -> None:
    """Append what a provider says of these slots (default: of all), where it says something new of them.

    A slot keeps who said it, of which kind it is and when it was fetched; what was said earlier stays. Where lowtide
    corrected a forecast the provider's own figure is kept, and what lowtide extended is kept nowhere: neither charges.
    """
    given = [point for point in (said.points if points is None else points) if point.kind != "extended"]
    if not given:
        return
    rows = session.scalars(
        select(IntensityRow)
        .where(IntensityRow.zone == said.zone, IntensityRow.provider == said.provider)
        .where(IntensityRow.signal == said.signal)
        .where(IntensityRow.start >= min(p.start for p in given), IntensityRow.start <= max(p.start for p in given))
        .order_by(IntensityRow.fetched_at, IntensityRow.id)
    )
    newest = {(row.start, row.kind): (row.end, row.g_per_kwh) for row in rows}
    news = [
        {
            "zone": said.zone,
            "provider": said.provider,
            "signal": said.signal,
            "start": point.start,
            "end": point.end,
            "g_per_kwh": said_g_per_kwh(point),
            "kind": point.kind,
            "note": said.note,
            "fetched_at": said.fetched_at,
        }
        for point in given
        if newest.get((point.start, point.kind)) != (point.end, said_g_per_kwh(point))
    ]
    if news:
        chain.append(session, IntensityRow, news)


def add_current(session: Session, forecast: Forecast, now: datetime) -> None:
    """Append what a forecast says of the slots that have begun: they charge until what was measured is known."""
    begun = [p for p in forecast.points if p.start <= now and p.end > now - _LOOK_BACK]
    add_intensities(session, forecast, begun)


def said_g_per_kwh(point: Point) -> float | None:
    """What the provider said of a slot, whatever lowtide corrected."""
    return point.g_per_kwh if point.given_g_per_kwh is None else point.given_g_per_kwh


def intensities(
    session: Session, zone: str, start: datetime, end: datetime, providers: Sequence[str] | None = None
) -> Sequence[IntensityRow]:
    """All that was said of a zone in [start, end), revisions included; the ledger knows which of them charges.

    `providers` leaves out what others said: those that a zone plans by and is not charged by.
    """
    query = select(IntensityRow).where(IntensityRow.zone == zone, IntensityRow.end > start, IntensityRow.start < end)
    if providers is not None:
        query = query.where(IntensityRow.provider.in_(providers))
    return session.scalars(query.order_by(IntensityRow.start, IntensityRow.fetched_at, IntensityRow.id)).all()
