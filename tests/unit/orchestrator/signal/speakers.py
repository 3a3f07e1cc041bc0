"""How each of the other providers speaks, so that the table of failures is put to it as well.
In: slots. Out: documents in the shape of WattTime, of Great Britain's service and of the rest.
test_failures.py joins them to the CASES of failures.py.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from orchestrator.http.faults import SignalRefused
from orchestrator.http.limits import Limits
from orchestrator.http.refusal import Secret
from orchestrator.http.session import Http
from orchestrator.signal.carbon_aware_sdk import CarbonAwareSdk
from orchestrator.signal.csv import CsvAddress
from orchestrator.signal.energinet import Energinet
from orchestrator.signal.energy_charts import EnergyCharts
from orchestrator.signal.login import Login
from orchestrator.signal.uk import Uk
from orchestrator.signal.watttime import G_PER_KWH, WattTime
from tests.unit.orchestrator.loopback import ProviderServer, Reply
from tests.unit.orchestrator.signal.failures import FAILURES, Failure, Slot, Speaker, written


def _watttime_at(http: Http, url: str, limits: Limits) -> WattTime:
    half_hour = timedelta(minutes=30)
    login = Login(http, f"{url}/login", Secret("user-1"), Secret("password-1"), "USER and WORD", half_hour, limits)
    return WattTime(http, login, url, limits=limits)


def _logs_in(server: ProviderServer) -> None:
    server.on("login", Reply({"token": "token-1"}))


def _watttime(slots: list[Slot], zone: str) -> dict[str, Any]:
    meta = {
        "data_point_period_seconds": 300,
        "region": zone,
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "generated_at": "2026-01-01T00:00:00+00:00",
    }
    return {"data": [{"point_time": written(s.start), "value": _pounds(s.value)} for s in slots], "meta": meta}


def _pounds(value: Any) -> Any:
    """lbs/MWh of an intensity; what is none stays as it is."""
    return value / G_PER_KWH if type(value) in {int, float} and math.isfinite(value) else value


def _half_hours(slots: list[Slot]) -> list[dict[str, Any]]:
    def end(start: datetime | str) -> str:
        return written(start + timedelta(minutes=30) if isinstance(start, datetime) else start)

    return [
        {"from": written(s.start), "to": end(s.start), "intensity": {"forecast": s.value, "actual": None}}
        for s in slots
    ]


def _energy_charts(slots: list[Slot], zone: str) -> dict[str, Any]:
    times = [s.start.timestamp() if isinstance(s.start, datetime) else s.start for s in slots]
    return {
        "unix_seconds": times,
        "co2eq": [None] * len(slots),
        "co2eq_forecast": [s.value for s in slots],
        "deprecated": False,
    }


def _energinet(slots: list[Slot], zone: str) -> dict[str, Any]:
    rows = [
        {"Minutes5UTC": written(s.start).removesuffix("Z"), "PriceArea": zone, "CO2Emission": s.value} for s in slots
    ]
    return {"total": len(rows), "dataset": "CO2EmisProg", "records": rows}


def _carbon_aware_sdk(slots: list[Slot], zone: str) -> list[dict[str, Any]]:
    rows = [{"location": "PJM", "timestamp": written(s.start), "duration": 60, "value": s.value} for s in slots]
    return [{"generatedAt": "2026-01-01T00:00:00+00:00", "location": zone, "windowSize": 0, "forecastData": rows}]


def _csv(slots: list[Slot], zone: str) -> bytes:
    rows = "".join(f"{written(s.start)},{'' if s.value is None else s.value}\n" for s in slots)
    return f"start_utc,g_per_kwh\n{rows}".encode()


SPEAKERS: dict[str, Speaker] = {
    "watttime": Speaker(
        _watttime_at, zone="CAISO_NORTH", path="v3/forecast", write=_watttime, slot_s=300, prepare=_logs_in
    ),
    "uk": Speaker(
        Uk,
        zone="GB",
        path="fw48h",
        write=lambda slots, zone: {"data": _half_hours(slots)},
        slot_s=1800,
        names_zone=False,
    ),
    "uk by postcode": Speaker(
        Uk,
        zone="BS16",
        path="postcode/BS16",
        write=lambda slots, zone: {"data": {"regionid": 11, "postcode": zone, "data": _half_hours(slots)}},
        slot_s=1800,
    ),
    "uk by region": Speaker(
        Uk,
        zone="11",
        path="regionid/11",
        write=lambda slots, zone: {"data": [{"regionid": zone, "data": _half_hours(slots)}]},
        slot_s=1800,
    ),
    "energy_charts": Speaker(
        EnergyCharts,
        zone="DE",
        path="co2eq",
        write=_energy_charts,
        slot_s=900,
        names_zone=False,
        says_offset=False,
    ),
    "energinet": Speaker(
        Energinet, zone="DK1", path="dataset/CO2EmisProg", write=_energinet, slot_s=300, says_offset=False
    ),
    "carbon_aware_sdk": Speaker(
        lambda http, url, limits: CarbonAwareSdk(http, url, "marginal", limits),
        zone="eastus",
        path="emissions/forecasts/current",
        write=_carbon_aware_sdk,
    ),
    "csv": Speaker(
        lambda http, url, limits: CsvAddress(http, f"{url}/lab.csv", limits),
        zone="LAB",
        path="lab.csv",
        write=_csv,
        names_zone=False,
    ),
}

DIFFERS: dict[tuple[str, str], Failure] = {
    ("energy_charts", "404"): Failure(
        FAILURES["404"].replies, SignalRefused, "request", "give the zone another provider, or check base_url"
    ),
}
"""Failures that mean something else to a provider."""
