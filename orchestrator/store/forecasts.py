"""Forecasts in the store: the newest of each zone and purpose, and earlier ones that actuals are compared with.
In: a provider's answer, or its fault. Out: the newest forecast, or what was forecast and measured before.
The refresher writes them; passes plan by them, `orchestrator.predict` learns from them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from jobs.spec import iso, utc
from orchestrator.predict import Earlier, series_of
from orchestrator.signal.chain import Purpose
from orchestrator.signal.forecast import Forecast, Kind, Point, Share
from orchestrator.store.schema import EarlierForecast, ForecastRow, IntensityRow

EARLIER_EVERY = timedelta(hours=3)
"""How far apart the forecasts are that stay for comparison: enough for every lead time, and small."""
EARLIER_KEPT = timedelta(days=60)
_HOUR_S = 3600.0
_FORM = "columns"
"""Forecasts that an earlier version kept in another form are as none: the next refresh brings new ones."""


def keep(
    session: Session,
    zone: str,
    purpose: Purpose,
    now: datetime,
    forecast: Forecast | None,
    fault: str | None,
    source: str = "",
) -> None:
    """Keep the newest forecast of a zone; a fault leaves the earlier one in place and says so.

    `source` tells who was asked: what others forecast, whom the site file named before, does not stay.
    """
    row = _row(session, zone, purpose, now)
    row.tried_at, row.fault = now, fault
    if forecast is not None:
        row.forecast = {"form": _FORM, "source": source, **_stored(forecast)}
    elif not is_of(row, source):
        row.forecast = None


def is_of(row: ForecastRow, source: str) -> bool:
    """Whether a row's forecast is one that these providers gave, in the form in which forecasts are kept now."""
    kept = row.forecast or {}
    return (kept.get("form"), kept.get("source")) == (_FORM, source)


def asked_measured(session: Session, zone: str, purpose: Purpose, now: datetime) -> None:
    """Remember that a zone's actuals were asked for, whatever came."""
    _row(session, zone, purpose, now).measured_at = now


def _row(session: Session, zone: str, purpose: Purpose, now: datetime) -> ForecastRow:
    row = session.get(ForecastRow, (zone, purpose))
    if row is None:
        row = ForecastRow(zone=zone, purpose=purpose, tried_at=now, fault=None, forecast=None)
        session.add(row)
    return row


def newest(session: Session, purpose: Purpose = "plan") -> dict[str, Forecast]:
    """The newest forecast of every zone that has one; stale where its providers have failed since."""
    found = {}
    for row in session.scalars(select(ForecastRow).where(ForecastRow.purpose == purpose)):
        if row.forecast is not None and row.forecast.get("form") == _FORM:
            forecast = _restored(row.forecast)
            found[row.zone] = replace(forecast, stale=forecast.stale or row.fault is not None, fault=row.fault)
    return found


def tried(session: Session, zone: str, purpose: Purpose) -> ForecastRow | None:
    """When a zone's forecast and its actuals were last asked for, and what came; None before the first time."""
    return session.get(ForecastRow, (zone, purpose))


def keep_earlier(session: Session, forecast: Forecast) -> None:
    """Keep a forecast as it was given for later comparison, where the last one kept is old enough."""
    mine = (EarlierForecast.zone == forecast.zone, EarlierForecast.provider == forecast.provider)
    last = session.scalar(select(func.max(EarlierForecast.fetched_at)).where(*mine))
    if last is not None and forecast.fetched_at - last < EARLIER_EVERY:
        return
    hourly = series_of([point for point in forecast.points if point.kind == "forecast"], _HOUR_S)
    if hourly is None:
        return
    values = [None if math.isnan(value) else round(float(value), 3) for value in hourly.g_per_kwh]
    session.add(
        EarlierForecast(
            zone=forecast.zone,
            provider=forecast.provider,
            fetched_at=forecast.fetched_at,
            start=hourly.start,
            hourly_g_per_kwh=values,
        )
    )
    old = EarlierForecast.fetched_at < forecast.fetched_at - EARLIER_KEPT
    session.execute(delete(EarlierForecast).where(*mine, old))


