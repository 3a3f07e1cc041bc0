"""What the replay server answers: intensity and renewable share, in Electricity Maps' shapes.
In: a question about a zone at a moment. Out: the body of its answer, or Refused with a status.
The grid server puts HTTP around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from jobs.spec import utc
from orchestrator.replay import Replay

_ROWS_AT_MOST = 50_000
_HORIZON_H_AT_MOST = 168.0


class Refused(Exception):
    """An answer that is not 200, in the provider's envelope."""

    def __init__(self, status: int, text: str):
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Ask:
    """One question about a zone, at a moment."""

    zone: str
    replay: Replay
    params: Mapping[str, str]
    now: datetime

    def moment(self, name: str) -> datetime:
        """A parameter as a UTC time."""
        try:
            return utc(self.params.get(name, "").replace(" ", "+"))  # a bare + of an offset arrives as a space
        except ValueError:
            raise Refused(400, f'Missing or invalid date parameter "{name}"') from None

    def hours(self) -> float:
        """How far a forecast is asked for, in hours of the trace."""
        try:
            hours = float(self.params.get("horizonHours", "24"))
        except ValueError:
            hours = 0.0
        if not 0 < hours <= _HORIZON_H_AT_MOST:
            raise Refused(400, f'Parameter "horizonHours" must be above 0 and at most {_HORIZON_H_AT_MOST:g}')
        return hours

    def row(self, start: datetime, g_per_kwh: float | None) -> dict[str, Any]:
        """A row of what was measured."""
        return {
            "zone": self.zone,
            "carbonIntensity": g_per_kwh,
            "datetime": _time(start),
            "updatedAt": _time(self.now),
            "createdAt": _time(start),
            "emissionFactorType": self.params.get("emissionFactorType", "lifecycle"),
            "isEstimated": False,
            "estimationMethod": None,
        }


def _latest(ask: Ask) -> dict[str, Any]:
    start, g_per_kwh = ask.replay.current(ask.now)
    if g_per_kwh is None:
        raise Refused(404, f'No recent data for zone "{ask.zone}"')
    return {**ask.row(start, g_per_kwh), **_granularity(ask)}


def _forecast(ask: Ask) -> dict[str, Any]:
    ahead = ask.replay.ahead(ask.now, ask.hours())
    rows = [{"carbonIntensity": value, "datetime": _time(at)} for at, value in ahead]
    return {"forecast": rows, "updatedAt": _time(ask.now), **_granularity(ask)}


def _history(ask: Ask) -> dict[str, Any]:
    return {"history": [ask.row(at, value) for at, value in ask.replay.history(ask.now)], **_granularity(ask)}


def _past_range(ask: Ask) -> dict[str, Any]:
    start, end = ask.moment("start"), ask.moment("end")
    if end < start or (min(end, ask.now) - start) / timedelta(seconds=ask.replay.slot_s) > _ROWS_AT_MOST:
        raise Refused(400, f"The range must end after it starts and hold at most {_ROWS_AT_MOST} slots")
    return {"data": [ask.row(at, value) for at, value in ask.replay.past(start, end, ask.now)], **_granularity(ask)}


def _latest_share(ask: Ask) -> dict[str, Any]:
    start, percent = next(ask.replay.shares(ask.now, 0), (ask.now, None))
    if percent is None:
        raise Refused(404, f'No recent data for zone "{ask.zone}"')
    row = {name: value for name, value in ask.row(start, None).items() if name not in _INTENSITY_ONLY}
    return {**row, "unit": "%", "value": percent, **_granularity(ask)}


def _share_forecast(ask: Ask) -> dict[str, Any]:
    rows = [{"value": value, "datetime": _time(at)} for at, value in ask.replay.shares(ask.now, ask.hours())]
    if not rows:
        raise Refused(404, f'No recent data for zone "{ask.zone}"')
    return {"data": rows, **_granularity(ask)}


_INTENSITY_ONLY = frozenset({"carbonIntensity", "emissionFactorType"})
ANSWERS: dict[str, dict[str, Callable[[Ask], dict[str, Any]]]] = {
    "carbon-intensity": {
        "latest": _latest,
        "forecast": _forecast,
        "history": _history,
        "past-range": _past_range,
    },
    "renewable-energy": {"latest": _latest_share, "forecast": _share_forecast},
}
"""What can be asked of a zone, by signal and path."""


def access(replay: Replay) -> list[str]:
    """The paths that a zone has: the renewable share where its trace has one."""
    signals = ANSWERS if replay.trace.renewable_percent else ["carbon-intensity"]
    return [f"{signal}/{what}" for signal in signals for what in ANSWERS[signal]]


def _granularity(ask: Ask) -> dict[str, str]:
    """The provider's word for the slot's length, or seconds where it has none: clients go by the rows."""
    words = {300: "5_minutes", 900: "15_minutes", 3600: "hourly"}
    return {"temporalGranularity": words.get(ask.replay.slot_s, f"{ask.replay.slot_s}_seconds")}


def _time(at: datetime) -> str:
    """As the provider writes times: always with milliseconds."""
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
