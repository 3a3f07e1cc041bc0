"""Facts in the store: ledger rows, intensities and forecasts, appended once and never changed.
In: a session with metered rows or a provider's answer. Out: the same facts, by job or by zone and time.
The ledger and the report derive every figure from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from cluster.api import MeterRow
from jobs.spec import iso, utc
from orchestrator.signal.forecast import Forecast, Point
from orchestrator.signal.measured import Measured
from orchestrator.store.schema import ForecastRow, IntensityRow, LedgerRow

_FIELDS = tuple(MeterRow.__dataclass_fields__)
_BATCH = 200


def add_rows(session: Session, rows: Sequence[MeterRow]) -> int:
    """Append the rows that the ledger does not have yet; returns how many were new."""
    new = 0
    for first in range(0, len(rows), _BATCH):
        batch = {(row.host_boot, row.device, row.seq): row for row in rows[first : first + _BATCH]}
        key = tuple_(LedgerRow.host_boot, LedgerRow.device, LedgerRow.seq)
        known = {
            tuple(found)
            for found in session.execute(
                select(LedgerRow.host_boot, LedgerRow.device, LedgerRow.seq).where(key.in_(batch))
            )
        }
        fresh = [row for at, row in batch.items() if at not in known]
        session.add_all(LedgerRow(**{name: getattr(row, name) for name in _FIELDS}) for row in fresh)
        session.flush()
        new += len(fresh)
    return new


def rows_of(session: Session, job_id: str) -> list[MeterRow]:
    """The job's rows, oldest first."""
    query = select(LedgerRow).where(LedgerRow.job_id == job_id).order_by(LedgerRow.start, LedgerRow.seq)
    return [_meter_row(row) for row in session.scalars(query)]


def last_rows(session: Session, job_id: str, since: datetime) -> list[MeterRow]:
    """The job's rows that ended after `since`."""
    query = select(LedgerRow).where(LedgerRow.job_id == job_id, LedgerRow.end > since)
    return [_meter_row(row) for row in session.scalars(query)]


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
    for point in given:
        g_per_kwh = said_g_per_kwh(point)
        if newest.get((point.start, point.kind)) == (point.end, g_per_kwh):
            continue
        session.add(
            IntensityRow(
                zone=said.zone,
                provider=said.provider,
                signal=said.signal,
                start=point.start,
                end=point.end,
                g_per_kwh=g_per_kwh,
                kind=point.kind,
                note=said.note,
                fetched_at=said.fetched_at,
            )
        )


def said_g_per_kwh(point: Point) -> float | None:
    """What the provider said of a slot, whatever lowtide corrected."""
    return point.g_per_kwh if point.given_g_per_kwh is None else point.given_g_per_kwh


def intensities(session: Session, zone: str, start: datetime, end: datetime) -> Sequence[IntensityRow]:
    """All that was said of a zone in [start, end), revisions included; the ledger knows which of them charges."""
    query = select(IntensityRow).where(IntensityRow.zone == zone, IntensityRow.end > start, IntensityRow.start < end)
    return session.scalars(query.order_by(IntensityRow.start, IntensityRow.fetched_at, IntensityRow.id)).all()


def keep_forecast(session: Session, zone: str, now: datetime, forecast: Forecast | None, fault: str | None) -> None:
    """Keep the newest forecast of a zone; a fault leaves the earlier one in place and says so."""
    row = session.get(ForecastRow, zone)
    if row is None:
        row = ForecastRow(zone=zone, tried_at=now, fault=fault, forecast=None)
        session.add(row)
    row.tried_at, row.fault = now, fault
    if forecast is not None:
        row.forecast = to_json(forecast)
        past = [p for p in forecast.points if p.start <= now and p.end > now - timedelta(days=2)]
        add_intensities(session, forecast, past)


def forecasts(session: Session) -> dict[str, Forecast]:
    """The newest forecast of every zone that has one; stale where its providers have failed since."""
    found = {}
    for row in session.scalars(select(ForecastRow)):
        if row.forecast is not None:
            forecast = from_json(row.forecast)
            found[row.zone] = replace(forecast, stale=forecast.stale or row.fault is not None)
    return found


def forecast_fault(session: Session, zone: str) -> str | None:
    """What the providers of a zone said when they were last asked, where that was no forecast."""
    row = session.get(ForecastRow, zone)
    return row.fault if row is not None else None


def to_json(forecast: Forecast) -> dict[str, Any]:
    """The forecast as `forecast --json` shows it."""
    return {
        "zone": forecast.zone,
        "provider": forecast.provider,
        "signal": forecast.signal,
        "unit": "g/kWh",
        "issued_at": iso(forecast.issued_at) if forecast.issued_at else None,
        "fetched_at": iso(forecast.fetched_at),
        "stale": forecast.stale,
        "factor": forecast.factor,
        "note": forecast.note,
        "points": [
            {"start": iso(p.start), "end": iso(p.end), "g_per_kwh": p.g_per_kwh, "kind": p.kind}
            for p in forecast.points
        ],
    }


def from_json(document: dict[str, Any]) -> Forecast:
    """The forecast that `to_json` wrote."""
    return Forecast(
        zone=document["zone"],
        provider=document["provider"],
        signal=document["signal"],
        points=tuple(Point(utc(p["start"]), utc(p["end"]), p["g_per_kwh"], p["kind"]) for p in document["points"]),
        fetched_at=utc(document["fetched_at"]),
        issued_at=utc(document["issued_at"]) if document["issued_at"] else None,
        factor=document["factor"],
        stale=document["stale"],
        note=document["note"],
    )