def earlier(session: Session, zone: str, provider: str) -> list[Earlier]:
    """The forecasts that were kept of a zone and provider, oldest first."""
    query = (
        select(EarlierForecast)
        .where(EarlierForecast.zone == zone, EarlierForecast.provider == provider)
        .order_by(EarlierForecast.fetched_at)
    )
    hour = timedelta(seconds=_HOUR_S)
    return [
        Earlier(
            row.fetched_at,
            tuple(
                Point(row.start + n * hour, row.start + (n + 1) * hour, value)
                for n, value in enumerate(row.hourly_g_per_kwh)
            ),
        )
        for row in session.scalars(query)
    ]


def history(session: Session, zone: str, providers: Sequence[str], since: datetime) -> list[Point]:
    """What was measured or estimated of a zone since then, in order, by the provider of these that knows most of it."""
    known = [_history(session, zone, provider, since) for provider in providers]
    return max(known, key=len, default=[])


def _history(session: Session, zone: str, provider: str, since: datetime) -> list[Point]:
    """The provider's newest word on each slot; a measured one outlives later estimates."""
    rows = session.execute(
        select(IntensityRow.start, IntensityRow.end, IntensityRow.g_per_kwh, IntensityRow.kind)
        .where(IntensityRow.zone == zone, IntensityRow.provider == provider, IntensityRow.start >= since)
        .where(IntensityRow.kind.in_(("measured", "estimated")))
        .order_by(IntensityRow.fetched_at, IntensityRow.id)
    )
    latest: dict[datetime, Point] = {}
    for start, end, g_per_kwh, kind in rows:
        known = latest.get(start)
        if known is None or kind == "measured" or known.kind != "measured":
            latest[start] = Point(start, end, g_per_kwh, cast(Kind, kind))
    return [latest[start] for start in sorted(latest)]


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
        "fault": forecast.fault,
        "factor": forecast.factor,
        "note": forecast.note,
        "points": [_point_json(point) for point in forecast.points],
        "renewable": [{"start": iso(s.start), "end": iso(s.end), "percent": s.percent} for s in forecast.renewable],
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {**point._asdict(), "start": iso(point.start), "end": iso(point.end)}


def _stored(forecast: Forecast) -> dict[str, Any]:
    """The forecast by columns, with times in seconds since 1970: a pass reads those of all zones."""
    return {
        "zone": forecast.zone,
        "provider": forecast.provider,
        "signal": forecast.signal,
        "issued_at": iso(forecast.issued_at) if forecast.issued_at else None,
        "fetched_at": iso(forecast.fetched_at),
        "stale": forecast.stale,
        "factor": forecast.factor,
        "note": forecast.note,
        "points": _columns(forecast.points),
        "renewable": _columns(forecast.renewable),
    }


def _columns(slots: Sequence[Point] | Sequence[Share]) -> list[list[Any]]:
    columns = [list(column) for column in zip(*slots, strict=True)]
    return [[moment.timestamp() for moment in column] for column in columns[:2]] + columns[2:]


def _restored(document: dict[str, Any]) -> Forecast:
    """The forecast that `_stored` wrote."""
    return Forecast(
        zone=document["zone"],
        provider=document["provider"],
        signal=document["signal"],
        points=tuple(map(Point, *_timed(document["points"]))),
        fetched_at=utc(document["fetched_at"]),
        issued_at=utc(document["issued_at"]) if document["issued_at"] else None,
        factor=document["factor"],
        stale=document["stale"],
        note=document["note"],
        renewable=tuple(map(Share, *_timed(document["renewable"]))),
    )


def _timed(columns: list[list[Any]]) -> list[list[Any]]:
    """Columns with their times; none at all becomes a column of none, so that nothing comes of it."""
    times = [[datetime.fromtimestamp(at_s, timezone.utc) for at_s in column] for column in columns[:2]]
    return [*times, *columns[2:]] or [[]]


def latest_start(session: Session, zone: str, providers: Sequence[str]) -> datetime | None:
    """Start of the newest slot that one of these providers measured of a zone; None before the first."""
    mine = (IntensityRow.zone == zone, IntensityRow.provider.in_(providers), IntensityRow.kind == "measured")
    return session.scalar(select(func.max(IntensityRow.start)).where(*mine))
