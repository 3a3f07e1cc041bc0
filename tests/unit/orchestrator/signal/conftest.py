"""Answers in Electricity Maps' shape."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Secret
from orchestrator.http.session import Http
from orchestrator.signal.electricity_maps import ElectricityMaps
from orchestrator.signal.maps_account import Account
from tests.unit.orchestrator.loopback import QUICK


def electricity_maps(
    http: Http, url: str, key: str | None = "key-1", limits: Limits = QUICK, **more: Any
) -> ElectricityMaps:
    """The provider with an account whose key the variable EM_KEY holds, or with none."""
    return ElectricityMaps(http, Account(http, url, Secret(key) if key else None, "EM_KEY", limits), limits, **more)


def hour(offset: int = 0) -> datetime:
    """The start of the current hour, or of one so many hours from it."""
    now = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    return now + timedelta(hours=offset)


def stamp(at: datetime) -> str:
    """A time as Electricity Maps writes it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def forecast_of(values: list[Any], zone: str = "DE", step_s: float = 3600.0) -> dict[str, Any]:
    """A v4 forecast from the current hour on; an Ellipsis leaves its row out."""
    rows = [
        {"carbonIntensity": value, "datetime": stamp(hour() + timedelta(seconds=n * step_s))}
        for n, value in enumerate(values)
        if value is not ...
    ]
    return {"zone": zone, "forecast": rows, "updatedAt": stamp(hour()), "temporalGranularity": "hourly"}


def latest_of(value: Any, at: datetime | None = None, zone: str = "DE", estimated: bool = True) -> dict[str, Any]:
    return {
        "zone": zone,
        "carbonIntensity": value,
        "datetime": stamp(at or hour()),
        "updatedAt": stamp(hour()),
        "emissionFactorType": "lifecycle",
        "isEstimated": estimated,
        "estimationMethod": "TIME_SLICER_AVERAGE" if estimated else None,
    }
